"""Initial weights, from files and from TorchGeo, loaded without running code."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchgeo.models import ViTBase16_Weights, ViTSmall16_Weights, get_weight
from torchvision.models._api import WeightsEnum

from ..errors import CheckpointError, SettingError, did_you_mean
from ..files import expanded
from ..models import ClassTokenViT
from ..models.pretrained import load_pretrained
from .loading import CHECKPOINT_KEY, check_finite, load_file


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
