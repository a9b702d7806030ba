"""What a class-token network says of images: class maps, shares and masks."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchgeo.trainers import BaseTask

from ..errors import SettingError, nearest
from ..grids import IGNORED
from ..labels import class_shares, presence_from_mask
from ..labels.shares import classes_of_values
from ..maps.class_maps import (
    RULES,
    UNLIKELY,
    MapRule,
    MapSource,
    class_maps,
    dihedral,
    posterior,
    present_classes,
)
from ..maps.refine import REFINEMENTS
from ..models import ClassTokenViT
from ..plots import attention_figure
from ..scaling import BandScaling
from .side_by_side import SideBySide

#: Entry of an image-level label where nothing is known of the class.
UNKNOWN = -1


class ClassMaps(SideBySide, BaseTask):
    """The part of the task that a trained network needs: from images to masks.

    What it is configured by, and learns, is in
    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`.
    """

    model: ClassTokenViT
    scaling: BandScaling | nn.Identity
    bands: tuple[str, ...]
    class_names: list[str]
    presence_shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) of images (B, bands, H, W) in their own numbers."""
        logits: Tensor = self.model(self.scaling(x.float()))
        return logits

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) float32 of a batch.

        1 where a class is present, 0 where it is absent, −1 where the batch's
        ``label_known`` says that nothing is known of it.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        count: int = self.hparams['num_classes']
        if 'label' in batch:
            label = batch['label']
            if label.ndim == 1:
                return F.one_hot(label, count).float()
            known = batch.get('label_known')
            label = label.float()
            return label if known is None else label.masked_fill(~known, UNKNOWN)
        if 'mask' in batch:
            share: float = self.hparams['label_min_share']
            mask = self.reference_mask(batch['mask'])
            if self.hparams['task'] == 'multiclass':
                largest = class_shares(mask, count, IGNORED).argmax(dim=1)
                return F.one_hot(largest, count).float()
            return presence_from_mask(mask, count, share, IGNORED)
        raise SettingError(
            f"batch has {sorted(batch)}; needed: 'label', or 'mask' to derive it from"
        )

    def reference_mask(self, mask: Tensor) -> Tensor:
        """Return a batch's ``mask`` as classes.

        Args:
            mask: Values as the data set has them, (B, H, W) or (B, 1, H, W).

        Returns:
            Classes (B, H, W), int64; 255 is ignored.
        """
        mask = mask.squeeze(1).long() if mask.ndim == 4 else mask.long()
        values: Sequence[int] | None = self.hparams['class_values']
        return mask if values is None else classes_of_values(mask, values, IGNORED)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C)."""
        logits = logits.float()
        if self.hparams['task'] == 'multiclass':
            return logits.softmax(dim=1)
        return (logits + self.presence_shift).sigmoid()

    def attention_maps(
        self, image: Tensor, by_head: bool = False
    ) -> Tensor | list[Tensor]:
        """Return what each class token looks at.

        Args:
            image: One image (bands, H, W) in its own numbers.
            by_head: Return the heads apart.

        Returns:
            Attention (L, C, h, w) averaged over heads, weighted by their gates; or for
            each block (heads, C, h, w).
        """
        training = self.training
        self.eval()
        with torch.no_grad():
            x = self.scaling(image[None].float().to(self.device))
            result: Tensor | list[Tensor]
            if by_head:
                result = [maps[0] for maps in self.model.attention_by_head(x)]
            else:
                result = self.model.forward_attention(x)[1][0]
        self.train(training)
        return result

    def plot_attention(
        self,
        image: Tensor,
        block: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> Figure:
        """Draw what class tokens look at, over the RGB.

        Args:
            image: One image (bands, H, W) in its own numbers.
            block: Which block's heads to draw, one a column (negative counts from the
                last); None draws the blocks, one a column, averaged over heads.
            classes: Names of the classes to draw, one a row; None draws all.

        Raises:
            SettingError: If there is no such block or class.
        """
        names = list(self.class_names if classes is None else classes)
        for name in names:
            if name not in self.class_names:
                raise SettingError(
                    f'class {name!r} is unknown; needed: {", ".join(self.class_names)}'
                    + nearest(name, self.class_names)
                )
        rows = [self.class_names.index(name) for name in names]
        maps = self.attention_maps(image, by_head=block is not None)
        what = 'block'
        if block is not None:
            if not -len(maps) <= block < len(maps):
                raise SettingError(
                    f'block={block} is not one of {len(maps)}; nearest: '
                    f'{min(max(block, -len(maps)), len(maps) - 1)}'
                )
            maps, what = maps[block], 'head'
        columns = [f'{what} {index}' for index in range(len(maps))]
        chosen = torch.stack([map_[rows] for map_ in maps])
        return attention_figure(image, chosen, names, columns, self.bands)

    def maps(
        self, x: Tensor, patches: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return class maps (B, C, h, w), logits (B, C) and patch logits of images.

        Without *patches* the patch logits are left out where the maps do not need
        them, which saves the last block's work on patches.
        """
        source: MapSource = self.hparams['map_source']
        logits, attention, patch_logits = self.model.forward_attention(
            self.scaling(x.float()), patches=patches or source != 'attention'
        )
        return class_maps(attention, patch_logits, source), logits, patch_logits

    def pseudo_masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        batch: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Decide the class of every pixel, image by image.

        Args:
            maps: Class maps (B, C, h, w).
            probs: Class probabilities, or true labels, (B, C).
            size: Height and width in pixels.
            batch: Where they come from, ``image`` and ``valid`` (if any), which a
                refinement looks at; without it there is none.

        Returns:
            Masks (B, H, W), int64.
        """
        if batch is not None and self.refines:
            return self.refined(self._shares(maps, probs), batch).argmax(dim=1)
        rule = RULES[self.hparams['map_rule']]
        maps, threshold = self._weighted(maps, probs)
        return torch.stack(
            [
                rule(map_, prob, size, threshold)
                for map_, prob in zip(maps, probs, strict=True)
            ]
        )

    def _weighted(self, maps: Tensor, probs: Tensor) -> tuple[Tensor, float]:
        """Return maps (B, C, h, w) as presence weights them, and its threshold."""
        threshold: float = self.hparams['threshold']
        if self.hparams['presence'] == 'threshold':
            return maps, threshold
        return maps * probs[:, :, None, None], min(UNLIKELY, threshold)

    def _shares(self, maps: Tensor, probs: Tensor) -> Tensor:
        """Return the share of each present class at every position (B, C, h, w)."""
        maps, threshold = self._weighted(maps, probs)
        return posterior(maps, present_classes(probs, threshold))

    @property
    def refines(self) -> bool:
        """Whether scores are refined from patches to pixels."""
        rule: MapRule = self.hparams['map_rule']
        return self.hparams['refinement'] is not None and rule == 'argmax'

    def refined(self, scores: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B, C, h, w) refined to (B, C, H, W), if the task does so."""
        if not self.refines:
            return scores
        refine = REFINEMENTS[self.hparams['refinement']]
        options = self.hparams['refinement_options'] or {}
        image = self.scaling(batch['image'].float())
        # moments of pixels need more digits than half precision has
        with torch.autocast(scores.device.type, enabled=False):
            finer = refine(scores, image, batch.get('valid'), **options)
        return finer

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what a scene is decided from.

        Returns:
            ``probs`` (B, C); ``maps`` (B, C, h, w), which :meth:`pseudo_masks` takes;
            and ``scores``: the share of each present class at every position,
            (B, C, h, w) on the patch grid for rule 'argmax', (B, C, H, W) if they are
            refined, or one-hot (B, C, H, W) for rule 'paint'; comparable between
            windows.
        """
        predicted = self._predict(batch)
        return predicted | {'scores': self.refined(predicted['scores'], batch)}

    def _predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what :meth:`predict_images` returns, before any refinement."""
        if self.hparams['ensemble'] is None:
            return self._scores(batch['image'], batch)
        turned = [
            {
                key: dihedral(value, number, back=True) if value.ndim == 4 else value
                for key, value in self._scores(
                    dihedral(batch['image'], number), batch
                ).items()
            }
            for number in range(8)
        ]
        return {
            key: torch.stack([values[key] for values in turned]).mean(dim=0)
            for key in turned[0]
        }

    def _scores(self, image: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what :meth:`_predict` returns, for one way to turn the images."""
        maps, logits, _ = self.maps(image, patches=False)
        probs = self.probabilities(logits)
        if self.hparams['map_labels'] == 'true':
            probs = filled(self.presence(batch), probs)
        if self.hparams['map_rule'] == 'paint':
            masks = self.pseudo_masks(maps, probs, (image.shape[-2], image.shape[-1]))
            scores = F.one_hot(masks, maps.shape[1]).movedim(-1, 1).float()
        else:
            scores = self._shares(maps, probs)
        return {'probs': probs, 'maps': maps, 'scores': scores}


def filled(presence: Tensor, probs: Tensor) -> Tensor:
    """Return labels (B, C), predicted ones where nothing is known."""
    return torch.where(presence == UNKNOWN, probs, presence)
