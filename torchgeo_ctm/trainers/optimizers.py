"""Optimisers by name, and the cosine schedule with warm-up."""

import math
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import SettingError, nearest

NAMES = ('adamw', 'adam', 'sgd')


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """Return the optimiser of that name over parameter groups.

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
        f'optimizer={name!r} is unknown; needed: one of {", ".join(NAMES)}'
        + nearest(name, NAMES)
    )


def cosine_schedule(optimizer: Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Let learning rates rise over the warm-up, then fall along a cosine to 0.

    Args:
        optimizer: The optimiser.
        steps: Length of the run in optimiser steps.
        warmup: Share of the run, 0…1, over which rates rise.
    """
    total = max(1, steps)
    rising = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    return LambdaLR(optimizer, factor)
