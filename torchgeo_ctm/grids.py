"""Rasters as grids of pixels: a window, a georeferenced grid, the ignored value."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import GridError

Floats = NDArray[np.float64]

#: Value of the pixels of a mask that are no data or have no label.
IGNORED: Final = 255


class Window(NamedTuple):
    """A window in the scene's grid, in pixels; (row, col) is its upper left corner."""

    row: int
    col: int
    height: int
    width: int


class Grid(NamedTuple):
    """The grid of a raster: size in pixels, CRS (or None) and affine transform."""

    height: int
    width: int
    crs: Any
    transform: Any


def check_same_grid(name: str, ours: Grid, other: str, theirs: Grid) -> None:
    """Check that two rasters share one grid; name the first difference.

    Args:
        name: Name of the first raster, for the message.
        ours: Its grid.
        other: Name of the second.
        theirs: Its grid; transforms may differ by a hundredth of a pixel, which is
            rounding, anywhere on the raster.

    Raises:
        GridError: If size, CRS or transform differ.
    """
    far = max(ours.height, ours.width)
    one, two = ours.transform, theirs.transform
    pixel = max(abs(one.a), abs(one.b), abs(one.d), abs(one.e))
    near = one.almost_equals(two, precision=0.01 * pixel / far) and all(
        abs(a - b) <= 0.01 * pixel
        for a, b in zip(one @ (far, far), two @ (far, far), strict=True)
    )
    for what, same, pair in (
        ('size (rows, columns)', ours[:2] == theirs[:2], (ours[:2], theirs[:2])),
        ('CRS', ours.crs == theirs.crs, (ours.crs, theirs.crs)),
        ('transform', near, (tuple(one)[:6], tuple(two)[:6])),
    ):
        if not same:
            raise GridError(
                f'{name} and {other} are on different grids: {what} {pair[0]} and '
                f'{pair[1]}. Warp one to the grid of the other first.'
            )


def to_pixels(xy: Floats, transform: Any) -> Floats:
    """Return points (n, 2) of a CRS, x and y, as columns and rows of a grid."""
    return from_pixels(xy, ~transform)


def from_pixels(pixels: Floats, transform: Any) -> Floats:
    """Return points (n, 2), columns and rows of a grid, as x and y of its CRS."""
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    xy: Floats = pixels @ matrix + (transform.c, transform.f)
    return xy


def corners(grid: Grid) -> Floats:
    """Return the four corners (4, 2) of a grid in its CRS, clockwise."""
    height, width = grid.height, grid.width
    pixels = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    return from_pixels(pixels, grid.transform)


def clipped_boxes(bounds: Floats, grid: Grid) -> Floats:
    """Clip boxes to a grid, and put rows first.

    Args:
        bounds: Boxes (n, 4) in pixels, as shapely orders them: first column, first
            row, last column, last row.
        grid: The grid.

    Returns:
        Boxes (n, 4): first row, first column, last row, last column.
    """
    limits = (grid.height, grid.width) * 2
    boxes: Floats = np.clip(bounds[:, [1, 0, 3, 2]], 0.0, limits)
    return boxes
