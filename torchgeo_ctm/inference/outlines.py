"""Join polygons of row bands to polygons of whole regions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine


class Edge(NamedTuple):
    """The edge between two row bands, and where regions continue across it."""

    row: int
    #: Where the pixels above and below are of one region, (width,).
    linked: NDArray[np.bool_]


class OutlineJoiner:
    """Joins the parts of regions, row band by row band, from top to bottom.

    Memory holds the parts of the regions that continue below.
    """

    def __init__(self, width: int, transform: Affine | None = None) -> None:
        """Start above the first row of a raster.

        Args:
            width: Width of the raster in pixels.
            transform: Transform of the returned polygons; None leaves them in pixels.
        """
        self._transform = Affine.identity() if transform is None else transform
        self._above = np.full(width, -1)
        self._parents: list[int] = []
        self._parts: dict[int, list[Any]] = {}

    def add(self, parts: Sequence[Any], top: Edge, bottom: Edge) -> list[Any]:
        """Add the polygons of a row band that touch its edges.

        Args:
            parts: Polygons, corners in pixels (column, row).
            top: Upper edge of the row band.
            bottom: Lower edge of the row band.

        Returns:
            Polygons of the regions that are complete now, in the raster's coordinates.
        """
        # every part begins as a region of its own
        first = len(self._parents)
        self._parents += range(first, first + len(parts))
        self._parts |= {first + index: [part] for index, part in enumerate(parts)}
        pairs = np.stack([self._above, _owners(parts, top, first)], axis=1)
        for above, here in np.unique(pairs[top.linked], axis=0).tolist():
            self._merge(above, here)
        self._above = _owners(parts, bottom, first)
        open_ = {self._root(region) for region in np.unique(self._above).tolist()}
        done = [region for region in self._parts if region not in open_]
        return [self._polygon(self._parts.pop(region)) for region in done]

    def _merge(self, region: int, other: int) -> None:
        """Make one region of two."""
        region, other = self._root(region), self._root(other)
        if region != other:
            self._parents[other] = region
            self._parts[region] += self._parts.pop(other)

    def _root(self, region: int) -> int:
        """Return the region that another one was merged into; −1 for −1."""
        while region >= 0 and self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return region

    def _polygon(self, parts: list[Any]) -> Any:
        """Return the polygon of a region, without vertices where its parts met."""
        # normalized, a ring begins at a corner, not on a straight line
        joined = shapely.normalize(shapely.union_all(parts)).simplify(0)
        return shapely.transform(joined, lambda xy: to_coordinates(xy, self._transform))


def _owners(parts: Sequence[Any], edge: Edge, first: int) -> NDArray[np.int64]:
    """Return the part of each linked column of an edge, from *first* on; else −1."""
    owners = np.full(len(edge.linked), -1)
    rings, part = shapely.get_rings(np.array(parts, object), return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    on_edge = corners[:, 1] == edge.row
    along = on_edge[:-1] & on_edge[1:] & (ring[:-1] == ring[1:])
    columns = np.sort(np.stack([corners[:-1, 0], corners[1:, 0]])[:, along], axis=0)
    for start, stop, owner in zip(
        *columns.astype(int).tolist(), part[ring[:-1][along]].tolist(), strict=True
    ):
        owners[start:stop] = first + owner
    owners[~edge.linked] = -1
    return owners


def to_coordinates(corners: NDArray[Any], transform: Affine) -> NDArray[np.float64]:
    """Return coordinates (N, 2) of corners (N, 2) in pixels."""
    a, b, c, d, e, f = transform[:6]
    cols, rows = corners.T
    out = np.empty((len(corners), 2))
    # GDAL's order of sums, so that corners equal GDAL's to the last digit
    out[:, 0] = c + cols * a + rows * b
    out[:, 1] = f + cols * d + rows * e
    return out
