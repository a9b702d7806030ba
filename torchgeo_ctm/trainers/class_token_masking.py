"""The trainer: class-token masking on image-level labels (METHOD, sections 1 to 5)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torchgeo.trainers import BaseTask
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.utilities import dim_zero_cat

from .. import __version__
from ..errors import SettingError, nearest
from ..inference.figures import map_figure
from ..inference.pseudomask import (
    RULES,
    MapRule,
    MapSource,
    class_maps,
    posterior,
    present_classes,
)
from ..labels import presence_from_mask
from ..losses import PatchPooling, pool_patch_logits
from ..models.class_token_vit import BUILDERS, ClassTokenViT
from ..scaling import ScalingOptions, build_scaling, resolve_bands
from ..scoring import iou_from_confusion, mean_of_known

#: Key by which a checkpoint is known to be ours; its value holds the version.
CHECKPOINT_KEY = 'torchgeo_ctm'

IGNORED = 255


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that occur.

    torchmetrics' macro average counts a class without a positive image as 0.
    """

    def __init__(self, num_labels: int) -> None:
        """Create the metric."""
        super().__init__(num_labels, average='none')

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean over classes with at least one positive image."""
        seen = dim_zero_cat(self.target).sum(dim=0) > 0
        precision: Tensor = super().compute()
        return precision[seen].mean() if seen.any() else precision.new_zeros(())


def draw_masking(presence: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Draw which class tokens are set to zero (METHOD, section 2).

    Args:
        presence: Image-level labels (B, C), 1 where the class is present.
        rate: Probability of masking, independently per image and absent class.
        generator: A CPU generator, so that a seed repeats the draw on any device.

    Returns:
        (B, C) bool on the device of *presence*; never true for a present class.
    """
    drawn = torch.rand(presence.shape, generator=generator) < rate
    return drawn.to(presence.device, non_blocking=True) & (presence == 0)


class ClassTokenMaskingTask(BaseTask):
    """Learn class tokens from image-level labels; their attention becomes a mask.

    A batch holds ``image`` (B, bands, H, W) in the data set's own numbers and ``label``
    (B, C) multi-hot, or (B,) class indices for ``task='multiclass'``. Where it holds
    ``mask`` (B, H, W) and no ``label``, the label is derived by area share; the loss
    never sees the mask, which otherwise serves scoring only.
    """

    def __init__(
        self,
        model: str = 'ctm_vit_small_patch8_224',
        weights: str | None = None,
        in_channels: int = 13,
        num_classes: int = 8,
        task: Literal['multilabel', 'multiclass'] = 'multilabel',
        img_size: int | tuple[int, int] = 224,
        model_options: dict[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
        bands: Sequence[str] | None = None,
        scaling: ScalingOptions | None = ScalingOptions(method='standard'),  # noqa: B008
        mask_rate: float = 0.5,
        patch_loss_weight: float = 1.0,
        patch_pooling: PatchPooling = 'logsumexp',
        label_min_share: float = 0.1,
        map_source: MapSource = 'fused',
        map_rule: MapRule = 'argmax',
        map_labels: Literal['predicted', 'true'] = 'predicted',
        threshold: float = 0.5,
        lr: float = 5e-4,
        weight_decay: float = 0.05,
        schedule: Literal['plateau', 'cosine'] = 'plateau',
        warmup: float = 0.1,
        patience: int = 10,
        mask_seed: int = 0,
    ) -> None:
        """Initialise the task.

        Args:
            model: Registered name, ``ctm_vit_{tiny,small,base}_patch{8,16}_224``.
            weights: Checkpoint of this package to start from, or None.
            in_channels: Number of bands.
            num_classes: Number of classes C.
            task: 'multilabel' (BCE) or 'multiclass' (cross-entropy).
            img_size: Chip size in pixels, side or (height, width).
            model_options: More arguments of
                :class:`~torchgeo_ctm.models.ClassTokenViT` (``depth``, ``head``, …).
            class_names: One name per class; None numbers them.
            class_colors: One ``#rrggbb`` per class; None takes matplotlib's tab20.
            bands: Names of the bands in order; None: Sentinel-2's 13.
            scaling: See :class:`~torchgeo_ctm.scaling.BandScaling`; None for data that
                a datamodule has normalised.
            mask_rate: Probability of masking an absent class's token (paper: 0.5).
            patch_loss_weight: Weight of the patch head's loss; 0 removes the head.
            patch_pooling: How patch logits become image logits.
            label_min_share: Share of a chip, 0…1, that makes a class present when
                the label is derived from a mask.
            map_source: 'attention', 'patchcam' or 'fused'.
            map_rule: 'argmax', or the paper's 'paint'.
            map_labels: Whether ``predict`` takes classes as present that the model
                predicts, or that the batch's label (or mask) says.
            threshold: Presence threshold on probabilities.
            lr: Learning rate.
            weight_decay: AdamW's weight decay.
            schedule: 'plateau' (TorchGeo's) or 'cosine' over the run's own length.
            warmup: Share of a cosine run, 0…1, over which the rate rises.
            patience: Patience of 'plateau', in epochs.
            mask_seed: Seed of the masking's generator.

        Raises:
            SettingError: If an argument is outside its valid values.
        """
        self.weights = weights
        super().__init__()

    def configure_models(self) -> None:
        """Build scaling and network."""
        hparams = self.hparams
        if not 0 <= hparams['mask_rate'] < 1:
            raise SettingError(
                f'mask_rate={hparams["mask_rate"]} is not in [0, 1); the paper uses 0.5'
            )
        if not 0 < hparams['threshold'] < 1:
            raise SettingError(f'threshold={hparams["threshold"]} is not in (0, 1)')
        if hparams['patch_loss_weight'] == 0 and hparams['map_source'] != 'attention':
            raise SettingError(
                f'map_source={hparams["map_source"]!r} needs the patch head that '
                "patch_loss_weight=0 removes; nearest: map_source='attention'"
            )
        self.class_names = self._class_list('class_names', str)
        self.class_colors = self._class_list('class_colors', _tab20)
        self.bands = resolve_bands(hparams['bands'], hparams['in_channels'])
        self.scaling = build_scaling(self.bands, hparams['scaling'])
        self.model: ClassTokenViT = self._build_model()
        self._generator = torch.Generator()

    def _class_list(self, name: str, default: Any) -> list[str]:
        """Return one string per class: those given, or defaults by index."""
        count: int = self.hparams['num_classes']
        given = self.hparams[name]
        if given is None:
            return [default(index) for index in range(count)]
        if len(given) != count:
            raise SettingError(
                f'{name} has {len(given)} entries, num_classes={count} needs {count}'
            )
        return [str(entry) for entry in given]

    def _build_model(self) -> ClassTokenViT:
        """Build the registered network and load starting weights."""
        name: str = self.hparams['model']
        if name not in BUILDERS:
            raise SettingError(
                f'model={name!r} is unknown; needed: one of {", ".join(BUILDERS)}'
                + nearest(name, BUILDERS)
            )
        model: ClassTokenViT = BUILDERS[name](
            img_size=self.hparams['img_size'],
            in_chans=self.hparams['in_channels'],
            num_classes=self.hparams['num_classes'],
            patch_head=self.hparams['patch_loss_weight'] > 0,
            **(self.hparams['model_options'] or {}),
        )
        if self.weights is not None:
            from .checkpoint import read_checkpoint

            state = read_checkpoint(self.weights)['state_dict']
            model.load_state_dict(
                {
                    key.removeprefix('model.'): value
                    for key, value in state.items()
                    if key.startswith('model.')
                }
            )
        return model

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
                    count, threshold=self.hparams['threshold'], average='micro'
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
        for split in ('val', 'test'):
            self.label_metrics[split] = label_metrics.clone(prefix=f'{split}_')
            for labels in ('predicted', 'true'):
                self.confusions[f'{split}_{labels}'] = MulticlassConfusionMatrix(
                    count, ignore_index=IGNORED
                )

    def setup(self, stage: str) -> None:
        """Seed the masking, by process so that no two draw the same."""
        self._generator.manual_seed(self.hparams['mask_seed'] + self.global_rank)

    def on_train_epoch_start(self) -> None:
        """Seed the masking by epoch, so that a resumed run draws what it would have."""
        seed = self.hparams['mask_seed'] + 1_000 * self.current_epoch
        self._generator.manual_seed(seed * 10_000 + self.global_rank)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) of images (B, bands, H, W) in their own numbers."""
        logits: Tensor = self.model(self.scaling(x.float()))
        return logits

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) float32 of a batch.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        count: int = self.hparams['num_classes']
        if 'label' in batch:
            label = batch['label']
            return F.one_hot(label, count).float() if label.ndim == 1 else label.float()
        if 'mask' in batch:
            share: float = self.hparams['label_min_share']
            mask = batch['mask']
            mask = mask.squeeze(1) if mask.ndim == 4 else mask
            presence = presence_from_mask(mask, count, share, IGNORED)
            if self.hparams['task'] == 'multiclass':
                shares = presence_from_mask(mask, count, 0.0, IGNORED)
                presence = F.one_hot(shares.argmax(dim=1), count).float()
            return presence
        raise SettingError(
            f"batch has {sorted(batch)}; needed: 'label', or 'mask' to derive it from"
        )

    def image_loss(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Return BCE (multilabel) or cross-entropy (multiclass) of logits (B, C)."""
        if self.hparams['task'] == 'multiclass':
            return F.cross_entropy(logits, presence.argmax(dim=1))
        return F.binary_cross_entropy_with_logits(logits, presence)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C)."""
        logits = logits.float()
        if self.hparams['task'] == 'multiclass':
            return logits.softmax(dim=1)
        return logits.sigmoid()

    def _loss(
        self, logits: Tensor, patch_logits: Tensor | None, presence: Tensor
    ) -> Tensor:
        """Return the loss of the class tokens plus that of the patch head."""
        loss = self.image_loss(logits.float(), presence)
        if patch_logits is not None:
            pooled = pool_patch_logits(
                patch_logits.float(), self.hparams['patch_pooling']
            )
            loss = loss + self.hparams['patch_loss_weight'] * self.image_loss(
                pooled, presence
            )
        return loss

    def training_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Return the loss of one batch, with absent classes' tokens masked."""
        presence = self.presence(batch)
        x = self.scaling(batch['image'].float())
        rate: float = self.hparams['mask_rate']
        drop = draw_masking(presence, rate, self._generator) if rate else None
        logits, patch_logits = self.model.forward_logits(x, drop)
        loss = self._loss(logits, patch_logits, presence)
        self.log('train_loss', loss, batch_size=len(x), prog_bar=True)
        return loss

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return class maps (B, C, h, w), logits (B, C) and patch logits of images."""
        logits, attention, patch_logits = self.model.forward_attention(
            self.scaling(x.float())
        )
        source: MapSource = self.hparams['map_source']
        return class_maps(attention, patch_logits, source), logits, patch_logits

    def pseudo_masks(
        self, maps: Tensor, probs: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Decide the class of every pixel, image by image.

        Args:
            maps: Class maps (B, C, h, w).
            probs: Class probabilities, or true labels, (B, C).
            size: Height and width in pixels.

        Returns:
            Masks (B, H, W), int64.
        """
        rule = RULES[self.hparams['map_rule']]
        threshold: float = self.hparams['threshold']
        return torch.stack(
            [
                rule(map_, prob, size, threshold)
                for map_, prob in zip(maps, probs, strict=True)
            ]
        )

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
                batch['mask'][0] if 'mask' in batch else None,
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
        masks = self.pseudo_masks(maps, probs, size)
        target = presence.long()
        if self.hparams['task'] == 'multiclass':
            target = target.argmax(dim=1)
        self.label_metrics[split].update(probs, target)
        empty = (probs <= self.hparams['threshold']).all(dim=1).float().mean()
        self.log_dict(
            {
                f'{split}_loss': self._loss(logits, patch_logits, presence),
                f'{split}_nothing_predicted': empty,
            },
            batch_size=len(probs),
            sync_dist=True,
        )
        if 'mask' in batch:
            truth = batch['mask'].reshape(len(probs), *size)
            self.confusions[f'{split}_predicted'].update(masks, truth)
            with_labels = self.pseudo_masks(maps, presence, size)
            self.confusions[f'{split}_true'].update(with_labels, truth)
        return masks

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics."""
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

    def predict_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return what a scene is decided from.

        Returns:
            ``probs`` (B, C), and ``scores``: the share of each present class at every
            position, (B, C, h, w) on the patch grid for rule 'argmax', or one-hot
            (B, C, H, W) for rule 'paint'; comparable between windows.
        """
        maps, logits, _ = self.maps(batch['image'])
        probs = self.probabilities(logits)
        if self.hparams['map_labels'] == 'true':
            probs = self.presence(batch)
        if self.hparams['map_rule'] == 'paint':
            size = (batch['image'].shape[-2], batch['image'].shape[-1])
            masks = self.pseudo_masks(maps, probs, size)
            scores = F.one_hot(masks, maps.shape[1]).movedim(-1, 1).float()
        else:
            present = present_classes(probs, self.hparams['threshold'])
            scores = posterior(maps, present)
        return {'probs': probs, 'scores': scores}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with TorchGeo's plateau schedule, or with warm-up and cosine."""
        hparams = self.hparams
        optimizer = AdamW(
            self.parameters(), lr=hparams['lr'], weight_decay=hparams['weight_decay']
        )
        if hparams['schedule'] == 'plateau':
            plateau = ReduceLROnPlateau(optimizer, patience=hparams['patience'])
            return {
                'optimizer': optimizer,
                'lr_scheduler': {'scheduler': plateau, 'monitor': self.monitor},
            }
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rising: int = max(1, round(total * hparams['warmup']))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

        cosine = LambdaLR(optimizer, factor)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': cosine, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as this package's."""
        checkpoint[CHECKPOINT_KEY] = {'version': __version__}


def _tab20(index: int) -> str:
    """Return a colour of matplotlib's tab20 as ``#rrggbb``."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps['tab20'](index % 20))
