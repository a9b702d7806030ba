"""Blend windows into rows of a scene, in one pass from top to bottom."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..windows import Window

Rows = tuple[int, NDArray[np.float32]]


class RowMosaic:
    """A band of rows in which overlapping windows are averaged by weight.

    Windows are added in the order of :func:`torchgeo_ctm.windows.plan_windows`. Rows
    above the newest window can receive nothing more: they are handed out, and the
    band moves down. A pixel without any weight is NaN. Memory is one window's height of the scene's width.
    """

    def __init__(self, channels: int, height: int, width: int, window: int) -> None:
        """Create an empty band.

        Args:
            channels: Number of values per pixel.
            height: Height of the scene in pixels.
            width: Width of the scene in pixels.
            window: Side of a window in pixels.
        """
        self._height = height
        self._row = 0
        rows = min(window, height)
        self._sum = np.zeros((channels, rows, width), np.float32)
        self._weight = np.zeros((rows, width), np.float32)

    def add(
        self, window: Window, values: NDArray[np.float32], weight: NDArray[np.float32]
    ) -> Iterator[Rows]:
        """Add one window, after handing out the rows that it finishes.

        Args:
            window: Where it lies.
            values: Values (channels, height, width).
            weight: Weight of each pixel (height, width), above 0.

        Yields:
            First row and values (channels, rows, width) of finished rows.
        """
        if window.row > self._row:
            yield self._row, self._release(window.row - self._row)
        top = window.row - self._row
        place = np.s_[top : top + window.height, window.col : window.col + window.width]
        self._sum[:, *place] += values * weight
        self._weight[place] += weight

    def finish(self) -> Iterator[Rows]:
        """Hand out the rows that are left.

        Yields:
            First row and values (channels, rows, width).
        """
        if self._row < self._height:
            yield self._row, self._release(self._height - self._row)

    def _release(self, rows: int) -> NDArray[np.float32]:
        """Return the averaged first rows and move the band down by as many."""
        with np.errstate(invalid='ignore'):
            done: NDArray[np.float32] = self._sum[:, :rows] / self._weight[:rows]
        keep = self._sum.shape[1] - rows
        self._sum[:, :keep] = self._sum[:, rows:].copy()
        self._weight[:keep] = self._weight[rows:].copy()
        self._sum[:, keep:] = 0
        self._weight[keep:] = 0
        self._row += rows
        return done
