"""A segmentation network that was trained on pseudo-masks, as a predictor of scenes."""

from collections.abc import Mapping
from typing import Any, Self

import lightning.pytorch as pl
from torch import Tensor, nn

from ..compat import SemanticSegmentation
from ..errors import SettingError
from ..maps.class_maps import posterior, resize
from ..maps.decoder import MapDecoder, MapOptions
from ..scaling import build_scaling, resolve_bands, scaling_tag
from .classes import check_classes
from .predictor import readable
from .presence import class_mask, presence_of

#: Keys of the checkpoint entry in which
#: :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule` describes its data.
FACTS = frozenset({'class_names', 'class_colors', 'bands', 'scaling', 'img_size'})
#: Share of a mask above which a class is present.
MIN_SHARE = 0.1


class SegmentationNetwork(nn.Module):
    """The network of a segmentation task, with the attributes that scenes need."""

    #: Window sides are multiples of it, because encoders halve the size five times.
    patch_size = 32

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network.

        Args:
            network: Maps images (B, bands, H, W) to logits (B, C, H, W).
        """
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of scaled images (B, bands, H, W)."""
        logits: Tensor = self.network(x)
        return logits


class SegmentationPredictor(pl.LightningModule):
    """TorchGeo's segmentation task, trained, that predicts as our task does.

    It takes images in their own numbers, scales them like its training data, and
    returns what :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` returns. Scores
    are the softmax of every pixel, without image labels and presence threshold.
    """

    #: Scores are per pixel, not per patch.
    refines = True
    map_stride = 1
    #: The field of view of the network is not known.
    is_local = False

    def __init__(self, task: SemanticSegmentation, facts: Mapping[str, Any]) -> None:
        """Create a predictor from a trained task.

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
                f"Expected task='multiclass' with {len(facts['class_names'])} classes, "
                f'got task={task.hparams["task"]!r} with num_classes={count}.'
            )
        self.class_names = [str(name) for name in facts['class_names']]
        self.class_colors = [str(color) for color in facts['class_colors']]
        check_classes(self.class_names, self.class_colors)
        self.bands = resolve_bands(facts['bands'], task.hparams['in_channels'])
        self.scaling = build_scaling(self.bands, facts['scaling'])
        self.model = SegmentationNetwork(task.model)
        self.network_name = f'{task.hparams["model"]} {task.hparams["backbone"]}'
        # softmax is above 0, so that no window counts as one without a class
        self.decoder = MapDecoder(
            MapOptions(threshold=0.0, presence='threshold', refinement=None)
        )
        self.save_hyperparameters(
            {'img_size': facts['img_size'], 'scaling': facts['scaling']},
            ignore=['teacher'],
        )

    @property
    def prediction_window(self) -> tuple[int, int] | None:
        """Side and overlap in pixels of the windows to map.

        None: the chip size of training, and half of it.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of images (B, bands, H, W) in their own numbers."""
        x = readable({'image': x})['image']
        logits: Tensor = self.model(self.scaling(x.float()))
        return logits

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the prediction of a batch.

        Returns:
            ``scores`` and ``maps``: the share of each class (B, C, H, W); ``probs``:
            its mean over the image (B, C).
        """
        scores = self.decoder.average(
            batch['image'], lambda image: {'scores': self(image).float().softmax(dim=1)}
        )['scores']
        if self.decoder.options.labels == 'true':
            scores = posterior(scores, self.presence(batch) > 0)
        probs = scores.mean(dim=(-2, -1))
        return {'scores': scores, 'maps': scores, 'probs': probs}

    def predict_step(
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return what :meth:`predict_images` returns."""
        return self.predict_images(batch)

    def with_options(self, **changes: Any) -> Self:
        """Change how scores are made; return the predictor.

        Args:
            **changes: ``ensemble`` and ``labels`` of
                :class:`~torchgeo_ctm.maps.decoder.MapOptions`.

        Raises:
            SettingError: If an option is unknown, or applies to class tokens only.
        """
        for name in changes:
            if name not in ('ensemble', 'labels'):
                raise SettingError(
                    f'Option {name!r} applies to class-token checkpoints only, and this '
                    'is a segmentation network.'
                )
        self.decoder = self.decoder.with_options(**changes)
        return self

    def provenance(self) -> dict[str, str]:
        """Return the tags with which products say how they were made."""
        return {
            'BANDS': ','.join(self.bands),
            'SCALING': scaling_tag(self.hparams['scaling']),
            **self.decoder.tags(),
            'MAP_SOURCE': self.network_name,
        }

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) of a batch, 1 where present.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        return presence_of(batch, len(self.class_names), MIN_SHARE)

    def reference_mask(self, mask: Tensor) -> Tensor:
        """Return a batch's ``mask``, (B, H, W) or (B, 1, H, W), as (B, H, W) int64."""
        return class_mask(mask, len(self.class_names))

    def pseudo_masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        batch: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the class of every pixel.

        Args:
            maps: Shares (B, C, h, w).
            probs: Unused: an absent class has no share.
            size: Height and width in pixels.
            batch: Unused.

        Returns:
            Masks (B, H, W), int64.
        """
        return resize(maps, size).argmax(dim=1)
