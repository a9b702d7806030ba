"""Join polygons of row bands to polygons of whole regions.

Corners are in pixels of the whole raster, (column, row). A row band's parts of regions
are closed rings. Where a region continues in the next row band, the part of the ring
along the edge between them is removed. That leaves open paths, and where one path ends
exactly one other begins.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine

Corners = NDArray[np.int32]


class Edge(NamedTuple):
    """The edge between two row bands, and where regions continue across it."""

    row: int
    #: Where the pixels above and below are of one region, (width,).
    linked: NDArray[np.bool_]


class OutlineJoiner:
    """Joins the parts of regions, row band by row band, from top to bottom.

    Memory holds the outlines of the regions that continue below.
    """

    def __init__(self, width: int, transform: Any = None) -> None:
        """Start above the first row of a raster.

        Args:
            width: Width of the raster in pixels.
            transform: Transform of the returned polygons; None leaves them in pixels.
        """
        self._transform = Affine.identity() if transform is None else transform
        self._above = np.full(width, -1)
        self._parents: list[int] = []
        self._paths: dict[int, list[Corners]] = {}

    def add(self, parts: Iterable[Any], top: Edge, bottom: Edge) -> list[Any]:
        """Add the polygons of a row band that touch its edges.

        Args:
            parts: Polygons, corners in pixels.
            top: Upper edge of the row band.
            bottom: Lower edge of the row band.

        Returns:
            Polygons of the regions that are complete now, in the raster's coordinates.
        """
        below = np.full_like(self._above, -1)
        for part in parts:
            paths: list[Corners] = []
            columns: dict[int, list[slice]] = {top.row: [], bottom.row: []}
            for ring in shapely.get_rings(part):
                corners = shapely.get_coordinates(ring).astype(np.int32)
                paths += _cut(corners, (top, bottom), columns)
            region = self._region({r for s in columns[top.row] for r in self._above[s]})
            self._paths[region] += paths
            for span in columns[bottom.row]:
                below[span] = region
        self._above = below
        open_ = {self._root(region) for region in np.unique(below[below >= 0])}
        done = [region for region in self._paths if region not in open_]
        return [_polygon(self._paths.pop(region), self._transform) for region in done]

    def _region(self, above: Iterable[int]) -> int:
        """Return the region of a part, after merging the regions that it joins."""
        roots = {self._root(region) for region in above}
        if not roots:
            self._parents.append(len(self._parents))
            self._paths[self._parents[-1]] = []
            return self._parents[-1]
        largest = max(roots, key=lambda root: (len(self._paths[root]), root))
        for root in sorted(roots - {largest}):
            self._parents[root] = largest
            self._paths[largest] += self._paths.pop(root)
        return largest

    def _root(self, region: int) -> int:
        """Return the region that another one was merged into."""
        while self._parents[region] != region:
            self._parents[region] = self._parents[self._parents[region]]
            region = self._parents[region]
        return int(region)


def _cut(
    ring: Corners, edges: Iterable[Edge], columns: dict[int, list[slice]]
) -> list[Corners]:
    """Remove the linked parts of edges from a closed ring.

    Args:
        ring: Corners (N, 2), the first again at the end.
        edges: Edges of the row band.
        columns: By row of the edge; the removed columns are added.

    Returns:
        Open paths; or the ring itself, where nothing was removed.
    """
    taken = np.zeros(len(ring) - 1, bool)
    for edge in edges:
        along = (ring[:-1, 1] == edge.row) & (ring[1:, 1] == edge.row)
        for side in np.flatnonzero(along)[::-1].tolist():
            start, stop = ring[side, 0], ring[side + 1, 0]
            low, high = min(start, stop), max(start, stop)
            linked = edge.linked[low:high]
            breaks = low + 1 + np.flatnonzero(linked[1:] != linked[:-1])
            ends = [low, *breaks.tolist(), high]
            flags = linked[np.array(ends[:-1]) - low]
            columns[edge.row] += [
                slice(ends[i], ends[i + 1]) for i in np.flatnonzero(flags)
            ]
            if start > stop:
                breaks, flags = breaks[::-1], flags[::-1]
            between = np.column_stack([breaks, np.full(len(breaks), edge.row)])
            ring = np.insert(ring, side + 1, between, axis=0)
            taken = np.concatenate([taken[:side], flags, taken[side + 1 :]])
    if not taken.any():
        return [ring]
    first = int(np.flatnonzero(taken)[0])
    ring = np.roll(ring[:-1], -first, axis=0)
    taken = np.roll(taken, -first)
    ring = np.concatenate([ring, ring[:1]])
    steps = np.diff(np.concatenate([[True], taken, [True]]).astype(np.int8))
    begins, ends_at = np.flatnonzero(steps == -1), np.flatnonzero(steps == 1)
    return [ring[a : b + 1] for a, b in zip(begins, ends_at, strict=True)]


def to_coordinates(corners: NDArray[Any], transform: Affine) -> NDArray[np.float64]:
    """Return coordinates (N, 2) of corners (N, 2) in pixels."""
    a, b, c, d, e, f = transform[:6]
    cols, rows = corners.T
    out = np.empty((len(corners), 2))
    # GDAL's order of sums, so that corners equal GDAL's to the last digit
    out[:, 0] = c + cols * a + rows * b
    out[:, 1] = f + cols * d + rows * e
    return out


def _polygon(paths: list[Corners], transform: Affine) -> Any:
    """Return the polygon of a region from closed rings and paths that join to rings."""
    rings = [path[:-1] for path in paths if (path[0] == path[-1]).all()]
    follow = {tuple(path[0]): path for path in paths if (path[0] != path[-1]).any()}
    while follow:
        start, path = next(iter(follow.items()))
        loop = []
        while follow.pop(start, None) is not None:
            loop.append(path[:-1])
            start = tuple(path[-1])
            path = follow.get(start, path)
        rings += _split(_without_straight(np.concatenate(loop)))
    # holes are inside, so the exterior is the largest
    areas = [_twice_area(ring) for ring in rings]
    rings.insert(0, rings.pop(areas.index(max(areas))))
    owners = np.repeat(range(len(rings)), [*map(len, rings)])
    corners = to_coordinates(np.concatenate(rings), transform)
    # a region may have millions of corners
    del rings
    shapes = shapely.linearrings(corners, indices=owners)
    del corners, owners
    return shapely.polygons(shapes[0], shapes[1:] if len(shapes) > 1 else None)


def _twice_area(ring: Corners) -> int:
    """Return twice the area of a ring (N, 2), not closed, in pixels."""
    x, y = ring.astype(np.int64).T
    return abs(int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))


def _without_straight(ring: Corners) -> Corners:
    """Return a ring (N, 2), not closed, without points on straight lines."""
    came, goes = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: NDArray[np.bool_] = came[:, 0] * goes[:, 1] != came[:, 1] * goes[:, 0]
    return np.asarray(ring[turns])


def _split(ring: Corners) -> list[Corners]:
    """Split a ring where it touches itself, as parts that meet corner to corner do."""
    _, vertex, counts = np.unique(
        ring.astype(np.int64) @ [1, 1 << 32], return_inverse=True, return_counts=True
    )
    touches = np.flatnonzero(counts[vertex] > 1)
    if not len(touches):
        return [ring]
    ring, vertex = np.roll(ring, -touches[0], axis=0), np.roll(vertex, -touches[0])
    parts = np.split(ring, touches[1:] - touches[0])
    loops, held, seen = [], list[Corners](), dict[int, int]()
    for point, part in zip(vertex[touches - touches[0]].tolist(), parts, strict=True):
        if point in seen:
            back = seen[point]
            loops.append(np.concatenate(held[back:]))
            del held[back:]
            seen = {key: index for key, index in seen.items() if index < back}
        seen[point] = len(held)
        held.append(part)
    return [*loops, np.concatenate(held)]
