"""How much of a window polygons cover, on plain arrays of their corners."""

import numpy as np
import shapely
from numpy.typing import NDArray

from ..grids import Grid
from .places import to_pixels

Floats = NDArray[np.float64]
Geometries = NDArray[np.object_]


def clipped_areas(polygons: Geometries, grid: Grid) -> Floats:
    """Return the area of each polygon inside a window, in pixels.

    Law: equal to the area of the intersection with the window. It is the integral over
    the columns of how many rows lie under each edge, cut to the window; what edges of
    opposite direction cover twice cancels. (GEOS's clip_by_rect is as fast, but GEOS
    3.14 errs where holes touch the rectangle, as those of vectorised masks do.)

    Args:
        polygons: Polygons (n,) whose holes turn the other way than their shells, as
            ``shapely.normalize`` leaves them.
        grid: The window, in the polygons' CRS.

    Returns:
        Areas (n,) in square pixels.
    """
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(corners):
        return np.zeros(len(polygons))
    x, y = to_pixels(corners, grid.transform).T
    edge = np.flatnonzero(ring[1:] == ring[:-1])
    x0, x1, y0, y1 = x[edge], x[edge + 1], y[edge], y[edge + 1]
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros(len(edge)), where=x1 != x0)
    left, right = np.clip(x0, 0, grid.width), np.clip(x1, 0, grid.width)
    under = (right - left) * _mean_clipped(
        y0 + (left - x0) * slope, y0 + (right - x0) * slope, grid.height
    )
    signed = np.bincount(polygon[ring[edge]], under, len(polygons))
    return np.abs(signed)


def _mean_clipped(start: Floats, end: Floats, height: int) -> Floats:
    """Return the mean over straight edges (n,) of their rows, cut to 0…height."""
    low, high = np.clip(start, 0, height), np.clip(end, 0, height)
    rise = end - start
    flat = rise == 0
    rise = np.where(flat, 1.0, rise)
    before = np.where(flat, 1.0, (low - start) / rise)
    after = np.where(flat, 0.0, (end - high) / rise)
    inside = np.where(flat, 0.0, (high - low) / rise)
    mean: Floats = before * low + inside * (low + high) / 2 + after * high
    return mean


def disjoint(
    polygons: Geometries, members: NDArray[np.bool_]
) -> tuple[Geometries, NDArray[np.bool_]]:
    """Cut polygons that overlap along each other's outlines.

    Law: the results do not overlap, and ground keeps the classes of all the polygons
    that cover it. Polygons that only share borders stay as they are.

    Args:
        polygons: Polygons (n,).
        members: Classes of each, (n, C) bool.

    Returns:
        Polygons (m,) and the classes of each (m, C).
    """
    shared = _overlapping(polygons)
    if not shared.any():
        return polygons, members
    crowd = polygons[shared]
    outlines = shapely.union_all(shapely.boundary(crowd))
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(outlines)))
    tree = shapely.STRtree(shapely.point_on_surface(faces))
    polygon, face = tree.query(crowd, predicate='contains')
    classes = np.zeros((len(faces), members.shape[1]), bool)
    np.logical_or.at(classes, face, members[shared][polygon])
    covered = np.bincount(face, minlength=len(faces)) > 0
    return (
        np.concatenate([polygons[~shared], faces[covered]]),
        np.concatenate([members[~shared], classes[covered]]),
    )


def _overlapping(polygons: Geometries) -> NDArray[np.bool_]:
    """Return which polygons (n,) share ground with another; borders do not count."""
    shared = np.zeros(len(polygons), bool)
    tree = shapely.STRtree(polygons)
    first, second = tree.query(polygons, predicate='intersects')
    pair = first < second
    first, second = first[pair], second[pair]
    overlap = shapely.relate_pattern(polygons[first], polygons[second], 'T********')
    shared[first[overlap]] = True
    shared[second[overlap]] = True
    return shared


def subdivided(
    polygons: Geometries, largest: int = 256
) -> tuple[Geometries, NDArray[np.intp]]:
    """Cut polygons of many corners into parts, so that a window meets few of them.

    Law: the parts of a polygon do not overlap, and cover what it covers.

    Args:
        polygons: Polygons (n,).
        largest: Most corners that a part should have.

    Returns:
        Parts (m,), and the position in *polygons* that each comes from (m,).
    """
    owner = np.arange(len(polygons))
    parts, owners = [polygons[:0]], [owner[:0]]
    for _ in range(24):  # halving twenty-four times cuts any outline that ends
        large = shapely.get_num_coordinates(polygons) > largest
        parts.append(polygons[~large])
        owners.append(owner[~large])
        polygons, owner = polygons[large], owner[large]
        if not len(polygons):
            break
        halves = shapely.intersection(polygons, _halves(shapely.bounds(polygons)))
        polygons, kept = polygon_parts(halves.ravel())
        owner = np.tile(owner, 2)[kept]
    return np.concatenate([*parts, polygons]), np.concatenate([*owners, owner])


def _halves(bounds: Floats) -> Geometries:
    """Return both halves (2, n) of boxes (n, 4), cut across their longer side."""
    left, bottom, right, top = bounds.T
    wide = right - left > top - bottom
    x, y = np.where(wide, (left + right) / 2, right), (bottom + top) / 2
    first = shapely.box(left, bottom, x, np.where(wide, top, y))
    second = shapely.box(np.where(wide, x, left), np.where(wide, bottom, y), right, top)
    return np.stack([first, second])


def polygon_parts(geometries: Geometries) -> tuple[Geometries, NDArray[np.intp]]:
    """Return the polygons in geometries (n,), and which geometry each comes from."""
    owner = np.arange(len(geometries))
    # twice: collections, as make_valid returns them, hold multipolygons
    for _ in range(2):
        geometries, inside = shapely.get_parts(geometries, return_index=True)
        owner = owner[inside]
    kept = shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON
    kept &= ~shapely.is_empty(geometries)
    return geometries[kept], owner[kept]
