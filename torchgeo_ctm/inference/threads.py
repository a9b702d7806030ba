"""Prediction on a CPU: each thread takes images of its own."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

Step = Callable[[Mapping[str, Any]], dict[str, Tensor]]


class PendingResult(Mapping[str, Tensor]):
    """The result of a batch, waited for when it is accessed."""

    def __init__(self, parts: list[Future[dict[str, Tensor]]]) -> None:
        """Create the result.

        Args:
            parts: Results of the parts of the batch, in order.
        """
        self._parts = parts
        self._whole: dict[str, Tensor] | None = None

    def _result(self) -> dict[str, Tensor]:
        """Return the whole result, or raise what a part has raised."""
        if self._whole is None:
            done = [part.result() for part in self._parts]
            self._whole = {
                key: torch.cat([part[key] for part in done]) for key in done[0]
            }
            self._parts = []
        return self._whole

    def __getitem__(self, key: str) -> Tensor:
        """Return a tensor of the result."""
        return self._result()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the tensors."""
        return iter(self._result())

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._result())


class ImageThreads:
    """Threads that run a step on images of their own.

    On a CPU, PyTorch splits every single operation among its threads, which wait for
    each other hundreds of times in a forward pass. Images do not depend on each other,
    so each thread can run a whole forward pass instead.
    """

    def __init__(self) -> None:
        """Create as many threads as PyTorch uses."""
        self._threads = torch.get_num_threads()
        # the same threads for every batch, because libraries keep buffers per thread
        self._pool = ThreadPoolExecutor(self._threads, 'images')

    def close(self) -> None:
        """Drop batches that have not started; do not wait for those that have."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        # MKL has one number for all threads
        torch.set_num_threads(self._threads)

    def submit(self, step: Step, batch: Mapping[str, Any]) -> PendingResult:
        """Run a step on parts of a batch, one part per thread.

        Args:
            step: Takes a batch, returns tensors with one entry per image. Runs without
                gradients.
            batch: Tensors with as many entries as ``image`` are split by image. Other
                values are given to every part.

        Returns:
            The result of the whole batch, images in their order.
        """
        count = len(batch['image'])
        parts = min(self._threads, count)
        bounds = [count * part // parts for part in range(parts + 1)]
        # grad and autocast modes belong to a thread, so they are passed on
        modes = (
            torch.is_inference_mode_enabled(),
            torch.get_autocast_dtype('cpu'),
            torch.is_autocast_enabled('cpu'),
        )

        def run(part: Mapping[str, Any]) -> dict[str, Tensor]:
            torch.set_num_threads(self._threads // parts)
            with (
                torch.inference_mode(modes[0]),
                torch.no_grad(),
                torch.autocast('cpu', *modes[1:]),
            ):
                return step(part)

        return PendingResult(
            [
                self._pool.submit(run, _part(batch, slice(*bounds[part : part + 2])))
                for part in range(parts)
            ]
        )


class ThreadedPrediction:
    """Lets a task predict on :class:`ImageThreads` until it is closed.

    ``predict_step`` then returns before the batch is computed. The caller accesses the
    result when it has started the next batch, so that no thread idles.
    """

    def __init__(self, task: LightningModule) -> None:
        """Replace the task's ``predict_step``.

        Args:
            task: A task on a CPU, whose ``predict_step`` uses ``batch`` only.
        """
        self._own = vars(task)
        self._before = self._own.get('predict_step')
        self._threads = ImageThreads()
        step = task.predict_step

        def predict_step(
            batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
        ) -> Mapping[str, Tensor]:
            return self._threads.submit(lambda part: step(part, batch_idx), batch)

        self._own['predict_step'] = predict_step

    def close(self) -> None:
        """Stop the threads and give the task its own ``predict_step`` back."""
        del self._own['predict_step']
        if self._before is not None:
            self._own['predict_step'] = self._before
        self._threads.close()


def threaded_prediction(task: LightningModule) -> ThreadedPrediction | None:
    """Return threads for a task on a CPU, or None where they would not help.

    Compiled modules are not called from several threads.
    """
    compiled = any(m._compiled_call_impl is not None for m in task.modules())
    if task.device.type != 'cpu' or compiled:
        return None
    return ThreadedPrediction(task)


def _part(batch: Mapping[str, Any], images: slice) -> dict[str, Any]:
    """Return a batch with some of its images."""
    count = len(batch['image'])
    return {
        key: value[images] if _per_image(value, count) else value
        for key, value in batch.items()
    }


def _per_image(value: Any, count: int) -> bool:
    """Return whether a value is a tensor with one entry per image."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
