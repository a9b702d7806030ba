"""Groups of options, and the names that options had in version 0.1."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tests.conftest import save_task, tiny_task
from torchgeo_ctm.errors import OptionWarning, SettingError
from torchgeo_ctm.trainers import ClassTokenMaskingTask, MapOptions, load_task
from torchgeo_ctm.trainers.options import GROUPS, MOVED, FormerOptions, regrouped

TINY: dict[str, Any] = {
    'model': 'ctm_vit_tiny_patch8_224',
    'img_size': 32,
    'num_classes': 3,
    'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 2},
}
#: A value of each option that is not its default.
FORMER: dict[str, Any] = {
    'class_values': [1, 2, 4],
    'class_weights': [1.0, 2.0, 0.5],
    'label_min_share': 0.2,
    'patch_loss_weight': 0.5,
    'patch_pooling': 'share',
    'patch_pooling_warmup': 0.3,
    'self_training': {'weight': 3.0},
    'diversity_weight': 0.1,
    'diversity_form': 'reference',
    'pruning': {'penalty': 0.1},
    'map_source': 'attention',
    'map_rule': 'argmax',
    'map_labels': 'true',
    'threshold': 0.3,
    'presence': 'probability',
    'refinement': 'soft_assignment',
    'refinement_options': {'rounds': 2},
    'ensemble': 'dihedral',
    'calibration': 'odds',
    'optimizer': 'sgd',
    'weight_decay': 0.1,
    'layer_decay': 0.8,
    'schedule': 'cosine',
    'warmup': 0.2,
    'grad_checkpointing': True,
    'compile_blocks': False,
    'mask_seed': 7,
}


def parsed(init_args: dict[str, Any]) -> Any:
    """Return the task that ``torchgeo`` makes of a configuration's ``init_args``."""
    parser: Any = LightningArgumentParser()
    parser.add_lightning_class_args(pl.LightningModule, 'model', subclass_mode=True)
    path = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
    section = {'class_path': path, 'init_args': init_args}
    config = parser.parse_object({'model': section})
    return parser.instantiate(config)['model']


def test_every_former_option_has_a_place_of_its_own() -> None:
    assert FORMER.keys() == MOVED.keys() == FormerOptions.__annotations__.keys()
    assert len(set(MOVED.values())) == len(MOVED)
    for group, name in MOVED.values():
        assert name in GROUPS[group].__annotations__


def test_the_task_has_few_arguments() -> None:
    assert len(inspect.signature(ClassTokenMaskingTask).parameters) <= 20


def test_former_options_of_a_configuration_still_work() -> None:
    with pytest.warns(OptionWarning) as caught:
        task = parsed(TINY | FORMER)
    told = ' '.join(str(warning.message) for warning in caught)
    for name, (group, option) in MOVED.items():
        assert f'{name} is now {group}.{option}' in told
        assert getattr(getattr(task.options, group), option) == FORMER[name]
    assert not MOVED.keys() & task.hparams.keys()
    with warnings.catch_warnings():
        warnings.simplefilter('error', OptionWarning)
        again = parsed(TINY | regrouped(FORMER))
    assert again.options == task.options


def test_groups_are_dataclasses_or_mappings() -> None:
    options = {'source': 'attention', 'threshold': 0.3}
    first = tiny_task(maps=options)
    second = ClassTokenMaskingTask(**TINY, maps=MapOptions(**options))  # type: ignore[arg-type]
    third = parsed(TINY | {'maps': options})
    assert first.options == second.options == third.options
    assert tiny_task(maps=None).options.maps == MapOptions()


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'colour': 1}, TypeError, "unexpected argument 'colour'"),
        ({'map_sorce': 'fused'}, TypeError, "Did you mean 'map_source'"),
        (
            {'maps': {'sorce': 'fused'}},
            SettingError,
            "of maps, .*Did you mean 'source'",
        ),
        ({'maps': {'source': 'fuse'}}, SettingError, "maps.source 'fuse'.*'fused'"),
        ({'optimization': {'schedule': 1}}, SettingError, 'plateau, cosine'),
    ],
)
def test_unknown_options_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ClassTokenMaskingTask(**TINY | arguments)


def test_a_flat_checkpoint_loads_without_a_warning(tmp_path: Path) -> None:
    """As version 0.1 wrote it: options at the top level, no groups."""
    task = tiny_task(**FORMER | {'pruning': None})
    path = save_task(task, tmp_path / 'new.ckpt')
    content = torch.load(path, weights_only=True)
    flat = content['hyper_parameters']
    flat |= {name: flat[group][option] for name, (group, option) in MOVED.items()}
    for group in GROUPS:
        del flat[group]
    torch.save(content, tmp_path / 'flat.ckpt')
    with warnings.catch_warnings():
        warnings.simplefilter('error', OptionWarning)
        loaded = load_task(tmp_path / 'flat.ckpt')
    assert loaded.options == task.options
    assert dict(loaded.hparams) == dict(task.hparams)


def test_options_change_without_the_hyperparameters() -> None:
    task = tiny_task(patch_loss_weight=0.0, map_source='attention')
    before = dict(task.hparams)
    assert task.with_options(labels='true', rule='paint') is task
    assert task.decoder.options.rule == 'paint'
    assert dict(task.hparams) == before
    with pytest.raises(SettingError, match=r"Use maps\.source='attention'"):
        task.with_options(source='fused')
    assert task.decoder.options.source == 'attention'


@pytest.mark.filterwarnings('ignore')
def test_a_run_of_the_command_saves_groups(tmp_path: Path) -> None:
    """LightningCLI saves what a configuration says, which may have former names."""
    names = [f'--model.{k}={v}' for k, v in TINY.items() if k != 'model_options']
    cli = LightningCLI(
        ClassTokenMaskingTask,
        args=[
            *names,
            '--model.model_options={embed_dim: 16, depth: 1, num_heads: 2}',
            '--model.map_source=attention',
            '--model.maps.threshold=0.3',
        ],
        run=False,
        save_config_callback=None,
    )
    assert cli.model.hparams['maps']['source'] == 'attention'
    assert cli.model.hparams['maps']['threshold'] == 0.3
    loaded = load_task(save_task(cli.model, tmp_path / 'x.ckpt'))
    assert loaded.options == cli.model.options
