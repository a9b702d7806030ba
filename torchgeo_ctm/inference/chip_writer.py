"""Lightning callback that writes pseudo-masks of chips, as arrays and GeoTIFFs."""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, OutputError, ResumeWarning
from ..files import check_file, make_folder, temporary_path
from ..grids import IGNORED, Grid
from ..maps.class_maps import resize
from ..rasters import CONFIDENCE
from ..version import __version__
from .geotiff import RasterRows
from .paths import product_path
from .protocols import ChipData, ChipPredictor

#: Tags of a task's provenance that chips get.
TAGS = ('MAP_SOURCE', 'MAP_RULE', 'MAP_LABELS', 'REFINEMENT', 'ENSEMBLE')


class ArrayRows:
    """A ``.npy`` file that grows along its first axis and is never held in memory.

    NumPy pads the header so that the first axis can grow in place. The header is
    written again at the end (numpy.lib.format, version 1.0).
    """

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside *path*.

        Raises:
            OutputError: If it cannot be written.
        """
        self.path = path
        self._part = temporary_path(path)
        self._like: NDArray[Any] | None = None
        self._length = 0
        try:
            self._file = self._part.open('wb')
        except OSError as error:
            raise OutputError(f'Cannot write {path}: {error}') from error

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows (N, …).

        Raises:
            DataError: If their shape differs from that of the rows before.
            OutputError: If the disk refuses them.
        """
        first = self._like is None
        if self._like is None:
            self._like = rows[:0]
        shape = self._like.shape[1:]
        if rows.shape[1:] != shape:
            raise DataError(
                f'Cannot add a {rows.shape[1:]} chip to {self.path.name}, which holds '
                f'{shape} chips. All chips must have the same size.'
            )
        try:
            if first:
                self._write_header(self._like)
            self._file.write(rows.astype(self._like.dtype, copy=False).tobytes())
        except OSError as error:
            raise OutputError(f'Cannot write {self.path}: {error}') from error
        self._length += len(rows)

    def _write_header(self, like: NDArray[Any]) -> None:
        """Write the header for the rows so far."""
        header = npy.header_data_from_array_1_0(like)
        header |= {'shape': (self._length, *like.shape[1:]), 'fortran_order': False}
        self._file.seek(0)
        npy.write_array_header_1_0(self._file, header)

    def finish(self) -> None:
        """Give the file its final name.

        Raises:
            OutputError: If the disk refuses it.
        """
        try:
            if self._like is not None:
                self._write_header(self._like)
            self._file.close()
            self._part.replace(self.path)
        except OSError as error:
            raise OutputError(f'Cannot write {self.path}: {error}') from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the temporary file."""
        # a full disk refuses what is buffered again
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)


class ChipMaskWriter(BasePredictionWriter):
    """Write the arrays of the paper's scripts, streamed, and one GeoTIFF per chip.

    ``pms_NAME.npy`` uint8 (N, H, W), ``imgs_NAME.npy`` float32 (N, bands, H, W) and,
    where batches have masks, ``masks_NAME.npy`` uint8 (N, H, W), 255 ignored. GeoTIFFs
    lie in ``pms_NAME/``, each with its ``…_confidence.tif``: the score of the chosen
    class in percent. With true labels it is the score that the class would have had
    if every class had been present, which is low for pixels that look like a class
    missing from the label. Works over a
    :class:`~torchgeo_ctm.datamodules.ChipDataModule`, in one process.
    """

    def __init__(
        self, output: str, name: str, overwrite: bool = False, images: bool = True
    ) -> None:
        """Create the callback.

        Args:
            output: Folder, created if missing.
            name: Name of the data set.
            overwrite: Replace existing arrays.
            images: Also write the images, by far the largest array.

        Raises:
            OutputError: If the folder cannot be created, or an array exists.
        """
        super().__init__(write_interval='batch')
        self.folder = Path(output)
        self.name = name
        self.images = images
        make_folder(self.folder)
        for kind in ('pms', 'imgs', 'masks'):
            check_file(self.path(kind), overwrite)
        self._arrays: dict[str, ArrayRows] = {}
        self._raster: RasterRows | None = None
        #: Number of chips written, and of those written as GeoTIFFs.
        self.chips = self.rasters = 0
        self._batches = 0

    def path(self, kind: str) -> Path:
        """Return the path of an array: 'pms', 'imgs' or 'masks'."""
        return self.folder / f'{kind}_{self.name}.npy'

    def _append(self, kind: str, rows: NDArray[Any]) -> None:
        """Append to an array, which its first rows open."""
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
        task = cast(ChipPredictor, pl_module)
        size = (batch['image'].shape[-2], batch['image'].shape[-1])
        masks = task.pseudo_masks(prediction['maps'], prediction['probs'], size, batch)
        scores = resize(_open_scores(task, prediction, batch), size)
        chosen = scores.gather(1, masks[:, None])[:, 0]
        pseudo = masks.cpu().numpy().astype(np.uint8)
        confidence = (100 * chosen).round().cpu().numpy().astype(np.uint8)
        self._append('pms', pseudo)
        if self.images:
            self._append('imgs', batch['image'].float().cpu().numpy())
        if 'mask' in batch:
            truth = task.reference_mask(batch['mask']).cpu().numpy()
            outside = (truth < 0) | (truth > IGNORED)
            self._append('masks', np.where(outside, IGNORED, truth).astype(np.uint8))
        source = cast(ChipData, trainer.datamodule)  # type: ignore[attr-defined]
        for position, mask in enumerate(pseudo):
            name, grid = source.place(self.chips)
            if grid is not None:
                self._write_chip(task, name, grid, mask, confidence[position])
            self.chips += 1
        self._batches += 1

    def _write_chip(
        self,
        task: ChipPredictor,
        name: str,
        grid: Grid,
        mask: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
    ) -> None:
        """Write the confidence of a chip, then its mask with names, colors and tags."""
        folder = self.folder / f'pms_{self.name}'
        folder.mkdir(exist_ok=True)
        facts = task.provenance()
        tags = {'TORCHGEO_CTM_VERSION': __version__} | {k: facts[k] for k in TAGS}
        path = folder / f'{name}.tif'
        beside = product_path(path, 'confidence')
        raster = RasterRows(beside, grid, [CONFIDENCE], tags)
        self._write_raster(raster, confidence, 'average')
        classes = (task.class_names, task.class_colors)
        raster = RasterRows(path, grid, ['land cover class'], tags, classes)
        self._write_raster(raster, mask, 'mode')
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
        """Give every array its final name, the pseudo-masks' last.

        If chips were left out, as by ``limit_predict_batches``, no array is written.
        """
        loaders: Any = trainer.predict_dataloaders
        planned = sum(map(len, loaders if isinstance(loaders, list) else [loaders]))
        if self._batches < planned:
            warnings.warn(
                f'{self.folder}: {planned - self._batches} of {planned} batches of chips '
                'were not computed, no array is written. Run it again without a limit.',
                ResumeWarning,
                stacklevel=2,
            )
            self._abandon()
            return
        for kind in ('imgs', 'masks', 'pms'):
            if kind in self._arrays:
                self._arrays.pop(kind).finish()
            else:
                # one of an earlier run would not belong to these pseudo-masks
                self.path(kind).unlink(missing_ok=True)

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Remove temporary files."""
        self._abandon()

    def _abandon(self) -> None:
        """Remove temporary files."""
        for array in self._arrays.values():
            array.abandon()
        self._arrays = {}
        if self._raster is not None:
            self._raster.abandon()


def _open_scores(
    task: ChipPredictor, prediction: dict[str, Tensor], batch: dict[str, Any]
) -> Tensor:
    """Return scores (B, C, h, w) as if every class were present.

    A true label leaves out small classes, whose pixels then get another class for
    certain. The scores without the label reveal them.
    """
    options = task.decoder.options
    if options.labels != 'true' or options.rule != 'argmax':
        return prediction['scores']
    every = torch.ones_like(prediction['probs'])
    others = {key: batch[key] for key in ('image', 'valid') if key in batch}
    scores: Tensor = task.predict_step(others | {'label': every}, 0)['scores']
    return scores
