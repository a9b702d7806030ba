"""Patches learn from what refinement makes of their own maps."""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ..maps.class_maps import posterior, present_classes
from ..maps.refine import check_options, soft_assignment

#: Share of a run over which the weight rises, so that the loss does not jump.
RISE = 0.1


class SelfTrainingOptions(TypedDict, total=False):
    """What a configuration may say about self-training.

    Attributes:
        weight: Weight of its loss; 24 if not given.
        start: Share of the run, 0…1, after which it begins: maps must be good by then;
            0.5 if not given.
    """

    weight: float
    start: float


DEFAULTS = SelfTrainingOptions(weight=24.0, start=0.5)


def check_self_training(options: Mapping[str, Any] | None) -> None:
    """Refuse options that do not exist or lie outside their range.

    Raises:
        SettingError: If one does.
    """
    check_options('self_training', options, DEFAULTS, share='start')


def self_training_weight(options: Mapping[str, Any] | None, progress: float) -> float:
    """Return the weight of the loss after a share *progress*, 0…1, of the run."""
    if options is None:
        return 0.0
    given: Mapping[str, Any] = {**DEFAULTS, **options}
    risen = min(max((progress - given['start']) / RISE, 0.0), 1.0)
    return float(given['weight'] * risen)


def patch_targets(
    patch_logits: Tensor,
    presence: Tensor,
    image: Tensor,
    valid: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return how much of each patch is of each class, as refinement sees it.

    The maps are those of the classes that the image-level label names; the bands of
    each image move them to pixels, and patches count their pixels.

    Args:
        patch_logits: Patch logits (B, C, h, w).
        presence: Probability of each class, 1 or 0 where it is known, (B, C).
        image: Images (B, bands, H, W), in any units.
        valid: Pixels that hold data (B, H, W) bool; None: all.
        options: Of :func:`~torchgeo_ctm.maps.refine.soft_assignment`.

    Returns:
        Shares (B, C, h, w), float32, that sum to 1 over the classes, without gradient.
    """
    size = (patch_logits.shape[-2], patch_logits.shape[-1])
    # moments of pixels need more digits than half precision has
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        maps = patch_logits.float().sigmoid()
        scores = posterior(maps, present_classes(presence))
        shares = soft_assignment(scores, image.float(), valid, **(options or {}))
        return F.adaptive_avg_pool2d(shares, size)
