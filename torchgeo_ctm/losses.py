"""Losses and poolings on image-level labels."""

import math
from typing import Literal

from torch import Tensor

PatchPooling = Literal['logsumexp', 'mean']


def pool_patch_logits(
    patch_logits: Tensor, pooling: PatchPooling = 'logsumexp', sharpness: float = 5.0
) -> Tensor:
    """Pool patch logits to image logits (METHOD, section 1).

    Args:
        patch_logits: Patch logits (B, C, h, w).
        pooling: 'mean', or 'logsumexp': a smooth maximum between mean and maximum
            (Pinheiro and Collobert, CVPR 2015, equation 6).
        sharpness: Of the smooth maximum; 0 would be the mean, infinity the maximum.

    Returns:
        Image logits (B, C).
    """
    flat = patch_logits.flatten(2)
    if pooling == 'mean':
        return flat.mean(dim=-1)
    return ((flat * sharpness).logsumexp(dim=-1) - math.log(flat.shape[-1])) / sharpness
