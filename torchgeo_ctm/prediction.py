"""Predict scenes and data sets with a checkpoint."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from numpy.typing import NDArray
from torchgeo.datasets import DatasetNotFoundError

from .configuration import read_data
from .datamodules import ChipDataModule, SceneDataModule
from .errors import DataError, SettingError, did_you_mean
from .files import check_not_input
from .inference.chip_writer import ChipMaskWriter
from .inference.products import product_paths
from .inference.scene_mask import SceneMask
from .inference.writer import PseudoMaskWriter
from .maps.class_maps import MapRule, MapSource
from .scoring import confusion_matrix, summarise
from .split import Split
from .trainers import load_predictor

ACCELERATORS = ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu')
PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


def quiet_lightning() -> None:
    """Silence Lightning's advice about loggers and workers."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')


def predict_scene(
    scene: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 10,
    num_workers: int | None = None,
    scene_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    offset: float | None = None,
    ensemble: Literal['dihedral'] | None = None,
    shifted_grids: bool = False,
    accelerator: str = 'auto',
    precision: str = '32-true',
    overwrite: bool = False,
    progress: bool = True,
    **products: Any,
) -> SceneMask:
    """Write the georeferenced pseudo-mask of a scene.

    It builds the same objects as ``torchgeo predict --config configs/scene.yaml``. An
    interrupted run resumes if it is called again with the same arguments.

    Args:
        scene: A raster that GDAL opens, a folder with one file per band, a ``.SAFE``.
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`, or of TorchGeo's
            ``SemanticSegmentationTask`` trained on pseudo-masks
            (:func:`~torchgeo_ctm.trainers.load_predictor`).
        output: Class raster to write (.tif). Other products are written beside it.
        window: Side of a window in pixels; None: that of a training chip.
        stride: Distance between windows in pixels; None: half a window.
        batch_size: Windows per batch.
        num_workers: Threads that read ahead. 0 reads between two batches. None: 1 for
            a local scene on a CPU, else 2.
        scene_bands: Names of the scene's bands in file order, if its own descriptions
            are missing or wrong.
        nodata: Value of nodata pixels; None: that of the raster.
        offset: Added to the scene's numbers to make them reflectance × 10,000; None:
            from the metadata, else as in the training data.
        ensemble: 'dihedral' averages over flips and quarter turns of each window.
        shifted_grids: Shift the patch grid between overlapping windows.
        accelerator: Lightning's name of the device.
        precision: Lightning's name of the arithmetic: 32-true, bf16-mixed.
        overwrite: Replace existing products.
        progress: Show a progress bar.
        **products: Products beside the mask, see
            :class:`~torchgeo_ctm.inference.writer.PseudoMaskWriter`.

    Returns:
        The products.

    Raises:
        CTMError: If an argument cannot be used. Nothing is written then.
    """
    check_not_input(output, scene)
    writer = PseudoMaskWriter(str(output), overwrite, progress=progress, **products)
    task = load_predictor(checkpoint).with_options(ensemble=ensemble)
    datamodule = SceneDataModule(
        str(scene),
        batch_size,
        num_workers,
        window,
        stride,
        scene_bands,
        nodata=nodata,
        offset=offset,
        shifted_grids=shifted_grids,
    )
    _predict(task, datamodule, [writer], accelerator, False, precision)
    [path] = writer.outputs(datamodule.scenes)
    return SceneMask(product_paths(path, writer.options))


def pseudo_masks(
    config: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    split: Split = 'val',
    labels: Literal['predicted', 'true'] = 'predicted',
    source: MapSource | None = None,
    rule: MapRule | None = None,
    ensemble: Literal['dihedral'] | None = None,
    accelerator: str = 'auto',
    overwrite: bool = False,
    images: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the pseudo-masks of a data set's split, as arrays and GeoTIFFs.

    Args:
        config: Configuration of ``torchgeo``, whose ``data`` section names the chips.
        checkpoint: Checkpoint, as for :func:`predict_scene`.
        output: Folder for ``pms_NAME.npy``, ``imgs_NAME.npy``, ``masks_NAME.npy``, and
            ``pms_NAME/`` with GeoTIFFs of mask and confidence for each chip that has a
            georeference.
        split: 'train', 'val' or 'test', in order and cropped as in evaluation.
        labels: Classes present in a chip: 'predicted', or 'true' from its label.
        source: 'attention', 'patchcam' or 'fused'; None: the checkpoint's. Like *rule*
            it applies to class-token checkpoints only.
        rule: 'paint' or 'argmax'; None: the checkpoint's.
        ensemble: 'dihedral' averages over flips and quarter turns of each chip.
        accelerator: Lightning's name of the device.
        overwrite: Replace existing arrays.
        images: Also write the images.
        progress: Show a progress bar.

    Returns:
        ``chips`` and ``rasters``, the numbers of arrays' chips and of GeoTIFFs written;
        with true masks also the scores of :func:`torchgeo_ctm.scoring.summarise`.

    Raises:
        CTMError: If an argument cannot be used. No array is written then.
    """
    quiet_lightning()
    task = load_predictor(checkpoint)
    chosen = {'source': source, 'rule': rule}
    given = {name: value for name, value in chosen.items() if value is not None}
    try:
        task.with_options(ensemble=ensemble, labels=labels, **given)
    except SettingError as error:
        raise SettingError(f'{checkpoint}: {error}') from error
    datamodule = ChipDataModule(read_data(config), split)
    writer = ChipMaskWriter(str(output), datamodule.dataset_name, overwrite, images)
    _predict(task, datamodule, [writer], accelerator, progress)
    written: dict[str, Any] = {'chips': writer.chips, 'rasters': writer.rasters}
    if writer.path('masks').exists():
        confusion = _confusion(writer, len(task.class_names))
        written |= summarise(confusion, task.class_names)
    return written


def _confusion(writer: ChipMaskWriter, num_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix of the written arrays, chip by chip."""
    truth = np.load(writer.path('masks'), mmap_mode='r')
    masks = np.load(writer.path('pms'), mmap_mode='r')
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for reference, mask in zip(truth, masks, strict=True):
        confusion += confusion_matrix(reference, mask, num_classes)
    return confusion


def _predict(
    task: LightningModule,
    datamodule: LightningDataModule,
    callbacks: list[Callback],
    accelerator: str,
    progress: bool,
    precision: str = '32-true',
) -> None:
    """Predict with Lightning, and turn its exceptions into ours."""
    if accelerator not in ACCELERATORS:
        raise SettingError(
            f'Unknown accelerator {accelerator!r}, expected one of: '
            f'{", ".join(ACCELERATORS)}.{did_you_mean(accelerator, ACCELERATORS)}'
        )
    if precision not in PRECISIONS:
        raise SettingError(
            f'Unknown precision {precision!r}, expected one of: '
            f'{", ".join(PRECISIONS)}.{did_you_mean(precision, PRECISIONS)}'
        )
    quiet_lightning()
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise SettingError(
            f"Accelerator {accelerator!r} is not available here. Use 'auto'."
        ) from error
    try:
        trainer.predict(task, datamodule=datamodule, return_predictions=False)
    except DatasetNotFoundError as error:
        raise DataError(' '.join(str(error).split())) from error
    except SystemExit:
        # Lightning turns Ctrl-C into SystemExit
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
