"""Load whatever maps scenes from a checkpoint: a task, a network of stage 2, TorchGeo's.

Lightning takes longer to import than a small scene takes to map, so it is imported for
the checkpoints that need it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .loading import (
    CHECKPOINT_KEY,
    SOFT_MASKS_KEY,
    Network,
    is_second_stage,
    is_segmentation,
    load_file,
    own_content,
    rebuilt,
)
from .predictor import ClassTokenPredictor

if TYPE_CHECKING:
    from .class_token_masking import ClassTokenMaskingTask
    from .segmentation import SegmentationPredictor


def load_scene_predictor(
    path: str | Path,
) -> 'ClassTokenPredictor | SegmentationPredictor':
    """Load what predicts scenes, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint of :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`, or
            of a segmentation network, see
            :func:`~torchgeo_ctm.trainers.load_predictor`.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    return _loaded(path, ClassTokenPredictor)


def load_predictor(path: str | Path) -> 'ClassTokenMaskingTask | SegmentationPredictor':
    """Load the predictor of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint of :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`, of
            :class:`~torchgeo_ctm.trainers.SoftMaskSegmentationTask`, or of TorchGeo's
            segmentation task trained with a
            :class:`~torchgeo_ctm.datamodules.PseudoMaskDataModule`.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    from .class_token_masking import ClassTokenMaskingTask

    return _loaded(path, ClassTokenMaskingTask)


def _loaded(path: str | Path, kind: type[Network]) -> 'Network | SegmentationPredictor':
    """Return a class-token network as *kind*, or the predictor of another network."""
    content = load_file(path)
    if is_segmentation(content) or is_second_stage(content):
        return _segmentation_predictor(content, path)
    return rebuilt(kind, own_content(content, path), path)


def _segmentation_predictor(
    content: dict[str, Any], path: str | Path
) -> 'SegmentationPredictor':
    """Return the predictor of the content of a segmentation network's checkpoint.

    Raises:
        CheckpointError: If it does not name classes and bands, or does not fit.
    """
    from ..compat import SemanticSegmentation
    from .segmentation import FACTS, SegmentationPredictor

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


def _second_stage(content: dict[str, Any], path: str | Path) -> 'SegmentationPredictor':
    """Return the task of a second stage, with the teacher that its checkpoint holds."""
    from .class_token_masking import ClassTokenMaskingTask
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
