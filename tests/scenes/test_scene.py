import json
import pickle
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import ColorInterp

from tests.conftest import WriteScene, scene_pixels
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.errors import (
    BandError,
    BandWarning,
    GeoreferenceWarning,
    GridError,
    LabelWarning,
    NodataWarning,
    ReflectanceWarning,
    SceneError,
    SettingError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS


def test_windows_are_the_scenes_pixels(write_scene: WriteScene) -> None:
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 20)
    pixels = scene_pixels(70, 90).astype(np.float32)
    for i in range(len(scene)):
        sample = scene[i]
        row, col, height, width = sample['window'].tolist()
        assert sample['valid'].all()
        np.testing.assert_array_equal(
            sample['image'], pixels[:, row : row + height, col : col + width]
        )


def test_bands_are_matched_by_name(write_scene: WriteScene) -> None:
    names = (*reversed(SENTINEL2_BANDS), 'SCL')
    pixels = scene_pixels(40, 40, 14)
    path = write_scene(pixels=pixels, descriptions=names)
    with pytest.warns(BandWarning, match='left out B12, .*, SCL'):
        scene = SceneWindows(path, ['B1', 'b8a'], 40, 40)
    np.testing.assert_array_equal(scene[0]['image'], pixels[[12, 4]])


def test_an_offset_of_reflectance_is_none_of_radar_s(write_scene: WriteScene) -> None:
    pixels = scene_pixels(40, 40, 3).astype(np.float32)
    path = write_scene(pixels=pixels, descriptions=('B02', 'VV', 'VH'))
    scene = SceneWindows(path, ['VV', 'B02', 'VH'], 40, 40, offset=-1000)
    expected = pixels[[1, 0, 2]] - np.array([0, 1000, 0], np.float32)[:, None, None]
    np.testing.assert_array_equal(scene[0]['image'], expected)


def test_bands_without_names_are_taken_in_order(write_scene: WriteScene) -> None:
    path = write_scene(pixels=scene_pixels(40, 40, 15), descriptions=None)
    with pytest.warns(BandWarning, match='left out band 14, band 15'):
        scene = SceneWindows(path, SENTINEL2_BANDS, 40, 40)
    assert scene.indexes == list(range(1, 14))


def test_the_order_of_bands_without_names_is_said(
    write_scene: WriteScene, recwarn: pytest.WarningsRecorder
) -> None:
    path = write_scene('a.tif', pixels=scene_pixels(40, 40, 7), descriptions=None)
    with pytest.warns(BandWarning, match='taken in order: 1 as B2, 2 as B3, .*7 as B1'):
        SceneWindows(path, ['B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B1'], 40, 40)
    path = write_scene('b.tif', pixels=scene_pixels(40, 40, 13), descriptions=None)
    with pytest.warns(BandWarning, match='4 as B04, 3 as B03'):
        scene = SceneWindows(path, ['B04', 'B03'], 40, 40)
    assert scene.indexes == [4, 3]
    recwarn.clear()
    SceneWindows(path, SENTINEL2_BANDS, 40, 40)
    assert not [each for each in recwarn if each.category is BandWarning]


def test_names_can_be_given(write_scene: WriteScene) -> None:
    path = write_scene(pixels=scene_pixels(40, 40, 2), descriptions=('x', 'y'))
    scene = SceneWindows(path, ['B03', 'B02'], 40, 40, scene_bands=['B02', 'B03'])
    assert scene.indexes == [2, 1]
    listed = SceneWindows(path, ['B03', 'B02'], 40, 40, scene_bands='B02, B03')
    assert listed.indexes == [2, 1]
    with pytest.raises(SceneError, match='scene_bands= names 1'):
        SceneWindows(path, ['B02'], 40, 40, scene_bands=['B02'])


def test_three_bands_are_refused(write_scene: WriteScene) -> None:
    path = write_scene(pixels=scene_pixels(40, 40, 3), descriptions=None)
    with pytest.raises(BandError, match='3 bands without names, expected 13'):
        SceneWindows(path, SENTINEL2_BANDS, 32, 32)


def test_nodata_and_nan_are_filled_and_marked(write_scene: WriteScene) -> None:
    pixels = scene_pixels(40, 40).astype(np.float32)
    pixels[:, :10] = 0
    pixels[3, 20, 20] = np.nan
    pixels[5, 21, 21] = np.inf
    scene = SceneWindows(write_scene(pixels=pixels, nodata=0), SENTINEL2_BANDS, 40, 40)
    sample = scene[0]
    assert torch.isfinite(sample['image']).all()
    expected = np.ones((40, 40), bool)
    expected[:10] = expected[20, 20] = expected[21, 21] = False
    np.testing.assert_array_equal(sample['valid'], expected)
    filled = sample['image'][:, 0, 0].numpy()
    np.testing.assert_allclose(filled, pixels[:, expected].mean(axis=1), rtol=1e-5)


def test_numbers_beyond_float32_are_invalid(write_scene: WriteScene) -> None:
    pixels = scene_pixels(32, 32).astype(np.float64)
    pixels[3, 4, 5], pixels[0, 6, 7] = 1e300, -1e39
    sample = SceneWindows(write_scene(pixels=pixels), SENTINEL2_BANDS, 32, 32)[0]
    assert torch.isfinite(sample['image']).all()
    assert (~sample['valid']).nonzero().tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize('value', [np.inf, -np.inf, 1e39])
@pytest.mark.parametrize('name', ['nodata', 'offset'])
def test_infinite_numbers_are_refused(
    name: str, value: float, write_scene: WriteScene
) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(SettingError, match=f'{name}=.* expected a finite number'):
        SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 32, **options)


@pytest.mark.parametrize('offset', [np.nan, np.inf, 1e300])
def test_impossible_offset_tags_are_said(
    offset: float, write_scene: WriteScene
) -> None:
    path = write_scene(height=32, width=32)
    with rasterio.open(path, 'r+') as raster:
        raster.scales, raster.offsets = (1e-4,) * 13, (offset,) * 13
    with pytest.warns(ReflectanceWarning, match='are not applied'):
        scene = SceneWindows(path, SENTINEL2_BANDS, 32, 32)
    assert torch.equal(scene[0]['image'], torch.from_numpy(scene_pixels(32, 32) * 1.0))


@pytest.mark.parametrize(
    ('value', 'said'),
    [(-9999, True), (70_000, True), (0.5, True), (65_535, False), (np.nan, False)],
)
def test_nodata_that_no_pixel_can_have_is_said(
    value: float, said: bool, write_scene: WriteScene
) -> None:
    with pytest.warns(NodataWarning) if said else nullcontext() as caught:
        SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 32, nodata=value)
    if caught is not None:
        assert 'marks no pixel' in str(caught[0].message)


def test_zero_in_one_band_is_still_data(write_scene: WriteScene) -> None:
    pixels = scene_pixels(40, 40)
    pixels[10, 5] = 0
    scene = SceneWindows(write_scene(pixels=pixels, nodata=0), SENTINEL2_BANDS, 40, 40)
    assert scene[0]['valid'].all()


def test_an_empty_window_is_no_error(write_scene: WriteScene) -> None:
    pixels = np.zeros((13, 40, 40), np.uint16)
    scene = SceneWindows(write_scene(pixels=pixels, nodata=0), SENTINEL2_BANDS, 40, 40)
    assert not scene[0]['valid'].any()
    assert (scene[0]['image'] == 0).all()


@pytest.mark.parametrize('size', [(1, 1), (5, 90), (31, 33)])
def test_small_scenes_are_padded(
    write_scene: WriteScene, size: tuple[int, int]
) -> None:
    path = write_scene(pixels=scene_pixels(*size))
    sample = SceneWindows(path, SENTINEL2_BANDS, 32, 16)[0]
    height, width = min(size[0], 32), min(size[1], 32)
    assert sample['image'].shape == (13, 32, 32)
    assert sample['window'].tolist() == [0, 0, height, width]
    assert int(sample['valid'].sum()) == height * width
    assert sample['image'].min() > 0


def test_missing_georeference_is_said_once(write_scene: WriteScene) -> None:
    path = write_scene(crs=None, transform=Affine.identity())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        SceneWindows(path, SENTINEL2_BANDS, 32, 32)[0]
    assert [w.category for w in caught] == [GeoreferenceWarning]


def test_reference_windows(write_scene: WriteScene) -> None:
    scene = write_scene()
    classes = np.arange(70 * 90).reshape(1, 70, 90) % 3
    reference = write_scene(
        'reference.tif', pixels=classes.astype(np.uint8), descriptions=None
    )
    windows = SceneWindows(scene, SENTINEL2_BANDS, 80, 40, reference=reference)
    mask = windows[0]['mask']
    np.testing.assert_array_equal(mask[:70], classes[0, :, :80])
    assert (mask[70:] == 255).all()
    small = write_scene('small.tif', pixels=classes[:, :9].astype(np.uint8),
                        descriptions=None)  # fmt: skip
    with pytest.raises(GridError, match=r'different grids: size \(rows, columns\)'):
        SceneWindows(scene, SENTINEL2_BANDS, 80, 40, reference=small)


@pytest.mark.parametrize(
    ('names', 'expected', 'message'),
    [
        (['Water', 'trees', 'snow'], [1, 0, 255], r'model lacks: snow\. Pixels of'),
        (['trees', 'water'], [0, 1, 2], ''),
        (['Wald', 'Wasser'], [0, 1, 2], r'Wald, Wasser, which are none of the model'),
        (None, [0, 1, 2], ''),
    ],
)
def test_a_reference_that_names_its_classes_is_matched_by_name(
    write_scene: WriteScene, names: Any, expected: list[int], message: str
) -> None:
    scene = write_scene()
    pixels = np.arange(70 * 90).reshape(1, 70, 90).astype(np.uint8) % 3
    path = write_scene('reference.tif', pixels=pixels, descriptions=None)
    if names is not None:
        with rasterio.open(path, 'r+') as raster:
            raster.update_tags(CLASS_NAMES=json.dumps(names))
    with pytest.warns(LabelWarning, match=message) if message else nullcontext():
        windows = SceneWindows(
            scene, SENTINEL2_BANDS, 64, 32, reference=path, classes=['trees', 'water']
        )
    mask = windows[0]['mask'].numpy()
    assert np.array_equal(mask, np.array(expected)[pixels[0, :64, :64]])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'crs': 'EPSG:32631'}, 'different grids: CRS EPSG:32630 and EPSG:32631'),
        ({'crs': None}, 'different grids: CRS EPSG:32630 and None'),
        ({'transform': Affine.identity()}, 'different grids: transform'),
        ({'moved': 1.0}, 'different grids: transform'),
        ({'moved': 1e-6}, ''),  # rounding
    ],
)
def test_a_reference_lies_where_its_scene_does(
    write_scene: WriteScene, change: dict[str, Any], message: str
) -> None:
    scene = write_scene()
    with rasterio.open(scene) as raster:
        transform = raster.transform
    if 'moved' in change:
        moved = Affine.translation(change['moved'], 0) @ transform
        change = {'transform': moved}
    pixels = np.zeros((1, 70, 90), np.uint8)
    other = write_scene('other.tif', pixels=pixels, descriptions=None, **change)
    with pytest.raises(GridError, match=message) if message else nullcontext():
        SceneWindows(scene, SENTINEL2_BANDS, 80, 40, reference=other)


def test_it_travels_to_workers(write_scene: WriteScene) -> None:
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 32)
    first = scene[0]
    again = pickle.loads(pickle.dumps(scene))[0]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_overview(write_scene: WriteScene) -> None:
    pixels = scene_pixels(70, 90)
    pixels[:, :35] = 0
    scene = SceneWindows(write_scene(pixels=pixels, nodata=0), SENTINEL2_BANDS, 32, 32)
    picture = scene.overview([3, 2, 1], longest=45)
    assert picture.shape == (3, 35, 45)
    assert np.isnan(picture[:, :16]).all()
    assert np.isfinite(picture[:, 19:]).all()


def test_what_cannot_be_opened(tmp_path: Path, write_scene: WriteScene) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    text = tmp_path / 'text.tif'
    text.write_text('no raster')
    for path, message in (
        (tmp_path / 'nowhere.tif', 'does not exist'),
        (text, 'Cannot open'),
        (folder, 'is a folder without a raster, expected one raster'),
    ):
        with pytest.raises(SceneError, match=message):
            SceneWindows(path, SENTINEL2_BANDS, 32, 32)
    complex_pixels = scene_pixels(40, 40).astype(np.complex64)
    path = write_scene('complex.tif', pixels=complex_pixels)
    with pytest.raises(SceneError, match='complex64, expected real numbers'):
        SceneWindows(path, SENTINEL2_BANDS, 32, 32)


def test_a_truncated_scene_is_named(write_scene: WriteScene, tmp_path: Path) -> None:
    path = write_scene(height=300, width=300)
    short = tmp_path / 'short.tif'
    short.write_bytes(path.read_bytes()[:-400_000])
    with pytest.raises(SceneError, match=r'short\.tif'):
        scene = SceneWindows(short, SENTINEL2_BANDS, 64, 64)
        for index in range(len(scene)):
            scene[index]


def test_an_alpha_band_marks_invalid_pixels(tmp_path: Path) -> None:
    kinds = [ColorInterp.gray, *[ColorInterp.undefined] * 4, ColorInterp.alpha]
    pixels = np.full((6, 20, 20), 1000, np.uint16)
    pixels[5, :7] = 0
    path = tmp_path / 's.tif'
    profile = {'count': 6, 'height': 20, 'width': 20, 'dtype': 'uint16'}
    with rasterio.open(path, 'w', driver='GTiff', **profile) as raster:
        raster.colorinterp = kinds
        raster.write(pixels)
        raster.descriptions = ('B02', 'B03', 'B04', 'B08', 'B11', 'alpha')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        scene = SceneWindows(path, ('B02', 'B03'), 20, 20)
        valid = scene[0]['valid']
    assert not valid[:7].any()
    assert valid[7:].all()
