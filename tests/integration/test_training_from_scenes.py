"""Labels that people have, and scenes: a network that maps a scene it has not seen."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio

from tests.commands import TorchGeoMain
from tests.fakes.land_cover import (
    BANDS,
    CLASSES,
    COLORS,
    LandCover,
    write_coarse_map,
    write_land_cover,
    write_points,
    write_squares,
)
from torchgeo_ctm import scoring
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.demo.synthetic import constant_guess_miou
from torchgeo_ctm.errors import CTMError
from torchgeo_ctm.labels import LabelSource, PointLabels, PolygonLabels, RasterLabels
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.trainers import ClassTokenMaskingTask, save_task

WINDOW = 48


def from_squares(folder: Path, scenes: Sequence[LandCover]) -> LabelSource:
    """Squares as large as a window, apart from each other, each with its classes."""
    path = write_squares(folder / 'squares.gpkg', scenes, WINDOW, 16)
    return PolygonLabels(path, 'tags', CLASSES, min_share=0.6, min_coverage=0.6)


def from_points(folder: Path, scenes: Sequence[LandCover]) -> LabelSource:
    """About twenty points a window: who went there would have seen every class."""
    path = write_points(folder / 'points.csv', scenes, 1280, 0)
    return PointLabels(path, 'land cover', CLASSES, min_points=1, complete=True)


def from_coarse_map(folder: Path, scenes: Sequence[LandCover]) -> LabelSource:
    """A map of the larger of two classes in every 120 m."""
    paths = [write_coarse_map(folder, scene, 12) for scene in scenes]
    names = {10 * (index + 1): name for index, name in enumerate(CLASSES)}
    return RasterLabels([str(path) for path in paths], names)


def land_cover_task(
    model_options: dict[str, int], **options: Any
) -> ClassTokenMaskingTask:
    """A task for the scenes of this file, with the defaults that are not given."""
    return ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        img_size=WINDOW,
        in_channels=len(BANDS),
        bands=BANDS,
        num_classes=len(CLASSES),
        class_names=CLASSES,
        class_colors=COLORS,
        model_options=model_options,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize('labels', [from_squares, from_points, from_coarse_map])
def test_a_third_scene_is_mapped(
    tmp_path: Path, labels: Callable[[Path, Sequence[LandCover]], LabelSource]
) -> None:
    """Two scenes in two UTM zones to learn from, a third in another one to map."""
    scenes = [
        write_land_cover(tmp_path, f'zone_{zone}', zone, zone) for zone in (32, 33)
    ]
    unseen = write_land_cover(tmp_path, 'unseen', 31, 31)
    pl.seed_everything(0, verbose=False)
    task = land_cover_task({'embed_dim': 48, 'depth': 3, 'num_heads': 4}, lr=2e-3)
    data = SceneDataModule(
        [str(scene.scene) for scene in scenes],
        batch_size=16,
        labels=labels(tmp_path, scenes),
        reference=[str(scene.reference) for scene in scenes],
        block_size=2 * WINDOW,
        length=320,
    )
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=data)
    [on_test_ground] = trainer.test(task, datamodule=data, verbose=False)
    checkpoint = tmp_path / 'trained.ckpt'
    save_task(task, checkpoint)
    mask = tmp_path / 'mask.tif'
    predict_scene(unseen.scene, checkpoint, mask, accelerator='cpu', progress=False)
    scores: dict[str, Any] = scoring.evaluate(mask, unseen.reference)
    guess = constant_guess_miou(np.array(scores['confusion']))
    assert guess < 0.1
    # each class is found, not the mean alone
    assert scores['miou'] > 0.5
    assert min(scores['iou'].values()) > 0.3
    assert on_test_ground['test_mAP'] > 0.8
    assert on_test_ground['test_miou'] > 0.5


@pytest.mark.slow
def test_the_configuration_trains_and_tests(
    tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    """As its user runs it, with a smaller network and smaller windows."""
    scenes = [write_land_cover(tmp_path, f'{zone}', zone, zone) for zone in (32, 33)]
    squares = write_squares(tmp_path / 'squares.gpkg', scenes, WINDOW, 16)
    arguments = [
        '--config',
        Path(__file__).parents[2] / 'configs' / 'scene_training.yaml',
        f'--data.init_args.scene={_listed(scene.scene for scene in scenes)}',
        f'--data.init_args.reference={_listed(scene.reference for scene in scenes)}',
        f'--data.init_args.labels.init_args.path={squares}',
        '--data.init_args.batch_size=16',
        f'--data.init_args.block_size={2 * WINDOW}',
        f'--model.init_args.img_size={WINDOW}',
        f'--model.init_args.in_channels={len(BANDS)}',
        f'--model.init_args.bands={_listed(BANDS)}',
        '--model.init_args.model_options={embed_dim: 16, depth: 2, num_heads: 2}',
        '--trainer.accelerator=cpu',
        '--trainer.precision=32-true',
        '--trainer.max_epochs=2',
    ]
    torchgeo_main('fit', *arguments)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    given = ('test', *arguments, '--ckpt_path', checkpoint)
    printed = torchgeo_main(*given)
    for metric in ('test_mAP', 'test_F1', 'test_miou', 'test_miou_true_labels'):
        assert metric in printed
    # the split is that of the configuration; a test without labels says what it needs
    message = 'without labels serves predict, not test. Pass labels'
    with pytest.raises(CTMError, match=message):
        torchgeo_main(*given, '--data.init_args.labels=null')


@pytest.mark.slow
def test_the_second_stage_trains_and_maps(
    tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    """As its user runs it: teacher, second stage, a map, with fewer steps."""
    scene = write_land_cover(tmp_path, '32', 32, 32)
    squares = write_squares(tmp_path / 'squares.gpkg', [scene], WINDOW, 16)
    task = land_cover_task({'embed_dim': 16, 'depth': 2, 'num_heads': 2})
    save_task(task, tmp_path / 'teacher.ckpt')
    arguments = [
        '--config',
        Path(__file__).parents[2] / 'configs' / 'second_stage.yaml',
        f'--model.init_args.teacher={tmp_path / "teacher.ckpt"}',
        f'--data.init_args.scene={scene.scene}',
        f'--data.init_args.reference={scene.reference}',
        f'--data.init_args.labels.init_args.path={squares}',
        f'--data.init_args.labels.init_args.classes={_listed(CLASSES)}',
        f'--data.init_args.block_size={2 * WINDOW}',
        '--data.init_args.unlabeled_window=64',
        '--data.init_args.length=32',
        '--trainer.accelerator=cpu',
        '--trainer.precision=32-true',
        '--trainer.max_epochs=1',
    ]
    torchgeo_main('fit', *arguments)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    printed = torchgeo_main('test', *arguments, '--ckpt_path', checkpoint)
    assert 'test_miou' in printed
    mask = tmp_path / 'mask.tif'
    predict_scene(scene.scene, checkpoint, mask, accelerator='cpu', progress=False)
    with rasterio.open(mask) as raster:
        assert json.loads(raster.tags()['CLASS_NAMES']) == list(CLASSES)
        assert raster.read(1).max() < len(CLASSES)
    with pytest.raises(CTMError, match='unlabeled_window=4096 px is larger than'):
        torchgeo_main('fit', *arguments, '--data.init_args.unlabeled_window=4096')


def _listed(values: Iterable[object]) -> str:
    """Return a list as the command line takes it."""
    return f'[{", ".join(map(str, values))}]'
