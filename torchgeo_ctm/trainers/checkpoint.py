"""Open a checkpoint of this package, and refuse every other file in one line."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .class_token_masking import CHECKPOINT_KEY, ClassTokenMaskingTask


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Args:
        path: A ``.ckpt`` that :class:`ClassTokenMaskingTask` was saved in.

    Returns:
        The checkpoint's dictionary, with ``hyper_parameters`` and ``state_dict``.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or another program's.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path} is not a file; needed: a checkpoint (.ckpt)')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(
                f'{path} is not a checkpoint, or is cut short'
            ) from error
        raise CheckpointError(
            f'{path} holds pickled Python objects and is refused: opening it could run '
            'code; needed: a checkpoint that opens with weights_only=True'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f'{path} is not a checkpoint, or is cut short') from error
    keys = {'state_dict', 'hyper_parameters', CHECKPOINT_KEY}
    if not isinstance(checkpoint, dict) or not keys <= checkpoint.keys():
        raise CheckpointError(
            f'{path} is a checkpoint of another program; needed: one that '
            'ClassTokenMaskingTask was saved in'
        )
    return checkpoint


def load_task(path: str | Path) -> ClassTokenMaskingTask:
    """Rebuild the task that a checkpoint holds, in evaluation mode, on the CPU.

    Args:
        path: The checkpoint.

    Raises:
        CheckpointError: If the file cannot be used.
    """
    checkpoint = read_checkpoint(path)
    hparams = {
        key: value
        for key, value in checkpoint['hyper_parameters'].items()
        if not key.startswith('_')  # what LightningCLI adds for itself
    }
    try:
        task = ClassTokenMaskingTask(**hparams)
        task.load_state_dict(checkpoint['state_dict'])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error
    return task.eval()
