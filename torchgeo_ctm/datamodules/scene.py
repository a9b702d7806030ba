"""Data module of one scene to predict."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torchgeo.datamodules import NonGeoDataModule

from ..datasets import SceneWindows
from ..errors import SettingError


class SceneDataModule(NonGeoDataModule):
    """Overlapping windows over one scene, for ``predict``.

    What depends on the model (bands, window) is taken from the task that predicts,
    so a scene and a checkpoint are enough.
    """

    def __init__(
        self,
        scene: str,
        batch_size: int = 8,
        num_workers: int = 0,
        window: int | None = None,
        stride: int | None = None,
        scene_bands: Sequence[str] | None = None,
        reference: str | None = None,
    ) -> None:
        """Initialise the data module.

        Args:
            scene: Any raster that GDAL opens.
            batch_size: Windows per batch.
            num_workers: Workers that read windows.
            window: Side of a window in pixels, a multiple of the model's patch; None
                takes the chip size the model was trained with.
            stride: Distance between windows in pixels; None takes half a window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the scene's grid; its windows are handed to the
                task as ``mask``, for ``map_labels: true``.
        """
        super().__init__(SceneWindows, batch_size, num_workers)
        self.scene = scene
        self.window = window
        self.stride = stride
        self.scene_bands = scene_bands
        self.reference = reference
        self.aug = nn.Identity()

    def setup(self, stage: str) -> None:
        """Cut the scene into windows that fit the trainer's model.

        Args:
            stage: 'predict'.

        Raises:
            SettingError: If *stage* is another one, or the window does not fit.
        """
        if stage != 'predict' or self.trainer is None:
            raise SettingError(
                f'SceneDataModule serves predict, not {stage}; train with a data '
                'module that has labels'
            )
        task: Any = self.trainer.lightning_module
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
        stride = max(1, window // 2) if self.stride is None else self.stride
        self.predict_dataset = SceneWindows(
            self.scene, task.bands, window, stride, self.scene_bands, self.reference
        )
