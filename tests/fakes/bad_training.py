"""Chips as people have them: scaled twice, not finite, unlabeled, named badly."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.conftest import tiny_task
from torchgeo_ctm.trainers import ClassTokenMaskingTask

Sample = dict[str, Any]

RGB = {'in_channels': 3, 'bands': ['R', 'G', 'B'], 'scaling': None}


class Chips(Dataset[Sample]):
    """Chips of 32 px in which a class present raises a band; some are damaged."""

    def __init__(
        self,
        length: int = 8,
        change: Callable[[int, Sample], Sample] | None = None,
        channels: int = 3,
        bands: Sequence[str] | None = None,
        random: bool = False,
    ) -> None:
        """Create the chips.

        Args:
            length: Number of chips.
            change: Damages a sample, by its index.
            channels: Number of bands.
            bands: Their names, if the data set has any.
            random: Change every chip a little each time that it is read.
        """
        self.length, self.change, self.channels = length, change, channels
        self.random = random
        if bands is not None:
            self.bands = list(bands)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        seed = torch.Generator().manual_seed(index)
        image = torch.rand(self.channels, 32, 32, generator=seed)
        label = torch.tensor([float((index + c) % 3 > 0) for c in range(3)])
        image[:3] += 0.3 * label[:, None, None]
        if self.random:
            image += 0.1 * torch.rand(())
        sample = {'image': image, 'label': label}
        return sample if self.change is None else self.change(index, sample)


def loaders(
    chips: Dataset[Sample], batch_size: int = 4, **kwargs: Any
) -> tuple[DataLoader[Sample], DataLoader[Sample]]:
    """Return loaders of training, shuffled, and of validation."""
    return (
        DataLoader(chips, batch_size, shuffle=True, **kwargs),
        DataLoader(chips, batch_size),
    )


def trainer(*callbacks: pl.Callback, **kwargs: Any) -> pl.Trainer:
    """Return a quiet trainer of one epoch on the CPU."""
    defaults = {'max_epochs': 1, 'enable_checkpointing': False}
    return pl.Trainer(
        accelerator='cpu',
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **(defaults | kwargs),
    )


def fit(
    chips: Dataset[Sample], epochs: int = 1, **options: Any
) -> ClassTokenMaskingTask:
    """Train a tiny task on chips and return it."""
    task = tiny_task(**(RGB | options))
    trainer(max_epochs=epochs).fit(task, *loaders(chips))
    return task


class StopAt(pl.Callback):
    """Interrupts training after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


def weights_after(
    folder: Any,
    stops: Sequence[int],
    checkpoints: dict[str, Any],
    callbacks: Callable[[], list[pl.Callback]] = list,
    length: dict[str, int] | None = None,
    workers: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """Train with interruptions, each resumed from the last checkpoint.

    Args:
        folder: Folder of the checkpoints.
        stops: Steps after which training is interrupted.
        checkpoints: Arguments of ``ModelCheckpoint``.
        callbacks: Returns more callbacks.
        length: Length of training; None: four epochs.
        workers: Workers of the loader.
        **options: Options of the task.
    """
    path = None
    for number, stop in enumerate((*stops, None)):
        task = tiny_task(**(RGB | {'lr': 1e-3} | options))
        # a resumed run begins with other random numbers
        torch.manual_seed(number)
        saved = ModelCheckpoint(folder, save_last=True, **checkpoints)
        more = [] if stop is None else [StopAt(stop)]
        run = trainer(
            saved,
            *callbacks(),
            *more,
            enable_checkpointing=True,
            **(length or {'max_epochs': 4}),
        )
        data = loaders(Chips(12, random=True), num_workers=workers)
        try:
            run.fit(task, *data, ckpt_path=path, weights_only=True)
        except InterruptedError:
            path = f'{folder}/last.ckpt'
    return {name: value.clone() for name, value in task.state_dict().items()}
