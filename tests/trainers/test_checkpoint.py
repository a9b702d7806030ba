import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import save_task, tiny_task
from torchgeo_ctm.errors import CheckpointError
from torchgeo_ctm.trainers import load_task
from torchgeo_ctm.trainers.any_checkpoint import load_scene_predictor

NAME = 'model.patch_embed.proj.weight'


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    task = tiny_task(
        scaling={'method': 'standard', 'offset': -1000.0},
        map_source='patchcam',
        threshold=0.3,
    ).eval()
    loaded = load_task(save_task(task, tmp_path / 'x.ckpt'))
    x = torch.rand(1, 13, 32, 32) * 4000
    assert torch.equal(task(x), loaded(x))
    assert loaded.class_names == task.class_names
    assert loaded.class_colors == task.class_colors
    assert loaded.bands == task.bands
    assert dict(loaded.hparams) == dict(task.hparams)
    assert not loaded.training


def test_it_opens_with_weights_only(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content['hyper_parameters']['img_size'] == 32
    assert 'version' in content['torchgeo_ctm']


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ('this must not run',))


def test_files_that_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    truncated = tmp_path / 'truncated.ckpt'
    truncated.write_bytes(checkpoint.read_bytes()[:5000])
    text = tmp_path / 'text.ckpt'
    text.write_text('not a checkpoint')
    empty = tmp_path / 'empty.ckpt'
    empty.touch()
    bare_pickle = tmp_path / 'pickle.ckpt'
    bare_pickle.write_bytes(pickle.dumps(Harmful()))
    short = tmp_path / 'short.ckpt'
    short.write_text('hi')
    for path in (truncated, text, empty, bare_pickle, short):
        with pytest.raises(
            CheckpointError, match=r'not a checkpoint \(\.ckpt\), or is incomplete'
        ):
            load_task(path)
    with pytest.raises(CheckpointError, match='is not a file'):
        load_task(tmp_path / 'nowhere.ckpt')


def test_pickled_objects_are_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'harmful.ckpt'
    torch.save({'state_dict': {}, 'hyper_parameters': Harmful()}, path)
    with pytest.raises(CheckpointError, match='weights_only=True'):
        load_task(path)
    assert capsys.readouterr().out == ''


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'other.ckpt'
    torch.save({'state_dict': {}, 'hyper_parameters': {'model': 'unet'}}, path)
    with pytest.raises(CheckpointError, match='another program'):
        load_task(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match='another program'):
        load_task(path)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_float32(
    dtype: torch.dtype, tmp_path: Path, checkpoint: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name, value in content['state_dict'].items():
        if value.is_floating_point():
            content['state_dict'][name] = value.to(dtype)
    torch.save(content, tmp_path / 'other.ckpt')
    predictor = load_scene_predictor(tmp_path / 'other.ckpt')
    assert {weight.dtype for weight in predictor.parameters()} == {torch.float32}


def test_a_damaged_content_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    path = tmp_path / 'damaged.ckpt'
    damages: tuple[dict[str, Any], ...] = (
        {'hyper_parameters': content['hyper_parameters'] | {'colour': 'blue'}},
        {'state_dict': {}},
        {'hyper_parameters': content['hyper_parameters'] | {'task': 'multilable'}},
        {'state_dict': content['state_dict'] | {NAME: torch.ones(3).to_sparse()}},
    )
    for damage in damages:
        torch.save(content | damage, path)
        with pytest.raises(CheckpointError, match='does not fit this version'):
            load_task(path)


def test_lightning_loads_what_the_command_line_wrote(tmp_path: Path) -> None:
    """Checkpoints of LightningCLI hold the class path among the hyperparameters."""
    task = tiny_task().eval()
    path = save_task(task, tmp_path / 'x.ckpt')
    content = torch.load(path, weights_only=True)
    content['hyper_parameters']['_class_path'] = 'torchgeo_ctm.trainers.Task'
    torch.save(content, path)
    loaded = type(task).load_from_checkpoint(path).eval()
    x = torch.rand(1, 13, 32, 32) * 4000
    assert torch.equal(task(x), loaded(x))
    assert '_class_path' not in loaded.options.mappings()
