"""Optimizers by name, and the cosine schedule with warm-up."""

import math
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import SettingError, did_you_mean

NAMES = ('adamw', 'adam', 'sgd')


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """Return an optimizer over parameter groups.

    Args:
        name: 'adamw', 'adam' or 'sgd' (Nesterov momentum 0.9).
        groups: Groups with ``params``, ``lr`` and ``weight_decay``.

    Raises:
        SettingError: If the name is unknown.
    """
    match name:
        case 'adamw':
            return AdamW(groups)
        case 'adam':
            return Adam(groups)
        case 'sgd':
            return SGD(groups, momentum=0.9, nesterov=True)
    raise SettingError(
        f'Unknown optimizer {name!r}, expected one of: {", ".join(NAMES)}.'
        + did_you_mean(name, NAMES)
    )


def cosine_schedule(optimizer: Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Return a schedule with a linear warm-up and a cosine down to 0.

    The cosine spans the whole training, the warm-up included, so that torch's
    ``SequentialLR`` of ``LinearLR`` and ``CosineAnnealingLR`` has other values.

    Args:
        optimizer: The optimizer.
        steps: Length of training in optimizer steps.
        warmup: Fraction of training, 0 to 1, during which the learning rate rises.
    """
    total = max(1, steps)
    rising = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    return LambdaLR(optimizer, factor)
