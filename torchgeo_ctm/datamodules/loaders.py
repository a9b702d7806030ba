"""Batches of labeled windows, read ahead by threads."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import copy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..errors import SceneError
from ..grids import Window
from ..samplers.labeled_scene import LabeledWindows, with_label
from ..samplers.neighborhoods import Reading, WindowDraws
from ..scenes.batches import Batch, prefetch
from ..scenes.scene import SceneWindows

T = TypeVar('T')
R = TypeVar('R')

logger = logging.getLogger(__name__)

#: Scenes that a thread keeps open; TorchGeo's RasterDataset keeps as many.
OPEN = 128

#: Number of draws before an error says that no window has valid pixels.
REDRAWS = 100


def epoch_number(trainer: Any) -> int:
    """Return the number of the epoch to draw; always 0 for ``overfit_batches``.

    Args:
        trainer: The trainer, or None.
    """
    if trainer is None or getattr(trainer, 'overfit_batches', False):
        return 0
    return int(trainer.current_epoch)


class TrainingBatches(IterableDataset[Batch]):
    """The training batches of an epoch, different windows in each.

    A batch holds ``image``, ``valid``, ``window`` and, where the scenes have
    references, ``mask``, as :class:`SceneWindows` makes them; ``label`` float32
    (B, C), ``label_known`` bool (B, C) and ``scene`` int64 (B,). Each window is shown
    in one of its 8 orientations (quarter turns and flips), drawn at random, because
    nadir imagery has no up.
    """

    def __init__(
        self,
        draws: WindowDraws,
        batch_size: int,
        length: int,
        threads: int = 1,
        part: tuple[int, int] = (0, 1),
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        """Create the batches.

        Args:
            draws: Sampler of windows.
            batch_size: Windows per batch.
            length: Number of windows per epoch, over all processes; rounded up to
                whole batches of each.
            threads: Number of threads that read ahead; 0 reads when asked.
            part: Number of this process, and how many there are.
            epoch: Returns the number of the epoch that starts.
        """
        self.draws = draws
        self.batch_size = batch_size
        self.threads = threads
        self.part = part
        self.epoch = epoch
        self._batches = max(1, -(-length // (batch_size * part[1])))
        self._reader = _Reader([scene.scene for scene in draws.scenes])
        self._drawing = threading.Lock()

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches of the epoch in order."""
        # the epoch of a resumed run is known only when its first batch is requested
        begin = partial(self._begin, self.epoch())
        yield from prefetch(begin) if self.threads else begin()

    def _begin(self, epoch: int) -> Iterator[Batch]:
        before = self.draws.unlabeled
        with closing(self._samples(epoch)) as samples:
            for _ in range(len(self)):
                yield _stack(samples, self.batch_size)
        logger.info(
            'epoch %d: %d windows; %d draws had no label and were repeated',
            epoch,
            len(self) * self.batch_size,
            self.draws.unlabeled - before,
        )

    def _samples(self, epoch: int) -> Generator[dict[str, Tensor], None, None]:
        """Yield the windows of this process in order."""
        chunks = self._chunks(epoch)
        for chunk, results in _ahead(self._reader.draws, chunks, self.threads):
            found = [sample for result in results for sample in result]
            again = 0
            while not found:
                again += 1
                if again > REDRAWS:
                    raise SceneError(
                        f'No window with valid pixels was found in {REDRAWS} draws. '
                        'Rebuild the overviews of the scenes: they show valid pixels '
                        'where there are none.'
                    )
                for reading in self.draws.readings(epoch, chunk, again):
                    found += self._reader.draws(reading)
            # others are repeated in place of invalid ones
            found.sort(key=lambda pair: pair[0])
            for turn in range(self.draws.chunk):
                yield found[turn % len(found)][1]

    def _chunks(self, epoch: int) -> Iterator[tuple[int, list[Reading]]]:
        """Yield the chunks that this process reads: every n-th."""
        chunks = -(-len(self) * self.batch_size // self.draws.chunk)
        for turn in range(chunks):
            chunk = self.part[0] + turn * self.part[1]
            # an abandoned iterator may still be drawing
            with self._drawing:
                readings = self.draws.readings(epoch, chunk)
            yield chunk, readings


class EvaluationBatches(IterableDataset[Batch]):
    """The windows of a split in batches, in order, the same in every epoch."""

    def __init__(
        self,
        windows: LabeledWindows,
        batch_size: int,
        threads: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Create the batches.

        Args:
            windows: The windows.
            batch_size: Windows per batch, at most.
            threads: Number of threads that read ahead; 0 reads when asked.
            part: Which of how many processes this is: each takes a stretch.
        """
        first, last = (len(windows) * (part[0] + i) // part[1] for i in (0, 1))
        # processes wait for the metrics of all: none may be without a window
        first = min(first, len(windows) - 1)
        last = max(last, first + 1)
        starts = range(first, last, batch_size)
        self._batches = [range(s, min(s + batch_size, last)) for s in starts]
        self.windows = windows
        self.threads = threads
        self._reader = _Reader([scene.scene for scene in windows.scenes])

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches in order."""
        return prefetch(self._begin) if self.threads else self._begin()

    def _begin(self) -> Iterator[Batch]:
        chunks = (
            (number, [self.windows.windows[index] for index in indexes])
            for number, indexes in enumerate(self._batches)
        )
        for _, samples in _ahead(self._reader.window, chunks, self.threads):
            yield _stack(iter(samples), len(samples))


class _Reader:
    """Read windows; every thread opens the scenes for itself, at most :data:`OPEN`."""

    def __init__(self, scenes: Sequence[SceneWindows]) -> None:
        self._scenes = list(scenes)
        self._opened = threading.local()

    def _scene(self, number: int) -> SceneWindows:
        """Return this thread's own scene: two must never share an open file."""
        opened: dict[Any, SceneWindows] = self._opened.__dict__
        scene = opened.pop(number, None) or copy(self._scenes[number])
        while len(opened) >= OPEN:
            # the one that was read longest ago
            del opened[next(iter(opened))]
        opened[number] = scene
        return scene

    def window(self, place: tuple[int, Window, Any]) -> dict[str, Tensor]:
        """Read one window."""
        number, window, label = place
        scene = self._scene(number)
        return with_label(scene.sample(window, *scene.read(window)), number, label)

    def draws(self, reading: Reading) -> list[tuple[int, dict[str, Tensor]]]:
        """Read the windows of a neighborhood that have valid pixels, with their index."""
        scene = self._scene(reading.scene)
        pixels, valid = scene.read(reading.area)
        samples = []
        for draw in reading.draws:
            top, left = (
                draw.window.row - reading.area.row,
                draw.window.col - reading.area.col,
            )
            rows = slice(top, top + draw.window.height)
            cols = slice(left, left + draw.window.width)
            if valid[rows, cols].any():
                sample = scene.sample(
                    draw.window, pixels[:, rows, cols], valid[rows, cols]
                )
                sample = with_label(
                    _turn(sample, draw.orientation), reading.scene, draw.label
                )
                samples.append((draw.number, sample))
        return samples

    def __getstate__(self) -> dict[str, Any]:
        """Drop open files before pickling."""
        return {'_scenes': self._scenes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without open files."""
        self.__init__(state['_scenes'])  # type: ignore[misc]


def _turn(sample: dict[str, Tensor], orientation: int) -> dict[str, Tensor]:
    """Turn everything that lies on the pixels of the image.

    Args:
        sample: A sample of a window.
        orientation: Number of quarter turns, plus 4 to flip afterwards.
    """
    turned = {
        key: torch.rot90(sample[key], orientation % 4, (-2, -1))
        for key in ('image', 'valid', 'mask')
        if key in sample
    }
    if orientation >= 4:
        turned = {key: value.flip(-1) for key, value in turned.items()}
    return sample | turned


def _stack(samples: Iterator[dict[str, Tensor]], count: int) -> Batch:
    """Make a batch of the next samples."""
    taken = [next(samples) for _ in range(count)]
    return {key: torch.stack([s[key] for s in taken]) for key in taken[0]}


def _ahead(
    read: Callable[[T], R], chunks: Iterator[tuple[int, list[T]]], threads: int
) -> Iterator[tuple[int, list[R]]]:
    """Read chunk after chunk in a pool of threads, one chunk ahead of the caller."""
    if not threads:
        for number, chunk in chunks:
            yield number, [read(item) for item in chunk]
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, list[Future[R]]]] = deque()
    try:
        for number, chunk in chunks:
            waiting.append((number, [pool.submit(read, item) for item in chunk]))
            if len(waiting) > 1:
                oldest, futures = waiting.popleft()
                yield oldest, [future.result() for future in futures]
        for oldest, futures in waiting:
            yield oldest, [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
