"""Calibrate the presence of classes for weights that validation has not seen."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def calibrated(task: Any, trainer: Any) -> Tensor:
    """Return the shift of each class's logits (C,), from the validation split.

    Args:
        task: The task, with ``calibrator``, ``presence``, ``maps``.
        trainer: Its trainer, whose validation loaders are open.
    """
    loaders = trainer.val_dataloaders
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    training = task.training
    task.eval()
    task.calibrator.reset()
    # data modules choose the augmentation by this
    trainer.validating = True
    try:
        with torch.no_grad():
            for loader in loaders if isinstance(loaders, list) else [loaders]:
                for batch in loader:
                    given = trainer.precision_plugin.convert_input(batch)
                    given = task._apply_batch_transfer_handler(
                        task._on_before_batch_transfer(given), task.device
                    )
                    usable = task._usable(given)
                    _, logits, _ = task.maps(usable['image'])
                    task.calibrator.update(logits.float(), task.presence(usable))
            found: Tensor = task.calibrator.compute().detach().clone()
    finally:
        task.calibrator.reset()
        trainer.training = True
        task.train(training)
    return found
