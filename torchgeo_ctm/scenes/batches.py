"""Batches of the windows of a scene, read ahead row by row."""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from queue import Empty, Queue
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ..grids import Window
from ..windows import split_evenly
from .scene import SceneWindows, shrunk

Batch = dict[str, Tensor]

T = TypeVar('T')

#: Seconds that a thread waits before it checks whether the other one has stopped.
POLL = 0.2


class SceneBatches(IterableDataset[Batch]):
    """The windows of a scene in batches, each pixel read once.

    A batch holds what :class:`SceneWindows` puts into a sample, stacked, and ``index``
    int64 (B,), the numbers of the windows. A row of windows is split into batches by
    its columns, and windows without a valid pixel are left out. So a batch depends on
    its own windows and on *batch_size* alone, and results do not depend on threads,
    processes, interruptions or the part of the scene that is mapped. Of such a part,
    batches without a window that touches it are not even read.
    """

    def __init__(
        self,
        scene: SceneWindows,
        batch_size: int,
        ahead: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Create the batches.

        Args:
            scene: The scene.
            batch_size: Windows per batch, at most.
            ahead: Number of batches that a thread reads ahead; 0 reads when asked.
            part: Number of this process, and how many share the scene.
        """
        self.scene = scene
        self.batch_size = batch_size
        self.ahead = ahead
        rows = len(scene.plan.rows)
        first, last = (rows * (part[0] + i) // part[1] for i in (0, 1))
        self.window_rows = range(first, last)
        #: Above 0 for windows that are finished, by number.
        self.finished: NDArray[np.uint8] = np.zeros(len(scene.plan), np.uint8)
        #: Windows that were read and hold no valid pixel, by number.
        self.empty = np.zeros(len(scene.plan), bool)
        #: A thumbnail to fill from the rows that are read, or None.
        self.thumbnail: Thumbnail | None = None

    def __len__(self) -> int:
        """Return the number of batches, at most: invalid windows make none.

        Lightning prefetches a batch from loaders without a length.
        """
        in_row = -(-len(self.scene.plan.cols) // self.batch_size)
        # Lightning raises if a process has none
        return max(1, len(self.window_rows) * in_row)

    def take_thumbnail(self, bands: Sequence[int], longest: int) -> None:
        """Take a thumbnail of the scene while it is read.

        Args:
            bands: Positions among the model's bands.
            longest: Longest side in pixels.
        """
        area = self.scene.area
        shown = Window(0, 0, *self.scene.grid[:2]) if area is None else area.window
        self.thumbnail = Thumbnail(self.scene, bands, longest, shown)

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches in order."""
        return prefetch(self._begin, self.ahead) if self.ahead else self._begin()

    def missing(self, finished: NDArray[np.uint8]) -> int:
        """Return how many windows of this process hold data and are not finished.

        Windows that were never read count, because they may hold data.

        Args:
            finished: Windows that were computed, by number: above 0.
        """
        columns = len(self.scene.plan.cols)
        own = np.concatenate(
            [np.arange(row * columns, (row + 1) * columns) for row in self.window_rows]
            or [np.zeros(0, np.int64)]
        )
        left = (finished[own] == 0) & ~self.empty[own]
        left &= self.scene.wanted[own]
        return int(left.sum())

    def _begin(self) -> Iterator[Batch]:
        """Open the scene again: two readers must never share an open file."""
        scene = copy(self.scene)
        scene.open()
        return self._batches(scene)

    def _batches(self, scene: SceneWindows) -> Iterator[Batch]:
        """Read row after row of windows, keeping the pixels that the next one shares."""
        plan, wanted = self.scene.plan, self.scene.wanted
        groups = self._groups(wanted)
        if not groups:
            return
        first, last = int(groups[0][0]), int(groups[-1][-1])
        left, right = plan[first].col, plan[last].col + plan[last].width
        rows = _Rows(scene, left, right - left)
        for row in self.window_rows:
            begin = row * len(plan.cols)
            numbers = np.arange(begin + first, begin + last + 1)
            if (self.finished[numbers] > 0)[wanted[numbers]].all():
                continue
            top, tall = plan[begin][::2]
            pixels, valid = rows.read(top, tall)
            if self.thumbnail is not None:
                self.thumbnail.take(top, left, pixels, valid)
            for group in groups:
                numbers = begin + group
                occupied = [
                    int(number)
                    for number in numbers
                    if valid[:, _columns(plan[int(number)], left)].any()
                ]
                self.empty[numbers] = True
                self.empty[occupied] = False
                if wanted[occupied].any() and not self.finished[occupied].all():
                    yield self._stack(occupied, left, pixels, valid)
            # so that two rows of windows are never in memory
            del pixels, valid

    def _groups(self, wanted: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        """Return the columns of windows of each batch that a row may have."""
        columns = len(self.scene.plan.cols)
        here = np.asarray(wanted.reshape(-1, columns).any(axis=0), bool)
        groups = map(np.array, split_evenly(range(columns), self.batch_size))
        return [group for group in groups if here[group].any()]

    def _stack(
        self, numbers: Any, left: int, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Batch:
        """Make a batch of windows of one row, whose pixels start at column *left*."""
        side = self.scene.window
        images = np.empty((len(numbers), len(pixels), side, side), np.float32)
        samples = []
        for number, image in zip(numbers, images, strict=True):
            window = self.scene.plan[number]
            place = _columns(window, left)
            samples.append(
                self.scene.sample(window, pixels[:, :, place], valid[:, place], image)
            )
        stacked = {
            key: torch.stack([sample[key] for sample in samples])
            for key in samples[0]
            if key != 'image'
        }
        numbered = {'index': torch.tensor(list(numbers))}
        return {'image': torch.from_numpy(images)} | stacked | numbered


class Thumbnail:
    """A thumbnail of some bands, filled row by row.

    Reading the scene a second time would decode every block again.
    """

    def __init__(
        self, scene: SceneWindows, bands: Sequence[int], longest: int, shown: Window
    ) -> None:
        """Create an empty thumbnail.

        Args:
            scene: The scene.
            bands: Positions among the model's bands.
            longest: Longest side in pixels.
            shown: The window of the scene that it shows.
        """
        self._scene = scene
        self._bands = list(bands)
        self._longest = longest
        self._shown = shown
        size = shrunk(shown[2:], longest)
        self._rows, self._cols = (
            start + ((np.arange(small) + 0.5) * side / small).astype(np.int64)
            for start, small, side in zip(shown[:2], size, shown[2:], strict=True)
        )
        self._size = (len(bands), *size)
        # of many scenes, only one is read at a time
        self._picture: NDArray[np.float32] | None = None
        self._taken = np.zeros(size[0], bool)

    def take(
        self, top: int, left: int, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        """Copy the pixels of the thumbnail from those that start at *top* and *left*."""
        if self._picture is None:
            self._picture = np.full(self._size, np.nan, np.float32)
        inside = (self._rows >= top) & (self._rows < top + pixels.shape[1])
        inside &= ~self._taken
        place = np.ix_(self._rows[inside] - top, self._cols - left)
        for band, picture in zip(self._bands, self._picture, strict=True):
            values = pixels[band][place].astype(np.float32)
            picture[inside] = np.where(valid[place], values, np.nan)
        self._taken |= inside

    def picture(self) -> NDArray[np.float32]:
        """Return the thumbnail (bands, h, w), NaN where invalid.

        If rows are missing, because they were computed before or by other processes,
        the scene is read once more.
        """
        if self._picture is not None and self._taken.all():
            return self._picture
        return self._scene.overview(self._bands, self._longest, self._shown)


def _columns(window: Window, left: int) -> slice:
    """Return the columns of a window in pixels that start at column *left*."""
    return slice(window.col - left, window.col - left + window.width)


class _Rows:
    """Pixels of a row of windows; those shared with the next row are kept."""

    def __init__(self, scene: SceneWindows, left: int, width: int) -> None:
        self._scene = scene
        self._left, self._width = left, width
        self._top = self._end = 0
        self._pixels: NDArray[Any] | None = None
        self._valid: NDArray[np.bool_] = np.zeros((0, 0), bool)

    def read(self, top: int, tall: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixels (bands, tall, width) and validity of rows that start at *top*."""
        kept = max(self._end - top, 0) if self._pixels is not None else 0
        fresh = Window(top + kept, self._left, tall - kept, self._width)
        if not kept or self._pixels is None:
            self._pixels = None
            self._pixels, self._valid = self._scene.read(fresh)
        else:
            # in place, to save memory
            for old in (self._pixels, self._valid):
                old[..., :kept, :] = old[..., tall - kept :, :].copy()
            _, valid = self._scene.read(fresh, self._pixels[:, kept:])
            self._valid[kept:] = valid
        self._top, self._end = top, top + tall
        return self._pixels, self._valid


def prefetch(begin: Callable[[], Iterator[T]], items: int = 3) -> Iterator[T]:
    """Yield the items of a source that a thread reads ahead.

    The thread starts with the first item that is asked for, because Lightning also
    makes iterators without using them, and ends with the last one, when the iterator is
    deleted, or when the main thread ends. Python waits for it then: a thread that it
    stops within GDAL or PyTorch aborts the process.

    Args:
        begin: Opens the source; called in the thread of the caller, so that its
            warnings belong there.
        items: Number of items that may be ready, or in the making, before they are
            asked for.
    """
    queue: Queue[tuple[str, Any]] = Queue()
    # acquired before an item is made: one that waits for room is memory, too
    room = threading.Semaphore(items)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(begin(), queue, room, stop))
    thread.start()
    try:
        while True:
            try:
                kind, content = queue.get(timeout=POLL)
            except Empty:
                # Windows sees Ctrl+C between two waits only
                continue
            if kind == 'end':
                return
            if kind == 'error':
                raise content
            room.release()
            yield content
    finally:
        stop.set()


def _fill(
    source: Iterator[T],
    queue: Queue[tuple[str, Any]],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """Put items, then the end or an error, into a queue until *stop* is set."""
    main = threading.main_thread()
    try:
        while main.is_alive() and not stop.is_set():
            if room.acquire(timeout=POLL):
                queue.put(('item', next(source)))
    except StopIteration:
        queue.put(('end', None))
    except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
        queue.put(('error', error))
