"""A scene through the real trainer: what is written, and what never depends."""

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterWindow
from torchgeo.datasets import RasterDataset

from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.runs import QUIET, SMALL, read, stopped_at_batch
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import (
    CTMError,
    OutputError,
    ResumeWarning,
    SceneError,
    SettingError,
)
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.inference.products import Products
from torchgeo_ctm.inference.scene_loop import SceneLoop
from torchgeo_ctm.inference.writer import PseudoMaskWriter
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import load_task
from torchgeo_ctm.trainers.predictor import ClassTokenPrediction

#: Maps from patch tokens, so that windows are as large as chips.
TOKENS: dict[str, Any] = {'patches': {'head': 'tokens'}}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose maps come from tokens: windows of 32 px, the chip size."""
    folder = tmp_path_factory.mktemp('checkpoint')
    return save_task(tiny_task(**TOKENS), folder / 'tiny.ckpt')


def quiet_trainer(writer: PseudoMaskWriter, precision: Any = '32-true') -> pl.Trainer:
    return pl.Trainer(
        precision=precision,
        logger=False,
        callbacks=[writer],
        enable_progress_bar=False,
        enable_checkpointing=False,
        accelerator='cpu',
    )


@pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')
class TestProducts:
    def test_they_lie_on_the_scenes_grid(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        scene = write_scene()
        paths = predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET).paths
        assert [p.name for p in paths] == [
            'out.tif',
            'out_confidence.tif',
            'out.gpkg',
            'out.qml',
            'out_confidence.qml',
            'out.png',
        ]
        for path in paths[:2]:
            with rasterio.open(path) as ours, rasterio.open(scene) as theirs:
                assert ours.crs == theirs.crs
                assert ours.transform == theirs.transform
                assert ours.shape == theirs.shape
                assert ours.nodata == IGNORED
        assert set(np.unique(read(paths[0]))) <= {0, 1, 2}
        confidence = read(paths[1])
        assert confidence.min() >= 33
        assert confidence.max() <= 100
        assert paths[5].read_bytes().startswith(b'\x89PNG')
        with rasterio.open(paths[0]) as raster:
            tags = raster.tags()
        for key in ('TORCHGEO_CTM_VERSION', 'WEIGHTS_SHA256', 'BANDS', 'SCALING'):
            assert tags[key]
        assert (tags['WINDOW'], tags['STRIDE']) == ('32', '16')
        assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]

    def test_invalid_pixels_are_nodata(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        pixels = scene_pixels(70, 90)
        pixels[:, 20:50, 30:80] = 0
        pixels[:, :, :3] = 0
        scene = write_scene(pixels=pixels, nodata=0)
        paths = predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET).paths
        for path in paths[:2]:
            np.testing.assert_array_equal(read(path) == IGNORED, pixels[0] == 0)

    def test_all_nodata(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        scene = write_scene(pixels=np.zeros((13, 40, 50), np.uint16), nodata=0)
        paths = predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET).paths
        assert (read(paths[0]) == IGNORED).all()

    @pytest.mark.parametrize('size', [(1, 1), (31, 33), (32, 32), (33, 96), (1, 200)])
    def test_any_size(
        self,
        write_scene: WriteScene,
        checkpoint: Path,
        tmp_path: Path,
        size: tuple[int, int],
    ) -> None:
        scene = write_scene(pixels=scene_pixels(*size))
        paths = predict_scene(scene, checkpoint, tmp_path / 'out.tif', **QUIET).paths
        mask = read(paths[0])
        assert mask.shape == size
        assert (mask < 3).all()

    def test_no_georeference_is_invented(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        scene = write_scene(crs=None, transform=Affine.identity())
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            paths = predict_scene(
                scene, checkpoint, tmp_path / 'out.tif', **QUIET
            ).paths
            with rasterio.open(paths[0]) as raster:
                assert raster.crs is None
                assert raster.transform.is_identity

    @pytest.mark.parametrize(
        ('change', 'differing'),
        [
            ({'num_workers': 0}, 0),
            ({'num_workers': 3}, 0),
            ({'batch_size': 3}, 1e-5),
            ({'batch_size': 1}, 1e-5),
        ],
    )
    def test_same_result_however_it_is_computed(
        self,
        write_scene: WriteScene,
        checkpoint: Path,
        tmp_path: Path,
        change: dict[str, int],
        differing: float,
    ) -> None:
        scene = write_scene()
        first = predict_scene(scene, checkpoint, tmp_path / 'a.tif', **QUIET).paths
        second = predict_scene(
            scene, checkpoint, tmp_path / 'b.tif', **(QUIET | change)
        ).paths
        assert (read(first[0]) != read(second[0])).mean() <= differing
        if not differing:
            assert first[0].read_bytes() == second[0].read_bytes()

    def test_the_block_layout_of_the_scene_does_not_matter(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        scene, masks = write_scene(), []
        for name, layout in {
            'strips': {'blockysize': 1},
            'tiles': {'tiled': True, 'blockxsize': 16, 'blockysize': 48},
            'bands': {'interleave': 'band', 'compress': 'deflate'},
        }.items():
            folder = tmp_path / name
            folder.mkdir()
            with rasterio.open(scene) as raster:
                profile = raster.profile | layout
                with rasterio.open(folder / 'scene.tif', 'w', **profile) as copy:
                    copy.write(raster.read())
                    copy.descriptions = raster.descriptions
            mask = predict_scene(
                folder / 'scene.tif', checkpoint, folder / 'm.tif', **QUIET
            )
            masks.append(mask.paths[0].read_bytes())
        assert masks[0] == masks[1] == masks[2]

    def test_a_crop_agrees_with_the_whole(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        """Away from its border, and where the windows lie alike."""
        pixels = scene_pixels(160, 192)
        whole = predict_scene(
            write_scene(pixels=pixels), checkpoint, tmp_path / 'a.tif', **QUIET
        )
        crop = predict_scene(
            write_scene('crop.tif', pixels=pixels[:, 32:128, 48:176]),
            checkpoint,
            tmp_path / 'b.tif',
            **QUIET,
        )
        inside = read(whole.paths[0])[32:128, 48:176][32:-32, 32:-32]
        assert (inside != read(crop.paths[0])[32:-32, 32:-32]).mean() <= 1e-5

    def test_empty_windows_never_reach_the_model(
        self, write_scene: WriteScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pixels = scene_pixels(96, 96)
        pixels[:, :40] = 0
        path = save_task(tiny_task(**TOKENS), tmp_path / 'x.ckpt')
        seen = []
        original = ClassTokenPrediction.predict_step

        def count(self: Any, batch: Any, *rest: int) -> Any:
            seen.extend(batch['window'].tolist())
            return original(self, batch, *rest)

        monkeypatch.setattr(ClassTokenPrediction, 'predict_step', count)
        predict_scene(
            write_scene(pixels=pixels), path, tmp_path / 'm.tif', nodata=0, **QUIET
        )
        # rows 0 and 16 … of windows lie in nodata until a window reaches row 40
        assert {row for row, *_ in seen} == {16, 32, 48, 64}
        assert len(seen) == len({tuple(place) for place in seen})
        mask = read(tmp_path / 'm.tif')
        assert (mask[:40] == IGNORED).all()
        assert (mask[40:] < 3).all()

    @pytest.mark.parametrize(
        'options', [{'ensemble': 'dihedral'}, {'shifted_grids': True}]
    )
    def test_ensembles(
        self,
        write_scene: WriteScene,
        checkpoint: Path,
        tmp_path: Path,
        options: dict[str, Any],
    ) -> None:
        mask = predict_scene(
            write_scene(), checkpoint, tmp_path / 'm.tif', **QUIET, **options
        )
        with mask.open() as raster:
            assert (raster.read(1) < 3).all()
            tags = raster.tags()
        assert tags['ENSEMBLE'] == str(options.get('ensemble'))
        assert int(tags['STRIDE']) % 8 == (4 if 'shifted_grids' in options else 0)

    def test_probabilities(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        mask = predict_scene(
            write_scene(), checkpoint, tmp_path / 'm.tif', probabilities=True, **QUIET
        )
        with rasterio.open(mask.products['probabilities']) as raster:
            shares = raster.read()
            assert raster.scales == (0.01, 0.01, 0.01)
            assert raster.descriptions[0] == 'share of Forest'
        assert np.abs(shares.sum(axis=0, dtype=int) - 100).max() <= 2
        confidence = read(mask.products['confidence'])
        assert np.array_equal(shares.max(axis=0), confidence)

    def test_what_a_notebook_asks_of_it(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        mask = predict_scene(write_scene(), checkpoint, tmp_path / 'm.tif', **QUIET)
        areas = mask.areas()
        # 70 × 90 pixels of 10 m: UTM's scale is 0.9996 at its central meridian
        assert sum(areas.values()) == pytest.approx(63, rel=2e-3)
        assert len(mask.plot().axes) == 1

    @pytest.mark.parametrize('as_dataset', [False, True])
    def test_many_scenes_into_a_folder(
        self,
        write_scene: WriteScene,
        checkpoint: Path,
        tmp_path: Path,
        as_dataset: bool,
    ) -> None:
        scenes = [write_scene('a.tif'), write_scene('b.tif', height=40)]
        empty = np.zeros((13, 40, 40), np.uint16)
        scenes.insert(1, write_scene('empty.tif', pixels=empty, nodata=0))
        out = tmp_path / 'masks'
        out.mkdir()
        trainer = quiet_trainer(PseudoMaskWriter(str(out)))
        listed: Any = [str(scene) for scene in scenes]
        datamodule = SceneDataModule(RasterDataset(listed) if as_dataset else listed)
        trainer.predict(
            load_task(checkpoint), datamodule=datamodule, return_predictions=False
        )
        for scene in scenes:
            alone = predict_scene(
                scene, checkpoint, tmp_path / f'alone_{scene.name}', **QUIET
            )
            assert (out / scene.name).read_bytes() == alone.paths[0].read_bytes()

    def test_products_can_be_left_out(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / 'out'
        out.mkdir()
        predict_scene(
            write_scene(),
            checkpoint,
            out / 'm.tif',
            confidence=False,
            picture=False,
            polygons=False,
            style=False,
            **QUIET,
        )
        assert sorted(p.name for p in out.iterdir()) == ['m.tif', 'm.tif.aux.xml']

    @pytest.mark.parametrize('rule', ['argmax', 'paint'])
    def test_rules(self, write_scene: WriteScene, tmp_path: Path, rule: str) -> None:
        path = save_task(tiny_task(map_rule=rule), tmp_path / 'x.ckpt')
        paths = predict_scene(write_scene(), path, tmp_path / 'o.tif', **QUIET).paths
        assert (read(paths[0]) < 3).all()


class TestRefinement:
    @pytest.fixture
    def refining(self, tmp_path: Path) -> Path:
        task = decisive(tiny_task(refinement='soft_assignment'))
        return save_task(task, tmp_path / 'refining.ckpt')

    def predict(self, scene: Path, checkpoint: Path, output: Path) -> list[bytes]:
        paths = predict_scene(scene, checkpoint, output, **QUIET).paths
        return [path.read_bytes() for path in paths[:2]]

    def test_an_interrupted_run_writes_the_same_bytes(
        self, write_scene: WriteScene, refining: Path, tmp_path: Path
    ) -> None:
        scene = write_scene()
        whole = self.predict(scene, refining, tmp_path / 'whole.tif')
        output = tmp_path / 'm.tif'
        with stopped_at_batch(2), pytest.raises(KeyboardInterrupt):
            self.predict(scene, refining, output)
        layout = json.loads((tmp_path / '.m.tif.part/layout.json').read_text())
        assert (layout['scores'], layout['dtype']) == ([3, 32, 32], '|u1')
        with pytest.warns(ResumeWarning, match='5 of 20'):
            assert self.predict(scene, refining, output) == whole

    def test_the_bar_of_a_resumed_run_starts_where_it_stopped(
        self,
        write_scene: WriteScene,
        refining: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        scene, output = write_scene(), tmp_path / 'm.tif'
        with stopped_at_batch(2), pytest.raises(KeyboardInterrupt):
            self.predict(scene, refining, output)
        with pytest.warns(ResumeWarning, match='5 of 20'):
            predict_scene(scene, refining, output, **QUIET | {'progress': True})
        shown = re.findall(r'm\.tif: +(\d+)%', capsys.readouterr().err)
        assert (shown[0], shown[-1]) == ('25', '100')

    def test_tags_name_it(
        self,
        write_scene: WriteScene,
        refining: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        scene, options = write_scene(), QUIET | {'progress': True}
        mask = predict_scene(scene, refining, tmp_path / 'm.tif', **options)
        assert 'GB of temporary files' in capsys.readouterr().err
        with mask.open() as raster:
            assert raster.tags()['REFINEMENT'] == 'soft_assignment'


class TestDoors:
    """Lightning's trainer and predict_scene run one loop."""

    @pytest.mark.parametrize('precision', ['32-true', 'bf16-mixed', '16-mixed'])
    def test_precision_gives_the_bytes_of_lightnings(
        self,
        write_scene: WriteScene,
        tmp_path: Path,
        precision: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = save_task(decisive(tiny_task()), tmp_path / 'x.ckpt')
        scene = write_scene()
        ours = predict_scene(
            scene, path, tmp_path / 'a.tif', precision=precision, **QUIET
        )
        writer = PseudoMaskWriter(str(tmp_path / 'b.tif'), progress=True)
        trainer = quiet_trainer(writer, precision)
        trainer.predict(load_task(path), datamodule=SceneDataModule(str(scene)))
        theirs = [tmp_path / each.name.replace('a', 'b', 1) for each in ours.paths]
        for written, other in zip(ours.paths[:2], theirs, strict=False):
            assert written.read_bytes() == other.read_bytes()
        assert capsys.readouterr().out.splitlines() == [str(path) for path in theirs]

    def test_a_box_gives_the_bytes_of_lightnings(
        self, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        scene = write_scene(height=150, width=200)
        with rasterio.open(scene) as raster:
            part = RasterWindow(20, 30, 50, 30)
            box = transform_bounds(raster.crs, 4326, *raster.window_bounds(part))
        ours, theirs = tmp_path / 'a.tif', tmp_path / 'b.tif'
        options: dict[str, Any] = {'window': 32, 'stride': 16}
        predict_scene(scene, checkpoint, ours, bbox=box, **options, **QUIET)
        trainer = quiet_trainer(PseudoMaskWriter(str(theirs)))
        module = SceneDataModule(str(scene), bbox=box, **options)
        trainer.predict(load_task(checkpoint), datamodule=module)
        assert ours.read_bytes() == theirs.read_bytes()
        with rasterio.open(ours) as raster:
            assert raster.width < 60

    @pytest.mark.parametrize('lightning_first', [True, False])
    def test_either_resumes_what_the_other_began(
        self,
        write_scene: WriteScene,
        checkpoint: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        lightning_first: bool,
    ) -> None:
        scene, whole = write_scene(), tmp_path / 'whole.tif'
        predict_scene(scene, checkpoint, whole, **QUIET)

        def ours() -> None:
            predict_scene(scene, checkpoint, tmp_path / 'm.tif', **QUIET)

        def theirs() -> None:
            writer = PseudoMaskWriter(str(tmp_path / 'm.tif'))
            quiet_trainer(writer).predict(
                load_task(checkpoint), datamodule=SceneDataModule(str(scene))
            )

        first, second = (theirs, ours) if lightning_first else (ours, theirs)
        begin, calls = SceneLoop._begin_batch, iter(range(100))

        def stops(loop: Any, *arguments: Any, **options: Any) -> None:
            if next(calls) == 2:
                raise OSError
            begin(loop, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(SceneLoop, '_begin_batch', stops)
            with pytest.raises(OSError):
                first()
        with pytest.warns(ResumeWarning, match='5 of 20'):
            second()
        assert (tmp_path / 'm.tif').read_bytes() == whole.read_bytes()


def test_the_class_is_decided_from_blended_scores(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    """Windows with known scores blend as computed by hand, seams and all."""
    task = tiny_task(**TOKENS).eval()
    votes = iter(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))

    def predict_step(batch: Any, *_: int) -> dict[str, torch.Tensor]:
        vote = next(votes)
        scores = vote.view(1, 3, 1, 1).expand(1, 3, 4, 4)
        return {'scores': scores, 'probs': torch.ones(1, 3)}

    task.predict_step = predict_step  # type: ignore[method-assign,assignment]
    trainer = quiet_trainer(PseudoMaskWriter(str(tmp_path / 'out.tif'), picture=False))
    scene = write_scene(pixels=scene_pixels(32, 48))
    trainer.predict(
        task,
        datamodule=SceneDataModule(str(scene), batch_size=1),
        return_predictions=False,
    )
    mask = read(tmp_path / 'out.tif')
    confidence = read(tmp_path / 'out_confidence.tif')
    # columns 0…15 belong to the first window, 32…47 to the second; between, weights
    # fall from 16/16 to 1/16 and rise from 1/16 to 16/16
    assert (mask[:, :16] == 0).all()
    assert (mask[:, 32:] == 1).all()
    assert (confidence[:, :16] == 90).all()
    assert (confidence[:, 32:] == 80).all()
    falling = np.arange(16, 0, -1) / 16
    rising = np.arange(1, 17) / 16
    share = (0.9 * falling + 0.2 * rising) / (falling + rising)
    np.testing.assert_array_equal(mask[0, 16:32], share < 0.5)
    expected = np.rint(100 * np.maximum(share, 1 - share))
    assert np.abs(confidence[0, 16:32] - expected).max() <= 1


def test_a_failure_leaves_nothing(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    whole = write_scene('whole.tif', height=400, width=300)
    scene = tmp_path / 'short.tif'
    scene.write_bytes(whole.read_bytes()[:-1_000_000])
    out = tmp_path / 'out'
    out.mkdir()
    with pytest.raises(CTMError, match=r'short\.tif'):
        predict_scene(scene, checkpoint, out / 'm.tif', **QUIET)
    assert list(out.iterdir()) == []


@pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')
def test_a_run_that_failed_to_finish_is_resumed_by_the_same_process(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene, out = write_scene(), tmp_path / 'out' / 'm.tif'
    out.parent.mkdir()
    full = patch.object(Products, '_draw', side_effect=OutputError('the disk is full'))
    # as a notebook, keep the error
    with full, pytest.raises(OutputError) as kept:
        predict_scene(scene, checkpoint, out, **SMALL)
    assert [p.name for p in out.parent.iterdir()] == ['.m.tif.part']
    with pytest.warns(ResumeWarning, match='resuming'):
        predict_scene(scene, checkpoint, out, **SMALL)
    assert kept.value is not None
    assert out.exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'window': 20}, 'Did you mean 16'),
        ({'window': 4}, 'Did you mean 8'),
        ({'stride': 33}, 'Did you mean 32'),
        ({'accelerator': 'abacus'}, "Unknown accelerator 'abacus'"),
        ({'precision': 'bf16'}, "Did you mean 'bf16-mixed'"),
        ({'sieve': -1}, '0 or more'),
        ({'batch_size': 0}, 'batch_size=0'),
    ],
)
def test_impossible_settings(
    write_scene: WriteScene,
    checkpoint: Path,
    tmp_path: Path,
    arguments: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(SettingError, match=message):
        predict_scene(
            write_scene(), checkpoint, tmp_path / 'm.tif', **(QUIET | arguments)
        )
    assert not (tmp_path / 'm.tif').exists()


def test_products_are_not_replaced_unasked(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / 'm_confidence.tif').touch()
    with pytest.raises(OutputError, match='Pass overwrite=True'):
        predict_scene(write_scene(), checkpoint, tmp_path / 'm.tif', **QUIET)
    assert not (tmp_path / 'm.tif').exists()


def interrupt_predict(
    monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any
) -> None:
    """Predict a scene, and stop when the third batch begins."""
    begin, calls = SceneLoop._begin_batch, iter(range(100))

    def stops(loop: Any, *given: Any, **more: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        begin(loop, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(SceneLoop, '_begin_batch', stops)
        with pytest.raises(KeyboardInterrupt):
            predict_scene(*arguments, **(SMALL | options))


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'scene_bands': SENTINEL2_BANDS[::-1]}, 'bands read changed'),
        ({'precision': 'bf16-mixed'}, 'precision changed'),
        ({'offset': -1000.0}, 'scale and offset changed'),
        ({'content': True}, 'files changed'),
    ],
)
def test_a_run_resumes_only_with_the_same_input(
    write_scene: WriteScene,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    reason: str,
) -> None:
    scene, output = write_scene(), tmp_path / 'm.tif'
    interrupt_predict(monkeypatch, scene, checkpoint, output)
    if change.pop('content', False):
        # as rsync -t and cp -p leave it: same size, same time
        stat = scene.stat()
        write_scene(pixels=scene_pixels(70, 90)[:, ::-1])
        os.utime(scene, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.warns(ResumeWarning, match=reason):
        mask = predict_scene(scene, checkpoint, output, **(SMALL | change))
    whole = predict_scene(scene, checkpoint, tmp_path / 'w.tif', **(SMALL | change))
    np.testing.assert_array_equal(read(mask.paths[0]), read(whole.paths[0]))


def test_a_file_that_appears_meanwhile_is_not_replaced(
    write_scene: WriteScene,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, output = write_scene(), tmp_path / 'm.tif'
    begin = SceneLoop._begin_batch

    def appears(loop: Any, *given: Any, **more: Any) -> None:
        (tmp_path / 'm.png').write_text('my own')
        begin(loop, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(SceneLoop, '_begin_batch', appears)
        with pytest.raises(OutputError, match=r'm\.png already exists'):
            predict_scene(scene, checkpoint, output, **QUIET)
    assert (tmp_path / 'm.png').read_text() == 'my own'
    assert not output.exists()
    (tmp_path / 'm.png').unlink()
    with pytest.warns(ResumeWarning, match='resuming'):
        predict_scene(scene, checkpoint, output, **QUIET)


def test_many_scenes_hold_few_files_open(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    descriptors = Path('/proc/self/fd')
    if not descriptors.is_dir():
        pytest.skip('open files cannot be counted here')
    pixels = scene_pixels(16, 16)
    scenes = [str(write_scene(f's{i}.tif', pixels=pixels)) for i in range(12)]
    out = tmp_path / 'out'
    out.mkdir()
    begin, counts = SceneLoop._begin_batch, []

    def counting(loop: Any, *given: Any, **more: Any) -> None:
        counts.append(len(list(descriptors.iterdir())))
        begin(loop, *given, **more)

    monkeypatch.setattr(SceneLoop, '_begin_batch', counting)
    products = {name: False for name in ('polygons', 'picture', 'style', 'confidence')}
    trainer = quiet_trainer(PseudoMaskWriter(str(out), **products))
    datamodule = SceneDataModule(scenes)
    trainer.predict(
        load_task(checkpoint), datamodule=datamodule, return_predictions=False
    )
    assert max(counts) - min(counts) <= 4
    assert len(list(out.glob('*.tif'))) == 12


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'stac': True}, 'no CRS, but stac'),
        ({'min_area': 1.0}, 'no CRS, but min_area'),
        ({'window': 80_000}, 'is far larger than'),
        ({}, 'GB of memory'),
    ],
)
def test_what_cannot_be_finished_is_not_begun(
    write_scene: WriteScene,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    if message == 'GB of memory':
        # a machine of 64 kB
        monkeypatch.setattr(os, 'sysconf', lambda name: 256)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(CTMError, match=message):
            predict_scene(
                write_scene(crs=None), checkpoint, out / 'm.tif', **(QUIET | options)
            )
    assert not list(out.iterdir())


def test_scores_that_are_not_finite_stop_the_run(
    write_scene: WriteScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_task(tiny_task(), tmp_path / 'x.ckpt')
    original = ClassTokenPrediction.predict_step

    def broken(self: Any, batch: Any, *rest: int) -> Any:
        found = original(self, batch, *rest)
        found['scores'][0, 0, 0, 0] = float('nan')
        return found

    monkeypatch.setattr(ClassTokenPrediction, 'predict_step', broken)
    with pytest.raises(CTMError, match='Scores are not finite'):
        predict_scene(write_scene(), path, tmp_path / 'm.tif', **QUIET)
    assert not (tmp_path / 'm.tif').exists()


def test_a_scene_that_changes_meanwhile_has_no_map(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene, begin = write_scene(), SceneLoop._begin_batch

    def changes(loop: Any, *arguments: Any, **options: Any) -> None:
        with rasterio.open(scene, 'r+') as raster:
            raster.write(raster.read() + 1)
        begin(loop, *arguments, **options)

    with (
        patch.object(SceneLoop, '_begin_batch', changes),
        pytest.raises(SceneError, match=r'changed while .* was mapped'),
    ):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **SMALL)
    assert not [path for path in tmp_path.iterdir() if 'm.tif' in path.name]
