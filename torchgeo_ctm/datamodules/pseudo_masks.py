"""Data module of images and exported masks, for segmentation tasks."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import DatasetNotFoundError

from ..datasets.mask_reference import MIN_LABELED, MaskReference, match_masks
from ..datasets.pseudo_masks import MaskFacts, PseudoMasks, shared_legend
from ..errors import DataError, LabelError, SceneError, SettingError
from ..grids import IGNORED
from ..samplers.labeled_scene import LabeledScene
from ..samplers.splits import SceneSplits
from ..scaling import (
    SENTINEL2_BANDS,
    BandScaling,
    ScalingOptions,
    band_key,
    build_scaling,
)
from ..scenes.scene import SceneWindows
from ..scenes.sources import RASTER_SUFFIXES, find_source
from .loaders import EvaluationBatches, TrainingBatches, epoch_number

#: Encoders of segmentation networks halve the size five times.
STEP = 32
#: Sides of a block in chips that are tried, until one gives :data:`MIN_BLOCKS` blocks.
BLOCK_SIDES = (4, 2, 1.5)
#: Number of blocks that is enough to choose those of validation from.
MIN_BLOCKS = 10
#: Windows drawn from one neighborhood of a scene whose sides are this many chips.
GROUP, LARGE = 8, 4


class PseudoMaskDataModule(NonGeoDataModule):
    """Images with masks, to train any segmentation network.

    Images are read as ``torchgeo-ctm predict`` reads scenes: bands by name, each
    scene's own offset, invalid pixels filled. Masks are found by their georeference;
    neither is resampled. Scenes may be in any number of UTM zones. Windows are split
    and drawn as in :class:`~torchgeo_ctm.datamodules.SceneDataModule`: training and
    validation share no ground, and images of less than two by two chips go with the
    block of their center. Training draws windows at random, in all 8 orientations;
    windows with a class in less than 5 % of their pixels are left out. Batches hold
    ``image`` float32 (B, bands, H, W), scaled, and ``mask`` int64 (B, H, W), 255 where
    there is no class.

    Checkpoints store what a map needs beside the weights: names and colors of the
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
        """Initialize the data module.

        Args:
            images: A scene (see :func:`~torchgeo_ctm.scenes.sources.find_source`), a
                folder of rasters, or a list of these.
            masks: Masks, or folders with masks, that ``torchgeo-ctm predict`` or
                ``pseudomasks`` wrote; see
                :class:`~torchgeo_ctm.datasets.PseudoMasks`.
            bands: Names of the bands, in the network's order; None: Sentinel-2's 13.
            scaling: How images are scaled: arguments of
                :class:`~torchgeo_ctm.scaling.BandScaling`; None: not at all.
            class_names: Names of the classes; None: what the masks say.
            class_colors: One ``#rrggbb`` per class; None: the masks' color table.
            min_confidence: In percent, 0…100; pixels of less become 255.
            val_share: Fraction of the windows for validation, between 0 and 1.
            batch_size: Chips per batch.
            patch_size: Side of a chip in pixels, a multiple of 32.
            length: Chips per epoch; None: as many as lie side by side on the training
                ground. Rounded up to whole batches.
            num_workers: Threads that read ahead; 0 reads when asked.
            scene_bands: Names of the images' bands in file order, if their own
                descriptions are missing or wrong.
            nodata: Value of invalid pixels; None: as the images declare them.
            offset: Added to the values of the images to get reflectance × 10,000; None:
                from the metadata, else 0.
            seed: Seed of split and sampler.

        Raises:
            SettingError: If *patch_size* or *val_share* is out of range.
        """
        super().__init__(SceneWindows, batch_size, num_workers)  # type: ignore[arg-type]
        if patch_size < STEP or patch_size % STEP:
            fits = max(1, round(patch_size / STEP)) * STEP
            raise SettingError(
                f'patch_size={patch_size} is out of range, expected a multiple of '
                f'{STEP} px. Did you mean {fits}?'
            )
        if not 0 < val_share < 1:
            raise SettingError(
                f'val_share={val_share} is out of range, expected a number between 0 '
                'and 1. Did you mean 0.1?'
            )
        self.patch_size = patch_size
        self.length = length
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
        #: Names and colors of the classes, known after :meth:`setup`.
        self.legend: tuple[list[str], list[str]] | None = None
        #: Windows of training and validation, known after :meth:`setup`.
        self.splits: SceneSplits | None = None
        self.aug = nn.Identity()

    def setup(self, stage: str) -> None:
        """Match images with masks, and split them.

        Args:
            stage: 'fit' or 'validate'.

        Raises:
            CTMError: If images and masks do not fit each other, or the trainer's task,
                or *stage* is another one.
        """
        name = str(getattr(stage, 'value', stage))
        if name not in ('fit', 'validate'):
            raise SettingError(
                f'PseudoMaskDataModule serves fit and validate, got {name}. Use '
                'torchgeo-ctm predict SCENE --checkpoint CKPT, or torchgeo-ctm evaluate.'
            )
        task: Any = getattr(self.trainer, 'lightning_module', None)
        if hasattr(task, 'predict_images'):
            raise SettingError(
                f'PseudoMaskDataModule serves segmentation tasks of TorchGeo, got '
                f'{type(task).__name__}, which --ckpt_path or the model section names.'
            )
        if self.splits is not None:
            return
        try:
            facts = PseudoMasks(self.masks, min_confidence=self.min_confidence).facts
        except DatasetNotFoundError as error:
            # that of TorchGeo advises to download masks
            raise DataError(
                f'{", ".join(self.masks)} has no mask (.tif). torchgeo-ctm predict writes masks of '
                'scenes, and pseudomasks those of chips that have a place.'
            ) from error
        self.legend = shared_legend(facts, self.class_names, self.class_colors)
        self._check_task()
        self.splits = self._split(self._labeled_scenes(facts, self.legend[0]))
        self.train_dataset = self.splits.windows('train')
        self.val_dataset = self.splits.windows('val')

    def _labeled_scenes(
        self, facts: Sequence[MaskFacts], classes: Sequence[str]
    ) -> list[LabeledScene]:
        """Return the images that have masks, labeled by them.

        Raises:
            SettingError: If every image is smaller than a chip.
        """
        scenes = self._scenes()
        largest = max((min(scene.grid[:2]) for scene in scenes), default=0)
        if largest < self.patch_size:
            raise SettingError(
                f'patch_size={self.patch_size} is larger than the images, whose shorter '
                f'side has {largest} px at most. Use a smaller patch_size.'
            )
        labeled = []
        for scene, masks in zip(scenes, match_masks(scenes, facts), strict=True):
            if masks:
                source = MaskReference(scene, masks, classes, self.min_confidence)
                scene.reference = source
                labeled.append(LabeledScene(scene, source))
        return labeled

    def _split(self, scenes: Sequence[LabeledScene]) -> SceneSplits:
        """Split the images, by blocks that are small enough to choose from.

        Raises:
            DataError: If there is no mask.
            LabelError: If no window has a class.
            SettingError: If the images are too small to split.
        """
        splits: SceneSplits | None = None
        shares = (1 - self.val_share, self.val_share, 0)
        for side in BLOCK_SIDES:
            try:
                splits = SceneSplits(
                    scenes,
                    round(side * self.patch_size),
                    shares,
                    self.seed,
                    small_scenes_whole=True,
                )
            except SettingError:
                # no window for one of the splits
                continue
            except LabelError as error:
                raise LabelError(
                    f'No window has a class in {MIN_LABELED:.0%} of its pixels. Lower '
                    'min_confidence, or pass masks with more classified pixels.'
                ) from error
            if len(splits.labeled_blocks) >= MIN_BLOCKS:
                break
        if splits is None:
            confident = (
                f', or lower min_confidence={self.min_confidence:g}, which leaves most '
                'pixels without a class'
                if self.min_confidence
                else ''
            )
            raise SettingError(
                f'The images with masks are too small to hold a chip of '
                f'{self.patch_size} px for training and another one for validation. '
                f'Use a smaller patch_size, or more images{confident}.'
            )
        return splits

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
                resample=getattr(self.scaling, 'resample', 'nearest'),
            )
            for given in self.images
            for path in _files(given, self.bands)
        ]

    def _check_task(self) -> None:
        """Check that the task has these bands and classes, and ignores 255."""
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
                    f'{name}={given} of the model does not fit images and masks, '
                    f'expected {needed}.'
                )

    def train_dataloader(self) -> Any:
        """Return the training batches, different ones in every epoch."""
        splits = self._ready()
        large = all(
            min(scene.grid[:2]) >= LARGE * self.patch_size for scene in splits.scenes
        )
        return TrainingBatches(
            splits.draws(GROUP if large else 1),
            self.batch_size,
            self.length or len(splits.windows('train')),
            self.num_workers,
            self._part(),
            partial(epoch_number, self.trainer),
        )

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        windows = self._ready().windows('val')
        return EvaluationBatches(
            windows, self.batch_size, self.num_workers, self._part()
        )

    def _ready(self) -> SceneSplits:
        """Return the splits.

        Raises:
            SettingError: Before :meth:`setup`.
        """
        if self.splits is None:
            raise SettingError("Call setup('fit') of PseudoMaskDataModule first.")
        return self.splits

    def _part(self) -> tuple[int, int]:
        """Return the number of this process, and how many there are."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Scale the images, and keep what a segmentation task reads."""
        scaling = self.scaling.to(batch['image'].device)
        return {'image': scaling(batch['image'].float()), 'mask': batch['mask'].long()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores beside the weights, to map scenes with."""
        names, colors = self.legend or ([], [])
        scaling = None if self.scaling_options is None else dict(self.scaling_options)
        if scaling is not None and self.splits is not None:
            scaling['pixel_size'] = self.splits.pixel_size
        return {
            'class_names': list(names),
            'class_colors': list(colors),
            'bands': list(self.bands),
            'scaling': scaling,
            'img_size': self.patch_size,
        }

    def plot(self, sample: dict[str, Tensor], *args: Any, **kwargs: Any) -> Figure:
        """Plot a chip: image, mask, and prediction where there is one.

        Args:
            sample: ``image`` (bands, H, W), ``mask`` and maybe ``prediction`` (H, W).
            *args: Unused, as in TorchGeo.
            **kwargs: Unused, as in TorchGeo.
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
    """Return a path if it is a scene, else the rasters in the folder.

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
