"""Read checkpoints without running code from them, and without importing Lightning."""

import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..errors import CheckpointError
from .options import regrouped, with_former_defaults
from .predictor import ClassTokenPredictor

if TYPE_CHECKING:
    from .segmentation import SegmentationPredictor

#: Key that marks checkpoints of this package. Its value holds the version.
CHECKPOINT_KEY = 'torchgeo_ctm'
#: Key that marks checkpoints of a second stage. Its value holds the version.
SOFT_MASKS_KEY = 'torchgeo_ctm_soft_masks'

Network = TypeVar('Network', bound=nn.Module)


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
    content = load_file(path)
    if is_segmentation(content) or is_second_stage(content):
        from .checkpoint import segmentation_predictor

        return segmentation_predictor(content, path)
    return rebuilt(ClassTokenPredictor, own_content(content, path), path)


def load_file(path: str | Path) -> Any:
    """Load a file of ``torch.save`` with ``weights_only=True``.

    Args:
        path: The file.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} is not a file, expected a checkpoint (.ckpt).')
    if not zipfile.is_zipfile(path):
        # torch writes zip archives, and its legacy reader must not see other files
        raise CheckpointError(f'{path} is not a checkpoint, or is cut short.')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} contains pickled Python objects, which could run code. Expected a '
            'checkpoint that torch.load opens with weights_only=True.'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{path} is not a checkpoint, or is cut short.'
        ) from error


def is_second_stage(content: Any) -> bool:
    """Return whether a checkpoint was written by SoftMaskSegmentationTask."""
    return isinstance(content, dict) and SOFT_MASKS_KEY in content


def is_segmentation(content: Any) -> bool:
    """Return whether a checkpoint was written by TorchGeo's SemanticSegmentationTask."""
    if not isinstance(content, dict) or CHECKPOINT_KEY in content:
        return False
    hparams = content.get('hyper_parameters')
    known = {'model', 'backbone', 'num_classes', 'ignore_index'}
    return isinstance(hparams, dict) and known <= hparams.keys()


def own_content(content: Any, path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content, checked, with the options of today.

    Raises:
        CheckpointError: If it is not a checkpoint of ``ClassTokenMaskingTask``.
    """
    keys = {'state_dict', 'hyper_parameters', CHECKPOINT_KEY}
    if not isinstance(content, dict) or not keys <= content.keys():
        kind = 'of another program'
        if is_segmentation(content):
            kind = "of a segmentation network, TorchGeo's SemanticSegmentationTask"
        raise CheckpointError(
            f'{path} is a checkpoint {kind}, expected one of ClassTokenMaskingTask.'
        )
    # a checkpoint holds every option that there was, so what it lacks came later
    hparams = with_former_defaults(regrouped(content['hyper_parameters']))
    return content | {'hyper_parameters': hparams}


def rebuilt(kind: type[Network], content: dict[str, Any], path: str | Path) -> Network:
    """Return a module built from a checkpoint's hyperparameters and weights.

    Raises:
        CheckpointError: If they do not fit this version.
    """
    hparams = {
        key: value
        for key, value in content['hyper_parameters'].items()
        if not key.startswith('_')  # added by LightningCLI for itself
    }
    try:
        module = kind(**hparams)
        module.load_state_dict(content['state_dict'])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error
    return module.eval()
