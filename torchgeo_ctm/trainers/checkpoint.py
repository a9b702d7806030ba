"""Load, save and import checkpoints of tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ..compat import SemanticSegmentation
from ..errors import CheckpointError, SettingError
from ..files import atomic_path
from ..maps.decoder import MapOptions
from ..models.reference import from_reference, reference_options
from .class_token_masking import ClassTokenMaskingTask
from .loading import (
    CHECKPOINT_KEY,
    SOFT_MASKS_KEY,
    is_second_stage,
    is_segmentation,
    load_file,
    own_content,
    rebuilt,
)
from .options import AttentionOptions, PatchOptions
from .segmentation import FACTS, SegmentationPredictor


def load_task(path: str | Path) -> ClassTokenMaskingTask:
    """Load the task of a checkpoint, in evaluation mode, on the CPU.

    Checkpoints of version 0.1 are accepted.

    Args:
        path: A ``.ckpt`` of :class:`ClassTokenMaskingTask`.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe, or the checkpoint of
            something else.
    """
    return rebuilt(ClassTokenMaskingTask, own_content(load_file(path), path), path)


def load_predictor(path: str | Path) -> ClassTokenMaskingTask | SegmentationPredictor:
    """Load the predictor of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint of :class:`ClassTokenMaskingTask`, of
            :class:`~torchgeo_ctm.trainers.SoftMaskSegmentationTask`, or of TorchGeo's
            segmentation task trained with a
            :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule`.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    content = load_file(path)
    if is_segmentation(content) or is_second_stage(content):
        return segmentation_predictor(content, path)
    return rebuilt(ClassTokenMaskingTask, own_content(content, path), path)


def segmentation_predictor(
    content: dict[str, Any], path: str | Path
) -> SegmentationPredictor:
    """Return the predictor of the content of a segmentation network's checkpoint.

    Raises:
        CheckpointError: If it does not name classes and bands, or does not fit.
    """
    if is_second_stage(content):
        return _second_stage(content, path)
    entries = [entry for entry in content.values() if isinstance(entry, dict)]
    facts = [entry for entry in entries if entry.keys() >= FACTS]
    if not facts or not facts[0]['class_names']:
        raise CheckpointError(
            f'{path} is a segmentation network without names of classes and bands. '
            'Train it with torchgeo_ctm.datamodules.PseudoMaskDataModule.'
        )
    task = rebuilt(SemanticSegmentation, content, path)
    try:
        return SegmentationPredictor(task, facts[0]).eval()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error


def _second_stage(content: dict[str, Any], path: str | Path) -> SegmentationPredictor:
    """Return the task of a second stage, with the teacher that its checkpoint holds."""
    # it builds on load_task
    from .soft_masks import SoftMaskSegmentationTask

    prefix, entry = 'teacher.', content[SOFT_MASKS_KEY]
    weights = {
        name.removeprefix(prefix): value
        for name, value in content['state_dict'].items()
        if name.startswith(prefix)
    }
    inner = {
        'hyper_parameters': entry['teacher'],
        'state_dict': weights,
        CHECKPOINT_KEY: {'version': entry['version']},
    }
    teacher = rebuilt(ClassTokenMaskingTask, own_content(inner, path), path)
    hparams = content['hyper_parameters'] | {'teacher': teacher}
    return rebuilt(
        SoftMaskSegmentationTask, content | {'hyper_parameters': hparams}, path
    )


def save_task(task: ClassTokenMaskingTask, path: str | Path) -> None:
    """Write a checkpoint as Lightning does, atomically.

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
    """Return a task with the weights of a checkpoint of the paper's released code.

    It scales and maps as the reference does: each band by its own maximum in the chip,
    attention of all blocks, rule 'paint', presence above 0.5.

    Args:
        path: The reference's Lightning checkpoint, or its bare state dict.
        bands: Names of the bands of its training data, in order.
        class_names: Names of its classes, in order.
        num_heads: Heads per block.
        img_size: Height and width in pixels, if training images were not square.

    Raises:
        CheckpointError: If the file is damaged, unsafe, or of another network.
        SettingError: If the number of bands or classes differs.
    """
    content = load_file(path)
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state.items()
    ):
        raise CheckpointError(f'{path} contains no state dict.')
    try:
        options = reference_options(state, num_heads, img_size)
        weights = from_reference(state, num_heads, img_size).state_dict()
    # tensors of any shape can raise anything
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'{path}: {reason}') from error
    for what, given, key in (
        ('bands', bands, 'in_chans'),
        ('classes', class_names, 'num_classes'),
    ):
        if len(given) != options[key]:
            raise SettingError(
                f'Got names of {len(given)} {what}, but the network in {path} has '
                f'{options[key]}.'
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
        maps=MapOptions(
            source='attention', rule='paint', presence='threshold', refinement=None
        ),
        patches=PatchOptions(loss_weight=0.0, balance=0.0),
        attention=AttentionOptions(distillation_weight=0.0),
    )
    task.model.load_state_dict(weights)
    return task.eval()
