"""Clouds as nodata, in a map and in training."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio

from tests.commands import Run, refused
from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.label_files import square, write_features
from tests.fakes.runs import QUIET, SMALL, read, stopped_at_batch
from tests.fakes.sentinel2 import L2A_BANDS, write_band, write_product
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import CloudWarning, NodataWarning, ResumeWarning
from torchgeo_ctm.grids import IGNORED, Grid
from torchgeo_ctm.labels import ImageLabel, PointLabels, PolygonLabels, RasterLabels
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.rasters import grid_of

pytestmark = [
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.CloudWarning'),
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning'),
]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_task(decisive(tiny_task()), tmp_path / 'tiny.ckpt')


def write_mask(scene: Path, cloudy: Any) -> Path:
    """Write a cloud mask on the grid of a scene."""
    with rasterio.open(scene) as raster:
        place = {'transform': raster.transform, 'crs': raster.crs}
    return write_band(scene.with_name('clouds.tif'), cloudy.astype(np.uint8), **place)


def test_clouds_are_255_and_far_from_them_nothing_changes(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene(height=128, width=160)
    cloudy = np.zeros((128, 160), bool)
    cloudy[20:30, 15:40] = True
    options = SMALL | {
        'cloud_mask': str(write_mask(scene, cloudy)),
        'cloud_dilation': 0,
    }
    plain = predict_scene(scene, checkpoint, tmp_path / 'plain.tif', **SMALL).paths
    masked = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options).paths
    for before, after in zip(plain[:2], masked[:2], strict=True):
        np.testing.assert_array_equal(read(after) == IGNORED, cloudy)
        # beyond every window of 32 px with a cloud
        far = np.ones_like(cloudy)
        far[: 30 + 32, : 40 + 32] = False
        np.testing.assert_array_equal(read(after)[far], read(before)[far])
    with rasterio.open(masked[0]) as raster:
        assert raster.tags()['CLOUDS'] == 'clouds.tif, 0 px'
    with rasterio.open(plain[0]) as raster:
        assert 'CLOUDS' not in raster.tags()


def test_a_mask_of_a_part_of_the_scene_is_said(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene()
    mask = write_mask(scene, np.zeros((70, 90), bool))
    options = SMALL | {'cloud_mask': str(mask), 'overwrite': True}
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*covers')
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)
    with rasterio.open(mask) as raster:
        profile = raster.profile | {'width': 45}
    with rasterio.open(mask, 'w', **profile) as raster:
        raster.write(np.zeros((70, 45), np.uint8), 1)
    with pytest.warns(CloudWarning, match='covers 50 % of the scene; the rest counts'):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)


def test_a_level_2a_product_is_mapped_without_its_clouds(
    run: Run, tmp_path: Path
) -> None:
    task = decisive(tiny_task(in_channels=12, bands=list(L2A_BANDS)))
    checkpoint = save_task(task, tmp_path / 'l2a.ckpt')
    values = np.full((30, 30), 5, np.uint8)
    values[4:9, 4:9] = 9
    product = write_product(tmp_path, 'L2A', '05.09', -1000, values)
    shared = ['--checkpoint', checkpoint, '--accelerator', 'cpu', '--cloud_dilation', 4]
    status, _, err = run('predict', product, '--output', tmp_path / 'm.tif', *shared)
    assert status == 0, err
    [line] = [each for each in err.splitlines() if 'is cloud or shadow' in each]
    assert '(scl, 4 px). Set clouds to none to keep these pixels.' in line
    hidden = read(tmp_path / 'm.tif') == IGNORED
    assert hidden[8:18, 8:18].all()
    assert hidden[4, 10]
    assert not hidden[:, 22:].any()
    thirteen = save_task(tiny_task(), tmp_path / 'l1c.ckpt')
    output = ('--output', tmp_path / 'b.tif', '--checkpoint', thirteen)
    refused(run('predict', product, *output), 'missing: B10. Level-2A has no B10')
    again = ('predict', product, '--output', tmp_path / 'n.tif', *shared)
    status, _, err = run(*again, '--clouds', 'none')
    assert status == 0
    assert 'is cloud' not in err
    assert (read(tmp_path / 'n.tif') != IGNORED).all()


def test_a_resumed_run_writes_the_same_bytes_and_notices_another_mask(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene()
    cloudy = np.zeros((70, 90), bool)
    cloudy[30:45, 20:50] = True
    options = SMALL | {'cloud_mask': str(write_mask(scene, cloudy))}
    whole = predict_scene(scene, checkpoint, tmp_path / 'whole.tif', **options)

    def interrupted() -> None:
        with stopped_at_batch(3), pytest.raises(KeyboardInterrupt):
            predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)

    interrupted()
    with pytest.warns(ResumeWarning, match='resuming'):
        mask = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)
    for one, other in zip(mask.paths[:2], whole.paths[:2], strict=True):
        assert one.read_bytes() == other.read_bytes()
    options |= {'overwrite': True}
    interrupted()
    write_mask(scene, cloudy[::-1])
    with pytest.warns(ResumeWarning, match='files changed; starting over'):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)
    interrupted()
    with pytest.warns(ResumeWarning, match='CLOUDS, clouds changed; starting over'):
        predict_scene(
            scene, checkpoint, tmp_path / 'm.tif', **options, cloud_dilation=1
        )


def test_a_scene_of_cloud_alone_is_all_nodata(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene()
    mask = write_mask(scene, np.ones((70, 90)))
    with (
        pytest.warns(CloudWarning, match='about 100 %'),
        pytest.warns(NodataWarning, match='no valid pixel: the mask is empty'),
    ):
        made = predict_scene(
            scene, checkpoint, tmp_path / 'm.tif', cloud_mask=str(mask), **QUIET
        )
    assert (read(made.paths[0]) == IGNORED).all()


def test_what_cannot_be_masked_leaves_no_file(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene, out = write_scene(), tmp_path / 'out'
    out.mkdir()
    mask = write_mask(scene, np.ones((70, 90)))
    call = ('predict', scene, '--checkpoint', checkpoint, '--accelerator', 'cpu')
    for flags, words in (
        (('--clouds', 'scl'), 'has no scene classification (SCL)'),
        (('--cloud_mask', f'{mask}:cloud'), "Invalid values 'cloud'"),
        (('--cloud_mask', tmp_path / 'no.tif'), 'No such file'),
    ):
        refused(run(*call, '--output', out / 'm.tif', *flags), words)
        assert not list(out.iterdir())
    # the mask is an input, which no product replaces
    named = ('--output', mask, '--overwrite', '--cloud_mask', mask)
    refused(run(*call, *named), 'is read as a part of the scene')


def present(label: ImageLabel | None) -> list[float]:
    assert label is not None
    found: list[float] = label.present.tolist()
    return found


class TestLabels:
    """Labels describe clear ground: a class under a cloud is not there."""

    @pytest.fixture
    def grid(self, write_scene: WriteScene) -> Grid:
        with rasterio.open(write_scene(height=10, width=10)) as raster:
            return grid_of(raster)

    @pytest.fixture
    def clear(self) -> Any:
        """The upper three fifths are cloud."""
        clear = np.ones((10, 10), bool)
        clear[:6] = False
        return clear

    @pytest.mark.parametrize('whole', [False, True])
    def test_polygons(
        self, grid: Grid, clear: Any, tmp_path: Path, whole: bool
    ) -> None:
        shapes = [square((0, 0, 7, 10), grid), square((7, 0, 10, 10), grid)]
        path = write_features(tmp_path / 'p.gpkg', shapes, ['a', 'b'], grid.crs)
        labels = PolygonLabels(path, 'class', min_share=0.3, whole=whole)
        shares, coverage = labels.shares(grid, clear)
        np.testing.assert_allclose((*shares, coverage), (0.25, 0.75, 1))
        assert present(labels.label(grid)) == [1, 0 if whole else 1]
        assert present(labels.label(grid, None, clear)) == [0, 1]

    def test_points(self, grid: Grid, clear: Any, tmp_path: Path) -> None:
        points = [square((row, 4, row + 1, 5), grid).centroid for row in (5, 6)]
        path = write_features(tmp_path / 'p.gpkg', points, ['a', 'b'], grid.crs)
        labels = PointLabels(path, 'class', complete=True)
        assert present(labels.label(grid, None, clear)) == [0, 1]

    def test_rasters(self, grid: Grid, clear: Any, tmp_path: Path) -> None:
        values = np.ones((10, 10), np.uint8)
        values[7:] = 2
        path = write_band(
            tmp_path / 'c.tif', values, crs=grid.crs, transform=grid.transform
        )
        labels = RasterLabels(path, {1: 'a', 2: 'b'}, min_share=0.3, samples=20)
        np.testing.assert_allclose(labels.shares(grid, clear)[0], (0.25, 0.75))


def test_training_sees_clear_ground_alone(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    scene = write_scene(pixels=scene_pixels(256, 256))
    cloudy = np.zeros((256, 256), bool)
    cloudy[:, :140] = True
    cloudy[:, 200:206] = True
    with rasterio.open(scene) as raster:
        grid = grid_of(raster)
    # water is under clouds alone
    shapes = [square((0, 0, 256, 140), grid), square((0, 140, 256, 256), grid)]
    polygons = write_features(
        tmp_path / 'p.gpkg', shapes, ['Water', 'Forest'], grid.crs
    )
    labels = PolygonLabels(polygons, 'class', ['Forest', 'Water', 'Urban/Built-up'])
    data = SceneDataModule(
        str(scene), batch_size=4, block_size=48, labels=labels, num_workers=1,
        window=32, cloud_mask=str(write_mask(scene, cloudy)), cloud_dilation=0,
    )  # fmt: skip
    task = tiny_task()
    run = pl.Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)
    run.strategy.connect(task)
    data.trainer = run
    data.setup('fit')
    seen = 0
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        for window, valid, label in zip(
            batch['window'].tolist(), batch['valid'], batch['label'], strict=True
        ):
            row, col, height, width = window
            share = cloudy[row : row + height, col : col + width].mean()
            # the thumbnail that tells how much is clear has pixels of its own
            assert share <= 0.55
            assert label.tolist() == [1, 0, 0]
            assert float(valid.float().mean()) == pytest.approx(1 - share, abs=1e-6)
            seen += 1
    assert seen > 8
