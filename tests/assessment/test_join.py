"""Joined maps: what each pixel gets, from maps of one grid, of others, of two zones."""

import re
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from tests.commands import Run, refused
from tests.fakes.class_rasters import COLORS, NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.assessment import join as joining
from torchgeo_ctm.assessment.join import join
from torchgeo_ctm.errors import LabelWarning, NodataWarning, Note
from torchgeo_ctm.inference.masks import class_colors, class_names, open_mask


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, 'ROW_BAND', 1000)


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as raster:
        return raster.read(1)  # type: ignore[no-any-return]


def with_confidence(path: Path, percent: NDArray[np.uint8]) -> None:
    """Write the confidence of a map beside it."""
    with rasterio.open(path) as raster:
        crs, transform = raster.crs, raster.transform
    beside = path.with_name(f'{path.stem}_confidence.tif')
    text = 'confidence, per cent'
    write_classes(beside, percent, crs, transform, None, text)


def test_parts_of_a_map_are_the_map_again(tmp_path: Path, run: Run) -> None:
    values = random_classes(90, 70)
    parts = [
        write_classes(
            tmp_path / f'{row}_{col}.tif',
            values[row : row + 50, col : col + 40],
            transform=UTM @ Affine.translation(col, row),
        )
        for row, col in ((40, 30), (0, 0), (0, 30), (40, 0))
    ]
    output = tmp_path / 'map.tif'
    status, printed, err = run('join', *parts, '--output', output)
    assert status == 0, err
    assert printed.split() == [
        str(output.with_suffix(s)) for s in ('.tif', '.qml', '.gpkg')
    ]
    np.testing.assert_array_equal(read(output), values)
    with rasterio.open(output) as raster:
        assert (raster.crs, raster.transform) == ('EPSG:32630', UTM)
        assert class_names(raster) == NAMES
        assert class_colors(raster) == COLORS
    shapes = gpd.read_file(output.with_suffix('.gpkg'), layer='map')
    known = (values != 255).sum()
    assert shapes['area_ha'].sum() == pytest.approx(known / 100, rel=2e-3)


def test_the_highest_confidence_counts_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [random_classes(40, 40, seed=seed) for seed in range(3)]
    percents = [rng.integers(30, 35, (40, 40)).astype(np.uint8) for _ in values]
    maps = []
    for number, (own, percent) in enumerate(zip(values, percents, strict=True)):
        maps.append(write_classes(tmp_path / f'{number}.tif', own))
        with_confidence(maps[-1], np.where(own == 255, 255, percent).astype(np.uint8))
    level = np.stack(percents).astype(int) * 1000 - np.stack(values)
    level[np.stack(values) == 255] = -1
    best = level.argmax(axis=0)
    expected = np.take_along_axis(np.stack(values), best[None], axis=0)[0]
    trust = np.take_along_axis(np.stack(percents), best[None], axis=0)[0]
    for order in (maps, maps[::-1]):
        output = tmp_path / 'joined.tif'
        paths = join(order, output, polygons=False, overwrite=True)
        assert [path.suffix for path in paths] == ['.tif', '.tif', '.qml', '.qml']
        np.testing.assert_array_equal(read(output), expected)
        found = read(tmp_path / 'joined_confidence.tif')
        np.testing.assert_array_equal(found == 255, expected == 255)
        np.testing.assert_array_equal(found[found < 255], trust[found < 255])


def test_without_confidence_the_first_map_counts(tmp_path: Path) -> None:
    one, two = random_classes(40, 40), random_classes(40, 40, seed=1)
    paths = [write_classes(tmp_path / f'{n}.tif', v) for n, v in enumerate((one, two))]
    join(paths, tmp_path / 'map.tif', polygons=False, style=False)
    expected = np.where(one == 255, two, one)
    np.testing.assert_array_equal(read(tmp_path / 'map.tif'), expected)


def test_classes_are_joined_by_name(tmp_path: Path) -> None:
    one = write_classes(tmp_path / '1.tif', np.zeros((8, 8), np.uint8))
    names = ['Bare', 'forest ', 'Crops']
    two = write_classes(
        tmp_path / '2.tif',
        np.array([[0, 1, 2, 255]], np.uint8).repeat(8, axis=0),
        transform=UTM @ Affine.translation(8, 0),
        names=names,
    )
    join([one, two], tmp_path / 'map.tif', polygons=False)
    with rasterio.open(tmp_path / 'map.tif') as raster:
        assert class_names(raster) == [*NAMES, 'Bare']
        assert raster.read(1)[0].tolist() == [0] * 8 + [4, 0, 3, 255]


def test_names_that_are_spelled_alike_are_said(tmp_path: Path) -> None:
    values = np.zeros((8, 8), np.uint8)
    one = write_classes(tmp_path / '1.tif', values, names=['water', 'tree'])
    two = write_classes(tmp_path / '2.tif', values, names=['water', 'trees'])
    with pytest.warns(
        LabelWarning, match=r"the class 'tree', others 'trees'.*tree=trees"
    ):
        join([one, two], tmp_path / 'map.tif', polygons=False)
    three = write_classes(tmp_path / '3.tif', values, names=['tree', 'trees'])
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        join([one, three], tmp_path / 'map.tif', polygons=False, overwrite=True)


def test_maps_without_a_class_in_common_are_said(tmp_path: Path) -> None:
    values = np.zeros((8, 8), np.uint8)
    one = write_classes(tmp_path / '1.tif', values, names=['water', 'wood'])
    two = write_classes(tmp_path / '2.tif', values, names=['Wasser', 'Wald'])
    with pytest.warns(LabelWarning, match=r'water, wood, .* Wasser, Wald: .* relabel'):
        join([one, two], tmp_path / 'map.tif', polygons=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        same = write_classes(tmp_path / '3.tif', values, names=['WATER', 'Wald'])
        join([one, same, two], tmp_path / 'm.tif', polygons=False)


def test_a_map_of_the_next_zone_lies_in_its_true_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (12, 12)).astype(np.uint8)
    values = coarse.repeat(20, axis=0).repeat(20, axis=1)
    # both at the border of the zones 30 and 31, at 0° E
    west = write_classes(
        tmp_path / 'w.tif',
        values,
        'EPSG:32630',
        Affine(10, 0, 758_000, 0, -10, 4_200_000),
    )
    east = write_classes(
        tmp_path / 'e.tif',
        values,
        'EPSG:32631',
        Affine(10, 0, 236_500, 0, -10, 4_200_000),
    )
    join([west, east], tmp_path / 'map.tif', polygons=False)
    with rasterio.open(tmp_path / 'map.tif') as raster:
        joined, inverse = raster.read(1), ~raster.transform
        assert raster.crs == 'EPSG:32630'
    to_west = Transformer.from_crs(32631, 32630, always_xy=True)
    # middles of the cells of 200 m, far from any border
    for row in range(12):
        for col in range(12):
            x, y = 236_500 + 200 * col + 100, 4_200_000 - 200 * row - 100
            at_col, at_row = inverse @ to_west.transform(x, y)
            assert joined[int(at_row), int(at_col)] == coarse[row, col]
    like = write_classes(tmp_path / 'like.tif', values, 'EPSG:32631', UTM @ UTM)
    with pytest.raises(Exception, match='lies outside of the joined map'):
        join([west, east], tmp_path / 'x.tif', like=like)


def test_like_gives_the_grid(tmp_path: Path) -> None:
    one = write_classes(tmp_path / '1.tif', random_classes(40, 40))
    two = write_classes(tmp_path / '2.tif', random_classes(40, 40, seed=1))
    grid = UTM @ Affine.translation(5, 7)
    like = write_classes(
        tmp_path / 'like.tif', np.zeros((20, 30), np.uint8), transform=grid
    )
    join([one, two], tmp_path / 'whole.tif', polygons=False)
    join([one, two], tmp_path / 'part.tif', like=like, polygons=False)
    part, whole = read(tmp_path / 'part.tif'), read(tmp_path / 'whole.tif')
    np.testing.assert_array_equal(part, whole[7:27, 5:35])


def test_bad_input(tmp_path: Path, run: Run) -> None:
    values = random_classes(20, 20)
    one = write_classes(tmp_path / 'one.tif', values)
    bare = write_classes(tmp_path / 'bare.tif', values, names=None)
    lost = write_classes(tmp_path / 'lost.tif', values, crs=None)
    far = write_classes(
        tmp_path / 'far.tif', values, transform=UTM @ Affine.translation(2e6, 0)
    )
    percent = write_classes(
        tmp_path / 'percent.tif', values, names=None, description='confidence, per cent'
    )
    output = tmp_path / 'map.tif'
    odd = tmp_path / 'odd'
    odd.mkdir()
    scaled = write_classes(odd / 'scaled.tif', values)
    with_confidence(scaled, np.where(values == 255, 255, 200).astype(np.uint8))
    refused(run('join', scaled, scaled, '--output', output), 'holds 200, expected')
    for maps, words in (
        ([one], 'Expected two maps or more'),
        ([one, bare], 'has no class names'),
        ([one, lost], 'has no CRS'),
        ([one, far], 'far apart'),
        ([one, percent], 'holds confidence in percent, expected classes'),
        ([one, tmp_path / 'absent.tif'], 'absent.tif'),
    ):
        refused(run('join', *maps, '--output', output), words)
    refused(run('join', one, one, '--output', one, '--overwrite'), 'input')
    refused(run('join', one, one, '--output', output, '--like', lost), 'no CRS')
    taken = output.with_suffix('.gpkg')
    taken.write_text('somebody')
    refused(run('join', one, one, '--output', output), 'already exists')
    assert {path.name for path in tmp_path.iterdir()} == {
        *(
            'one.tif',
            'odd',
            'bare.tif',
            'lost.tif',
            'far.tif',
            'percent.tif',
            'map.gpkg',
        )
    }


def test_a_nodata_value_that_is_a_class_is_told(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    with rasterio.open(mask, 'r+') as raster:
        raster.nodata = 0
        name = class_names(raster)[0]
    said = f"has the nodata value 0, which is its class '{name}'"
    with pytest.warns(NodataWarning, match=re.escape(said)):
        open_mask(mask).close()


def test_without_confidence_the_order_is_told(tmp_path: Path) -> None:
    paths = [
        write_classes(tmp_path / f'{n}.tif', random_classes(20, 20, seed=n))
        for n in range(2)
    ]
    with pytest.warns(Note, match='the first of them counts'):
        join(paths, tmp_path / 'map.tif', polygons=False)


def test_maps_that_lie_far_apart_are_told(tmp_path: Path) -> None:
    values = random_classes(20, 20)
    for name, shift in (('near', 20), ('far', 1000)):
        one = write_classes(tmp_path / '1.tif', values)
        moved = UTM @ Affine.translation(shift, shift)
        two = write_classes(tmp_path / '2.tif', values, transform=moved)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            join([one, two], tmp_path / f'{name}.tif', polygons=False)
        said = [str(w.message) for w in caught if 'lie far apart' in str(w.message)]
        assert len(said) == (name == 'far')
    assert 'cover 0.077 % of the joined map of 1,020 × 1,020 px' in said[0]
