"""The Lightning callback that turns predictions of windows into the products."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from ..errors import NodataWarning, PresenceWarning, SettingError
from ..windows import Window, blend_weight
from .figures import quick_look, rgb_indices
from .geotiff import (
    NODATA,
    RasterRows,
    check_not_input,
    check_output,
    product_path,
    temporary_path,
)
from .mosaic import RowMosaic
from .pseudomask import resize


class PseudoMaskWriter(BasePredictionWriter):
    """Blend the windows of a scene and write mask, confidence and quick look.

    The class of a pixel is decided once, from the scores of all windows over it.
    Works on the predictions of
    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` over a
    :class:`~torchgeo_ctm.datamodules.SceneDataModule`, in one process.
    """

    def __init__(
        self,
        output: str,
        overwrite: bool = False,
        confidence: bool = True,
        picture: bool = True,
    ) -> None:
        """Create the callback.

        Args:
            output: The class raster to write, ``OUT.tif``.
            overwrite: Replace existing products.
            confidence: Also write ``OUT_confidence.tif``, in per cent.
            picture: Also write ``OUT.png``.

        Raises:
            OutputError: If *output* cannot be written.
        """
        super().__init__(write_interval='batch')
        self.output = check_output(output, overwrite)
        self.overwrite = overwrite
        self.confidence = confidence
        self.picture = picture
        self._products: list[RasterRows] = []

    def setup(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str
    ) -> None:
        """Refuse what this callback cannot assemble.

        Raises:
            OutputError: If a product exists and may not be replaced.
            SettingError: If more than one process predicts.
        """
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise SettingError(
                f'{trainer.world_size} processes predict one scene; needed: devices=1'
            )
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        check_not_input(self.output, datamodule.scene)
        if self.confidence:
            check_output(product_path(self.output, 'confidence'), self.overwrite)

    def on_predict_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Open the products under temporary names."""
        task: Any = pl_module
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._scene = datamodule.predict_dataset
        grid = self._scene.grid
        self._weight = blend_weight(self._scene.window, self._scene.stride)
        self._mosaic = RowMosaic(
            len(task.class_names), grid.height, grid.width, self._scene.window
        )
        self._windows = self._nothing = self._pixels = 0
        tags = self._tags(task)
        classes = (task.class_names, task.class_colors)
        self._products = [
            RasterRows(self.output, grid, 'land cover class', tags, classes)
        ]
        if self.confidence:
            path = product_path(self.output, 'confidence')
            self._products.append(RasterRows(path, grid, 'confidence, per cent', tags))

    def _tags(self, task: Any) -> dict[str, str]:
        """Return what is needed to repeat the run."""
        hparams = task.hparams
        return {
            'TORCHGEO_CTM_VERSION': __version__,
            'BANDS': ','.join(task.bands),
            'SCALING': str(hparams['scaling']),
            'MAP_SOURCE': str(hparams['map_source']),
            'MAP_RULE': str(hparams['map_rule']),
            'PRESENCE_THRESHOLD': str(hparams['threshold']),
            'WINDOW': str(self._scene.window),
            'STRIDE': str(self._scene.stride),
            'SCENE': Path(self._scene.scene).name,
            'WEIGHTS_SHA256': _weights_hash(task),
        }

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: dict[str, Tensor],
        batch_indices: Sequence[int] | None,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Blend one batch of windows and write the rows that it finishes."""
        side = self._scene.window
        scores = resize(prediction['scores'].float(), (side, side)).cpu().numpy()
        valid = batch['valid'].cpu().numpy()
        threshold: float = pl_module.hparams['threshold']
        self._windows += len(scores)
        self._nothing += int((prediction['probs'] <= threshold).all(dim=1).sum())
        for values, mask, place in zip(
            scores, valid, batch['window'].tolist(), strict=True
        ):
            window = Window(*place)
            inside = np.s_[: window.height, : window.width]
            weight = self._weight[inside] * mask[inside]
            for row, done in self._mosaic.add(window, values[:, *inside], weight):
                self._write(row, done)

    def _write(self, row: int, scores: NDArray[np.float32]) -> None:
        """Decide rows of scores (C, rows, width) and write them."""
        empty = np.isnan(scores[0])
        self._pixels += int((~empty).sum())
        classes = scores.argmax(axis=0).astype(np.uint8)
        values = [np.where(empty, np.uint8(NODATA), classes)]
        if self.confidence:
            share = np.nan_to_num(scores.max(axis=0))
            per_cent = np.rint(100 * share.clip(0, 1)).astype(np.uint8)
            values.append(np.where(empty, np.uint8(NODATA), per_cent))
        for product, rows in zip(self._products, values, strict=True):
            product.write(row, rows)

    def on_predict_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Write the last rows and give every product its final name."""
        for row, done in self._mosaic.finish():
            self._write(row, done)
        # the class raster last: where it is, everything is
        for product in reversed(self._products[1:]):
            product.finish('average')
        self._products[0].finish('mode')
        self._products = []
        if self.picture:
            self._draw(pl_module)
        if not self._pixels:
            warnings.warn(
                f'{self._scene.scene} has no valid pixel: the mask is empty',
                NodataWarning,
                stacklevel=2,
            )
        elif self._nothing:
            warnings.warn(
                f'no class reached the presence threshold in {self._nothing} of '
                f'{self._windows} windows: their most probable class was taken',
                PresenceWarning,
                stacklevel=2,
            )

    def _draw(self, task: Any) -> None:
        """Write the quick look."""
        import rasterio

        rgb = self._scene.overview(rgb_indices(task.bands))
        with rasterio.open(self.output) as raster:
            mask = raster.read(1, out_shape=rgb.shape[1:])
        figure = quick_look(rgb, mask, task.class_names, task.class_colors)
        path = product_path(self.output, '', '.png')
        temporary = temporary_path(path)
        try:
            figure.savefig(temporary, format='png', dpi=100)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Leave nothing half-written behind."""
        for product in self._products:
            product.abandon()
        self._products = []


def _weights_hash(task: Any) -> str:
    """Return the SHA-256 of the weights, whichever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(task.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
