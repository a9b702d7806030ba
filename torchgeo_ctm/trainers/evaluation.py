"""Image labels and masks against the truth: the loss, and the splits' scores."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelF1Score,
)

from ..errors import SettingError
from ..grids import IGNORED
from ..losses import pool_patch_logits
from ..maps.class_maps import class_maps
from ..plots import map_figure
from ..scoring import iou_from_confusion, mean_of_known
from .class_maps import UNKNOWN, ClassMaps, filled
from .metrics import BestShift, MeanAveragePrecision


class EvaluatedClassMaps(ClassMaps):
    """The part of the task that knows the truth: losses, scores, calibration."""

    class_colors: list[str]
    class_weights: Tensor

    def configure_losses(self) -> None:
        """Check the weights of the classes.

        Raises:
            SettingError: If their number is wrong.
        """
        weights = self.hparams['class_weights']
        count: int = self.hparams['num_classes']
        if weights is not None and len(weights) != count:
            raise SettingError(
                f'class_weights has {len(weights)} entries, num_classes={count} needs '
                f'{count}'
            )
        values = torch.ones(count) if weights is None else torch.tensor(weights)
        self.register_buffer('class_weights', values.float(), persistent=False)

    def configure_metrics(self) -> None:
        """Create the metrics of each split.

        * mean average precision and F1 of the image labels;
        * confusion of the pseudo-masks with true masks, from predicted and from true
          image labels, of which mean and per-class IoU are logged.
        """
        count: int = self.hparams['num_classes']
        scores: dict[str, Metric | MetricCollection]
        if self.hparams['task'] == 'multilabel':
            scores = {
                'mAP': MeanAveragePrecision(count),
                'F1': MultilabelF1Score(
                    count,
                    threshold=self.hparams['threshold'],
                    average='micro',
                    ignore_index=UNKNOWN,
                ),
            }
        else:
            scores = {
                'mAP': MulticlassAveragePrecision(count),
                'F1': MulticlassF1Score(count, average='micro'),
            }
        label_metrics = MetricCollection(scores)
        self.label_metrics: Any = nn.ModuleDict()
        self.confusions: Any = nn.ModuleDict()
        self.calibrator: Any = BestShift(self.hparams['threshold'])
        for split in ('val', 'test'):
            self.label_metrics[split] = label_metrics.clone(prefix=f'{split}_')
            for labels in ('predicted', 'true'):
                self.confusions[f'{split}_{labels}'] = MulticlassConfusionMatrix(
                    count, ignore_index=IGNORED
                )

    def image_loss(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Return BCE (multilabel) or cross-entropy (multiclass) of logits (B, C).

        BCE is the mean over what is known.
        """
        if self.hparams['task'] == 'multiclass':
            target = presence.argmax(dim=1)
            return F.cross_entropy(logits, target, self.class_weights)
        known = (presence != UNKNOWN).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(
            logits, presence * known, self.class_weights * known, reduction='sum'
        )
        return loss / known.sum().clamp(min=1)

    def label_loss(
        self,
        logits: Tensor,
        patch_logits: Tensor | None,
        presence: Tensor,
        least_share: float,
    ) -> Tensor:
        """Return the loss of the class tokens plus that of the patch head."""
        loss = self.image_loss(logits.float(), presence)
        if patch_logits is not None:
            pooled = pool_patch_logits(
                patch_logits.float(), self.hparams['patch_pooling'], share=least_share
            )
            loss = loss + self.hparams['patch_loss_weight'] * self.image_loss(
                pooled, presence
            )
        return loss

    def validation_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Update the metrics of the validation split; draw the first image."""
        masks = self._evaluate(batch, 'val')
        experiment: Any = getattr(self.logger, 'experiment', None)
        if batch_idx == 0 and hasattr(experiment, 'add_figure'):
            image = batch['image'][:1]
            _, attention, _ = self.model.forward_attention(self.scaling(image.float()))
            figure = map_figure(
                image[0],
                class_maps(attention, None, 'attention')[0],
                masks[0],
                self.reference_mask(batch['mask'])[0] if 'mask' in batch else None,
                self.class_names,
                self.class_colors,
                self.bands,
            )
            experiment.add_figure('maps', figure, global_step=self.global_step)

    def test_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Update the metrics of the test split."""
        self._evaluate(batch, 'test')

    def _evaluate(self, batch: Mapping[str, Tensor], split: str) -> Tensor:
        """Score one batch; return its masks from predicted labels."""
        presence = self.presence(batch)
        maps, logits, patch_logits = self.maps(batch['image'])
        probs = self.probabilities(logits)
        size = (batch['image'].shape[-2], batch['image'].shape[-1])
        masks = self.pseudo_masks(maps, probs, size, batch)
        target = presence.long()
        if self.hparams['task'] == 'multiclass':
            target = target.argmax(dim=1)
        self.label_metrics[split].update(probs, target)
        if split == 'val' and self.hparams['calibration'] == 'validation':
            self.calibrator.update(logits.float(), presence)
        empty = (probs <= self.hparams['threshold']).all(dim=1).float().mean()
        self.log_dict(
            {
                f'{split}_loss': self.label_loss(
                    logits, patch_logits, presence, self.hparams['label_min_share']
                ),
                f'{split}_nothing_predicted': empty,
            },
            batch_size=len(probs),
            sync_dist=True,
        )
        if 'mask' in batch:
            truth = self.reference_mask(batch['mask'])
            self.confusions[f'{split}_predicted'].update(masks, truth)
            with_labels = self.pseudo_masks(maps, filled(presence, probs), size, batch)
            self.confusions[f'{split}_true'].update(with_labels, truth)
        return masks

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics; calibrate presence if asked to."""
        if self.hparams['calibration'] == 'validation':
            self.presence_shift.copy_(self.calibrator.compute())
            self.calibrator.reset()
        self._log_metrics('val')

    def on_test_epoch_end(self) -> None:
        """Log the test split's metrics."""
        self._log_metrics('test')

    def _log_metrics(self, split: str) -> None:
        """Log label metrics and, if there were masks, the IoU of the pseudo-masks."""
        metrics = self.label_metrics[split]
        self.log_dict(metrics.compute())
        metrics.reset()
        for labels, suffix in (('predicted', ''), ('true', '_true_labels')):
            confusion = self.confusions[f'{split}_{labels}']
            if not confusion.update_called:
                continue
            iou = iou_from_confusion(confusion.compute().cpu().numpy())
            confusion.reset()
            self.log(f'{split}_miou{suffix}', mean_of_known(iou), prog_bar=not suffix)
            if not suffix:
                for name, value in zip(self.class_names, iou, strict=True):
                    if value is not None:
                        self.log(f'{split}_iou_{name}', value)
