"""Batches of a scene's windows, read strip by strip, ahead of the model."""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from queue import Empty, Queue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..grids import Window
from ..windows import split_evenly
from .scene import SceneWindows

Batch = dict[str, Tensor]

#: How long, in seconds, the reader waits before it looks whether anybody still listens.
PATIENCE = 0.2


class SceneBatches:
    """The windows of a scene in batches, each pixel read once.

    A batch holds what :class:`SceneWindows` puts into a sample, stacked, and ``index``
    int64 (B,), the windows' numbers. Windows without a valid pixel are left out. A
    batch never reaches over two strips and its windows depend on the scene and on
    *batch_size* alone, so that results do not depend on threads, processes or
    interruptions.
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
            ahead: Batches that are read ahead, in a thread of its own; 0 reads when
                asked.
            part: Which of how many row bands of the scene to read.
        """
        self.scene = scene
        self.batch_size = batch_size
        self.ahead = ahead
        strips = len(scene.plan.rows)
        first, last = (strips * (part[0] + i) // part[1] for i in (0, 1))
        self.strips = range(first, last)
        #: Above 0 for windows that need not be computed any more, by number.
        self.finished: NDArray[np.uint8] = np.zeros(len(scene.plan), np.uint8)
        #: A small picture that is taken of the rows that are read anyway, or None.
        self.thumbnail: Thumbnail | None = None

    def __len__(self) -> int:
        """Return how many batches there are, at most: empty windows make none.

        Of a loader without a length Lightning draws a batch ahead of its own.
        """
        in_strip = -(-len(self.scene.plan.cols) // self.batch_size)
        # Lightning refuses a process that has none
        return max(1, len(self.strips) * in_strip)

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches in order."""
        return ReadAhead(self._begin, self.ahead) if self.ahead else self._begin()

    def _begin(self) -> Iterator[Batch]:
        """Open the scene anew: two readers must never share an open file."""
        scene = copy(self.scene)
        scene.open()
        return self._batches(scene)

    def _batches(self, scene: SceneWindows) -> Iterator[Batch]:
        """Read strip after strip, keeping the rows that the next one shares."""
        rows = _Rows(scene)
        columns = len(self.scene.plan.cols)
        for strip in self.strips:
            numbers = np.arange(strip * columns, (strip + 1) * columns)
            if self.finished[numbers].all():
                continue
            top, tall = self.scene.plan[int(numbers[0])][::2]
            pixels, valid = rows.read(top, tall)
            if self.thumbnail is not None:
                self.thumbnail.take(top, pixels, valid)
            occupied = [
                int(number)
                for number in numbers
                if valid[:, _columns(self.scene.plan[int(number)])].any()
            ]
            for chosen in split_evenly(occupied, self.batch_size):
                if not self.finished[list(chosen)].all():
                    yield self._stack(chosen, pixels, valid)
            # so that the next strip need not lie beside this one in memory
            del pixels, valid

    def _stack(
        self, numbers: Any, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> Batch:
        """Make a batch of a strip's windows."""
        side = self.scene.window
        images = np.empty((len(numbers), len(pixels), side, side), np.float32)
        samples = []
        for number, image in zip(numbers, images, strict=True):
            window = self.scene.plan[number]
            place = _columns(window)
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
    """A small picture of some bands, taken strip by strip.

    A second look at the scene would decode every block again.
    """

    def __init__(self, scene: SceneWindows, bands: Sequence[int], longest: int) -> None:
        """Create an empty picture.

        Args:
            scene: The scene.
            bands: Positions among the model's bands.
            longest: Longest side in pixels.
        """
        self._scene = scene
        self._bands = list(bands)
        self._longest = longest
        height, width = scene.grid.height, scene.grid.width
        shrink = max(1.0, max(height, width) / longest)
        size = [max(1, round(side / shrink)) for side in (height, width)]
        self._rows, self._cols = (
            ((np.arange(small) + 0.5) * side / small).astype(np.int64)
            for small, side in zip(size, (height, width), strict=True)
        )
        self._picture = np.full((len(bands), *size), np.nan, np.float32)
        self._taken = np.zeros(size[0], bool)

    def take(self, top: int, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Take what the picture shows of rows from *top* on."""
        inside = (self._rows >= top) & (self._rows < top + pixels.shape[1])
        inside &= ~self._taken
        place = np.ix_(self._rows[inside] - top, self._cols)
        for band, picture in zip(self._bands, self._picture, strict=True):
            values = pixels[band][place].astype(np.float32)
            picture[inside] = np.where(valid[place], values, np.nan)
        self._taken |= inside

    def picture(self) -> NDArray[np.float32]:
        """Return the picture (bands, h, w), NaN where invalid.

        Where strips were left out, because they had been computed before or by other
        processes, the scene is read once more.
        """
        if self._taken.all():
            return self._picture
        return self._scene.overview(self._bands, self._longest)


def _columns(window: Window) -> slice:
    """Return the columns of a window."""
    return slice(window.col, window.col + window.width)


class _Rows:
    """Rows of a scene, of which those shared with the rows before are kept."""

    def __init__(self, scene: SceneWindows) -> None:
        self._scene = scene
        self._top = self._end = 0
        self._pixels: NDArray[Any] | None = None
        self._valid: NDArray[np.bool_] = np.zeros((0, 0), bool)

    def read(self, top: int, tall: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixels (bands, tall, width) and validity of rows from *top* on."""
        width = self._scene.grid.width
        kept = max(self._end - top, 0) if self._pixels is not None else 0
        fresh = Window(top + kept, 0, tall - kept, width)
        if not kept:
            self._pixels = None
        pixels, valid = self._scene.read(fresh)
        if self._pixels is None:
            self._pixels, self._valid = pixels, valid
        else:
            for old, new in ((self._pixels, pixels), (self._valid, valid)):
                # in place: a strip is large, and two of them are enough
                old[..., :kept, :] = old[..., tall - kept :, :].copy()
                old[..., kept:, :] = new
        self._top, self._end = top, top + tall
        return self._pixels, self._valid


class ReadAhead:
    """Draws from an iterator in a thread, some items ahead of whoever asks.

    The thread starts with the first item that is asked for: Lightning also makes
    iterators that it only looks at.
    """

    def __init__(self, begin: Callable[[], Iterator[Batch]], items: int = 3) -> None:
        """Take what opens the source when the first item is asked for.

        Args:
            begin: Opens the source.
            items: How many may be ready, or in the making, before they are asked for.
        """
        self._begin = begin
        self._queue: Queue[tuple[str, Any]] = Queue()
        # taken before an item is made: one that waits for room is memory, too
        self._room = threading.Semaphore(items)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        """Open the source here, for warnings are no thread's own, and read there."""
        # the thread must not know this object, or nobody could ever let go of it
        self._thread = threading.Thread(
            target=_fill,
            args=(self._begin(), self._queue, self._room, self._stop),
            daemon=True,
        )
        self._thread.start()

    def __iter__(self) -> 'ReadAhead':
        """Return itself: it can be drawn from once."""
        return self

    def __next__(self) -> Batch:
        """Return the next item, or raise what the source raised."""
        if self._thread is None:
            self._start()
        while True:
            try:
                kind, content = self._queue.get(timeout=PATIENCE)
            except Empty:
                if self._stop.is_set():
                    raise StopIteration from None
                continue
            break
        if kind == 'item':
            self._room.release()
            batch: Batch = content
            return batch
        self.close()
        if kind == 'error':
            raise content
        raise StopIteration

    def close(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def __del__(self) -> None:
        """Let the thread end with whoever asked."""
        self.close()


def _fill(
    source: Iterator[Batch],
    queue: Queue[tuple[str, Any]],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """Put items, the end or an error into the queue until nobody listens."""
    try:
        while not stop.is_set():
            if not room.acquire(timeout=PATIENCE):
                continue
            try:
                queue.put(('item', next(source)))
            except StopIteration:
                queue.put(('end', None))
                return
    except BaseException as error:  # noqa: BLE001  raised again where it is asked for
        queue.put(('error', error))
