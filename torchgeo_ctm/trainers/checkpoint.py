"""Checkpoints: load, save and import them, without running code from the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torchgeo.trainers import SemanticSegmentationTask

from ..errors import CheckpointError, SettingError
from ..files import atomic_path
from ..maps.decoder import MapOptions
from ..models.reference import from_reference, reference_options
from .class_token_masking import ClassTokenMaskingTask
from .options import AttentionOptions, PatchOptions, regrouped, with_former_defaults
from .segmentation import FACTS, SegmentationPredictor
from .weights import CHECKPOINT_KEY, SOFT_MASKS_KEY, check_finite, load_file


def load_task(path: str | Path) -> ClassTokenMaskingTask:
    """Load the task of a checkpoint, in evaluation mode, on the CPU.

    Checkpoints of version 0.1 are accepted.

    Args:
        path: A ``.ckpt`` of :class:`ClassTokenMaskingTask`.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe, or the checkpoint of
            something else.
    """
    return _task(load_file(path), path)


def load_predictor(path: str | Path) -> ClassTokenMaskingTask | SegmentationPredictor:
    """Load the predictor of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint of :class:`ClassTokenMaskingTask`, of
            :class:`~torchgeo_ctm.trainers.SoftMaskSegmentationTask`, or of TorchGeo's
            ``SemanticSegmentationTask`` trained with a
            :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule`.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    content = load_file(path)
    if isinstance(content, dict) and SOFT_MASKS_KEY in content:
        return _second_stage(content, path)
    if not _is_segmentation(content):
        return _task(content, path)
    entries = [entry for entry in content.values() if isinstance(entry, dict)]
    facts = [entry for entry in entries if entry.keys() >= FACTS]
    if not facts or not facts[0]['class_names']:
        raise CheckpointError(
            f'{path} is a segmentation network without names of classes and bands. '
            'Train it with torchgeo_ctm.datamodules.PseudoMaskDataModule.'
        )
    task = _rebuilt(SemanticSegmentationTask, content, path)
    try:
        return SegmentationPredictor(task, facts[0]).eval()
    except ValueError as error:
        raise CheckpointError(f'{path} does not fit this version: {error}') from error


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
    teacher = {
        'hyper_parameters': entry['teacher'],
        'state_dict': weights,
        CHECKPOINT_KEY: {'version': entry['version']},
    }
    hparams = content['hyper_parameters'] | {'teacher': _task(teacher, path)}
    return _rebuilt(
        SoftMaskSegmentationTask, content | {'hyper_parameters': hparams}, path
    )


def _is_segmentation(content: Any) -> bool:
    """Return whether a checkpoint was written by TorchGeo's SemanticSegmentationTask."""
    if not isinstance(content, dict) or CHECKPOINT_KEY in content:
        return False
    hparams = content.get('hyper_parameters')
    known = {'model', 'backbone', 'num_classes', 'ignore_index'}
    return isinstance(hparams, dict) and known <= hparams.keys()


def _task(content: Any, path: str | Path) -> ClassTokenMaskingTask:
    """Return the task of a checkpoint's content."""
    keys = {'state_dict', 'hyper_parameters', CHECKPOINT_KEY}
    if not isinstance(content, dict) or not keys <= content.keys():
        kind = 'of another program'
        if _is_segmentation(content):
            kind = "of a segmentation network, TorchGeo's SemanticSegmentationTask"
        raise CheckpointError(
            f'{path} is a checkpoint {kind}, expected one of ClassTokenMaskingTask.'
        )
    # a checkpoint holds every option that there was, so what it lacks came later
    hparams = with_former_defaults(regrouped(content['hyper_parameters']))
    content = content | {'hyper_parameters': hparams}
    return _rebuilt(ClassTokenMaskingTask, content, path)


Task = TypeVar('Task', bound=pl.LightningModule)


def _rebuilt(kind: type[Task], content: dict[str, Any], path: str | Path) -> Task:
    """Return a task built from a checkpoint's hyperparameters and weights."""
    hparams = {
        key: value
        for key, value in content['hyper_parameters'].items()
        if not key.startswith('_')  # added by LightningCLI for itself
    }
    check_finite(content['state_dict'], path)
    try:
        task = kind(**hparams)
        task.load_state_dict(content['state_dict'])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error
    return task.eval()


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
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(f'{path} contains no state dict.')
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
