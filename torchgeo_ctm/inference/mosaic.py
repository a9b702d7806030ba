"""Blend windows into rows of a scene, in one pass from top to bottom."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..windows import WindowPlan

#: Pixels that are blended at a time, as whole rows.
CHUNK = 1 << 16


class Rows(NamedTuple):
    """Finished rows: the first one, scores (C, rows, W), validity (rows, W)."""

    row: int
    scores: Tensor
    valid: Tensor


class _Strip(NamedTuple):
    """One strip: scores blended along the rows (C, h, W), validity (tall, W)."""

    number: int
    scores: Tensor
    valid: Tensor


class RowMosaic:
    """Average overlapping windows by weight, strip by strip.

    Bilinear resizing and blending are both linear, and separate into rows and
    columns. So a strip is kept at the height of its maps, a few rows, and the scene's
    own rows are made when no later strip can change them: what memory holds depends
    on the scene's width alone. Everything stays on the device of the scores.
    """

    def __init__(self, plan: WindowPlan, channels: int) -> None:
        """Create an empty mosaic.

        Args:
            plan: The windows of the scene.
            channels: Values per pixel, C.
        """
        self._plan = plan
        self._channels = channels
        self._strips: list[_Strip] = []
        self._row = 0

    def add(
        self, numbers: Sequence[int], scores: Tensor, valid: Tensor
    ) -> Iterator[Rows]:
        """Add windows of one strip, after handing out the rows that they finish.

        Args:
            numbers: The windows' numbers in the plan, ascending.
            scores: Their scores (B, C, h, w), of any size that covers the window.
            valid: Which of their pixels hold data, (B, window, window) bool.

        Yields:
            Finished rows, from top to bottom.
        """
        number = self._plan.strip_of(numbers[0])
        if not self._strips or self._strips[-1].number != number:
            yield from self._release(self._plan.rows[number][0])
            self._strips.append(self._empty(number, scores))
        strip = self._strips[-1]
        wide = self._wide(scores.float())
        tall = strip.valid.shape[0]
        for window, map_, mask in zip(numbers, wide, valid, strict=True):
            col, weight = self._plan.cols[window % len(self._plan.cols)]
            place = slice(col, col + len(weight))
            weights = torch.from_numpy(weight).to(map_.device)
            strip.scores[:, :, place] += map_[..., : len(weight)] * weights
            strip.valid[:, place] |= mask[:tall, : len(weight)].to(map_.device)

    def _empty(self, number: int, scores: Tensor) -> _Strip:
        """Return a strip without windows."""
        tall = len(self._plan.rows[number][1])
        width, device = self._plan.width, scores.device
        return _Strip(
            number,
            torch.zeros(self._channels, scores.shape[-2], width, device=device),
            torch.zeros(tall, width, dtype=torch.bool, device=device),
        )

    def _wide(self, scores: Tensor) -> Tensor:
        """Resize scores (B, C, h, w) along the rows alone, (B, C, h, window)."""
        size = (scores.shape[-2], self._plan.window)
        if scores.shape[-1] == size[1]:
            return scores
        return F.interpolate(scores, size=size, mode='bilinear', align_corners=False)

    def finish(self) -> Iterator[Rows]:
        """Hand out the rows that are left.

        Yields:
            Finished rows, from top to bottom.
        """
        yield from self._release(self._plan.height)

    def _release(self, end: int) -> Iterator[Rows]:
        """Hand out the rows before *end*, and forget the strips above it."""
        tall = max(1, CHUNK // self._plan.width)
        while self._row < end:
            rows = min(tall, end - self._row)
            yield self._blend(self._row, rows)
            self._row += rows
        self._strips = [
            strip
            for strip in self._strips
            if self._plan.rows[strip.number][0] + len(strip.valid) > end
        ]

    def _blend(self, row: int, rows: int) -> Rows:
        """Blend the strips over some rows, from the upper to the lower."""
        device = self._strips[0].scores.device if self._strips else None
        size = (rows, self._plan.width)
        scores = torch.zeros(self._channels, *size, device=device)
        valid = torch.zeros(size, dtype=torch.bool, device=device)
        for strip in self._strips:
            top, weight = self._plan.rows[strip.number]
            first, last = max(row, top), min(row + rows, top + len(weight))
            if first >= last:
                continue
            inside, outside = (
                slice(first - top, last - top),
                slice(first - row, last - row),
            )
            matrix = self._tall(strip.scores)[inside]
            matrix = matrix * torch.from_numpy(weight[inside, None]).to(matrix.device)
            scores[:, outside] += torch.matmul(matrix, strip.scores)
            valid[outside] |= strip.valid[inside]
        return Rows(row, scores, valid)

    def _tall(self, scores: Tensor) -> Tensor:
        """Return the matrix (window, h) that resizes columns of h scores."""
        height = scores.shape[-2]
        identity = torch.eye(height, device=scores.device)[None]
        if height == self._plan.window:
            return identity[0]
        matrix = F.interpolate(identity, self._plan.window, mode='linear')
        return matrix[0].T
