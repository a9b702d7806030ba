"""Self-training: the patch head learns from its own refined maps."""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ..maps.class_maps import posterior, present_classes
from ..maps.refine import check_numbers, soft_assignment

#: Fraction of training over which the weight rises, so that the loss does not jump.
RISE = 0.1


class SelfTrainingOptions(TypedDict, total=False):
    """Options of self-training.

    Attributes:
        weight: Weight of its loss. Default: 24.
        start: Fraction of training, 0 to 1, after which it begins. Maps must be good by
            then. Default: 0.5.
    """

    weight: float
    start: float


DEFAULTS = SelfTrainingOptions(weight=24.0, start=0.5)


def check_self_training(options: Mapping[str, Any] | None) -> None:
    """Check the names and ranges of options.

    Raises:
        SettingError: If an option is unknown or outside its range.
    """
    check_numbers('self_training', options, DEFAULTS, share='start')


def self_training_weight(options: Mapping[str, Any] | None, progress: float) -> float:
    """Return the weight of the loss after a fraction *progress*, 0 to 1, of training."""
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
    """Return the share of each class in each patch, from refined maps.

    The maps of the classes in the image-level label are refined to pixels by the bands
    of each image. Each patch then averages its pixels.

    Args:
        patch_logits: Patch logits (B, C, h, w).
        presence: Label or probability of each class (B, C).
        image: Images (B, bands, H, W), in any units.
        valid: Valid pixels (B, H, W) bool; None: all.
        options: Options of :func:`~torchgeo_ctm.maps.refine.soft_assignment`.

    Returns:
        Shares (B, C, h, w), float32, that sum to 1 over the classes, without gradient.
    """
    size = (patch_logits.shape[-2], patch_logits.shape[-1])
    # half precision has too few digits for moments of pixels
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        maps = patch_logits.float().sigmoid()
        scores = posterior(maps, present_classes(presence))
        shares = soft_assignment(scores, image.float(), valid, **(options or {}))
        return F.adaptive_avg_pool2d(shares, size)
