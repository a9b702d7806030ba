"""Metrics of image labels and masks, one set per split."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from ..grids import IGNORED
from ..scoring import BETTER, best_order, iou_from_confusion, mean_of_known
from .presence import UNKNOWN


class SplitMetrics(nn.Module):
    """Scores of one split.

    Mean average precision and F1 of the image labels; balanced cross-entropy of the
    labels against the area of each class in the masks; where there are true masks, also
    mean and per-class IoU of the masks from predicted and from true image labels.
    """

    def __init__(
        self,
        split: str,
        num_classes: int,
        multiclass: bool,
        threshold: float,
        min_share: float = 0.1,
    ) -> None:
        """Create the metrics.

        Args:
            split: Name of the split, the prefix of every score.
            num_classes: Number of classes.
            multiclass: Whether an image has one class only.
            threshold: Presence threshold of the F1, 0 to 1.
            min_share: Share of a chip, 0 to 1, above which a class is present.
        """
        super().__init__()
        self.split = split
        scores: dict[str, Metric | MetricCollection]
        if multiclass:
            scores = {
                'mAP': OneClassAveragePrecision(num_classes),
                'F1': MulticlassF1Score(
                    num_classes, average='micro', ignore_index=UNKNOWN
                ),
            }
        else:
            scores = {
                'mAP': MeanAveragePrecision(num_classes),
                'F1': MultilabelF1Score(
                    num_classes,
                    threshold=threshold,
                    average='micro',
                    ignore_index=UNKNOWN,
                ),
            }
        self.labels = MetricCollection(scores, prefix=f'{split}_')
        self.balanced_bce = BalancedBCE(num_classes, min_share)
        self.masks = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED)
        self.masks_true_labels = self.masks.clone()

    def order_complaint(self, class_names: Sequence[str]) -> str | None:
        """Return in one line that masks number classes otherwise, or None.

        Args:
            class_names: Names of the classes.
        """
        if not self.masks.update_called:
            return None
        confusion = self.masks.compute().cpu().numpy()
        if not confusion.any():
            return f'No {self.split} chip has a class in its mask: the scores of masks say nothing.'
        found, best, (rows, columns) = best_order(confusion)
        occurring = min((confusion.sum(axis=axis) > 0).sum() for axis in (0, 1))
        if occurring < 2 or best - found < BETTER:
            return None
        pairs = [
            f'{row} as {class_names[column]}'
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if row != column and confusion[row, column]
        ]
        return (
            f'Another order of the classes in masks fits better ({best:.0%} instead of '
            f'{found:.0%} of the pixels agree): value {", ".join(pairs[:5])}. Values of '
            'masks are taken for the classes in order, unless labels.values says others.'
        )

    def compute_and_reset(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the scores by name, and start again.

        Args:
            class_names: Names of the classes, for their IoU.
        """
        scores: dict[str, Any] = dict(self.labels.compute())
        self.labels.reset()
        if self.balanced_bce.update_called:
            scores[f'{self.split}_balanced_bce'] = self.balanced_bce.compute()
            self.balanced_bce.reset()
        for confusion, suffix in (
            (self.masks, ''),
            (self.masks_true_labels, '_true_labels'),
        ):
            if not confusion.update_called:
                continue
            iou = iou_from_confusion(confusion.compute().cpu().numpy())
            confusion.reset()
            scores[f'{self.split}_miou{suffix}'] = mean_of_known(iou)
            if not suffix:
                scores |= {
                    f'{self.split}_iou_{name}': value
                    for name, value in zip(class_names, iou, strict=True)
                    if value is not None
                }
        return scores


class BalancedBCE(Metric):
    """Cross-entropy of image-level labels against the area of each class in the masks.

    It ranks networks and settings by the quality of their masks without any mask. The
    logit of a presence is 3 (logit(s) - logit(s0)), where s is the share of the chip
    that the class covers and s0 the share that makes a class present. Presences and
    absences are averaged apart, then the classes, so that rare classes count, and
    labels that overlook things do not reward masks that do.
    """

    #: Slope of the logit of a presence.
    SLOPE = 3.0
    #: Smallest area of a class, and smallest share that makes it present.
    SMALLEST = 1e-4
    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, min_share: float = 0.1) -> None:
        """Create the metric.

        Args:
            num_classes: Number of classes C.
            min_share: Share of a chip, 0 to 1, above which a class is present.
        """
        super().__init__()
        share = max(min_share, self.SMALLEST)
        self.threshold = math.log(share / (1 - share)) if share < 1 else 0.0
        zeros = torch.zeros(2, num_classes)
        self.add_state('sums', zeros, dist_reduce_fx='sum')
        self.add_state('counts', zeros.clone(), dist_reduce_fx='sum')

    def update(self, shares: Tensor, presence: Tensor) -> None:
        """Add the shares of each class at every position (B, C, h, w), labels (B, C)."""
        sums, counts = label_sums(self.losses(shares, presence), presence)
        self.sums += sums
        self.counts += counts

    def losses(self, shares: Tensor, presence: Tensor) -> Tensor:
        """Return the loss of each label (B, C), known or not."""
        area = shares.float().mean(dim=(-2, -1))
        area = area.clamp(self.SMALLEST, 1 - self.SMALLEST)
        logits = self.SLOPE * (torch.logit(area) - self.threshold)
        return F.binary_cross_entropy_with_logits(
            logits, presence.clamp(min=0).to(logits.dtype), reduction='none'
        )

    def compute(self) -> Tensor:
        """Return the mean over classes; those without a label are left out."""
        return balanced_mean(self.sums, self.counts)


def label_sums(losses: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of losses over presences and absences, and their numbers.

    Args:
        losses: Loss of each label (B, C).
        presence: Labels (B, C), -1 unknown.

    Returns:
        Sums and counts (2, C): presences first, then absences.
    """
    sides = torch.stack([presence == 1, presence == 0]).to(losses.dtype)
    return (losses * sides).sum(dim=1), sides.sum(dim=1)


def balanced_mean(sums: Tensor, counts: Tensor) -> Tensor:
    """Return means of presences and of absences, averaged by class and over classes.

    Args:
        sums: Sums of losses (..., 2, C), as :func:`label_sums` returns them.
        counts: Number of labels (..., 2, C). Classes without one are left out.
    """
    known = counts > 0
    means = torch.where(known, sums / counts.clamp(min=1), 0)
    sides = known.sum(dim=-2)
    classes = means.sum(dim=-2) / sides.clamp(min=1)
    return classes.sum(dim=-1) / (sides > 0).sum(dim=-1).clamp(min=1)


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur.

    torchmetrics' macro average counts a class without a positive image as 0.
    """

    def __init__(self, num_labels: int) -> None:
        """Create the metric.

        Args:
            num_labels: Number of classes. Labels of -1 are ignored.
        """
        super().__init__(num_labels, average='none', ignore_index=UNKNOWN)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean over classes with at least one positive image."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        scores = [
            binary_average_precision(pred[label >= 0], label[label >= 0])
            for pred, label in zip(preds.T, target.T, strict=True)
            if (label == 1).any()
        ]
        return torch.stack(scores).mean() if scores else preds.new_zeros(())


class OneClassAveragePrecision(MeanAveragePrecision):
    """The same for images of one class each, given by its index, -1 unknown."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities (B, C) and class indices (B,)."""
        unknown = (target == UNKNOWN)[:, None]
        present = F.one_hot(target.clamp(min=0), preds.shape[1])
        super().update(preds, present.masked_fill(unknown, UNKNOWN))


class BestShift(Metric):
    """The shift of each class's logits that gives its best F1 at a threshold.

    A class that is present in no image, or in every image, has a shift of 0.
    """

    logits: Any
    presence: Any

    def __init__(self, threshold: float) -> None:
        """Create the metric.

        Args:
            threshold: Presence threshold on probabilities, 0 to 1.
        """
        super().__init__()
        self.threshold = threshold
        self.add_state('logits', [], dist_reduce_fx='cat')
        self.add_state('presence', [], dist_reduce_fx='cat')

    def update(self, logits: Tensor, presence: Tensor) -> None:
        """Add logits (B, C) and labels (B, C), -1 unknown."""
        self.logits.append(logits.detach())
        self.presence.append(presence)

    def compute(self) -> Tensor:
        """Return the shift of each class (C,)."""
        logits, presence = dim_zero_cat(self.logits), dim_zero_cat(self.presence)
        # unknown labels are sorted last, and count as neither
        known = presence >= 0
        logits = logits.where(known, logits.min(dim=0).values)
        order = logits.where(known, -torch.inf).argsort(dim=0, descending=True)
        ordered, known = logits.gather(0, order), known.gather(0, order)
        hits = presence.clamp(min=0).gather(0, order).cumsum(dim=0)
        positives = presence.clamp(min=0).sum(dim=0)
        predicted = known.cumsum(dim=0)
        best = (2 * hits / (predicted + positives)).argmax(dim=0, keepdim=True)
        below = (best + 1).clamp(max=len(logits) - 1)
        # halfway between the lowest logit above the cut and the highest below it
        cut = (ordered.gather(0, best) + ordered.gather(0, below)).squeeze(0) / 2
        learned = (positives > 0) & (positives < known.sum(dim=0))
        wanted = torch.logit(torch.tensor(self.threshold, device=logits.device))
        return torch.where(learned, wanted - cut, torch.zeros_like(cut))
