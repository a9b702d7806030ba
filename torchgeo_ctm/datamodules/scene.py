"""Data module of scenes, to train on and to predict."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from torch import nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import RasterDataset

from ..datasets import SceneBatches, SceneWindows, Thumbnail
from ..errors import LabelError, SettingError
from ..grids import Grid
from ..labels import (
    LabelSource,
    PointLabels,
    PolygonLabels,
    RasterLabels,
    TableLabels,
    check_overlap,
    check_sizes,
)
from ..samplers.labeled_scene import LabelledScene, LabelledWindows
from ..samplers.splits import SceneSplits
from ..split import Split
from .loaders import EvaluationBatches, TrainingBatches

#: What tells labels. Ours by name too: a configuration may name any class with exactly
#: the signatures of the protocol, and these promise more than it asks for.
Labels = LabelSource | PolygonLabels | PointLabels | RasterLabels | TableLabels

#: Threads that read ahead of training, unless told otherwise.
TRAINING_THREADS = 2


class SceneDataModule(NonGeoDataModule):
    """Windows over one or many scenes, to train on and to predict.

    For ``predict``, windows overlap and cover every scene; several processes share
    each by bands of rows. With *labels*, the same scenes also serve ``fit``,
    ``validate`` and ``test``: their ground is cut into blocks for training, validation
    and test, so that no two splits share ground
    (:class:`~torchgeo_ctm.samplers.splits.SceneSplits`). Training draws windows
    at random, other ones in every epoch
    (:class:`~torchgeo_ctm.samplers.neighborhoods.WindowDraws`); validation and test
    take those that lie side by side. Windows without a label, or of which more than
    half is empty, are left out and counted.

    What depends on the model (bands, window, offset) is taken from the trainer's task,
    so to predict, a scene and a checkpoint are enough. Batches for training hold
    ``image``, ``label``, ``label_known``, ``valid``, ``window`` and ``scene``, and
    ``mask`` where there is a reference.
    """

    def __init__(
        self,
        scene: str | list[str] | RasterDataset,
        batch_size: int = 10,
        num_workers: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        scene_bands: Sequence[str] | None = None,
        reference: str | list[str] | None = None,
        nodata: float | None = None,
        offset: float | None = None,
        shifted_grids: bool = False,
        labels: Labels | None = None,
        val_scene: str | list[str] | None = None,
        test_scene: str | list[str] | None = None,
        shares: Sequence[float] = (0.6, 0.2, 0.2),
        block_size: int | None = None,
        length: int | None = None,
        windows_per_read: int = 8,
        seed: int = 0,
    ) -> None:
        """Initialise the data module.

        Args:
            scene: Any raster that GDAL opens, a folder with one file a band, a
                ``.SAFE``; a list of such scenes; or a TorchGeo RasterDataset, whose
                files are the scenes (folders of files, where it has one a band).
            batch_size: Windows per batch.
            num_workers: Threads that read ahead and decode; 0 reads when the model has
                finished, and decodes with every core; None: 1 to predict a local scene
                on a CPU, where the model needs the cores itself, else 2.
            window: Side of a window in pixels, a multiple of the model's patch; None
                takes the chip size the model was trained with.
            stride: Distance between windows to predict, in pixels; None takes half a
                window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the scene's grid, or one for each scene in the
                order of *scene*, *val_scene*, *test_scene*; its windows are handed to
                the task as ``mask``, to score with, and for ``map_labels: true``.
            nodata: Value that means no data; None: what the raster says.
            offset: Added to the scene's numbers to make them reflectance × 10,000;
                None: what the metadata says, else as in the training data.
            shifted_grids: Move *stride* to the nearest odd multiple of half a patch, so
                that overlapping windows cut the patches in different places.
            labels: What tells which classes a window contains, to train with.
            val_scene: Scenes to validate on, instead of a share of *scene*; their
                ground is kept out of training.
            test_scene: Scenes to test on, likewise.
            shares: Shares of train, val and test in the windows with labels, sum 1.
            block_size: Side of a block of ground in pixels, of the coarsest scene; None:
                four windows. Smaller blocks meet the shares better, larger ones lose
                fewer windows that lie across a border.
            length: Windows drawn an epoch; None: as many as lie side by side on the
                training ground. Rounded up to whole batches.
            windows_per_read: Windows drawn from one neighbourhood, whose pixels are
                decoded once; 1 draws each from anywhere, and reads more slowly.
            seed: Seed of split and draws.
        """
        super().__init__(SceneWindows, batch_size)
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
        self.seed = seed
        #: Which ground serves which split; made by the first setup that needs it.
        self.splits: SceneSplits | None = None
        self._splits_fit: tuple[int, tuple[str, ...]] | None = None
        self.aug = nn.Identity()
        self.predict_datasets: list[SceneWindows] = []
        self.batches: list[SceneBatches] = []
        #: Called when weights are loaded and nothing has been read yet.
        self.before_reading: Callable[[], None] = _nothing

    def setup(self, stage: str) -> None:
        """Cut the scenes into windows that fit the trainer's model.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If a number does not fit, or there are no labels to train on.
            LabelError: If the labels do not fit the task, or no window has one.
        """
        for name, value, least in (
            ('batch_size', self.batch_size, 1),
            ('num_workers', self.threads, 0),
            ('length', self.length, 1),
            ('windows_per_read', self.windows_per_read, 1),
            ('seed', self.seed, 0),
        ):
            if value is not None and value < least:
                raise SettingError(f'{name}={value} is too small; nearest: {least}')
        if self.labels is None and stage != 'predict':
            raise SettingError(
                'SceneDataModule without labels serves predict, not '
                f'{getattr(stage, "value", stage)}; needed: labels, such as '
                'torchgeo_ctm.labels.PolygonLabels'
            )
        if self.trainer is None:
            raise SettingError('SceneDataModule takes bands and window from a trainer')
        task: Any = self.trainer.lightning_module
        if stage == 'predict':
            self._setup_prediction(task)
        else:
            fits = (self._window(task), tuple(task.bands))
            if self.splits is None or self._splits_fit != fits:
                self.splits, self._splits_fit = self._split(task), fits
        if self.splits is not None:
            self.train_dataset = self.splits.windows('train')
            self.val_dataset = self.splits.windows('val')
            self.test_dataset = self.splits.windows('test')

    def _setup_prediction(self, task: Any) -> None:
        """Cut the scenes into overlapping windows."""
        window = self._window(task)
        stride = self._stride(task, window)
        ahead = self._ahead()
        decoders = ahead or os.cpu_count() or 1
        self.predict_datasets = self._open(self.scenes, task, window, stride, decoders)
        self.batches = [
            # however many threads decode, batches that wait are only memory
            SceneBatches(scene, self.batch_size, min(ahead, 2), self._part())
            for scene in self.predict_datasets
        ]

    def _open(
        self, scenes: Sequence[str], task: Any, window: int, stride: int, threads: int
    ) -> list[SceneWindows]:
        """Open scenes as the model needs them."""
        references = self._references(len(scenes))
        return [
            SceneWindows(
                scene,
                task.bands,
                window,
                stride,
                self.scene_bands,
                reference,
                self.nodata,
                self.offset,
                getattr(task.scaling, 'offset', 0.0),
                threads,
            )
            for scene, reference in zip(scenes, references, strict=True)
        ]

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
                f'{given} references for {len(scenes)} scenes; needed: one for each'
            )
        return list(self.reference[:count])

    def _split(self, task: Any) -> SceneSplits:
        """Open all scenes with their labels and cut their ground."""
        labels: Any = self.labels
        _check_classes(labels, task.class_names)
        window = self._window(task)
        scenes = [*self.scenes, *self.val_scenes, *self.test_scenes]
        opened = self._open(scenes, task, window, window, 1)
        names = [PurePath(scene).name for scene in scenes]
        grids = [scene.grid for scene in opened]
        check_overlap(labels, grids, names)
        check_sizes(labels, grids, window, task.model.patch_size)
        kinds: list[Split] = ['val'] * len(self.val_scenes)
        kinds += ['test'] * len(self.test_scenes)
        return SceneSplits(
            [LabelledScene(scene, labels) for scene in opened],
            self.block_size,
            self.shares,
            self.seed,
            dict(enumerate(kinds, len(self.scenes))),
        )

    def _part(self) -> tuple[int, int]:
        """Return the number of this process, and how many there are."""
        trainer: Any = self.trainer
        return trainer.global_rank, trainer.world_size

    def take_thumbnails(self, bands: Sequence[int], longest: int) -> None:
        """Take a small picture of each scene while it is read.

        Args:
            bands: Positions among the model's bands.
            longest: Longest side in pixels.
        """
        for batches in self.batches:
            batches.thumbnail = Thumbnail(batches.scene, bands, longest)

    def _ahead(self) -> int:
        """Return how many threads read ahead."""
        if self.threads is not None:
            return self.threads
        local = all(Path(scene).exists() for scene in self.scenes)
        trainer: Any = self.trainer
        return 1 if local and trainer.strategy.root_device.type == 'cpu' else 2

    def _window(self, task: Any) -> int:
        """Return the side of a window in pixels, if the model's patches fit it."""
        chip = task.hparams['img_size']
        window = self.window
        if window is None:
            window = chip if isinstance(chip, int) else max(chip)
        patch: int = task.model.patch_size
        if window < patch or window % patch:
            fits = max(1, round(window / patch)) * patch
            fault = 'is not a multiple of the patch of'
            if window < 1:
                fault = 'is not positive; needed: a multiple of the patch of'
            raise SettingError(
                f'window={window} px {fault} {patch} px; nearest: {fits}'
            )
        return int(window)

    def _stride(self, task: Any, window: int) -> int:
        """Return the distance between windows in pixels."""
        stride = max(1, window // 2) if self.stride is None else self.stride
        half: int = task.model.patch_size // 2
        if self.shifted_grids and half:
            odd = 2 * (stride // (2 * half)) + 1
            stride = odd * half if odd * half <= window else (odd - 2) * half
        return stride

    def train_dataloader(self) -> Any:
        """Return the batches to train on, other ones in every epoch."""
        splits, trainer = self._splits(), self.trainer
        length = self.length or len(splits.windows('train'))
        return TrainingBatches(
            splits.draws(self.windows_per_read),
            self.batch_size,
            length,
            TRAINING_THREADS if self.threads is None else self.threads,
            self._part(),
            lambda: 0 if trainer is None else trainer.current_epoch,
        )

    def val_dataloader(self) -> Any:
        """Return the batches to validate on."""
        return self._evaluation('val')

    def test_dataloader(self) -> Any:
        """Return the batches to test on."""
        return self._evaluation('test')

    def _evaluation(self, split: Split) -> Any:
        """Return the batches of a split, none if it has no share."""
        windows = self._splits().windows(split)
        threads = TRAINING_THREADS if self.threads is None else self.threads
        if not len(windows):
            return []
        return EvaluationBatches(windows, self.batch_size, threads, self._part())

    def _splits(self) -> SceneSplits:
        """Return the splits."""
        if self.splits is None:
            raise SettingError("SceneDataModule needs setup('fit') first")
        return self.splits

    def chip_place(self, split: LabelledWindows, index: int) -> tuple[str, Grid]:
        """Return the name of a split's window, and its grid."""
        return split.place(index)

    def predict_dataloader(self) -> Any:
        """Return the batches of each scene."""
        self.before_reading()
        return self.batches


def _check_classes(labels: LabelSource, names: Sequence[str]) -> None:
    """Refuse labels of other classes than the task's.

    Raises:
        LabelError: If number or names differ; a task without names takes any.
    """
    given, needed = (
        [' '.join(name.casefold().split()) for name in group]
        for group in (labels.classes, names)
    )
    unnamed = needed == [str(number) for number in range(len(needed))]
    if len(given) != len(needed) or (given != needed and not unnamed):
        raise LabelError(
            f'the labels are of classes {", ".join(labels.classes)}; needed, in the '
            f"task's order: {', '.join(names)}"
        )


def _scenes(scene: str | list[str] | RasterDataset) -> list[str]:
    """Return the paths of the scenes, in order and each once."""
    if isinstance(scene, RasterDataset):
        paths = [Path(path) for path in scene.files]
        if scene.separate_files:
            paths = [path.parent for path in paths]
        return sorted({str(path) for path in paths})
    return [scene] if isinstance(scene, str) else [str(path) for path in scene]


def _nothing() -> None:
    """Do nothing."""
