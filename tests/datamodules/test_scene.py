import re
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio
import torch

from tests.conftest import WriteScene, scene_pixels, tiny_task
from tests.fakes.label_files import write_squares
from tests.fakes.labeled_scenes import RuleLabels
from tests.fakes.runs import trainer
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.errors import (
    LabelError,
    LabelWarning,
    PixelSizeWarning,
    ReflectanceWarning,
    SettingError,
)
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import PolygonLabels
from torchgeo_ctm.scaling import build_scaling
from torchgeo_ctm.trainers import ClassTokenMaskingTask, SoftMaskSegmentationTask

CLASSES = ('Forest', 'Water', 'Urban/Built-up')


def by_place(grid: Grid) -> list[int]:
    return [1, int(grid.transform.c > 501_000), int(grid.transform.f < 4_199_000)]


def datamodule(scene: Path | list[Path], **arguments: Any) -> SceneDataModule:
    """A data module that trains, with blocks of two windows."""
    scenes = [str(path) for path in (scene if isinstance(scene, list) else [scene])]
    options: dict[str, Any] = {
        'labels': RuleLabels(CLASSES, by_place),
        'batch_size': 4,
        'block_size': 64,
        'num_workers': 0,
    }
    return SceneDataModule(scenes, **(options | arguments))


def test_scenes_that_differ_or_occur_twice_are_told(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    first = write_scene()
    pixels = scene_pixels(70, 90, 13)
    moved = write_scene('moved.tif', pixels=pixels + 1000)
    with rasterio.open(first) as raster:
        place = raster.transform
    coarse = write_scene('coarse.tif', transform=place @ place.scale(2))
    for other, category, said in (
        (
            moved,
            ReflectanceWarning,
            'moved.tif: dark pixels are about 1,000 higher than',
        ),
        (coarse, PixelSizeWarning, '10 m in .*scene.tif, 20 m in .*coarse.tif'),
        (first, LabelWarning, 'scene.tif is given more than once'),
    ):
        data = datamodule([first, other], shares=[1, 0, 0])
        data.trainer = _attached(tiny_task())
        with pytest.warns(category, match=said):
            data.setup('fit')
    data = datamodule(first, test_scene=str(first))
    data.trainer = _attached(tiny_task())
    with pytest.raises(SettingError, match=r'test_scene=.* is a training scene too'):
        data.setup('fit')


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({}, ''),
        (
            {'shares': [0.2, 0.2, 0.6]},
            r'shares=\[0.4, 0.3, 0.3\], now \[0.2, 0.2, 0.6\]',
        ),
        ({'seed': 5}, 'seed=0, now 5'),
        ({'block_size': 96}, 'block_size=64, now 96'),
        ({'scene': 'same'}, ''),
        ({'scene': 'other'}, r'scene\.tif, now tested'),
    ],
)
def test_a_test_on_trained_windows_is_told(
    write_scene: WriteScene, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    scene = write_scene(pixels=scene_pixels(400, 400))
    options: dict[str, Any] = {'shares': [0.4, 0.3, 0.3]}
    task = tiny_task(class_names=CLASSES, num_classes=len(CLASSES))
    fit = trainer(max_steps=1, limit_val_batches=0)
    fit.fit(task, datamodule=datamodule(scene, **options))
    path = tmp_path / 'trained.ckpt'
    fit.save_checkpoint(path)
    if 'scene' in changed:
        # of the same name in another folder, and the very scene
        folder = tmp_path / 'elsewhere'
        folder.mkdir()
        twin = Path(shutil.copy(scene, folder))
        tested = twin if changed['scene'] == 'same' else scene
        with rasterio.open(scene) as raster:
            far = raster.transform @ raster.transform.translation(9000, 0)
        new = write_scene('new.tif', pixels=scene_pixels(400, 400), transform=far)
        options, changed = {'test_scene': str(tested)}, {}
        data = datamodule(new, **options, shares=[0.5, 0.5, 0])
    else:
        data = datamodule(scene, **(options | changed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        trainer(limit_test_batches=1).test(
            task, datamodule=data, ckpt_path=str(path), verbose=False
        )
    found = [str(w.message) for w in caught if 'was trained with' in str(w.message)]
    assert len(found) == bool(said)
    assert all(re.search(said, text) for text in found)


class Watch(pl.Callback):
    """Keeps what a run shows."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, list[list[int]]]] = []
        self.counts: Counter[str] = Counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, index: int
    ) -> None:
        self.shown.append((trainer.current_epoch, batch['window'].tolist()))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if not trainer.sanity_checking:
            self.counts['val'] += len(batch['image'])

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.counts['test'] += len(batch['image'])


def test_it_trains_validates_tests_and_predicts(write_scene: WriteScene) -> None:
    scene = write_scene(height=256, width=256)
    classes = (np.arange(256 * 256).reshape(1, 256, 256) % 3).astype(np.uint8)
    reference = write_scene('reference.tif', pixels=classes, descriptions=None)
    data = datamodule(scene, reference=str(reference), length=12)
    task, watch = tiny_task(), Watch()
    run = trainer(max_epochs=2, callbacks=[watch])
    run.fit(task, datamodule=data)
    assert [epoch for epoch, _ in watch.shown] == [0, 0, 0, 1, 1, 1]
    assert watch.shown[:3] != watch.shown[3:]
    assert data.splits is not None
    assert watch.counts['val'] == 2 * len(data.splits.windows('val')) > 0
    # there is a mask to score with, in validation and test alike
    assert 'val_miou' in run.callback_metrics
    [scores] = run.test(task, datamodule=data, verbose=False)
    assert watch.counts['test'] == len(data.splits.windows('test')) > 0
    assert {'test_mAP', 'test_miou'} <= scores.keys()
    predicted = run.predict(task, datamodule=data)
    assert predicted


def test_training_goes_on_as_it_would_have(write_scene: WriteScene) -> None:
    """The epoch's number decides, so a resumed run shows what it would have."""
    scene = write_scene(height=256, width=256)
    watch = Watch()
    trainer(max_epochs=2, callbacks=[watch]).fit(
        tiny_task(), datamodule=datamodule(scene, length=8, num_workers=2)
    )
    run = trainer(max_epochs=1)
    task = tiny_task()
    data = datamodule(scene, length=8)
    run.fit(task, datamodule=data)
    later = Watch()
    run.callbacks.append(later)  # type: ignore[attr-defined]
    run.fit_loop.max_epochs = 2
    run.fit(task, datamodule=data)
    assert later.shown == [entry for entry in watch.shown if entry[0] == 1]


def test_an_epoch_is_as_long_as_the_ground_is_wide(write_scene: WriteScene) -> None:
    data = datamodule(write_scene(height=256, width=256))
    data.trainer = _attached(tiny_task())
    data.setup('fit')
    assert data.splits is not None
    windows = len(data.splits.windows('train'))
    assert len(data.train_dataloader()) == -(-windows // 4)


def _attached(task: ClassTokenMaskingTask) -> pl.Trainer:
    """A trainer that has this task."""
    run = trainer()
    run.strategy.connect(task)
    return run


def test_tasks_that_name_no_bands_are_refused(write_scene: WriteScene) -> None:
    data = SceneDataModule(str(write_scene()))
    data.trainer = trainer()
    data.trainer.strategy.connect(SemanticSegmentation(num_classes=3))
    with pytest.raises(SettingError, match='cannot serve SemanticSegmentation'):
        data.setup('predict')


@pytest.mark.parametrize('size', [32, (32, 32), 64])
def test_windows_unlike_those_of_the_model_are_told(
    write_scene: WriteScene, size: Any
) -> None:
    task = tiny_task(img_size=size, maps={'source': 'attention'})
    data = datamodule(write_scene(height=200, width=200), window=32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        trainer(max_steps=1).fit(task, datamodule=data)
    told = [w for w in caught if w.category is PixelSizeWarning]
    assert len(told) == (size == 64)


def test_an_offset_of_training_is_one_of_the_model(write_scene: WriteScene) -> None:
    """So that prediction does without being told; numbers stay the same."""
    task, run = tiny_task(), trainer(max_steps=1)
    data = datamodule(write_scene(height=200, width=200), offset=-1000.0)
    data.trainer = run
    run.strategy.connect(task)
    data.setup('validate')
    assert data.splits is not None
    before = task.scaling(data.splits.windows('val')[0]['image'])
    data.setup('fit')
    assert task.scaling.offset == task.hparams['scaling']['offset'] == -1000
    after = task.scaling(data.splits.windows('val')[0]['image'])
    torch.testing.assert_close(after, before)
    # one of other data stays
    other = tiny_task(scaling={**task.hparams['scaling'], 'offset': -500.0})
    other.learn_offset(-1000)
    assert other.scaling.offset == -500


def test_a_second_stage_is_told_of_windows_that_its_teacher_saw(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    scene = write_scene(height=200, width=200)
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(tiny_task(), datamodule=datamodule(scene, shares=[1, 0, 0]))
    run.save_checkpoint(tmp_path / 'teacher.ckpt')
    for shares, told in (([0.6, 0.4, 0], 1), ([1, 0, 0], 0)):
        task = SoftMaskSegmentationTask(str(tmp_path / 'teacher.ckpt'))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            trainer(max_steps=1, limit_val_batches=0).fit(
                task, datamodule=datamodule(scene, shares=shares)
            )
        texts = [str(each.message) for each in caught]
        assert sum('The teacher was trained with shares=' in t for t in texts) == told


def test_a_test_without_windows_is_refused(write_scene: WriteScene) -> None:
    data = datamodule(write_scene(height=200, width=200), shares=[1, 0, 0])
    with pytest.raises(SettingError, match='The test split has no window'):
        trainer().test(tiny_task(), datamodule=data)


def test_scenes_without_labels_cannot_be_trained_on() -> None:
    for stage in ('fit', 'validate', 'test'):
        with pytest.raises(
            SettingError, match=f'serves predict, not {stage}. Pass labels'
        ):
            SceneDataModule('scene.tif').setup(stage)


def test_labels_of_other_classes_are_refused(write_scene: WriteScene) -> None:
    scene = write_scene(height=256, width=256)
    others = RuleLabels(('Forest', 'Urban/Built-up', 'Water'), by_place)
    data = datamodule(scene, labels=others)
    data.trainer = _attached(tiny_task())
    with pytest.raises(
        LabelError, match='expected those of the task, in order: Forest, Water'
    ):
        data.setup('fit')
    unnamed = tiny_task(class_names=None)
    data.trainer = _attached(unnamed)
    data.setup('fit')
    # the checkpoint has the names of the labels
    assert unnamed.class_names == unnamed.hparams['class_names'] == [*others.classes]
    data = datamodule(scene, labels=others)
    data.trainer = _attached(
        tiny_task(class_names=None, class_colors=None, num_classes=2)
    )
    with pytest.raises(LabelError, match=r'3 classes, .* but num_classes=2\. Set'):
        data.setup('fit')
    data = datamodule(scene, labels=scene)
    with pytest.raises(SettingError, match='type PosixPath, expected labels that were'):
        data.setup('fit')
    with pytest.raises(
        SettingError, match='type ndarray, expected a path, or a list of'
    ):
        SceneDataModule(np.zeros((3, 4, 5)), labels=others)  # type: ignore[arg-type]
    data = datamodule([], labels=others)
    data.trainer = _attached(tiny_task())
    with pytest.raises(SettingError, match='scene is empty'):
        data.setup('fit')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'length': 0}, 'length=0 is too small, expected at least 1'),
        ({'windows_per_read': 0}, 'windows_per_read=0 is too small'),
        ({'seed': -1}, 'seed=-1 is too small'),
        ({'shares': (1, 1, 1)}, 'shares='),
        ({'block_size': 20}, 'block_size=20 px is smaller than a window of 32 px'),
        ({'reference': ['a.tif', 'b.tif']}, '2 references for 1 scenes'),
    ],
)
def test_settings_out_of_range(
    write_scene: WriteScene, arguments: dict[str, Any], message: str
) -> None:
    data = datamodule(write_scene(height=256, width=256), **arguments)
    data.trainer = _attached(tiny_task())
    with pytest.raises(SettingError, match=message):
        data.setup('fit')


def test_whole_scenes_to_validate_and_test_on(write_scene: WriteScene) -> None:
    paths = [write_scene(f'{name}.tif', 160, 160, crs=None) for name in ('a', 'b', 'c')]
    data = datamodule(
        paths[0], val_scene=str(paths[1]), test_scene=[str(paths[2])], shares=(1, 0, 0)
    )
    data.trainer = _attached(tiny_task())
    with pytest.warns(UserWarning, match='has no CRS'):
        data.setup('fit')
    [[train], [val], [test]] = (
        {int(number) for batch in loader for number in batch['scene']}
        for loader in (
            data.train_dataloader(),
            data.val_dataloader(),
            data.test_dataloader(),
        )
    )
    assert (train, val, test) == (0, 1, 2)


def test_a_split_without_a_share_has_no_batches(write_scene: WriteScene) -> None:
    data = datamodule(write_scene(height=256, width=256), shares=(0.7, 0.3, 0))
    data.trainer = _attached(tiny_task())
    data.setup('fit')
    assert data.test_dataloader() == []


def test_offset_and_nodata_are_handled_as_in_prediction(
    write_scene: WriteScene,
) -> None:
    pixels = scene_pixels(256, 256)
    pixels[:, 128:] = 0
    scene = write_scene(pixels=pixels, nodata=0)
    data = datamodule(scene, offset=-1000.0, length=16)
    task = tiny_task()
    data.trainer = _attached(task)
    data.setup('fit')
    for batch in data.train_dataloader():
        assert (batch['valid'].flatten(1).float().mean(1) >= 0.5).all()
        # scaling adds it
        assert batch['image'].min() + task.scaling.offset == pytest.approx(
            pixels[:, :128].min() - 1000.0, abs=700
        )
    data.setup('predict')
    [window] = [b for b in data.predict_dataloader()[0] if int(b['index'][0]) == 0]
    assert torch.equal(
        window['image'][0, :, :32, :32] + task.scaling.offset,
        torch.from_numpy(pixels[:, :32, :32].astype(np.float32)) - 1000,
    )


def test_polygons_smaller_than_a_window_are_told(
    tmp_path: Path, write_scene: WriteScene
) -> None:
    path = write_scene(height=256, width=256)
    with rasterio.open(path) as raster:
        grid = Grid(256, 256, raster.crs, raster.transform)
    boxes = [(row, col, row + 16, col + 16) for row in range(0, 256, 16)
             for col in range(0, 256, 16)]  # fmt: skip
    classes = [CLASSES[number % 3] for number in range(len(boxes))]
    squares = list(zip(boxes, classes, strict=True))
    labels = PolygonLabels(
        write_squares(tmp_path / 'a.gpkg', squares, grid),
        'class',
        CLASSES,
        min_share=0.6,
        min_coverage=0.6,
    )
    data = datamodule(path, labels=labels)
    data.trainer = _attached(tiny_task())
    said = r'has 16 × 16 px, a window 32 × 32 px, .* Did you mean img_size=16'
    with pytest.warns(LabelWarning, match=said):
        data.setup('fit')


def test_windows_of_a_local_head_overlap_by_its_field_of_view(
    write_scene: WriteScene,
) -> None:
    task = tiny_task(
        patches={'head': 'local', 'pooling': 'share'},
        maps={'source': 'patches', 'presence': 'all'},
    )

    def windows(**options: Any) -> tuple[int, int]:
        scene = str(write_scene(height=300, width=280))
        data = SceneDataModule(scene, **options)
        data.trainer = pl.Trainer(accelerator='cpu', logger=False)
        data.trainer.strategy.connect(task)
        data.setup('predict')
        [opened] = data.predict_datasets
        return opened.window, opened.stride

    assert windows() == (256, 224)
    assert windows(window=128) == (128, 96)
    assert windows(window=128, stride=64) == (128, 64)
    with pytest.raises(SettingError, match='field of view of 20 px'):
        windows(window=16)
    with pytest.raises(SettingError, match='Did you mean 32'):
        windows(window=30)
    with pytest.raises(SettingError, match='stride=0'):
        windows(stride=0)
    task.with_options(source='fused')
    assert windows() == (32, 16)


@pytest.mark.parametrize('offset', [0.0, -1000.0])
def test_training_on_scenes_records_their_range(
    write_scene: WriteScene, offset: float
) -> None:
    """So that a scene with another offset is told where no band tells it."""
    bands, size = ['B02', 'B03', 'B04', 'B08'], {'height': 200, 'width': 200}
    pixels = scene_pixels(200, 200, 13)
    scene = write_scene(**size, pixels=pixels)
    moved = write_scene('moved.tif', **size, pixels=pixels + 1000)
    task = tiny_task(bands=bands, in_channels=4)
    data = datamodule(scene if offset == 0 else moved, offset=offset or None)
    trainer(max_steps=1).fit(task, datamodule=data)
    low, high = (task.hparams['scaling'][name] for name in ('low', 'high'))
    picked = pixels[[1, 2, 3, 7]].reshape(4, -1)
    np.testing.assert_allclose(low, np.percentile(picked, 1, axis=1), atol=30)
    np.testing.assert_allclose(high, np.percentile(picked, 99, axis=1), atol=30)
    again = build_scaling(bands, task.hparams['scaling'])
    assert again.low == low

    def told(path: Path, offset: float | None) -> list[str]:
        data = SceneDataModule(str(path), offset=offset)
        data.trainer = trainer()
        data.trainer.strategy.connect(task)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            data.setup('predict')
            data.predict_dataloader()
        return [str(w.message) for w in caught if w.category is ReflectanceWarning]

    assert not told(scene, 0.0)
    assert not told(moved, -1000.0)
    [text] = told(moved, 0.0)
    assert 'about 1,000 higher than those of the training data' in text
    assert text.endswith('Pass offset=-1000.')


@pytest.mark.parametrize('interrupted', [False, True])
def test_no_file_of_a_scene_is_open_after_training(
    write_scene: WriteScene, interrupted: bool
) -> None:
    """An open one makes Python print an error without words when it ends."""
    data = datamodule(write_scene(height=200, width=200), num_workers=2)

    class Stop(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            assert data.splits is not None
            assert data.splits.windows('train')[0]['image'].shape == (13, 32, 32)
            if interrupted:
                raise SettingError('stop')

    run = trainer(max_steps=1, callbacks=[Stop()])
    if interrupted:
        with pytest.raises(SettingError, match='stop'):
            run.fit(tiny_task(), datamodule=data)
    else:
        run.fit(tiny_task(), datamodule=data)
    assert data.splits is not None
    assert not [scene for scene in data.splits.scenes if scene.scene._raster]
    assert data.splits.windows('train')[0]['image'].shape == (13, 32, 32)


@pytest.mark.parametrize('of_the_task', [False, True])
def test_an_offset_that_was_given_is_no_fault(
    write_scene: WriteScene, of_the_task: bool
) -> None:
    pixels = render(200, 200, 1)[0] + 1000
    scene = write_scene(height=200, width=200, pixels=pixels.astype(np.uint16))
    given: dict[str, Any] = {} if of_the_task else {'offset': -1000.0}
    task = tiny_task(scaling={'offset': -1000.0}) if of_the_task else tiny_task()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        trainer(max_steps=1).fit(task, datamodule=datamodule(scene, **given))
    assert not [w for w in caught if w.category is ReflectanceWarning]
    with pytest.warns(ReflectanceWarning, match='as if 1000 had been added'):
        trainer(max_steps=1).fit(tiny_task(), datamodule=datamodule(scene))
