"""Brightness, haze and season of training chips."""

import pytest
import torch

from torchgeo_ctm.datamodules.spectral import SpectralJitter
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.scaling import GROUND_BANDS


def test_no_jitter_changes_nothing() -> None:
    image = torch.rand(3, len(GROUND_BANDS), 4, 4) * 3000
    same = SpectralJitter(GROUND_BANDS, 0)({'image': image, 'label': torch.ones(3)})
    assert torch.equal(same['image'], image)


def test_every_band_of_a_chip_changes_by_one_gain_and_one_shift() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 10, 8, 8) * 3000
    found = SpectralJitter(GROUND_BANDS)({'image': image})['image']
    for before, after in zip(image.flatten(0, 1), found.flatten(0, 1), strict=True):
        gain = (after.max() - after.min()) / (before.max() - before.min())
        shift = after.min() - gain * before.min()
        torch.testing.assert_close(after, gain * before + shift, rtol=1e-4, atol=0.1)


def test_haze_falls_with_the_wavelength_and_bands_of_a_season_change_alike() -> None:
    torch.manual_seed(0)
    jitter = SpectralJitter(GROUND_BANDS)
    dark = jitter({'image': torch.zeros(4000, 10, 1, 1)})['image'].flatten(1)
    spread = dark.std(dim=0)
    assert spread[0] == pytest.approx(64, rel=0.1)
    assert (spread.diff() < 0).all()
    bright = jitter({'image': torch.full((4000, 10, 1, 1), 1e5)})['image'].flatten(1)
    alike = bright.T.corrcoef()
    assert alike[4, 7] > 0.9  # B06 and B8A
    assert alike[8, 9] > 0.9  # B11 and B12
    assert alike[4, 8] < 0.4


def test_radar_stays_as_it_is() -> None:
    image = torch.rand(2, 2, 4, 4)
    found = SpectralJitter(('VV', 'B02'))({'image': image})['image']
    assert torch.equal(found[:, 0], image[:, 0])
    assert not torch.equal(found[:, 1], image[:, 1])


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(SettingError, match='spectral_jitter must be 0 or more'):
        SpectralJitter(GROUND_BANDS, -1)
