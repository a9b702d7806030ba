"""Images of a batch side by side on a processor: threads that need not wait."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

Step = Callable[[Mapping[str, Any]], dict[str, Tensor]]


class Pending(Mapping[str, Tensor]):
    """What a step returns of a batch, waited for when it is looked at."""

    def __init__(self, parts: list[Future[dict[str, Tensor]]]) -> None:
        """Take what is being computed of the batch's parts, in order."""
        self._parts = parts
        self._whole: dict[str, Tensor] | None = None

    def _result(self) -> dict[str, Tensor]:
        """Return the whole, or raise what a part has raised."""
        if self._whole is None:
            done = [part.result() for part in self._parts]
            self._whole = {
                key: torch.cat([part[key] for part in done]) for key in done[0]
            }
            self._parts = []
        return self._whole

    def __getitem__(self, key: str) -> Tensor:
        """Return what the step returned under a name."""
        return self._result()[key]

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._result())

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._result())


class Lanes:
    """Threads that each take images of their own through a step.

    On a processor PyTorch shares every single operation among its threads, which wait
    for each other hundreds of times in a forward pass, and for whatever else runs on
    their cores. Images do not need each other.
    """

    def __init__(self) -> None:
        """Take as many threads as PyTorch has been given."""
        self._threads = torch.get_num_threads()
        # the same ones for every batch: libraries keep what they work with by thread
        self._pool = ThreadPoolExecutor(self._threads, 'images')

    def close(self) -> None:
        """End the threads, and what nobody waits for any more."""
        self._pool.shutdown(cancel_futures=True)
        # MKL has one number for all threads
        torch.set_num_threads(self._threads)

    def submit(self, step: Step, batch: Mapping[str, Any]) -> Pending:
        """Have a step run on parts of a batch at a time.

        Args:
            step: Takes a batch, returns tensors with one entry for each image. Runs
                without gradients.
            batch: Tensors, split by images if they have as many entries as ``image``,
                and whatever else the step takes, given to every part.

        Returns:
            What the step will have returned of the whole batch, images in their order.
        """
        count = len(batch['image'])
        lanes = min(self._threads, count)
        bounds = [count * lane // lanes for lane in range(lanes + 1)]
        # modes belong to a thread, and these do not know of them
        modes = (
            torch.is_inference_mode_enabled(),
            torch.get_autocast_dtype('cpu'),
            torch.is_autocast_enabled('cpu'),
        )

        def run(part: Mapping[str, Any]) -> dict[str, Tensor]:
            torch.set_num_threads(self._threads // lanes)
            with (
                torch.inference_mode(modes[0]),
                torch.no_grad(),
                torch.autocast('cpu', *modes[1:]),
            ):
                return step(part)

        return Pending(
            [
                self._pool.submit(run, _part(batch, slice(*bounds[lane : lane + 2])))
                for lane in range(lanes)
            ]
        )


def _part(batch: Mapping[str, Any], images: slice) -> dict[str, Any]:
    """Return what a batch says of some of its images."""
    count = len(batch['image'])
    return {
        key: value[images] if _by_image(value, count) else value
        for key, value in batch.items()
    }


def _by_image(value: Any, count: int) -> bool:
    """Whether a value has one entry for each image."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


class SideBySide(pl.LightningModule):
    """A module that predicts images of a batch side by side, where that is faster.

    That is on a processor, while a trainer predicts. Each task says in
    :meth:`predict_images` what it predicts.
    """

    #: Let ``predict_step`` return before all is computed: for a callback that looks at
    #: a batch's results when the next one has been begun, so that no thread idles.
    predict_ahead = False

    _lanes: Lanes | None = None

    def predict_images(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what is predicted of a batch, all images at once."""
        raise NotImplementedError

    def on_predict_start(self) -> None:
        """Get the threads ready."""
        if self.device.type == 'cpu' and not self.hparams.get('compile_blocks'):
            self._lanes = Lanes()

    def on_predict_end(self) -> None:
        """End the threads."""
        self.predict_ahead = False
        if self._lanes is not None:
            self._lanes.close()
            self._lanes = None

    def predict_step(
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> Mapping[str, Tensor]:
        """Return what :meth:`predict_images` returns, or will have returned."""
        if self._lanes is None:
            return self.predict_images(batch)
        found = self._lanes.submit(self.predict_images, batch)
        return found if self.predict_ahead else dict(found)
