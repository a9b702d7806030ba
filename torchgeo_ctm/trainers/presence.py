"""Image-level labels and class masks of a batch."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError
from ..grids import IGNORED
from ..labels import class_shares, presence_from_mask
from ..labels.shares import classes_of_values

#: Entry of an image-level label where the presence of the class is unknown.
UNKNOWN = -1


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
        min_share: Share of a mask, 0 to 1, above which a class is present.
        values: Value of each class in the mask; None: 0 to C-1.
        multiclass: Only the largest class of a mask is present.

    Returns:
        Labels (B, C) float32: 1 present, 0 absent, -1 unknown.

    Raises:
        SettingError: If the batch has neither ``label`` nor ``mask``.
    """
    if 'label' in batch:
        label = batch['label']
        if label.ndim == 1:
            return F.one_hot(label, num_classes).float()
        known = batch.get('label_known')
        label = label.float()
        return label if known is None else label.masked_fill(~known, UNKNOWN)
    if 'mask' not in batch:
        raise SettingError(
            f"The batch must have 'label', or 'mask' to derive it from, got "
            f'{sorted(batch)}.'
        )
    mask = class_mask(batch['mask'], values)
    if multiclass:
        largest = class_shares(mask, num_classes, IGNORED).argmax(dim=1)
        return F.one_hot(largest, num_classes).float()
    return presence_from_mask(mask, num_classes, min_share, IGNORED)


def class_mask(mask: Tensor, values: Sequence[int] | None = None) -> Tensor:
    """Return a batch's ``mask`` as classes.

    Args:
        mask: Values of the data set, (B, H, W) or (B, 1, H, W).
        values: Value of each class; None: the values are the classes.

    Returns:
        Classes (B, H, W), int64; 255 is ignored.
    """
    mask = mask.squeeze(1).long() if mask.ndim == 4 else mask.long()
    return mask if values is None else classes_of_values(mask, values, IGNORED)


def filled(presence: Tensor, probs: Tensor) -> Tensor:
    """Return labels (B, C) with unknown entries replaced by probabilities (B, C)."""
    return torch.where(presence == UNKNOWN, probs, presence)
