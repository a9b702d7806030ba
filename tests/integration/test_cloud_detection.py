"""A map without the clouds that a package finds, and the raster of these clouds."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.commands import Run, refused
from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.cloud_packages import cloud_packages
from tests.fakes.runs import SMALL, read, stopped_at_batch
from tests.fakes.sentinel2 import L2A_BANDS
from torchgeo_ctm.errors import CloudWarning, CTMError, ResumeWarning, SettingError
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.inference.cloud_detection import CloudDetection, block_means
from torchgeo_ctm.inference.scene_loop import SceneLoop
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.prediction.dates import predict_dates
from torchgeo_ctm.scaling import SENTINEL2_BANDS, SENTINEL2_STATISTICS
from torchgeo_ctm.scenes.scene import SceneWindows

pytestmark = [
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.CloudWarning'),
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning'),
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.ReflectanceWarning'),
]
DETECTED = SMALL | {'clouds': 's2cloudless', 'cloud_dilation': 0}

Pixels = NDArray[np.uint16]


@pytest.fixture
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with cloud_packages(tmp_path_factory.mktemp('site')):
        yield


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_task(decisive(tiny_task()), tmp_path / 'tiny.ckpt')


def cloudy_pixels(rows: slice, cols: slice) -> Pixels:
    """A scene of 70 by 90 px with a cloud."""
    pixels = scene_pixels(70, 90)
    pixels[:, rows, cols] = 6000
    return pixels


@pytest.fixture
def scene(write_scene: WriteScene) -> Path:
    return write_scene(pixels=cloudy_pixels(np.s_[12:30], np.s_[24:48]))


def test_the_cloud_is_255_and_its_raster_is_a_product(
    packages: None, run: Run, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    call = ('predict', scene, '--checkpoint', checkpoint, '--accelerator', 'cpu')
    flags = ('--output', tmp_path / 'm.tif', '--clouds', 's2cloudless')
    small = ('--window', 32, '--stride', 16, '--cloud_dilation', 0)
    status, out, err = run(*call, *flags, *small)
    assert status == 0, err
    assert str(tmp_path / 'm_clouds.tif') in out.splitlines()
    assert 'about 7 % is cloud' in err
    cloudy = np.zeros((70, 90), bool)
    cloudy[12:30, 24:48] = True
    np.testing.assert_array_equal(read(tmp_path / 'm.tif') == IGNORED, cloudy)
    with (
        rasterio.open(tmp_path / 'm_clouds.tif') as raster,
        rasterio.open(scene) as whole,
    ):
        # 70 rows are 11 pixels of 60 m and two thirds of one
        assert (raster.shape, raster.res) == ((12, 15), (60, 60))
        assert raster.transform @ (0, 0) == whole.transform @ (0, 0)
        assert raster.tags()['CLASS_NAMES'] == '["clear", "cloud"]'
        np.testing.assert_array_equal(raster.read(1), cloudy[::6, ::6])
    with rasterio.open(tmp_path / 'm.tif') as raster:
        assert raster.tags()['CLOUDS'] == 's2cloudless 9.9, 0 px'
    # the same raster, by hand
    by_hand = SMALL | {'cloud_mask': f'{tmp_path}/m_clouds.tif', 'cloud_dilation': 0}
    other = predict_scene(scene, checkpoint, tmp_path / 'n.tif', **by_hand)
    np.testing.assert_array_equal(read(other.paths[0]), read(tmp_path / 'm.tif'))


def test_reflectance_has_the_offset_of_the_scene(
    packages: None, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    mask = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    assert (read(mask.products['clouds']) == 1).any()
    dark = DETECTED | {'offset': -2500.0}
    mask = predict_scene(scene, checkpoint, tmp_path / 'n.tif', **dark)
    assert not (read(mask.products['clouds']) == 1).any()
    # without any, it is that of the training data; with one, the network's is no matter
    moved = save_task(
        decisive(tiny_task(scaling={'offset': -2500.0})), tmp_path / 'moved.ckpt'
    )
    mask = predict_scene(scene, moved, tmp_path / 'o.tif', **DETECTED)
    assert not (read(mask.products['clouds']) == 1).any()
    with patch.object(CloudDetection, '_found', side_effect=AssertionError):
        predict_scene(scene, moved, tmp_path / 'n.tif', **dark, overwrite=True)


def test_nodata_stays_nodata_and_does_not_count_in_means(
    packages: None, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    pixels = cloudy_pixels(np.s_[12:30], np.s_[24:48])
    pixels[:, :29] = 0
    path = write_scene(pixels=pixels, nodata=0)
    mask = predict_scene(path, checkpoint, tmp_path / 'm.tif', **DETECTED)
    values = read(mask.products['clouds'])
    assert (values[:4] == IGNORED).all()
    # one row of the block is left, all of it cloud
    np.testing.assert_array_equal(values[4], [0] * 4 + [1] * 4 + [0] * 7)
    assert not values[5:].any()


def test_an_interrupted_run_finds_its_clouds_again(
    packages: None, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    whole = predict_scene(scene, checkpoint, tmp_path / 'whole.tif', **DETECTED)
    with stopped_at_batch(3), pytest.raises(KeyboardInterrupt):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    assert (tmp_path / 'm_clouds.tif').exists()
    with (
        patch.object(CloudDetection, '_found', side_effect=AssertionError),
        pytest.warns(ResumeWarning, match='resuming'),
    ):
        mask = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    assert mask.products.keys() == whole.products.keys()
    for one, other in zip(mask.products, whole.products, strict=True):
        if one in ('mask', 'confidence', 'clouds'):
            assert mask.products[one].read_bytes() == whole.products[other].read_bytes()


def test_a_file_of_something_else_is_replaced_only_if_asked(
    packages: None, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / 'm_clouds.tif'
    foreign.write_text('mine')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CTMError, match=r'm_clouds\.tif already exists'):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    assert foreign.read_text() == 'mine'
    assert sorted(tmp_path.iterdir()) == before
    over = DETECTED | {'overwrite': True}
    predict_scene(scene, checkpoint, tmp_path / 'm.tif', **over)
    first = foreign.read_bytes()
    # another content of the scene has other clouds
    with rasterio.open(scene, 'r+') as raster:
        raster.write(cloudy_pixels(np.s_[36:60], np.s_[:12]))
    predict_scene(scene, checkpoint, tmp_path / 'm.tif', **over)
    assert foreign.read_bytes() != first
    assert (read(foreign)[6:10, :2] == 1).all()


def test_a_run_that_cannot_begin_leaves_no_clouds(
    packages: None, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    wrong = SettingError('too large')
    with (
        patch.object(SceneLoop, 'begin', side_effect=wrong),
        pytest.raises(SettingError, match='too large'),
    ):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_detector_cannot_read_is_one_line(
    run: Run, write_scene: WriteScene, tmp_path: Path
) -> None:
    task = decisive(tiny_task(in_channels=12, bands=list(L2A_BANDS)))
    checkpoint = save_task(task, tmp_path / 'l2a.ckpt')
    scene = write_scene(pixels=scene_pixels(70, 90, 12), descriptions=L2A_BANDS)
    out = tmp_path / 'out'
    out.mkdir()
    call = ['predict', scene, '--checkpoint', checkpoint, '--accelerator', 'cpu']
    call += ['--output', out / 'm.tif', '--clouds']
    with patch('torchgeo_ctm.inference.cloud_detection.find_spec', return_value=None):
        for name, extra in (('s2cloudless', 'clouds'), ('omnicloudmask',) * 2):
            install = f'pip install "torchgeo-ctm[{extra}]"'
            refused(run(*call, name), f'requires {name}', install)
    with cloud_packages(tmp_path / 'site'):
        refused(run(*call, 's2cloudless'), 'reads the bands B01', 'missing: B10')
        both = ('s2cloudless', '--cloud_mask', 'c.tif')
        refused(run(*call, *both), "--clouds 's2cloudless' and", 'one of both')
        bright = np.full((12, 70, 90), 40_000, np.uint16)
        write_scene(pixels=bright, descriptions=L2A_BANDS)
        refused(run(*call, 'omnicloudmask'), 'omnicloudmask failed', 'no route to')
    assert not list(out.iterdir())


def test_omnicloudmask_reads_three_bands_at_20_m(
    packages: None, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    pixels = scene_pixels(70, 90)
    pixels[SENTINEL2_BANDS.index('B03'), 10:20, 10:20] = 5000
    pixels[SENTINEL2_BANDS.index('B04'), 40:50, 60:80] = 9999
    # in no other band
    pixels[SENTINEL2_BANDS.index('B02'), 60:, :] = 9999
    pixels[:, :4] = 0
    path = write_scene(pixels=pixels, nodata=0)
    options = DETECTED | {'clouds': 'omnicloudmask'}
    mask = predict_scene(path, checkpoint, tmp_path / 'm.tif', **options)
    expected = np.zeros((35, 45), np.uint8)
    expected[5:10, 5:10] = expected[20:25, 30:40] = 1
    expected[:2] = IGNORED
    np.testing.assert_array_equal(read(mask.products['clouds']), expected)
    with rasterio.open(mask.products['clouds']) as raster:
        assert raster.tags()['CLASS_NAMES'] == '["clear", "cloud or shadow"]'


def test_a_part_of_the_scene_has_the_clouds_of_the_whole(
    packages: None, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    path = write_scene(
        pixels=np.tile(cloudy_pixels(np.s_[:9], np.s_[24:48]), (1, 3, 3))
    )
    with rasterio.open(path) as raster:
        left, top = raster.transform @ (101, 97)
        right, bottom = raster.transform @ (140, 130)
        box = rasterio.warp.transform_bounds(
            raster.crs, 'EPSG:4326', left, bottom, right, top
        )
    whole = predict_scene(path, checkpoint, tmp_path / 'm.tif', **DETECTED)
    with warnings.catch_warnings():
        # they are found in the box alone, which is all that is mapped
        warnings.filterwarnings('error', message='.*covers')
        part = predict_scene(path, checkpoint, tmp_path / 'p.tif', **DETECTED, bbox=box)
    clouds, found = (read(mask.products['clouds']) for mask in (whole, part))
    assert found.size < 0.5 * clouds.size
    with (
        rasterio.open(whole.products['clouds']) as all_of,
        rasterio.open(part.products['clouds']) as some,
    ):
        col, row = map(round, ~all_of.transform @ (some.transform.c, some.transform.f))
    rows, cols = found.shape
    np.testing.assert_array_equal(found, clouds[row : row + rows, col : col + cols])


def seen_in(shown: list[Any]) -> Any:
    """Return ``SceneWindows.overview`` that also keeps what it returns."""
    overview = SceneWindows.overview

    def kept(scene: SceneWindows, *arguments: Any) -> Any:
        shown.append(overview(scene, *arguments))
        return shown[-1]

    return kept


def test_each_date_has_its_own_clouds(
    packages: None, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    first = write_scene('a.tif', pixels=cloudy_pixels(np.s_[:24], np.s_[:48]))
    second = write_scene('b.tif', pixels=cloudy_pixels(np.s_[12:36], np.s_[:60]))
    before = {path.name for path in tmp_path.iterdir()}
    shown: list[Any] = []
    with (
        pytest.warns(CloudWarning, match=r'b\.tif: about .*s2cloudless 9\.9'),
        patch('torchgeo_ctm.prediction.dates.SceneWindows.overview', seen_in(shown)),
    ):
        mask = predict_dates(
            [first, second], checkpoint, tmp_path / 'm.tif', **DETECTED
        )
    # the quick look is that of the clear pixels
    assert {int(np.isnan(each[0]).sum()) for each in shown} == {24 * 48, 24 * 60}
    looks = np.full((70, 90), 2)
    looks[:24, :48] -= 1
    looks[12:36, :60] -= 1
    np.testing.assert_array_equal(read(mask.products['looks']), looks)
    np.testing.assert_array_equal(read(mask.products['mask']) == IGNORED, looks == 0)
    new = {path.name for path in tmp_path.iterdir()} - before
    assert not [name for name in new if 'clouds' in name or 'dates' in name]


@pytest.mark.parametrize('side', [1, 3, 6, 100])
def test_means_of_blocks_are_those_of_their_valid_pixels(side: int) -> None:
    rng = np.random.default_rng(side)
    values = rng.random((2, 20, 31), np.float32)
    valid = rng.random((20, 31)) < 0.3
    means, some = block_means(values, valid, side)
    for row, col in np.ndindex(*some.shape):
        here = np.s_[row * side : (row + 1) * side, col * side : (col + 1) * side]
        assert some[row, col] == valid[here].any()
        if some[row, col]:
            expected = values[:, *here][:, valid[here]].mean(axis=1)
            np.testing.assert_allclose(means[:, row, col], expected, rtol=1e-5)


def test_s2cloudless_itself_finds_a_white_cloud(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip('s2cloudless', reason='the extra clouds is not installed')
    means: Any = [SENTINEL2_STATISTICS[band][0] for band in SENTINEL2_BANDS]
    noise = np.random.default_rng(0).normal(1, 0.05, (13, 240, 240))
    pixels = np.array(means)[:, None, None] * noise
    # visible and near infrared, water vapor, cirrus, shortwave infrared
    white = [
        5200,
        5000,
        4800,
        5000,
        5100,
        5300,
        5400,
        5400,
        5500,
        2600,
        150,
        3300,
        2500,
    ]
    pixels[:, 60:150, 60:150] = np.array(white)[:, None, None]
    scene = write_scene(pixels=pixels.astype(np.uint16))
    mask = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **DETECTED)
    cloudy = read(mask.products['clouds']) == 1
    assert cloudy[10:25, 10:25].mean() > 0.95
    # the mean over 4 px and the dilation by 2 px reach no farther
    cloudy[3:32, 3:32] = False
    assert not cloudy.any()
