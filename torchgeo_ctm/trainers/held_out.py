"""Losses of held-out labels by block of ground, to tell how sure a comparison is."""

from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from .metrics import BalancedBCE, balanced_mean, label_sums

#: Side of a block of ground, in windows.
BLOCK: Final = 4


class LabelLosses(BalancedBCE):
    """The criterion, which keeps the loss of every label."""

    def __init__(self, num_classes: int, min_share: float) -> None:
        """Create the metric, see :class:`BalancedBCE`."""
        super().__init__(num_classes, min_share)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def losses(self, shares: Tensor, presence: Tensor) -> Tensor:
        """Return the loss of each label (B, C), known or not."""
        losses = super().losses(shares, presence)
        self.kept.append((losses.cpu(), presence.cpu()))
        return losses


class Blocks(Callback):
    """Notes the block of ground of every validation chip."""

    def __init__(self) -> None:
        """Start without a chip."""
        self.kept: list[Tensor] = []

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the blocks of a batch. A chip that is no window is a block by itself."""
        count = len(batch['image'])
        if 'window' in batch:
            corner, size = batch['window'].cpu().split(2, dim=1)
            scene = batch.get('scene', torch.zeros(count)).cpu().long()
            self.kept.append(torch.cat([scene[:, None], corner // (BLOCK * size)], 1))
        else:
            number = torch.arange(count) + sum(map(len, self.kept))
            self.kept.append(number[:, None])


class HeldOut(NamedTuple):
    """Losses of the held-out labels of one trained network.

    Attributes:
        sums: Sum of the losses of presences and of absences, (blocks, 2, C).
        counts: Number of those labels, (blocks, 2, C).
        chips: Number of chips.
        absences: Number of training labels that say a class is absent, (C,); None: not
            counted.
    """

    sums: Tensor
    counts: Tensor
    chips: int
    absences: Tensor | None = None

    @classmethod
    def of(cls, metric: LabelLosses, blocks: Blocks) -> Self:
        """Return what metric and callback kept of a validation."""
        losses, presence = (torch.cat(part) for part in zip(*metric.kept, strict=True))
        places = torch.cat(blocks.kept).numpy()
        _, number = np.unique(places, axis=0, return_inverse=True)
        block = torch.from_numpy(number.ravel())
        parts = [
            label_sums(losses[block == each], presence[block == each])
            for each in range(int(block.max()) + 1)
        ]
        sums, counts = (torch.stack(part).double() for part in zip(*parts, strict=True))
        return cls(sums, counts, len(presence))

    @property
    def balanced_bce(self) -> float:
        """The criterion, ``val_balanced_bce``."""
        return float(balanced_mean(self.sums.sum(0), self.counts.sum(0)))

    def drawn(self, weights: Tensor) -> Tensor:
        """Return the criterion where each block counts several times, or not at all.

        Args:
            weights: How often each block counts (draws, blocks).
        """
        return balanced_mean(
            torch.tensordot(weights, self.sums, 1),
            torch.tensordot(weights, self.counts, 1),
        )
