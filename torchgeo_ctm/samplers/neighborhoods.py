"""Draw training windows at random, different ones in every epoch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError
from ..grids import Window
from ..labels import ImageLabel
from ..scenes.scene import SceneWindows
from .labeled_scene import Integers, LabeledScene

#: Number of draws before an error says that there is no window.
MAX_DRAWS = 2000


class Draw(NamedTuple):
    """One window of an epoch."""

    #: Position in the epoch.
    number: int
    window: Window
    label: ImageLabel
    #: Which of the 8 orientations to show, 0…7: quarter turns, and 4 for a flip.
    orientation: int


class Reading(NamedTuple):
    """Neighboring windows, which are read at once."""

    scene: int
    #: The smallest window around all of them.
    area: Window
    draws: tuple[Draw, ...]


class WindowDraws:
    """Sampler of training windows; all eligible windows are equally likely, or areas.

    A window is eligible if it belongs to the split, holds data and has a label.
    Windows come in groups of *group* from one neighborhood, so that pixels are decoded
    once for several windows: the first is drawn from all scenes, the others from its
    neighborhood. Windows of several neighborhoods are shuffled together, because steps
    whose windows come from few places give worse masks.

    Draw *i* of an epoch depends on seed, epoch and *i* alone.
    """

    #: Number of neighborhoods whose windows are shuffled together, at least.
    MIXED = 8
    #: Pixels of windows that are shuffled together, at most, if that is not fewer.
    PIXELS = 2**20

    def __init__(
        self,
        scenes: Sequence[LabeledScene],
        allowed: Callable[[int, Window], bool],
        seed: int,
        group: int,
        alike: bool = False,
    ) -> None:
        """Initialize the sampler.

        Args:
            scenes: The scenes.
            allowed: Whether a window of a scene (by its number) belongs to the split.
            seed: Seed of all draws.
            group: Number of windows drawn from one neighborhood, at least 1.
            alike: Draw labeled areas alike, of whatever size.

        Raises:
            LabelError: If no scene has labels.
        """
        self.scenes = list(scenes)
        self.allowed = allowed
        self.seed = seed
        self.group = group
        fitting = self.PIXELS // (group * scenes[0].scene.window ** 2)
        self.mixed = max(self.MIXED, min(4 * group, fitting))
        self.cells = [_cell(scene.scene) for scene in scenes]
        places = [np.argwhere(scene.starts) * scene.step for scene in scenes]
        owners = [np.full(len(p), number) for number, p in enumerate(places)]
        #: Corners of all cells in which windows may start, and the scene of each.
        self._places, self._owners = np.concatenate(places), np.concatenate(owners)
        self._sums: NDArray[np.float64] | None = None
        if alike:
            chances = [scene.chances()[scene.starts] for scene in scenes]
            self._sums = np.concatenate(chances).cumsum()
        #: Number of drawn windows without a label, since this object was created.
        self.unlabeled = 0
        if not len(self._places):
            raise LabelError(
                f'None of {len(self.scenes)} scenes overlaps a label. Check that labels and '
                'scenes cover the same area.'
            )

    @property
    def chunk(self) -> int:
        """Number of windows that are shuffled together."""
        return self.group * self.mixed

    def readings(self, epoch: int, chunk: int, again: int = 0) -> list[Reading]:
        """Return the windows of a chunk of an epoch, by neighborhood.

        Args:
            epoch: Number of the epoch.
            chunk: Number of the chunk.
            again: Number of the attempt; each draws other windows.

        Raises:
            LabelError: If no eligible window is found.
        """
        rng = np.random.default_rng((self.seed, epoch, chunk, again))
        order = chunk * self.chunk + rng.permutation(self.chunk)
        return [
            self._reading(rng, indexes) for indexes in order.reshape(-1, self.group)
        ]

    def _reading(self, rng: np.random.Generator, indexes: Integers) -> Reading:
        """Draw a neighborhood and windows in it."""
        for _ in range(MAX_DRAWS):
            place = self._place(rng)
            number = int(self._owners[place])
            shift = rng.integers(self.scenes[number].step, size=2)
            found = self._try(number, *(self._places[place] + shift))
            if found is not None:
                break
        else:
            raise LabelError(
                f'No window with a label was found in {MAX_DRAWS} draws. Check that labels '
                'cover windows of the training blocks.'
            )
        windows = [found, *self._neighbors(rng, number, found, len(indexes) - 1)]
        draws = [
            Draw(int(index), window, label, int(orientation))
            for index, (window, label), orientation in zip(
                indexes, windows, rng.integers(8, size=len(indexes)), strict=True
            )
        ]
        return Reading(number, _hull([draw.window for draw in draws]), tuple(draws))

    def _place(self, rng: np.random.Generator) -> int:
        """Draw a cell in which windows may start."""
        if self._sums is None:
            return int(rng.integers(len(self._places)))
        drawn = rng.random() * self._sums[-1]
        return int(np.searchsorted(self._sums, drawn, side='right'))

    def _neighbors(
        self,
        rng: np.random.Generator,
        number: int,
        found: tuple[Window, ImageLabel],
        count: int,
    ) -> list[tuple[Window, ImageLabel]]:
        """Draw more windows that start in the same cell as one that was found."""
        cell = np.array(self.cells[number])
        corner = np.array(found[0][:2]) // cell * cell
        end = np.minimum(corner + cell, self.scenes[number].places)
        more: list[tuple[Window, ImageLabel]] = []
        for _ in range(MAX_DRAWS):
            if len(more) == count:
                return more
            another = self._try(number, *rng.integers(corner, end))
            if another is not None:
                more.append(another)
        # where hardly any window is eligible, repeat the first one
        return more + [found] * (count - len(more))

    def _try(self, number: int, row: int, col: int) -> tuple[Window, ImageLabel] | None:
        """Return a window and its label, None if it is not eligible."""
        scene = self.scenes[number]
        if not scene.may_start(row, col):
            return None
        window = scene.window(row, col)
        if not scene.holds_data(window) or not self.allowed(number, window):
            return None
        label = scene.label(window)
        if label is None:
            self.unlabeled += 1
            return None
        return window, label


def _hull(windows: Sequence[Window]) -> Window:
    """Return the smallest window around several."""
    top, left = min(w.row for w in windows), min(w.col for w in windows)
    return Window(
        top,
        left,
        max(w.row + w.height for w in windows) - top,
        max(w.col + w.width for w in windows) - left,
    )


def _cell(scene: SceneWindows) -> tuple[int, int]:
    """Return height and width of the cells in which neighbors start.

    About two windows, in whole blocks of the file if these are small enough: windows
    that start in a block then touch only this block and the next one.
    """
    aim = 2 * scene.window
    height, width = (
        block * max(1, round(aim / block)) if block <= 2 * aim else aim
        for block in scene.block
    )
    return height, width
