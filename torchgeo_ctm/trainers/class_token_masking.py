"""The trainer: class-token masking on image-level labels (METHOD, sections 1 to 5)."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchgeo.trainers import BaseTask
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelF1Score,
)
from torchvision.models._api import WeightsEnum

from .. import __version__
from ..errors import SettingError, nearest
from ..inference.figures import attention_figure, map_figure
from ..inference.pseudomask import (
    RULES,
    UNLIKELY,
    MapRule,
    MapSource,
    class_maps,
    dihedral,
    posterior,
    present_classes,
)
from ..inference.refine import (
    REFINEMENTS,
    Refinement,
    RefinementOptions,
    check_refinement,
)
from ..labels import class_shares, presence_from_mask
from ..labels.shares import classes_of_values
from ..losses import (
    DiversityForm,
    PatchPooling,
    check_pooling_warmup,
    diversity_loss,
    gate_penalty,
    narrowing_share,
    pool_patch_logits,
)
from ..models import ClassTokenViT
from ..models.parameter_groups import parameter_groups
from ..models.registry import BUILDERS
from ..scaling import ScalingOptions, build_scaling, resolve_bands
from ..scoring import iou_from_confusion, mean_of_known
from .metrics import BestShift, MeanAveragePrecision
from .optimizers import build_optimizer, cosine_schedule
from .self_training import (
    SelfTrainingOptions,
    check_self_training,
    patch_targets,
    self_training_weight,
)
from .side_by_side import SideBySide
from .weights import CHECKPOINT_KEY, load_weights

IGNORED = 255
#: Entry of an image-level label where nothing is known of the class.
UNKNOWN = -1

logger = logging.getLogger(__name__)


class PruningOptions(TypedDict, total=False):
    """What a configuration may say about pruning (METHOD, section 3).

    Attributes:
        penalty: λ of the paper, the price of an open gate; 0.01 if not given.
        lr: Learning rate of the gates, which at the network's own barely move; the
            network's if not given.
        start_epoch: Gates stay open before it; 0 if not given.
        settle_epoch: From it on, which heads are closed is decided, and the network
            learns to do without them; never if not given.
        remove_at_predict: Take closed heads out before predicting; yes if not given.
    """

    penalty: float
    lr: float
    start_epoch: int
    settle_epoch: int
    remove_at_predict: bool


def draw_masking(presence: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Draw which class tokens are set to zero (METHOD, section 2).

    Args:
        presence: Image-level labels (B, C), 1 where the class is present, 0 where it is
            absent; neither where nothing is known of it.
        rate: Probability of masking, independently per image and absent class.
        generator: A CPU generator, so that a seed repeats the draw on any device.

    Returns:
        (B, C) bool on the device of *presence*; never true for a present class, nor for
        one of which nothing is known.
    """
    drawn = torch.rand(presence.shape, generator=generator) < rate
    return drawn.to(presence.device, non_blocking=True) & (presence == 0)


class ClassTokenMaskingTask(SideBySide, BaseTask):
    """Learn class tokens from image-level labels; their attention becomes a mask.

    A batch holds ``image`` (B, bands, H, W) in the data set's own numbers and ``label``
    (B, C) multi-hot, or (B,) class indices for ``task='multiclass'``. Where it holds
    ``mask`` (B, H, W) and no ``label``, the label is derived by area share; the loss
    never sees the mask, which otherwise serves scoring only.
    """

    class_weights: Tensor
    presence_shift: Tensor

    def __init__(
        self,
        model: str = 'ctm_vit_small_patch8_224',
        weights: WeightsEnum | str | None = None,
        in_channels: int = 13,
        num_classes: int = 8,
        task: Literal['multilabel', 'multiclass'] = 'multilabel',
        img_size: int | tuple[int, int] = 224,
        model_options: dict[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
        class_values: Sequence[int] | None = None,
        bands: Sequence[str] | None = None,
        scaling: ScalingOptions | None = ScalingOptions(method='standard'),  # noqa: B008
        mask_rate: float | list[tuple[int, float]] = 0.5,
        patch_loss_weight: float = 1.0,
        patch_pooling: PatchPooling = 'logsumexp',
        patch_pooling_warmup: float = 0.0,
        class_weights: Sequence[float] | None = None,
        diversity_weight: float = 0.0,
        diversity_form: DiversityForm = 'present',
        pruning: PruningOptions | None = None,
        label_min_share: float = 0.1,
        map_source: MapSource = 'fused',
        map_rule: MapRule = 'argmax',
        map_labels: Literal['predicted', 'true'] = 'predicted',
        threshold: float = 0.5,
        presence: Literal['threshold', 'probability'] = 'threshold',
        refinement: Refinement | None = None,
        refinement_options: RefinementOptions | None = None,
        self_training: SelfTrainingOptions | None = None,
        ensemble: Literal['dihedral'] | None = None,
        calibration: Literal['odds', 'validation'] | None = None,
        optimizer: Literal['adamw', 'adam', 'sgd'] = 'adamw',
        lr: float = 5e-4,
        weight_decay: float = 0.05,
        layer_decay: float | None = None,
        schedule: Literal['plateau', 'cosine'] = 'plateau',
        warmup: float = 0.1,
        patience: int = 10,
        grad_checkpointing: bool = False,
        compile_blocks: bool = False,
        mask_seed: int = 0,
    ) -> None:
        """Initialise the task.

        Args:
            model: Registered name, ``ctm_vit_{tiny,small,base}_patch{8,16}_224``.
            weights: Where to start from: a TorchGeo weight or its name
                (``ViTSmall16_Weights.SENTINEL2_ALL_DINO``), a file with a timm ViT's
                state dict, a checkpoint of this package, or None.
            in_channels: Number of bands.
            num_classes: Number of classes C.
            task: 'multilabel' (BCE) or 'multiclass' (cross-entropy).
            img_size: Chip size in pixels, side or (height, width).
            model_options: More arguments of
                :class:`~torchgeo_ctm.models.ClassTokenViT` (``depth``, ``head``, …).
            class_names: One name per class; None numbers them.
            class_colors: One ``#rrggbb`` per class; None takes matplotlib's tab20.
            class_values: Value of each class in the data set's masks; every other value
                is ignored, as nodata is. None: 0…C−1, and 255 is ignored.
            bands: Names of the bands in order; None: Sentinel-2's 13.
            scaling: See :class:`~torchgeo_ctm.scaling.BandScaling`; None for data that
                a datamodule has normalised.
            mask_rate: Probability of masking an absent class's token (paper: 0.5), or
                a schedule of (epoch, rate): each rate holds from its epoch on.
            patch_loss_weight: Weight of the patch head's loss; 0 removes the head.
            patch_pooling: How patch logits become image logits.
            patch_pooling_warmup: Share of the run, 0…1, over which pooling by 'share'
                narrows from all patches to *label_min_share* of them.
            class_weights: Weight of each class in the losses; None: 1.
            diversity_weight: Weight of the loss that keeps class tokens apart.
            diversity_form: 'present', or the paper's 'reference'.
            pruning: Prune attention heads; see :class:`PruningOptions`.
            label_min_share: Share of a chip, 0…1, that makes a class present when
                the label is derived from a mask.
            map_source: 'attention', 'patchcam' or 'fused'.
            map_rule: 'argmax', or the paper's 'paint'.
            map_labels: Whether ``predict`` takes classes as present that the model
                predicts, or that the batch's label (or mask) says.
            threshold: Presence threshold on probabilities.
            presence: 'threshold' lets only classes above it into a mask (paper);
                'probability' lets every class of at least 0.2 % in, its map weighted
                by its probability, for rule 'argmax' alone.
            refinement: 'soft_assignment' lets the bands of each image move the
                scores from patches to pixels, for rule 'argmax' alone; see
                :func:`~torchgeo_ctm.inference.refine.soft_assignment`.
            refinement_options: Its ``rounds``, ``likelihood``, ``neighbours`` and
                ``trust``, where they differ from the defaults.
            self_training: From half of the run on, the patch head also learns from
                what refinement makes of its own maps of the classes that the labels
                name; {} for its defaults, see :class:`SelfTrainingOptions`. The label
                of a class that is unknown is what the network predicts.
            ensemble: 'dihedral' lets ``predict`` average over the eight flips and
                quarter turns of each window (nadir imagery has no up), at eight times
                the work; windows must be square.
            calibration: Shift the logits before they become probabilities, because
                masking raises the learnt odds by 1 / (1 − rate): 'odds' by
                log(1 − rate), 'validation' so that *threshold* gives each class its
                best F1 on the validation split. The checkpoint holds the shift.
            optimizer: 'adamw', 'adam' or 'sgd' (Nesterov momentum 0.9).
            lr: Learning rate.
            weight_decay: Of weights; tokens, positions, norms and biases never decay.
            layer_decay: Factor, 0…1, by which each layer learns more slowly than the
                one above it; for pre-trained starts.
            schedule: 'plateau' (TorchGeo's) or 'cosine' over the run's own length.
            warmup: Share of a cosine run, 0…1, over which the rate rises.
            patience: Patience of 'plateau', in epochs.
            grad_checkpointing: Recompute blocks in the backward pass to save memory.
            compile_blocks: Compile every block with torch.compile.
            mask_seed: Seed of the masking's generator.

        Raises:
            SettingError: If an argument is outside its valid values.
        """
        self.weights = weights
        super().__init__()

    def configure_models(self) -> None:
        """Build scaling and network."""
        hparams = self.hparams
        self.mask_schedule = _schedule(hparams['mask_rate'])
        if not 0 < hparams['threshold'] < 1:
            raise SettingError(f'threshold={hparams["threshold"]} is not in (0, 1)')
        if hparams['presence'] == 'probability' and hparams['map_rule'] == 'paint':
            raise SettingError(
                "presence='probability' is for map_rule='argmax'; nearest with "
                "'paint': presence='threshold'"
            )
        if hparams['patch_loss_weight'] == 0 and hparams['map_source'] != 'attention':
            raise SettingError(
                f'map_source={hparams["map_source"]!r} needs the patch head that '
                "patch_loss_weight=0 removes; nearest: map_source='attention'"
            )
        check_refinement(hparams['refinement'], hparams['refinement_options'])
        if hparams['refinement'] is not None and hparams['map_rule'] != 'argmax':
            raise SettingError(
                f'refinement={hparams["refinement"]!r} refines scores, which rule '
                f"{hparams['map_rule']!r} does not use; nearest: map_rule='argmax'"
            )
        self._check_self_training()
        check_pooling_warmup(hparams['patch_pooling_warmup'], hparams['patch_pooling'])
        self.class_names = self._class_list('class_names', str)
        self.class_colors = self._class_list('class_colors', _tab20)
        self._check_class_values()
        self.bands = resolve_bands(hparams['bands'], hparams['in_channels'])
        self.scaling = build_scaling(self.bands, hparams['scaling'])
        self.model: ClassTokenViT = self._build_model()
        self._generator = torch.Generator()
        shift = torch.zeros(hparams['num_classes'])
        if hparams['calibration'] == 'odds':
            shift += math.log1p(-self.mask_schedule[-1][1])
        self.register_buffer('presence_shift', shift)

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

    def _check_class_values(self) -> None:
        """Refuse values of masks that are not one per class."""
        values, count = self.hparams['class_values'], self.hparams['num_classes']
        if values is not None and not len(values) == len(set(values)) == count:
            raise SettingError(
                f'class_values={list(values)} are not {count} different values, one '
                f'for each of num_classes={count}'
            )

    def _build_model(self) -> ClassTokenViT:
        """Build the registered network and load starting weights."""
        name: str = self.hparams['model']
        if name not in BUILDERS:
            raise SettingError(
                f'model={name!r} is unknown; needed: one of {", ".join(BUILDERS)}'
                + nearest(name, BUILDERS)
            )
        options = self.hparams['model_options'] or {}
        model: ClassTokenViT = BUILDERS[name](
            img_size=self.hparams['img_size'],
            in_chans=self.hparams['in_channels'],
            num_classes=self.hparams['num_classes'],
            patch_head=self.hparams['patch_loss_weight'] > 0,
            **({'head_gates': self.hparams['pruning'] is not None} | options),
        )
        model.set_grad_checkpointing(self.hparams['grad_checkpointing'])
        if self.hparams['compile_blocks']:
            for block in model.blocks:
                block.compile()
        if self.weights is not None:
            kept = load_weights(model, self.weights, self.bands)
            logger.info('%d parameters keep initial values: %s', len(kept), kept)
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

    def setup(self, stage: str) -> None:
        """Seed the masking, by process so that no two draw the same."""
        self._generator.manual_seed(self.hparams['mask_seed'] + self.global_rank)

    def on_train_epoch_start(self) -> None:
        """Seed the masking by epoch, so that a resumed run draws what it would have."""
        seed = self.hparams['mask_seed'] + 1_000 * self.current_epoch
        self._generator.manual_seed(seed * 10_000 + self.global_rank)
        pruning = self.hparams['pruning'] or {}
        for gate in self.model.gates:
            gate.active = self.current_epoch >= pruning.get('start_epoch', 0)
            if self.current_epoch >= pruning.get('settle_epoch', math.inf):
                gate.settle()

    @property
    def current_mask_rate(self) -> float:
        """The masking rate of the current epoch."""
        started = [r for epoch, r in self.mask_schedule if epoch <= self.current_epoch]
        return started[-1] if started else 0.0

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

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C)."""
        logits = logits.float()
        if self.hparams['task'] == 'multiclass':
            return logits.softmax(dim=1)
        return (logits + self.presence_shift).sigmoid()

    def _loss(
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
                patch_logits.float(),
                self.hparams['patch_pooling'],
                least_share=least_share,
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
        rate = self.current_mask_rate
        drop = draw_masking(presence, rate, self._generator) if rate else None
        weight: float = self.hparams['diversity_weight']
        if weight:
            logits, attention, patch_logits = self.model.forward_attention(x, drop=drop)
        else:
            logits, patch_logits = self.model.forward_logits(x, drop)
        loss = self._loss(logits, patch_logits, presence, self._current_share())
        if weight:
            form: DiversityForm = self.hparams['diversity_form']
            loss = loss + weight * diversity_loss(
                attention.sum(1), presence.clamp(min=0), form
            )
        loss = loss + self._self_training_loss(
            logits, patch_logits, presence, x, batch.get('valid')
        )
        loss = loss + self._gate_penalty()
        self.log('train_loss', loss, batch_size=len(x), prog_bar=True)
        return loss

    def _check_self_training(self) -> None:
        """Refuse self-training that has nothing to teach, or options it lacks.

        Raises:
            SettingError: If it has not.
        """
        hparams = self.hparams
        check_self_training(hparams['self_training'])
        if hparams['self_training'] is None:
            return
        if hparams['patch_loss_weight'] == 0:
            raise SettingError(
                'self_training teaches the patch head that patch_loss_weight=0 '
                'removes; nearest: patch_loss_weight=1'
            )
        if hparams['task'] == 'multiclass':
            raise SettingError(
                "self_training with task='multiclass' would teach one class to every "
                'patch; nearest: self_training=None'
            )

    def on_train_start(self) -> None:
        """Refuse a run without an end, of which nothing can take a share.

        Raises:
            SettingError: If it is one.
        """
        for name in ('self_training', 'patch_pooling_warmup'):
            if self.hparams[name] not in (None, 0):
                self._length(name)

    def _current_share(self) -> float:
        """Return the share of patches that pooling asks for at this step."""
        least: float = self.hparams['label_min_share']
        warmup = self.hparams['patch_pooling_warmup']
        if not warmup:
            return least
        steps = warmup * self._length('patch_pooling_warmup')
        return narrowing_share(least, self.global_step / steps)

    def _length(self, name: str) -> int:
        """Return the steps of this run, which option *name* takes a share of.

        Raises:
            SettingError: If it has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise SettingError(
                f'{name} takes a share of the run, which has no end; needed: '
                'max_epochs or max_steps'
            )
        return int(steps)

    def _self_training_loss(
        self,
        logits: Tensor,
        patch_logits: Tensor | None,
        presence: Tensor,
        x: Tensor,
        valid: Tensor | None,
    ) -> Tensor | float:
        """Return the loss of patches against their refined maps, once it begins."""
        options = self.hparams['self_training']
        if options is None or patch_logits is None:
            return 0.0
        progress = self.global_step / self._length('self_training')
        weight = self_training_weight(options, progress)
        if not weight:
            return 0.0
        presence = _filled(presence, self.probabilities(logits.detach()))
        options = self.hparams['refinement_options']
        targets = patch_targets(patch_logits, presence, x, valid, options)
        loss = F.binary_cross_entropy_with_logits(patch_logits.float(), targets)
        self.log('self_training_loss', loss, batch_size=len(presence))
        return weight * loss

    def _gate_penalty(self) -> Tensor | float:
        """Return the penalty of open gates, and log it with their share."""
        gates = [gate for gate in self.model.gates if gate.active]
        if not gates:
            return 0.0
        pruning = self.hparams['pruning'] or {}
        penalty = gate_penalty(
            [gate.open_probability() for gate in gates], pruning.get('penalty', 0.01)
        )
        opened = torch.cat([gate.hard() for gate in gates]).mean()
        self.log_dict({'gate_penalty': penalty, 'heads_open': opened})
        # what has been decided is no longer pushed anywhere
        return 0.0 if gates[0].settled else penalty

    def remove_pruned_heads(self) -> None:
        """Take closed heads out of the network, so that it computes less.

        The task can be saved and loaded afterwards, but not pruned further.
        """
        if not self.model.gates:
            return
        kept = self.model.remove_pruned_heads()
        options = dict(self.hparams['model_options'] or {})
        options |= {'head_gates': False, 'kept_heads': kept}
        self.hparams['model_options'] = options
        self.hparams['pruning'] = None

    def on_predict_start(self) -> None:
        """Remove closed heads, unless the pruning options say otherwise."""
        super().on_predict_start()
        pruning = self.hparams['pruning'] or {}
        if pruning.get('remove_at_predict', True):
            self.remove_pruned_heads()

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
                f'{split}_loss': self._loss(
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
            with_labels = self.pseudo_masks(maps, _filled(presence, probs), size, batch)
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

    def predict_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> Mapping[str, Tensor]:
        """Return what a scene is decided from.

        Returns:
            ``probs`` (B, C); ``maps`` (B, C, h, w), which :meth:`pseudo_masks` takes;
            and ``scores``: the share of each present class at every position,
            (B, C, h, w) on the patch grid for rule 'argmax', (B, C, H, W) if they are
            refined, or one-hot (B, C, H, W) for rule 'paint'; comparable between
            windows.
        """
        return self._predict_batch(batch)

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what :meth:`predict_step` returns, all images at once."""
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
            probs = _filled(self.presence(batch), probs)
        if self.hparams['map_rule'] == 'paint':
            masks = self.pseudo_masks(maps, probs, (image.shape[-2], image.shape[-1]))
            scores = F.one_hot(masks, maps.shape[1]).movedim(-1, 1).float()
        else:
            scores = self._shares(maps, probs)
        return {'probs': probs, 'maps': maps, 'scores': scores}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser with TorchGeo's plateau, or with warm-up and cosine."""
        groups = parameter_groups(
            self.model,
            self.hparams['lr'],
            self.hparams['weight_decay'],
            self.hparams['layer_decay'],
            (self.hparams['pruning'] or {}).get('lr'),
        )
        optimizer = build_optimizer(self.hparams['optimizer'], groups)
        if self.hparams['schedule'] == 'plateau':
            plateau = ReduceLROnPlateau(optimizer, patience=self.hparams['patience'])
            return {
                'optimizer': optimizer,
                'lr_scheduler': {'scheduler': plateau, 'monitor': self.monitor},
            }
        steps = self._length("schedule='cosine'")
        cosine = cosine_schedule(optimizer, steps, self.hparams['warmup'])
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': cosine, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as this package's.

        The class is named as LightningCLI names it, so that ``torchgeo predict
        --ckpt_path`` also takes checkpoints of runs that were started from Python.
        """
        checkpoint[CHECKPOINT_KEY] = {'version': __version__}
        hparams = checkpoint.get('hyper_parameters')
        if hparams is not None:
            name = f'{type(self).__module__}.{type(self).__qualname__}'
            hparams.setdefault('_class_path', name)


def _filled(presence: Tensor, probs: Tensor) -> Tensor:
    """Return labels (B, C), predicted ones where nothing is known."""
    return torch.where(presence == UNKNOWN, probs, presence)


def _schedule(rate: float | Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Return the masking rates as (epoch, rate), ordered.

    Raises:
        SettingError: If a rate is not in [0, 1), or epochs are not ascending from 0.
    """
    steps = [(0, rate)] if isinstance(rate, int | float) else rate
    pairs = [(int(epoch), float(value)) for epoch, value in steps]
    epochs = [epoch for epoch, _ in pairs]
    if not pairs or epochs != sorted(set(epochs)) or epochs[0] < 0:
        raise SettingError(
            f'mask_rate={rate} is not a list of (epoch, rate) with ascending epochs'
        )
    for _, value in pairs:
        if not 0 <= value < 1:
            raise SettingError(
                f'mask_rate={value} is not in [0, 1); the paper uses 0.5'
            )
    return pairs


def _tab20(index: int) -> str:
    """Return a colour of matplotlib's tab20 as ``#rrggbb``."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps['tab20'](index % 20))
