import json
import warnings
from pathlib import Path
from unittest.mock import patch

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

from tests.commands import Run, refused
from tests.fakes.class_rasters import NAMES, random_classes, write_classes
from torchgeo_ctm.assessment.change import change
from torchgeo_ctm.errors import LabelWarning, OutputError, SettingError
from torchgeo_ctm.inference import masks
from torchgeo_ctm.inference.masks import class_colors, class_names


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, 'ROW_BAND', 1000)


def test_pixels_and_hectares_from_class_to_class(tmp_path: Path, run: Run) -> None:
    values = random_classes(60, 80), random_classes(60, 80, seed=1)
    # the second map numbers its classes in another order
    order = [2, 0, 3, 1, *range(4, 256)]
    one = write_classes(tmp_path / 'one.tif', values[0])
    two = write_classes(
        tmp_path / 'two.tif',
        np.argsort(order).astype(np.uint8)[values[1]],
        names=[NAMES[index] for index in order[:4]],
    )
    output, csv = tmp_path / 'change.tif', tmp_path / 'change.csv'
    status, printed, err = run('change', one, two, '--output', output, '--csv', csv)
    assert status == 0, err
    known = (values[0] != 255) & (values[1] != 255)
    table = pd.read_csv(csv, index_col='from')
    assert [*table.index] == [*table.columns] == NAMES
    expected = np.zeros((4, 4))
    np.add.at(expected, (values[0][known], values[1][known]), 1)
    # pixels of 10 m in UTM, 0.1 % smaller on the ellipsoid
    np.testing.assert_allclose(table.to_numpy(), expected / 100, rtol=2e-3)
    changed = (values[0] != values[1]) & known
    assert f'{changed.sum() / known.sum():.1%}' in printed
    with rasterio.open(output) as raster:
        names, found = class_names(raster), raster.read(1)
        assert raster.tags()['CHANGE'] == '["one.tif", "two.tif"]'
        assert len(set(class_colors(raster))) == len(names)
    assert names[0] == 'unchanged'
    np.testing.assert_array_equal(found == 255, ~known)
    np.testing.assert_array_equal((found > 0) & known, changed)
    for row, col in zip(*changed.nonzero(), strict=True):
        pair = f'{NAMES[values[0][row, col]]} to {NAMES[values[1][row, col]]}'
        assert names[found[row, col]] == pair
    sizes = np.bincount(found[changed])[1:]
    assert (np.diff(sizes) <= 0).all()
    shapes = gpd.read_file(tmp_path / 'change.gpkg')
    assert set(shapes['name']) == set(names[1:])
    assert shapes['area_ha'].sum() == pytest.approx(changed.sum() / 100, rel=2e-3)
    assert 'unchanged' in output.with_suffix('.qml').read_text()


def test_a_map_against_itself(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'mask.tif', random_classes(30, 40))
    found = change(mask, mask, tmp_path / 'o.tif', polygons=False)
    off = ~np.eye(4, dtype=bool)
    assert not found.hectares.to_numpy()[off].any()
    assert not (tmp_path / 'o.gpkg').exists()
    with rasterio.open(tmp_path / 'o.tif') as raster:
        assert class_names(raster) == ['unchanged']
        assert set(np.unique(raster.read(1))) == {0, 255}


def test_unsure_pixels_are_unknown(tmp_path: Path) -> None:
    values = np.zeros((20, 30), np.uint8)
    one = write_classes(tmp_path / 'one.tif', values)
    two = write_classes(tmp_path / 'two.tif', values + 1)
    percent = np.full((2, 20, 30), 90, np.uint8)
    percent[0, :5], percent[1, :, :10], percent[1, 19, 29] = 40, 59, 255
    for path, each in zip((one, two), percent, strict=True):
        name = path.with_name(f'{path.stem}_confidence.tif')
        write_classes(name, each, names=None, description='confidence in percent')
    found = change(one, two, tmp_path / 'o.tif', min_confidence=60)
    unknown = (percent < 60).any(axis=0) | (percent == 255).any(axis=0)
    with rasterio.open(tmp_path / 'o.tif') as raster:
        np.testing.assert_array_equal(raster.read(1) == 255, unknown)
        assert json.loads(raster.tags()['MIN_CONFIDENCE']) == 60
    assert found.unknown == pytest.approx(unknown.sum() / 100, rel=2e-3)
    with pytest.raises(SettingError, match=r'in percent.* Did you mean 60'):
        change(one, two, tmp_path / 'p.tif', min_confidence=0.6)  # type: ignore[arg-type]


def test_confidence_is_checked_and_never_replaced(tmp_path: Path, run: Run) -> None:
    for name in ('one', 'two'):
        write_classes(tmp_path / f'{name}.tif', random_classes(20, 30))
    maps = tmp_path / 'one.tif', tmp_path / 'two.tif'
    share = np.full((20, 30), 0.9, np.float32)
    option = ('--min_confidence', 50, '--overwrite')
    for values, words in (
        (share, 'holds float32, expected confidence in percent'),
        ((200 * share).astype(np.uint8), 'holds 180, expected confidence of 0 to 100'),
    ):
        for path in maps:
            beside = path.with_name(f'{path.stem}_confidence.tif')
            write_classes(beside, values, names=None)
        refused(run('change', *maps, '--output', tmp_path / 'o.tif', *option), words)
    before = beside.read_bytes()
    refused(run('change', *maps, '--output', beside, *option), 'is the input itself')
    assert beside.read_bytes() == before


def test_polygons_that_fail_leave_nothing(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 30))
    full = OutputError('full')
    with (
        patch('torchgeo_ctm.assessment.change.vectorize', side_effect=full),
        pytest.raises(OutputError, match='full'),
    ):
        change(mask, mask, tmp_path / 'o.tif')
    assert [path.name for path in tmp_path.iterdir()] == ['m.tif']


def test_bad_input_is_one_line(tmp_path: Path, run: Run) -> None:
    values = random_classes(30, 40)
    mask = write_classes(tmp_path / 'mask.tif', values)
    small = write_classes(tmp_path / 'small.tif', values[:20])
    other = write_classes(tmp_path / 'other.tif', values, names=['A', 'B', 'C', 'D'])
    bare = write_classes(tmp_path / 'bare.tif', values, crs=None)
    many = write_classes(
        tmp_path / 'many.tif',
        np.arange(1200, dtype=np.uint8).reshape(30, 40) % 40,
        names=[f'C{index}' for index in range(40)],
    )
    turned = write_classes(
        tmp_path / 'turned.tif',
        np.arange(1200).reshape(30, 40).T.reshape(30, 40).astype(np.uint8) % 40,
        names=[f'C{index}' for index in range(40)],
    )
    output = tmp_path / 'o.tif'
    for arguments, words in (
        ((mask, small), 'size (rows, columns)'),
        ((mask, other), 'expected some in common'),
        ((bare, bare), 'has no CRS'),
        ((many, turned), 'relabel --merge'),
        ((mask, mask, '--min_confidence', 50), 'mask_confidence.tif does not exist'),
        ((mask, mask, '--min_confidence', 101), 'expected 0 to 100'),
        ((mask, mask, '--min_area', -1), 'expected 0 or more'),
        ((mask, tmp_path / 'no.tif'), 'does not exist'),
        ((mask, mask, '--csv', tmp_path / 'x.txt'), 'Did you mean'),
    ):
        refused(run('change', *arguments, '--output', output), words)
        assert not list(tmp_path.glob('o.*')) and not list(tmp_path.glob('.o*'))
    refused(run('change', mask, mask, '--output', mask, '--overwrite'), 'input')


def test_classes_of_one_map_alone_are_told(tmp_path: Path) -> None:
    values = random_classes(30, 40)
    one = write_classes(tmp_path / 'one.tif', values)
    two = write_classes(
        tmp_path / 'two.tif', values, names=[*NAMES[:3], 'Something else']
    )
    with pytest.warns(LabelWarning) as said:
        change(one, two, tmp_path / 'o.tif', polygons=False)
    first, second = (str(each.message) for each in said)
    assert f'one.tif has {NAMES[3]!r}, which are no classes of' in first
    assert "two.tif has 'Something else'" in second
    values[values == 3] = 0
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        # a class that does not occur changes nothing
        one = write_classes(tmp_path / 'one.tif', values)
        two = write_classes(tmp_path / 'two.tif', values, names=NAMES[:3])
        change(one, two, tmp_path / 'o.tif', polygons=False, overwrite=True)
