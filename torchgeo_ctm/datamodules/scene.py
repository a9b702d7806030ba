"""Data module of scenes, for training and prediction."""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import RasterDataset

from ..datasets import SceneBatches, SceneWindows
from ..errors import (
    LabelError,
    LabelWarning,
    PixelSizeWarning,
    SettingError,
    did_you_mean,
    name_key,
)
from ..grids import SAME_SIZE, Grid, Window, pixel_size
from ..labels import (
    LabelSource,
    PointLabels,
    PolygonLabels,
    RasterLabels,
    TableLabels,
    Unlabeled,
    check_overlap,
    check_sizes,
)
from ..legends import usual_colors
from ..samplers.labeled_scene import LabeledScene, LabeledWindows
from ..samplers.neighborhoods import WindowDraws
from ..samplers.splits import SceneSplits
from ..scenes.area import chosen_area
from ..scenes.clouds import DILATION
from ..scenes.coverage import Coverage, check_least, check_window
from ..scenes.levels import levels_of, warn_of_levels
from ..scenes.pixel_sample import sample_pixels
from ..scenes.sources import tile_of
from ..split import Split
from .loaders import EvaluationBatches, TrainingBatches, epoch_number

#: Sources that ``torchgeo`` creates in :meth:`SceneDataModule.setup`, so that a mistake
#: in their files is no mistake of a type. Each by name, because jsonargparse accepts a
#: class for a protocol only if its signatures are exactly the same.
LabelsFile = (
    Callable[[], PolygonLabels]
    | Callable[[], PointLabels]
    | Callable[[], RasterLabels]
    | Callable[[], TableLabels]
)

#: Pixels of each scene that tell the range of the training data.
SAMPLED = 20_000
#: Default number of threads that read ahead in training.
TRAINING_THREADS = 2


class SceneDataModule(NonGeoDataModule):
    """Windows of one or many scenes, for training and prediction.

    For ``predict``, windows overlap and cover every scene; several processes share
    each by rows of windows. With *labels*, the same scenes also serve ``fit``,
    ``validate`` and ``test``: blocks on the ground belong to training, validation or
    test, so that no two splits overlap
    (:class:`~torchgeo_ctm.samplers.splits.SceneSplits`). Training windows are drawn at
    random, different ones in every epoch, in all 8 orientations
    (:class:`~torchgeo_ctm.samplers.neighborhoods.WindowDraws`); those of validation
    and test lie side by side. Windows without a label, or with less than half of
    their pixels valid, are left out and counted.

    Bands, window and offset come from the task of the trainer, so a scene and a
    checkpoint are enough for prediction. Batches for training hold
    ``image``, ``label``, ``label_known``, ``valid``, ``window`` and ``scene``, and
    ``mask`` where there is a reference.
    """

    #: Channels come by the names of the task's bands, whatever their order in files.
    reads_bands_by_name = True

    def __init__(
        self,
        scene: str | Path | Sequence[str | Path] | RasterDataset,
        batch_size: int = 10,
        num_workers: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        scene_bands: Sequence[str] | None = None,
        reference: str | list[str] | None = None,
        nodata: float | None = None,
        offset: float | None = None,
        shifted_grids: bool = False,
        labels: LabelSource | LabelsFile | None = None,
        val_scene: str | list[str] | None = None,
        test_scene: str | list[str] | None = None,
        shares: Sequence[float] = (0.6, 0.2, 0.2),
        block_size: int | None = None,
        length: int | None = None,
        windows_per_read: int = 8,
        draw: Literal['windows', 'areas'] = 'windows',
        seed: int = 0,
        unlabeled_window: int | None = None,
        adapt: Literal['dark', 'none'] | None = None,
        clouds: Literal['scl', 'none'] | None = None,
        cloud_mask: str | list[str] | None = None,
        cloud_dilation: int = DILATION,
        bbox: Sequence[float] | None = None,
        area: str | None = None,
        resample: Literal['nearest', 'bilinear'] | None = None,
    ) -> None:
        """Initialize the data module.

        Args:
            scene: Any raster that GDAL opens, a folder with one file per band, a
                ``.SAFE``; a list of such scenes; or a TorchGeo RasterDataset, whose
                files are the scenes (folders of files, if it has one per band).
            batch_size: Windows per batch.
            num_workers: Number of threads that read ahead and decode; 0 reads when
                asked, and decodes with every core; None: 1 to predict a local scene on
                a CPU, where the model needs the cores, else 2.
            window: Side of a window in pixels, a multiple of the model's patch; None:
                the chip size that the model was trained with, or 256 px to predict if
                masks come from the local head alone.
            stride: Distance between windows to predict, in pixels; None: half a window,
                or an overlap of 32 px if masks come from the local head alone.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the scene's grid, or one for each scene in the
                order of *scene*, *val_scene*, *test_scene*; its windows are the
                ``mask`` of a batch, for metrics, and for ``map_labels: true``.
            nodata: Value of invalid pixels; None: as the raster declares them.
            offset: Added to the values of the scene to get reflectance × 10,000; None:
                from the metadata, else as in the training data.
            shifted_grids: Move *stride* to the nearest odd multiple of half a patch, so
                that overlapping windows cut the patches in different places.
            labels: Source of the image-level labels, for training; or a function that
                returns it, which :meth:`setup` calls.
            val_scene: Scenes for validation, instead of a share of *scene*; their area
                is kept out of training.
            test_scene: Scenes for the test, likewise.
            shares: Shares of train, val and test in the windows with labels, sum 1.
            block_size: Side of a block in pixels of the coarsest scene; None: four
                windows. Smaller blocks meet the shares better, larger ones lose fewer
                windows across a border.
            length: Number of windows drawn per epoch; None: as many as lie side by side
                in the training blocks. Rounded up to whole batches.
            windows_per_read: Number of windows drawn from one neighborhood, whose
                pixels are decoded once; 1 draws each from all scenes, which is slower
                where blocks of the files are large.
            draw: 'windows' draws all windows with a label alike, so that large polygons
                are seen most; 'areas' draws polygons (or points) alike, of whatever
                size, and then a window in one: better for a few drawn by hand.
            seed: Seed of split and sampler.
            unlabeled_window: Train on windows of this side in pixels from anywhere in
                *scene*, without their labels, for a second stage
                (:class:`~torchgeo_ctm.trainers.SoftMaskSegmentationTask`). Labels then
                serve validation and test alone. None: train on windows with labels.
            adapt: Move each scene to predict towards the training data: 'dark'
                subtracts its haze, see
                :func:`~torchgeo_ctm.scenes.adaptation.dark_adaptation`; 'none' leaves it as
                it is; None: as the model's ``scaling.adapt`` says.
            clouds: 'scl' makes clouds, their shadows and cirrus of the scene
                classification invalid, 'none' keeps them; None: 'scl' where the scene
                has one, as Sentinel-2 Level-2A. Labels then describe clear ground.
            cloud_mask: Raster of clouds on any grid, ``RASTER`` (all but 0 is cloud) or
                ``RASTER:VALUES`` as ``mask.tif:2,4``. ``{scene}`` stands for the name of
                the scene without suffix; a list has one for each, in the order of
                *scene*, *val_scene*, *test_scene*.
            cloud_dilation: Pixels around clouds that are cloud too.
            bbox: Use the part of each of *scene* in a box alone, to train and to
                predict: windows that touch it. West, south, east, north in degrees of
                longitude and latitude.
            area: Use the part in polygons alone, a vector file in any CRS.
            resample: How coarse bands in separate files come to the grid of the finest:
                'nearest' repeats their pixels, 'bilinear' interpolates between valid
                ones. Training records it in the model's ``scaling.resample``. None: as
                that says.
        """
        # a NonGeoDataset by registration, see datasets/__init__.py
        super().__init__(SceneWindows, batch_size)  # type: ignore[arg-type]
        self.scenes = _scenes(scene)
        self.val_scenes = _scenes(val_scene or [])
        self.test_scenes = _scenes(test_scene or [])
        self.threads = num_workers
        self.window = window
        self.stride = stride
        self.scene_bands = scene_bands
        self.reference = reference
        self.nodata = nodata
        self.offset = offset
        self.shifted_grids = shifted_grids
        self.labels = labels
        self.shares = tuple(shares)
        self.block_size = block_size
        self.length = length
        self.windows_per_read = windows_per_read
        self.draw = draw
        self.seed = seed
        self.unlabeled_window = unlabeled_window
        self.adapt = adapt
        self.clouds = clouds
        self.cloud_mask = cloud_mask
        self.cloud_dilation = cloud_dilation
        self.bbox = bbox
        self.area = None if area is None else _at_home(area)
        self.resample = resample
        #: Windows of each split; created by the first setup that needs them.
        self.splits: SceneSplits | None = None
        #: Window and bands that the splits were made for.
        self._split_for: tuple[int, tuple[str, ...], float] | None = None
        #: First and 99th percentile of each band of the training scenes, (2, bands).
        self.percentiles: NDArray[Any] | None = None
        self.aug = nn.Identity()
        self.predict_datasets: list[SceneWindows] = []
        self._opened: list[SceneWindows] = []
        self.batches: list[SceneBatches] = []

    def setup(self, stage: str) -> None:
        """Cut the scenes into windows that fit the trainer's model.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If a number does not fit, or there are no labels to train on.
            LabelError: If the labels do not fit the task, or no window has one.
        """
        check_least(
            [
                ('batch_size', self.batch_size, 1),
                ('num_workers', self.threads, 0),
                ('length', self.length, 1),
                ('windows_per_read', self.windows_per_read, 1),
                ('seed', self.seed, 0),
                ('unlabeled_window', self.unlabeled_window, 1),
            ]
        )
        if self.draw not in ('windows', 'areas'):
            raise SettingError(
                f"draw={self.draw!r}, expected 'windows' or 'areas'."
                + did_you_mean(str(self.draw), ('windows', 'areas'))
            )
        if self.labels is None and stage != 'predict':
            raise SettingError(
                'SceneDataModule without labels serves predict, not '
                f'{getattr(stage, "value", stage)}. Pass labels, such as '
                'torchgeo_ctm.labels.PolygonLabels.'
            )
        if not self.scenes:
            raise SettingError('scene is empty, expected at least one.')
        if not (
            self.labels is None
            or callable(self.labels)
            or callable(getattr(self.labels, 'label', None))
        ):
            raise SettingError(
                f'labels is of type {type(self.labels).__name__}, expected labels that '
                'were read, such as torchgeo_ctm.labels.PolygonLabels(path, field).'
            )
        if self.trainer is None:
            raise SettingError(
                'SceneDataModule has no trainer to take bands and window from. Pass it '
                'to a Lightning Trainer.'
            )
        task: Any = self.trainer.lightning_module
        if not hasattr(task, 'prediction_window'):
            raise SettingError(
                f'SceneDataModule cannot serve {type(task).__name__}, expected a task of '
                'torchgeo_ctm. Train other networks with PseudoMaskDataModule, and map '
                'with torchgeo-ctm predict SCENE --checkpoint CKPT.'
            )
        coverage = self._coverage()
        if callable(self.labels):
            self.labels = self.labels()
        if stage == 'predict':
            self.batches = coverage.batches(
                self.scenes,
                task,
                self.trainer.strategy.root_device.type,
                self._references(len(self.scenes)),
                self._part(),
            )
            self.predict_datasets = [batches.scene for batches in self.batches]
            self._limit(self.predict_datasets)
        else:
            if stage == 'fit' and self.offset and hasattr(task, 'learn_offset'):
                # so that prediction does without being told
                task.learn_offset(self.offset)
            trained = float(getattr(task.scaling, 'offset', 0.0))
            needed = (coverage.chip_window(task), tuple(task.bands), trained)
            if self._split_for != needed:
                self.splits, self._split_for = self._split(task), needed
            if stage == 'fit' and hasattr(task, 'name_classes'):
                # of a task that was given none
                labels: Any = self.labels
                task.name_classes(labels.classes, usual_colors(labels.classes))
        if self.splits is not None:
            self.train_dataset = self.splits.windows('train')
            self.val_dataset = self.splits.windows('val')
            self.test_dataset = self.splits.windows('test')
            if stage == 'test' and not len(self.test_dataset):
                raise SettingError(
                    f'The test split has no window: shares={[*self.shares]}. Hold '
                    'labels out, as in [0.6, 0.2, 0.2], or pass test_scene.'
                )

    def teardown(self, stage: str) -> None:
        """Close the scenes with labels, which may be read again.

        rasterio prints an error without words about files that are open when Python ends.
        Threads read copies of these scenes, so that none is closed while it is read.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.
        """
        for scene in self._opened:
            scene.close()

    def on_exception(self, exception: BaseException) -> None:
        """Close the scenes after an error or an interruption too.

        Args:
            exception: What ended the run.
        """
        self.teardown('fit')

    def state_dict(self) -> dict[str, Any]:
        """Return how the scenes were split, which a checkpoint keeps."""
        if self._split_for is None or self.splits is None:
            return {}
        return {
            'scene': [_digest(scene) for scene in self.scenes],
            'window': self._split_for[0],
            'block_size': self.block_size,
            'shares': [*self.shares],
            'seed': self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn if the test may have windows that the checkpoint was trained on."""
        stage = getattr(self.trainer, 'state', None)
        if stage is not None and stage.fn in ('validate', 'test'):
            self.compare_split(state_dict, 'The checkpoint')

    def compare_split(self, state_dict: Mapping[str, Any], whose: str) -> None:
        """Warn if held-out windows may be ones that a checkpoint was trained on.

        Args:
            state_dict: What :meth:`state_dict` returned in its training.
            whose: The checkpoint, for the message.
        """
        now = self.state_dict()
        if not now:
            return
        trained = {*state_dict.get('scene', ())}
        others = (*self.val_scenes, *self.test_scenes)
        tested = [scene for scene in others if _digest(scene) in trained]
        faults = [
            f'{name}={state_dict[name]}, now {value}'
            for name, value in now.items()
            if name != 'scene' and state_dict.get(name, value) != value
        ]
        if not trained & {*now['scene']} or self.test_scenes:
            faults = []
        faults += [f'{scene}, now tested' for scene in tested]
        if faults:
            warnings.warn(
                f'{whose} was trained with {"; ".join(faults)}. Windows that it was '
                'trained on may be tested, and scores be too high.',
                LabelWarning,
                stacklevel=3,
            )

    @property
    def pixel_size(self) -> float | None:
        """Side of the pixels of the labeled scenes in meters, if known and alike."""
        return None if self.splits is None else self.splits.pixel_size

    def _coverage(self) -> Coverage:
        """Return how the scenes are cut into windows and read."""
        return Coverage(
            batch_size=self.batch_size,
            num_workers=self.threads,
            window=self.window,
            stride=self.stride,
            scene_bands=self.scene_bands,
            nodata=self.nodata,
            offset=self.offset,
            shifted_grids=self.shifted_grids,
            adapt=self.adapt,
            clouds=self.clouds,
            cloud_mask=self.cloud_mask,
            cloud_dilation=self.cloud_dilation,
            resample=self.resample,
        )

    def _limit(self, scenes: Sequence[SceneWindows]) -> None:
        """Limit scenes to the part that is used."""
        for scene in scenes:
            scene.area = chosen_area(scene.scene, scene.grid, self.bbox, self.area)

    def _references(self, count: int) -> list[str | None]:
        """Return the reference of each of the first scenes.

        Raises:
            SettingError: If there are several, but not one for each scene.
        """
        if self.reference is None or isinstance(self.reference, str):
            return [self.reference] * count
        scenes = [*self.scenes, *self.val_scenes, *self.test_scenes]
        given = len(self.reference)
        if given not in (len(scenes), count):
            raise SettingError(
                f'Got {given} references for {len(scenes)} scenes, expected one for each.'
            )
        return list(self.reference[:count])

    def _split(self, task: Any) -> SceneSplits:
        """Open all scenes with their labels, and split them."""
        labels: Any = self.labels
        _check_classes(labels, task.class_names)
        coverage = self._coverage()
        window = coverage.chip_window(task)
        scenes = [*self.scenes, *self.val_scenes, *self.test_scenes]
        self._check_scenes()
        references = self._references(len(scenes))
        opened = coverage.open(scenes, references, task, window, window)
        self._limit(opened[: len(self.scenes)])
        names = [tile_of(scene) for scene in scenes]
        grids = [scene.grid for scene in opened]
        self._compare(opened, task)
        self._opened = opened
        check_overlap(labels, grids, names)
        check_sizes(labels, grids, window, task.model.patch_size)
        kinds: list[Split] = ['val'] * len(self.val_scenes)
        kinds += ['test'] * len(self.test_scenes)
        return SceneSplits(
            [LabeledScene(scene, labels) for scene in opened],
            self.block_size,
            self.shares,
            self.seed,
            dict(enumerate(kinds, len(self.scenes))),
        )

    def _check_scenes(self) -> None:
        """Check that no scene serves two splits, and warn if one is given twice.

        Raises:
            SettingError: If a scene of validation or test is one of training.
        """
        for name, others in (('val', self.val_scenes), ('test', self.test_scenes)):
            for scene in {*others} & {*self.scenes}:
                raise SettingError(
                    f'{name}_scene={scene} is a training scene too, whose windows would '
                    f'all be kept out. Leave {name}_scene out: a share of each scene '
                    'serves validation and test.'
                )
        scenes = [*self.scenes, *self.val_scenes, *self.test_scenes]
        for scene in {path for path in scenes if scenes.count(path) > 1}:
            warnings.warn(
                f'{scene} is given more than once.', LabelWarning, stacklevel=2
            )

    def _compare(self, scenes: Sequence[SceneWindows], task: Any) -> None:
        """Warn of scenes that differ, and keep the range of those of training."""
        sizes = {scene.scene: pixel_size(scene.grid) for scene in scenes}
        known = {name: size for name, size in sizes.items() if size is not None}
        if (
            len(scenes) > 1
            and known
            and max(known.values()) > SAME_SIZE * min(known.values())
        ):
            fine, coarse = (
                min(known, key=known.__getitem__),
                max(known, key=known.__getitem__),
            )
            warnings.warn(
                f'The scenes have pixels of different sizes: {known[fine]:g} m in {fine}, '
                f'{known[coarse]:g} m in {coarse}. A map may be worse for each. Resample '
                'them to one size first, for example with gdalwarp -tr.',
                PixelSizeWarning,
                stacklevel=2,
            )
        levels, trained = [], []
        offsets = getattr(task.scaling, 'offsets', None)
        added = 0.0 if offsets is None else offsets.flatten(1).cpu().numpy()
        for number, scene in enumerate(scenes):
            values = sample_pixels(scene)
            if values.size:
                levels.append(levels_of(scene.scene, values + added, task.bands))
            if number < len(self.scenes):
                trained.append(values[:, :: max(1, values.shape[1] // SAMPLED)])
        warn_of_levels(levels)
        pixels = np.concatenate(trained, axis=1)
        self.percentiles = (
            np.percentile(pixels, [1, 99], axis=1) if pixels.size else None
        )

    def _part(self) -> tuple[int, int]:
        """Return the number of this process, and how many there are."""
        trainer: Any = self.trainer
        return trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Any:
        """Return the training batches, different ones in every epoch."""
        splits, trainer = self._ready(), self.trainer
        if self.unlabeled_window is None:
            draws = splits.draws(self.windows_per_read, self.draw == 'areas')
            length = len(splits.windows('train'))
        else:
            draws = self._unlabeled(self.unlabeled_window)
            length = sum(len(scene.tiling()) for scene in draws.scenes)
        return TrainingBatches(
            draws,
            self.batch_size,
            self.length or length,
            TRAINING_THREADS if self.threads is None else self.threads,
            self._part(),
            partial(epoch_number, trainer),
        )

    def _unlabeled(self, window: int) -> WindowDraws:
        """Return the sampler of windows from anywhere in the scenes of training.

        Raises:
            SettingError: If the network does not take windows of this size.
        """
        trainer: Any = self.trainer
        task = trainer.lightning_module
        labels = Unlabeled(task.class_names)
        check_window(task, window, 2 * task.model.patch_size)
        references = self._references(len(self.scenes))
        opened = self._coverage().open(self.scenes, references, task, window, window)
        self._limit(opened)
        for path, scene in zip(self.scenes, opened, strict=True):
            height, width = scene.grid.height, scene.grid.width
            if min(height, width) < window:
                raise SettingError(
                    f'unlabeled_window={window} px is larger than {Path(path).name} '
                    f'of {height} × {width} px.'
                )
        scenes = [LabeledScene(scene, labels) for scene in opened]
        return WindowDraws(scenes, _anywhere, self.seed, self.windows_per_read)

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        return self._evaluation('val')

    def test_dataloader(self) -> Any:
        """Return the test batches."""
        return self._evaluation('test')

    def _evaluation(self, split: Split) -> Any:
        """Return the batches of a split, none if it has no windows."""
        windows = self._ready().windows(split)
        threads = TRAINING_THREADS if self.threads is None else self.threads
        if not len(windows):
            return []
        return EvaluationBatches(windows, self.batch_size, threads, self._part())

    def _ready(self) -> SceneSplits:
        """Return the splits.

        Raises:
            SettingError: Before :meth:`setup`.
        """
        if self.splits is None:
            raise SettingError("Call setup('fit') of SceneDataModule first.")
        return self.splits

    def chip_place(self, split: LabeledWindows, index: int) -> tuple[str, Grid]:
        """Return the name of a window of a split, and its grid."""
        return split.place(index)

    def predict_dataloader(self) -> Any:
        """Return the batches of each scene."""
        trainer: Any = self.trainer
        self._coverage().adapt_scenes(self.batches, trainer.lightning_module)
        return self.batches


def _check_classes(labels: LabelSource, names: Sequence[str]) -> None:
    """Check that the labels have the classes of the task.

    Raises:
        LabelError: If number or names differ; a task without names takes any.
    """
    given, needed = (
        [name_key(name) for name in group] for group in (labels.classes, names)
    )
    unnamed = needed == [str(number) for number in range(len(needed))]
    if unnamed and len(given) != len(needed):
        raise LabelError(
            f'The labels have {len(given)} classes, {", ".join(labels.classes)}, but '
            f'num_classes={len(needed)}. Set num_classes={len(given)} and class_names to '
            'these.'
        )
    if len(given) != len(needed) or (given != needed and not unnamed):
        raise LabelError(
            f'The labels have the classes {", ".join(labels.classes)}, expected those of '
            f'the task, in order: {", ".join(names)}.'
        )


def _scenes(scene: str | Path | Sequence[str | Path] | RasterDataset) -> list[str]:
    """Return the paths of the scenes, in order and each once."""
    if isinstance(scene, RasterDataset):
        paths = [Path(path) for path in scene.files]
        if scene.separate_files:
            paths = [path.parent for path in paths]
        return sorted({str(path) for path in paths})
    given = [scene] if isinstance(scene, str | Path) else [*scene]
    if not all(isinstance(path, str | Path) for path in given):
        raise SettingError(
            f'scene is of type {type(scene).__name__}, expected a path, or a list of '
            'paths. Write an array to a raster first.'
        )
    return [_at_home(str(path)) for path in given]


def _digest(scene: str) -> str:
    """Return what tells a scene from others, of the same name too, without its path."""
    return hashlib.sha256(str(Path(scene).absolute()).encode()).hexdigest()[:16]


def _at_home(path: str) -> str:
    """Return a path with the home folder in place of a leading ``~``."""
    # URLs and virtual rasters are no paths
    return str(Path(path).expanduser()) if path.startswith('~') else path


def _anywhere(scene: int, window: Window) -> bool:
    """Return True: every window of a scene may be drawn."""
    return True
