"""One recommended setting: the defaults, the configuration of scenes, the benchmark."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.quality import SYNTHETIC
from benchmarks.real_scene_tokens import SETTINGS
from tests.conftest import tiny_task
from tests.fakes.chips import loader, trainer
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.options import (
    FORMER_DEFAULTS,
    GROUPS,
    regrouped,
    task_options,
    with_former_defaults,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
#: What is best on real ground (benchmarks/RESULTS.md), and no other default.
RECOMMENDED: dict[str, dict[str, Any]] = {
    'patches': {'head': 'local', 'pooling': 'share', 'share': 0.25, 'balance': 0.5},
    'maps': {
        'source': 'patches',
        'presence': 'all',
        'refinement': 'soft_assignment',
        'refinement_weight': 0.5,
    },
    'attention': {'distillation_weight': 1.0},
    'optimization': {'schedule': 'cosine'},
}
SHIPPED = sorted(path.stem for path in CONFIGS.glob('*.yaml'))


def options(arguments: dict[str, Any]) -> Any:
    """Return the options that arguments of the task stand for."""
    return task_options({name: arguments.get(name) for name in GROUPS}, {})


def test_the_defaults_are_the_recommended_setting() -> None:
    assert tiny_task().options == options(RECOMMENDED)
    assert {group: values.keys() for group, values in RECOMMENDED.items()} == {
        group: values.keys() for group, values in FORMER_DEFAULTS.items()
    }


def test_configuration_and_benchmark_have_the_recommended_setting() -> None:
    text = (CONFIGS / 'scene_training.yaml').read_text('utf-8')
    config = yaml.safe_load(text)['model']['init_args']
    assert options(config) == options({})
    for name in ('ours', 'ours, few'):
        arguments, _ = SETTINGS[name]
        assert options(arguments) == options({})
    assert arguments['model_options'] == config['model_options']


def test_the_synthetic_setting_is_that_of_the_rows_on_synthetic_tiles() -> None:
    text = (CONFIGS / 'synthetic.yaml').read_text('utf-8')
    config = yaml.safe_load(text)['model']['init_args']
    assert options(config) == options(regrouped(SYNTHETIC))


@pytest.mark.parametrize('name', SHIPPED)
def test_every_configuration_monitors_what_ranks_masks(name: str) -> None:
    """The second stage learns from masks, and the setting of scenes trains nothing."""
    config = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text('utf-8'))
    callbacks = config['trainer']['callbacks']
    monitored = [
        (callback['init_args']['monitor'], callback['init_args']['mode'])
        for callback in callbacks
        if callback['class_path'].endswith('ModelCheckpoint')
        and 'monitor' in callback['init_args']
    ]
    expected = {'segmentation': [('val_loss', 'min')], 'scene': []}
    assert monitored == expected.get(name, [('val_balanced_bce', 'min')])


class Worsening(pl.LightningModule):
    """A model whose monitored values are best in the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return (self.weight * batch[0]).sum()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        for name in ('val_balanced_bce', 'val_loss'):
            self.log(name, float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize('name', sorted({*SHIPPED} - {'scene'}))
def test_last_checkpoint_is_that_of_the_last_epoch(name: str, tmp_path: Path) -> None:
    config = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text('utf-8'))
    data = DataLoader(TensorDataset(torch.ones(2, 1)))
    resumed: dict[str, Any] = {}
    for epochs in (3, 5):
        callbacks = [
            ModelCheckpoint(**callback['init_args'])
            for callback in config['trainer']['callbacks']
            if callback['class_path'].endswith('ModelCheckpoint')
        ]
        run = trainer(
            tmp_path / str(epochs),
            max_epochs=epochs,
            callbacks=callbacks,
            enable_checkpointing=True,
        )
        run.fit(Worsening(), data, data, **resumed)
        [last] = (tmp_path / str(epochs)).rglob('last*.ckpt')
        saved = torch.load(last, weights_only=True)
        assert (saved['epoch'], saved['global_step']) == (epochs - 1, 2 * epochs)
        resumed = {'ckpt_path': last}
    assert [path.name for path in (tmp_path / '3').rglob('epoch=*.ckpt')] == [
        'epoch=0-step=2.ckpt'
    ]


@pytest.mark.parametrize('name', sorted({*SHIPPED} - {'segmentation', 'paper_dfc2020'}))
def test_configurations_repeat_no_default(name: str) -> None:
    config = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text('utf-8'))
    arguments = config['model'].get('init_args', {})
    for group, kind in GROUPS.items():
        for option in arguments.get(group, {}).keys() & RECOMMENDED.get(group, {}):
            assert arguments[group][option] != getattr(kind(), option)


def test_the_papers_configuration_keeps_nothing_of_the_recommended_setting() -> None:
    """But the schedule; pooling and weights of what it does not have are of no account."""
    config = yaml.safe_load((CONFIGS / 'paper_dfc2020.yaml').read_text('utf-8'))
    found = options(config['model']['init_args'])
    assert found.patches.loss_weight == found.patches.balance == 0
    assert found.attention.distillation_weight == 0
    assert (found.maps.source, found.maps.rule) == ('attention', 'paint')
    assert (found.maps.presence, found.maps.refinement) == ('threshold', None)


@pytest.mark.parametrize('keys', [('image', 'label'), ('image', 'mask')])
@pytest.mark.parametrize(
    'arguments',
    [
        {},
        {'task': 'multiclass'},
        {'patches': {'head': 'tokens'}},
        {'patches': {'pooling': 'logsumexp'}},
    ],
)
def test_it_trains_and_is_monitored(
    tmp_path: Path, arguments: dict[str, Any], keys: tuple[str, ...]
) -> None:
    task, run = tiny_task(**arguments), trainer(tmp_path)
    run.fit(task, loader(*keys), loader(*keys))
    assert torch.isfinite(run.callback_metrics['train_loss'])
    assert torch.isfinite(run.callback_metrics['val_balanced_bce'])


def test_it_trains_where_every_chip_has_one_and_the_same_class(tmp_path: Path) -> None:
    task, run = tiny_task(), trainer(tmp_path)
    label = torch.tensor([1.0, 0, 0])
    chips = loader('image', length=8).dataset
    alike: Any = [chips[i] | {'label': label} for i in range(8)]
    alike = DataLoader(alike, 4)
    run.fit(task, alike, alike)
    assert torch.isfinite(run.callback_metrics['val_balanced_bce'])


def test_training_without_an_end_is_refused_in_one_line(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=-1)
    with pytest.raises(SettingError, match=r'Set max_epochs or max_steps\.$'):
        run.fit(tiny_task(), loader('image', 'label'))
    plateau = tiny_task(optimization={'schedule': 'plateau'})
    run = trainer(tmp_path, max_epochs=-1, max_time={'seconds': 1})
    run.fit(plateau, loader('image', 'label'), loader('image', 'label'))


@pytest.mark.parametrize(
    'given, words',
    [
        ({'num_classes': 1}, "add one for all the rest, such as 'background'"),
        ({'patches': {'loss_weight': 0}}, "Use maps.source='attention'"),
        (
            {'patches': {'loss_weight': 0}, 'maps': {'source': 'attention'}},
            'Set attention.distillation_weight=0',
        ),
        ({'maps': {'rule': 'paint'}}, "Use maps.presence='threshold'"),
        (
            {'maps': {'rule': 'paint', 'presence': 'threshold'}},
            "maps.refinement='soft_assignment' requires maps.rule='argmax'",
        ),
        (
            {
                'model_options': {'embed_dim': 16, 'depth': 2, 'num_heads': 2}
                | {'patch_activation': 'softmax'}
            },
            'Use patches: {compete: true}',
        ),
        (
            {
                'model_options': {'embed_dim': 16, 'num_heads': 2, 'patch_size': 6},
                'img_size': 30,
            },
            'multiple of 4',
        ),
    ],
)
def test_what_does_not_go_with_the_defaults_says_what_does(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        tiny_task(**given)
    assert '\n' not in str(caught.value)


def test_version_0_1_keeps_its_defaults() -> None:
    """A former name says that a configuration, or a checkpoint, is of version 0.1."""
    with pytest.warns(match='have the defaults of 0.1'):
        former = ClassTokenMaskingTask(
            model='ctm_vit_tiny_patch8_224',
            img_size=32,
            model_options={'embed_dim': 16, 'depth': 1, 'num_heads': 2},
            threshold=0.3,
        )
    expected = options(
        FORMER_DEFAULTS | {'maps': FORMER_DEFAULTS['maps'] | {'threshold': 0.3}}
    )
    assert former.options == expected
    given = {'patches': {'share': 0.1}}
    assert with_former_defaults(given)['patches']['share'] == 0.1
