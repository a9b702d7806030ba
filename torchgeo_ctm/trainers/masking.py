"""Class-token masking: which tokens of absent classes are masked, and how many."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SettingError


def draw_masking(presence: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Draw which class tokens are set to zero (METHOD, section 2).

    Args:
        presence: Image-level labels (B, C): 1 present, 0 absent, other values unknown.
        rate: Probability of masking, independently per image and absent class.
        generator: A CPU generator, so that a seed repeats the draw on any device.

    Returns:
        (B, C) bool on the device of *presence*, false for present and unknown classes.
    """
    drawn = torch.rand(presence.shape, generator=generator) < rate
    return drawn.to(presence.device, non_blocking=True) & (presence == 0)


def mask_schedule(rate: float | Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Return the masking rates as (epoch, rate), ordered.

    Raises:
        SettingError: If a rate is not in [0, 1), or epochs are not ascending from 0.
    """
    steps = [(0, rate)] if isinstance(rate, int | float) else rate
    pairs = [(int(epoch), float(value)) for epoch, value in steps]
    epochs = [epoch for epoch, _ in pairs]
    if not pairs or epochs != sorted(set(epochs)) or epochs[0] < 0:
        raise SettingError(
            f'mask_rate must be a list of (epoch, rate) with ascending epochs, got '
            f'mask_rate={rate}.'
        )
    for _, value in pairs:
        if not 0 <= value < 1:
            raise SettingError(
                f'mask_rate must be at least 0 and below 1, got mask_rate={value}. The '
                'paper uses 0.5.'
            )
    return pairs
