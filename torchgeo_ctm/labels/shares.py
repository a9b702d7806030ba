"""Derive image-level labels of chips from their masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .source import check_share


def class_shares(mask: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Return the area share of each class in each chip.

    Args:
        mask: Class of each pixel (B, H, W), int64; *ignore_index* and every value
            outside 0…C−1 belong to no class, but count in the area.
        num_classes: Number of classes C.
        ignore_index: Value of pixels without a label.

    Returns:
        Shares (B, C), float32, 0…1.
    """
    flat = mask.flatten(1).long()
    outside = (flat < 0) | (flat >= num_classes) | (flat == ignore_index)
    flat = flat.masked_fill(outside, num_classes)
    counts = torch.zeros(
        flat.shape[0], num_classes + 1, dtype=torch.int64, device=mask.device
    )
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    return counts[:, :num_classes].float() / flat.shape[1]


def classes_of_values(
    mask: Tensor, values: Sequence[int], ignore_index: int = 255
) -> Tensor:
    """Replace the values of a mask by class indices.

    Args:
        mask: Value of each pixel, of any shape.
        values: Value of each of the C classes.
        ignore_index: Result for all other values.

    Returns:
        Class index 0…C−1 or *ignore_index* of each pixel, int64.
    """
    classes = torch.full_like(mask, ignore_index, dtype=torch.int64)
    for index, value in enumerate(values):
        classes = classes.masked_fill(mask == value, index)
    return classes


def presence_from_mask(
    mask: Tensor, num_classes: int, min_share: float = 0.1, ignore_index: int = 255
) -> Tensor:
    """Derive image-level labels from masks by area share (METHOD, section 6).

    Args:
        mask: Class of each pixel (B, H, W), int64; see :func:`class_shares`.
        num_classes: Number of classes C.
        min_share: Smallest share of the chip's area, 0…1, that makes a class present.
        ignore_index: Value of pixels without a label.

    Returns:
        Presence (B, C) float32, 1 where the class covers at least *min_share*.

    Raises:
        SettingError: If *min_share* is outside 0…1.
    """
    check_share('min_share', min_share)
    shares = class_shares(mask, num_classes, ignore_index)
    return ((shares >= min_share) & (shares > 0)).float()
