"""Mistakes in a configuration: one short line each, through jsonargparse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lightning.pytorch import LightningDataModule

from tests.fakes.label_files import (
    SCENE,
    write_class_raster,
    write_squares,
    write_table,
)
from torchgeo_ctm.configuration import (
    Overridden,
    check_rest,
    first_cause,
    overridden_section,
    read_data,
    read_task,
    read_yaml,
    write_content,
)
from torchgeo_ctm.errors import CTMError, DataError, LabelError
from torchgeo_ctm.trainers import ClassTokenMaskingTask

LABELS = 'torchgeo_ctm.labels.'
CLASSES = ['Forest', 'Water']

Labels = tuple[str, dict[str, Any]]


def polygons(folder: Path) -> Labels:
    path = write_squares(folder / 'a.gpkg', [((0, 0, 9, 9), 'Forrest')], SCENE)
    return 'PolygonLabels', {'path': str(path), 'field': 'class'}


def points(folder: Path) -> Labels:
    rows = [(12.1, 47.1, 'Forrest')]
    path = write_table(folder / 'a.csv', ['lon', 'lat', 'class'], rows)
    return 'PointLabels', {'path': str(path), 'field': 'class'}


def table(folder: Path) -> Labels:
    path = write_table(folder / 'a.csv', ['tile', 'class'], [('first', 'Forrest')])
    fields = {'id_field': 'tile', 'field': 'class'}
    return 'TableLabels', {'path': str(path)} | fields


def raster(folder: Path) -> Labels:
    path = write_class_raster(folder / 'a.tif', np.ones((4, 4), np.uint8))
    return 'RasterLabels', {'paths': str(path), 'class_map': {1: 'Forrest'}}


def data_section(name: str, options: dict[str, Any]) -> dict[str, Any]:
    source = {'class_path': f'{LABELS}{name}', 'init_args': options}
    return {
        'class_path': 'torchgeo_ctm.datamodules.SceneDataModule',
        'init_args': {'scene': 'first.tif', 'labels': source},
    }


def write(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.mark.parametrize('make', [polygons, points, table, raster])
def test_a_label_sources_own_words_are_the_message(
    tmp_path: Path, make: Callable[[Path], Labels]
) -> None:
    name, options = make(tmp_path)
    section = data_section(name, options | {'classes': CLASSES})
    config = write(tmp_path / 'c.yaml', data=section)
    data: Any = read_data(config)
    # setup creates the source: what torchgeo fit creates earlier, jsonargparse wraps
    with pytest.raises(LabelError) as caught:
        data.labels()
    said = str(caught.value)
    assert said.endswith(
        "unknown class 'Forrest', expected one of: Forest, Water. Did you mean 'Forest'?"
    )
    assert len(said) < 300


@pytest.mark.parametrize(
    ('data', 'labels', 'message'),
    [
        (
            {'batch_sizes': 4},
            {},
            "SceneDataModule has no key 'batch_sizes'. Did you mean 'batch_size'?",
        ),
        ({'batch_size': 'many'}, {}, "batch_size: expected an integer, got 'many'."),
        (
            {},
            {'fieldd': 'a'},
            "PolygonLabels has no key 'fieldd'. Did you mean 'field'?",
        ),
        ({}, {'min_share': 'x'}, "min_share: expected a number, got 'x'."),
    ],
)
def test_a_wrong_option_is_named_alone(
    tmp_path: Path, data: dict[str, Any], labels: dict[str, Any], message: str
) -> None:
    section = data_section('PolygonLabels', {'path': 'a.gpkg', 'field': 'b'} | labels)
    section['init_args'] |= data
    config = write(tmp_path / 'c.yaml', data=section)
    with pytest.raises(DataError) as caught:
        read_data(config)
    said = str(caught.value)
    assert said.startswith(f'Cannot use the data section of {config}: ')
    assert said.endswith(message)
    assert len(said) < 300


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'self_training': {'wieght': 3}},
            '"self_training": Unexpected keys: {\'wieght\'}',
        ),
        (
            {'patch_pooling': 'shares'},
            (
                'patch_pooling: expected one of: logsumexp, mean, rank, share, got '
                "'shares'. Did you mean 'share'?"
            ),
        ),
    ],
)
def test_a_wrong_choice_of_the_model_is_named_alone(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    kind = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
    section = {'class_path': kind, 'init_args': options}
    config = write(tmp_path / 'c.yaml', model=section)
    with pytest.raises(DataError) as caught:
        read_task(config)
    said = str(caught.value)
    assert said.startswith(f'Cannot use the model section of {config}: ')
    assert said.endswith(message)
    assert len(said) < 300


def test_a_wrong_weight_is_named_without_a_download(tmp_path: Path) -> None:
    kind = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
    names = ['ViTSmall16_Weights.SENTINEL2_ALL_DINO', 'ViTSmall16_Weights.SENTINEL_MAE']
    section: dict[str, Any] = {'class_path': kind, 'init_args': {'weights': names[:1]}}
    read_task(write(tmp_path / 'c.yaml', model=section))
    section['init_args']['weights'] = names
    with pytest.raises(
        CTMError, match=f"d.yaml: weights='{names[1]}' is neither a file"
    ):
        read_task(write(tmp_path / 'd.yaml', model=section))


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('labels.PolygonLabel', "has no 'PolygonLabel'. Did you mean 'PolygonLabels'?"),
        (
            'datamodules.SceneDataModule',
            'SceneDataModule does not implement protocol LabelSource',
        ),
    ],
)
def test_a_wrong_class_is_named_alone(tmp_path: Path, kind: str, message: str) -> None:
    section = data_section('PolygonLabels', {'path': 'a.gpkg', 'field': 'b'})
    section['init_args']['labels']['class_path'] = f'torchgeo_ctm.{kind}'
    config = write(tmp_path / 'c.yaml', data=section)
    with pytest.raises(DataError) as caught:
        read_data(config)
    assert str(caught.value).endswith(message)
    assert len(str(caught.value)) < 250


def test_missing_options_and_other_sections(tmp_path: Path) -> None:
    section = data_section('PolygonLabels', {'path': 'a.gpkg'})
    model = {
        'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
        'init_args': {'num_clases': 3},
    }
    config = write(tmp_path / 'c.yaml', data=section, model=model)
    with pytest.raises(DataError, match=r"PolygonLabels': .* required: field"):
        read_data(config)
    said = "the model section of .*ClassTokenMaskingTask has no key 'num_clases'"
    with pytest.raises(DataError, match=said):
        read_task(config)


@pytest.mark.parametrize(
    ('rest', 'message'),
    [
        ({'trainr': {}}, "has an unknown key 'trainr', .* Did you mean 'trainer'?"),
        ({'trainer': {'max_epoch': 3}}, "trainer has no key 'max_epoch'. Did you mean"),
        (
            {'trainer': {'max_epochs': 'many'}},
            'trainer.max_epochs: expected an integer',
        ),
        (
            {
                'trainer': {
                    'logger': {'class_path': 'lightning.pytorch.loggers.CSVLoger'}
                }
            },
            "loggers has no 'CSVLoger'. Did you mean 'CSVLogger'?",
        ),
    ],
)
def test_mistakes_beside_model_and_data_are_told(
    tmp_path: Path, rest: dict[str, Any], message: str
) -> None:
    path = tmp_path / 'c.yaml'
    path.write_text(yaml.safe_dump(rest))
    with pytest.raises(DataError, match=message):
        check_rest(path)


@pytest.mark.parametrize('path', sorted(Path('configs').glob('*.yaml')), ids=str)
def test_our_configurations_have_known_keys(path: Path) -> None:
    check_rest(path)


def test_a_misspelt_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    config = write(tmp_path / 'train.yaml', data={})
    with pytest.raises(DataError, match=f"does not exist, .* Did you mean '{config}'"):
        read_data(tmp_path / 'tarin.yaml')


def test_the_first_cause_of_a_long_message() -> None:
    assert first_cause('something\n  deeper\nelse') == 'deeper'
    assert first_cause('Parser key "a":\n  Expected an int') == (
        'Parser key "a": Expected an int'
    )
    assert 250 < len(first_cause('word ' * 1000)) <= 300


def test_arguments_override_a_configuration(tmp_path: Path) -> None:
    """As on torchgeo's command line, each for its own section."""
    config = write(
        tmp_path / 'c.yaml',
        data={
            'class_path': 'torchgeo_ctm.datamodules.DFC2020DataModule',
            'init_args': {'batch_size': 2, 'img_size': 64},
        },
        model={
            'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
            'init_args': {
                'model': 'ctm_vit_tiny_patch8_224',
                'img_size': 32,
                'model_options': {'embed_dim': 16, 'depth': 2, 'num_heads': 2},
            },
        },
    )
    overridden = Overridden(
        str(config),
        [
            '--data.init_args.batch_size=3',
            f'--data.dict_kwargs.root={tmp_path}',
            '--model.init_args.num_classes=4',
        ],
    )
    data: Any = read_data(overridden)
    assert (data.batch_size, data.kwargs['root']) == (3, str(tmp_path))
    assert read_task(overridden).hparams['num_classes'] == 4
    wrong = Overridden(str(config), ['--data.init_args.batch_sizes=3'])
    with pytest.raises(DataError, match=r'the data section of .*batch_sizes'):
        read_data(wrong)


@pytest.mark.filterwarnings('error::DeprecationWarning')
def test_no_function_is_used_that_jsonargparse_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('JSONARGPARSE_DEPRECATION_WARNINGS', 'all')
    data = {'class_path': 'torchgeo_ctm.datamodules.SyntheticDataModule'}
    read_data(write(tmp_path / 'c.yaml', data=data))


def test_names_are_written_in_ascii(tmp_path: Path) -> None:
    # torchgeo fit opens a configuration in the encoding of the system
    path = tmp_path / 'c.yaml'
    write_content({'class_names': ['Gewässer', '水']}, path)
    assert path.read_bytes().isascii()
    assert read_yaml(path, 'names') == {'class_names': ['Gewässer', '水']}


OVERRIDES: list[tuple[list[str], dict[str, Any]]] = [
    (['--data.batch_size=8'], {'batch_size': 8}),
    # the default of the class, which is not that of the file
    (['--data.init_args.batch_size=32'], {'batch_size': 32}),
    (["--data.scene=['c.tif', 'd.tif']"], {'scene': ['c.tif', 'd.tif']}),
    (['--data.scene=c.tif'], {'scene': 'c.tif'}),
    (['--data.shares=[0.5, 0.3, 0.2]'], {'shares': [0.5, 0.3, 0.2]}),
]


@pytest.mark.parametrize(('given', 'changes'), OVERRIDES)
def test_a_section_is_written_as_in_the_file_but_for_overrides(
    tmp_path: Path, given: list[str], changes: dict[str, Any]
) -> None:
    section = data_section(*polygons(tmp_path))
    section['init_args'] |= {'scene': ['a.tif', 'b.tif'], 'batch_size': 4}
    path = tmp_path / 'c.yaml'
    write_content({'data': section}, path)
    found = overridden_section(
        Overridden(str(path), given), 'data', LightningDataModule
    )
    section['init_args'] |= changes
    assert found == section
    # what the file lacks may be an override
    del section['init_args']['scene']
    write_content({'data': section}, path)
    given = [*given, "--data.scene=['c.tif', 'd.tif']"]
    found = overridden_section(
        Overridden(str(path), given), 'data', LightningDataModule
    )
    scenes = {'scene': ['c.tif', 'd.tif']}
    arguments = {'batch_size': 4} | changes | scenes
    assert {key: found['init_args'][key] for key in arguments} == arguments


def test_groups_and_other_classes_as_overrides(tmp_path: Path) -> None:
    path = tmp_path / 'c.yaml'
    arguments = {'num_classes': 2, 'model_options': {'depth': 2, 'num_heads': 4}}
    name = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
    model = {'class_path': name, 'init_args': arguments}
    write_content({'model': model, 'data': data_section(*polygons(tmp_path))}, path)

    def changed(*given: str) -> dict[str, Any]:
        config = Overridden(str(path), given)
        if given[0].startswith('--model'):
            section = overridden_section(config, 'model', ClassTokenMaskingTask)
        else:
            section = overridden_section(config, 'data', LightningDataModule)
        return dict(section['init_args'])

    assert changed('--model.patches.share=0.5') == arguments | {
        'patches': {'share': 0.5}
    }
    assert changed('--model.model_options={depth: 3}') == arguments | {
        'model_options': {'depth': 3}
    }
    labels = changed(
        f'--data.labels={LABELS}PointLabels',
        '--data.labels.path=p.csv',
        '--data.labels.field=kind',
    )['labels']
    assert labels['class_path'] == f'{LABELS}PointLabels'
    assert labels['init_args']['path'] == 'p.csv'
    assert labels['init_args']['field'] == 'kind'
