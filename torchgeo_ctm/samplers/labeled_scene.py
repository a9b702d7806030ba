"""Windows of scenes with their image-level labels."""

import itertools
import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..grids import Grid, Window
from ..labels import ImageLabel, LabelSource
from ..scenes.scene import SceneWindows
from ..scenes.sources import tile_of

#: Smallest valid share of a window, 0…1: a label describes all of it.
MIN_VALID = 0.5

#: Longest side in pixels of the thumbnail that shows where a scene is valid.
OVERVIEW = 1024

Integers = NDArray[np.int64]


class LabeledScene:
    """A scene with labels, which answers questions about windows without reading."""

    def __init__(self, scene: SceneWindows, labels: LabelSource) -> None:
        """Initialize the scene.

        Args:
            scene: The scene; its ``window`` is the side of a window.
            labels: Source of the image-level labels.
        """
        self.scene = scene
        self.labels = labels
        self.grid = scene.grid
        self.height = min(scene.window, self.grid.height)
        self.width = min(scene.window, self.grid.width)
        #: Number of rows and columns at which a window may start.
        self.places = (
            self.grid.height - self.height + 1,
            self.grid.width - self.width + 1,
        )
        #: Path of the scene, which tables of labels may name in part.
        self.tile = tile_of(scene.scene)
        self._valid = _integral(scene)
        boxes = labels.extents(self.grid)
        self._boxes = None if boxes is None else np.asarray(boxes).reshape(-1, 4)
        #: Side in pixels of the cells of :attr:`starts`.
        self.step = max(1, scene.window // 8)
        #: Cells in which windows start that touch a labeled area, bool.
        self.starts = (self._starts() > 0) & self._near_area()

    def window(self, row: int, col: int) -> Window:
        """Return the window that starts at a row and column."""
        return Window(int(row), int(col), self.height, self.width)

    def window_grid(self, window: Window) -> Grid:
        """Return the pixel grid of a window."""
        transform = self.grid.transform @ Affine.translation(window.col, window.row)
        return Grid(window.height, window.width, self.grid.crs, transform)

    def label(self, window: Window) -> ImageLabel | None:
        """Return the label of a window, of clear ground alone; None if there is none."""
        grid, clouds = self.window_grid(window), self.scene.clouds
        if clouds is None:
            return self.labels.label(grid, self.tile)
        clear = ~clouds.read(window)
        if not clear.any():
            return None
        return self.labels.label(grid, self.tile, None if clear.all() else clear)

    def holds_data(self, window: Window) -> bool:
        """Return whether at least :data:`MIN_VALID` of a window is valid."""
        if self._valid is None:
            return True
        height, width = (size - 1 for size in self._valid.shape)
        rows, cols = (
            _scaled(start, length, size, full)
            for start, length, size, full in (
                (window.row, window.height, height, self.grid.height),
                (window.col, window.width, width, self.grid.width),
            )
        )
        (a, b), (c, d) = rows, cols
        sums = self._valid
        valid = sums[b, d] - sums[a, d] - sums[b, c] + sums[a, c]
        return bool(valid >= MIN_VALID * (b - a) * (d - c))

    def tiling(self) -> list[Window]:
        """Return windows without overlap to look for labels in, from top to bottom.

        Side by side from the upper left corner. Where labeled areas are few or far
        apart: in the middle of each of them, or side by side there. If the scene has an
        area, those that share ground with it.
        """
        if self._boxes is None or not self._apart(self._boxes):
            corners = itertools.product(
                range(0, self.places[0], self.height),
                range(0, self.places[1], self.width),
            )
            return self._inside([self.window(row, col) for row, col in corners])
        taken: dict[tuple[int, int], Window] = {}
        for top, left, bottom, right in self._boxes:
            for row in _middle(top, bottom, self.height, self.places[0]):
                for col in _middle(left, right, self.width, self.places[1]):
                    key = (row // self.height, col // self.width)
                    window = self.window(row, col)
                    if not any(
                        _overlap(window, taken[near])
                        for near in _around(*key)
                        if near in taken
                    ):
                        taken[key] = window
        return self._inside(sorted(taken.values()))

    def _inside(self, windows: list[Window]) -> list[Window]:
        """Return the windows that share ground with the area of the scene."""
        if self.scene.area is None or not windows:
            return windows
        row, col, height, width = np.array(windows, float).T
        boxes = shapely.box(col, row, col + width, row + height)
        return [*itertools.compress(windows, self.scene.area.meets(boxes))]

    def _near_area(self) -> NDArray[np.bool_]:
        """Return in which cells windows start that reach the rectangle of the area."""
        area = self.scene.area
        row, col, height, width = (
            (0, 0, *self.grid[:2]) if area is None else area.window
        )
        near = [
            (start < first + size) & (start + self.step - 1 + side > first)
            for start, first, size, side in (
                (np.arange(0, self.places[0], self.step), row, height, self.height),
                (np.arange(0, self.places[1], self.step), col, width, self.width),
            )
        ]
        return np.logical_and.outer(*near)

    def _apart(self, boxes: NDArray[np.float64]) -> bool:
        """Return whether labeled areas are few or far apart."""
        if not len(boxes) or self.starts.mean() < 0.5:
            return True
        sides = boxes[:, 2:] - boxes[:, :2]
        large = np.median(sides.min(axis=1)) >= self.scene.window / 2
        scene = self.grid.height * self.grid.width
        return bool(large and sides.prod(axis=1).sum() < 0.9 * scene)

    def chances(self) -> NDArray[np.float64]:
        """Return a weight for each cell of starts, so that areas are drawn equally often.

        The weight 1 of a labeled area is divided among the cells from which a window
        reaches it.
        """
        return self._starts(alike=True)

    def _starts(self, alike: bool = False) -> NDArray[np.float64]:
        """Return how many labeled areas a window touches, by the cell that it starts in.

        Args:
            alike: Count each area as 1 over all cells together.
        """
        shape = [-(-places // self.step) for places in self.places]
        if self._boxes is None:
            return np.ones(shape)
        size, last = np.array([self.height, self.width]), np.array(self.places) - 1
        first = np.floor(self._boxes[:, :2]).astype(np.int64)
        # a point is a box in the pixel where it starts
        end = np.maximum(np.ceil(self._boxes[:, 2:]).astype(np.int64) - 1, first)
        inside = ((end >= 0) & (first < last + size)).all(axis=1)
        a = np.maximum(first - size + 1, 0)[inside] // self.step
        b = np.minimum(end, last)[inside] // self.step + 1
        # + and - at the corners of each box: sums of sums are its part, inside of it
        part = 1 / (b - a).prod(axis=1) if alike else np.ones(len(a))
        marks = np.zeros((shape[0] + 1, shape[1] + 1))
        for rows, cols, sign in ((a, a, 1), (a, b, -1), (b, a, -1), (b, b, 1)):
            np.add.at(marks, (rows[:, 0], cols[:, 1]), sign * part)
        sums = marks.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
        # what rounding leaves outside is less than a part of the largest area
        sums[sums < part.min(initial=1) / 2] = 0
        return sums

    def may_start(self, row: int, col: int) -> bool:
        """Return whether a window may start at a row and column, near labels."""
        if row >= self.places[0] or col >= self.places[1]:
            return False
        near = bool(self.starts[row // self.step, col // self.step])
        return near and bool(self._inside([self.window(row, col)]))


def _middle(first: float, last: float, window: int, places: int) -> list[int]:
    """Return starts of windows side by side in the middle of a range, at least one."""
    count = max(1, math.floor((last - first) / window))
    start = math.floor((first + last - count * window) / 2 + 0.5)
    inside = (min(max(start + n * window, 0), places - 1) for n in range(count))
    return sorted(set(inside))


def _around(row: int, col: int) -> list[tuple[int, int]]:
    """Return a cell and its eight neighbors."""
    return [(row + down, col + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def _overlap(one: Window, other: Window) -> bool:
    """Tell whether two windows of a size share a pixel."""
    return (
        abs(one.row - other.row) < one.height and abs(one.col - other.col) < one.width
    )


def _integral(scene: SceneWindows) -> Integers | None:
    """Return the integral image of validity (h + 1, w + 1), None if all is valid."""
    if scene.always_valid:
        return None
    valid = ~np.isnan(scene.overview([0], OVERVIEW)[0])
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int64)
    sums[1:, 1:] = valid.cumsum(axis=0).cumsum(axis=1)
    return sums


def _scaled(start: int, length: int, size: int, full: int) -> tuple[int, int]:
    """Return a range in pixels of a thumbnail, at least one pixel long."""
    first = min(start * size // full, size - 1)
    return first, max(first + 1, -(-(start + length) * size // full))


class LabeledWindows(NonGeoDataset):
    """Windows of scenes with labels, in a fixed order.

    A sample is that of :class:`SceneWindows` with ``label`` float32 (C,),
    ``label_known`` bool (C,) and ``scene``, the scene's number.
    """

    def __init__(
        self,
        scenes: Sequence[LabeledScene],
        windows: Sequence[tuple[int, Window, ImageLabel]],
    ) -> None:
        """Initialize the data set.

        Args:
            scenes: The scenes.
            windows: For each window the number of its scene, the window, its label.
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
        return with_label(scene.sample(window, *scene.read(window)), number, label)

    def image_label(self, index: int) -> Tensor:
        """Return the label of a window (C,): 1 present, 0 absent, -1 unknown."""
        label = self.windows[index][2]
        present = np.where(label.known, label.present, -1)
        return torch.from_numpy(present.astype(np.float32))

    def place(self, index: int) -> tuple[str, Grid]:
        """Return a name for a window, and its grid."""
        number, window, _ = self.windows[index]
        scene = self.scenes[number]
        name = PurePath(scene.tile).stem
        return f'{name}_{window.row}_{window.col}', scene.window_grid(window)


def with_label(
    sample: dict[str, Tensor], scene: int, label: ImageLabel
) -> dict[str, Tensor]:
    """Return a sample with its label and the number of its scene."""
    return sample | {
        'label': torch.from_numpy(np.asarray(label.present, np.float32)),
        'label_known': torch.from_numpy(np.asarray(label.known, bool)),
        'scene': torch.tensor(scene),
    }
