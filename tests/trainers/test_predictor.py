"""The predictor of a checkpoint predicts as the task that it was saved from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import decisive, save_task, tiny_task
from torchgeo_ctm.errors import CheckpointError
from torchgeo_ctm.trainers import load_task
from torchgeo_ctm.trainers.any_checkpoint import load_scene_predictor
from torchgeo_ctm.trainers.predictor import ClassTokenPredictor

CASES: list[dict[str, Any]] = [
    {},
    {'maps': {'calibration': 'odds', 'refinement': 'soft_assignment'}},
    {'patches': {'head': 'local', 'balance': 0.5}, 'maps': {'source': 'patches'}},
    {'pruning': {'penalty': 0.01}, 'class_names': None, 'class_colors': None},
    {'task': 'multiclass', 'scaling': None, 'map_rule': 'paint'},
    {'labels': {'min_share': 0.2}, 'maps': {'labels': 'true'}, 'img_size': (32, 48)},
]


@pytest.mark.parametrize('options', CASES, ids=str)
def test_it_predicts_as_the_task(options: dict[str, Any], tmp_path: Path) -> None:
    saved = decisive(tiny_task(**options))
    for gate in saved.model.gates:
        gate.log_a.data[0] = -5
    path = save_task(saved, tmp_path / 'x.ckpt')
    task, ours = load_task(path), load_scene_predictor(path)
    assert isinstance(ours, ClassTokenPredictor)
    assert not ours.training
    for name, value in task.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert ours.state_dict().keys() == task.state_dict().keys()
    assert ours.provenance() == task.provenance()
    for one in (task, ours):
        one.on_predict_start()
    assert ours.hparams['model_options'] == task.hparams['model_options']
    batch = {
        'image': torch.rand(2, 13, 32, 32) * 3000,
        'label': torch.tensor([[1.0, 0, 1], [0, 1, 0]]),
    }
    with torch.inference_mode():
        wanted, found = task.predict_step(batch, 0), ours.predict_step(batch, 0)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'newer': 1}, 'unknown hyperparameters: newer'),
        ({'img_size': ...}, "'img_size'"),
        ({'num_classes': 4}, 'class_names must have'),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], words: str, checkpoint: Path, tmp_path: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    hparams = content['hyper_parameters'] | change
    content['hyper_parameters'] = {k: v for k, v in hparams.items() if v is not ...}
    path = tmp_path / 'y.ckpt'
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_scene_predictor(path)
    assert 'does not fit this version' in str(caught.value)


def test_a_checkpoint_with_log_scaling_is_loaded(tmp_path: Path) -> None:
    task = tiny_task(scaling={'method': 'log'})
    predictor = load_scene_predictor(save_task(task, tmp_path / 'log.ckpt'))
    image = torch.full((1, 13, 32, 32), 1500.0)
    assert predictor.scaling(image).equal(task.scaling(image))


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite_are_no_data(value: float) -> None:
    """Also where images are given to the task itself."""
    task = decisive(tiny_task()).eval()
    image = 1000 + 1000 * torch.rand(2, 13, 32, 32)
    broken = image.clone()
    broken[0, 3, 5, 6] = value
    mean = broken[0].flatten(1)[:, torch.arange(1024) != 5 * 32 + 6].mean(dim=1)
    broken[0, :, 5, 6] = torch.where(torch.arange(13) == 3, value, image[0, :, 5, 6])
    image[0, :, 5, 6] = mean
    with torch.no_grad():
        torch.testing.assert_close(task(broken), task(image))
        found = task.predict_images({'image': broken})
        assert all(each.isfinite().all() for each in found.values())
        torch.testing.assert_close(
            found['probs'], task.predict_images({'image': image})['probs']
        )
    maps = task.attention_maps(broken[0])
    assert isinstance(maps, torch.Tensor)
    torch.testing.assert_close(maps, task.attention_maps(image[0]))
