"""Write the pseudo-masks of the chips of a configuration."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, SettingError
from ..lightning_messages import quiet_lightning
from ..split import Split
from .trainer import build_trainer, check_choices, running

if TYPE_CHECKING:
    import numpy as np
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.callbacks import Callback
    from numpy.typing import NDArray

    from ..inference.chip_writer import ChipMaskWriter


def pseudo_masks(
    config: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    split: Split = 'val',
    labels: Literal['predicted', 'true'] = 'predicted',
    source: Literal['attention', 'patches', 'patchcam', 'fused'] | None = None,
    rule: Literal['argmax', 'paint'] | None = None,
    ensemble: Literal['dihedral'] | None = None,
    accelerator: str = 'auto',
    overwrite: bool = False,
    images: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the pseudo-masks of a data set's split, as arrays and GeoTIFFs.

    Args:
        config: Configuration of ``torchgeo``; its ``data`` section says which chips.
        checkpoint: As for :func:`predict_scene`.
        output: Folder for ``pms_NAME.npy``, ``imgs_NAME.npy``, ``masks_NAME.npy``, and
            ``pms_NAME/`` with GeoTIFFs of mask and confidence for each georeferenced
            chip.
        split: Split to read: train, val or test; in order, and as evaluation crops it.
        labels: Classes taken as present in a chip: predicted ones, or the true ones of
            its label.
        source: Source of the class maps: attention, patches, patchcam or fused; by default the
            checkpoint's. For class-token checkpoints only, as is rule.
        rule: How class maps become masks: paint or argmax; by default the checkpoint's.
            The paper's paint also takes its presence threshold, and no refinement.
        ensemble: Use dihedral to average over flips and quarter turns of each chip.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        overwrite: Replace existing arrays.
        images: Write imgs_NAME.npy, by far the largest array.
        progress: Show a progress bar.

    Returns:
        ``chips`` and ``rasters``, how many were written. With true masks also what
        :func:`torchgeo_ctm.scoring.summarize` returns.

    Raises:
        CTMError: If any input cannot be used. No array is written then.
    """
    from ..configuration import read_data
    from ..datamodules import ChipDataModule
    from ..inference.chip_writer import ChipMaskWriter
    from ..scoring import summarize
    from ..trainers import load_predictor

    check_choices(accelerator)
    quiet_lightning()
    task = load_predictor(checkpoint)
    chosen = {'source': source, 'rule': rule}
    given: dict[str, Any] = {k: v for k, v in chosen.items() if v is not None}
    if rule == 'paint':
        # the defaults of a checkpoint do not go with this rule
        given |= {'presence': 'threshold', 'refinement': None}
    try:
        task.with_options(ensemble=ensemble, labels=labels, **given)
    except SettingError as error:
        raise SettingError(f'{checkpoint}: {error}') from error
    datamodule = ChipDataModule(read_data(config), split)
    writer = ChipMaskWriter(str(output), datamodule.dataset_name, overwrite, images)
    _predict(task, datamodule, [writer], accelerator, progress)
    written: dict[str, Any] = {'chips': writer.chips, 'rasters': writer.rasters}
    if not writer.chips:
        with suppress(OSError):
            # only if nothing else is in it
            writer.folder.rmdir()
        raise DataError(f'The {split} split of {config} has no chip.')
    if writer.path('masks').exists():
        confusion = _confusion(writer, len(task.class_names))
        written |= summarize(confusion, task.class_names)
    return written


def _confusion(writer: 'ChipMaskWriter', num_classes: int) -> 'NDArray[np.int64]':
    """Return the confusion matrix of the written arrays, chip by chip."""
    import numpy as np

    from ..scoring import confusion_matrix

    truth = np.load(writer.path('masks'), mmap_mode='r')
    masks = np.load(writer.path('pms'), mmap_mode='r')
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for reference, mask in zip(truth, masks, strict=True):
        confusion += confusion_matrix(reference, mask, num_classes)
    return confusion


def _predict(
    task: 'LightningModule',
    datamodule: 'LightningDataModule',
    callbacks: list['Callback'],
    accelerator: str,
    progress: bool,
) -> None:
    """Run Lightning's prediction, and re-raise its errors and exits as ours."""
    from lightning.pytorch.callbacks import TQDMProgressBar

    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    trainer = build_trainer(
        accelerator, callbacks=callbacks, enable_progress_bar=progress
    )
    with running(trainer):
        trainer.predict(task, datamodule=datamodule, return_predictions=False)
