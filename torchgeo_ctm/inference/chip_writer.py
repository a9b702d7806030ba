"""The Lightning callback that writes pseudo-masks of chips, as arrays and GeoTIFFs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from rasterio.transform import from_bounds
from torch import Tensor

from ..errors import OutputError
from ..grids import Grid
from ..maps.class_maps import resize
from ..version import __version__
from .arrays import ArrayRows
from .geotiff import RasterRows, product_path


class ChipMaskWriter(BasePredictionWriter):
    """Write what the paper's scripts write, streamed, and a GeoTIFF a chip.

    ``pms_NAME.npy`` uint8 (N, H, W), ``imgs_NAME.npy`` float32 (N, bands, H, W) and,
    where batches have masks, ``masks_NAME.npy`` uint8 (N, H, W), 255 ignored; the
    GeoTIFFs lie in ``pms_NAME/``, each with its ``…_confidence.tif``, the share of the
    class that was chosen, in per cent; from true labels, its share had all classes been
    allowed, which is low where pixels look like a class that the label leaves out. Works
    over a
    :class:`~torchgeo_ctm.datamodules.ChipDataModule`, in one process.
    """

    def __init__(
        self, output: str, name: str, overwrite: bool = False, images: bool = True
    ) -> None:
        """Create the callback.

        Args:
            output: Folder, made if missing.
            name: NAME of the data set.
            overwrite: Replace arrays that exist.
            images: Also write the images, by far the largest array.

        Raises:
            OutputError: If the folder cannot be made, or an array exists.
        """
        super().__init__(write_interval='batch')
        self.folder = Path(output)
        self.name = name
        self.images = images
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f'folder {output} cannot be made: {error}') from error
        for path in (self.path(kind) for kind in ('pms', 'imgs', 'masks')):
            if path.exists() and not overwrite:
                raise OutputError(
                    f'{path} already exists. Pass --overwrite to replace it.'
                )
        self._arrays: dict[str, ArrayRows] = {}
        self._raster: RasterRows | None = None
        #: How many chips were written, and how many of them as GeoTIFFs.
        self.chips = self.rasters = 0

    def path(self, kind: str) -> Path:
        """Return the array of a kind: 'pms', 'imgs' or 'masks'."""
        return self.folder / f'{kind}_{self.name}.npy'

    def _append(self, kind: str, rows: NDArray[Any]) -> None:
        """Append to an array, opened by its first rows."""
        if kind not in self._arrays:
            self._arrays[kind] = ArrayRows(self.path(kind))
        self._arrays[kind].append(rows)

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: dict[str, Tensor],
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Decide the masks of one batch and write them."""
        size = (batch['image'].shape[-2], batch['image'].shape[-1])
        task: Any = pl_module
        maps, probs = prediction['maps'], prediction['probs']
        masks = task.pseudo_masks(maps, probs, size, batch)
        pseudo = masks.cpu().numpy().astype(np.uint8)
        scores = resize(_open_scores(task, prediction, batch), size)
        shares = scores.gather(1, masks[:, None])[:, 0]
        confidence = (100 * shares).round().cpu().numpy().astype(np.uint8)
        self._append('pms', pseudo)
        if self.images:
            self._append('imgs', batch['image'].float().cpu().numpy())
        if 'mask' in batch:
            truth = task.reference_mask(batch['mask']).cpu().numpy()
            outside = (truth < 0) | (truth > 255)
            self._append('masks', np.where(outside, 255, truth).astype(np.uint8))
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for position, mask in enumerate(pseudo):
            name, grid = datamodule.place(self.chips)
            if grid is None and 'bounds' in batch:
                grid = _grid(batch['bounds'][position], batch['crs'][position], size)
            if grid is not None:
                self._write_chip(task, name, grid, mask, confidence[position])
            self.chips += 1

    def _write_chip(
        self,
        task: Any,
        name: str,
        grid: Grid,
        mask: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
    ) -> None:
        """Write one chip's mask with names, colours and provenance, and confidence."""
        folder = self.folder / f'pms_{self.name}'
        folder.mkdir(exist_ok=True)
        facts = task.provenance()
        names = ('MAP_SOURCE', 'MAP_RULE', 'MAP_LABELS', 'REFINEMENT', 'ENSEMBLE')
        tags = {'TORCHGEO_CTM_VERSION': __version__} | {k: facts[k] for k in names}
        path = folder / f'{name}.tif'
        self._write_raster(
            RasterRows(
                product_path(path, 'confidence'), grid, ['confidence, per cent'], tags
            ),
            confidence,
            'average',
        )
        classes = (task.class_names, task.class_colors)
        # last: where it is, both are
        self._write_raster(
            RasterRows(path, grid, ['land cover class'], tags, classes), mask, 'mode'
        )
        self.rasters += 1

    def _write_raster(
        self, raster: RasterRows, values: NDArray[np.uint8], resampling: str
    ) -> None:
        """Write all rows of a raster (H, W), and give it its final name."""
        self._raster = raster
        raster.write(0, values)
        raster.finish(resampling)
        raster.publish()
        self._raster = None

    def on_predict_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Give every array its final name, the masks' last."""
        for kind in ('imgs', 'masks', 'pms'):
            if kind in self._arrays:
                self._arrays.pop(kind).finish()
            else:
                # of an earlier run: it would not belong to these masks
                self.path(kind).unlink(missing_ok=True)

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Leave nothing half-written behind."""
        for array in self._arrays.values():
            array.abandon()
        self._arrays = {}
        if self._raster is not None:
            self._raster.abandon()


def _open_scores(
    task: Any, prediction: dict[str, Tensor], batch: dict[str, Any]
) -> Tensor:
    """Return scores (B, C, h, w) that no true label has closed to a class.

    A label leaves out classes that are small, so the pixels of these get another class
    for certain; they are found by what they would have got without the label.
    """
    options = task.decoder.options
    if options.labels != 'true' or options.rule != 'argmax':
        return prediction['scores']
    every = torch.ones_like(prediction['probs'])
    others = {key: batch[key] for key in ('image', 'valid') if key in batch}
    scores: Tensor = task.predict_step(others | {'label': every}, 0)['scores']
    return scores


def _grid(bounds: Sequence[slice], crs: Any, size: tuple[int, int]) -> Grid:
    """Return the grid of a TorchGeo query: slices of x, y and time."""
    x, y = bounds[0], bounds[1]
    height, width = size
    transform = from_bounds(x.start, y.start, x.stop, y.stop, width, height)
    return Grid(height, width, crs, transform)
