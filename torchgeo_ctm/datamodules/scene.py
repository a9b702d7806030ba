"""Data module of scenes to predict."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import RasterDataset

from ..datasets import SceneBatches, SceneWindows, Thumbnail
from ..errors import SettingError


class SceneDataModule(NonGeoDataModule):
    """Overlapping windows over one or many scenes, for ``predict``.

    What depends on the model (bands, window, offset) is taken from the task that
    predicts, so a scene and a checkpoint are enough. Several processes share every
    scene by bands of rows.
    """

    def __init__(
        self,
        scene: str | list[str] | RasterDataset,
        batch_size: int = 8,
        num_workers: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        scene_bands: Sequence[str] | None = None,
        reference: str | None = None,
        nodata: float | None = None,
        offset: float | None = None,
        shifted_grids: bool = False,
    ) -> None:
        """Initialise the data module.

        Args:
            scene: Any raster that GDAL opens, a folder with one file a band, a
                ``.SAFE``; a list of such scenes; or a TorchGeo RasterDataset, whose
                files are the scenes (folders of files, where it has one a band).
            batch_size: Windows per batch.
            num_workers: Threads that read ahead and decode; 0 reads when the model has
                finished, and decodes with every core; None: 0 for a local scene on a
                CPU, where reading ahead takes the model's cores from it, else 2.
            window: Side of a window in pixels, a multiple of the model's patch; None
                takes the chip size the model was trained with.
            stride: Distance between windows in pixels; None takes half a window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the scene's grid; its windows are handed to the
                task as ``mask``, for ``map_labels: true``.
            nodata: Value that means no data; None: what the raster says.
            offset: Added to the scene's numbers to make them reflectance × 10,000;
                None: what the metadata says, else as in the training data.
            shifted_grids: Move *stride* to the nearest odd multiple of half a patch, so
                that overlapping windows cut the patches in different places.
        """
        super().__init__(SceneWindows, batch_size)
        self.scenes = _scenes(scene)
        self.threads = num_workers
        self.window = window
        self.stride = stride
        self.scene_bands = scene_bands
        self.reference = reference
        self.nodata = nodata
        self.offset = offset
        self.shifted_grids = shifted_grids
        self.aug = nn.Identity()
        self.predict_datasets: list[SceneWindows] = []
        self.batches: list[SceneBatches] = []
        #: Called when weights are loaded and nothing has been read yet.
        self.before_reading: Callable[[], None] = _nothing

    def setup(self, stage: str) -> None:
        """Cut the scenes into windows that fit the trainer's model.

        Args:
            stage: 'predict'.

        Raises:
            SettingError: If *stage* is another one, or a number does not fit.
        """
        if stage != 'predict' or self.trainer is None:
            raise SettingError(
                f'SceneDataModule serves predict, not {stage}; train with a data '
                'module that has labels'
            )
        for name, value, least in (
            ('batch_size', self.batch_size, 1),
            ('num_workers', self.threads, 0),
        ):
            if value is not None and value < least:
                raise SettingError(f'{name}={value} is too small; nearest: {least}')
        task: Any = self.trainer.lightning_module
        window = self._window(task)
        stride = self._stride(task, window)
        ahead = self._ahead()
        self.predict_datasets = [
            SceneWindows(
                scene,
                task.bands,
                window,
                stride,
                self.scene_bands,
                self.reference,
                self.nodata,
                self.offset,
                getattr(task.scaling, 'offset', 0.0),
                ahead or os.cpu_count() or 1,
            )
            for scene in self.scenes
        ]
        part = (self.trainer.global_rank, self.trainer.world_size)
        self.batches = [
            SceneBatches(scene, self.batch_size, ahead, part)
            for scene in self.predict_datasets
        ]

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
        return 0 if local and trainer.strategy.root_device.type == 'cpu' else 2

    def _window(self, task: Any) -> int:
        """Return the side of a window in pixels, if the model's patches fit it."""
        chip = task.hparams['img_size']
        window = self.window
        if window is None:
            window = chip if isinstance(chip, int) else max(chip)
        patch: int = task.model.patch_size
        if window < patch or window % patch:
            fits = max(1, round(window / patch)) * patch
            raise SettingError(
                f'window={window} px is not a multiple of the patch of {patch} px; '
                f'nearest: {fits}'
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

    def predict_dataloader(self) -> Any:
        """Return the batches of each scene."""
        self.before_reading()
        return self.batches


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
