"""Resume training so that it sees what an uninterrupted run would have seen."""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

#: Distance between the seeds of two epochs, more than there are processes.
STEP = 100_003
#: Distance between the first seeds of two runs.
FACTOR = 1_000_003


class ResumableTraining:
    """Random numbers and data of a training, by epoch.

    Every epoch starts from a seed of its own, and with a new iterator over the data, so
    that its draws depend on the seed of the run and the number of the epoch alone.
    Within an epoch, the batches that an interrupted run has seen are skipped.
    """

    def __init__(self) -> None:
        """Start without a seed."""
        self._seed: int | None = None
        self._loaded: Mapping[str, Any] | None = None

    def save(self, trainer: Any, generator: torch.Generator) -> dict[str, Any]:
        """Return what a checkpoint must hold.

        Args:
            trainer: The trainer.
            generator: Generator of the masking.
        """
        monitored = trainer.callback_metrics.get('val_loss')
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            'seed': self._seed,
            'torch': torch.get_rng_state(),
            'cuda': cuda,
            'python': random.getstate(),
            'masking': generator.get_state(),
            'val_loss': None if monitored is None else float(monitored),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Remember what a checkpoint holds, until training starts."""
        self._loaded = state

    def start(self, trainer: Any, generator: torch.Generator) -> None:
        """Start or resume training.

        Args:
            trainer: The trainer, whose progress is restored.
            generator: Generator of the masking.
        """
        loaded = self._loaded
        # another fit of the same task starts afresh
        self._loaded = loaded if trainer.global_step else None
        self._seed = torch.initial_seed() % 2**31
        if loaded is None or self._loaded is None:
            return
        self._seed = self._seed if loaded['seed'] is None else loaded['seed']
        loop = trainer.fit_loop
        seen = loop.epoch_loop.batch_progress.current.ready
        if (
            not getattr(loop, 'restarted_mid_epoch', False)
            or not 0 < seen < trainer.num_training_batches
        ):
            return
        self._begin(trainer)
        fetcher = loop._data_fetcher
        for _ in range(seen):
            next(fetcher)
        # Lightning counts the batches before the interruption itself
        fetcher.fetched = 0
        torch.set_rng_state(loaded['torch'].cpu())
        if len(loaded['cuda']) == torch.cuda.device_count() and loaded['cuda']:
            torch.cuda.set_rng_state_all([state.cpu() for state in loaded['cuda']])
        version, numbers, gauss = loaded['python']
        random.setstate((version, tuple(numbers), gauss))
        generator.set_state(loaded['masking'].cpu())

    def start_epoch(self, trainer: Any) -> None:
        """Start an epoch: its seed, its data, and a step that its plateau missed."""
        if self._loaded is not None:
            _step_plateau(trainer, self._loaded['val_loss'])
        self._begin(trainer)

    def _begin(self, trainer: Any) -> None:
        """Seed an epoch; create the iterator over its data if Lightning does not."""
        # overfit_batches repeats its batches
        epoch = 0 if trainer.overfit_batches else trainer.current_epoch
        # far from the seeds of the masking, whose numbers must not be the same
        first = FACTOR * (1 + (self._seed or 0))
        seed = (first + STEP * epoch + trainer.global_rank) % 2**31
        random.seed(seed)
        torch.manual_seed(seed)
        loop = trainer.fit_loop
        restarts = loop.epoch_loop.restarting or getattr(loop, 'is_resuming', False)
        if trainer.current_epoch == 0 or restarts:
            # Lightning would use one from before the epoch was known
            iter(loop._data_fetcher)


def _step_plateau(trainer: Any, saved: float | None) -> None:
    """Step a plateau schedule for the epoch in which the checkpoint was written.

    Checkpoints are written before the schedule of their epoch is stepped, and Lightning
    leaves that step out.
    """
    val_loss = trainer.callback_metrics.get('val_loss', saved)
    for config in trainer.lr_scheduler_configs:
        plateau, every = config.scheduler, config.frequency
        if not isinstance(plateau, ReduceLROnPlateau) or val_loss is None:
            continue
        if plateau.last_epoch < trainer.current_epoch // every:
            plateau.step(float(val_loss))
