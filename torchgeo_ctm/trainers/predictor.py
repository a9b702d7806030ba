"""What a class-token network predicts: shared by the task and by the command predict.

Nothing here imports Lightning, TorchGeo or timm, which take longer to import than a small
scene takes to map.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import DataError, SettingError, check_names
from ..legends import class_color
from ..losses import pool_patch_logits
from ..maps.class_maps import class_maps
from ..maps.decoder import MapDecoder
from ..network.class_token_vit import ClassTokenViT
from ..network.variants import build_network
from ..scaling import BandScaling, build_scaling, resolve_bands, scaling_tag
from .classes import check_classes, class_list
from .masking import mask_schedule
from .options import TaskOptions, check_options, task_options

#: Hyperparameters of a task besides its groups of options.
HPARAMS = frozenset(
    [
        'model',
        'in_channels',
        'num_classes',
        'task',
        'img_size',
        'model_options',
        'class_names',
        'class_colors',
        'bands',
        'scaling',
        'mask_rate',
        'lr',
        'patience',
        'weights',
    ]
)


class ClassTokenPrediction(nn.Module):
    """Scaling, network and decoder, built from the hyperparameters of a task.

    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` trains them,
    :class:`ClassTokenPredictor` only predicts.
    """

    model: ClassTokenViT
    scaling: BandScaling | nn.Identity
    presence_shift: Tensor
    options: TaskOptions
    decoder: MapDecoder
    class_names: list[str]
    class_colors: list[str]
    bands: tuple[str, ...]

    def build(self, hparams: Mapping[str, Any]) -> None:
        """Build everything from hyperparameters and :attr:`options`."""
        count: int = hparams['num_classes']
        check_options(self.options, hparams['task'], count)
        self.decoder = MapDecoder(self.options.maps)
        names, colors = hparams['class_names'], hparams['class_colors']
        self.class_names = class_list(names, 'class_names', count, str)
        check_names(self.class_names, SettingError, 'class_names')
        self.class_colors = class_list(colors, 'class_colors', count, class_color)
        check_classes(self.class_names, self.class_colors)
        self.bands = resolve_bands(hparams['bands'], hparams['in_channels'])
        self.scaling = build_scaling(self.bands, hparams['scaling'])
        self.model = self._build_network(hparams)
        shift = torch.zeros(count)
        if self.options.maps.calibration == 'odds':
            shift += math.log1p(-mask_schedule(hparams['mask_rate'])[-1][1])
        self.register_buffer('presence_shift', shift)

    def _build_network(self, hparams: Mapping[str, Any]) -> ClassTokenViT:
        """Build the named network."""
        options, patches = hparams['model_options'] or {}, self.options.patches
        model = build_network(
            hparams['model'],
            img_size=hparams['img_size'],
            in_chans=hparams['in_channels'],
            num_classes=hparams['num_classes'],
            patch_head=patches.loss_weight > 0 and patches.head,
            **({'head_gates': self.options.attention.pruning is not None} | options),
        )
        model.set_grad_checkpointing(self.options.optimization.grad_checkpointing)
        if self.options.optimization.compile_blocks:
            for block in model.blocks:
                block.compile()
        return model

    def _hparam(self, name: str) -> Any:
        """Return a hyperparameter."""
        hparams: Any = self.hparams
        return hparams[name]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) of images (B, bands, H, W) in their own numbers."""
        x = readable({'image': x})['image']
        logits: Tensor = self.model(self._scaled(x))
        return logits

    def _scaled(self, image: Tensor) -> Tensor:
        """Return images as the network gets them.

        Raises:
            DataError: If there is no dimension of the batch.
        """
        if image.ndim != 4:
            raise DataError(
                f'Images have the shape {tuple(image.shape)}, expected (B, bands, H, W). '
                'Add the batch to a single image with image[None].'
            )
        scaled: Tensor = self.scaling(image.float())
        return scaled

    def _usable(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a batch with the task's bands in order and finite numbers."""
        return batch

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) float32 of a batch.

        1 where a class is present, 0 where it is absent, -1 where the batch's
        ``label_known`` is false.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        from .presence import presence_of

        labels = self.options.labels
        count: int = self._hparam('num_classes')
        return presence_of(
            batch, count, labels.min_share, labels.values, self._multiclass
        )

    def reference_mask(self, mask: Tensor) -> Tensor:
        """Return a batch's ``mask`` as classes.

        Args:
            mask: Values of the data set, (B, H, W) or (B, 1, H, W).

        Returns:
            Classes (B, H, W), int64; 255 is ignored.
        """
        from .presence import class_mask

        count: int = self._hparam('num_classes')
        return class_mask(mask, count, self.options.labels.values)

    @property
    def _multiclass(self) -> bool:
        """Whether an image has exactly one class."""
        return bool(self._hparam('task') == 'multiclass')

    @property
    def _balance(self) -> float:
        """How much presences and absences count alike, 0 to 1."""
        return 0.0 if self._multiclass else self.options.patches.balance

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities (B, C) of logits (B, C)."""
        logits = logits.float()
        if self._multiclass:
            return logits.softmax(dim=1)
        return (logits + self.presence_shift).sigmoid()

    def maps(
        self, x: Tensor, patches: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return class maps (B, C, h, w), logits (B, C) and patch logits of images.

        Args:
            x: Images (B, bands, H, W) in their own numbers.
            patches: Whether to return patch logits even if the maps do not need them,
                which costs the last block's work on patches.
        """
        return self._maps(self._scaled(x), patches)

    def _maps(
        self, scaled: Tensor, patches: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what :meth:`maps` returns of scaled images."""
        source = self.decoder.options.source
        if not patches and self.is_local:
            local = self.model.local_logits(scaled).float()
            logits = pool_patch_logits(local, 'share', share=self._final_share)
            return local.softmax(dim=1), logits, local
        logits, attention, patch_logits = self.model.forward_attention(
            scaled, patches=patches or source != 'attention'
        )
        return class_maps(attention, patch_logits, source), logits, patch_logits

    def pseudo_masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        batch: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the class of every pixel.

        Args:
            maps: Class maps (B, C, h, w).
            probs: Class probabilities, or true labels, (B, C).
            size: Height and width in pixels.
            batch: The batch, with ``image`` and possibly ``valid``. Without it nothing
                is refined.

        Returns:
            Masks (B, H, W), int64.
        """
        return self.decoder.masks(maps, probs, size, *self._guide(batch))

    @property
    def is_local(self) -> bool:
        """Whether masks come from the local head alone.

        Then prediction skips the transformer, images may have any size that is a
        multiple of 4 px, and windows need to overlap by the field of view only.
        """
        maps = self.decoder.options
        return (
            self.model.local_head is not None
            and maps.source == 'patches'
            and maps.presence == 'all'
            and maps.labels == 'predicted'
        )

    @property
    def prediction_window(self) -> tuple[int, int] | None:
        """Side and overlap in pixels of the windows to map.

        Masks of a local head need no more context than its field of view, so larger
        windows with less overlap give the same masks with less work. None: the chip
        size of training, and half of it.
        """
        return (256, 32) if self.is_local else None

    @property
    def refines(self) -> bool:
        """Whether scores are per pixel, not per patch."""
        return self.decoder.refines

    @property
    def map_stride(self) -> int:
        """Pixels from one position of the scores to the next."""
        maps, local = self.decoder.options, self.model.local_head
        if self.refines or maps.rule == 'paint':
            return 1
        if local is not None and maps.source != 'attention':
            return local.stride
        return self.model.patch_size

    def _guide(
        self, batch: Mapping[str, Tensor] | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return scaled image and valid pixels of a batch, if maps are refined."""
        if batch is None or not self.decoder.refines:
            return None, None
        batch = self._usable(batch)
        return self._scaled(batch['image']), batch.get('valid')

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the prediction of a batch.

        Returns:
            ``probs`` (B, C), of the class tokens, or of the patches where masks come
            from the local head alone (:attr:`is_local`); ``maps`` (B, C, h, w), which :meth:`pseudo_masks` takes;
            and ``scores``: the share of each present class at every position,
            (B, C, h, w) on the patch grid for rule 'argmax', (B, C, H, W) if they are
            refined, or one-hot (B, C, H, W) for rule 'paint'; comparable between
            windows. Pixels that are not finite count as nodata.
        """
        batch = readable(batch)

        def predict(scaled: Tensor) -> dict[str, Tensor]:
            maps, logits, _ = self._maps(scaled, patches=False)
            probs = self.probabilities(logits)
            if self.decoder.options.labels == 'true':
                from .presence import filled

                probs = filled(self.presence(batch), probs)
            scores = self.decoder.scores(maps, probs, image_size(scaled))
            return {'probs': probs, 'maps': maps, 'scores': scores}

        image = self._scaled(batch['image'])
        found = self.decoder.average(image, predict)
        if self.decoder.refines:
            scores = self.decoder.refined(found['scores'], image, batch.get('valid'))
            found['scores'] = scores
        return found

    @property
    def _final_share(self) -> float:
        """The share of patches that pooling by 'share' uses after its warm-up."""
        return self.options.patches.share or self.options.labels.min_share

    def predict_step(
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return what :meth:`predict_images` returns."""
        return self.predict_images(self._usable(batch))

    def with_options(self, **changes: Any) -> Self:
        """Change how maps become masks; return the task.

        Hyperparameters, hence checkpoints, keep the options of training.

        Args:
            **changes: Options of :class:`~torchgeo_ctm.maps.decoder.MapOptions`.

        Raises:
            SettingError: If an option is unknown or does not fit the network.
        """
        decoder = self.decoder.with_options(**changes)
        maps = decoder.options
        check_options(
            self.options._replace(maps=maps),
            self._hparam('task'),
            self._hparam('num_classes'),
        )
        self.decoder = decoder
        return self

    def provenance(self) -> dict[str, str]:
        """Return the tags with which products say how they were made."""
        return {
            'BANDS': ','.join(self.bands),
            'SCALING': scaling_tag(self._hparam('scaling')),
            **self.decoder.tags(),
        }

    def remove_pruned_heads(self) -> None:
        """Remove closed heads from the network, so that it computes less.

        The task can be saved and loaded afterwards, but not pruned further.
        """
        if not self.model.gates:
            return
        kept = self.model.remove_pruned_heads()
        hparams: Any = self.hparams
        options = dict(hparams['model_options'] or {})
        options |= {'head_gates': False, 'kept_heads': kept}
        hparams['model_options'] = options
        attention = replace(self.options.attention, pruning=None)
        self.options = self.options._replace(attention=attention)
        hparams.update(self.options.mappings())

    def on_predict_start(self) -> None:
        """Remove closed heads, unless the pruning options forbid it."""
        pruning = self.options.attention.pruning or {}
        if pruning.get('remove_at_predict', True):
            self.remove_pruned_heads()


def readable(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a batch with finite numbers; one that names its valid pixels has them.

    Args:
        batch: ``image`` (B, bands, H, W), and ``valid`` where the data set has it.
    """
    image = batch['image']
    # a graph that is exported has no branch
    exported = torch.compiler.is_compiling()
    if 'valid' in batch or exported or image.ndim != 4:
        return batch
    from .batches import finite

    return finite(batch)


class ClassTokenPredictor(ClassTokenPrediction):
    """A trained network that predicts, without what training needs."""

    def __init__(self, **hparams: Any) -> None:
        """Build the predictor from the hyperparameters that a checkpoint holds.

        Weights are undefined until :meth:`load_state_dict`.

        Args:
            **hparams: Arguments of
                :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`.

        Raises:
            KeyError: If one is missing.
            SettingError: If one is outside its valid values.
            TypeError: If one is unknown.
        """
        super().__init__()
        groups = {name: hparams.get(name) for name in TaskOptions._fields}
        unknown = sorted(hparams.keys() - groups.keys() - HPARAMS)
        if unknown:
            raise TypeError(f'unknown hyperparameters: {", ".join(unknown)}')
        self.options = task_options(groups, {})
        self.hparams = hparams | self.options.mappings()
        self.build(self.hparams)
        if self._balance:
            self.register_buffer('label_counts', torch.zeros(2, len(self.class_names)))

    def _build_network(self, hparams: Mapping[str, Any]) -> ClassTokenViT:
        """Build the network without memory: the checkpoint's weights take its place."""
        with torch.device('meta'):
            return super()._build_network(hparams)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = True
    ) -> Any:
        """Take the tensors of a checkpoint, without a copy if they are float32."""
        state = {
            name: value.float() if value.is_floating_point() else value
            for name, value in state_dict.items()
        }
        return super().load_state_dict(state, strict, assign)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device


def image_size(image: Tensor) -> tuple[int, int]:
    """Return height and width of images (B, bands, H, W)."""
    return image.shape[-2], image.shape[-1]
