import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
from affine import Affine

from tests.fakes.class_rasters import NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.errors import (
    GridError,
    NodataWarning,
    OutputError,
    SceneError,
    SettingError,
)
from torchgeo_ctm.inference import polygons, vector
from torchgeo_ctm.inference.areas import class_areas
from torchgeo_ctm.inference.vector import (
    check_vector_output,
    read_vectorized,
    vectorize,
)

SUFFIXES = ('.gpkg', '.fgb', '.parquet')
COLUMNS = ['class', 'name', 'area_ha', 'confidence', 'geometry']
DEGREES = Affine(1e-4, 0, 10, 0, -1e-4, 50)


def read(path: Path) -> gpd.GeoDataFrame:
    return read_vectorized(path)


def burnt(frame: gpd.GeoDataFrame, mask: Path) -> Any:
    with rasterio.open(mask) as raster:
        shapes = zip(frame.geometry, frame['class'], strict=True)
        return rasterio.features.rasterize(
            shapes, raster.shape, fill=255, transform=raster.transform, dtype='uint8'
        )


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize(
    ('crs', 'transform'),
    [
        ('EPSG:32630', UTM),
        ('EPSG:4326', DEGREES),
        ('EPSG:32630', UTM @ Affine.rotation(20)),
        (None, Affine.identity()),
        ('LOCAL_CS["mill",UNIT["metre",1]]', Affine(2, 0, 7, 0, -2, 9)),
        ('EPSG:32630', Affine(10, 0, 500_000, 0, 10, 4_200_000)),
    ],
    ids=['utm', 'degrees', 'rotated', 'pixels', 'mill', 'south up'],
)
def test_polygons_are_the_raster(
    tmp_path: Path, suffix: str, crs: str | None, transform: Affine
) -> None:
    values = random_classes(70, 90)
    mask = write_classes(tmp_path / 'a.tif', values, crs, transform)
    output = tmp_path / f'out{suffix}'
    assert vectorize(mask, output) == output
    frame = read(output)
    assert list(frame.columns) == COLUMNS
    assert (frame.crs is None) == (crs is None)
    assert frame.crs == crs or 'mill' in str(crs)
    assert frame.geometry.is_valid.all()
    assert (frame.geom_type == 'Polygon').all()
    np.testing.assert_array_equal(burnt(frame, mask), values)
    assert frame['name'].tolist() == [NAMES[c] for c in frame['class']]
    assert frame['confidence'].isna().all()
    if crs is None or crs.startswith('LOCAL'):
        assert frame['area_ha'].isna().all()
        pixel = abs(transform.determinant)
        planar = frame.area.groupby(frame['name']).sum() / pixel
        assert planar['Water'] == (values == 1).sum()
    else:
        areas = frame.groupby('name')['area_ha'].sum()
        assert areas.to_dict() == pytest.approx(class_areas(mask), rel=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.tif', output.name]


def test_areas_do_not_depend_on_the_crs(tmp_path: Path) -> None:
    mask = write_classes(
        tmp_path / 'a.tif', random_classes(70, 90), 'EPSG:4326', DEGREES
    )
    frame = read(vectorize(mask, tmp_path / 'a.gpkg'))
    expected = frame.to_crs('EPSG:6933').area / 10_000
    np.testing.assert_allclose(frame['area_ha'], expected, rtol=1e-6)


def test_regions_across_row_bands_and_chunks_are_one_polygon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = random_classes(300, 40)
    mask = write_classes(tmp_path / 'a.tif', values)
    whole = read(vectorize(mask, tmp_path / 'whole.gpkg'))
    monkeypatch.setattr(polygons, 'BATCH', 10)
    monkeypatch.setattr(polygons, 'CHUNK', 100)
    monkeypatch.setattr(polygons, 'ROW_BAND', 2000)
    for suffix in SUFFIXES:
        parts = read(vectorize(mask, tmp_path / f'parts{suffix}'))
        # FlatGeobuf orders polygons by location
        ours, theirs = (
            frame.assign(key=frame.normalize().to_wkb()).sort_values('key')
            for frame in (parts, whole)
        )
        np.testing.assert_array_equal(ours['key'], theirs['key'])
        np.testing.assert_array_equal(ours['class'], theirs['class'])
        np.testing.assert_array_equal(ours['area_ha'], theirs['area_ha'])
    with rasterio.open(mask) as raster:
        array = raster.read(1)
        shapes = list(rasterio.features.shapes(array, array != 255))
    assert len(whole) == len(shapes)


@pytest.mark.parametrize('sieve', [0, 5])
def test_confidence_is_the_mean_of_the_pixels(tmp_path: Path, sieve: int) -> None:
    values = random_classes(300, 60)
    share = np.random.default_rng(1).integers(0, 101, values.shape).astype(np.uint8)
    share[values == 255] = 255
    mask = write_classes(tmp_path / 'a.tif', values)
    confidence = write_classes(tmp_path / 'b.tif', share, names=None)
    frame = read(
        vectorize(mask, tmp_path / 'a.gpkg', confidence=confidence, sieve=sieve)
    )
    with rasterio.open(mask) as raster:
        ids = rasterio.features.rasterize(
            zip(frame.geometry, range(1, len(frame) + 1), strict=True),
            raster.shape,
            transform=raster.transform,
            dtype='int32',
        )
    np.testing.assert_array_equal(ids == 0, values == 255)
    counts = np.bincount(ids.ravel())[1:]
    expected = np.bincount(ids.ravel(), share.ravel().astype(float))[1:] / counts
    np.testing.assert_allclose(frame['confidence'], expected)


def test_small_polygons_are_merged_or_left_out(tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.uint8)
    values[10:12, 10:12] = 1
    values[30:33, 30:33] = 2
    mask = write_classes(tmp_path / 'a.tif', values)
    merged = read(vectorize(mask, tmp_path / 'merged.gpkg', sieve=5))
    assert merged['name'].tolist() == [NAMES[2], NAMES[0]]
    np.testing.assert_array_equal(burnt(merged, mask), np.where(values == 1, 0, values))
    left = read(vectorize(mask, tmp_path / 'left.gpkg', min_area=0.05))
    with pytest.warns(NodataWarning, match='no polygon: none has min_area=900 ha'):
        none = vectorize(mask, tmp_path / 'none.gpkg', min_area=900)
    assert read(none).empty
    np.testing.assert_array_equal(burnt(left, mask), np.where(values == 1, 255, values))


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_nothing_but_nodata_is_a_file_without_polygons(
    tmp_path: Path, suffix: str
) -> None:
    mask = write_classes(tmp_path / 'a.tif', np.full((30, 20), 255, np.uint8))
    for kwargs in ({}, {'sieve': 4}, {'min_area': 1.0}):
        output = vectorize(mask, tmp_path / f'a{suffix}', overwrite=True, **kwargs)
        frame = read(output)
        assert len(frame) == 0
        assert list(frame.columns) == COLUMNS
        assert frame.crs == 'EPSG:32630'


def test_the_layer_has_the_file_s_name_and_types(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20))
    for suffix in ('.gpkg', '.fgb'):
        output = vectorize(mask, tmp_path / f'my map{suffix}')
        layers = pyogrio.list_layers(output)[:, 0].tolist()
        assert layers == ['my map', *['layer_styles'] * (suffix == '.gpkg')]
        info = pyogrio.read_info(output, layers[0])
        assert info['geometry_type'] == 'Polygon'
        assert info['dtypes'].tolist() == ['int32', 'object', 'float64', 'float64']


def test_a_geopackage_has_its_style_inside(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20))
    path = vectorize(mask, tmp_path / 'a.gpkg')
    with closing(sqlite3.connect(path)) as database:
        [row] = database.execute(
            'SELECT f_table_name, f_geometry_column, useAsDefault, styleQML '
            'FROM layer_styles'
        )
    assert row[:3] == ('a', 'geom', 1)
    categories = ET.fromstring(row[3].split('\n', 1)[1]).iter('category')
    assert [each.get('label') for each in categories] == NAMES
    path = vectorize(mask, tmp_path / 'plain.gpkg', style=False)
    assert pyogrio.list_layers(path)[:, 0].tolist() == ['plain']


def test_classes_without_names_have_numbers(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20), names=None)
    frame = read(vectorize(mask, tmp_path / 'a.gpkg'))
    assert frame['name'].tolist() == frame['class'].astype(str).tolist()


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20))
    (tmp_path / 'there.gpkg').write_text('mine')
    (tmp_path / 'folder.fgb').mkdir()
    before = sorted(tmp_path.iterdir())
    for name, message in (
        ('a.gpk', r"Did you mean '\.gpkg'"),
        ('a.shp', r"Did you mean '\.gpkg'"),
        ('nowhere/a.gpkg', 'does not exist. Create it'),
        ('there.gpkg', 'Pass overwrite=True'),
        ('folder.fgb', 'is a folder'),
    ):
        with pytest.raises(OutputError, match=message):
            vectorize(mask, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / 'there.gpkg').read_text() == 'mine'


def test_geoparquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(OutputError, match=r'torchgeo-ctm\[parquet\].*a\.gpkg'):
        check_vector_output(tmp_path / 'a.parquet')
    check_vector_output(tmp_path / 'a.gpkg')


def test_replacing_leaves_nothing_of_the_older_file(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20))
    for ending in ('', '-wal', '-shm', '-journal'):
        (tmp_path / f'a.gpkg{ending}').write_text('old')
    vectorize(mask, tmp_path / 'a.gpkg', overwrite=True)
    assert len(read(tmp_path / 'a.gpkg'))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.gpkg', 'a.tif']


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException
) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(60, 40))
    output = tmp_path / f'a{suffix}'
    output.write_text('old')
    monkeypatch.setattr(polygons, 'BATCH', 10)
    monkeypatch.setattr(polygons, 'CHUNK', 10)

    def fail(*args: object) -> None:
        assert list(tmp_path.glob('.*.part/*'))
        raise error

    monkeypatch.setattr(vector, 'publish_vector', fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        vectorize(mask, output, overwrite=True, sieve=3)
    assert output.read_text() == 'old'
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(['a.tif', output.name])


def test_a_damaged_mask_is_no_half_map(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(600, 600))
    mask.write_bytes(mask.read_bytes()[:200_000])
    for sieve in (0, 4):
        with pytest.raises(SceneError, match='Cannot read'):
            vectorize(mask, tmp_path / 'a.gpkg', sieve=sieve)
    assert [p.name for p in tmp_path.iterdir()] == ['a.tif']


def test_settings_outside_their_range(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(30, 20), None)
    with pytest.raises(SettingError, match='expected 0 or more'):
        vectorize(mask, tmp_path / 'a.gpkg', sieve=-1)
    with pytest.raises(SettingError, match='expected 0 or more'):
        vectorize(mask, tmp_path / 'a.gpkg', min_area=-1.0)
    with pytest.raises(GridError, match='Or use sieve'):
        vectorize(mask, tmp_path / 'a.gpkg', min_area=1.0)
    assert [p.name for p in tmp_path.iterdir()] == ['a.tif']
