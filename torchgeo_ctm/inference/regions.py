"""Connected patches of a class raster: their pixels, area and confidence."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .areas import PixelAreas
from .masks import read_rows, strips


class Patches(NamedTuple):
    """4-connected patches of one class, ordered by their first pixel.

    A patch is known by its first pixel in reading order: row × width + column.
    """

    first: NDArray[np.int64]
    classes: NDArray[np.int32]
    pixels: NDArray[np.int64]
    hectares: NDArray[np.float64]
    confidence: NDArray[np.float64]


class _Pieces(NamedTuple):
    """What lies of patches in one strip; sums, so that pieces can be added."""

    first: NDArray[np.int64]
    classes: NDArray[np.int32]
    sums: NDArray[np.float64]


def find_patches(
    mask: DatasetReader, areas: PixelAreas | None, confidence: DatasetReader | None
) -> Patches:
    """Find the patches, reading strip by strip; memory grows with their number.

    Args:
        mask: Class raster.
        areas: Areas of its pixels, or None: hectares are NaN then.
        confidence: Confidence on the same grid, or None. The mean is taken over the
            pixels of a patch that have one; NaN where none has.

    Raises:
        SceneError: If a raster is damaged.
    """
    pieces: list[_Pieces] = []
    links = [np.empty((2, 0), np.int64)]
    last_values = last_ids = np.empty(0, np.int64)
    count = 0
    for row, values in strips(mask):
        ids, found = _pieces_of(
            row, values, _quantities(row, values, areas, confidence)
        )
        if row:
            meet = last_values == values[0]
            joined = np.stack([last_ids[meet], ids[0][meet] + count])
            links.append(np.unique(joined, axis=1))
        last_values, last_ids = values[-1], ids[-1].astype(np.int64) + count
        count += len(found.first)
        pieces.append(found)
    return _joined(pieces, np.concatenate(links, axis=1))


def _quantities(
    row: int,
    values: NDArray[np.int32],
    areas: PixelAreas | None,
    confidence: DatasetReader | None,
) -> list[NDArray[np.float64]]:
    """Return what is added up over a strip's pixels.

    Hectares, confidence, and whether there is one.
    """
    hectares = np.full(values.shape, np.nan)
    if areas is not None:
        hectares = areas.rows(row, row + len(values))
    if confidence is None:
        return [hectares]
    share = read_rows(confidence, row, len(values)).astype(np.float64)
    known = np.isfinite(share)
    if confidence.nodata is not None:
        known &= share != confidence.nodata
    return [hectares, np.where(known, share, 0), known.astype(np.float64)]


def _pieces_of(
    row: int, values: NDArray[np.int32], quantities: list[NDArray[np.float64]]
) -> tuple[NDArray[np.int32], _Pieces]:
    """Label a strip by runs of equal pixels: (piece of each pixel, pieces)."""
    begins = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    runs = (np.cumsum(begins, dtype=np.int32) - 1).reshape(values.shape)
    # two runs meet once: where the later of them begins
    meet = (values[1:] == values[:-1]) & (begins[1:] | begins[:-1])
    count, labels = _components(len(starts), runs[:-1][meet], runs[1:][meet])
    first = np.full(count, values.size, np.int64)
    np.minimum.at(first, labels, starts)
    lengths = np.diff(starts, append=values.size)
    sums = [np.bincount(labels, lengths, count)]
    for quantity in quantities:
        per_run = np.add.reduceat(quantity.ravel(), starts)
        sums.append(np.bincount(labels, per_run, count))
    pieces = _Pieces(
        first + row * values.shape[1], values.ravel()[first], np.stack(sums)
    )
    return labels[runs], pieces


def _components(
    count: int, one: NDArray[np.integer], other: NDArray[np.integer]
) -> tuple[int, NDArray[np.int32]]:
    """Return the number of components of a graph, and the component of each node."""
    # SciPy 1.11 takes no int64 here: it finds nothing, and only prints why
    edges = one.astype(np.int32, copy=False), other.astype(np.int32, copy=False)
    graph = coo_array((np.ones(len(one), bool), edges), (count, count))
    found, labels = connected_components(graph.tocsr(), directed=False)
    return int(found), np.asarray(labels, np.int32)


def _joined(pieces: list[_Pieces], links: NDArray[np.int64]) -> Patches:
    """Join pieces of neighbouring strips, and drop nodata."""
    first = np.concatenate([piece.first for piece in pieces])
    classes = np.concatenate([piece.classes for piece in pieces])
    sums = np.concatenate([piece.sums for piece in pieces], axis=1)
    count, labels = _components(len(first), links[0], links[1])
    # pieces are ordered by strip, so the first one holds the first pixel
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
    return Patches(
        lowest[order],
        classes[where][order],
        totals[0].astype(np.int64),
        totals[1],
        mean,
    )
