"""What a notebook gets of the mask of a scene."""

import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from tests.fakes.class_rasters import NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.errors import SceneError, SettingError
from torchgeo_ctm.inference.scene_mask import SceneMask
from torchgeo_ctm.inference.vector import vectorize

VALUES = random_classes(40, 60)


@pytest.fixture
def mask(tmp_path: Path) -> SceneMask:
    path = write_classes(tmp_path / 'mask.tif', VALUES)
    polygons = vectorize(path, tmp_path / 'mask.gpkg')
    return SceneMask({'mask': path, 'polygons': polygons})


def test_to_xarray(mask: SceneMask) -> None:
    array = mask.to_xarray()
    np.testing.assert_array_equal(array, VALUES)
    assert array.dims == ('y', 'x') and array.name == 'mask'
    assert array.attrs['class_names'] == NAMES
    assert array.rio.crs.to_epsg() == 32630
    assert array.rio.transform() == UTM and array.rio.nodata == 255
    # centers of the pixels
    assert float(array.x[0]) == UTM.c + 5 and float(array.y[0]) == UTM.f - 5


def test_polygons(mask: SceneMask) -> None:
    found = mask.polygons()
    assert isinstance(found, gpd.GeoDataFrame) and found.crs.to_epsg() == 32630
    assert set(found['name']) == set(NAMES)
    assert found.area.sum() / 100 == pytest.approx((VALUES != 255).sum())


def test_what_was_not_written(mask: SceneMask, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SceneError, match=r'without confidence.*wrote: mask, polygons'):
        mask.to_xarray('confidence')
    with pytest.raises(SettingError, match="Did you mean 'confidence'"):
        mask.to_xarray('confidences')
    with pytest.raises(SceneError, match='without polygons'):
        SceneMask({'mask': mask.products['mask']}).polygons()
    monkeypatch.setitem(sys.modules, 'rioxarray', None)
    with pytest.raises(SettingError, match=r'torchgeo-ctm\[xarray\]'):
        mask.to_xarray()


def test_a_notebook_shows_picture_and_hectares(mask: SceneMask, tmp_path: Path) -> None:
    shown = mask._repr_html_()
    assert 'data:image/png;base64,' in shown
    assert 'Urban &amp; &lt;Built-up&gt;/Roads' in shown
    water = (VALUES == 1).sum() / 100
    # 0.1 % smaller on the ellipsoid
    assert f'{water * 0.9993:,.1f}' in shown
    bare = write_classes(tmp_path / 'bare.tif', VALUES, crs=None)
    assert '<table>' not in SceneMask({'mask': bare})._repr_html_()


def test_an_earlier_map_is_opened(mask: SceneMask, tmp_path: Path) -> None:
    found = SceneMask.beside(str(tmp_path / 'mask.tif'))
    assert found.products == mask.products
    assert found.areas() == mask.areas()
    with pytest.raises(SceneError, match='does not exist'):
        SceneMask.beside(tmp_path / 'other.tif')
