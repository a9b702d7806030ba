"""Merge small regions of a class raster into their largest neighbors, by row bands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..rasters import quiet
from .checksums import Checksums
from .masks import open_mask, row_bands
from .regions import components, parts_of

#: Steps in which chains of small regions are followed, each twice as far as before.
DOUBLINGS = 40


class _Band(NamedTuple):
    """The parts of regions in one row band, numbered on from the band above."""

    row: int
    values: NDArray[np.int32]
    ids: NDArray[np.int64]
    classes: NDArray[np.int32]
    pixels: NDArray[np.int64]


def sieved(mask: DatasetReader, size: int, folder: Path) -> DatasetReader:
    """Merge small regions into their largest neighbor, but never across nodata.

    The rule is that of GDAL's ``gdal_sieve.py``. Its function holds Python's lock until
    it ends, so that no signal is answered meanwhile; this one goes by row bands.

    Args:
        mask: Class raster.
        size: Merge regions of fewer pixels.
        folder: Folder for temporary files.

    Returns:
        The sieved raster, or *mask*, opened again, if there is nothing to do.
    """
    if size < 2:
        return open_mask(mask.name)
    classes = _merged_classes(mask, size)
    nodata = 255 if mask.nodata is None else mask.nodata
    profile: dict[str, Any] = {
        'driver': 'GTiff',
        'height': mask.height,
        'width': mask.width,
        'count': 1,
        'compress': 'LZW',
        'BIGTIFF': 'IF_SAFER',
        'crs': mask.crs,
        'transform': mask.transform,
        'dtype': mask.dtypes[0],
        'nodata': mask.nodata,
    }
    path, checksums = folder / 'sieved', Checksums(1)
    with quiet(), rasterio.open(path, 'w', **profile) as made:
        for band in _bands(mask):
            window = RasterWindow(0, band.row, mask.width, len(band.values))
            values = np.where(band.values < 0, nodata, classes[band.ids])
            checksums.add(values.astype(mask.dtypes[0])[None])
            made.write(values.astype(mask.dtypes[0]), 1, window=window)
    checksums.check(path, path)
    return open_mask(path)


def _bands(mask: DatasetReader) -> Iterator[_Band]:
    """Read a class raster by row bands, with the part that each pixel belongs to."""
    count = 0
    for row, values in row_bands(mask):
        ids, parts = parts_of(row, values, [])
        pixels = parts.sums[0].astype(np.int64)
        # NumPy 1 keeps 32 bits in a sum with a scalar
        yield _Band(row, values, ids.astype(np.int64) + count, parts.classes, pixels)
        count += len(parts.first)


def _merged_classes(mask: DatasetReader, size: int) -> NDArray[np.int32]:
    """Return the class of each part after small regions are merged."""
    classes, pixels, same, touching = [], [], [], []
    above: _Band | None = None
    for band in _bands(mask):
        classes.append(band.classes)
        pixels.append(band.pixels)
        values, ids = band.values, band.ids
        if above is not None:
            # the last row of the band above
            values = np.concatenate([above.values[-1:], values])
            ids = np.concatenate([above.ids[-1:], ids])
            joined = values[0] == values[1]
            same.append(_pairs(ids[0][joined], ids[1][joined]))
        known = values >= 0
        for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
            edge = (values[one] != values[other]) & known[one] & known[other]
            touching.append(_pairs(ids[one][edge], ids[other][edge]))
        above = band
    part_classes, part_pixels = np.concatenate(classes), np.concatenate(pixels)
    links = np.concatenate([np.empty((2, 0), np.int64), *same], axis=1)
    count, region = components(len(part_classes), links[0], links[1])
    area = np.bincount(region, part_pixels, count)
    _, first = np.unique(region, return_index=True)
    pairs = region[np.concatenate(touching, axis=1)]
    target = _targets(area, pairs, size)
    return np.asarray(part_classes[first][target][region])


def _pairs(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return different pairs (2, n), the smaller number first."""
    # one number for a pair sorts several times as fast as two
    code = np.unique(np.minimum(one, other) << 32 | np.maximum(one, other))
    return np.stack([code >> 32, code & 0xFFFFFFFF])


def _targets(
    area: NDArray[Any], pairs: NDArray[np.integer], size: int
) -> NDArray[np.int64]:
    """Return the region that each region is merged into, itself if it is kept.

    Args:
        area: Pixels of each region.
        pairs: Regions (2, n) that touch.
        size: Merge regions of fewer pixels.
    """
    one, other = np.concatenate([pairs, pairs[::-1]], axis=1)
    small = area[one] < size
    one, other = one[small], other[small]
    # the largest neighbor last; of equal ones that which begins first
    order = np.lexsort((-other, area[other], one))
    one, other = one[order], other[order]
    last = np.ones(len(one), bool)
    last[:-1] = one[1:] != one[:-1]
    itself = np.arange(len(area))
    following = itself.copy()
    following[one[last]] = other[last]
    for _ in range(DOUBLINGS):
        further = following[following]
        if np.array_equal(further, following):
            break
        following = further
    # chains that never reach a region large enough stay
    return np.where(area[following] >= size, following, itself)
