from typing import ClassVar

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from tests.conftest import SHARED
from torchgeo_ctm.datasets.synthetic import MATERIALS, render
from torchgeo_ctm.reflectance import (
    band_doubts,
    offset_complaint,
    offset_difference,
    reflectance_complaint,
    scaling_complaint,
    surplus,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS, SENTINEL2_STATISTICS, BandScaling

Pixels = NDArray[np.float64]

#: Reflectance x 10,000 of scenes that hold one thing only: top of the atmosphere in
#: B01 … B12, and (below) at the surface, as in Level-2A, without B10.
SCENES = {
    'ocean': (1150, 830, 520, 300, 260, 220, 210, 180, 160, 60, 8, 40, 25),
    'glint': (1900, 1700, 1550, 1500, 1500, 1480, 1470, 1450, 1440, 500, 12, 1300, 1150),
    'snow': (9000, 9200, 9100, 9300, 9200, 9000, 8700, 8500, 8200, 3500, 60, 900, 700),
    'polar snow': (8500, 8700, 8600, 8900, 8900, 8800, 8600, 8400, 8200, 6500, 900, 1100,
                   1000),
    'cloud': (7000, 7000, 6800, 7000, 7100, 7200, 7200, 7000, 7000, 4500, 300, 5000, 3800),
    'high cloud': (8000, 8000, 7800, 8000, 8100, 8200, 8200, 8000, 8000, 6800, 2500, 3500,
                   2400),
    'bright cloud': (14000, 14000, 13500, 13800, 13900, 14000, 14100, 13000, 14000, 12000,
                     5000, 9000, 7000),
    'sand': (1950, 2050, 2700, 4000, 4300, 4500, 4700, 4500, 4900, 1700, 22, 6300, 5800),
    'stony desert': (1500, 1450, 1600, 2050, 2200, 2300, 2400, 2350, 2500, 1000, 18, 3300,
                     2900),
    'winter': (1100, 820, 600, 430, 480, 650, 720, 690, 740, 260, 9, 420, 240),
    'haze': (2400, 2200, 2000, 1900, 2000, 2400, 2600, 2500, 2700, 1000, 40, 2000, 1300),
}  # fmt: skip
SURFACES = {
    'glint': (330, 260, 190, 140, 130, 120, 120, 110, 110, 110, 95, 85),
    'strong glint': (1500, 1450, 1400, 1370, 1360, 1350, 1350, 1340, 1340, 1300, 1250, 1200),
    'ocean': (320, 240, 140, 70, 50, 40, 40, 30, 30, 40, 15, 10),
    'black water': (60, 40, 30, 20, 15, 8, 8, 4, 4, 6, 2, 2),
    'forest': (140, 190, 350, 210, 600, 1900, 2400, 2500, 2700, 2700, 1300, 600),
    'sand': (1500, 1900, 2800, 4000, 4300, 4500, 4600, 4600, 4700, 4700, 5900, 5500),
    'stones': (1000, 1150, 1500, 1950, 2150, 2250, 2350, 2400, 2450, 2500, 3100, 2800),
    'snow': (9500, 9700, 9600, 9500, 9400, 9200, 9000, 8900, 8800, 9000, 1050, 1000),
}  # fmt: skip
RGB = ('B04', 'B03', 'B02')
FEW = (RGB, (*RGB, 'B08'), ('B8A', 'B11'), ('B08',), ('B04', 'B8A', 'B11', 'B12'))
MIXED = ('ocean', 'forest', 'stones')
WITHOUT_B10 = tuple(band for band in SENTINEL2_BANDS if band != 'B10')
#: Statistics of surface reflectance: what a model for Level-2A is trained on.
SURFACE_STATISTICS = (
    (450, 560, 800, 850, 1200, 2000, 2300, 2400, 2500, 2500, 2000, 1350),
    (400, 450, 500, 650, 650, 850, 1000, 1050, 1100, 1050, 1000, 850),
)


def spread(spectrum: tuple[int, ...], n: int = 4000, noise: float = 0.06) -> Pixels:
    """Draw pixels (bands, n) around a spectrum, whole numbers above 0."""
    rng = np.random.default_rng(sum(spectrum))
    light = rng.normal(1, noise, n)
    grain = rng.normal(1, 0.03, (len(spectrum), n))
    pixels = np.array(spectrum, float)[:, None] * light * grain + rng.normal(0, 3, n)
    return pixels.round().clip(1)


def complaint(pixels: Pixels, bands: tuple[str, ...] = SENTINEL2_BANDS) -> str:
    """The complaint against the built-in statistics, '' for none."""
    mean, std = np.array([SENTINEL2_STATISTICS[band] for band in bands]).T
    return reflectance_complaint(pixels, mean, std, bands) or ''


def real_chip() -> Pixels:
    """The valid pixels (13, n) of a real Sentinel-2 Level-1C chip."""
    path = SHARED / 'real' / 'spain_s2.tif'
    if not path.is_file():
        pytest.skip('the real chip is not here')
    with rasterio.open(path) as raster:
        pixels = raster.read().reshape(13, -1).astype(float)
    return np.asarray(pixels[:, (pixels > 0).any(axis=0)])


@pytest.mark.parametrize('name', [*SCENES, *MATERIALS])
def test_scenes_of_one_kind_are_no_reason_to_complain(name: str) -> None:
    pixels = spread((SCENES | MATERIALS)[name])
    assert complaint(pixels) == ''
    keep = [i for i, band in enumerate(SENTINEL2_BANDS) if band != 'B10']
    assert complaint(pixels[keep], WITHOUT_B10) == ''
    for few in FEW:
        at = [SENTINEL2_BANDS.index(band) for band in few]
        assert complaint(pixels[at], few) == ''


@pytest.mark.parametrize('name', SURFACES)
def test_surface_reflectances_are_no_reason_to_complain(name: str) -> None:
    pixels = spread(SURFACES[name])
    assert complaint(pixels, WITHOUT_B10) == ''
    for few in FEW:
        assert complaint(pixels[[WITHOUT_B10.index(band) for band in few]], few) == ''
    assert reflectance_complaint(pixels, *SURFACE_STATISTICS, WITHOUT_B10) is None
    # as after the offset, where dark surfaces go a little below 0
    assert reflectance_complaint(pixels - 25, *SURFACE_STATISTICS, WITHOUT_B10) is None


@pytest.mark.parametrize('name', [*SCENES, *MATERIALS])
def test_a_missing_offset_is_seen(name: str) -> None:
    pixels = spread((SCENES | MATERIALS)[name])
    found = complaint(pixels + 1000)
    if name in ('cloud', 'high cloud', 'bright cloud', 'polar snow'):
        assert found == ''  # B10 is bright there: no telling
    else:
        assert 'Pass offset=-1000.' in found
    assert 'Pass offset=1000.' in complaint(pixels - 1000) or pixels[:10].mean() > 1200


def test_a_missing_offset_is_seen_without_b10() -> None:
    pixels = np.concatenate([spread(SURFACES[name]) for name in MIXED], axis=1)
    assert reflectance_complaint(pixels, *SURFACE_STATISTICS, WITHOUT_B10) is None
    shifted = reflectance_complaint(pixels + 1000, *SURFACE_STATISTICS, WITHOUT_B10)
    assert shifted and 'Pass offset=-1000.' in shifted
    # a model that was trained on such numbers wants them
    mean, std = np.array(SURFACE_STATISTICS)
    assert reflectance_complaint(pixels + 1000, mean + 1000, std, WITHOUT_B10) is None


@pytest.mark.parametrize('source', ['drawn', 'real'])
def test_complaints_name_the_remedy(source: str) -> None:
    pixels = real_chip() if source == 'real' else render(96, 96, 1)[0].reshape(13, -1)
    reflectance = pixels.astype(float)
    assert complaint(reflectance) == ''
    assert 'Pass offset=-1000.' in complaint(reflectance + 1000)
    assert 'multiply the scene by 10,000' in complaint(reflectance / 10_000)
    assert 'multiply the scene by 100' in complaint((reflectance / 100).clip(0, 90))
    picture = (reflectance / 2000 * 255).round().clip(0, 255)
    assert '8-bit' in complaint(picture)
    assert '8-bit' in complaint(picture[[3, 2, 1]].clip(0, 110) / 110 * 255 // 1, RGB)
    assert 'trained on about 1,200: give' in complaint(reflectance * 40)
    assert 'one and the same value' in complaint(np.zeros((13, 200)))
    assert '\n' not in complaint(picture)


@pytest.mark.parametrize(
    ('change', 'offset', 'said'),
    [
        pytest.param(2000, 0, 'Pass offset=-2000.', id='none was given'),
        pytest.param(2000, 1000, 'Pass offset=-1000.', id='of the wrong sign'),
        pytest.param(-1000, 0, 'Pass offset=1000.', id='in the file'),
        pytest.param(-1000, -1000, 'Pass offset=0.', id='given, and in the file'),
    ],
)
def test_the_advice_corrects_the_offset_that_was_given(
    change: int, offset: float, said: str
) -> None:
    pixels = render(96, 96, 1)[0].reshape(13, -1).astype(float) + change
    mean, std = np.array([SENTINEL2_STATISTICS[band] for band in SENTINEL2_BANDS]).T
    given = (pixels, mean, std, SENTINEL2_BANDS, False, offset)
    assert (reflectance_complaint(*given) or '').endswith(said)


def test_standardized_values_are_seen() -> None:
    pixels = render(96, 96, 1)[0].reshape(13, -1).astype(float)
    middle, spread = (
        pixels.mean(axis=1, keepdims=True),
        pixels.std(axis=1, keepdims=True),
    )
    assert 'as standardized values do' in complaint((pixels - middle) / spread)


def test_values_of_scenes_tell_what_was_added() -> None:
    pixels = render(96, 96, 1)[0].reshape(13, -1)
    for added in (0, 1000, 2000):
        assert surplus(pixels + added, SENTINEL2_BANDS) == added
    assert surplus(pixels + 1000, [f'band {n}' for n in range(13)]) == 0
    assert surplus(pixels[:, :0], SENTINEL2_BANDS) == 0


def test_numbers_of_landsat_are_seen_without_their_scale() -> None:
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0.005, 0.5, (7, 4000))
    statistics = np.full(7, 1500.0), np.full(7, 900.0)
    names = [f'B{number}' for number in range(1, 8)]
    numbers = (reflectance + 0.2) / 2.75e-5
    found = reflectance_complaint(numbers, *statistics, names)
    assert found is not None and '-scale 0.0000275 -offset -0.2' in found
    assert reflectance_complaint(10_000 * reflectance, *statistics, names) is None


def test_complaints_are_relative_to_the_statistics() -> None:
    pixels = spread(SCENES['haze'])
    mean, std = np.array([SENTINEL2_STATISTICS[band] for band in SENTINEL2_BANDS]).T
    small = (mean / 10_000, std / 10_000)
    assert reflectance_complaint(pixels / 10_000, *small, SENTINEL2_BANDS) is None
    found = reflectance_complaint(pixels, *small, SENTINEL2_BANDS)
    assert found and 'divide the scene by 10,000' in found
    picture = (pixels / 30).round()
    assert reflectance_complaint(picture, mean / 30, std / 30, SENTINEL2_BANDS) is None
    decibels = np.random.default_rng(0).normal(-14, 4, (2, 500))
    assert reflectance_complaint(decibels, [-12, -18], [5, 5], ['VV', 'VH']) is None


def test_complaints_about_tensors_and_few_pixels() -> None:
    scaling = BandScaling(SENTINEL2_BANDS)
    pixels = torch.from_numpy(spread(SCENES['winter']) / 10_000).float()
    holes = torch.where(torch.arange(pixels.shape[1]) % 2 == 0, pixels, torch.nan)
    for given in (pixels, holes):
        found = reflectance_complaint(given, scaling.mean, scaling.std, scaling.bands)
        assert found and found.endswith('multiply the scene by 10,000')
    few = pixels[:, :63]
    assert reflectance_complaint(few, scaling.mean, scaling.std, scaling.bands) is None


def test_a_band_without_values_is_doubted() -> None:
    pixels = render(64, 64, (0, 0, 0))[0].reshape(13, -1).astype(np.float32)
    assert band_doubts(pixels, SENTINEL2_BANDS, named=True) == []
    pixels[5] = 0
    [doubt] = band_doubts(pixels, SENTINEL2_BANDS, named=True)
    assert doubt.startswith('B06 is 0 in all pixels')


def test_a_band_in_another_unit_is_doubted() -> None:
    pixels = render(64, 64, (0, 0, 0))[0].reshape(13, -1).astype(np.float32)
    pixels[7] /= 10_000
    [doubt] = band_doubts(pixels, SENTINEL2_BANDS, named=True)
    assert doubt == 'values of B08 lie below 2, those of other bands far above.'


def test_a_mosaic_of_two_offsets_is_doubted() -> None:
    pixels = render(64, 64, (0, 0, 0))[0].reshape(13, -1).astype(np.float32)
    pixels[:, ::2] += 1000
    [doubt] = band_doubts(pixels, SENTINEL2_BANDS, named=True)
    assert doubt.startswith('50 % of the pixels look as if 1000 had been added')
    # another band in place of B10 has such numbers, too, and those between
    pixels[:, ::2] -= 1000
    pixels[10] = np.random.default_rng(0).uniform(100, 1400, pixels.shape[1])
    [doubt] = band_doubts(pixels, SENTINEL2_BANDS, named=False)
    assert 'their order is probably another one' in doubt


@pytest.mark.skipif(not SHARED.exists(), reason='needs ../shared')
def test_unnamed_bands_in_another_order_are_doubted() -> None:
    pixels = real_chip()
    eurosat = pixels[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 8]]
    assert band_doubts(pixels, SENTINEL2_BANDS, named=False) == []
    [doubt] = band_doubts(eurosat, SENTINEL2_BANDS, named=True)
    assert doubt.startswith('its B10 is no dark band, so that its bands probably')
    for other in (eurosat, pixels[::-1]):
        [doubt] = band_doubts(other, SENTINEL2_BANDS, named=False)
        assert 'EuroSAT' in doubt and 'scene_bands=' in doubt


class TestOffset:
    """Dark values that differ alike in every band are an offset, others are not."""

    low: ClassVar[list[float]] = [800, 500, 300, 200]

    @pytest.mark.parametrize('shift', [1000, -1000])
    def test_an_offset_is_seen(self, shift: float) -> None:
        found = np.array(self.low) + shift + [20, -60, 90, 10]
        assert offset_difference(found, np.array(self.low)) == pytest.approx(
            shift, abs=60
        )

    @pytest.mark.parametrize(
        'found',
        [
            pytest.param([1500, 1100, 700, 250], id='haze'),
            pytest.param([900, 700, 900, 2400], id='inland'),
            pytest.param([9000, 9000, 8500, 8000], id='snow'),
            pytest.param([900, 620, 390, 330], id='the same'),
        ],
    )
    def test_other_scenes_are_none(self, found: list[float]) -> None:
        assert offset_difference(np.array(found), np.array(self.low)) is None

    def test_two_bands_do_not_tell(self) -> None:
        assert offset_difference(np.array([1800, 1500]), np.array([800, 500])) is None


@pytest.mark.parametrize('bands', [SENTINEL2_BANDS, WITHOUT_B10, (*RGB, 'B08')])
def test_a_scene_like_the_training_data_is_not_told(bands: tuple[str, ...]) -> None:
    """Though both have an offset that nobody has given."""
    at = [SENTINEL2_BANDS.index(band) for band in bands]
    pixels = render(96, 96, 1)[0].reshape(13, -1)[at].astype(float)
    for change, silent in ((1000, True), (0, False)):
        trained = pixels + 1000
        low, high = np.percentile(trained, [1, 99], axis=1).tolist()
        scaling = BandScaling(bands, low=low, high=high)
        said = (
            scaling_complaint(pixels + change, bands, scaling),
            offset_complaint(pixels + change, scaling),
        )
        assert (said == (None, None)) == silent
