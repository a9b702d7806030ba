"""Outlines that run across slabs of rows: cut where slabs meet, joined to rings.

Corners are pixels of the whole raster, (column, row). A slab's pieces come closed; the
part of their outline that lies between two pixels of one patch is no outline of the
patch. Taken out, it leaves open paths, and exactly one path goes on where one ends.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine

Corners = NDArray[np.int32]


class Seam(NamedTuple):
    """A line between two rows, and where patches go on across it."""

    row: int
    #: Whether the pixels above and below are of one patch, (width,).
    linked: NDArray[np.bool_]


class SeamJoiner:
    """Joins the pieces of patches, slab after slab, from top to bottom.

    What is held are the outlines of the patches that go on below.
    """

    def __init__(self, width: int, transform: Any = None) -> None:
        """Begin above the first row of a raster.

        Args:
            width: Width of the raster in pixels.
            transform: Of the polygons that are returned; None leaves them in pixels.
        """
        self._transform = Affine.identity() if transform is None else transform
        self._above = np.full(width, -1)
        self._parents: list[int] = []
        self._paths: dict[int, list[Corners]] = {}

    def add(self, pieces: Iterable[Any], top: Seam, bottom: Seam) -> list[Any]:
        """Take the pieces of a slab that touch its seams.

        Args:
            pieces: Polygons, corners in pixels.
            top: The slab's upper seam.
            bottom: The slab's lower seam.

        Returns:
            Polygons of the patches that are complete now, in the raster's coordinates.
        """
        below = np.full_like(self._above, -1)
        for piece in pieces:
            paths: list[Corners] = []
            columns: dict[int, list[slice]] = {top.row: [], bottom.row: []}
            for ring in shapely.get_rings(piece):
                corners = shapely.get_coordinates(ring).astype(np.int32)
                paths += _cut(corners, (top, bottom), columns)
            patch = self._patch({p for s in columns[top.row] for p in self._above[s]})
            self._paths[patch] += paths
            for part in columns[bottom.row]:
                below[part] = patch
        self._above = below
        going_on = {self._root(patch) for patch in np.unique(below[below >= 0])}
        done = [patch for patch in self._paths if patch not in going_on]
        return [_polygon(self._paths.pop(patch), self._transform) for patch in done]

    def _patch(self, above: Iterable[int]) -> int:
        """Return the patch of a piece: what it joins above becomes one."""
        roots = {self._root(patch) for patch in above}
        if not roots:
            self._parents.append(len(self._parents))
            self._paths[self._parents[-1]] = []
            return self._parents[-1]
        largest = max(roots, key=lambda root: (len(self._paths[root]), root))
        for root in sorted(roots - {largest}):
            self._parents[root] = largest
            self._paths[largest] += self._paths.pop(root)
        return largest

    def _root(self, patch: int) -> int:
        """Return the patch that another one has become part of."""
        while self._parents[patch] != patch:
            self._parents[patch] = self._parents[self._parents[patch]]
            patch = self._parents[patch]
        return int(patch)


def _cut(
    ring: Corners, seams: Iterable[Seam], columns: dict[int, list[slice]]
) -> list[Corners]:
    """Take linked parts of seams out of a closed ring.

    Args:
        ring: Corners (N, 2), the first again at the end.
        seams: The slab's seams.
        columns: By row of the seam; the columns taken out are added.

    Returns:
        Open paths; or the ring itself, where nothing was taken out.
    """
    taken = np.zeros(len(ring) - 1, bool)
    for seam in seams:
        on_seam = (ring[:-1, 1] == seam.row) & (ring[1:, 1] == seam.row)
        edges = np.flatnonzero(on_seam)[::-1]
        for edge in edges.tolist():
            start, stop = ring[edge, 0], ring[edge + 1, 0]
            low, high = min(start, stop), max(start, stop)
            linked = seam.linked[low:high]
            breaks = low + 1 + np.flatnonzero(linked[1:] != linked[:-1])
            ends = [low, *breaks.tolist(), high]
            flags = linked[np.array(ends[:-1]) - low]
            columns[seam.row] += [
                slice(ends[i], ends[i + 1]) for i in np.flatnonzero(flags)
            ]
            if start > stop:
                breaks, flags = breaks[::-1], flags[::-1]
            between = np.column_stack([breaks, np.full(len(breaks), seam.row)])
            ring = np.insert(ring, edge + 1, between, axis=0)
            taken = np.concatenate([taken[:edge], flags, taken[edge + 1 :]])
    if not taken.any():
        return [ring]
    first = int(np.flatnonzero(taken)[0])
    ring = np.roll(ring[:-1], -first, axis=0)
    taken = np.roll(taken, -first)
    ring = np.concatenate([ring, ring[:1]])
    steps = np.diff(np.concatenate([[True], taken, [True]]).astype(np.int8))
    begins, ends_at = np.flatnonzero(steps == -1), np.flatnonzero(steps == 1)
    return [ring[a : b + 1] for a, b in zip(begins, ends_at, strict=True)]


def placed(corners: NDArray[Any], transform: Affine) -> NDArray[np.float64]:
    """Return corners (N, 2) in the coordinates of a raster from those in its pixels."""
    a, b, c, d, e, f = transform[:6]
    cols, rows = corners.T
    out = np.empty((len(corners), 2))
    # in GDAL's order of sums, so that corners are its own to the last digit
    out[:, 0] = c + cols * a + rows * b
    out[:, 1] = f + cols * d + rows * e
    return out


def _polygon(paths: list[Corners], transform: Affine) -> Any:
    """Return the polygon of a patch from closed rings and paths that join to rings."""
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
    # holes lie inside, so the outline is the largest
    areas = [_twice_area(ring) for ring in rings]
    rings.insert(0, rings.pop(areas.index(max(areas))))
    owners = np.repeat(range(len(rings)), [*map(len, rings)])
    corners = placed(np.concatenate(rings), transform)
    # a patch may have millions of corners
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
    """Split a ring where it touches itself: pieces met corner to corner on a seam."""
    _, vertex, counts = np.unique(
        ring.astype(np.int64) @ [1, 1 << 32], return_inverse=True, return_counts=True
    )
    touches = np.flatnonzero(counts[vertex] > 1)
    if not len(touches):
        return [ring]
    ring, vertex = np.roll(ring, -touches[0], axis=0), np.roll(vertex, -touches[0])
    parts = np.split(ring, touches[1:] - touches[0])
    loops, held, place = [], list[Corners](), dict[int, int]()
    for point, part in zip(vertex[touches - touches[0]].tolist(), parts, strict=True):
        if point in place:
            back = place[point]
            loops.append(np.concatenate(held[back:]))
            del held[back:]
            place = {key: index for key, index in place.items() if index < back}
        place[point] = len(held)
        held.append(part)
    return [*loops, np.concatenate(held)]
