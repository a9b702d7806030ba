"""Plan of the windows of a scene, and the weights that blend them."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .errors import SettingError
from .grids import Window


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one axis.

    Every pixel of 0…length−1 is covered. Starts increase, and no window reaches
    outside unless *length* < *window* (then there is one, at 0). The last window is
    moved inside.

    Args:
        length: Length of the axis in pixels.
        window: Length of a window in pixels.
        stride: Distance between starts in pixels, 1…window.

    Raises:
        SettingError: If a number is outside its range.
    """
    if length < 1 or window < 1:
        raise SettingError(
            f'Got length={length} and window={window} px, expected at least 1.'
        )
    if not 1 <= stride <= window:
        raise SettingError(
            f'stride={stride} px is out of range for windows of {window} px, expected 1 to '
            f'{window}. Did you mean {min(max(stride, 1), window)}?'
        )
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def axis_weights(
    length: int, window: int, stride: int
) -> list[tuple[int, NDArray[np.float32]]]:
    """Return where windows start along one axis, and the weight of each pixel.

    The weight rises linearly over the overlap (window − stride) at both ends, to blend
    neighbors. Every weight is above 0, and at every pixel the weights of all windows
    sum to 1.

    Args:
        length: Length of the axis in pixels.
        window: Length of a window in pixels.
        stride: Distance between starts in pixels.

    Returns:
        For each window its start and its weights (min(window, length),).

    Raises:
        SettingError: If a number is outside its range.
    """
    starts = window_starts(length, window, stride)
    inside = min(window, length)
    ramp = max(window - stride, 1)
    position = np.arange(inside)
    edge = np.minimum(np.minimum(position, position[::-1]) + 1.0, ramp) / ramp
    total = np.zeros(length)
    for start in starts:
        total[start : start + inside] += edge
    return [
        (start, (edge / total[start : start + inside]).astype(np.float32))
        for start in starts
    ]


class WindowPlan:
    """The windows of one scene: rows of windows from top to bottom.

    The weight of a pixel in a window is the product of a weight along its column and
    one along its row, so weights need not be summed up during the run.
    """

    def __init__(self, height: int, width: int, window: int, stride: int) -> None:
        """Plan the windows.

        Args:
            height: Height of the scene in pixels.
            width: Width of the scene in pixels.
            window: Side of a window in pixels.
            stride: Distance between windows in pixels, 1…window.

        Raises:
            SettingError: If a number is outside its range.
        """
        self.height, self.width = height, width
        self.window, self.stride = window, stride
        self.rows = axis_weights(height, window, stride)
        self.cols = axis_weights(width, window, stride)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.rows) * len(self.cols)

    def __getitem__(self, index: int) -> Window:
        """Return a window by its number, counted row by row."""
        if not 0 <= index < len(self):
            raise IndexError(f'window {index} of {len(self)}')
        row, col = divmod(index, len(self.cols))
        tall, wide = min(self.window, self.height), min(self.window, self.width)
        return Window(self.rows[row][0], self.cols[col][0], tall, wide)

    def row_of(self, index: int) -> int:
        """Return the row of windows that a window belongs to."""
        return index // len(self.cols)


def split_evenly(items: Sequence[int], largest: int) -> list[Sequence[int]]:
    """Cut a sequence into as few parts as *largest* allows, of nearly equal length.

    Lengths are even, or multiples of four, where *largest* is, so that two or four
    threads can share a part; only the last part may be odd.
    """
    unit = math.gcd(largest, 4)
    units = -(-len(items) // unit)
    parts = -(-len(items) // largest)
    bounds = [unit * (part * units // parts) for part in range(parts)] if parts else []
    bounds.append(len(items))
    return [items[a:b] for a, b in pairwise(bounds)]
