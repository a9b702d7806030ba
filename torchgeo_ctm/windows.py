"""Windows over a scene: where they lie, and how they are blended."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import SettingError


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


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one axis.

    Law: every pixel of 0…length−1 is covered, no window starts before its
    predecessor, and no window reaches outside unless *length* < *window* (then there
    is one, at 0). The last window snaps inside.

    Args:
        length: Length of the axis in pixels.
        window: Length of a window in pixels.
        stride: Distance between starts in pixels, 1…window.

    Raises:
        SettingError: If a number is outside its range.
    """
    if length < 1 or window < 1:
        raise SettingError(f'length={length} and window={window} must be at least 1 px')
    if not 1 <= stride <= window:
        raise SettingError(
            f'stride={stride} px leaves gaps between windows of {window} px; needed: '
            f'1 to {window}; nearest: {min(max(stride, 1), window)}'
        )
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def plan_windows(height: int, width: int, window: int, stride: int) -> list[Window]:
    """Cover a scene with windows, row by row from the upper left.

    Args:
        height: Height of the scene in pixels.
        width: Width of the scene in pixels.
        window: Side of a window in pixels.
        stride: Distance between windows in pixels.

    Returns:
        Windows ordered by row, then column; smaller than *window* only where the
        whole scene is.

    Raises:
        SettingError: If a number is outside its range.
    """
    tall, wide = min(window, height), min(window, width)
    return [
        Window(row, col, tall, wide)
        for row in window_starts(height, window, stride)
        for col in window_starts(width, window, stride)
    ]


def blend_weight(window: int, stride: int) -> NDArray[np.float32]:
    """Return the weight of each pixel of a window, (window, window), all above 0.

    The weight rises linearly over the overlap (window − stride) at every edge, so
    that neighbours fade into each other; without overlap it is 1 everywhere.
    """
    ramp = max(window - stride, 1)
    distance = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1.0
    edge = np.minimum(distance / ramp, 1.0)
    return np.outer(edge, edge).astype(np.float32)
