"""Image-level labels and class masks of a batch."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LabelError, LabelWarning, SettingError, closest
from ..grids import IGNORED
from ..labels import class_shares, presence_from_mask
from ..labels.shares import classes_of_values

#: Entry of an image-level label where the presence of the class is unknown.
UNKNOWN = -1
#: Share of a mask, 0 to 1, that must be labeled before a class counts as absent.
MIN_COVERAGE = 0.5
#: Class indices that stand for an unknown class.
NO_CLASS = (-100, -1, IGNORED)


def presence_of(
    batch: Mapping[str, Tensor],
    num_classes: int,
    min_share: float,
    values: Sequence[int] | None = None,
    multiclass: bool = False,
) -> Tensor:
    """Return the image-level labels of a batch.

    Args:
        batch: ``label``, (B, C) multi-hot or (B,) class indices, with ``label_known``
            (B, C) bool if some are unknown; or ``mask`` to derive them from.
        num_classes: Number of classes C.
        min_share: Share of a mask, 0 to 1, from which a class is present.
        values: Value of each class in the mask; None: 0 to C-1.
        multiclass: Only the largest class of a mask is present.

    Returns:
        Labels (B, C) float32: 1 present, 0 absent, -1 unknown. Pixels without a label
        say nothing: where they are most of a mask, no class is absent.

    Raises:
        SettingError: If the batch has neither ``label`` nor ``mask``.
        LabelError: If a class index is not one of the classes, a shape is wrong, or
            labels are no numbers.
    """
    if 'label' in batch:
        label = numbers(batch['label'])
        if label.ndim == 1:
            return _one_hot(label, num_classes)
        if label.shape[1:] != (num_classes,):
            raise LabelError(
                f'A label has the shape {tuple(label.shape[1:])}, expected '
                f'({num_classes},), one entry per class.'
            )
        known = batch.get('label_known')
        if known is not None and known.shape != label.shape:
            raise LabelError(
                f"'label_known' has the shape {tuple(known.shape[1:])}, its label "
                f'{tuple(label.shape[1:])}. Both must have one entry per class.'
            )
        label = label.float()
        label = torch.where((label >= 0) & (label <= 1), label, UNKNOWN)
        label = label if known is None else label.masked_fill(~known.bool(), UNKNOWN)
        if multiclass:
            none_present = (label <= 0).all(dim=1, keepdim=True)
            label = label.masked_fill(none_present, UNKNOWN)
        return label
    if 'mask' not in batch:
        near = closest('label', batch)
        raise SettingError(
            f"The batch must have 'label', or 'mask' to derive it from, got "
            f'{", ".join(sorted(batch))}.'
            + ('' if near is None else f" Rename {near!r} to 'label'.")
        )
    mask = class_mask(batch['mask'], num_classes, values)
    shares = class_shares(mask, num_classes, IGNORED)
    coverage = shares.sum(dim=1, keepdim=True)
    if multiclass:
        label = F.one_hot(shares.argmax(dim=1), num_classes).float()
        return label.masked_fill(coverage == 0, UNKNOWN)
    present = presence_from_mask(mask, num_classes, min_share, IGNORED)
    below = (shares < min_share * coverage) | (shares == 0)
    unknown = ~below | (coverage < MIN_COVERAGE)
    return present.masked_fill((present == 0) & unknown, UNKNOWN)


def numbers(label: Any) -> Tensor:
    """Return labels or a mask as a tensor.

    Raises:
        LabelError: If they are no numbers.
    """
    try:
        return torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        raise LabelError(
            f'A label is {label!r}, expected 0 or 1 for each class, or a class index.'
        ) from None


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Return class indices (B,) as labels (B, C), -1 where there is no class."""
    unknown = ~label.isfinite()
    for value in NO_CLASS:
        unknown |= label == value
    given = label.masked_fill(unknown, 0)
    index = given.long()
    outside = (index < 0) | (index >= num_classes) | (index != given)
    if outside.any():
        wrong = given[outside][0].item()
        raise LabelError(
            f'A chip has class {wrong:g}, expected 0 to {num_classes - 1}, or 255 where '
            f'the class is unknown. Set num_classes={int(wrong) + 1} or more.'
        )
    return F.one_hot(index, num_classes).float().masked_fill(unknown[:, None], UNKNOWN)


def class_mask(
    mask: Tensor, num_classes: int, values: Sequence[int] | None = None
) -> Tensor:
    """Return a batch's ``mask`` as classes.

    Args:
        mask: Values of the data set, (B, H, W) or (B, 1, H, W).
        num_classes: Number of classes C.
        values: Value of each class; None: 0 to C-1.

    Returns:
        Classes (B, H, W), int64; 255 for every other value, which is ignored.

    Raises:
        LabelError: If the mask has another shape.
    """
    if mask.ndim not in (3, 4) or (mask.ndim == 4 and mask.shape[1] != 1):
        raise LabelError(
            f'A mask has the shape {tuple(mask.shape[1:])}, expected one class per '
            'pixel, (H, W) or (1, H, W).'
        )
    if mask.is_complex():
        raise LabelError('A mask is complex, expected one class per pixel.')
    if mask.is_floating_point():
        mask = mask.masked_fill(~mask.isfinite(), IGNORED)
    mask = mask.squeeze(1).long() if mask.ndim == 4 else mask.long()
    if values is not None:
        return classes_of_values(mask, values, IGNORED)
    return mask.masked_fill((mask < 0) | (mask >= num_classes), IGNORED)


def check_entries(
    batch: Mapping[str, Tensor],
    num_classes: int,
    values: Sequence[int] | None = None,
    multiclass: bool = False,
) -> None:
    """Check that labels hold presences, and warn where they look like something else.

    Args:
        batch: The batch, with ``label`` or ``mask``.
        num_classes: Number of classes C.
        values: Value of each class in the mask; None: 0 to C-1.
        multiclass: Whether one class of a label is expected to be present.

    Raises:
        LabelError: If a label has an entry above 1.
    """
    if 'label' in batch:
        label = numbers(batch['label']).float()
        wrong = label[label.isfinite() & (label > 1) & (label != IGNORED)]
        if label.ndim > 1 and wrong.numel():
            raise LabelError(
                f'A label holds {float(wrong[0]):g}, expected 1 for present, 0 for '
                'absent, or -1 for unknown.'
            )
        if label.ndim > 1:
            _warn_of_shares(label, multiclass)
    if 'mask' in batch and values is None:
        mask = class_mask(batch['mask'], 1 << 31)
        wrong = mask[(mask >= num_classes) & (mask != IGNORED)]
        if wrong.numel():
            warnings.warn(
                f'A mask holds {float(wrong[0]):g}, expected 0 to {num_classes - 1}, '
                'or 255 where there is no class. Such pixels are ignored. If it is a '
                'class, set labels.values to the value of each class.',
                LabelWarning,
                stacklevel=4,
            )


def _warn_of_shares(label: Tensor, multiclass: bool) -> None:
    """Warn of labels (B, C) that are shares, or of several classes where one is meant."""
    shares = label[(label > 0) & (label < 1)]
    if shares.numel():
        warnings.warn(
            f'A label holds {float(shares[0]):g}: training takes it for a probability, '
            'and metrics count it as absent. Turn shares of an area into 0 and 1 first, '
            'as with share >= 0.1.',
            LabelWarning,
            stacklevel=5,
        )
    most = int((label == 1).sum(dim=1).max())
    if multiclass and most > 1:
        warnings.warn(
            f"A label has {most} classes, but task='multiclass' expects one. Set "
            "task='multilabel'.",
            LabelWarning,
            stacklevel=5,
        )


def filled(presence: Tensor, probs: Tensor) -> Tensor:
    """Return labels (B, C) with unknown entries replaced by probabilities (B, C)."""
    return torch.where(presence == UNKNOWN, probs, presence)
