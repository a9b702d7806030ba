"""The table of scores at the end of a test."""

import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


def score_table(scores: Mapping[str, Any], split: str) -> str:
    """Return a line per score of a split, with three digits, in the order of *scores*."""
    own = {name: float(s) for name, s in scores.items() if name.startswith(f'{split}_')}
    width = max(map(len, own), default=0)
    return '\n'.join(f'{name:<{width}}  {score:.3f}' for name, score in own.items())


class ScoreTable(Callback):
    """Print the scores in their order, in place of Lightning's table.

    Lightning sorts names by the alphabet, which mixes classes and scores, and prints 16
    digits.
    """

    def __init__(self) -> None:
        """Create the callback."""
        self._wanted = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over from Lightning's table, unless nobody asked for one."""
        self._wanted = trainer.test_loop.verbose
        trainer.test_loop.verbose = False

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table."""
        if self._wanted:
            _show(trainer, 'test')

    def on_validation_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Take over from Lightning's table, unless nobody asked for one."""
        # training validates by a loop of its own
        self._wanted = trainer.state.fn == 'validate' and trainer.validate_loop.verbose
        if self._wanted:
            trainer.validate_loop.verbose = False

    def on_validation_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Print the table."""
        if self._wanted:
            _show(trainer, 'val')


def _show(trainer: pl.Trainer, split: str) -> None:
    """Write the table to stdout, once for all processes.

    Not by ``pl_module.print``: a progress bar, which has ended by now, swallows it.
    """
    if trainer.is_global_zero:
        encoding = sys.stdout.encoding or 'utf-8'
        table = score_table(trainer.callback_metrics, split).encode(encoding, 'replace')
        sys.stdout.write(f'{table.decode(encoding)}\n')
