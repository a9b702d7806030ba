"""Initial weights, from files and from TorchGeo, loaded without running code."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchgeo.models import ViTBase16_Weights, ViTSmall16_Weights, get_weight
from torchvision.models._api import WeightsEnum

from ..errors import CheckpointError, SettingError, did_you_mean
from ..files import expanded
from ..models import ClassTokenViT
from ..models.pretrained import load_pretrained

#: Key that marks checkpoints of this package. Its value holds the version.
CHECKPOINT_KEY = 'torchgeo_ctm'
#: Key that marks checkpoints of a second stage. Its value holds the version.
SOFT_MASKS_KEY = 'torchgeo_ctm_soft_masks'


def load_file(path: str | Path) -> Any:
    """Load a file of ``torch.save`` with ``weights_only=True``.

    Args:
        path: The file.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe.
    """
    path = expanded(path)
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


def load_weights(
    model: ClassTokenViT, weights: WeightsEnum | str, bands: Sequence[str]
) -> list[str]:
    """Load initial weights into a network.

    Args:
        model: The network, with its initial values.
        weights: A TorchGeo weight or its name (``ViTSmall16_Weights.SENTINEL2_ALL_DINO``),
            a checkpoint of this package, or a file with a timm ViT's state dict.
        bands: Names of the network's bands.

    Returns:
        Names of the parameters that keep their initial values.

    Raises:
        CheckpointError: If the weights do not fit the network.
        SettingError: If *weights* is neither a file nor a name.
    """
    if isinstance(weights, str) and expanded(weights).is_file():
        content = load_file(weights)
        if isinstance(content, dict):
            check_finite(content.get('state_dict', content), weights)
        if isinstance(content, dict) and CHECKPOINT_KEY in content:
            return _load_own(model, content['state_dict'], weights)
        state = content.get('state_dict', content) if isinstance(content, dict) else {}
        return load_pretrained(model, state, bands)
    if isinstance(weights, str):
        try:
            weights = get_weight(weights)
        except ValueError as error:
            names = [str(w) for kind in KINDS for w in kind]
            raise SettingError(
                f'weights={weights!r} is neither a file nor the name of a TorchGeo '
                f'weight.{did_you_mean(str(weights), names)}'
            ) from error
    state = weights.get_state_dict(progress=True)
    return load_pretrained(model, state, bands, weights.meta.get('bands'))


#: TorchGeo's weights of plain vision transformers with patches of 16 px.
KINDS: tuple[Any, ...] = (ViTSmall16_Weights, ViTBase16_Weights)


def _load_own(model: ClassTokenViT, state: dict[str, Tensor], path: str) -> list[str]:
    """Load the network of a checkpoint of this package."""
    own = {
        name.removeprefix('model.'): value
        for name, value in state.items()
        if name.startswith('model.')
    }
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(f'{path} does not fit the network: {reason}') from error
    return []
