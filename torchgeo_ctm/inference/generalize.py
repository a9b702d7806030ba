"""Polygons that share their borders: fill holes, simplify and smooth, without gaps.

Coordinates are pixels, so that corners of neighbors are the same numbers.
"""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

#: Rounds of Chaikin's corner cutting.
ROUNDS = 2
#: Pixels of an edge that are cut off at most.
LONGEST_CUT = 1.0
#: Tolerance in pixels that removes vertices on straight lines alone.
STRAIGHT = 1e-6


def with_every_corner(shapes: NDArray[Any]) -> NDArray[Any]:
    """Return polygons (N,) of pixels with a vertex at every corner of a pixel.

    GDAL leaves out vertices on straight edges, also where two neighbors meet there.
    """
    dense = shapely.segmentize(shapely.transform(shapes, np.rint), 1.0)
    return np.asarray(shapely.transform(dense, np.rint), object)


def holes_to_fill(
    shapes: NDArray[Any], largest: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
    """Fill small holes, with everything that lies in them.

    Args:
        shapes: Polygons (N,).
        largest: Area in pixels below which a hole of each polygon is filled, (N,).

    Returns:
        Polygons (N,), pixels that each has gained (N,), and which lay in a hole (N,).
    """
    rings, owner = shapely.get_rings(shapes, return_index=True)
    areas = shapely.area(shapely.polygons(rings))
    first = np.diff(owner, prepend=-1) > 0
    filled = ~first & (areas < largest[owner])
    kept = ~filled
    offsets = np.cumsum([0, *np.bincount(owner[kept], minlength=len(shapes))])
    xy, ring = shapely.get_coordinates(rings[kept], return_index=True)
    corners = np.cumsum([0, *np.bincount(ring, minlength=int(kept.sum()))])
    whole = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, xy, (corners, offsets)
    )
    gained = np.bincount(owner[filled], areas[filled], len(shapes)).astype(float)
    inside = np.zeros(len(shapes), bool)
    holes = shapely.polygons(rings[filled])
    points = shapely.point_on_surface(shapes)
    inside[shapely.STRtree(points).query(holes, predicate='contains')[1]] = True
    return np.asarray(whole, object), gained, inside


def simplified(shapes: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """Simplify polygons (N,) together, so that neighbors keep one border.

    Args:
        shapes: Polygons with equal vertices along shared borders.
        tolerance: Side in pixels of a square as large as the triangles that go. With 0,
            only vertices on straight lines go, unless more than two borders meet there.
    """
    tolerance = max(tolerance, STRAIGHT)
    return np.asarray(shapely.coverage_simplify(shapes, tolerance), object)


def smoothed(shapes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut the corners of polygons (N,) that share their borders.

    Each corner is replaced by two points, a quarter along its edges (Chaikin, 1974), and
    at most one pixel. A corner stays on the edge of the raster, where more than two
    borders meet, and where another border runs through the triangle that would be cut
    off. So borders neither part nor cross.

    Args:
        shapes: Polygons with equal vertices along shared borders.
        size: Rows and columns of the raster.
    """
    for _ in range(ROUNDS):
        shapes = _cut_corners(shapes, size)
    return shapes


def _cut_corners(shapes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut every corner once that can be cut."""
    rings, owner = shapely.get_rings(shapes, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    # the last vertex of a ring repeats the first
    last = np.diff(ring, append=-1) != 0
    xy, ring = xy[~last], ring[~last]
    after = np.arange(len(xy)) + 1
    starts = np.flatnonzero(np.diff(ring, prepend=-1))
    after[np.append(starts[1:], len(xy)) - 1] = starts
    before = np.empty_like(after)
    before[after] = np.arange(len(xy))
    _, vertex = np.unique(xy, axis=0, return_inverse=True)
    vertex = vertex.ravel()
    edges = np.sort(np.stack([vertex, vertex[after]], axis=1), axis=1)
    unique, where, edge = np.unique(
        edges, axis=0, return_index=True, return_inverse=True
    )
    edge = edge.ravel()
    meeting = np.bincount(unique.ravel(), minlength=vertex.max() + 1)[vertex]
    near = [_along(xy, xy[other]) for other in (before, after)]
    inner = ((xy > 0) & (xy < size[::-1])).all(axis=1)
    cut = (
        (meeting == 2)
        & inner
        & ~_crossed(
            np.stack([near[0], xy, near[1]], axis=1),
            np.stack([xy[where], xy[after[where]]], axis=1),
            np.stack([edge[before], edge], axis=1),
        )
    )
    # one point for a corner that stays, two for one that is cut
    points = np.repeat(xy, np.where(cut, 2, 1), axis=0)
    position = np.cumsum(np.where(cut, 2, 1)) - np.where(cut, 2, 1)
    points[position[cut]] = near[0][cut]
    points[position[cut] + 1] = near[1][cut]
    counts = np.bincount(ring, np.where(cut, 2, 1), len(rings)).astype(int)
    closed = shapely.linearrings(
        points, indices=np.repeat(np.arange(len(rings)), counts)
    )
    return np.asarray(shapely.polygons(closed, indices=owner), object)


def _along(
    corners: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the points (N, 2) where the edges from corners to others are cut."""
    edges = others - corners
    length = np.hypot(*edges.T)
    share = np.minimum(0.25, LONGEST_CUT / np.maximum(length, LONGEST_CUT))
    points: NDArray[np.float64] = corners + edges * share[:, None]
    return points


def _crossed(
    triangles: NDArray[np.float64],
    segments: NDArray[np.float64],
    own: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Return which triangles (N, 3, 2) meet a segment that is not an edge of theirs."""
    tree = shapely.STRtree(shapely.linestrings(segments))
    found = np.zeros(len(triangles), bool)
    index = np.flatnonzero(_area(triangles) > 0)
    which, segment = tree.query(
        shapely.polygons(triangles[index]), predicate='intersects'
    )
    which = index[which]
    found[which[(segment[:, None] != own[which]).all(axis=1)]] = True
    return found


def _area(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return twice the area of triangles (N, 3, 2)."""
    one, other = np.moveaxis(triangles[:, 1:] - triangles[:, :1], 1, 0)
    area: NDArray[np.float64] = np.abs(
        one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    )
    return area
