"""Polygons of the patches of a class raster, and rasters without small patches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..grids import IGNORED
from ..rasters import quiet
from .masks import open_mask, open_raster, read_rows, strips
from .seams import Seam, SeamJoiner, placed

#: Pixels whose polygons are made at a time, as whole rows.
SLAB = 1 << 22
#: Polygons that are made at a time.
CHUNK = 50_000
#: Polygons that are turned from lists of corners into geometries at a time.
BATCH = 500


def sieved(mask: DatasetReader, size: int, folder: Path) -> DatasetReader:
    """Merge small patches into their largest neighbour, but never across nodata.

    Args:
        mask: Class raster.
        size: Patches of fewer pixels are merged.
        folder: Where temporary files may lie.

    Returns:
        The sieved raster, or *mask* opened once more if there is nothing to do.
    """
    if size < 2:
        return open_mask(mask.name)
    profile: dict[str, Any] = {
        'driver': 'GTiff',
        'height': mask.height,
        'width': mask.width,
        'count': 1,
        'compress': 'LZW',
        'BIGTIFF': 'IF_SAFER',
        'crs': mask.crs,
        'transform': mask.transform,
    }
    with (
        quiet(),
        rasterio.open(folder / 'valid', 'w', dtype='uint8', **profile) as valid,
    ):
        for row, values in strips(mask):
            window = RasterWindow(0, row, mask.width, len(values))
            valid.write((values >= 0).astype(np.uint8), 1, window=window)
    # rasterio sieves into arrays only; one on disk costs no memory
    dtype = mask.dtypes[0]
    out: NDArray[Any] = np.memmap(folder / 'pixels', dtype, 'w+', shape=mask.shape)
    with open_raster(folder / 'valid', 'valid pixels') as valid:
        band, known = rasterio.band(mask, 1), rasterio.band(valid, 1)
        rasterio.features.sieve(band, min(size, out.size), out, known, 4)
    profile |= {'dtype': dtype, 'nodata': mask.nodata}
    with quiet(), rasterio.open(folder / 'sieved', 'w', **profile) as made:
        made.write(out, 1)
    return open_mask(folder / 'sieved')


def polygons(source: DatasetReader) -> Iterator[NDArray[Any]]:
    """Yield chunks of polygons on the raster's grid, without those of nodata.

    GDAL holds every polygon of what it is given: so it is given slabs of rows, and
    what is held of a patch in several slabs is its outline.
    """
    transform = source.transform
    joiner = SeamJoiner(source.width, transform)
    nodata = IGNORED if source.nodata is None else source.nodata
    above = None
    rows = max(1, SLAB // source.width)
    values = read_rows(source, 0, rows)
    for row in range(0, source.height, rows):
        bottom = row + len(values)
        ahead = read_rows(source, bottom, rows) if bottom < source.height else None
        top_seam = _seam(row, above, values, nodata)
        seam = _seam(bottom, values, ahead, nodata)
        pieces: list[Any] = []
        for shapes in _slab_polygons(values, row, nodata):
            low, high = shapely.bounds(shapes)[:, 1::2].T
            cut = (low == row) & top_seam.linked.any()
            cut |= (high == bottom) & seam.linked.any()
            pieces += shapes[cut].tolist()
            yield shapely.transform(shapes[~cut], lambda xy: placed(xy, transform))
        yield np.array(joiner.add(pieces, top_seam, seam), object)
        if ahead is not None:
            above, values = values, ahead


def _seam(
    row: int, above: NDArray[Any] | None, below: NDArray[Any] | None, nodata: float
) -> Seam:
    """Return the seam between two slabs, or above the first or below the last."""
    if above is None or below is None:
        known = above if above is not None else below
        return Seam(row, np.zeros(0 if known is None else known.shape[1], bool))
    return Seam(row, (above[-1] == below[0]) & (above[-1] != nodata))


def _slab_polygons(
    values: NDArray[Any], row: int, nodata: float
) -> Iterator[NDArray[Any]]:
    """Yield chunks of the polygons of a slab that begins at *row*, in pixels."""
    chunk: list[NDArray[Any]] = []
    rings: list[list[list[tuple[float, float]]]] = []
    known = values != nodata
    for geometry, _ in rasterio.features.shapes(
        values, known, connectivity=4, transform=Affine.translation(0, row)
    ):
        rings.append(geometry['coordinates'])
        # corners as tuples take ten times the memory of an array
        if len(rings) == BATCH:
            chunk.append(_from_rings(rings))
            rings = []
        if len(chunk) * BATCH == CHUNK:
            yield np.concatenate(chunk)
            chunk = []
    yield np.concatenate([*chunk, _from_rings(rings)])


def _from_rings(polygons: list[list[list[tuple[float, float]]]]) -> NDArray[Any]:
    """Return polygons (N,) from lists of rings of corners."""
    corners = [corner for rings in polygons for ring in rings for corner in ring]
    lengths = [len(ring) for rings in polygons for ring in rings]
    counts = [len(rings) for rings in polygons]
    shapes: NDArray[Any] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.array(corners, np.float64).reshape(-1, 2),
        (np.cumsum([0, *lengths]), np.cumsum([0, *counts])),
    )
    return shapes
