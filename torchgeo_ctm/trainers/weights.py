"""Initial weights, from files and from TorchGeo, loaded without running code."""

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torchgeo.models
from torch import Tensor
from torchgeo.models import get_weight
from torchvision.models._api import WeightsEnum

from ..errors import BandWarning, CheckpointError, SettingError, did_you_mean
from ..files import expanded
from ..models import ClassTokenViT
from ..models.patch_kernels import FixedKernel, PatchKernel
from ..models.pretrained import PlainViT, plain_vit, start_from
from ..models.wavelengths import landsat_key, like_landsat
from ..network.variants import VARIANTS
from .loading import CHECKPOINT_KEY, check_finite, is_second_stage, load_file

#: Names that bands of Sentinel-2 have, and those of Landsat have not.
SENTINEL2_ALONE = re.compile(r'B0\d|B8A')
#: TorchGeo's weights that a network can start from.
KINDS: tuple[Any, ...] = (
    torchgeo.models.ViTSmall16_Weights,
    torchgeo.models.ViTBase16_Weights,
    torchgeo.models.ViTLarge16_Weights,
    torchgeo.models.ViTHuge14_Weights,
    torchgeo.models.ViTSmall14_DINOv2_Weights,
    torchgeo.models.ViTBase14_DINOv2_Weights,
    torchgeo.models.DOFABase16_Weights,
    torchgeo.models.DOFALarge16_Weights,
    torchgeo.models.CopernicusFM_Base_Weights,
)


@dataclass(frozen=True)
class Start:
    """Initial weights that are read, and the network that they fit."""

    #: Where they come from, for messages.
    source: str
    #: A pre-trained vision transformer; None for a checkpoint of this package.
    vit: PlainViT | None
    #: State dict and hyperparameters of a checkpoint of this package.
    own: Mapping[str, Any] | None = None

    def network(
        self, model: str | None, options: Mapping[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        """Return name and options of a network that fits.

        Args:
            model: Name of the network; None: as large as the weights.
            options: Its options, which take precedence.
        """
        given = dict(options or {})
        if self.vit is None:
            hparams = (self.own or {}).get('hyper_parameters', {})
            if model is None and 'model' in hparams:
                return hparams['model'], (hparams.get('model_options') or {}) | given
            return model or DEFAULT, given
        found: dict[str, Any] = {}
        if model is None:
            model, found = self.vit.sizes()
        patch_size = (VARIANTS.get(model, {}) | found | given).get('patch_size', 0)
        return model, found | self.vit.details(patch_size) | given

    def load(self, model: ClassTokenViT, bands: Sequence[str]) -> list[str]:
        """Put the weights into a network with its initial values.

        Returns:
            Names of the parameters that keep their initial values.

        Raises:
            CheckpointError: If the weights do not fit the network.
        """
        if self.vit is None:
            return _load_own(model, (self.own or {})['state_dict'], self.source)
        self._check_sensor(bands)
        try:
            return start_from(model, self.vit, bands)
        except CheckpointError as error:
            raise CheckpointError(f'{self.source}: {error}') from error

    def _check_sensor(self, bands: Sequence[str]) -> None:
        """Check that bands of Landsat are not matched to those of Sentinel-2.

        Both number their bands, and B5 is another wavelength than B05. Names that are
        rather Landsat's cause a warning where they are taken for Sentinel-2's.

        Raises:
            CheckpointError: If the names of the network's bands are Sentinel-2's.
        """
        found = [band for band in bands if SENTINEL2_ALONE.fullmatch(band)]
        if 'landsat' not in _title(self.source):
            if like_landsat(bands):
                warnings.warn(
                    f'{", ".join(bands)} are taken for the bands of Sentinel-2. If they '
                    "are Landsat's, name them SR_B5 or L8_B5.",
                    BandWarning,
                    stacklevel=2,
                )
        elif found:
            raise CheckpointError(
                f'{self.source} has bands of Landsat, but {", ".join(found)} are those '
                'of Sentinel-2, whose numbers mean other wavelengths. See '
                'torchgeo-ctm weights.'
            )

    @property
    def kernel(self) -> PatchKernel | None:
        """Patch embedding by band, or None for a checkpoint of this package."""
        return None if self.vit is None else self.vit.kernel


#: The network of a task without a name and without weights.
DEFAULT = 'ctm_vit_small_patch8_224'


def read_start(weights: Any, wavelengths: Mapping[str, float] | None = None) -> Start:
    """Read initial weights.

    Args:
        weights: A TorchGeo weight or its name (``ViTSmall16_Weights.SENTINEL2_ALL_DINO``),
            a checkpoint of this package, or a file with the state dict of a vision
            transformer. Of several, the first gives everything but the columns of
            bands that it does not have.
        wavelengths: Centers in micrometers of bands whose names are unknown, for DOFA
            and Copernicus-FM.

    Raises:
        CheckpointError: If they cannot be read, or are of another architecture.
        SettingError: If *weights* is neither a file nor a name.
    """
    if isinstance(weights, str | WeightsEnum):
        return _read_one(weights, wavelengths)
    starts = [_read_one(each, wavelengths) for each in weights]
    if not starts:
        raise SettingError('weights is an empty list, expected names or files.')
    first = starts[0]
    for other in starts[1:]:
        kernels = [start.vit.kernel if start.vit else None for start in (first, other)]
        if not all(isinstance(kernel, FixedKernel) for kernel in kernels):
            raise SettingError(
                f'{first.source} and {other.source} cannot be joined: only plain vision '
                'transformers have columns of bands. Name one of them.'
            )
        one, two = cast(list[FixedKernel], kernels)
        try:
            joined = one.joined(two)
        except CheckpointError as error:
            raise CheckpointError(f'{first.source}, {other.source}: {error}') from error
        first = replace(first, vit=replace(cast(PlainViT, first.vit), kernel=joined))
    return first


def check_weights(weights: WeightsEnum | str | Sequence[str] | None) -> None:
    """Check that weights are files or names, without reading or downloading any.

    Raises:
        SettingError: If one is neither.
    """
    several = weights if isinstance(weights, list | tuple) else [weights]
    for each in several:
        if isinstance(each, str) and not expanded(each).is_file():
            _named(each)


def _read_one(
    weights: WeightsEnum | str, wavelengths: Mapping[str, float] | None
) -> Start:
    """Read a file or a TorchGeo weight."""
    if isinstance(weights, str) and expanded(weights).is_file():
        content = load_file(weights)
        if isinstance(content, dict):
            check_finite(content.get('state_dict', content), weights)
        if isinstance(content, dict) and CHECKPOINT_KEY in content:
            return Start(weights, None, content)
        if is_second_stage(content):
            raise CheckpointError(
                f'{weights} is a checkpoint of SoftMaskSegmentationTask, the second '
                'stage, expected one of ClassTokenMaskingTask.'
            )
        state = content.get('state_dict', content) if isinstance(content, dict) else {}
        return _plain(weights, state, _bands_of(Path(weights).name), wavelengths)
    weight = weights if isinstance(weights, WeightsEnum) else _named(weights)
    if not isinstance(weight, KINDS):
        raise SettingError(
            f'{weight} is not of a vision transformer that class tokens can start from. '
            'See torchgeo-ctm weights.'
        )
    return _plain(
        str(weight), _downloaded(weight), weight.meta.get('bands'), wavelengths
    )


def _plain(
    source: str,
    state: Mapping[str, Tensor],
    bands: Sequence[str] | None,
    wavelengths: Mapping[str, float] | None,
) -> Start:
    """Return a start from a state dict."""
    try:
        vit = plain_vit(state, bands, wavelengths)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}') from error
    # TM and ETM number other wavelengths
    if isinstance(vit.kernel, FixedKernel) and 'landsat_oli' in _title(source):
        vit.kernel.key = landsat_key
    return Start(source, vit)


def _title(source: str) -> str:
    """Return the name of a weight or of a file in lower case."""
    return Path(source).name.lower()


def _named(name: str) -> WeightsEnum:
    """Return a TorchGeo weight by name.

    Raises:
        SettingError: If there is none.
    """
    try:
        return get_weight(name)
    except ValueError as error:
        names = [str(weight) for kind in KINDS for weight in kind]
        raise SettingError(
            f'weights={name!r} is neither a file nor the name of a TorchGeo '
            f'weight.{did_you_mean(name, names)}'
        ) from error


def _bands_of(file: str) -> Sequence[str] | None:
    """Return the bands of the TorchGeo weight that is published as a file, or None."""
    for kind in KINDS:
        for weight in kind:
            if weight.url.rpartition('/')[2] == file:
                bands: Sequence[str] | None = weight.meta.get('bands')
                return bands
    return None


def _downloaded(weight: WeightsEnum) -> Mapping[str, Tensor]:
    """Return the state dict of a TorchGeo weight, from the cache where it is there.

    Raises:
        CheckpointError: If it cannot be downloaded, or the file is damaged.
    """
    file = weight.url.rpartition('/')[2]
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / file
    there = cached.is_file()
    try:
        state: Mapping[str, Tensor] = weight.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    # a damaged file can raise anything; what cannot be downloaded, an OSError
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        if there or (cached.is_file() and not isinstance(error, OSError)):
            raise CheckpointError(
                f'{cached} of {weight} is damaged or cut short: {reason}. Delete it and '
                'run the command again.'
            ) from error
        raise CheckpointError(
            f'{file} of {weight} cannot be downloaded: {reason}. Download {weight.url} '
            f'elsewhere and put it into {cached.parent}.'
        ) from error
    return state


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
        raise CheckpointError(
            f'{path} does not fit the network, which must have its img_size, '
            f'num_classes, in_channels and model: {reason}'
        ) from error
    return []
