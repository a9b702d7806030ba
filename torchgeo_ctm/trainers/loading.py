"""Read checkpoints without running code from them, and without importing Lightning."""

import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, SettingError, similar_file
from .options import regrouped, with_former_defaults
from .predictor import ClassTokenPrediction
from .published import locate, read_published

#: Key that marks checkpoints of this package. Its value holds the version.
CHECKPOINT_KEY = 'torchgeo_ctm'
#: Key that marks checkpoints of a second stage. Its value holds the version.
SOFT_MASKS_KEY = 'torchgeo_ctm_soft_masks'

#: Integers up to this need no check against the number of weights.
LARGEST = 100_000

Network = TypeVar('Network', bound=nn.Module)


def load_file(path: str | Path) -> Any:
    """Load a file of ``torch.save`` with ``weights_only=True``, or a published model.

    Args:
        path: The file, the folder of a published model, or ``hf://user/name``.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe.
    """
    path = locate(path).path
    if path.is_dir():
        return read_published(path)
    if not path.is_file():
        close = similar_file(path, ('.ckpt',))
        raise CheckpointError(
            f'{path} is not a file, expected a checkpoint (.ckpt).{close}'
        )
    if not zipfile.is_zipfile(path):
        # torch writes zip archives, and its legacy reader must not see other files
        raise CheckpointError(f'{path} is not a checkpoint (.ckpt), or is incomplete.')
    _check_archive(path)
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} contains pickled Python objects, which could run code. Expected a '
            'checkpoint that torch.load opens with weights_only=True.'
        ) from error
    # a damaged pickle can raise anything
    except Exception as error:
        raise CheckpointError(
            f'{path} is not a checkpoint (.ckpt), or is incomplete.'
        ) from error


def check_finite(state: Any, path: str | Path) -> None:
    """Check that every weight of a checkpoint is a finite number.

    Args:
        state: The state dict.
        path: Name of the checkpoint, for the message.

    Raises:
        CheckpointError: If some are NaN or infinite.
    """
    broken = not_finite(state)
    if broken is not None:
        raise CheckpointError(
            f'{path} holds NaN or infinity in {broken}: training has diverged. Use an '
            'earlier checkpoint, or train again with a lower lr.'
        )


def not_finite(state: Any) -> str | None:
    """Return the name of the first tensor with a number that is not finite, or None."""
    if not isinstance(state, Mapping):
        return None
    for name, value in state.items():
        real = isinstance(value, Tensor) and value.is_floating_point()
        if real and not bool(value.isfinite().all()):
            return str(name)
    return None


def unlike_network(error: RuntimeError) -> CheckpointError:
    """Return in one line that weights are of another network.

    Args:
        error: That of PyTorch, with every key.
    """
    lines = [' '.join(line.split()) for line in str(error).splitlines()[1:]]
    first = next((line for line in lines if 'size mismatch' in line), '')
    first = first or next(iter(lines), ' '.join(str(error).split()))
    return CheckpointError(
        'The checkpoint does not fit the network of the task, which has another '
        'img_size, num_classes, model or head: use the configuration that it was '
        f'trained with ({first[:110].rstrip(".")}).'
    )


def _check_archive(path: Path) -> None:
    """Check the checksums of a zip archive, which torch.load does not.

    Raises:
        CheckpointError: If a byte changed since it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f'{path} is not a checkpoint (.ckpt), or is incomplete.'
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f'{path} is damaged: {damaged} does not have its checksum. Copy it again '
            'from where it was written.'
        )


def is_second_stage(content: Any) -> bool:
    """Return whether a checkpoint was written by SoftMaskSegmentationTask."""
    return isinstance(content, dict) and SOFT_MASKS_KEY in content


def is_segmentation(content: Any) -> bool:
    """Return whether a checkpoint was written by TorchGeo's segmentation task."""
    if not isinstance(content, dict) or CHECKPOINT_KEY in content:
        return False
    hparams = content.get('hyper_parameters')
    known = {'model', 'backbone', 'num_classes', 'ignore_index'}
    return isinstance(hparams, dict) and known <= hparams.keys()


def own_content(content: Any, path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content, checked.

    Raises:
        CheckpointError: If it is not a checkpoint of ``ClassTokenMaskingTask``.
    """
    keys = {'state_dict', 'hyper_parameters', CHECKPOINT_KEY}
    if not isinstance(content, dict) or not keys <= content.keys():
        kind = 'of another program'
        if is_second_stage(content):
            kind = 'of SoftMaskSegmentationTask, the second stage'
        elif is_segmentation(content):
            kind = "of TorchGeo's segmentation task"
        raise CheckpointError(
            f'{path} is a checkpoint {kind}, expected one of ClassTokenMaskingTask.'
        )
    return content


def rebuilt(kind: type[Network], content: dict[str, Any], path: str | Path) -> Network:
    """Return a module built from a checkpoint's hyperparameters and weights.

    Raises:
        CheckpointError: If they do not fit this version.
    """
    try:
        given = content['hyper_parameters']
        hparams = {
            key: value
            for key, value in given.items()
            if not key.startswith('_')  # added by LightningCLI for itself
        }
        if issubclass(kind, ClassTokenPrediction):
            # it holds every option that there was, so what it lacks came later
            hparams = with_former_defaults(regrouped(hparams))
        if 'weights' in hparams:
            # they would be downloaded, only to be replaced
            hparams['weights'] = None
        _check_sizes(kind, hparams, content['state_dict'])
        module = kind(**hparams)
        module.load_state_dict(content['state_dict'])
    # hyperparameters of any type can raise anything
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'{path} does not fit this version: {reason}') from error
    check_finite(module.state_dict(), path)
    return module.eval()


def _check_sizes(
    kind: type[Network], hparams: dict[str, Any], state: dict[str, Any]
) -> None:
    """Check that a network is as large as its weights, before it takes memory.

    Raises:
        SettingError: If it is not.
    """
    total = sum(value.numel() for value in state.values())
    for name, value in _integers(hparams):
        if value > max(total, LARGEST) or (name == 'depth' and value > len(state)):
            raise SettingError(f'{name}={value} is too large for {total:,} weights.')
    with torch.device('meta'):
        empty = kind(**hparams).state_dict()
    for name, tensor in empty.items():
        if name in state and state[name].layout != torch.strided:
            raise SettingError(f'{name} is a {state[name].layout} tensor.')
        if name in state and state[name].shape != tensor.shape:
            raise SettingError(
                f'{name} has the shape {tuple(state[name].shape)}, but the options of '
                f'the network make it {tuple(tensor.shape)}.'
            )


def _integers(options: Any, name: str = '') -> Iterator[tuple[str, int]]:
    """Yield the integers in nested options, with their names."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _integers(value, str(key))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _integers(value, name)
    elif isinstance(options, int) and name not in ('seed', 'mask_seed'):
        yield name, options
