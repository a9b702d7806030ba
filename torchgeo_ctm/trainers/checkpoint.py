"""Open a checkpoint of this package, and refuse every other file in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torchgeo.trainers import SemanticSegmentationTask

from ..errors import CheckpointError, SettingError
from ..files import atomic_path
from ..models.reference import from_reference, reference_options
from .class_token_masking import ClassTokenMaskingTask
from .segmentation import FACTS, SegmentationPredictor
from .weights import CHECKPOINT_KEY, load_file


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package.

    Args:
        path: A ``.ckpt`` that :class:`ClassTokenMaskingTask` was saved in.

    Returns:
        The checkpoint's dictionary, with ``hyper_parameters`` and ``state_dict``.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or another program's.
    """
    checkpoint = load_file(path)
    keys = {'state_dict', 'hyper_parameters', CHECKPOINT_KEY}
    if not isinstance(checkpoint, dict) or not keys <= checkpoint.keys():
        kind = 'of another program'
        if _is_segmentation(checkpoint):
            kind = "of a segmentation network, TorchGeo's SemanticSegmentationTask"
        raise CheckpointError(
            f'{path} is a checkpoint {kind}; needed: one that ClassTokenMaskingTask '
            'was saved in'
        )
    return checkpoint


def _is_segmentation(checkpoint: Any) -> bool:
    """Tell whether a checkpoint is one of TorchGeo's SemanticSegmentationTask."""
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY in checkpoint:
        return False
    hparams = checkpoint.get('hyper_parameters')
    known = {'model', 'backbone', 'num_classes', 'ignore_index'}
    return isinstance(hparams, dict) and known <= hparams.keys()


def load_task(path: str | Path) -> ClassTokenMaskingTask:
    """Rebuild the task that a checkpoint holds, in evaluation mode, on the CPU.

    Args:
        path: The checkpoint.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    return _rebuilt(ClassTokenMaskingTask, read_checkpoint(path), path)


def load_predictor(path: str | Path) -> ClassTokenMaskingTask | SegmentationPredictor:
    """Rebuild what a checkpoint maps scenes with, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint of :class:`ClassTokenMaskingTask`, or of TorchGeo's
            ``SemanticSegmentationTask`` trained over a
            :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule`.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    checkpoint = load_file(path)
    if not _is_segmentation(checkpoint):
        return load_task(path)
    entries = [v for v in checkpoint.values() if isinstance(v, dict)]
    facts = [entry for entry in entries if entry.keys() >= FACTS]
    if not facts or not facts[0]['class_names']:
        raise CheckpointError(
            f'{path} is a segmentation network without names of classes and bands; '
            'needed: one trained over torchgeo_ctm.datamodules.PseudoMaskDataModule'
        )
    task = _rebuilt(SemanticSegmentationTask, checkpoint, path)
    try:
        return SegmentationPredictor(task, facts[0]).eval()
    except ValueError as error:
        raise CheckpointError(f'{path} does not fit this version: {error}') from error


Task = TypeVar('Task', bound=pl.LightningModule)


def _rebuilt(kind: type[Task], checkpoint: dict[str, Any], path: str | Path) -> Task:
    """Rebuild a task from a checkpoint's hyperparameters and weights."""
    hparams = {
        key: value
        for key, value in checkpoint['hyper_parameters'].items()
        if not key.startswith('_')  # what LightningCLI adds for itself
    }
    try:
        task = kind(**hparams)
        task.load_state_dict(checkpoint['state_dict'])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error
    return task.eval()


def save_task(task: ClassTokenMaskingTask, path: str | Path) -> None:
    """Write a task as Lightning writes it, complete or not at all.

    Args:
        task: The task.
        path: The ``.ckpt`` to write.
    """
    trainer = pl.Trainer(
        accelerator='cpu',
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(task)
    with atomic_path(path) as temporary:
        trainer.save_checkpoint(temporary)


def import_reference(
    path: str | Path,
    bands: Sequence[str],
    class_names: Sequence[str],
    num_heads: int = 16,
    img_size: tuple[int, int] | None = None,
) -> ClassTokenMaskingTask:
    """Make a task of a checkpoint of the paper's released code.

    It scales, maps and paints as the reference does: each band by its own maximum in
    the chip, attention of all blocks, rule 'paint', presence above 0.5.

    Args:
        path: The reference's Lightning checkpoint, or its bare state dict.
        bands: Names of the bands it was trained with, in order.
        class_names: Names of its classes, in order.
        num_heads: Heads of a block.
        img_size: Height and width in pixels, for training images that were no square.

    Raises:
        CheckpointError: If the file is damaged, unsafe or another network's.
        SettingError: If the number of bands or classes differs.
    """
    content = load_file(path)
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(f'{path} holds no state dict')
    try:
        options = reference_options(state, num_heads, img_size)
        weights = from_reference(state, num_heads, img_size).state_dict()
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
    for what, given, key in (
        ('bands', bands, 'in_chans'),
        ('classes', class_names, 'num_classes'),
    ):
        if len(given) != options[key]:
            raise SettingError(
                f'{len(given)} {what} were named, the network in {path} has '
                f'{options[key]}'
            )
    size = options.pop('img_size')
    del options['in_chans'], options['num_classes'], options['patch_head']
    task = ClassTokenMaskingTask(
        model='ctm_vit_base_patch16_224',
        in_channels=len(bands),
        num_classes=len(class_names),
        img_size=size[0] if size[0] == size[1] else size,
        model_options=options,
        class_names=list(class_names),
        bands=list(bands),
        scaling={'method': 'per_chip_maximum', 'clip': [0.0, 10000.0]},
        patch_loss_weight=0.0,
        map_source='attention',
        map_rule='paint',
    )
    task.model.load_state_dict(weights)
    return task.eval()
