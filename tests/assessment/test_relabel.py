from functools import partial
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from tests.commands import Run, refused
from tests.fakes.class_rasters import COLORS, NAMES, random_classes, write_classes
from torchgeo_ctm.assessment.change import change
from torchgeo_ctm.assessment.relabel import relabel
from torchgeo_ctm.errors import GeoreferenceWarning, OutputError
from torchgeo_ctm.inference import masks
from torchgeo_ctm.inference.geotiff import RasterRows
from torchgeo_ctm.inference.masks import class_colors, class_names


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, 'ROW_BAND', 1000)


def test_classes_are_merged_renamed_and_colored(tmp_path: Path) -> None:
    values = random_classes(70, 90)
    mask = write_classes(tmp_path / 'm.tif', values)
    with rasterio.open(mask, 'r+') as raster:
        raster.update_tags(SCENE='x.tif')
    output = tmp_path / 'o.tif'
    paths = relabel(
        mask,
        output,
        merge=['Forest+Crops=Green', 'Water=See'],
        colors=['red', '#0000ff', 'k'],
    )
    assert paths == [output, tmp_path / 'o.qml']
    with rasterio.open(output) as raster:
        expected = np.array([0, 1, 2, 0, *[255] * 252], np.uint8)[values]
        np.testing.assert_array_equal(raster.read(1), expected)
        assert class_names(raster) == ['Green', 'See', NAMES[2]]
        assert class_colors(raster) == ['#ff0000', '#0000ff', '#000000']
        assert raster.tags()['SCENE'] == 'x.tif'
        assert raster.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
        with rasterio.open(mask) as source:
            assert (raster.crs, raster.transform) == (source.crs, source.transform)
    beside = ElementTree.parse(tmp_path / 'o.tif.aux.xml').getroot()
    assert [e.text for e in beside.iter('Category')] == ['Green', 'See', NAMES[2]]
    assert 'Green' in (tmp_path / 'o.qml').read_text()


def test_without_options_nothing_changes(tmp_path: Path) -> None:
    values = random_classes(40, 50)
    mask = write_classes(tmp_path / 'm.tif', values)
    relabel(mask, tmp_path / 'o.tif', style=False)
    assert not (tmp_path / 'o.qml').exists()
    with rasterio.open(tmp_path / 'o.tif') as raster:
        np.testing.assert_array_equal(raster.read(1), values)
        assert class_names(raster) == NAMES
        assert class_colors(raster) == COLORS


def test_values_of_a_known_map_become_classes(tmp_path: Path) -> None:
    values = np.array([[10, 80, 30], [20, 255, 80]], np.uint8)
    mask = write_classes(tmp_path / 'm.tif', values, names=None)
    relabel(mask, tmp_path / 'o.tif', class_map=['worldcover', '20=Tree cover', '30='])
    with rasterio.open(tmp_path / 'o.tif') as raster:
        names = class_names(raster)
        found = [[names[v] if v < 255 else None for v in row] for row in raster.read(1)]
    wood, water = 'Tree cover', 'Permanent water bodies'
    assert found == [[wood, water, None], [wood, None, water]]


def test_mistakes(run: Run, tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    command = ('relabel', mask, '--output', tmp_path / 'o.tif')
    refused(run(*command, '--merge', 'Forst+Water=x'), "Did you mean 'Forest'?")
    refused(run(*command, '--merge', 'Forest=Water'), "would be named 'Water'")
    refused(run(*command, '--names', 'a,b'), 'names has 2 entries, expected 4')
    refused(run(*command, '--names', 'a,b,A,c'), 'twice')
    refused(run(*command, '--colors', 'red,bleu,k,w'), "Unknown color 'bleu'")
    refused(run(*command, '--class_map', '7=x,Forst=y'), "Did you mean 'Forest'?")
    refused(
        run('relabel', mask, '--output', tmp_path / 'o.png'), "Did you mean 'o.tif'?"
    )
    refused(
        run('relabel', mask, '--output', mask, '--overwrite'), 'is the input itself'
    )
    refused(run(*command, '--class_map', 'worldcover'), 'names its classes, and holds')
    plain = write_classes(tmp_path / 'p.tif', random_classes(20, 20), names=None)
    refused(
        run('relabel', plain, '--output', tmp_path / 'o.tif', '--class_map', '0=a,1=b,3=c'),
        'holds class 2', '2=NAME',
    )  # fmt: skip
    refused(run(*command, '--class_map', '0=a,0=b'), "value 0 twice, 'a' and 'b'")
    assert {path.name for path in tmp_path.iterdir()} == {'m.tif', 'p.tif'}


def test_no_pixel_loses_its_class_unsaid(run: Run, tmp_path: Path) -> None:
    values = random_classes(20, 20)
    mask = write_classes(tmp_path / 'm.tif', values, names=NAMES[:2])
    command = ('relabel', mask, '--output', tmp_path / 'o.tif')
    refused(run(*command, '--merge', 'Forest=Wood'), 'holds class 2, 3', '"2="')
    assert run(*command, '--class_map', '2=,3=')[0] == 0


def test_a_full_disk_leaves_no_style_alone(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    (tmp_path / 'o').mkdir()
    for make in (relabel, partial(change, mask)):
        with (
            patch.object(RasterRows, 'publish', side_effect=OutputError('full')),
            pytest.raises(OutputError, match='full'),
        ):
            make(mask, tmp_path / 'o' / 'o.tif')
        assert not [*(tmp_path / 'o').iterdir()]


def test_control_points_are_named(tmp_path: Path) -> None:
    mask = write_classes(
        tmp_path / 'm.tif',
        random_classes(20, 20),
        crs=None,
        transform=Affine.identity(),
    )
    points = [
        GroundControlPoint(row=row, col=col, x=8 + col, y=47 - row)
        for row in (0, 20)
        for col in (0, 20)
    ]
    with rasterio.open(mask, 'r+') as raster:
        raster.gcps = points, CRS.from_epsg(4326)
    with pytest.warns(GeoreferenceWarning, match=r'\(GCPs\), which .*with gdalwarp'):
        relabel(mask, tmp_path / 'o.tif')
