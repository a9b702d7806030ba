"""``torchgeo-ctm choose``: which setting has the best masks, by held-out labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.commands import Run, TorchGeoMain, refused
from tests.fakes.land_cover import BANDS, CLASSES, write_land_cover, write_squares
from torchgeo_ctm.choose import SETTINGS, choose, read_settings
from torchgeo_ctm.configuration import build_task, read_data, read_task
from torchgeo_ctm.errors import LabelWarning, SettingError
from torchgeo_ctm.reports.choice import Choice
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.held_out import HeldOut

SIDE = 32
WARNED = 'ignore::torchgeo_ctm.errors.LabelWarning'
MakeConfig = Callable[..., Path]


@pytest.fixture(scope='session')
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 256 px, and tags of its squares."""
    folder = tmp_path_factory.mktemp('ground')
    scene = write_land_cover(folder, 'scene', 32, 0, size=256)
    write_squares(folder / 'squares.gpkg', [scene], SIDE, 8)
    return folder


@pytest.fixture
def make_config(ground: Path, tmp_path: Path) -> MakeConfig:
    """Write a configuration with a small network; other arguments of task and data."""

    def make(model: dict[str, Any] | None = None, **data: Any) -> Path:
        labels = {
            'path': str(ground / 'squares.gpkg'),
            'field': 'tags',
            'classes': CLASSES,
            'min_share': 0.6,
            'min_coverage': 0.6,
        }
        task = {
            'img_size': SIDE,
            'in_channels': len(BANDS),
            'bands': BANDS,
            'num_classes': len(CLASSES),
            'class_names': CLASSES,
            'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 1},
            'maps': {'source': 'patches', 'presence': 'all'},
            'patches': {'head': 'local'},
        }
        scene = {
            'scene': str(ground / 'scene.tif'),
            'batch_size': 8,
            'num_workers': 0,
            'block_size': 2 * SIDE,
            'shares': [0.5, 0.4, 0.1],
            'labels': {
                'class_path': 'torchgeo_ctm.labels.PolygonLabels',
                'init_args': labels,
            },
        }
        content = {
            'seed_everything': 0,
            'model': {
                'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
                'init_args': task | (model or {}),
            },
            'data': {
                'class_path': 'torchgeo_ctm.datamodules.SceneDataModule',
                'init_args': scene | data,
            },
        }
        path = tmp_path / 'c.yaml'
        path.write_text(yaml.safe_dump(_plain(content)))
        return path

    return make


def _plain(value: Any) -> Any:
    """Return nested mappings with lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [*map(_plain, value)] if isinstance(value, list | tuple) else value


@pytest.mark.filterwarnings(WARNED)
def test_the_command_compares_and_writes_what_to_train(
    run: Run, torchgeo_main: TorchGeoMain, make_config: MakeConfig, tmp_path: Path
) -> None:
    config, out = make_config(), tmp_path / 'best.yaml'
    before = sorted(tmp_path.iterdir())
    call = ('choose', '--config', config, '--steps', '1', '--accelerator', 'cpu')
    status, printed, err = run(*call, '--output', out, '--model.lr', '0.002')
    assert status == 0, err
    lines = printed.splitlines()
    means = {name: float(_row(lines, name)[-1]) for name in SETTINGS}
    best = min(means, key=lambda name: means[name])
    assert f'{best!r} is the best in ' in printed
    # a scene this small holds out too few labels to choose by
    assert 'That is not sure: fewer than 5 held-out presences of ' in printed
    best = 'few labels'
    assert f'Take {best!r}' in printed
    assert 'share=0.5 balance=0.5' in printed
    # the configuration names the setting and the override, and nothing else is left
    assert sorted(tmp_path.iterdir()) == sorted([*before, out])
    task = read_task(out)
    for name, value in SETTINGS[best]['patches'].items():
        assert getattr(task.options.patches, name) == value
    assert (task.hparams['lr'], task.options.patches.head) == (0.002, 'local')
    data: Any = read_data(out)
    assert data.labels().classes == CLASSES
    assert out.read_text().startswith('# ')
    trainer = ('--trainer.fast_dev_run=1', '--trainer.accelerator=cpu')
    torchgeo_main('fit', '--config', out, *trainer)
    # an existing file stays
    refused(run(*call, '--output', out), 'best.yaml', 'already exists', '--overwrite')


def _row(lines: list[str], name: str) -> list[str]:
    """Return the words of a setting's row."""
    [row] = [line for line in lines if line.startswith(f'{name}  ')]
    return row.split()


@pytest.mark.filterwarnings(WARNED)
def test_the_criterion_is_the_one_that_training_logs(make_config: MakeConfig) -> None:
    from torchgeo_ctm.prediction import build_trainer

    config = make_config()
    trained: dict[str, ClassTokenMaskingTask] = {}
    choice = choose(
        lambda setting: build_task(config, setting),
        lambda seed: read_data(config, seed),
        {'narrow': {'patches': {'pooling': 'share', 'share': 0.1}}, 'as it is': {}},
        seeds=[3],
        steps=2,
        accelerator='cpu',
        progress=False,
        on_trained=lambda name, _, task: trained.setdefault(name, task),
    )
    for name, task in trained.items():
        trainer = build_trainer('cpu', enable_progress_bar=False)
        [logged] = trainer.validate(task, read_data(config, 3), verbose=False)
        assert choice.mean(name) == pytest.approx(logged['val_balanced_bce'], rel=1e-5)
    assert trained['narrow'].options.patches.share == 0.1
    assert trained['as it is'].options.patches.share == 0.25


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ('{a: {patches: {shar: 0.5}}, b: {}}', ("Unknown option 'shar'", "'share'?")),
        (
            '{a: {patches: {share: 2.0}}, b: {}}',
            ("Setting 'a'", 'patches.share must be above 0', 'got 2.0'),
        ),
        ('{a: {pathces: {share: 0.5}}, b: {}}', ("Setting 'a'", "'patches'?")),
        (
            '{a: {patches: {share: many}}, b: {}}',
            ("Setting 'a'", 'patches.share', 'number'),
        ),
        ('{a: {}}', ('2 settings or more', 'got 1')),
        ('{a: 0.5, b: {}}', ("Setting 'a'", '0.5', 'expected arguments of the task')),
        ('[a, b]', ('settings.yaml is no mapping',)),
        ('a: [', ('Cannot read', 'settings.yaml as YAML')),
    ],
)
def test_settings_that_cannot_be_used(
    run: Run,
    make_config: MakeConfig,
    tmp_path: Path,
    settings: str,
    words: tuple[str, ...],
) -> None:
    path = tmp_path / 'settings.yaml'
    path.write_text(settings)
    out = tmp_path / 'best.yaml'
    call = ('choose', '--config', make_config(), '--settings', path, '--output', out)
    refused(run(*call, '--accelerator', 'cpu', '--steps', '1'), *words)
    assert not out.exists()


def test_inputs_that_cannot_be_used(
    run: Run, make_config: MakeConfig, tmp_path: Path
) -> None:
    def call(config: Path, *arguments: object) -> tuple[int, str, str]:
        return run('choose', '--config', config, '--accelerator', 'cpu', *arguments)

    config = make_config()
    refused(call(tmp_path / 'cc.yaml'), 'cc.yaml does not exist', "c.yaml'?")
    refused(call(config, '--settings', 'none.yaml'), 'none.yaml does not exist')
    refused(call(config, '--output', tmp_path / 'best.yml'), "'best.yaml'?")
    refused(call(config, '--output', config, '--overwrite'), 'is the input itself')
    for seeds in ('a', '0,', '-1', '0,0'):
        refused(call(config, f'--seeds={seeds}'), 'seeds', seeds.strip('0,'))
    refused(call(config, '--steps', 0), 'steps must be 1 or more, got 0')
    refused(call(make_config(shares=[0.8, 0, 0.2])), 'validation split', 'shares')
    text = config.read_text()
    config.write_text(
        text.replace('torchgeo_ctm.trainers.Class', 'torchgeo.trainers.Class')
    )
    refused(call(config), 'ClassTokenMaskingTask')


def test_classes_that_held_out_labels_lack_are_named(make_config: MakeConfig) -> None:
    config = make_config()
    data: Any = read_data(config)
    with pytest.warns(LabelWarning) as warned:
        choice = choose(
            lambda setting: build_task(config, setting),
            lambda _: data,
            {'a': {}, 'b': {}},
            steps=1,
            accelerator='cpu',
            progress=False,
        )
    # one setting twice: a seed decides everything else
    assert choice.mean('a') == choice.mean('b')
    presence = np.array([label.present for _, _, label in data.val_dataset.windows])
    few = [
        f'{name} ({count})'
        for name, count in zip(CLASSES, (presence == 1).sum(0), strict=True)
        if count < 5
    ]
    assert few
    said = [str(each.message) for each in warned if 'presences' in str(each.message)]
    assert len(said) == 1
    assert all(text in said[0] for text in few)


def results(*losses: list[float]) -> dict[str, list[HeldOut]]:
    """One result a setting: the loss of a block's presence of the only class."""
    counts = torch.tensor([[1.0], [0.0]]).double()
    return {
        str(number): [
            HeldOut(
                torch.tensor(each).double()[:, None, None] * counts,
                counts.repeat(len(each), 1, 1),
                len(each),
            )
        ]
        for number, each in enumerate(losses)
    }


def choice_of(*losses: list[float]) -> Choice:
    found = results(*losses)
    return Choice({name: {} for name in found}, [0], found, ['Water'])


def test_a_choice_is_as_sure_as_its_blocks_agree() -> None:
    everywhere = choice_of([2.0] * 8, [1.0] * 8)
    assert everywhere.best == '1'
    assert everywhere.agreement() == {'0': 0.0, '1': 1.0}
    assert len(everywhere.report()) == 6
    assert everywhere.report()[-1] == "Take '1'."
    # better in one block alone: lost wherever that block is not drawn, (7/8)^8
    once = choice_of([1.0] * 8, [1.0] * 7 + [0.0])
    assert once.best == '1'
    assert once.agreement()['1'] == pytest.approx(1 - (7 / 8) ** 8, abs=0.05)
    assert "That is not sure: '0' is the best in" in once.report()[-2]


def test_seeds_that_disagree_make_a_choice_less_sure() -> None:
    one, other = results([1.0], [2.0]), results([3.0], [2.5])
    found = {name: [*one[name], *other[name]] for name in one}
    choice = Choice({name: {} for name in found}, [0, 1], found, ['Water'])
    # 1 or 3 against 2 or 2.5: the mean of two draws is the lower one in 7 of 16
    assert choice.mean('0') == pytest.approx(2.0)
    assert choice.best == '0'
    assert 0.3 < choice.agreement()['0'] < 0.8


@pytest.mark.parametrize(('blocks', 'taken'), [(4, 'few labels'), (8, 'other')])
def test_few_held_out_labels_choose_nothing(blocks: int, taken: str) -> None:
    lost, won = results([2.0] * blocks, [1.0] * blocks).values()
    found = {'few labels': lost, 'other': won}
    choice = Choice({name: {} for name in found}, [0], found, ['Water'])
    assert (choice.best, choice.taken) == ('other', taken)
    assert choice.thin == (['Water'] if blocks == 4 else [])
    assert ('fewer than 5 held-out presences of Water' in choice.report()[-2]) == (
        blocks == 4
    )


@pytest.mark.parametrize('absent', [0, 1])
def test_a_class_in_every_label_decides_without_the_criterion(absent: int) -> None:
    lost, won = results([2.0] * 20, [1.0] * 20).values()
    for [each] in (lost, won):
        each.counts[0, 1, 0] = absent
    found = {'class always present': lost, 'other': won}
    choice = Choice({name: {} for name in found}, [0], found, ['Land'])
    assert choice.best == 'other'
    assert choice.always == ([] if absent else ['Land'])
    assert choice.taken == ('other' if absent else 'class always present')
    report = ' '.join(choice.report())
    assert ('Land in every held-out label' in report) != absent


def test_a_class_that_training_knows_to_be_absent_is_compared() -> None:
    """Held-out ground may be all sea, where water is in every label."""
    lost, won = results([2.0] * 20, [1.0] * 20).values()
    found = {
        'class always present': [
            each._replace(absences=torch.ones(1)) for each in lost
        ],
        'other': [each._replace(absences=torch.ones(1)) for each in won],
    }
    choice = Choice({name: {} for name in found}, [0], found, ['Water'])
    assert (choice.always, choice.everywhere) == ([], ['Water'])
    assert choice.taken == 'other'
    assert 'Water in every held-out label' in ' '.join(choice.report())


def test_an_unknown_device_is_named(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(SettingError, match="Did you mean 'cpu'"):
        choose(
            lambda setting: build_task(config, setting),
            lambda seed: read_data(config, seed),
            accelerator='cpuu',
        )


def test_a_setting_without_arguments_is_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / 'settings.yaml'
    path.write_text('mine:\nother: {lr: 0.1}\n')
    assert read_settings(path) == {'mine': {}, 'other': {'lr': 0.1}}
