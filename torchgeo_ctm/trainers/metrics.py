"""Metrics of image labels that torchmetrics has not."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAveragePrecision
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur.

    torchmetrics' macro average counts a class without a positive image as 0.
    """

    def __init__(self, num_labels: int) -> None:
        """Create the metric; labels of −1 do not count."""
        super().__init__(num_labels, average='none', ignore_index=-1)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean over classes with at least one positive image."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        scores = [
            binary_average_precision(pred[label >= 0], label[label >= 0])
            for pred, label in zip(preds.T, target.T, strict=True)
            if (label == 1).any()
        ]
        return torch.stack(scores).mean() if scores else preds.new_zeros(())


class BestShift(Metric):
    """The shift of each class's logits that gives it its best F1 at a threshold.

    A class that never occurs, or always, keeps a shift of 0: there is nothing to learn.
    """

    logits: Any
    presence: Any

    def __init__(self, threshold: float) -> None:
        """Create the metric.

        Args:
            threshold: Presence threshold on probabilities, 0…1.
        """
        super().__init__()
        self.threshold = threshold
        self.add_state('logits', [], dist_reduce_fx='cat')
        self.add_state('presence', [], dist_reduce_fx='cat')

    def update(self, logits: Tensor, presence: Tensor) -> None:
        """Add logits (B, C) and labels (B, C), −1 where nothing is known."""
        self.logits.append(logits.detach())
        self.presence.append(presence)

    def compute(self) -> Tensor:
        """Return the shift of each class (C,)."""
        logits, presence = dim_zero_cat(self.logits), dim_zero_cat(self.presence)
        # what is not known comes last, and counts as nothing
        known = presence >= 0
        logits = logits.where(known, logits.min(dim=0).values)
        order = logits.where(known, -torch.inf).argsort(dim=0, descending=True)
        ordered, known = logits.gather(0, order), known.gather(0, order)
        hits = presence.clamp(min=0).gather(0, order).cumsum(dim=0)
        positives = presence.clamp(min=0).sum(dim=0)
        taken = known.cumsum(dim=0)
        best = (2 * hits / (taken + positives)).argmax(dim=0, keepdim=True)
        below = (best + 1).clamp(max=len(logits) - 1)
        # the cut lies halfway between the last class taken and the first left out
        cut = (ordered.gather(0, best) + ordered.gather(0, below)).squeeze(0) / 2
        learnt = (positives > 0) & (positives < known.sum(dim=0))
        wanted = torch.logit(torch.tensor(self.threshold, device=logits.device))
        return torch.where(learnt, wanted - cut, torch.zeros_like(cut))
