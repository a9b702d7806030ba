"""A scene and a checkpoint in, the products of the scene out."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from .datamodules import SceneDataModule
from .errors import SettingError
from .inference.geotiff import check_not_input, product_path
from .inference.writer import PseudoMaskWriter
from .trainers import load_task

ACCELERATORS = ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu')


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
    batch_size: int = 8,
    num_workers: int = 0,
    scene_bands: Sequence[str] | None = None,
    accelerator: str = 'auto',
    overwrite: bool = False,
    confidence: bool = True,
    picture: bool = True,
    progress: bool = True,
) -> list[Path]:
    """Write the georeferenced pseudo-mask of a scene.

    Builds the same objects as ``torchgeo predict --config configs/scene.yaml``.

    Args:
        scene: Raster with the bands the checkpoint needs; any format GDAL opens.
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`.
        output: Class raster to write (.tif); the other products lie beside it.
        window: Side of a window in pixels; None: the training chip's.
        stride: Distance between windows in pixels; None: half a window.
        batch_size: Windows per batch.
        num_workers: Processes that read windows.
        scene_bands: Names of the scene's bands in file order, if its own descriptions
            are missing or wrong.
        accelerator: Where to compute, in Lightning's words.
        overwrite: Replace existing products.
        confidence: Write ``OUT_confidence.tif``, in per cent.
        picture: Write ``OUT.png``.
        progress: Show a progress bar.

    Returns:
        The products' paths, the class raster first.

    Raises:
        CTMError: If anything given cannot be used; nothing is written then.
    """
    if accelerator not in ACCELERATORS:
        raise SettingError(
            f'accelerator={accelerator!r} is unknown; needed: {", ".join(ACCELERATORS)}'
        )
    if batch_size < 1:
        raise SettingError(f'batch_size={batch_size} is too small; nearest: 1')
    if num_workers < 0:
        raise SettingError(f'num_workers={num_workers} is too small; nearest: 0')
    check_not_input(output, scene)
    quiet_lightning()
    task = load_task(checkpoint)
    writer = PseudoMaskWriter(str(output), overwrite, confidence, picture)
    datamodule = SceneDataModule(
        str(scene), batch_size, num_workers, window, stride, scene_bands
    )
    callbacks: list[Callback] = [writer]
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
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
    except SystemExit:
        # Lightning turns Ctrl-C into an exit of its own
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    products = [writer.output]
    if confidence:
        products.append(product_path(writer.output, 'confidence'))
    if picture:
        products.append(product_path(writer.output, '', '.png'))
    return products
