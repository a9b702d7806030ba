"""Mistakes on the ``torchgeo`` command line that would end in a result without a word."""

import warnings
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BasePredictionWriter

from ..errors import SettingError, UntrainedWarning


def check_weights(trainer: Any, trained: bool) -> None:
    """Check that a network that is scored, or maps, has learned something.

    Args:
        trainer: The trainer.
        trained: Whether weights were loaded or trained.

    Raises:
        SettingError: If ``torchgeo`` got no checkpoint. In Python, where a caller may
            want initial weights, this is an :class:`UntrainedWarning`.
    """
    if trained:
        return
    fault = 'The network has its random initial weights.'
    if _is_command(trainer):
        raise SettingError(f'{fault} Pass a checkpoint as --ckpt_path.')
    warnings.warn(
        f'{fault} Load a checkpoint with load_task, or pass ckpt_path.',
        UntrainedWarning,
        stacklevel=3,
    )


def check_writer(trainer: Any, stage: str) -> None:
    """Check that ``torchgeo predict`` writes what it computes.

    Raises:
        SettingError: If no callback does.
    """
    if stage != 'predict' or not _is_command(trainer):
        return
    if not any(_writes(callback) for callback in trainer.callbacks):
        raise SettingError(
            'No callback of the trainer writes the maps. Predict with --config '
            'configs/scene.yaml, or add torchgeo_ctm.inference.PseudoMaskWriter to '
            'trainer.callbacks.'
        )


def _writes(callback: Callback) -> bool:
    """Return whether a callback may write predictions: none of Lightning does."""
    if isinstance(callback, BasePredictionWriter):
        return True
    kind = type(callback)
    hooks = [name for name in dir(Callback) if name.startswith('on_predict_')]
    own = any(getattr(kind, name) is not getattr(Callback, name) for name in hooks)
    return own and not kind.__module__.startswith('lightning.')


def _is_command(trainer: Any) -> bool:
    """Return whether LightningCLI has made the trainer."""
    kinds = (kind for each in trainer.callbacks for kind in type(each).__mro__)
    # whose module takes a second to import
    return any(kind.__name__ == 'SaveConfigCallback' for kind in kinds)
