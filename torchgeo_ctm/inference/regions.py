"""Connected regions of a class raster: their pixels, area and confidence."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .areas import PixelAreas
from .masks import read_rows, row_bands


class Regions(NamedTuple):
    """4-connected regions of one class, ordered by their first pixel.

    A region is identified by its first pixel in reading order: row × width + column.
    """

    first: NDArray[np.int64]
    classes: NDArray[np.int32]
    pixels: NDArray[np.int64]
    hectares: NDArray[np.float64]
    confidence: NDArray[np.float64]


class Parts(NamedTuple):
    """Parts of regions in one row band; sums, so that parts can be added."""

    first: NDArray[np.int64]
    classes: NDArray[np.int32]
    sums: NDArray[np.float64]


def find_regions(
    mask: DatasetReader, areas: PixelAreas | None, confidence: DatasetReader | None
) -> Regions:
    """Return the regions, read by row bands; memory grows with their number.

    Args:
        mask: Class raster.
        areas: Areas of its pixels; None: hectares are NaN.
        confidence: Confidence on the same grid, or None. The mean is that of the valid
            pixels of a region; NaN where there is none.

    Raises:
        SceneError: If a raster is damaged.
    """
    parts: list[Parts] = []
    links = [np.empty((2, 0), np.int64)]
    last_values = last_ids = np.empty(0, np.int64)
    count = 0
    for row, values in row_bands(mask):
        ids, found = parts_of(row, values, _quantities(row, values, areas, confidence))
        if row:
            meet = last_values == values[0]
            joined = np.stack([last_ids[meet], ids[0][meet] + count])
            links.append(np.unique(joined, axis=1))
        last_values, last_ids = values[-1], ids[-1].astype(np.int64) + count
        count += len(found.first)
        parts.append(found)
    return _joined(parts, np.concatenate(links, axis=1))


def _quantities(
    row: int,
    values: NDArray[np.int32],
    areas: PixelAreas | None,
    confidence: DatasetReader | None,
) -> list[NDArray[np.float64]]:
    """Return hectares, confidence and its validity, to be summed over pixels."""
    hectares = np.full(values.shape, np.nan)
    if areas is not None:
        hectares = areas.rows(row, row + len(values))
    if confidence is None:
        return [hectares]
    percent = read_rows(confidence, row, len(values)).astype(np.float64)
    known = np.isfinite(percent)
    if confidence.nodata is not None:
        known &= percent != confidence.nodata
    return [hectares, np.where(known, percent, 0), known.astype(np.float64)]


def parts_of(
    row: int, values: NDArray[np.int32], quantities: list[NDArray[np.float64]]
) -> tuple[NDArray[np.int32], Parts]:
    """Return the part of each pixel of a row band, and the parts."""
    begins = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    runs = (np.cumsum(begins, dtype=np.int32) - 1).reshape(values.shape)
    # two runs touch once: where the later of them begins
    meet = (values[1:] == values[:-1]) & (begins[1:] | begins[:-1])
    count, labels = components(len(starts), runs[:-1][meet], runs[1:][meet])
    first = np.full(count, values.size, np.int64)
    np.minimum.at(first, labels, starts)
    lengths = np.diff(starts, append=values.size)
    sums = [np.bincount(labels, lengths, count)]
    for quantity in quantities:
        per_run = np.add.reduceat(quantity.ravel(), starts)
        sums.append(np.bincount(labels, per_run, count))
    parts = Parts(first + row * values.shape[1], values.ravel()[first], np.stack(sums))
    return labels[runs], parts


def components(
    count: int, one: NDArray[np.integer], other: NDArray[np.integer]
) -> tuple[int, NDArray[np.int32]]:
    """Return the number of components of a graph, and the component of each node."""
    # SciPy 1.11 fails with int64 here: it finds nothing and only prints why
    edges = one.astype(np.int32, copy=False), other.astype(np.int32, copy=False)
    graph = coo_array((np.ones(len(one), bool), edges), (count, count))
    found, labels = connected_components(graph.tocsr(), directed=False)
    return int(found), np.asarray(labels, np.int32)


def _joined(parts: list[Parts], links: NDArray[np.int64]) -> Regions:
    """Join parts of neighboring row bands, and drop nodata."""
    first = np.concatenate([part.first for part in parts])
    classes = np.concatenate([part.classes for part in parts])
    sums = np.concatenate([part.sums for part in parts], axis=1)
    count, labels = components(len(first), links[0], links[1])
    # parts are ordered by row band, so the first one holds the first pixel
    _, where = np.unique(labels, return_index=True)
    lowest = first[where]
    np.minimum.at(lowest, labels, first)
    totals = np.stack([np.bincount(labels, row, count) for row in sums])
    order = np.argsort(lowest)
    order = order[classes[where][order] >= 0]
    totals = totals[:, order]
    mean = np.full(len(order), np.nan)
    if len(totals) > 2:
        np.divide(totals[2], totals[3], out=mean, where=totals[3] > 0)
    return Regions(
        lowest[order],
        classes[where][order],
        totals[0].astype(np.int64),
        totals[1],
        mean,
    )
