"""Windows of scenes together with their image labels, to train and to score with."""

import itertools
import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..grids import Grid, Window
from ..labels import ImageLabel, LabelSource
from ..scenes.scene import SceneWindows

#: Least share of a window's ground, 0…1, that must hold data: a label speaks of all.
MIN_VALID = 0.5

#: Longest side in pixels of the picture that tells where a scene holds data.
OVERVIEW = 1024

Integers = NDArray[np.int64]


class LabelledScene:
    """A scene, and what is known of its windows without reading them."""

    def __init__(self, scene: SceneWindows, labels: LabelSource) -> None:
        """Look at the scene's outline and validity.

        Args:
            scene: The scene; its ``window`` is the side of a window.
            labels: What its windows are called.
        """
        self.scene = scene
        self.labels = labels
        self.grid = scene.grid
        self.tall = min(scene.window, self.grid.height)
        self.wide = min(scene.window, self.grid.width)
        #: Number of places along rows and columns where a window may start.
        self.places = (
            self.grid.height - self.tall + 1,
            self.grid.width - self.wide + 1,
        )
        #: Name that tables of labels may call it by.
        self.tile = PurePath(scene.scene).name
        self._valid = _integral(scene)
        boxes = labels.extents(self.grid)
        self._boxes = None if boxes is None else np.asarray(boxes).reshape(-1, 4)
        #: Side in pixels of the cells of :attr:`starts`.
        self.step = max(1, scene.window // 8)
        #: In which cells windows start that touch a place with labels, bool.
        self.starts = self._starts()

    def window(self, row: int, col: int) -> Window:
        """Return the window that starts at a place."""
        return Window(int(row), int(col), self.tall, self.wide)

    def window_grid(self, window: Window) -> Grid:
        """Return the pixel grid of a window."""
        transform = self.grid.transform @ Affine.translation(window.col, window.row)
        return Grid(window.height, window.width, self.grid.crs, transform)

    def label(self, window: Window) -> ImageLabel | None:
        """Return the label of a window, None where nothing is known of it."""
        return self.labels.label(self.window_grid(window), self.tile)

    def holds_data(self, window: Window) -> bool:
        """Tell whether at least :data:`MIN_VALID` of a window holds data."""
        if self._valid is None:
            return True
        tall, wide = (size - 1 for size in self._valid.shape)
        rows, cols = (
            _scaled(start, length, size, full)
            for start, length, size, full in (
                (window.row, window.height, tall, self.grid.height),
                (window.col, window.width, wide, self.grid.width),
            )
        )
        (a, b), (c, d) = rows, cols
        sums = self._valid
        valid = sums[b, d] - sums[a, d] - sums[b, c] + sums[a, c]
        return bool(valid >= MIN_VALID * (b - a) * (d - c))

    def tiling(self) -> list[Window]:
        """Return windows without overlap to look for labels in, from top to bottom.

        Side by side from the upper left corner on; but in the middle of each place
        with labels, or side by side there, where these lie apart or are few.
        """
        if self._boxes is None or not self._apart(self._boxes):
            corners = itertools.product(
                range(0, self.places[0], self.tall), range(0, self.places[1], self.wide)
            )
            return [self.window(row, col) for row, col in corners]
        taken: dict[tuple[int, int], Window] = {}
        for top, left, bottom, right in self._boxes:
            for row in _middle(top, bottom, self.tall, self.places[0]):
                for col in _middle(left, right, self.wide, self.places[1]):
                    key = (row // self.tall, col // self.wide)
                    window = self.window(row, col)
                    if not any(
                        _overlap(window, taken[near])
                        for near in _around(*key)
                        if near in taken
                    ):
                        taken[key] = window
        return sorted(taken.values())

    def _apart(self, boxes: NDArray[np.float64]) -> bool:
        """Tell whether labels are squares apart from each other, or few."""
        if not len(boxes) or self.starts.mean() < 0.5:
            return True
        sides = boxes[:, 2:] - boxes[:, :2]
        large = np.median(sides.min(axis=1)) >= self.scene.window / 2
        scene = self.grid.height * self.grid.width
        return bool(large and sides.prod(axis=1).sum() < 0.9 * scene)

    def _starts(self) -> NDArray[np.bool_]:
        """Return in which cells windows start that touch a place with labels."""
        shape = [-(-places // self.step) for places in self.places]
        if self._boxes is None:
            return np.ones(shape, bool)
        size, last = np.array([self.tall, self.wide]), np.array(self.places) - 1
        first = np.floor(self._boxes[:, :2]).astype(np.int64)
        # a box without an area, a point, lies in the pixel where it starts
        end = np.maximum(np.ceil(self._boxes[:, 2:]).astype(np.int64) - 1, first)
        inside = ((end >= 0) & (first < last + size)).all(axis=1)
        a = np.maximum(first - size + 1, 0)[inside] // self.step
        b = np.minimum(end, last)[inside] // self.step + 1
        # +1 and -1 at the corners of each box: the sums of sums are above 0 inside
        marks = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
        for rows, cols, sign in ((a, a, 1), (a, b, -1), (b, a, -1), (b, b, 1)):
            np.add.at(marks, (rows[:, 0], cols[:, 1]), sign)
        found: NDArray[np.bool_] = marks.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
        return found

    def may_start(self, row: int, col: int) -> bool:
        """Tell whether a window may start at a place, inside and near labels."""
        if row >= self.places[0] or col >= self.places[1]:
            return False
        return bool(self.starts[row // self.step, col // self.step])


def _middle(first: float, last: float, window: int, places: int) -> list[int]:
    """Return starts of windows side by side in the middle of a stretch, at least one."""
    count = max(1, math.floor((last - first) / window))
    start = math.floor((first + last - count * window) / 2 + 0.5)
    inside = (min(max(start + n * window, 0), places - 1) for n in range(count))
    return sorted(set(inside))


def _around(row: int, col: int) -> list[tuple[int, int]]:
    """Return a cell and its eight neighbours."""
    return [(row + down, col + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def _overlap(one: Window, other: Window) -> bool:
    """Tell whether two windows of a size share a pixel."""
    return (
        abs(one.row - other.row) < one.height and abs(one.col - other.col) < one.width
    )


def _integral(scene: SceneWindows) -> Integers | None:
    """Return sums over a small picture of validity (h + 1, w + 1), None: all valid."""
    if scene.always_valid:
        return None
    valid = ~np.isnan(scene.overview([0], OVERVIEW)[0])
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    sums[1:, 1:] = valid.cumsum(axis=0).cumsum(axis=1)
    return sums


def _scaled(start: int, length: int, size: int, full: int) -> tuple[int, int]:
    """Return where a stretch begins and ends in a picture, at least a pixel long."""
    first = min(start * size // full, size - 1)
    return first, max(first + 1, -(-(start + length) * size // full))


class LabelledWindows(NonGeoDataset):
    """Windows of scenes with labels, in a fixed order.

    A sample is that of :class:`SceneWindows` with ``label`` float32 (C,),
    ``label_known`` bool (C,) and ``scene``, the scene's number.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        windows: Sequence[tuple[int, Window, ImageLabel]],
    ) -> None:
        """Take the windows.

        Args:
            scenes: The scenes.
            windows: For each window its scene's number, its place and its label.
        """
        self.scenes = list(scenes)
        self.windows = list(windows)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read one window.

        Raises:
            SceneError: If its pixels cannot be read.
        """
        number, window, label = self.windows[index]
        scene = self.scenes[number].scene
        return labelled(scene.sample(window, *scene.read(window)), number, label)

    def place(self, index: int) -> tuple[str, Grid]:
        """Return a name for a window, and its grid."""
        number, window, _ = self.windows[index]
        scene = self.scenes[number]
        name = PurePath(scene.tile).stem
        return f'{name}_{window.row}_{window.col}', scene.window_grid(window)


def labelled(
    sample: dict[str, Tensor], scene: int, label: ImageLabel
) -> dict[str, Tensor]:
    """Return a sample with its label and its scene's number."""
    return sample | {
        'label': torch.from_numpy(np.asarray(label.present, np.float32)),
        'label_known': torch.from_numpy(np.asarray(label.known, bool)),
        'scene': torch.tensor(scene),
    }
