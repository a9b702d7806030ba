"""Losses and poolings on image-level labels."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError, did_you_mean

PatchPooling = Literal['logsumexp', 'mean', 'rank', 'share']
DiversityForm = Literal['present', 'reference']


RANK_DECAY = 0.996


def pool_patch_logits(
    patch_logits: Tensor,
    pooling: PatchPooling = 'logsumexp',
    sharpness: float = 5.0,
    share: float = 0.1,
    compete: bool = False,
) -> Tensor:
    """Pool patch logits to image logits (METHOD, section 1).

    Args:
        patch_logits: Patch logits (B, C, h, w).
        pooling: 'mean'; 'logsumexp', a smooth maximum between mean and maximum
            (Pinheiro and Collobert, CVPR 2015, equation 6); 'rank', global weighted
            rank pooling, where the k-th largest patch has weight 0.996^k (Kolesnikov
            and Lampert, ECCV 2016, section 3.2); 'share', the mean of the highest
            patches, whose weights fall linearly to zero at twice *share*.
        sharpness: Sharpness of the log-sum-exp: 0 gives the mean, infinity the maximum.
        share: Share of the patches, 0 to 1, that 'share' asks for.
        compete: Pool the log-odds of the softmax over the classes instead of the
            logits: a class then has to win patches from the others.

    Returns:
        Image logits (B, C).

    Raises:
        SettingError: If *pooling* is unknown, or *share* or *sharpness* is out of range.
    """
    poolings: tuple[str, ...] = get_args(PatchPooling)
    if pooling not in poolings:
        raise SettingError(
            f'Unknown pooling {pooling!r}, expected one of: {", ".join(poolings)}.'
            + did_you_mean(pooling, poolings)
        )
    if not 0 <= share <= 1:
        raise SettingError(f'share={share} is out of range, expected 0 to 1.')
    if not sharpness >= 0:
        raise SettingError(f'sharpness={sharpness}, expected 0 or more.')
    if compete:
        patch_logits = log_odds(patch_logits, dim=1)
    flat = patch_logits.flatten(2)
    smooth = pooling == 'logsumexp'
    if pooling == 'mean' or (smooth and sharpness == 0):
        return flat.mean(dim=-1)
    if smooth and math.isinf(sharpness):
        return flat.amax(dim=-1)
    if pooling == 'share':
        count = flat.shape[-1]
        place = (
            torch.arange(count, device=flat.device, dtype=flat.dtype) + 0.5
        ) / count
        # the first patch counts, however small the share is
        weight = (1 - place / (2 * share)).clamp(min=0)
        weight[0] = weight[0].clamp(min=1e-3)
        return _ranked(flat, weight)
    if pooling == 'rank':
        rank = torch.arange(flat.shape[-1], device=flat.device, dtype=flat.dtype)
        return _ranked(flat, RANK_DECAY**rank)
    return ((flat * sharpness).logsumexp(dim=-1) - math.log(flat.shape[-1])) / sharpness


def balance_weights(presence: Tensor, frequency: Tensor, balance: float) -> Tensor:
    """Return the weight of each label in the loss, so that rare labels count as much.

    A presence of class c has weight (0.5 / q)^b and an absence (0.5 / (1 - q))^b, where
    q is the class's frequency among the labels and b is *balance*.

    Args:
        presence: Image-level labels (B, C), 1 present, 0 absent.
        frequency: Frequency q of each class among the labels, 0 to 1, (C,); clipped
            to 0.01 to 0.99.
        balance: 0 weights every label by 1; 1 gives presences and absences of a class
            the same sum of weights.

    Returns:
        Weights (B, C).
    """
    frequency = frequency.clamp(0.01, 0.99)
    present, absent = (0.5 / frequency) ** balance, (0.5 / (1 - frequency)) ** balance
    return torch.where(presence > 0.5, present, absent)


def attention_loss(attention: Tensor, patch_logits: Tensor, presence: Tensor) -> Tensor:
    """Teach class-to-patch attention where the patch logits see each class.

    The attention of each class, summed over blocks and scaled to mean 1, becomes a
    share of every patch among the classes that are present. The loss is its
    cross-entropy against the softmax of the patch logits over the same classes, which
    gets no gradient.

    Args:
        attention: Class-to-patch attention of every block (B, L, C, h, w).
        patch_logits: Patch logits (B, C, h', w'), on this grid or a finer one.
        presence: Image-level labels (B, C); above 0.5 is present.

    Returns:
        The loss, a scalar of at least 0.
    """
    absent = (presence <= 0.5)[:, :, None, None]
    summed = attention.float().sum(dim=1)
    tiny = torch.finfo(summed.dtype).tiny
    scaled = summed / summed.mean(dim=(-2, -1), keepdim=True).clamp(min=tiny)
    scaled = scaled.clamp(min=1e-6).masked_fill(absent, 0)
    ours = scaled / scaled.sum(dim=1, keepdim=True).clamp(min=tiny)
    with torch.no_grad():
        target = patch_logits.float().masked_fill(absent, -1e9).softmax(dim=1)
        size = (attention.shape[-2], attention.shape[-1])
        target = F.adaptive_avg_pool2d(target, size)
    # an image without a present class has nothing to teach
    labeled = (~absent).any(dim=1).expand_as(ours[:, 0])
    entropy = -(target * ours.clamp(min=1e-6).log()).masked_fill(absent, 0).sum(dim=1)
    loss: Tensor = (entropy * labeled).sum() / labeled.sum().clamp(min=1)
    return loss


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
    """Check that a warm-up is a fraction of training, and that the pooling has one.

    Raises:
        SettingError: If it is not, or the pooling has none.
    """
    if not 0 <= warmup <= 1:
        raise SettingError(f'patches.pooling_warmup must be 0 to 1, got {warmup}.')
    if warmup and pooling != 'share':
        raise SettingError(
            f"patches.pooling_warmup requires patches.pooling='share', got {pooling!r}."
        )


def _ranked(flat: Tensor, weight: Tensor) -> Tensor:
    """Return the mean (B, C) of logits (B, C, N), weighted (N,) from the highest on."""
    ordered = flat.sort(dim=-1, descending=True).values
    pooled: Tensor = (ordered * weight).sum(dim=-1) / weight.sum()
    return pooled


def diversity_loss(
    maps: Tensor, presence: Tensor, form: DiversityForm = 'present'
) -> Tensor:
    """Penalize class tokens that look at the same places (METHOD, section 5).

    Args:
        maps: Attention maps (B, C, h, w).
        presence: Image-level labels (B, C).
        form: 'reference': Frobenius norm of the Gram matrix of the L2-normalized maps
            minus the identity, averaged over the batch; 'present': the same over
            present classes only, divided by the number of their ordered pairs.

    Returns:
        The loss, a scalar of at least 0.

    Raises:
        SettingError: If *form* is unknown.
    """
    forms: tuple[str, ...] = get_args(DiversityForm)
    if form not in forms:
        raise SettingError(
            f'Unknown form {form!r}, expected one of: {", ".join(forms)}.'
            + did_you_mean(form, forms)
        )
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
