"""Load, save and import checkpoints of tasks."""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch

from ..errors import CheckpointError, SettingError
from ..files import atomic_path
from ..maps.decoder import MapOptions
from ..models.reference import from_reference, reference_options
from .class_token_masking import ClassTokenMaskingTask
from .loading import load_file, own_content, rebuilt
from .options import AttentionOptions, PatchOptions


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
    model = {f'model.{name}': value for name, value in weights.items()}
    task.load_state_dict(task.state_dict() | model)
    return task.eval()
