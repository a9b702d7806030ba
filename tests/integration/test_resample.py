"""Coarse bands are mapped as the model saw them in training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml

from tests.commands import Run, TorchGeoMain
from tests.conftest import decisive, save_task, tiny_task
from tests.fakes.label_files import write_features
from tests.fakes.runs import QUIET, SMALL, read, stopped_at_batch, trainer
from tests.fakes.sentinel2 import CORNER, native, on_10_m, pixels_of, write_band
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import ResumeWarning, SettingError
from torchgeo_ctm.labels import PolygonLabels
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.prediction.dates import predict_dates
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_predictor

pytestmark = pytest.mark.filterwarnings(
    'ignore::torchgeo_ctm.errors.PresenceWarning',
    'ignore::torchgeo_ctm.errors.ReflectanceWarning',
    'ignore::torchgeo_ctm.errors.LabelWarning',
)

BANDS = ('B02', 'B05', 'B11', 'B01')
OPTIONS = SMALL | {'batch_size': 2, 'polygons': False, 'picture': False}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Bands of 10, 20 and 60 m with a corner of nodata, 120 × 120 px."""
    for band in BANDS:
        pixels = pixels_of(band, native(band), 1200)
        pixels[: 300 // native(band), : 300 // native(band)] = 0
        path = tmp_path / 'scene' / f's2_{band}.tif'
        write_band(path, pixels, native(band), nodata=0)
    return tmp_path / 'scene'


def model(path: Path, **scaling: Any) -> Path:
    task = tiny_task(in_channels=len(BANDS), bands=list(BANDS), scaling=scaling)
    return save_task(decisive(task), path)


def tags(path: Path) -> dict[str, str]:
    with rasterio.open(path) as raster:
        found: dict[str, str] = raster.tags()
        return found


def test_a_map_is_the_same_however_it_is_made(run: Run, scene: Path) -> None:
    """By any batch, resumed, with the model's own resampling, by both commands."""
    plain = model(scene / 'plain.ckpt')

    def mapped(name: str, checkpoint: Path = plain, **options: Any) -> Path:
        output = scene.parent / name
        predict_scene(scene, checkpoint, output, **(OPTIONS | options))
        return output

    nearest, smooth = mapped('n.tif'), mapped('b.tif', resample='bilinear')
    assert 'RESAMPLE' not in tags(nearest)
    assert tags(smooth)['RESAMPLE'] == 'bilinear'
    assert np.array_equal(read(nearest) == 255, read(smooth) == 255)
    assert (read(nearest) != read(smooth)).mean() > 0.05
    larger = mapped('5.tif', resample='bilinear', batch_size=5, num_workers=2)
    with stopped_at_batch(6), pytest.raises(KeyboardInterrupt):
        mapped('r.tif', resample='bilinear')
    with pytest.warns(ResumeWarning, match='resuming'):
        resumed = mapped('r.tif', resample='bilinear')
    own = mapped('own.tif', model(scene / 'own.ckpt', resample='bilinear'))
    for other in (larger, resumed, own):
        assert other.read_bytes() == smooth.read_bytes()
    with stopped_at_batch(6), pytest.raises(KeyboardInterrupt):
        mapped('c.tif', resample='bilinear')
    with pytest.warns(ResumeWarning, match='RESAMPLE, resample changed; starting over'):
        changed = mapped('c.tif')
    assert changed.read_bytes() == nearest.read_bytes()
    command = ('predict', scene, '--checkpoint', plain, '--output', scene / 'cli.tif')
    flags = ('--window', 32, '--stride', 16, '--batch_size', 2, '--accelerator', 'cpu')
    status, _, err = run(*command, *flags, '--resample', 'bilinear')
    assert status == 0, err
    assert (scene / 'cli.tif').read_bytes() == smooth.read_bytes()


@pytest.mark.filterwarnings('ignore:.*given more than once')
def test_dates_are_mapped_as_one_is(scene: Path, tmp_path: Path) -> None:
    checkpoint = model(tmp_path / 'plain.ckpt')
    options = OPTIONS | {'resample': 'bilinear'}
    one, both = tmp_path / 'one.tif', tmp_path / 'both.tif'
    predict_scene(scene, checkpoint, one, **options)
    predict_dates([scene, scene], checkpoint, both, **options)
    assert np.array_equal(read(one), read(both))
    assert tags(both)['RESAMPLE'] == 'bilinear'


def test_one_raster_stays_as_it_is(scene: Path, tmp_path: Path) -> None:
    checkpoint = model(tmp_path / 'plain.ckpt')
    pixels = np.stack([on_10_m(band) for band in BANDS])
    path = write_band(tmp_path / 'one.tif', pixels)
    with rasterio.open(path, 'r+') as raster:
        raster.descriptions = BANDS
    one, other = tmp_path / 'm.tif', tmp_path / 'o.tif'
    predict_scene(path, checkpoint, one, **OPTIONS)
    predict_scene(path, checkpoint, other, resample='bilinear', **OPTIONS)
    assert one.read_bytes() == other.read_bytes()


@pytest.fixture
def labels(scene: Path) -> Path:
    """Each class in squares all over the scene."""
    from shapely import box

    left, top = CORNER
    boxes = [
        box(left + x, top - y - 160, left + x + 160, top - y)
        for y in range(0, 1200, 160)
        for x in range(0, 1200, 160)
    ]
    names = [('Forest', 'Water')[n % 2] for n in range(len(boxes))]
    return write_features(scene.with_name('labels.gpkg'), boxes, names, 32632)


def recorded(path: Path) -> Any:
    content = torch.load(path, map_location='cpu', weights_only=False)
    return content['hyper_parameters']['scaling'].get('resample')


def test_train_records_what_it_read(
    run: Run, scene: Path, labels: Path, tmp_path: Path
) -> None:
    config, ckpt = tmp_path / 'model.yaml', tmp_path / 'model.ckpt'
    given = ('--labels', labels, '--output', ckpt, '--steps', 2, '--window', 16)
    flags = (*given, '--accelerator', 'cpu', '--config_out', config)
    status, _, err = run('train', scene, *flags, '--resample', 'bilinear')
    assert status == 0, err
    assert recorded(ckpt) == 'bilinear'
    scaling = yaml.safe_load(config.read_text())['model']['init_args']['scaling']
    assert scaling['resample'] == 'bilinear'
    predict_scene(scene, ckpt, tmp_path / 'm.tif', **QUIET)
    assert tags(tmp_path / 'm.tif')['RESAMPLE'] == 'bilinear'


@pytest.fixture
def data(scene: Path, labels: Path) -> Callable[..., SceneDataModule]:
    def make(**options: Any) -> SceneDataModule:
        source = PolygonLabels(labels, 'class', classes=('Forest', 'Water'))
        return SceneDataModule(
            str(scene), 2, 0, labels=source, shares=(1, 0, 0), length=2, **options
        )

    return make


def fitted(
    data: SceneDataModule, path: Path, **task: Any
) -> tuple[ClassTokenMaskingTask, Any]:
    options: dict[str, Any] = {
        'in_channels': len(BANDS), 'bands': list(BANDS), 'img_size': 16,
        'num_classes': 2, 'class_names': ['Forest', 'Water'],
        'class_colors': ['#009900', '#1c0dff'],
    }  # fmt: skip
    made = tiny_task(**(options | task))
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(made, datamodule=data)
    run.save_checkpoint(path)
    return made, run


def test_fit_records_what_its_scenes_were_read_with(
    data: Callable[..., SceneDataModule], scene: Path, tmp_path: Path
) -> None:
    path = tmp_path / 'model.ckpt'
    module = data(resample='bilinear')
    fitted(module, path)
    assert module.splits is not None
    assert module.splits.scenes[0].scene.source.resample == 'bilinear'
    assert recorded(path) == 'bilinear'
    assert load_predictor(path).scaling.resample == 'bilinear'
    # what the model says is what scenes are read with
    module = data()
    fitted(module, path, scaling={'resample': 'bilinear'})
    assert module.splits is not None
    assert module.splits.scenes[0].scene.source.resample == 'bilinear'
    fitted(data(), path)
    assert recorded(path) is None
    with pytest.raises(SettingError, match='recorded in scaling, which is null'):
        fitted(data(resample='bilinear'), path, scaling=None)


def test_both_doors_write_the_same_bytes(
    torchgeo_main: TorchGeoMain, scene: Path, tmp_path: Path
) -> None:
    checkpoint = model(tmp_path / 'own.ckpt', resample='bilinear')
    torchgeo_main(
        'predict', '--config', Path(__file__).parents[2] / 'configs/scene.yaml',
        '--ckpt_path', checkpoint, '--data.scene', scene, '--data.window', 32,
        '--data.stride', 16, '--data.batch_size', 2, '--trainer.accelerator', 'cpu',
        '--trainer.callbacks.output', tmp_path / 't.tif',
    )  # fmt: skip
    predict_scene(scene, checkpoint, tmp_path / 'm.tif', **OPTIONS)
    assert (tmp_path / 't.tif').read_bytes() == (tmp_path / 'm.tif').read_bytes()
