"""Data module of images and exported masks, for TorchGeo's segmentation task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchgeo.datamodules import GeoDataModule

from ..datasets.ground_chips import GroundSampler, side_by_side
from ..datasets.ground_pieces import split_ground
from ..datasets.paired import PairedDatasets, pair
from ..datasets.pseudo_masks import PseudoMasks, legend
from ..errors import SceneError, SettingError
from ..grids import IGNORED
from ..scaling import (
    SENTINEL2_BANDS,
    BandScaling,
    ScalingOptions,
    band_key,
    build_scaling,
)
from ..scenes.scene import SceneWindows
from ..scenes.sources import RASTER_SUFFIXES, find_source

#: Encoders of segmentation networks halve the size five times.
STEP = 32


class PseudoMaskDataModule(GeoDataModule):
    """Images and masks of the same ground, for any network that learns from masks.

    Images are read as ``torchgeo-ctm predict`` reads scenes: bands by name, each
    scene's own offset, pixels without data filled. They are paired with masks by place,
    without resampling either, in any number of UTM zones. Chips of training and
    validation share no ground. Batches hold ``image`` float32 (B, bands, H, W), scaled,
    and ``mask`` int64 (B, H, W), 255 where there is no class.

    Checkpoints keep what a map needs beside the weights: names and colours of the
    classes, bands, scaling and size of a chip (:meth:`state_dict`).
    """

    def __init__(
        self,
        images: str | list[str],
        masks: str | list[str],
        bands: Sequence[str] | None = None,
        scaling: ScalingOptions | None = ScalingOptions(method='standard'),  # noqa: B008
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[str] | None = None,
        min_confidence: float = 0,
        val_share: float = 0.1,
        batch_size: int = 16,
        patch_size: int = 128,
        length: int | None = None,
        num_workers: int = 0,
        scene_bands: Sequence[str] | None = None,
        nodata: float | None = None,
        offset: float | None = None,
        seed: int = 0,
    ) -> None:
        """Initialise the data module.

        Args:
            images: A scene as :class:`~torchgeo_ctm.datamodules.SceneDataModule` takes
                it, a folder of rasters, or a list of these.
            masks: Masks, or folders with masks, that ``torchgeo-ctm predict`` or
                ``pseudomasks`` wrote; see
                :class:`~torchgeo_ctm.datasets.PseudoMasks`.
            bands: Names of the bands, in the network's order; None: Sentinel-2's 13.
            scaling: How images are scaled: arguments of
                :class:`~torchgeo_ctm.scaling.BandScaling`; None: not at all.
            class_names: Names of the classes; None: what the masks say.
            class_colors: One ``#rrggbb`` a class; None: the masks' colour table.
            min_confidence: In per cent, 0…100; pixels of less become 255.
            val_share: Share of the ground that is for validation.
            batch_size: Chips per batch.
            patch_size: Side of a chip in pixels, a multiple of 32.
            length: Chips an epoch; None: as many as lie side by side.
            num_workers: Workers that load data.
            scene_bands: Names of the images' bands in file order, if their own
                descriptions are missing or wrong.
            nodata: Value that means no data; None: what the images say.
            offset: Added to the images' numbers to make them reflectance × 10,000;
                None: what the metadata say, else as they are.
            seed: Seed of the split.

        Raises:
            SettingError: If *patch_size* does not fit.
        """
        super().__init__(PseudoMasks, batch_size, patch_size, length, num_workers)
        if patch_size < STEP or patch_size % STEP:
            raise SettingError(
                f'patch_size={patch_size} px is not a multiple of {STEP} px; nearest: '
                f'{max(1, round(patch_size / STEP)) * STEP}'
            )
        self.images = [images] if isinstance(images, str) else list(images)
        self.masks = [masks] if isinstance(masks, str) else list(masks)
        self.bands = tuple(bands or SENTINEL2_BANDS)
        self.scaling_options = scaling
        self.scaling: nn.Module = build_scaling(self.bands, scaling)
        if isinstance(self.scaling, BandScaling):
            # what TorchGeo's task turns images back with, to draw them
            self.mean, self.std = (
                numbers.flatten() for numbers in (self.scaling.mean, self.scaling.std)
            )
        self.class_names = class_names
        self.class_colors = class_colors
        self.min_confidence = min_confidence
        self.val_share = val_share
        self.scene_bands = scene_bands
        self.nodata = nodata
        self.offset = offset
        self.seed = seed
        #: Names and colours of the classes, known after :meth:`setup`.
        self.legend: tuple[list[str], list[str]] | None = None
        self.aug = nn.Identity()
        # nadir imagery has no up
        self.train_aug = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomVerticalFlip(p=0.5),
            K.RandomRotation90((0, 3), p=1.0),
            data_keys=None,
            keepdim=True,
        )

    def setup(self, stage: str) -> None:
        """Pair images with masks, and split their ground.

        Args:
            stage: 'fit' or 'validate'.

        Raises:
            CTMError: If images and masks do not fit each other, or the trainer's task,
                or *stage* is another one.
        """
        name = str(getattr(stage, 'value', stage))
        if name not in ('fit', 'validate'):
            raise SettingError(
                f'PseudoMaskDataModule serves fit and validate, not {name}; nearest: '
                'torchgeo-ctm predict SCENE --checkpoint CKPT, torchgeo-ctm evaluate'
            )
        if self.train_dataset is not None:
            return
        facts = PseudoMasks(self.masks, min_confidence=self.min_confidence).facts
        self.legend = legend(facts, self.class_names, self.class_colors)
        self._check_task()
        pairings = pair(self._scenes(), facts, self.min_confidence)
        size: Any = self.patch_size
        train, val = split_ground(pairings, size, self.val_share, self.seed)
        self.train_dataset = self.val_dataset = PairedDatasets(pairings)
        self.val_sampler: Any = side_by_side(pairings, val, size)
        self.train_sampler: Any = GroundSampler(pairings, train, size, self.length)
        length = len(self.train_sampler)
        if length < self.batch_size:
            raise SettingError(
                f'batch_size={self.batch_size} is more than the {length} chips of an '
                f'epoch; nearest: {length}, or length={self.batch_size}'
            )

    def _scenes(self) -> list[SceneWindows]:
        """Open the images."""
        size: Any = self.patch_size
        trained: float = getattr(self.scaling, 'offset', 0.0)
        return [
            SceneWindows(
                path,
                self.bands,
                size,
                size,
                self.scene_bands,
                nodata=self.nodata,
                offset=self.offset,
                model_offset=trained,
            )
            for given in self.images
            for path in _files(given, self.bands)
        ]

    def _check_task(self) -> None:
        """Refuse a task of other channels or classes, or that would learn from 255."""
        if self.trainer is None or self.legend is None:
            return
        task: Any = self.trainer.lightning_module
        for name, needed in (
            ('in_channels', len(self.bands)),
            ('num_classes', len(self.legend[0])),
            ('ignore_index', IGNORED),
        ):
            given = task.hparams.get(name, needed)
            if given != needed:
                raise SettingError(
                    f'{name}={given} of the model does not fit images and masks; '
                    f'needed: {needed}'
                )

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Turn training chips over, and scale."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        scaling = self.scaling.to(batch['image'].device)
        return batch | {
            'image': scaling(batch['image'].float()),
            'mask': batch['mask'].long(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the weights, to map scenes with."""
        names, colors = self.legend or ([], [])
        scaling = self.scaling_options
        return {
            'class_names': list(names),
            'class_colors': list(colors),
            'bands': list(self.bands),
            'scaling': None if scaling is None else dict(scaling),
            'img_size': self.patch_size,
        }

    def plot(self, sample: dict[str, Tensor], *args: Any, **kwargs: Any) -> Figure:
        """Draw a chip: image, mask, and prediction where there is one.

        Args:
            sample: ``image`` (bands, H, W), ``mask`` and maybe ``prediction`` (H, W).
            *args: Of TorchGeo's signature, unused.
            **kwargs: Likewise.
        """
        keys = [band_key(band) for band in self.bands]
        visible = [keys.index(key) for key in ('b4', 'b3', 'b2') if key in keys]
        if len(visible) < 3:
            visible = [0, len(keys) // 2, -1]
        rgb = sample['image'][visible].movedim(0, -1).float()
        low, high = torch.quantile(rgb.flatten(), torch.tensor([0.02, 0.98]))
        colors = ListedColormap((self.legend or ([], ['#000000']))[1])
        panels = [name for name in ('mask', 'prediction') if name in sample]
        figure, axes = plt.subplots(
            1, 1 + len(panels), figsize=(4 * (1 + len(panels)), 4), squeeze=False
        )
        axes[0, 0].imshow(((rgb - low) / (high - low).clamp(min=1e-6)).clamp(0, 1))
        for ax, name in zip(axes[0, 1:], panels, strict=True):
            shown = sample[name].float()
            shown = shown.masked_fill(shown == IGNORED, torch.nan)
            ax.imshow(
                shown, colors, vmin=-0.5, vmax=colors.N - 0.5, interpolation='none'
            )
        for ax, title in zip(axes[0], ['image', *panels], strict=True):
            ax.set_title(title)
            ax.axis('off')
        return figure


def _files(given: str, bands: Sequence[str]) -> list[str]:
    """Return the scenes that a path stands for: itself, or the rasters of a folder.

    Raises:
        SceneError: If a folder holds neither bands nor rasters.
    """
    folder = Path(given)
    if not folder.is_dir():
        return [given]
    try:
        find_source(folder, bands)
    except SceneError:
        found = [p for p in folder.rglob('*') if p.suffix.lower() in RASTER_SUFFIXES]
        if not found:
            raise
        return sorted(str(path) for path in found if not path.name.startswith('.'))
    return [given]
