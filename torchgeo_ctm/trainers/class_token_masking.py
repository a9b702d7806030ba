"""The trainer: class-token masking on image-level labels (METHOD, sections 1 to 5)."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchvision.models._api import WeightsEnum

from ..errors import SettingError, nearest
from ..losses import (
    DiversityForm,
    PatchPooling,
    diversity_loss,
    gate_penalty,
    narrowing_share,
)
from ..maps.class_maps import MapRule, MapSource
from ..maps.refine import Refinement, RefinementOptions
from ..models import ClassTokenViT
from ..models.parameter_groups import parameter_groups
from ..models.registry import BUILDERS
from ..scaling import ScalingOptions, build_scaling, resolve_bands
from ..version import __version__
from .class_maps import filled
from .evaluation import EvaluatedClassMaps
from .optimizers import build_optimizer, cosine_schedule
from .options import PruningOptions, check_options, class_list, mask_schedule, tab20
from .self_training import SelfTrainingOptions, patch_targets, self_training_weight
from .weights import CHECKPOINT_KEY, load_weights

logger = logging.getLogger(__name__)


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


class ClassTokenMaskingTask(EvaluatedClassMaps):
    """Learn class tokens from image-level labels; their attention becomes a mask.

    A batch holds ``image`` (B, bands, H, W) in the data set's own numbers and ``label``
    (B, C) multi-hot, or (B,) class indices for ``task='multiclass'``. Where it holds
    ``mask`` (B, H, W) and no ``label``, the label is derived by area share; the loss
    never sees the mask, which otherwise serves scoring only.
    """

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
                :func:`~torchgeo_ctm.maps.refine.soft_assignment`.
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
        self.mask_schedule = mask_schedule(hparams['mask_rate'])
        check_options(hparams)
        self.class_names = class_list(hparams, 'class_names', str)
        self.class_colors = class_list(hparams, 'class_colors', tab20)
        self.bands = resolve_bands(hparams['bands'], hparams['in_channels'])
        self.scaling = build_scaling(self.bands, hparams['scaling'])
        self.model: ClassTokenViT = self._build_model()
        self._generator = torch.Generator()
        shift = torch.zeros(hparams['num_classes'])
        if hparams['calibration'] == 'odds':
            shift += math.log1p(-self.mask_schedule[-1][1])
        self.register_buffer('presence_shift', shift)

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
        loss = self.label_loss(logits, patch_logits, presence, self._current_share())
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
        presence = filled(presence, self.probabilities(logits.detach()))
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
