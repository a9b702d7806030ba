"""Blend windows to rows of a scene, in one pass from top to bottom."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..windows import WindowPlan

#: Pixels of the rows that are blended in one call.
CHUNK = 1 << 16


class Rows(NamedTuple):
    """Finished rows: number of the first, scores (C, rows, W), validity (rows, W)."""

    row: int
    scores: Tensor
    valid: Tensor


class _Band(NamedTuple):
    """A row of windows, blended along it, without the rows that are finished.

    Attributes:
        top: First row of the scene.
        scores: Scores (C, h, W).
        valid: Validity (height, W).
        weight: Weight of each row (height,).
        full: Whether scores have one row per row of the scene, h = height.
    """

    top: int
    scores: Tensor
    valid: Tensor
    weight: NDArray[np.float32]
    full: bool

    def below(self, row: int) -> '_Band':
        """Return what is left of it from a row on, in memory of its own."""
        done = row - self.top
        if done <= 0 or not self.full:
            return self
        scores, valid = self.scores[:, done:].clone(), self.valid[done:].clone()
        return _Band(row, scores, valid, self.weight[done:], full=True)


class RowMosaic:
    """Average overlapping windows by weight, one row of windows after the other.

    Bilinear resizing and blending are both linear, and separable into rows and columns.
    So a row of windows is kept at the height of its maps, and rows of the scene are
    computed once no later window can change them. Memory depends on the scene's width
    alone. Tensors stay on the device of the scores.
    """

    def __init__(
        self, plan: WindowPlan, channels: int, shown: range | None = None
    ) -> None:
        """Start above the first row of a scene.

        Args:
            plan: The windows of the scene.
            channels: Values per pixel, C.
            shown: Rows that are blended, and others in one call with them; None: all.
        """
        self._shown = range(plan.height) if shown is None else shown
        self._plan = plan
        self._channels = channels
        self._bands: list[_Band] = []
        self._number = -1
        self._row = 0

    def add(
        self, numbers: Sequence[int], scores: Tensor, valid: Tensor
    ) -> Iterator[Rows]:
        """Add windows of one row, after yielding the rows that they finish.

        Args:
            numbers: Numbers of the windows in the plan, ascending.
            scores: Scores (B, C, h, w), stretched to the window.
            valid: Valid pixels (B, window, window) bool.

        Yields:
            Finished rows, from top to bottom.
        """
        number = self._plan.row_of(numbers[0])
        if number != self._number:
            yield from self._release(self._plan.rows[number][0])
            self._bands.append(self._empty(number, scores))
            self._number = number
        band = self._bands[-1]
        wide = self._widen(scores.float())
        height = band.valid.shape[0]
        for window, map_, mask in zip(numbers, wide, valid, strict=True):
            col, weight = self._plan.cols[window % len(self._plan.cols)]
            inside = slice(col, col + len(weight))
            weights = torch.from_numpy(weight).to(map_.device)
            band.scores[:, :, inside] += map_[..., : len(weight)] * weights
            band.valid[:, inside] |= mask[:height, : len(weight)].to(map_.device)

    def _empty(self, number: int, scores: Tensor) -> _Band:
        """Return a row of windows without windows."""
        top, weight = self._plan.rows[number]
        width, device = self._plan.width, scores.device
        return _Band(
            top,
            torch.zeros(self._channels, scores.shape[-2], width, device=device),
            torch.zeros(len(weight), width, dtype=torch.bool, device=device),
            weight,
            full=scores.shape[-2] == self._plan.window == len(weight),
        )

    def _widen(self, scores: Tensor) -> Tensor:
        """Resize scores (B, C, h, w) along the rows alone, (B, C, h, window)."""
        size = (scores.shape[-2], self._plan.window)
        if scores.shape[-1] == size[1]:
            return scores
        return F.interpolate(scores, size=size, mode='bilinear', align_corners=False)

    def finish(self) -> Iterator[Rows]:
        """Yield the remaining rows.

        Yields:
            Finished rows, from top to bottom.
        """
        yield from self._release(self._plan.height)

    def _release(self, end: int) -> Iterator[Rows]:
        """Yield the rows before *end*, and drop the windows above it."""
        chunk = max(1, CHUNK // self._plan.width)
        while self._row < end:
            rows = min(chunk, end - self._row)
            if self._row < self._shown.stop and self._row + rows > self._shown.start:
                yield self._blend(self._row, rows)
            self._row += rows
        # one by one, so that memory never holds all of them twice
        for _ in range(len(self._bands)):
            band = self._bands.pop(0)
            if band.top + len(band.valid) > end:
                self._bands.append(band.below(end))

    def _blend(self, row: int, rows: int) -> Rows:
        """Blend the rows of windows over some rows of the scene, from top to bottom."""
        device = self._bands[0].scores.device if self._bands else None
        size = (rows, self._plan.width)
        scores = torch.zeros(self._channels, *size, device=device)
        valid = torch.zeros(size, dtype=torch.bool, device=device)
        for band in self._bands:
            top, weight = band.top, band.weight
            first, last = max(row, top), min(row + rows, top + len(weight))
            if first >= last:
                continue
            inside, outside = (
                slice(first - top, last - top),
                slice(first - row, last - row),
            )
            weights = torch.from_numpy(weight[inside, None]).to(band.scores.device)
            if band.full:
                scores[:, outside] += band.scores[:, inside] * weights
            else:
                matrix = self._heighten(band.scores)[inside] * weights
                scores[:, outside] += torch.matmul(matrix, band.scores)
            valid[outside] |= band.valid[inside]
        return Rows(row, scores, valid)

    def _heighten(self, scores: Tensor) -> Tensor:
        """Return the matrix (window, h) that resizes columns of h scores."""
        identity = torch.eye(scores.shape[-2], device=scores.device)[None]
        matrix = F.interpolate(identity, self._plan.window, mode='linear')
        return matrix[0].T
