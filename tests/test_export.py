"""``torchgeo-ctm export``: what it writes computes what the task does."""

import hashlib
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.commands import Run, refused
from tests.conftest import WriteScene, decisive, save_task, tiny_task
from torchgeo_ctm import export, export_formats
from torchgeo_ctm.errors import OutputError
from torchgeo_ctm.export import WindowScores
from torchgeo_ctm.maps.class_maps import resize
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task
from torchgeo_ctm.version import __version__


def reflectances(count: int, side: int = 32, bands: int = 13) -> Tensor:
    """Random images of blocks of 4 px, in Sentinel-2's numbers."""
    random = torch.Generator().manual_seed(7)
    blocks = torch.randn(count, bands, side // 4, side // 4, generator=random)
    numbers = (1500 + 700 * blocks).round().clamp(min=1)
    return numbers.repeat_interleave(4, 2).repeat_interleave(4, 3)


def run_onnx(path: Path, image: Tensor) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    scores: NDArray[np.float32] = session.run(None, {'image': image.numpy()})[0]
    return scores


def run_task(task: ClassTokenMaskingTask, image: Tensor) -> NDArray[np.float32]:
    """Return the scores that a scene is decided from, at the images' resolution."""
    with torch.no_grad():
        scores = task.eval().predict_step({'image': image}, 0)['scores']
    result: NDArray[np.float32] = resize(
        scores, (image.shape[-2], image.shape[-1])
    ).numpy()
    return result


def metadata_of(path: Path) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    found = session.get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in found.items()}


@pytest.fixture(scope='module')
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose windows hold several classes."""
    return save_task(
        # class tokens, fused with patches: the defaults of 0.1
        decisive(tiny_task(map_source='fused')),
        tmp_path_factory.mktemp('decided') / 'decided.ckpt',
    )


@pytest.fixture(scope='module')
def exported(decided: Path) -> Path:
    """Its ONNX file; model.pt2 lies beside it."""
    path = decided.with_name('model.onnx')
    found = export.export_model(decided, path, torch_export=True)
    assert found.paths == [path, path.with_suffix('.pt2')]
    assert found.windows == 8
    assert found.several > 4
    assert 0 < found.difference < 1e-4
    assert sorted(p.name for p in path.parent.iterdir()) == [
        'decided.ckpt', 'model.onnx', 'model.pt2'
    ]  # fmt: skip
    return path


@pytest.mark.parametrize('count', [1, 2, 5])
def test_scores_are_those_of_the_task(
    decided: Path, exported: Path, count: int
) -> None:
    image = reflectances(count)
    expected = run_task(load_task(decided), image)
    scores = run_onnx(exported, image)
    assert scores.shape == (count, 3, 32, 32)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert ((scores > 0.01).sum(axis=1) > 1).any()  # several classes compete
    module = torch.export.load(exported.with_suffix('.pt2')).module()
    with torch.no_grad():
        np.testing.assert_allclose(module(image).numpy(), expected, atol=1e-4)


def test_a_scene_of_one_window_gets_the_largest_score(
    run: Run, decided: Path, exported: Path, write_scene: WriteScene, tmp_path: Path
) -> None:
    image = reflectances(1)
    scene = write_scene(pixels=image[0].numpy().astype(np.uint16))
    mask = tmp_path / 'm.tif'
    arguments = ('--checkpoint', decided, '--output', mask, '--accelerator', 'cpu')
    assert run('predict', scene, *arguments)[0] == 0
    with rasterio.open(mask) as raster:
        classes = raster.read(1)
    assert len(np.unique(classes)) > 1
    assert (run_onnx(exported, image).argmax(axis=1)[0] == classes).all()


def test_deepness_gives_the_model_raw_numbers(decided: Path, exported: Path) -> None:
    """What the plug-in does with a tile, by its metadata (its model_base.py)."""
    found = metadata_of(exported)
    assert found['model_type'] == 'Segmentor'
    assert found['class_names'] == {'0': 'Forest', '1': 'Water', '2': 'Urban/Built-up'}
    assert found['resolution'] == 1000
    assert (found['tile_size'], found['tiles_overlap']) == (32, 50)
    image = reflectances(3)
    tiles = image.numpy().astype(np.uint16).transpose(0, 2, 3, 1)
    mean, std = (
        np.array(found[f'standardization_{name}'], np.float32)
        for name in ('mean', 'std')
    )
    assert mean.shape == std.shape == (13,)
    given = (np.float32(tiles * 1.0 / 255.0) - mean) / std
    scores = run_onnx(exported, torch.from_numpy(given.transpose(0, 3, 1, 2)))
    scores[scores < found['seg_thresh']] = 0
    expected = run_task(load_task(decided), image)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found['seg_small_segment'] == 0


def test_the_file_says_what_it_is(decided: Path, exported: Path) -> None:
    found = metadata_of(exported)
    assert found['bands'] == list(SENTINEL2_BANDS)
    assert found['offset'] == 0
    assert found['torchgeo_ctm_version'] == __version__
    assert found['checkpoint'] == 'decided.ckpt'
    digest = hashlib.sha256(decided.read_bytes()).hexdigest()
    assert found['checkpoint_sha256'] == digest
    assert found['map_rule'] == 'argmax'
    extra = {'metadata.json': ''}
    torch.export.load(exported.with_suffix('.pt2'), extra_files=extra)
    assert json.loads(extra['metadata.json']) == found

    model = onnx.load(exported)
    assert [(item.domain, item.version) for item in model.opset_import] == [('', 18)]
    assert model.ir_version == 8
    here = str(Path(export.__file__).parent).encode()
    for suffix in ('.onnx', '.pt2'):
        assert here not in exported.with_suffix(suffix).read_bytes()


def test_the_command(run: Run, decided: Path, tmp_path: Path) -> None:
    """Another size and newer operators; and the same file every time."""
    out = tmp_path / 'm.onnx'
    arguments = ('export', decided, '--output', out, '--img-size', 48, '--opset', 20)
    status, printed, err = run(*arguments, '--resolution', 20)
    assert status == 0, err
    lines = printed.splitlines()
    assert lines[0] == str(out)
    assert 'largest difference' in lines[1]
    assert 'in 8 random windows' in lines[1]
    image = reflectances(2, side=48)
    expected = run_task(load_task(decided), image)
    np.testing.assert_allclose(run_onnx(out, image), expected, atol=1e-4)
    found = metadata_of(out)
    assert (found['tile_size'], found['resolution']) == (48, 2000)
    assert [item.version for item in onnx.load(out).opset_import] == [20]
    before = out.read_bytes()
    refused(run(*arguments), '--overwrite')
    assert run(*arguments, '--resolution', 20, '--overwrite')[0] == 0
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize('closed', [[0], [0, 1]])
def test_closed_heads_are_taken_out(tmp_path: Path, closed: list[int]) -> None:
    """One head of the first block, or the block's whole attention."""
    task = decisive(tiny_task(pruning={'penalty': 0.01}))
    task.model.gates[0].log_a.data[closed] = -3
    checkpoint = save_task(task, tmp_path / 'gated.ckpt')
    out = tmp_path / 'm.onnx'
    export.export_model(checkpoint, out)
    image = reflectances(3)
    gated = load_task(checkpoint)
    assert gated.model.gates
    np.testing.assert_allclose(run_onnx(out, image), run_task(gated, image), atol=1e-4)
    sizes = {item.name: list(item.dims) for item in onnx.load(out).graph.initializer}
    weights = sizes.get('task.model.blocks.0.attn.proj.weight', [16, 0])
    assert weights == [16, 16 - 8 * len(closed)]


def test_maps_of_zeros_give_no_nan(tmp_path: Path) -> None:
    """Every head closed: present classes share each pixel evenly."""
    task = decisive(tiny_task(pruning={}, map_source='attention'))
    for gate in task.model.gates:
        gate.log_a.data.fill_(-3)
    out = tmp_path / 'm.onnx'
    export.export_model(save_task(task, tmp_path / 'closed.ckpt'), out)
    image = reflectances(2)
    expected = run_task(task, image)
    np.testing.assert_allclose(run_onnx(out, image), expected, atol=1e-6)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize(
    'options',
    [
        {
            'task': 'multiclass',
            'scaling': {'method': 'per_chip_maximum'},
            'maps': {'refinement': None},
        },
        {
            'scaling': None,
            'bands': list('abc'),
            'in_channels': 3,
            'maps': {'refinement': None},
        },
        {'ensemble': 'dihedral', 'map_labels': 'true', 'calibration': 'odds'},
    ],
    ids=['multiclass', 'scaled by the data module', 'other prediction'],
)
def test_other_tasks(tmp_path: Path, options: dict[str, Any]) -> None:
    task = decisive(tiny_task(**options))
    out = tmp_path / 'm.onnx'
    export.export_model(save_task(task, tmp_path / 't.ckpt'), out)
    task.with_options(ensemble=None, labels='predicted')
    image = reflectances(3, bands=len(task.bands))
    if options.get('scaling', 0) is None:
        image = (image - 1500) / 700
        assert 'resolution' not in metadata_of(out)
    np.testing.assert_allclose(run_onnx(out, image), run_task(task, image), atol=1e-4)


def test_rule_paint(run: Run, tmp_path: Path) -> None:
    checkpoint = save_task(
        decisive(tiny_task(map_rule='paint', map_source='attention')),
        tmp_path / 'paint.ckpt',
    )
    out = tmp_path / 'm.onnx'
    refused(
        run('export', checkpoint, '--output', out), "'paint'", "Set rule to 'argmax'"
    )
    assert not out.exists()
    assert run('export', checkpoint, '--output', out, '--rule', 'argmax')[0] == 0
    task = load_task(checkpoint)
    task.with_options(rule='argmax')
    image = reflectances(2)
    np.testing.assert_allclose(run_onnx(out, image), run_task(task, image), atol=1e-4)
    assert metadata_of(out)['map_rule'] == 'argmax'


def test_refinement_is_left_out_and_said(run: Run, tmp_path: Path) -> None:
    task = decisive(tiny_task(refinement='soft_assignment'))
    checkpoint = save_task(task, tmp_path / 'refined.ckpt')
    out = tmp_path / 'm.onnx'
    status, _, err = run('export', checkpoint, '--output', out)
    assert status == 0
    assert 'warning: ' in err
    assert "'soft_assignment'" in err
    image = reflectances(2)
    refined = run_task(task, image)
    task.with_options(refinement=None)
    expected = run_task(task, image)
    assert np.abs(refined - expected).max() > 0.01
    np.testing.assert_allclose(run_onnx(out, image), expected, atol=1e-4)


def test_offset_is_that_of_reflectance_only() -> None:
    bands = [*SENTINEL2_BANDS, 'VV']
    statistics = {'VV': {'offset': 25, 'clip': [0, 25], 'mean': 12.0, 'std': 5.0}}
    scaling = {'offset': -1000, 'clip': [0, 10000], 'per_band': statistics}
    task = tiny_task(in_channels=14, bands=bands, scaling=scaling).eval()
    image = reflectances(2, bands=14)
    image[:, 13] = -12
    raised = image.clone()
    raised[:, :13] += 1000
    with torch.no_grad():
        expected = WindowScores(task)(raised)
        # trained with an offset of -1000, given numbers that have none
        assert torch.equal(WindowScores(task, 0)(image), expected)
        assert torch.equal(WindowScores(task, -1000)(raised), expected)


def test_offset_is_recorded(decided: Path, tmp_path: Path) -> None:
    out = tmp_path / 'm.onnx'
    export.export_model(decided, out, offset=-1000)
    assert metadata_of(out)['offset'] == -1000
    image = reflectances(2)
    np.testing.assert_allclose(
        run_onnx(out, image + 1000), run_task(load_task(decided), image), atol=1e-4
    )


class TestRefuses:
    def test_arguments(self, run: Run, decided: Path, tmp_path: Path) -> None:
        out = tmp_path / 'm.onnx'
        for words, arguments in (
            (
                ['ends in .onnx', "Did you mean 'm.onnx'"],
                ('--output', tmp_path / 'm.pt'),
            ),
            (['50', 'patch of 8 px', 'Use 48.'], ('--img-size', 50)),
            (['--img_size 0', 'Use 8.'], ('--img-size', 0)),
            (['--opset 17', '18 to 23'], ('--opset', 17)),
            (['--opset 99', '18 to 23'], ('--opset', 99)),
            (['--resolution 0', 'must be positive'], ('--resolution', 0)),
            (['does not exist'], ('--output', tmp_path / 'no' / 'm.onnx')),
            (['--rule'], ('--rule', 'paint')),
        ):
            refused(run('export', decided, '--output', out, *arguments), *words)
        refused(run('export', out, '--output', out), 'm.onnx', 'is not a file')
        assert not list(tmp_path.iterdir())

    def test_existing_files(self, run: Run, decided: Path, tmp_path: Path) -> None:
        (tmp_path / 'm.pt2').write_text('old')
        arguments = ('export', decided, '--output', tmp_path / 'm.onnx')
        refused(
            run(*arguments, '--torch-export'), 'm.pt2 already exists', '--overwrite'
        )
        same = tmp_path / 'checkpoint.onnx'
        same.write_bytes(decided.read_bytes())
        refused(
            run('export', same, '--output', same, '--overwrite'), 'is the input itself'
        )
        assert same.read_bytes() == decided.read_bytes()
        with pytest.raises(OutputError, match=r"Did you mean 'm\.onnx'"):
            export.export_model(decided, tmp_path / 'm.pb')
        with pytest.raises(OutputError, match='overwrite=True'):
            export.export_model(decided, same)

    def test_missing_extra(
        self, run: Run, decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find = importlib.util.find_spec

        def none(name: str, package: str | None = None) -> Any:
            return None if name == 'onnxscript' else find(name, package)

        monkeypatch.setattr(importlib.util, 'find_spec', none)
        refused(
            run('export', decided, '--output', tmp_path / 'm.onnx'),
            'm.onnx requires onnxscript', 'pip install "torchgeo-ctm[onnx]"',
        )  # fmt: skip

    @pytest.mark.parametrize('wrong', [2e-4, float('nan')])
    def test_other_scores(
        self,
        run: Run,
        decided: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        wrong: float,
    ) -> None:
        """A runtime that computes something else: nothing is left behind."""

        def open_wrong(path: Path) -> Callable[[Tensor], Tensor]:
            module = torch.export.load(io.BytesIO(path.read_bytes())).module()
            return lambda image: module(image) + wrong

        monkeypatch.setitem(export_formats.OPEN, '.pt2', open_wrong)
        out = tmp_path / 'm.onnx'
        refused(
            run('export', decided, '--output', out, '--torch-export'),
            'm.pt2 was not written', "differ from PyTorch's",
        )  # fmt: skip
        assert not list(tmp_path.iterdir())

    def test_other_classes(self) -> None:
        """Scores that are close, but the class of a pixel is another one."""
        expected = torch.tensor([0.50003, 0.49997]).view(1, 2, 1, 1)
        tie = torch.tensor([0.500003, 0.499997]).view(1, 2, 1, 1)
        with pytest.raises(OutputError, match='class of 1 of 1 pixels'):
            export_formats._difference(Path('m.onnx'), expected.flip(1), expected)
        assert export_formats._difference(Path('m.onnx'), tie.flip(1), tie) < 1e-5

    def test_an_older_runtime(
        self, run: Run, decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreadable(*_: object) -> bytes:
            return b'operators of tomorrow'

        monkeypatch.setattr(export, 'to_onnx', unreadable)
        refused(
            run('export', decided, '--output', tmp_path / 'm.onnx'),
            'ONNX Runtime', 'cannot open', 'Use opset 18.',
        )  # fmt: skip
        assert not list(tmp_path.iterdir())
