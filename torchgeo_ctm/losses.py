"""Losses and poolings on image-level labels."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import SettingError, nearest

PatchPooling = Literal['logsumexp', 'mean', 'rank', 'share']
DiversityForm = Literal['present', 'reference']


RANK_DECAY = 0.996


def pool_patch_logits(
    patch_logits: Tensor,
    pooling: PatchPooling = 'logsumexp',
    sharpness: float = 5.0,
    least_share: float = 0.1,
) -> Tensor:
    """Pool patch logits to image logits (METHOD, section 1).

    Args:
        patch_logits: Patch logits (B, C, h, w).
        pooling: 'mean', or 'logsumexp': a smooth maximum between mean and maximum
            (Pinheiro and Collobert, CVPR 2015, equation 6); 'rank': global weighted
            rank pooling, the k-th largest patch weighs 0.996^k (Kolesnikov and
            Lampert, ECCV 2016, section 3.2); 'share': the highest patches alone,
            weights falling to none at twice the share of a chip that makes a class
            present, so that the label says what it means: about that many patches.
        sharpness: Of the smooth maximum; 0 would be the mean, infinity the maximum.
        least_share: Share of a chip, 0…1, that makes a class present.

    Returns:
        Image logits (B, C).

    Raises:
        SettingError: If *pooling* is unknown.
    """
    poolings: tuple[str, ...] = get_args(PatchPooling)
    if pooling not in poolings:
        raise SettingError(
            f'pooling={pooling!r} is unknown; needed: one of {", ".join(poolings)}'
            + nearest(pooling, poolings)
        )
    flat = patch_logits.flatten(2)
    if pooling == 'mean':
        return flat.mean(dim=-1)
    if pooling == 'share':
        count = flat.shape[-1]
        place = (
            torch.arange(count, device=flat.device, dtype=flat.dtype) + 0.5
        ) / count
        # the first patch counts, however small the share is
        weight = (1 - place / (2 * least_share)).clamp(min=0)
        weight[0] = weight[0].clamp(min=1e-3)
        return _ranked(flat, weight)
    if pooling == 'rank':
        rank = torch.arange(flat.shape[-1], device=flat.device, dtype=flat.dtype)
        return _ranked(flat, RANK_DECAY**rank)
    return ((flat * sharpness).logsumexp(dim=-1) - math.log(flat.shape[-1])) / sharpness


def narrowing_share(least_share: float, progress: float) -> float:
    """Return the share that pooling by 'share' asks for while it warms up.

    Which patches show a class is a guess at first, and a wrong one is taught to the
    very patches that it picked: it stays. All patches together cannot be picked wrongly.

    Args:
        least_share: Share of a chip, 0…1, that makes a class present.
        progress: How much of the warm-up is over, 0…1; more is as 1.

    Returns:
        From 1, (nearly) the mean over all patches, down to *least_share*.
    """
    return float(least_share ** min(progress, 1.0))


def check_pooling_warmup(warmup: float, pooling: str) -> None:
    """Refuse a warm-up that is no share of a run, or of a pooling that has none.

    Raises:
        SettingError: If it is.
    """
    if not 0 <= warmup <= 1:
        raise SettingError(
            f'patch_pooling_warmup={warmup} is outside 0…1; nearest: '
            f'{min(max(warmup, 0), 1)}'
        )
    if warmup and pooling != 'share':
        raise SettingError(
            f"patch_pooling_warmup={warmup} is for patch_pooling='share', not "
            f'{pooling!r}; nearest: patch_pooling_warmup=0'
        )


def _ranked(flat: Tensor, weight: Tensor) -> Tensor:
    """Return the mean (B, C) of logits (B, C, N), weighted (N,) from the highest on."""
    ordered = flat.sort(dim=-1, descending=True).values
    pooled: Tensor = (ordered * weight).sum(dim=-1) / weight.sum()
    return pooled


def diversity_loss(
    maps: Tensor, presence: Tensor, form: DiversityForm = 'present'
) -> Tensor:
    """Penalise class tokens that look at the same places (METHOD, section 5).

    Args:
        maps: Attention maps (B, C, h, w).
        presence: Image-level labels (B, C).
        form: 'reference': Frobenius norm of the Gram matrix of the L2-normalised maps
            minus the identity, averaged over the batch; 'present': the same over
            present classes only, divided by the number of their ordered pairs.

    Returns:
        The loss, a scalar of at least 0.
    """
    flat = maps.flatten(2)
    flat = flat / flat.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    identity = torch.eye(flat.shape[1], device=flat.device, dtype=flat.dtype)
    gram = flat @ flat.transpose(1, 2) - identity
    pairs = torch.ones_like(presence[:, 0])
    if form == 'present':
        gram = gram * (presence[:, :, None] * presence[:, None, :])
        count = presence.sum(dim=1)
        pairs = (count * (count - 1)).clamp(min=1)
    # the norm of exactly zero has no gradient
    norm = (gram.square().sum(dim=(1, 2)) + 1e-12).sqrt()
    loss: Tensor = (norm / pairs).mean()
    return loss


def gate_penalty(open_probabilities: Sequence[Tensor], weight: float) -> Tensor:
    """Return λ times the expected number of open gates (METHOD, section 3).

    Args:
        open_probabilities: Of each block's gates, (heads,) each.
        weight: λ; the paper uses 0.01.
    """
    return torch.cat(list(open_probabilities)).sum() * weight


def log_odds(logits: Tensor, dim: int = -1) -> Tensor:
    """Return the log-odds of each class against all others, after softmax.

    Args:
        logits: Logits of classes that exclude each other, (..., C) or with the classes
            along *dim*.
        dim: Dimension of the classes.

    Returns:
        Log-odds of the same shape, float32: their sigmoid is the softmax of *logits*. Exact also
        where one class all but has everything, where log(p / (1 - p)) is not.
    """
    logits = logits.float().movedim(dim, -1)
    largest, place = logits.max(dim=-1, keepdim=True)
    classes = torch.arange(logits.shape[-1], device=logits.device)
    first = classes == place
    rest = logits.masked_fill(first, -torch.inf).logsumexp(dim=-1, keepdim=True)
    weights = (logits - largest).exp()
    # for all but the largest class, the remaining sum contains exp(0) = 1
    left = (weights.sum(dim=-1, keepdim=True) - weights).clamp(min=1)
    odds = logits - torch.where(first, rest, left.log() + largest)
    return odds.movedim(-1, dim)
