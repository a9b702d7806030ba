"""The trainer: class-token masking on image-level labels (METHOD, sections 1 to 5)."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchvision.models._api import WeightsEnum

from ..compat import BaseTask
from ..errors import (
    CheckpointError,
    DataError,
    LabelWarning,
    PixelSizeWarning,
    ReflectanceWarning,
    SettingError,
    did_you_mean,
)
from ..grids import IGNORED
from ..lightning_messages import hide_tips
from ..losses import (
    attention_loss,
    balance_weights,
    diversity_loss,
    gate_penalty,
    narrowing_share,
    pool_patch_logits,
)
from ..maps.class_maps import class_maps
from ..maps.decoder import MapOptions
from ..models.parameter_groups import freeze, parameter_groups
from ..models.patch_kernels import PatchKernel
from ..models.pretrained import load_patch_embedding
from ..plots import attention_figure, map_figure
from ..scaling import BandScaling, ScalingOptions, build_scaling
from ..version import __version__
from .batches import LabelTally, check_chips_of_batches, diverged, labeled
from .calibration import calibrated
from .channel_facts import UNSCALED, warn_of_other_classes
from .checkpoint_names import check_checkpoint_names, warn_of_start
from .data_channels import DataChannels, data_channels
from .loading import CHECKPOINT_KEY, not_finite, unlike_network
from .masking import draw_masking, mask_schedule
from .metrics import BestShift, SplitMetrics
from .optimizers import build_optimizer, cosine_schedule
from .options import (
    MOVED,
    AttentionOptions,
    FormerOptions,
    LabelOptions,
    OptimizationOptions,
    PatchOptions,
    task_options,
)
from .predictor import ClassTokenPrediction, image_size, readable
from .presence import UNKNOWN, check_entries, filled
from .rare_classes import training_set, warn_about_rare_classes
from .resume import ResumableTraining
from .score_table import ScoreTable
from .self_training import patch_targets, self_training_weight
from .torchgeo_command import check_weights, check_writer
from .weights import DEFAULT, Start, read_start

logger = logging.getLogger(__name__)

#: Key of a batch whose bands are in the task's order, and whose numbers are finite.
USABLE = 'usable'


class ClassTokenMaskingTask(ClassTokenPrediction, BaseTask):
    """Learn class tokens from image-level labels; their attention becomes a mask.

    A batch holds ``image`` (B, bands, H, W) in the data set's own numbers and ``label``
    (B, C) multi-hot, or (B,) class indices for ``task='multiclass'``. If it holds
    ``mask`` (B, H, W) and no ``label``, the label is derived by area share. The loss
    never sees the mask, which otherwise serves scoring only.
    """

    class_weights: Tensor
    label_counts: Tensor

    def __init__(
        self,
        model: str | None = None,
        weights: WeightsEnum | str | list[str] | None = None,
        in_channels: int = 13,
        num_classes: int = 8,
        task: Literal['multilabel', 'multiclass'] = 'multilabel',
        img_size: int | tuple[int, int] = 224,
        model_options: dict[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
        bands: Sequence[str] | None = None,
        scaling: ScalingOptions | None = ScalingOptions(method='standard'),  # noqa: B008
        mask_rate: float | list[tuple[int, float]] = 0.5,
        lr: float = 5e-4,
        patience: int = 10,
        labels: LabelOptions = LabelOptions(),  # noqa: B008
        maps: MapOptions = MapOptions(),  # noqa: B008
        patches: PatchOptions = PatchOptions(),  # noqa: B008
        attention: AttentionOptions = AttentionOptions(),  # noqa: B008
        optimization: OptimizationOptions = OptimizationOptions(),  # noqa: B008
        **former: Unpack[FormerOptions],
    ) -> None:
        """Initialize the task.

        Args:
            model: Registered name, ``ctm_vit_{tiny,small,base}_patch{8,16}_224`` or one
                of the sizes of public weights (``ctm_vit_large_patch16_224``). None: as
                large as the weights; without weights, ``ctm_vit_small_patch8_224``.
            weights: Initial weights: a TorchGeo weight or its name
                (``ViTSmall16_Weights.SENTINEL2_ALL_DINO``; ``torchgeo-ctm weights``
                lists them), a file with a timm ViT's state dict, a checkpoint of this
                package, or None. Of a list, the first gives everything but the columns
                of bands that it does not have.
            in_channels: Number of bands.
            num_classes: Number of classes C.
            task: 'multilabel' (BCE) or 'multiclass' (cross-entropy).
            img_size: Chip size in pixels, side or (height, width).
            model_options: More arguments of
                :class:`~torchgeo_ctm.models.ClassTokenViT` (``depth``, ``head``, …).
                ``wavelengths``, for the weights of DOFA and Copernicus-FM: the center
                in micrometers of each band whose name is unknown.
            class_names: One name per class; None numbers them.
            class_colors: One ``#rrggbb`` per class; None takes matplotlib's
                tab20 and, from 21 classes on, colors unlike those.
            bands: Names of the bands in order; None: Sentinel-2's 13.
            scaling: See :class:`~torchgeo_ctm.scaling.BandScaling`; None for data that
                a datamodule has normalized.
            mask_rate: Probability of masking an absent class's token (paper: 0.5), or
                a schedule of (epoch, rate): each rate holds from its epoch on.
            lr: Learning rate.
            patience: Patience of the schedule 'plateau', in epochs.
            labels: How labels are derived from masks, and weighted. Each of the five
                groups may also be a mapping.
            maps: How class maps are made, and decided into masks.
            patches: The patch head and its pooling.
            attention: Diversity of class tokens, and pruning of heads.
            optimization: Optimizer, schedule and weight decay.
            **former: Arguments of version 0.1 that are now in a group.

        Raises:
            SettingError: If an argument is outside its valid values.
            TypeError: If there is no such argument.
        """
        self.weights = weights
        groups = {
            'labels': labels,
            'maps': maps,
            'patches': patches,
            'attention': attention,
            'optimization': optimization,
        }
        # LightningCLI adds _class_path to the hyperparameters, for load_from_checkpoint
        moved = {key: v for key, v in former.items() if not key.startswith('_')}
        self.options = task_options(groups, moved)
        super().__init__()
        hide_tips()

    def configure_models(self) -> None:
        """Build scaling and network."""
        for name in MOVED:
            self.hparams.pop(name, None)
        # mappings, because weights_only refuses dataclasses
        self.save_hyperparameters(self.options.mappings())
        lr = self.hparams['lr']
        if not isinstance(lr, int | float) or not 0 <= lr < math.inf:
            raise SettingError(f'lr={lr!r}, expected a number of 0 or more.')
        self.mask_schedule = mask_schedule(self.hparams['mask_rate'])
        #: Patch embedding of pre-trained weights, in case the data renames the bands.
        self._kernel: PatchKernel | None = None
        #: Checkpoint of this package that training starts from, and what it holds.
        self._start: tuple[str, Mapping[str, Any]] | None = None
        #: Whether weights were loaded or trained.
        self._trained = False
        start: Start | None = None
        name = self.hparams['model'] or DEFAULT
        options = dict(self.hparams['model_options'] or {})
        wavelengths = options.pop('wavelengths', None)
        if self.weights is not None:
            start = read_start(self.weights, wavelengths)
            name, options = start.network(self.hparams['model'], options)
        # a checkpoint has to say it without the weights
        self.hparams['model'], self.hparams['model_options'] = name, options or None
        self.build(self.hparams)
        if start is not None:
            kept = start.load(self.model, self.bands)
            self._trained = start.vit is None
            self._kernel = start.kernel
            if start.own is not None:
                self._start = start.source, start.own.get('hyper_parameters') or {}
            logger.info('%d parameters keep initial values: %s', len(kept), kept)
        freeze(self.model, self.options.optimization.freeze_blocks)
        self._generator = torch.Generator()
        self._channels = DataChannels()
        self._tally: LabelTally | None = None
        #: Whether this training has said that self-training began.
        self._announced = False
        self._training = ResumableTraining()
        #: Calibrated shift of the weights that were validated last.
        self._calibrated: Tensor | None = None

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights, and remember that they are no initial ones.

        Raises:
            CheckpointError: If they are of another network.
        """
        self._trained = True
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise unlike_network(error) from error

    def configure_losses(self) -> None:
        """Register the weights of the classes."""
        weights = self.options.labels.weights
        count: int = self.hparams['num_classes']
        values = torch.ones(count) if weights is None else torch.tensor(weights)
        self.register_buffer('class_weights', values.float(), persistent=False)
        if self._balance:
            # presences and labels seen in training; one of each is assumed
            seen = torch.tensor([[1.0], [2.0]]).repeat(1, count)
            self.register_buffer('label_counts', seen)

    def configure_metrics(self) -> None:
        """Create the metrics of the validation and test splits."""
        count: int = self.hparams['num_classes']
        threshold = self.options.maps.threshold
        self.split_metrics: Any = nn.ModuleDict(
            {
                split: SplitMetrics(
                    split,
                    count,
                    self._multiclass,
                    threshold,
                    self.options.labels.min_share,
                )
                for split in ('val', 'test')
            }
        )
        self.calibrator: Any = BestShift(threshold)

    def name_classes(self, names: Sequence[str], colors: Sequence[str]) -> None:
        """Set names and colors of the classes, if the task was given none.

        Args:
            names: One name per class.
            colors: One ``#rrggbb`` per class.
        """
        if self.hparams['class_names'] is None:
            self.class_names = self.hparams['class_names'] = list(names)
        if self.hparams['class_colors'] is None:
            self.class_colors = self.hparams['class_colors'] = list(colors)

    def attention_maps(
        self, image: Tensor, by_head: bool = False
    ) -> Tensor | list[Tensor]:
        """Return the attention of each class token to the patches.

        Args:
            image: One image (bands, H, W) in its own numbers.
            by_head: Return each head by itself.

        Returns:
            Attention (L, C, h, w) averaged over heads, weighted by their gates; or for
            each block (heads, C, h, w).

        Raises:
            DataError: If it is not one image.
        """
        if not isinstance(image, Tensor) or image.ndim != 3:
            shape = getattr(image, 'shape', None)
            kind = '' if isinstance(image, Tensor) else f'{type(image).__name__} '
            given = f'{kind}{"" if shape is None else tuple(shape)}'.strip()
            raise DataError(
                f'Got {given}, expected one image as a tensor (bands, H, W).'
                + ' Did you mean torch.from_numpy(image)?' * (kind == 'ndarray ')
            )
        training = self.training
        self.eval()
        with torch.no_grad():
            batch = readable({'image': image[None].to(self.device)})
            x = self._scaled(batch['image'])
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
        """Plot the attention of class tokens over the RGB.

        Args:
            image: One image (bands, H, W) in its own numbers.
            block: The block whose heads are plotted, one per column (negative counts
                from the last); None plots the blocks, averaged over heads.
            classes: Names of the classes to plot, one per row; None plots all.

        Raises:
            DataError: If it is not one image.
            SettingError: If there is no such block or class.
        """
        classes = [classes] if isinstance(classes, str) else classes
        names = list(self.class_names if classes is None else classes)
        for name in names:
            if name not in self.class_names:
                raise SettingError(
                    f'Unknown class {name!r}, expected one of: '
                    f'{", ".join(self.class_names)}.'
                    + did_you_mean(name, self.class_names)
                )
        rows = [self.class_names.index(name) for name in names]
        maps = self.attention_maps(image, by_head=block is not None)
        what = 'block'
        if block is not None:
            if not -len(maps) <= block < len(maps):
                raise SettingError(
                    f'block must be {-len(maps)} to {len(maps) - 1}, got {block}.'
                )
            maps, what = maps[block], 'head'
        columns = [f'{what} {index}' for index in range(len(maps))]
        chosen = torch.stack([map_[rows] for map_ in maps])
        return attention_figure(image, chosen, names, columns, self.bands)

    def setup(self, stage: str) -> None:
        """Seed the masking, by process so that no two draw the same."""
        if stage != 'fit':
            # callbacks of training, which have nothing to do here
            warnings.filterwarnings('ignore', 'Be aware that when using `ckpt_path`')
        seed = self.options.optimization.mask_seed
        self._generator.manual_seed(seed + self.global_rank)
        trainer = getattr(self, '_trainer', None)
        named = self.hparams['bands'] is not None
        self._channels = data_channels(trainer, stage, self.bands, named)
        if self._channels.names is not None:
            self._name_bands(self._channels.names)
        if self._channels.normalization is not None:
            self._learn_normalization(*self._channels.normalization)
        if stage == 'fit' and self._start is not None:
            # the data may have named classes and bands
            warn_of_start(*self._start, self.hparams['class_names'], self.bands)
        if trainer is not None:
            if stage != 'predict' and self.options.labels.values is None:
                warn_of_other_classes(trainer, stage, self.class_names)
            check_writer(trainer, stage)
            check_chips_of_batches(trainer)
            if stage == 'fit':
                self._learn_reading(getattr(trainer, 'datamodule', None))

    def _learn_reading(self, data: Any) -> None:
        """Learn how scenes are resampled, and their pixel size, to predict alike.

        Raises:
            SettingError: If there is no scaling that records it.
        """
        scenes = getattr(data, 'reads_bands_by_name', False)
        resample = getattr(data, 'resample', None) if scenes else None
        if scenes and not self.is_local:
            self._compare_sizes(getattr(data, 'window', None))
        size = getattr(data, 'pixel_size', None)
        if size is not None and isinstance(self.scaling, BandScaling):
            self.scaling.pixel_size = size
            self.hparams['scaling'] = {**self.hparams['scaling'], 'pixel_size': size}
        self._learn_range(getattr(data, 'percentiles', None))
        if resample in (None, getattr(self.scaling, 'resample', 'nearest')):
            return
        if not isinstance(self.scaling, BandScaling):
            raise SettingError(
                f'resample={resample!r} of the scenes is recorded in scaling, which is '
                'null. Set model.init_args.scaling, or leave resample out.'
            )
        self.scaling.resample = resample
        self.hparams['scaling'] = {**self.hparams['scaling'], 'resample': resample}

    def _learn_range(self, percentiles: Any) -> None:
        """Learn the range of the training scenes, to tell scenes of another offset.

        Args:
            percentiles: First and 99th of each band, (2, bands); None: unknown.
        """
        scaling = self.scaling
        if (
            percentiles is None
            or not isinstance(scaling, BandScaling)
            or scaling.method == 'per_chip_maximum'
            or scaling.low is not None
        ):
            return
        values = torch.as_tensor(percentiles, dtype=torch.float32)[..., None, None]
        given = values.to(scaling.offsets.device) + scaling.offsets
        scaling.low, scaling.high = (
            given.clamp(scaling.lowest, scaling.highest).flatten(1).tolist()
        )
        learned = {'low': scaling.low, 'high': scaling.high}
        self.hparams['scaling'] = {**self.hparams['scaling'], **learned}

    def learn_offset(self, offset: float) -> None:
        """Learn the offset of scenes that do not tell it, to predict alike.

        Scaling then adds it, as what reads scenes knows.
        """
        scaling = self.scaling
        if isinstance(scaling, BandScaling) and not (
            scaling.offset or scaling.own_ranges
        ):
            self.hparams['scaling'] = {**self.hparams['scaling'], 'offset': offset}
            own = scaling.state_dict()
            scaling = build_scaling(self.bands, self.hparams['scaling'])
            scaling.load_state_dict(own)
            self.scaling = scaling.to(self.device)

    def _compare_sizes(self, window: int | None) -> None:
        """Warn if windows of the data are not as large as those that are mapped."""
        size = self.hparams['img_size']
        sides = {size} if isinstance(size, int) else {*size}
        if window is not None and sides != {window}:
            warnings.warn(
                f'The windows of the data have {window} px, but img_size={size} of the '
                'model, which maps are made with. Leave window out, or set both to one '
                'size.',
                PixelSizeWarning,
                stacklevel=4,
            )

    def _name_bands(self, names: Sequence[str]) -> None:
        """Take the names of the data's bands, and what depends on them."""
        if tuple(names) == self.bands:
            return
        scaling = build_scaling(names, self.hparams['scaling'])
        self.bands, self.hparams['bands'] = tuple(names), list(names)
        self.scaling = scaling.to(self.device)
        if self._kernel is not None:
            load_patch_embedding(self.model, self._kernel, self.bands)

    def _learn_normalization(self, mean: list[float], std: list[float]) -> None:
        """Learn how the data module normalizes, to scale scenes alike.

        Images of this data module are not scaled again.
        """
        if isinstance(self.scaling, BandScaling):
            pairs = ((self.scaling.mean, mean), (self.scaling.std, std))
            self._channels.scaled = self.scaling.clip is None and all(
                torch.allclose(ours.flatten().cpu(), ours.new_tensor(theirs).cpu())
                for ours, theirs in pairs
            )
        elif min(std) > 0:
            options = ScalingOptions(method='standard', clip=None, mean=mean, std=std)
            self.scaling = build_scaling(self.bands, options).to(self.device)
            self.hparams['scaling'] = dict(options)
            self._channels.scaled = True

    def _scaled(self, image: Tensor) -> Tensor:
        """Return images as the network gets them, unless the data module scaled them."""
        return image.float() if self._channels.scaled else super()._scaled(image)

    def _usable(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a batch with the task's bands in order and finite numbers.

        Raises:
            BandError: If the number of bands is not that of the data set.
            DataError: If images, masks or labels have impossible shapes or values.
            SettingError: If the numbers of the first images were scaled already.
        """
        if USABLE in batch:
            return batch
        batch = self._channels.arranged(batch, self.hparams['in_channels'])
        learning = self._tally is not None and bool(self._channels.source)
        if self._channels.unchecked or learning:
            # labels of the whole first epoch: the first batch may lack a class
            values = self.options.labels.values
            check_entries(batch, self.hparams['num_classes'], values, self._multiclass)
        if self._channels.unchecked:
            self._channels.check_numbers(batch, self.scaling, self.bands)
        return {**batch, USABLE: True}

    def on_validation_start(self) -> None:
        """Check that the network has learned something; training need not have yet."""
        if not self.trainer.training and not self.trainer.sanity_checking:
            check_weights(self.trainer, self._trained)

    def on_test_start(self) -> None:
        """Check that the network has learned something."""
        check_weights(self.trainer, self._trained)

    def on_predict_start(self) -> None:
        """Check that the network has learned something, and remove closed heads."""
        trainer = getattr(self, '_trainer', None)
        if trainer is not None:
            check_weights(trainer, self._trained)
        super().on_predict_start()

    def on_train_start(self) -> None:
        """Warn about rare classes, check options that need an end of training, resume.

        Raises:
            SettingError: If an option is a fraction of a training without end, or if
                the schedule has nothing to monitor.
        """
        chips = training_set(self.trainer) if self.trainer.is_global_zero else None
        said = []
        if chips is not None:
            said = warn_about_rare_classes(chips, self.presence, self.class_names)
        self._announced, self._trained = False, True
        self._tally = LabelTally(self.hparams['num_classes'], said)
        patches = self.options.patches
        if patches.self_training is not None:
            self._length('patches.self_training')
        if patches.pooling_warmup:
            self._length('patches.pooling_warmup')
        self._check_validation()
        self._activate_gates()
        self._training.start(self.trainer, self._generator)

    def _check_validation(self) -> None:
        """Check that validation gives what schedule and calibration need."""
        if self.options.optimization.schedule != 'plateau' or _validates(self.trainer):
            return
        raise SettingError(
            "optimization.schedule='plateau' needs a validation split, and there is "
            "none. Use schedule='cosine', or a share for validation."
        )

    def on_train_epoch_start(self) -> None:
        """Seed data and masking by epoch, so that a resumed run repeats their draws."""
        trainer = getattr(self, '_trainer', None)
        if trainer is not None:
            self._training.start_epoch(trainer)
        seed = self.options.optimization.mask_seed + 1_000 * self.current_epoch
        self._generator.manual_seed(seed * 10_000 + self.global_rank)
        self._activate_gates()

    def _activate_gates(self) -> None:
        """Let gates prune, or settle them, from their epochs on."""
        pruning = self.options.attention.pruning or {}
        for gate in self.model.gates:
            gate.active = self.current_epoch >= pruning.get('start_epoch', 0)
            if self.current_epoch >= pruning.get('settle_epoch', math.inf):
                gate.settle()

    def on_train_end(self) -> None:
        """Keep the calibration of averaged weights, which replace the others."""
        if self._calibrated is None:
            return
        callbacks = getattr(self.trainer, 'callbacks', [])
        if any(type(c).__name__ == 'StochasticWeightAveraging' for c in callbacks):
            # its weights take the place of those that validation saw
            self._calibrated = calibrated(self, self.trainer)
        self.presence_shift.copy_(self._calibrated)

    def on_fit_end(self) -> None:
        """Name the checkpoint to map with."""
        kept: Any = self.trainer.checkpoint_callback
        path = getattr(kept, 'best_model_path', '') if kept else ''
        if path and kept.monitor:
            rank_zero_info(f'Checkpoint with the best {kept.monitor}: {path}')
        elif path:
            rank_zero_info(f'Checkpoint: {path}')

    def on_train_epoch_end(self) -> None:
        """Say after the first epoch which chips and classes taught nothing.

        Raises:
            DataError: If no chip did.
        """
        tally, self._tally = self._tally, None
        if tally is None:
            return
        # a part of the chips, or of the processes, may have no label by chance
        limit = self.trainer.limit_train_batches
        if self.trainer.world_size == 1 and isinstance(limit, float) and limit == 1:
            tally.check()
        tally.warn(self.class_names, self.options.patches.compete)
        self._channels.warn_of_constant_images()

    @property
    def current_mask_rate(self) -> float:
        """The masking rate of the current epoch."""
        started = [r for epoch, r in self.mask_schedule if epoch <= self.current_epoch]
        return started[-1] if started else 0.0

    def training_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor | None:
        """Return the loss of one batch, with absent classes' tokens masked.

        Chips without a label are left out. Without any other there is no loss.

        Raises:
            DataError: If the loss is not finite.
        """
        batch = self._usable(batch)
        presence = self.presence(batch)
        labels = presence
        batch, presence = labeled(batch, presence)
        if self._tally is not None:
            self._tally.add(labels, presence)
        if not len(presence):
            return self._no_loss()
        x = self._scaled(batch['image'])
        if self._tally is not None and not batch_idx:
            self._warn_of_raw_numbers(x)
        rate = self.current_mask_rate
        drop = draw_masking(presence, rate, self._generator) if rate else None
        options = self.options.attention
        if options.diversity_weight or options.distillation_weight:
            logits, attention, patch_logits = self.model.forward_attention(x, drop=drop)
        else:
            attention = None
            logits, patch_logits = self.model.forward_logits(x, drop)
        self._count_labels(presence)
        tokens, pooled = self._label_losses(
            logits, patch_logits, presence, self._current_share()
        )
        loss = tokens + pooled
        parts = {'token_loss': tokens, 'patch_loss': pooled}
        self.log_dict(parts, batch_size=len(x))
        self.log('label_loss', loss, batch_size=len(x), prog_bar=True)
        if attention is not None:
            loss = loss + self._attention_loss(attention, patch_logits, presence)
        loss = loss + self._self_training_loss(
            logits, patch_logits, presence, x, batch.get('valid')
        )
        loss = loss + self._gate_penalty()
        if not bool(loss.isfinite()):
            where = f'epoch {self.current_epoch}, batch {batch_idx}'
            dataset = getattr(self.trainer.train_dataloader, 'dataset', None)
            raise diverged(batch, x, logits, where, dataset)
        # not in the bar: its parts begin and end during training
        self.log('train_loss', loss, batch_size=len(x))
        return loss

    def _warn_of_raw_numbers(self, x: Tensor) -> None:
        """Warn if images (B, bands, H, W) reach the network as a sensor wrote them."""
        if self.hparams['scaling'] is not None:
            return
        most = float(x.abs().max())
        if most > UNSCALED:
            warnings.warn(
                f'The network gets numbers up to {most:,.0f}, because scaling is null. Set '
                'model.init_args.scaling, or normalize the images in the data module.',
                ReflectanceWarning,
                stacklevel=3,
            )

    def _no_loss(self) -> Tensor | None:
        """Return the loss of a batch without labels, which changes no weight."""
        if self.trainer.world_size == 1:
            return None
        # other processes wait for the gradients of this one
        return torch.stack([p.sum() for p in self.parameters()]).sum() * 0

    def _attention_loss(
        self, attention: Tensor, patch_logits: Tensor | None, presence: Tensor
    ) -> Tensor | float:
        """Return the losses on attention, and log each of them."""
        options = self.options.attention
        loss: Tensor | float = 0.0
        if options.diversity_weight:
            diversity = diversity_loss(
                attention.sum(1), presence.clamp(min=0), options.diversity_form
            )
            self.log('diversity_loss', diversity, batch_size=len(presence))
            loss = options.diversity_weight * diversity
        if options.distillation_weight and patch_logits is not None:
            taught = attention_loss(attention, patch_logits, presence)
            self.log('attention_loss', taught, batch_size=len(presence))
            loss = loss + options.distillation_weight * taught
        return loss

    def _count_labels(self, presence: Tensor) -> None:
        """Count presences and known labels of each class, over all processes."""
        if not self._balance:
            return
        known = presence != UNKNOWN
        counts = torch.stack([(presence * known).sum(dim=0), known.sum(dim=0)])
        if self._trainer is not None and self._trainer.world_size > 1:
            gathered: Any = self.all_gather(counts)
            counts = gathered.sum(dim=0)
        self.label_counts += counts

    def _label_weights(self, presence: Tensor) -> Tensor:
        """Return the weight of each label in the loss, (B, C) or (C,)."""
        if not self._balance:
            return self.class_weights
        frequency = self.label_counts[0] / self.label_counts[1]
        return self.class_weights * balance_weights(presence, frequency, self._balance)

    def image_loss(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Return BCE (multilabel) or cross-entropy (multiclass) of logits (B, C).

        BCE is the mean over known labels.
        """
        if self._multiclass:
            target = presence.argmax(dim=1)
            rows = (presence == 1).any(dim=1)
            if not bool(rows.any()):
                return logits.sum() * 0
            return F.cross_entropy(logits[rows], target[rows], self.class_weights)
        known = (presence != UNKNOWN).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(
            logits,
            presence * known,
            self._label_weights(presence) * known,
            reduction='sum',
        )
        return loss / known.sum().clamp(min=1)

    def label_loss(
        self,
        logits: Tensor,
        patch_logits: Tensor | None,
        presence: Tensor,
        share: float,
    ) -> Tensor:
        """Return the loss of the class tokens plus that of the patch head.

        Args:
            logits: Logits of the class tokens (B, C).
            patch_logits: Patch logits (B, C, h, w), or None without a patch head.
            presence: Image-level labels (B, C), -1 unknown.
            share: Share of the patches that pooling by 'share' asks for.
        """
        tokens, patches = self._label_losses(logits, patch_logits, presence, share)
        return tokens + patches

    def _label_losses(
        self,
        logits: Tensor,
        patch_logits: Tensor | None,
        presence: Tensor,
        share: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted losses of the class tokens and of the patch head."""
        tokens = self.image_loss(logits.float(), presence)
        if patch_logits is None:
            return tokens, torch.zeros_like(tokens)
        patches = self.options.patches
        pooled = pool_patch_logits(
            patch_logits.float(), patches.pooling, share=share, compete=patches.compete
        )
        return tokens, patches.loss_weight * self.image_loss(pooled, presence)

    def _current_share(self) -> float:
        """Return the share of patches that pooling by 'share' uses at this step."""
        least, warmup = self._final_share, self.options.patches.pooling_warmup
        if not warmup:
            return least
        steps = warmup * self._length('patches.pooling_warmup')
        return narrowing_share(least, self.global_step / steps)

    def _length(self, name: str) -> int:
        """Return the number of training steps, of which option *name* is a fraction.

        Raises:
            SettingError: If training has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise SettingError(
                f'{name} is a fraction of training. Set max_epochs or max_steps.'
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
        options = self.options.patches.self_training
        if options is None or patch_logits is None:
            return 0.0
        progress = self.global_step / self._length('patches.self_training')
        weight = self_training_weight(options, progress)
        if not weight:
            return 0.0
        if not self._announced:
            self._announced = True
            rank_zero_info(
                'Self-training begins: train_loss rises, because self_training_loss is '
                f'added with a weight that grows to {self_training_weight(options, 1):g}. '
                'label_loss is without it.'
            )
        presence = filled(presence, self.probabilities(logits.detach()))
        refinement = self.options.maps.refinement_options
        targets = patch_targets(patch_logits, presence, x, valid, refinement)
        loss = F.binary_cross_entropy_with_logits(patch_logits.float(), targets)
        self.log('self_training_loss', loss, batch_size=len(presence))
        return weight * loss

    def _gate_penalty(self) -> Tensor | float:
        """Return the penalty of open gates, and log it with their share."""
        gates = [gate for gate in self.model.gates if gate.active]
        if not gates:
            return 0.0
        pruning = self.options.attention.pruning or {}
        penalty = gate_penalty(
            [gate.open_probability() for gate in gates], pruning.get('penalty', 0.01)
        )
        opened = torch.cat([gate.hard() for gate in gates]).mean()
        self.log_dict({'gate_penalty': penalty, 'heads_open': opened})
        # settled gates are fixed
        return 0.0 if gates[0].settled else penalty

    def validation_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Update the metrics of the validation split; plot the first image."""
        masks = self._evaluate(batch, 'val')
        experiment: Any = getattr(self.logger, 'experiment', None)
        if batch_idx == 0 and hasattr(experiment, 'add_figure'):
            image = self._usable(batch)['image'][:1]
            _, attention, _ = self.model.forward_attention(self._scaled(image))
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
        """Update the metrics with one batch; return its masks of predicted labels."""
        metrics: SplitMetrics = self.split_metrics[split]
        batch = self._usable(batch)
        presence = self.presence(batch)
        if 'valid' in batch:
            # of a chip without a valid pixel nothing is predicted
            empty = ~batch['valid'].flatten(1).bool().any(dim=1)
            presence = presence.masked_fill(empty[:, None], UNKNOWN)
        maps, logits, patch_logits = self.maps(batch['image'])
        probs = self.probabilities(logits)
        size = image_size(batch['image'])
        masks = self.pseudo_masks(maps, probs, size, batch)
        target = presence.long()
        if self._multiclass:
            unknown = ~(target == 1).any(dim=1)
            metrics.labels.update(probs, target.argmax(1).masked_fill(unknown, UNKNOWN))
        else:
            metrics.labels.update(probs, target)
        if split == 'val' and self.decoder.options.calibration == 'validation':
            self.calibrator.update(logits.float(), presence)
        metrics.balanced_bce.update(self.decoder.shares(maps, probs), presence)
        loss = self.label_loss(logits, patch_logits, presence, self._final_share)
        empty = (probs <= self.decoder.options.threshold).all(dim=1).float().mean()
        self.log_dict(
            {f'{split}_loss': loss, f'{split}_nothing_predicted': empty},
            batch_size=len(probs),
            sync_dist=True,
        )
        if 'mask' in batch:
            truth = self.reference_mask(batch['mask'])
            if 'valid' in batch:
                # where there is no number there is no map either
                valid = batch['valid'].reshape(truth.shape).bool()
                truth = truth.masked_fill(~valid, IGNORED)
            metrics.masks.update(masks, truth)
            decoder = self.decoder.with_options(labels='true')
            labels = filled(presence, probs)
            with_labels = decoder.masks(maps, labels, size, *self._guide(batch))
            metrics.masks_true_labels.update(with_labels, truth)
        return masks

    def on_validation_epoch_end(self) -> None:
        """Log the validation split's metrics; calibrate presence if asked to."""
        if self.decoder.options.calibration == 'validation':
            # a sanity check sees two batches
            if not self.trainer.sanity_checking:
                self._calibrated = self.calibrator.compute().detach().clone()
                self.presence_shift.copy_(self._calibrated)
            self.calibrator.reset()
        self._log_metrics('val')

    def on_test_epoch_end(self) -> None:
        """Log the test split's metrics."""
        self._log_metrics('test')

    def _log_metrics(self, split: str) -> None:
        """Log the metrics of a split and reset them; say if they are of no label."""
        labels = self.split_metrics[split].balanced_bce.counts
        if self.trainer.world_size == 1 and not labels.any():
            warnings.warn(
                f'No {split} chip has a known label: the {split} scores say nothing.',
                LabelWarning,
                stacklevel=2,
            )
        if split == 'test' and self.trainer.world_size == 1:
            complaint = self.split_metrics[split].order_complaint(self.class_names)
            if complaint is not None:
                warnings.warn(complaint, LabelWarning, stacklevel=2)
        scores = self.split_metrics[split].compute_and_reset(self.class_names)
        for name, value in scores.items():
            self.log(name, value, prog_bar=name == f'{split}_miou')

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that prints the scores of a test."""
        return [ScoreTable()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer with TorchGeo's plateau, or with warm-up and cosine."""
        options = self.options.optimization
        groups = parameter_groups(
            self.model,
            self.hparams['lr'],
            options.weight_decay,
            options.layer_decay,
            (self.options.attention.pruning or {}).get('lr'),
            options.head_lr,
        )
        optimizer = build_optimizer(options.optimizer, groups)
        if options.schedule == 'plateau':
            plateau = ReduceLROnPlateau(optimizer, patience=self.hparams['patience'])
            # the benchmarks' own loops have no trainer
            trainer = getattr(self, '_trainer', None)
            frequency = getattr(trainer, 'check_val_every_n_epoch', None) or 1
            return {
                'optimizer': optimizer,
                'lr_scheduler': {
                    'scheduler': plateau,
                    'monitor': self.monitor,
                    'frequency': frequency,
                },
            }
        steps = self._length("optimization.schedule='cosine'")
        cosine = cosine_schedule(optimizer, steps, options.warmup)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': cosine, 'interval': 'step'},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check its names, and remember the state of training, to resume it.

        Raises:
            CheckpointError: If classes or bands have another order.
        """
        data = getattr(getattr(self, '_trainer', None), 'datamodule', None)
        classes = getattr(getattr(data, 'labels', None), 'classes', None)
        check_checkpoint_names(
            checkpoint.get('hyper_parameters') or {},
            classes or self.hparams['class_names'],
            self.bands,
        )
        state = (checkpoint.get(CHECKPOINT_KEY) or {}).get('training')
        if state is not None:
            self._training.load(state)
        if self.decoder.options.calibration == 'validation':
            shift = checkpoint['state_dict'].get('presence_shift')
            self._calibrated = None if shift is None else shift.to(self.device).clone()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as this package's.

        The class is named as LightningCLI names it, so that ``torchgeo predict
        --ckpt_path`` also takes checkpoints of runs that were started from Python.

        Raises:
            CheckpointError: If a weight is not finite.
        """
        broken = not_finite(checkpoint.get('state_dict'))
        if broken is not None:
            raise CheckpointError(
                f'The weights hold NaN or infinity in {broken}: training has diverged, '
                'no checkpoint is written. Use a lower lr.'
            )
        if self._calibrated is not None and broken is None:
            # that of the weights which validation saw, not an average
            checkpoint['state_dict']['presence_shift'] = self._calibrated.clone()
        checkpoint[CHECKPOINT_KEY] = {'version': __version__}
        trainer = getattr(self, '_trainer', None)
        if trainer is not None and trainer.state.fn == 'fit':
            state = self._training.save(trainer, self._generator)
            checkpoint[CHECKPOINT_KEY]['training'] = state
        hparams = checkpoint.get('hyper_parameters')
        if hparams is not None:
            name = f'{type(self).__module__}.{type(self).__qualname__}'
            hparams.setdefault('_class_path', name)


def _validates(trainer: Any) -> bool:
    """Return whether a trainer validates before a schedule by epoch is stepped."""
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    if 0 < trainer.max_steps < batches:
        return True  # the first epoch does not end
    if not trainer.enable_validation:
        return False
    loop = trainer.fit_loop.epoch_loop.val_loop
    trainer.validating = True
    loop.setup_data()
    trainer.training = True
    return any(count > 0 for count in trainer.num_val_batches)
