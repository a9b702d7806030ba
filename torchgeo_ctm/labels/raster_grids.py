"""How the grids of rasters and windows lie to each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids import Grid
from .places import clipped_boxes, moved, same_crs, to_ground, to_pixels
from .raster_files import RasterFile

Floats = NDArray[np.float64]
#: Parts of a pixel, or of a window's side, that are rounding.
TOUCH = 1e-6


def outline_in(grid: Grid, crs: Any) -> Floats:
    """Return points (n, 2) in a CRS, between which a window lies."""
    xy = moved(to_ground(_lattice(grid, 9), grid.transform), grid.crs, crs)
    return xy[np.isfinite(xy).all(axis=1)]


def box_in(file: RasterFile, grid: Grid) -> Floats:
    """Return where a raster lies in a scene: columns and rows, first and last (4,).

    Exact in the raster's own CRS; elsewhere up to a thirty-second of the scene's sides
    too large on each side, and all zero where the two do not meet.
    """
    own = to_pixels(outline_in(file.grid, grid.crs), grid.transform)
    margin = np.zeros(2)
    if not same_crs(file.crs, grid.crs):
        # a raster may reach far beyond where the scene's CRS is defined, so points of
        # the scene are looked up in it too
        lattice = _lattice(grid, 33)
        ground = moved(to_ground(lattice, grid.transform), grid.crs, file.crs)
        covered = _inside(to_pixels(ground, file.grid.transform), file.grid)
        own = np.concatenate([own[_inside(own, grid)], lattice[covered]])
        margin = np.array([grid.width, grid.height]) / 32
    if not len(own):
        return np.zeros(4)
    return np.concatenate([own.min(axis=0) - margin, own.max(axis=0) + margin])


def _lattice(grid: Grid, side: int) -> Floats:
    """Return *side* × *side* points of a grid in its pixels, its corners among them."""
    steps = np.linspace(0, 1, side)
    along, across = np.meshgrid(steps * grid.width, steps * grid.height)
    return np.stack([along.ravel(), across.ravel()], axis=1)


def _inside(pixels: Floats, grid: Grid) -> NDArray[np.bool_]:
    """Return which points (n, 2), column and row, lie in a grid."""
    limits = np.array([grid.width, grid.height])
    inside: NDArray[np.bool_] = (pixels >= 0) & (pixels <= limits)
    return inside[:, 0] & inside[:, 1]


def parallel(file: RasterFile, grid: Grid) -> bool:
    """Return whether a raster has a window's CRS, and rows along the window's rows."""
    if not same_crs(file.crs, grid.crs):
        return False
    relative = ~file.grid.transform @ grid.transform
    skew = abs(relative.b) * grid.height + abs(relative.d) * grid.width
    along = abs(relative.a) * grid.width + abs(relative.e) * grid.height
    return bool(skew < TOUCH * along)


def apart(files: Sequence[RasterFile], grid: Grid) -> bool:
    """Return whether no ground of a window lies in two rasters."""
    boxes = np.array([box_in(file, grid) for file in files]).reshape(-1, 4)
    boxes = clipped_boxes(boxes, grid)
    for index, box in enumerate(boxes):
        low = np.maximum(box[:2], boxes[index + 1 :, :2])
        high = np.minimum(box[2:], boxes[index + 1 :, 2:])
        if (high - low > TOUCH).all(axis=1).any():
            return False
    return True


def overlaps(start: float, end: float, length: int) -> tuple[tuple[int, int], Floats]:
    """Return the pixels along an axis that an interval meets, and how much of each.

    Law: the parts sum to the length of the interval inside 0…length.
    """
    snapped = [
        round(edge) if abs(edge - round(edge)) < TOUCH else edge
        for edge in (start, end)
    ]
    start, end = np.clip(snapped, 0, length)
    first, last = int(np.floor(start)), int(np.ceil(end))
    edges = np.arange(first, last + 1, dtype=float).clip(start, end)
    return (first, last), np.diff(edges)


def spread(grid: Grid, samples: int) -> Floats:
    """Return the middles of *samples* × *samples* equal cells of a window, in pixels."""
    middles = (np.arange(samples) + 0.5) / samples
    along, across = np.meshgrid(middles * grid.width, middles * grid.height)
    return np.stack([along.ravel(), across.ravel()], axis=1)
