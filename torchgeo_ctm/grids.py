"""Rasters as grids of pixels: a window, a georeferenced grid, the ignored value."""

from typing import Any, Final, NamedTuple

from .errors import GridError

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
