"""Which pixels are cloud: by a scene classification, or by a raster on any grid."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import reproject

from tests.conftest import WriteScene, scene_pixels
from tests.fakes.bad_inputs import write_raster
from tests.fakes.sentinel2 import L2A_BANDS, write_band, write_product, zipped
from torchgeo_ctm.datasets import SceneBatches, SceneWindows
from torchgeo_ctm.errors import CloudWarning, CTMError
from torchgeo_ctm.grids import Grid, Window
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scenes.clouds import CloudMask, CloudOptions, split_values
from torchgeo_ctm.scenes.sources import band_names

UTM = CRS.from_epsg(32632)
GRID = Grid(120, 150, UTM, Affine(10, 0, 600_000, 0, -10, 5_000_040))
WHOLE = Window(0, 0, 120, 150)
PARTS = (Window(0, 0, 9, 150), Window(31, 17, 50, 20), Window(100, 130, 20, 20))

Booleans = NDArray[np.bool_]


def specks(height: int, width: int) -> NDArray[np.uint8]:
    """A few single pixels of 1 to 11, values of a scene classification."""
    rng = np.random.default_rng(5)
    values = rng.integers(1, 12, (height, width))
    return np.where(rng.random((height, width)) < 0.03, values, 4).astype(np.uint8)


def disk(cloudy: Booleans, radius: int) -> Booleans:
    """Dilate by definition: every pixel marks those at most a radius away."""
    wide = np.zeros_like(cloudy)
    rows, cols = np.indices(cloudy.shape)
    for row, col in np.argwhere(cloudy):
        wide |= (rows - row) ** 2 + (cols - col) ** 2 <= radius**2
    return wide


@pytest.mark.parametrize('radius', [0, 1, 6])
def test_a_coarser_mask_is_dilated_the_same_in_every_window(
    tmp_path: Path, radius: int
) -> None:
    values = specks(60, 75)
    path = write_band(tmp_path / 'scl.tif', values, 20)
    mask = CloudMask('s', GRID, str(path), 'scl', 1, (3, 8, 9), radius)
    expected = np.isin(values, (3, 8, 9)).repeat(2, 0).repeat(2, 1)
    expected = disk(expected, radius)
    assert 0.005 < expected.mean() < 0.7
    np.testing.assert_array_equal(mask.read(WHOLE), expected)
    for part in PARTS:
        inside = np.s_[part.row :, part.col :]
        np.testing.assert_array_equal(
            mask.read(part), expected[inside][: part.height, : part.width]
        )
    np.testing.assert_array_equal(mask.thumbnail((120, 150), WHOLE), expected)
    assert pickle.loads(pickle.dumps(mask)).read(WHOLE).sum() == expected.sum()


def test_a_mask_of_another_crs_is_the_same_in_every_window(tmp_path: Path) -> None:
    cloudy = np.zeros((120, 150), np.uint8)
    cloudy[20:60, 30:70] = 1
    there = np.zeros((300, 300), np.uint8)
    transform = Affine(1e-4, 0, 10.26, 0, -1e-4, 45.16)
    reproject(
        cloudy,
        there,
        src_transform=GRID.transform,
        src_crs=UTM,
        dst_transform=transform,
        dst_crs='EPSG:4326',
    )
    path = write_band(tmp_path / 'm.tif', there, crs='EPSG:4326', transform=transform)
    mask = CloudMask('s', GRID, str(path), 'm', dilation=3)
    whole = mask.read(WHOLE)
    assert (whole != disk(cloudy > 0, 3)).mean() < 0.02
    for part in PARTS:
        inside = whole[part.row : part.row + part.height, part.col :][:, : part.width]
        np.testing.assert_array_equal(mask.read(part), inside)


@pytest.mark.parametrize('nodata', [None, 255])
def test_nodata_and_what_is_outside_are_no_cloud(
    tmp_path: Path, nodata: float | None
) -> None:
    values = np.full((20, 30), 7, np.uint8)
    values[:5] = 255
    path = write_band(
        tmp_path / 'm.tif', values, 10, (600_200, 5_000_000), nodata=nodata
    )
    cloudy = CloudMask('s', GRID, str(path), 'm', dilation=0).read(WHOLE)
    expected = np.zeros((120, 150), bool)
    expected[4 + (5 if nodata else 0) : 24, 20:50] = True
    np.testing.assert_array_equal(cloudy, expected)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('mask.tif', ('mask.tif', None)),
        ('mask.tif:2,4', ('mask.tif', (2, 4))),
        (r'C:\clouds\mask.tif', (r'C:\clouds\mask.tif', None)),
        (r'C:\clouds\mask.tif:0.5', (r'C:\clouds\mask.tif', (0.5,))),
        ('https://host/mask.tif', ('https://host/mask.tif', None)),
        ('/vsicurl/https://host/m.tif:1', ('/vsicurl/https://host/m.tif', (1,))),
    ],
)
def test_values_follow_the_last_colon(text: str, expected: Any) -> None:
    assert split_values(text) == expected


def open_scene(path: Path, clouds: CloudOptions, size: int = 30) -> SceneWindows:
    return SceneWindows(path, L2A_BANDS, size, size, clouds=clouds)


@pytest.mark.parametrize('packed', [False, True])
def test_a_product_brings_its_own_clouds(tmp_path: Path, packed: bool) -> None:
    values = specks(30, 30)
    product = write_product(tmp_path, 'L2A', '05.09', -1000, values)
    if packed:
        product = zipped(product, tmp_path / 'product.zip')
    with pytest.warns(CloudWarning, match='about .* Set clouds to none'):
        scene = open_scene(product, CloudOptions(dilation=2))
    _, valid = scene.read(Window(0, 0, 60, 60))
    cloudy = np.isin(values, (3, 8, 9, 10)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(valid, ~disk(cloudy, 2))
    assert not scene.always_valid
    np.testing.assert_array_equal(np.isnan(scene.overview([0])[0]), ~valid)
    bare = open_scene(product, CloudOptions('none'))
    assert bare.clouds is None
    assert bare.read(Window(0, 0, 60, 60))[1].all()


def test_a_stack_may_have_its_classification_as_a_band(write_scene: WriteScene) -> None:
    pixels = scene_pixels(40, 40, 14)
    pixels[13] = 4
    pixels[13, 10:20, 10:20] = 9
    path = write_scene(pixels=pixels, descriptions=(*SENTINEL2_BANDS, 'SCL'))
    with pytest.warns(CloudWarning, match='about 6 %'):
        scene = SceneWindows(
            path, SENTINEL2_BANDS, 40, 40, clouds=CloudOptions('scl', dilation=0)
        )
    np.testing.assert_array_equal(scene[0]['valid'].numpy(), pixels[13] == 4)
    # a network is trained on the other bands
    assert band_names(path) == [*SENTINEL2_BANDS]


def test_windows_of_cloud_alone_are_skipped_and_masks_are_255(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    cloudy = np.zeros((64, 96), np.uint8)
    cloudy[:32, :64] = 1
    cloudy[40, 40] = 1
    path = write_scene(height=64, width=96)
    with rasterio.open(path) as raster:
        place = {'transform': raster.transform, 'crs': raster.crs}
    mask = write_band(tmp_path / 'm.tif', cloudy, **place)
    truth = write_band(tmp_path / 'truth.tif', np.ones_like(cloudy), **place)
    with pytest.warns(CloudWarning, match='about 33 %'):
        scene = SceneWindows(
            path, SENTINEL2_BANDS, 32, 32,
            reference=truth, clouds=CloudOptions(mask=str(mask), dilation=0),
        )  # fmt: skip
    batches = list(SceneBatches(scene, 4))
    assert [batch['index'].tolist() for batch in batches] == [[2], [3, 4, 5]]
    sample = batches[1]
    assert not sample['valid'][1, 8, 8]
    assert sample['mask'][1, 8, 8] == 255
    assert int((sample['mask'] == 255).sum()) == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'clouds': 'scl'}, r"no scene classification \(SCL\), which clouds='scl'"),
        (
            {'clouds': 'sen2cor'},
            "Unknown clouds 'sen2cor', expected one of: scl, none, s2cloudless",
        ),
        ({'clouds': 'scl', 'mask': 'm.tif'}, 'expected one of both'),
        ({'clouds': 's2cloudless'}, 'Pass that as cloud_mask'),
        ({'dilation': -1}, 'cloud_dilation=-1 px is negative. Did you mean 0'),
        ({'mask': 'm.tif:two'}, "Invalid values 'two' in cloud_mask='m.tif:two'"),
        ({'mask': 'no.tif'}, 'Cannot open no.tif as a raster: .*No such file'),
        ({'mask': 'far.tif'}, 'The cloud mask far.tif does not overlap'),
        ({'mask': 'bare.tif'}, 'bare.tif has no CRS, but .*scene.tif has one'),
        ({'mask': 'three.tif'}, 'The cloud mask three.tif has 3 bands, expected one'),
        ({'mask': 'nodata.tif:0,1'}, '0 is nodata of nodata.tif, which is never cloud'),
    ],
)
def test_what_cannot_be_read_is_one_line(
    write_scene: WriteScene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = write_scene()
    values = np.ones((20, 20), np.uint8)
    with rasterio.open(scene) as raster:
        place = {'transform': raster.transform, 'crs': raster.crs}
    write_band(Path('far.tif'), values, crs='EPSG:32630')
    write_band(Path('bare.tif'), values, crs=None)
    write_band(Path('nodata.tif'), values, nodata=0, **place)
    write_raster(Path('three.tif'), np.stack([values] * 3), **place)
    with pytest.raises(CTMError, match=message) as caught:
        SceneWindows(scene, SENTINEL2_BANDS, 32, 32, clouds=CloudOptions(**options))
    assert '\n' not in str(caught.value)


def test_rasters_without_a_crs_must_have_one_size(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    scene = write_scene(crs=None, transform=Affine.identity())
    cloudy = np.zeros((70, 90), np.uint8)
    cloudy[3:5, 7] = 1
    good, small = tmp_path / 'good.tif', tmp_path / 'small.tif'
    for path, values in ((good, cloudy), (small, cloudy[:9])):
        write_band(path, values, crs=None, transform=Affine.identity())
    opened = SceneWindows(
        scene, SENTINEL2_BANDS, 32, 32, clouds=CloudOptions(mask=str(good), dilation=0)
    )
    _, valid = opened.read(Window(0, 0, 70, 90))
    np.testing.assert_array_equal(valid, cloudy == 0)
    with pytest.raises(CTMError, match='on different grids: size'):
        SceneWindows(
            scene, SENTINEL2_BANDS, 32, 32, clouds=CloudOptions(mask=str(small))
        )
