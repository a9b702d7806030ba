"""Patch embeddings of pre-trained networks, as one kernel for a list of bands."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchgeo.models.copernicusfm import DynamicPatchEmbed
from torchgeo.models.dofa import DOFAEmbedding, position_embedding

from ..errors import BandWarning, CheckpointError
from ..scaling import band_key, is_reflectance
from .wavelengths import RADAR_DOFA, band_spectra

#: Names of the patch embedding of DOFA and of Copernicus-FM.
DOFA = 'patch_embed.'
COPERNICUS = 'patch_embed_spectral.'
GENERATOR = 'weight_generator.fc_weight.weight'


class PatchKernel(Protocol):
    """What gives the patch embedding for a list of bands."""

    #: Side of a patch in pixels.
    patch_size: int
    #: Zeros around the image in pixels.
    padding: int

    def for_bands(self, bands: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return weight (D, bands, patch, patch) and bias (D,)."""


class FixedKernel:
    """A patch embedding that has a kernel for each of its own bands."""

    padding = 0

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        bands: Sequence[str] | None,
        key: Callable[[str], str] = band_key,
    ) -> None:
        """Name the bands of a kernel.

        Args:
            weight: Weight (D, bands, patch, patch).
            bias: Bias (D,).
            bands: Names of its bands; None: unknown.
            key: Gives one key for all spellings of a band.

        Raises:
            CheckpointError: If there is not one name for each.
        """
        if bands is not None and len(bands) != weight.shape[1]:
            raise CheckpointError(
                f'{len(bands)} band names for weights of {weight.shape[1]} bands'
            )
        self.weight, self.bias, self.key = weight, bias, key
        self.patch_size = int(weight.shape[-1])
        self.bands = None if bands is None else list(bands)

    def for_bands(self, bands: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the kernel for other bands.

        A band that was not there in pre-training takes the mean of those that were.

        Raises:
            CheckpointError: If none was there, or names are unknown.
        """
        if self.bands is None:
            if self.weight.shape[1] != len(bands):
                raise CheckpointError(
                    f'the weights take {self.weight.shape[1]} bands, the network '
                    f'{len(bands)}, and the names of the former are unknown'
                )
            return self.weight, self.bias
        own = [self.key(band) for band in self.bands]
        missing = [band for band in bands if self.key(band) not in own]
        if len(missing) == len(bands):
            raise CheckpointError(
                f'the weights have the bands {", ".join(self.bands)}, the network '
                f'{", ".join(bands)}: they share none'
            )
        if missing:
            asked = {self.key(band) for band in bands}
            dropped = [band for band in self.bands if self.key(band) not in asked]
            warnings.warn(
                f'The weights do not have {", ".join(missing)}: the mean of their bands '
                f'takes its place. Not used: {", ".join(dropped) or "none"}.',
                BandWarning,
                stacklevel=2,
            )
        mean = self.weight.mean(dim=1)
        columns = [
            self.weight[:, own.index(self.key(b))] if self.key(b) in own else mean
            for b in bands
        ]
        return torch.stack(columns, dim=1), self.bias

    def joined(self, other: 'FixedKernel') -> 'FixedKernel':
        """Return a kernel with the columns of another for bands that this one lacks.

        Raises:
            CheckpointError: If names are unknown, or widths or patches differ.
        """
        if self.bands is None or other.bands is None:
            raise CheckpointError('weights are joined by band names, which are unknown')
        if (len(self.bias), self.patch_size) != (len(other.bias), other.patch_size):
            raise CheckpointError(
                f'weights of width {len(self.bias)} and patches of {self.patch_size} px '
                f'cannot be joined with width {len(other.bias)} and '
                f'{other.patch_size} px'
            )
        own = {self.key(band) for band in self.bands}
        new = [i for i, band in enumerate(other.bands) if self.key(band) not in own]
        weight = torch.cat([self.weight, other.weight[:, new]], dim=1)
        names = self.bands + [other.bands[index] for index in new]
        return FixedKernel(weight, self.bias, names, self.key)


class GeneratedKernel:
    """A patch embedding that DOFA or Copernicus-FM generates from wavelengths.

    For a list of bands it is one kernel, which this class evaluates once.
    """

    padding = 1

    def __init__(
        self, state: Mapping[str, Tensor], wavelengths: Mapping[str, float] | None
    ) -> None:
        """Build the generator.

        Args:
            state: State dict of the network.
            wavelengths: Centers in micrometers of bands whose names are unknown.
        """
        prefix = COPERNICUS if COPERNICUS + GENERATOR in state else DOFA
        own = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        outputs, inputs = own[GENERATOR].shape
        width = own['weight_generator.fc_bias.weight'].shape[0]
        self.patch_size = math.isqrt(outputs // width)
        self.wavelengths = wavelengths
        self.embedding: Any
        if prefix == COPERNICUS:
            self.embedding = DynamicPatchEmbed(inputs, self.patch_size, width)
        else:
            self.embedding = DOFAEmbedding(inputs, self.patch_size, width)
        self.embedding.load_state_dict(own)
        self.embedding.eval()

    def for_bands(self, bands: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the kernel for a list of bands.

        Raises:
            SettingError: If the wavelength of a band is unknown.
        """
        embedding = self.embedding
        with torch.no_grad():
            waves = embedding.fclayer(self._waves(bands))
            weight, bias = embedding.weight_generator(waves)
        side = self.patch_size
        kernel: Tensor = weight.view(len(bands), side, side, -1).permute(3, 0, 1, 2)
        scaler = embedding.scaler
        return (kernel * scaler).contiguous(), bias.view(-1) * scaler

    def _waves(self, bands: Sequence[str]) -> Tensor:
        """Return the bands' wavelengths as the generator takes them."""
        spectra = band_spectra(bands, self.wavelengths)
        if isinstance(self.embedding, DOFAEmbedding):
            centers = [
                spectrum.center if is_reflectance(band) else RADAR_DOFA
                for band, spectrum in zip(bands, spectra, strict=True)
            ]
            waves: Tensor = position_embedding(
                self.embedding.dynamic_embed_dim, torch.tensor(centers) * 1000
            )
            return waves
        # nanometers
        centers_nm = torch.tensor([1000 * spectrum.center for spectrum in spectra])
        widths_nm = torch.tensor([1000 * spectrum.width for spectrum in spectra])
        size = self.embedding.hyper_dim
        expanded: Tensor = self.embedding.spectrum_central_expansion(centers_nm, size)
        expanded = expanded + self.embedding.spectrum_bandwidth_expansion(
            widths_nm, size
        )
        return expanded


def patch_kernel(
    state: Mapping[str, Tensor],
    bands: Sequence[str] | None,
    wavelengths: Mapping[str, float] | None,
) -> PatchKernel | None:
    """Return the patch embedding of a pre-trained network, None if it has none.

    Args:
        state: Its state dict.
        bands: Names of the bands that it was trained with; None: unknown.
        wavelengths: Centers in micrometers of bands whose names are unknown.
    """
    if DOFA + GENERATOR in state or COPERNICUS + GENERATOR in state:
        return GeneratedKernel(state, wavelengths)
    weight, bias = (
        state.get(f'patch_embed.proj.{part}') for part in ('weight', 'bias')
    )
    if weight is None or weight.ndim != 4:
        return None
    return FixedKernel(
        weight, weight.new_zeros(len(weight)) if bias is None else bias, bands
    )
