from typing import Any, cast

import pytest
import torch
from torch import nn

from torchgeo_ctm.errors import BandError, SettingError
from torchgeo_ctm.scaling import (
    SENTINEL2_BANDS,
    SENTINEL2_STATISTICS,
    BandOptions,
    BandScaling,
    ScalingOptions,
    band_key,
    build_scaling,
    match_bands,
    resolve_bands,
)


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('B1', 'b1'),
        ('B01', 'b1'),
        ('b01', 'b1'),
        (' B8A ', 'b8a'),
        ('B08', 'b8'),
        ('B10', 'b10'),
        ('B4, central wavelength 665 nm', 'b4'),
        ('VV', 'vv'),
        ('blue', 'blue'),
    ],
)
def test_names_of_one_band_share_a_key(name: str, key: str) -> None:
    assert band_key(name) == key


def test_bands_are_found_by_name_in_any_order() -> None:
    found = ['B12', 'SCL', 'b02', 'B03']
    assert match_bands(['B02', 'B12'], found, 'x.tif') == [2, 0]


def test_bands_without_names_are_taken_in_order() -> None:
    assert match_bands(['B02', 'B12'], [None, None, None], 'x.tif') == [0, 1]


def test_too_few_bands_without_names_are_refused() -> None:
    with pytest.raises(BandError, match=r'x\.tif has 3 bands .* expected 13'):
        match_bands(SENTINEL2_BANDS, [None] * 3, 'x.tif')


def test_a_missing_name_is_refused_with_both_lists() -> None:
    with pytest.raises(BandError, match=r'\(B02, B03\).*\(B02, B04\).*missing: B04'):
        match_bands(['B02', 'B04'], ['B02', 'B03'], 'x.tif')


def test_a_model_without_band_names_is_said() -> None:
    with pytest.raises(BandError, match=r'set bands of the model .*\[B02, B03\]'):
        match_bands(['band 1', 'band 2'], ['B02', 'B03'], 's.tif')
    with pytest.raises(BandError, match=r'pass the right ones as scene_bands=\.'):
        match_bands(['B08', 'B04'], ['B02', 'B03'], 's.tif')


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(BandError, match='more than one band named B02'):
        match_bands(['B02'], ['B2', 'B02'], 'x.tif')


def test_seasons_of_a_band_are_told_apart() -> None:
    names = ['B02', 'B03', 'B02 season 2', 'B03 season 2']
    assert match_bands(names, names[::-1], 's.tif') == [3, 2, 1, 0]
    with pytest.raises(BandError, match="0 bands named 'B02 season 2'"):
        match_bands(names, ['B02', 'B03'], 's.tif')
    with pytest.raises(SettingError, match="'B02' twice"):
        resolve_bands(['B02', 'b02'], 2)


def test_standard_scaling_has_mean_0_and_std_1() -> None:
    scaling = BandScaling(['a', 'b'], clip=None, mean=[10, 20], std=[2, 5])
    x = torch.randn(4, 2, 64, 64) * torch.tensor([2, 5.0]).view(-1, 1, 1)
    x = x + torch.tensor([10, 20.0]).view(-1, 1, 1)
    y = scaling(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(2), atol=0.05, rtol=0)


def test_offset_comes_before_clip() -> None:
    scaling = BandScaling(['a'], offset=-1000, clip=[0, 10000], mean=[0], std=[1])
    x = torch.tensor([500, 1000, 3000, 20000.0]).view(1, 1, 2, 2)
    assert scaling(x).flatten().tolist() == [0, 0, 2000, 10000]


def test_per_chip_maximum_reaches_one_in_every_band() -> None:
    scaling = BandScaling(SENTINEL2_BANDS, method='per_chip_maximum')
    y = scaling(torch.rand(2, 13, 8, 8) * 3000)
    torch.testing.assert_close(y.amax((-2, -1)), torch.ones(2, 13))
    assert torch.isfinite(scaling(torch.zeros(1, 13, 8, 8))).all()


def test_the_checkpoint_holds_the_statistics() -> None:
    given = BandScaling(['a'], mean=[5], std=[2])
    other = BandScaling(['a'], mean=[0], std=[1])
    other.load_state_dict(given.state_dict())
    assert (other.mean.item(), other.std.item()) == (5, 2)


def test_wrong_number_of_bands_is_refused() -> None:
    with pytest.raises(BandError, match='3 bands, expected 13'):
        BandScaling(SENTINEL2_BANDS)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    'options',
    [
        {'method': 'minmax'},
        {'clip': [1, 0]},
        {'mean': [1.0] * 13},
        {'mean': [1.0], 'std': [1.0]},
        {'mean': [1.0] * 13, 'std': [0.0] * 13},
        {'means': [1.0] * 13},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        build_scaling(SENTINEL2_BANDS, options)  # type: ignore[arg-type]


def test_unknown_bands_need_statistics() -> None:
    with pytest.raises(SettingError, match='no built-in statistics'):
        BandScaling(['VV'])


def test_none_leaves_data_as_they_are() -> None:
    assert isinstance(build_scaling(['a'], None), nn.Identity)


def test_bands_default_to_sentinel2() -> None:
    assert resolve_bands(None, 13) == SENTINEL2_BANDS
    assert len(resolve_bands(None, 3)) == 3
    with pytest.raises(SettingError, match='expected 3'):
        resolve_bands(['B02'], 3)


DECIBELS: dict[str, BandOptions] = {
    band: {'offset': 25, 'clip': [0, 25]} for band in ('VV', 'VH')
}


def test_sentinel1_is_scaled_as_in_the_paper() -> None:
    """Clipped to -25…0 dB and raised by 25, each by its maximum; S2 as without it."""
    bands = ('B02', 'VV', 'VH')
    x = torch.rand(2, 3, 8, 8) * torch.tensor([12_000, -40, -40.0]).view(-1, 1, 1)
    scaled = BandScaling(bands, method='per_chip_maximum', per_band=DECIBELS)(x)
    radar = x[:, 1:].clamp(-25, 0) + 25
    torch.testing.assert_close(scaled[:, 1:], radar / radar.amax((2, 3), keepdim=True))
    alone = BandScaling(['B02'], method='per_chip_maximum')(x[:, :1])
    assert torch.equal(scaled[:, :1], alone)


def test_a_band_has_its_own_statistics() -> None:
    own: dict[str, BandOptions] = {
        'vv': {'offset': 25, 'clip': None, 'mean': 12, 'std': 5}
    }
    scaling = BandScaling(('B02', 'VV'), offset=-1000, per_band=own)
    y = scaling(torch.tensor([2000, -8.0]).view(1, 2, 1, 1)).flatten()
    mean, std = SENTINEL2_STATISTICS['B02']
    torch.testing.assert_close(y, torch.tensor([(1000 - mean) / std, 1.0]))
    # it also replaces one entry of the lists
    lists = {'mean': [1000.0, 7.0], 'std': [100.0, 7.0]}
    both = BandScaling(('B02', 'VV'), per_band=own, **lists)  # type: ignore[arg-type]
    y = both(torch.tensor([2000, -8.0]).view(1, 2, 1, 1)).flatten()
    torch.testing.assert_close(y, torch.tensor([10.0, 1.0]))


def test_checkpoints_from_before_per_band_fit() -> None:
    """The state dict is what it was; a band's own range comes with the arguments."""
    scaling = BandScaling(('VV', 'VH'), method='per_chip_maximum', per_band=DECIBELS)
    before = {'mean': torch.zeros(2, 1, 1), 'std': torch.ones(2, 1, 1)}
    assert scaling.state_dict().keys() == before.keys()
    assert not any(scaling.load_state_dict(before))


@pytest.mark.parametrize(
    ('per_band', 'message'),
    [
        ({'VV2': {'offset': 25}}, "unknown band 'VV2'.*Did you mean 'VV'"),
        ({'VV': {'offsets': 25}}, "of VV .*'offsets', .*Did you mean 'offset'"),
        ({'VV': {'clip': [25, 0], 'mean': 12, 'std': 5}}, 'expected .lowest, highest'),
        ({'VV': {'mean': 12}}, "'VV' has no built-in statistics.*under per_band"),
        ({'VV': {'mean': 12, 'std': 0}}, 'must be positive'),
    ],
)
def test_impossible_options_of_a_band_are_refused(
    per_band: dict[str, BandOptions], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        BandScaling(('B02', 'VV'), per_band=per_band)


def test_log_scaling_has_mean_0_and_std_1_for_log_normal_values() -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 400, 400).mul(0.4).exp().mul(1200) - 100
    mean, std = values.mean((1, 2)), values.std((1, 2))
    scaling = BandScaling(
        ['B02', 'B03'], 'log', clip=[0, 1e6], mean=mean.tolist(), std=std.tolist()
    )
    found = scaling(values[None].clamp(min=0))
    torch.testing.assert_close(found.mean(), torch.tensor(0.0), atol=0.02, rtol=0)
    torch.testing.assert_close(found.std(), torch.tensor(1.0), atol=0.02, rtol=0)
    # a gain is a shift, wherever it happens
    raised = scaling((values[None] + 100).clamp(min=100) * 1.1 - 100) - scaling(
        (values[None] + 100).clamp(min=100) - 100
    )
    assert raised[:, 0].std() < 1e-4


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'method': 'log', 'clip': None}, 'requires values of 0 or more'),
        ({'method': 'log', 'clip': [-10, 10]}, 'requires values of 0 or more'),
        ({'method': 'lgo'}, "Unknown scaling method 'lgo'.*Did you mean 'log'"),
        ({'low': [1.0]}, 'Only one of low and high'),
        ({'low': [1.0, 2.0], 'high': [3.0, 4.0]}, 'low has 2 values, expected 1'),
        ({'low': [5.0], 'high': [4.0]}, 'low=5 of B02 is above high=4'),
        ({'adapt': 'dark'}, 'requires the low and high values'),
        ({'adapt': 'drak'}, "Did you mean 'dark'"),
        (
            {
                'adapt': 'dark',
                'low': [1.0],
                'high': [2.0],
                'method': 'per_chip_maximum',
            },
            "got 'per_chip_maximum'",
        ),
    ],
)
def test_ranges_and_adaptations_that_do_not_fit(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        build_scaling(['B02'], cast('ScalingOptions', options))
