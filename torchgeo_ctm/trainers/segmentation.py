"""A segmentation network that was trained on pseudo-masks, as scenes need it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchgeo.trainers import SemanticSegmentationTask

from ..errors import SettingError
from ..grids import IGNORED
from ..labels import presence_from_mask
from ..maps.class_maps import dihedral, posterior, resize
from ..scaling import build_scaling, resolve_bands
from .side_by_side import SideBySide

#: What a checkpoint has to hold beside weights and hyperparameters, in one entry:
#: :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule` puts it there.
FACTS = frozenset({'class_names', 'class_colors', 'bands', 'scaling', 'img_size'})


class SegmentationNetwork(nn.Module):
    """The network of a segmentation task, under the names that windows go by."""

    #: Windows are multiples of it: encoders halve the size five times.
    patch_size = 32

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network.

        Args:
            network: From images (B, bands, H, W) to logits (B, C, H, W).
        """
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of scaled images (B, bands, H, W)."""
        logits: Tensor = self.network(x)
        return logits


class SegmentationPredictor(SideBySide):
    """A trained TorchGeo ``SemanticSegmentationTask``, predicting as ours does.

    Takes images in their own numbers, for it scales them as its training data were, and
    returns what :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` returns. Scores
    are the softmax of every pixel: no label of the image and no threshold is involved.
    """

    #: Scores are of pixels, not of patches.
    refines = True

    def __init__(
        self, task: SemanticSegmentationTask, facts: Mapping[str, Any]
    ) -> None:
        """Take the network of a task.

        Args:
            task: The task, ``task='multiclass'``.
            facts: ``class_names``, ``class_colors``, ``bands``, ``scaling`` and
                ``img_size``, as the checkpoint holds them.

        Raises:
            SettingError: If they do not fit the task.
        """
        super().__init__()
        count = task.hparams['num_classes']
        if task.hparams['task'] != 'multiclass' or len(facts['class_names']) != count:
            raise SettingError(
                f'{len(facts["class_names"])} classes for num_classes={count}, task='
                f'{task.hparams["task"]!r}'
            )
        self.class_names = [str(name) for name in facts['class_names']]
        self.class_colors = [str(color) for color in facts['class_colors']]
        self.bands = resolve_bands(facts['bands'], task.hparams['in_channels'])
        self.scaling = build_scaling(self.bands, facts['scaling'])
        self.model = SegmentationNetwork(task.model)
        self.hparams.update(
            img_size=facts['img_size'],
            scaling=facts['scaling'],
            map_source=f'{task.hparams["model"]} {task.hparams["backbone"]}',
            map_rule='argmax',
            map_labels='predicted',
            label_min_share=0.1,
            threshold=0.0,
            presence='threshold',
            ensemble=None,
            refinement=None,
            refinement_options=None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of images (B, bands, H, W) in their own numbers."""
        logits: Tensor = self.model(self.scaling(x.float()))
        return logits

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what a scene is decided from.

        Returns:
            ``scores`` and ``maps``: the share of each class (B, C, H, W); ``probs``:
            its mean over the image (B, C).
        """
        scores = self._shares(batch['image'])
        if self.hparams['map_labels'] == 'true':
            scores = posterior(scores, self.presence(batch) > 0)
        probs = scores.mean(dim=(-2, -1))
        return {'scores': scores, 'maps': scores, 'probs': probs}

    def _shares(self, image: Tensor) -> Tensor:
        """Return softmax (B, C, H, W), averaged over flips and turns if asked for."""
        if self.hparams['ensemble'] is None:
            shares: Tensor = self(image).float().softmax(dim=1)
            return shares
        turned = [
            dihedral(self(dihedral(image, number)).float().softmax(dim=1), number, True)
            for number in range(8)
        ]
        return torch.stack(turned).mean(dim=0)

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) of a batch, 1 where present.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        count = len(self.class_names)
        if 'label' in batch:
            label = batch['label']
            return F.one_hot(label, count) if label.ndim == 1 else label
        if 'mask' in batch:
            share: float = self.hparams['label_min_share']
            mask = self.reference_mask(batch['mask'])
            return presence_from_mask(mask, count, share, IGNORED)
        raise SettingError(
            f"batch has {sorted(batch)}; needed: 'label', or 'mask' to derive it from"
        )

    def reference_mask(self, mask: Tensor) -> Tensor:
        """Return a batch's ``mask``, (B, H, W) or (B, 1, H, W), as (B, H, W) int64."""
        return mask.squeeze(1).long() if mask.ndim == 4 else mask.long()

    def pseudo_masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        batch: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Decide the class of every pixel.

        Args:
            maps: Shares (B, C, h, w).
            probs: Unused: what is absent has no share.
            size: Height and width in pixels.
            batch: Unused.

        Returns:
            Masks (B, H, W), int64.
        """
        return resize(maps, size).argmax(dim=1)
