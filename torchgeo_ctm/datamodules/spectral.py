"""Vary the reflectance of training chips, as other days and places would."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..scaling import band_key, haze_weights, is_reflectance
from .augment import Batch

#: Standard deviation of the contrast of a chip.
CONTRAST = 0.1
#: Standard deviation of the shift of a band, in its own standard deviations.
SHIFT = 0.05
#: Standard deviation of the haze, reflectance × 10,000 at the shortest wavelengths.
HAZE_LEVEL = 80.0
#: Standard deviation of the logarithmic gain of near and of shortwave infrared.
SEASON = 0.2
#: Bands that brighten and darken together from season to season.
SEASONAL = (('B06', 'B07', 'B08', 'B8A'), ('B11', 'B12'))


class SpectralJitter(nn.Module):
    """Vary contrast, brightness, haze and season of chips at random.

    Each chip gets a haze that falls from blue to shortwave infrared, a gain of near and
    of shortwave infrared, and a contrast about the mean of the batch; each band of it
    is shifted by a part of the band's standard deviation in the batch. A model that has
    seen these maps scenes of other days and places better than one that trusts the
    exact values of its training data. For reflectance × 10,000. Random numbers come
    from PyTorch's global generator, so that a seed repeats them.
    """

    haze: Tensor
    seasonal: Tensor
    optical: Tensor

    def __init__(self, bands: Sequence[str], strength: float = 1.0) -> None:
        """Initialize a new SpectralJitter instance.

        Args:
            bands: Names of the bands. Those of radar stay as they are.
            strength: Factor of all standard deviations; 0 changes nothing.

        Raises:
            SettingError: If *strength* is negative.
        """
        super().__init__()
        if strength < 0:
            raise SettingError(f'spectral_jitter must be 0 or more, got {strength}.')
        self.strength = strength
        keys = [band_key(band) for band in bands]
        groups = [[key in map(band_key, group) for key in keys] for group in SEASONAL]
        optical = [is_reflectance(band) for band in bands]
        haze = torch.from_numpy(haze_weights(bands)).float()
        self.register_buffer('haze', haze * HAZE_LEVEL, persistent=False)
        self.register_buffer('seasonal', torch.tensor(groups).float(), persistent=False)
        self.register_buffer('optical', torch.tensor(optical), persistent=False)

    def forward(self, batch: Batch) -> Batch:
        """Return the batch with another ``image`` (B, bands, H, W)."""
        image = batch['image']
        count, bands = image.shape[:2]
        draws = self.strength * torch.randn(count, bands + 4)
        draws = draws.to(image)
        chip, haze, season = draws[:, :1], draws[:, 1:2], draws[:, 2:4]
        band = draws[:, 4:]
        gain = (SEASON * season @ self.seasonal.to(image)).exp()
        image = _changed(image, gain, haze * self.haze.to(image))
        std, mean = torch.std_mean(image, dim=(0, 2, 3), correction=0)
        optical = self.optical.to(image)
        contrast = 1 + CONTRAST * chip * optical
        shift = mean * (1 - contrast) + SHIFT * std * band * optical
        return batch | {'image': _changed(image, contrast, shift)}


def _changed(image: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Return images (B, bands, H, W) with a gain and a shift (B, bands)."""
    return image * gain[..., None, None] + shift[..., None, None]
