from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import (
    GridGeoSampler,
    PreChippedGeoSampler,
    RandomBatchGeoSampler,
    RandomGeoSampler,
)

from tests.fakes.dfc2020 import Georeference, write_contest, write_dfc2020
from torchgeo_ctm.datasets import DFC2020, DFC2020Geo
from torchgeo_ctm.errors import DataError, GridError, SettingError

BANDS = ('B04', 'VV')

#: TorchGeo 0.10 deprecates the samplers that follow tiles, and has no others.
pytestmark = pytest.mark.filterwarnings('ignore:Use torchgeo.samplers')


@pytest.fixture
def tiles(tmp_path: Path) -> DFC2020:
    """Eleven tiles of 32 px, in turns in two zones."""
    write_contest(tmp_path)
    return DFC2020(tmp_path, 'test', bands=BANDS, protocol='C')


@pytest.fixture
def zone(tiles: DFC2020) -> DFC2020Geo:
    return DFC2020Geo(tiles, 'EPSG:32633')


def tile_of(zone: DFC2020Geo, row: int) -> dict[str, torch.Tensor]:
    return zone.tiles[int(zone.index['number'].iloc[row])]


def test_every_tile_is_in_one_zone(tiles: DFC2020) -> None:
    zones = DFC2020Geo.zones(tiles)
    assert {name: len(zone) for name, zone in zones.items()} == {
        'EPSG:32632': 6,
        'EPSG:32633': 5,
    }
    inside = [number for zone in zones.values() for number in zone.index['number']]
    assert sorted(inside) == list(range(11))
    for name, zone in zones.items():
        assert zone.crs.to_string() == name
        assert list(zone.res) == [10, 10]
        for path, box in zip(zone.files, sorted_boxes(zone), strict=True):
            with rasterio.open(path) as raster:
                assert raster.crs.to_string() == name
                assert box.bounds == pytest.approx(raster.bounds, abs=1e-4)


def sorted_boxes(zone: DFC2020Geo) -> list[Any]:
    """Outlines in the order of TorchGeo's ``files``, which sorts paths."""
    return list(zone.index.sort_values('filepath').geometry)


@pytest.mark.parametrize(
    ('name', 'chips'),
    [('prechipped', 5), ('whole', 5), ('halves', 20), ('strided', 20)],
)
def test_samplers_see_every_pixel_as_it_is_stored(
    zone: DFC2020Geo, name: str, chips: int
) -> None:
    """Side by side, chips are the tiles, though no corner is a multiple of 10 m."""
    samplers: dict[str, Iterable[Any]] = {
        'prechipped': PreChippedGeoSampler(zone),
        'whole': GridGeoSampler(zone, 32),
        'halves': GridGeoSampler(zone, 16),
        'strided': GridGeoSampler(zone, 24, 8),
    }
    queries = list(samplers[name])
    assert len(queries) == chips
    each = chips // 5
    for number, query in enumerate(queries):
        chip, tile = zone[query], tile_of(zone, number // each)
        size = chip['mask'].shape[-1]
        # TorchGeo's grid starts lower left
        up, right = divmod(number % each, 2)
        step = 32 - size
        rows = slice(step - up * step, step - up * step + size)
        cols = slice(right * step, right * step + size)
        assert torch.equal(chip['image'], tile['image'][:, rows, cols])
        assert torch.equal(chip['mask'], tile['mask'][rows, cols])


def test_random_chips_lie_on_pixels(zone: DFC2020Geo) -> None:
    torch.manual_seed(0)
    for chip in map(zone.__getitem__, RandomGeoSampler(zone, 20, length=40)):
        assert chip['image'].shape == (2, 20, 20)
        patches = [
            tile_of(zone, row)['image'].unfold(1, 20, 1).unfold(2, 20, 1)
            for row in range(len(zone))
        ]
        same = [(p == chip['image'][:, None, None]).all(-1).all(-1).all(0).any()
                for p in patches]  # fmt: skip
        assert sum(same) == 1


def test_batches_through_torchgeo(zone: DFC2020Geo) -> None:
    sampler = RandomBatchGeoSampler(zone, 16, batch_size=3, length=6)
    loader = DataLoader(zone, batch_sampler=sampler, collate_fn=stack_samples)
    for batch in loader:
        assert batch['image'].shape == (3, 2, 16, 16)
        assert batch['mask'].shape == (3, 16, 16)
        assert len(batch['bounds']) == 3


def test_tiles_that_are_none_too_narrow(tmp_path: Path) -> None:
    """A tile over x = 2^19 m, where numbers lose a bit, is a chip wide all the same."""
    write_dfc2020(tmp_path, 'zones')
    zone = DFC2020Geo.zones(DFC2020(tmp_path, 'train'))['EPSG:32632']
    [left, _, right, _] = zone.index.geometry.iloc[0].bounds
    assert left < 2**19 < right
    assert right - left == 2560
    [query] = GridGeoSampler(zone, 256)
    assert zone[query]['image'].shape == (13, 256, 256)


def test_transforms_see_the_chip(tmp_path: Path) -> None:
    write_contest(tmp_path)
    tiles = DFC2020(
        tmp_path, 'test', transforms=lambda s: {**s, 'image': -s['image']}, protocol='C'
    )
    zone = DFC2020Geo(tiles, 'EPSG:32632')
    assert zone[next(iter(PreChippedGeoSampler(zone)))]['image'].max() < 0


def test_queries_take_the_nearest_pixels_at_the_own_resolution(
    zone: DFC2020Geo,
) -> None:
    x, y, t = next(iter(GridGeoSampler(zone, 16)))
    with pytest.raises(GridError, match='query at 20 × 10 would resample'):
        zone[slice(x.start, x.stop, 20), y, t]
    near = slice(x.start + 3, x.stop + 3)
    assert torch.equal(zone[near, y, t]['image'], zone[x, y, t]['image'])


def test_queries_outside_the_tiles(zone: DFC2020Geo) -> None:
    x, y, t = next(iter(GridGeoSampler(zone, 32)))
    with pytest.raises(IndexError, match='in none of 5 tiles'):
        zone[slice(0, 100), y, t]
    with pytest.raises(IndexError, match='end where a tile ends'):
        zone[slice(x.start + 10, x.stop + 10), y, t]
    with pytest.raises(IndexError):
        zone[slice(x.start, x.start), y, t]


class Elevation(RasterDataset):
    """Another data set of the same place."""

    filename_glob = '*.tif'


def write_elevation(folder: Path, crs: str, transform: Affine) -> Elevation:
    folder.mkdir()
    rows, cols = np.mgrid[:2200, :100]
    with rasterio.open(
        folder / 'elevation.tif', 'w', driver='GTiff', dtype='float32', count=1,
        height=2200, width=100, crs=crs, transform=transform,
    ) as raster:  # fmt: skip
        raster.write((rows * 1000 + cols).astype(np.float32)[None])
    return Elevation(folder)


def test_intersection_stacks_the_other_data_set(
    zone: DFC2020Geo, tmp_path: Path
) -> None:
    box = zone.index.total_bounds
    transform = Affine(10, 0, box[0] - 200, 0, -10, box[3] + 500)
    other = write_elevation(tmp_path / 'elevation', 'EPSG:32633', transform)
    both = zone & other
    queries = list(GridGeoSampler(both, 32))
    assert len(queries) == len(zone) == 5
    for query in queries:
        chip, alone = both[query], zone[query]
        assert torch.equal(chip['image'][:2], alone['image'])
        assert torch.equal(chip['mask'], alone['mask'])
        heights = chip['image'][2]
        # on one grid, so not resampled either
        row, col = divmod(int(heights[0, 0]), 1000)
        assert col == 20
        assert box[3] + 500 - 10 * row == pytest.approx(query[1].stop)
        assert torch.equal(heights[1:] - heights[:-1], torch.full((31, 32), 1000.0))


def test_only_the_other_data_set_is_brought_to_another_grid(
    zone: DFC2020Geo, tmp_path: Path
) -> None:
    box = zone.index.to_crs('EPSG:32632').total_bounds
    transform = Affine(10, 0, box[0] - 200, 0, -10, box[3] + 500)
    other = write_elevation(tmp_path / 'elevation', 'EPSG:32632', transform)
    with pytest.raises(
        GridError, match=r'EPSG:32632 would resample .* \(this & other\)'
    ):
        other & zone
    both = zone & other
    query = next(iter(GridGeoSampler(both, 32)))
    assert torch.equal(both[query]['image'][:2], zone[query]['image'])
    coarse = Elevation(tmp_path / 'elevation', crs=zone.crs, res=30)
    with pytest.raises(GridError, match='a resolution of 30 × 30 would resample'):
        coarse | zone


def test_union_joins_the_splits_of_a_zone(tmp_path: Path) -> None:
    write_contest(tmp_path)
    parts = [
        DFC2020Geo(DFC2020(tmp_path, split, protocol='B'), 'EPSG:32632')
        for split in ('train', 'val')
    ]
    union = parts[0] | parts[1]
    assert len(union) == len(parts[0]) + len(parts[1])
    queries = list(GridGeoSampler(union, 32))
    assert len(queries) == 6
    for query, part in zip(queries, [parts[0]] * len(parts[0]) + [parts[1]]):
        assert torch.equal(union[query]['image'], part[query]['image'])
        assert torch.equal(union[query]['mask'], part[query]['mask'])


def test_zones_are_not_joined(tiles: DFC2020) -> None:
    zones = DFC2020Geo.zones(tiles)
    with pytest.raises(GridError, match='needs one grid'):
        zones['EPSG:32632'] | zones['EPSG:32633']


def test_the_zone_has_to_be_named(tiles: DFC2020, tmp_path: Path) -> None:
    needed = r'expected one of: EPSG:32632 \(6 tiles\), EPSG:32633 \(5 tiles\)\.'
    with pytest.raises(SettingError, match=f'crs=None .*{needed}$'):
        DFC2020Geo(tiles)
    with pytest.raises(SettingError, match=f"{needed} Did you mean 'EPSG:3263[23]'"):
        DFC2020Geo(tiles, 'EPSG:32634')
    write_dfc2020(tmp_path / 'one', 'zones')
    assert len(DFC2020Geo(DFC2020(tmp_path / 'one', 'val'))) == 1


@pytest.mark.parametrize(
    ('georeference', 'reason'),
    [
        ('one missing', '1 of 2 tiles have no CRS or an identity transform'),
        ('identity', '2 of 2 tiles have no CRS or an identity transform'),
        ('no crs', '2 of 2 tiles have no CRS or an identity transform'),
        ('same', 'all tiles have the same georeference'),
    ],
)
def test_a_copy_without_places_is_refused(
    tmp_path: Path, georeference: Georeference, reason: str
) -> None:
    write_dfc2020(tmp_path, georeference)
    tiles = DFC2020(tmp_path, 'train')
    with pytest.raises(DataError, match=f'{reason}.*Use DFC2020, tile by tile'):
        DFC2020Geo(tiles)
    with pytest.raises(DataError, match=reason):
        DFC2020Geo.zones(tiles)


def test_tiles_of_two_resolutions_are_refused(tiles: DFC2020) -> None:
    path = tiles.layout.path(str(tiles.files[3]), 'dfc')
    with rasterio.open(path, 'r+') as raster:
        raster.transform = raster.transform @ Affine.scale(2)
    with pytest.raises(DataError, match=f'{path} has pixels of 20 × 20'):
        DFC2020Geo.zones(tiles)
