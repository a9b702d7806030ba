"""Trace the outlines of the regions of a class raster."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.io import DatasetReader

from ..grids import IGNORED
from .masks import read_rows
from .outlines import Edge, OutlineJoiner, to_coordinates

#: Pixels of a row band, whose polygons are made in one call. GDAL holds Python's lock
#: meanwhile, up to a second, so that SIGTERM has to wait.
ROW_BAND = 1 << 20
#: Polygons of a chunk.
CHUNK = 50_000
#: Polygons that are converted from lists of corners to geometries in one call.
BATCH = 500


def polygons(source: DatasetReader) -> Iterator[NDArray[Any]]:
    """Yield chunks of polygons, without those of nodata.

    GDAL holds every polygon of its input in memory. So its input is one row band, and
    only the outlines of regions that continue in the next one are held.
    """
    transform = source.transform
    joiner = OutlineJoiner(source.width, transform)
    nodata = IGNORED if source.nodata is None else source.nodata
    above = None
    rows = max(1, ROW_BAND // source.width)
    values = read_rows(source, 0, rows)
    for row in range(0, source.height, rows):
        bottom = row + len(values)
        ahead = read_rows(source, bottom, rows) if bottom < source.height else None
        top = _edge(row, above, values, nodata)
        edge = _edge(bottom, values, ahead, nodata)
        parts: list[Any] = []
        for shapes in _row_band_polygons(values, row, nodata):
            low, high = shapely.bounds(shapes)[:, 1::2].T
            cut = (low == row) & top.linked.any()
            cut |= (high == bottom) & edge.linked.any()
            parts += shapes[cut].tolist()
            yield shapely.transform(
                shapes[~cut], lambda xy: to_coordinates(xy, transform)
            )
        yield np.array(joiner.add(parts, top, edge), object)
        if ahead is not None:
            above, values = values, ahead


def _edge(
    row: int, above: NDArray[Any] | None, below: NDArray[Any] | None, nodata: float
) -> Edge:
    """Return the edge between two row bands, or that of the raster."""
    if above is None or below is None:
        known = above if above is not None else below
        return Edge(row, np.zeros(0 if known is None else known.shape[1], bool))
    known = (above[-1] != nodata) & (above[-1] >= 0)
    return Edge(row, (above[-1] == below[0]) & known)


def _row_band_polygons(
    values: NDArray[Any], row: int, nodata: float
) -> Iterator[NDArray[Any]]:
    """Yield chunks of the polygons of a row band that begins at *row*, in pixels."""
    chunk: list[NDArray[Any]] = []
    rings: list[list[list[tuple[float, float]]]] = []
    known = (values != nodata) & (values >= 0)
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
