"""A scene and a checkpoint in, the products of the scene out."""

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
from .errors import DataError, SettingError, nearest
from .files import check_not_input
from .inference.chip_writer import ChipMaskWriter
from .inference.products import product_paths
from .inference.scene_mask import SceneMask
from .inference.writer import PseudoMaskWriter
from .maps.class_maps import MapRule, MapSource
from .scoring import confusion_matrix, summarize
from .split import Split
from .trainers import ClassTokenMaskingTask, SegmentationPredictor, load_predictor

ACCELERATORS = ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu')
PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


def quiet_lightning() -> None:
    """Keep Lightning's advice about loggers and workers off a user's terminal."""
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

    Builds the same objects as ``torchgeo predict --config configs/scene.yaml``. Killed
    and called again with the same arguments, it goes on where it stood.

    Args:
        scene: A raster that GDAL opens, a folder with one file a band, a ``.SAFE``.
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`, or of TorchGeo's
            ``SemanticSegmentationTask`` trained on pseudo-masks
            (:func:`~torchgeo_ctm.trainers.load_predictor`).
        output: Class raster to write (.tif); the other products lie beside it.
        window: Side of a window in pixels; None: the training chip's.
        stride: Distance between windows in pixels; None: half a window.
        batch_size: Windows per batch.
        num_workers: Threads that read ahead and decode; 0 reads in turns with the
            model; chosen if not given: 1 for a local scene on a CPU, else 2.
        scene_bands: Names of the scene's bands in file order, if its own descriptions
            are missing or wrong.
        nodata: Value that means no data; None: what the raster says.
        offset: Added to the scene's numbers to make them reflectance × 10,000; None:
            what the metadata says, else as in the training data.
        ensemble: 'dihedral' averages over flips and quarter turns of each window.
        shifted_grids: Let overlapping windows cut the patches in different places.
        accelerator: Where to compute, in Lightning's words.
        precision: Of the model's arithmetic, in Lightning's words: 32-true, bf16-mixed.
        overwrite: Replace existing products.
        progress: Show a progress bar.
        **products: What to write beside the mask; see
            :class:`~torchgeo_ctm.inference.writer.PseudoMaskWriter`.

    Returns:
        The products.

    Raises:
        CTMError: If anything given cannot be used; nothing is written then.
    """
    check_not_input(output, scene)
    writer = PseudoMaskWriter(str(output), overwrite, progress=progress, **products)
    task = load_predictor(checkpoint)
    task.hparams['ensemble'] = ensemble
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
        config: Configuration of ``torchgeo``; its ``data`` section says which chips.
        checkpoint: As :func:`predict_scene` takes it.
        output: Folder for ``pms_NAME.npy``, ``imgs_NAME.npy``, ``masks_NAME.npy``, and
            ``pms_NAME/`` with GeoTIFFs of mask and confidence for each chip that has a
            georeference.
        split: 'train', 'val' or 'test'; in order, and as evaluation crops it.
        labels: Classes present in a chip: 'predicted', or 'true' from its label.
        source: 'attention', 'patchcam' or 'fused'; None: the checkpoint's. Of class
            tokens only, as is *rule*.
        rule: 'paint' or 'argmax'; None: the checkpoint's.
        ensemble: 'dihedral' averages over flips and quarter turns of each chip.
        accelerator: Where to compute, in Lightning's words.
        overwrite: Replace arrays that exist.
        images: Also write the images.
        progress: Show a progress bar.

    Returns:
        ``chips`` and ``rasters``, how many were written; where there were true masks
        also what :func:`torchgeo_ctm.scoring.summarize` returns.

    Raises:
        CTMError: If anything given cannot be used; no array is written then.
    """
    quiet_lightning()
    task = load_predictor(checkpoint)
    if isinstance(task, SegmentationPredictor) and (source or rule):
        name, value = ('source', source) if source else ('rule', rule)
        raise SettingError(
            f'{name}={value!r} is of class tokens, {checkpoint} is a segmentation '
            f'network; nearest: without {name}'
        )
    task.hparams['ensemble'] = ensemble
    task.hparams['map_labels'] = labels
    task.hparams['map_source'] = source or task.hparams['map_source']
    task.hparams['map_rule'] = rule or task.hparams['map_rule']
    lacking = isinstance(task, ClassTokenMaskingTask) and task.model.patch_head is None
    if lacking and task.hparams['map_source'] != 'attention':
        raise SettingError(
            f'source {task.hparams["map_source"]!r} needs a patch head, the model in '
            f"{checkpoint} has none; nearest: 'attention'"
        )
    datamodule = ChipDataModule(read_data(config), split)
    writer = ChipMaskWriter(str(output), datamodule.dataset_name, overwrite, images)
    _predict(task, datamodule, [writer], accelerator, progress)
    written: dict[str, Any] = {'chips': writer.chips, 'rasters': writer.rasters}
    if writer.path('masks').exists():
        confusion = _confusion(writer, len(task.class_names))
        written |= summarize(confusion, task.class_names)
    return written


def _confusion(writer: ChipMaskWriter, num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of the arrays that were written, chip by chip."""
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
    """Let Lightning predict, and turn its own exits back into ours."""
    if accelerator not in ACCELERATORS:
        raise SettingError(
            f'accelerator={accelerator!r} is unknown; needed: {", ".join(ACCELERATORS)}'
        )
    if precision not in PRECISIONS:
        raise SettingError(
            f'precision={precision!r} is unknown; needed: {", ".join(PRECISIONS)}'
            + nearest(precision, PRECISIONS)
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
            f'accelerator={accelerator!r} is not available here; nearest: auto'
        ) from error
    try:
        trainer.predict(task, datamodule=datamodule, return_predictions=False)
    except DatasetNotFoundError as error:
        raise DataError(' '.join(str(error).split())) from error
    except SystemExit:
        # Lightning turns Ctrl-C into an exit of its own
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
