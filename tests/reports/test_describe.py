"""``torchgeo-ctm describe`` over data modules of every kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from tests.commands import Run, refused
from tests.conftest import WriteScene, scene_pixels
from tests.fakes.dfc2020 import write_dfc2020
from tests.fakes.holes import Holes, HolesDataModule, holes_config
from tests.fakes.label_files import SCENE, write_squares
from tests.fakes.torchgeo_configs import MAKERS, small_config
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import ImageLabel
from torchgeo_ctm.reports.describe import describe

TASK = 'torchgeo_ctm.trainers.ClassTokenMaskingTask'
SMALL = {'embed_dim': 16, 'depth': 1, 'num_heads': 2}


def write_config(path: Path, data: dict[str, Any], **model: Any) -> Path:
    options = {'img_size': 32, 'model_options': SMALL} | model
    content = {'model': {'class_path': TASK, 'init_args': options}, 'data': data}
    path.write_text(yaml.safe_dump(content))
    return path


class HalfLabels:
    """Class 0 in the west, class 1 in the east; nothing is known of class 2."""

    classes = ('Forest', 'Water', 'Urban')

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        east = grid.transform.c >= 500_000 + 640
        present = np.array([not east, east, 0], np.float32)
        return ImageLabel(present, np.array([True, True, False]))

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        return None


class PartLabels(HalfLabels):
    """Nothing is known of the south-eastern corner."""

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        transform = grid.transform
        corner = transform.c >= 500_000 + 960 and transform.f <= 4_200_000 - 960
        return None if corner else super().label(grid, tile, clear)


class Empty(Holes):
    """Two chips hold nothing but NaN or fill, three have no class."""

    def __init__(self, split: str = 'train', chips: int = 7, **_: Any) -> None:
        if split == 'test':
            raise ValueError('there is no test split')
        super().__init__(split, chips)
        self.image[3] = np.nan
        self.image[4] = 7
        self.label[4:] = 0


class EmptyDataModule(HolesDataModule):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset_class = Empty


class Mostly(Holes):
    """Water in all chips but a few."""

    def __init__(self, split: str = 'train', chips: int = 60, **_: Any) -> None:
        super().__init__(split, 60)
        self.label[:] = torch.tensor([0, 1, 0])
        self.label[[7, 33, 51]] = torch.tensor([1.0, 0, 0])
        self.label[[8, 9]] = torch.tensor([0, 0, 1.0])


class MostlyDataModule(HolesDataModule):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset_class = Mostly


def test_chips_of_rare_classes_are_plotted(tmp_path: Path) -> None:
    config = holes_config(tmp_path / 'c.yaml')
    content = yaml.safe_load(config.read_text())
    content['data']['class_path'] = 'tests.reports.test_describe.MostlyDataModule'
    config.write_text(yaml.safe_dump(content))
    examples = describe(config, progress=False).examples
    numbers = [chip.number for chip in examples]
    # the rest is evenly spread, and has Water
    assert numbers == [0, 6, 7, 8, 9, 12, 18, 24, 33, 51]
    limited = describe(config, limit=3, progress=False).examples
    assert [chip.number for chip in limited] == [0, 20, 40]


def facts(printed: str) -> dict[str, str]:
    """Return the named lines."""
    lines = [line.split('  ', 1) for line in printed.splitlines() if '  ' in line]
    return {name.strip(): value.strip() for name, value in lines}


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert len(image.convert('RGB').resize((40, 40)).getcolors(1600) or []) > 20
        return image.size


@pytest.mark.parametrize('name', MAKERS)
def test_torchgeos_own(run: Run, tmp_path: Path, name: str) -> None:
    config, out = small_config(name, tmp_path), tmp_path / 'p.png'
    status, printed, err = run('describe', '--config', config, '--output', out)
    assert status == 0, err
    found = facts(printed)
    model = yaml.safe_load(config.read_text())['model']['init_args']
    assert found['data set'] == name
    assert found['bands'] == f'{len(model["bands"])}: {", ".join(model["bands"])}'
    assert int(found['train chips']) >= 2
    assert int(found['val chips']) >= 1
    assert int(found['test chips']) >= 1
    crs = 'EPSG:3857' if name == 'l8biome' else 'unknown'
    assert found['CRS'] == f'{crs}: {found["train chips"]} chips'
    for class_name in model['class_names']:
        assert class_name in printed
    # masks take a second row below the images
    width, height = picture_size(out)
    assert (height > width / 3) == (name != 'bigearthnet')


def test_dfc2020(run: Run, tmp_path: Path) -> None:
    write_dfc2020(tmp_path / 'data')
    data = {
        'class_path': 'torchgeo_ctm.datamodules.DFC2020DataModule',
        'init_args': {'img_size': 32},
        'dict_kwargs': {'root': str(tmp_path / 'data')},
    }
    config = write_config(tmp_path / 'c.yaml', data)
    status, printed, err = run('describe', '--config', config)
    assert status == 0, err
    # the second tile carries no georeference
    assert 'EPSG:32632: 1 chips' in printed
    assert 'unknown: 1 chips' in printed
    assert facts(printed)['size'] == '13 bands, 32 × 32 px: 2 chips'
    status, printed, _ = run('describe', '--config', config, '--split', 'val')
    assert facts(printed)['read'] == '1 chips of the val split'


def test_arguments_override_the_configuration(run: Run, tmp_path: Path) -> None:
    write_dfc2020(tmp_path / 'data')
    data = {
        'class_path': 'torchgeo_ctm.datamodules.DFC2020DataModule',
        'init_args': {'img_size': 32},
    }
    config = write_config(tmp_path / 'c.yaml', data)
    root = ('--data.dict_kwargs.root', tmp_path / 'data')
    for command in ('describe', 'stats'):
        status, printed, err = run(
            command, '--config', config, *root, '--data.init_args.img_size=48',
            '--model.init_args.class_names=[A,B,C,D,E,F,G,H]',
        )  # fmt: skip
        assert status == 0, err
        assert command == 'stats' or facts(printed)['size'].startswith('13 bands, 48')
        assert 'Forest' not in printed
    wrong = run('describe', '--config', config, '--data.init_args.img_sizes', 48)
    refused(wrong, 'the data section of', 'img_sizes')


def test_synthetic(run: Run, tmp_path: Path) -> None:
    data = {
        'class_path': 'torchgeo_ctm.datamodules.SyntheticDataModule',
        'init_args': {'img_size': 32, 'batch_size': 4},
        'dict_kwargs': {
            'root': str(tmp_path / 'data'),
            'num_tiles': [12, 2, 2],
            'size': 32,
        },
    }
    config, out = write_config(tmp_path / 'c.yaml', data), tmp_path / 'p.png'
    status, printed, err = run('describe', '--config', config, '--output', out)
    assert status == 0, err
    assert facts(printed)['train chips'] == '12'
    first = picture_size(out)
    refused(run('describe', '--config', config, '--output', out), 'exists')
    few = ('describe', '--config', config, '--output', out, '--overwrite')
    status, printed, _ = run(*few, '--limit', 5)
    assert facts(printed)['read'] == '5 chips of the train split'
    assert picture_size(out)[1] < first[1]


def test_scenes_with_labels(run: Run, tmp_path: Path, write_scene: WriteScene) -> None:
    pixels = scene_pixels(128, 128)
    pixels[:, :32, :32] = 0
    scene = write_scene(pixels=pixels, nodata=0)
    data = {
        'class_path': 'torchgeo_ctm.datamodules.SceneDataModule',
        'init_args': {
            'scene': str(scene),
            'block_size': 64,
            'labels': {'class_path': 'tests.reports.test_describe.PartLabels'},
        },
    }
    config = write_config(
        tmp_path / 'c.yaml', data, num_classes=3, class_names=list(HalfLabels.classes)
    )
    out = tmp_path / 'p.png'
    status, printed, err = run('describe', '--config', config, '--output', out)
    assert status == 0, err
    assert 'Known in none' in err
    assert 'Urban' in err
    # every split is looked at, and each warning is shown once
    warned = [line for line in err.splitlines() if 'warning: ' in line]
    assert len(warned) == len(set(warned))
    assert sum('windows side by side have no label' in line for line in warned) == 1
    found = facts(printed)
    assert found['data set'] == f'1 scene: {scene.name}'
    assert 'of area' not in printed
    assert found['CRS'].startswith('EPSG:32630: ')
    chips = int(found['train chips'])
    assert 0 < chips < 16
    picture_size(out)
    status, printed, err = run('stats', '--config', config)
    assert status == 0, err
    assert f'{chips} of {chips} training chips' in printed


def test_windows_without_data_or_class_are_counted(run: Run, tmp_path: Path) -> None:
    config = holes_config(tmp_path / 'c.yaml')
    content = yaml.safe_load(config.read_text())
    content['data']['class_path'] = 'tests.reports.test_describe.EmptyDataModule'
    config.write_text(yaml.safe_dump(content))
    status, printed, err = run('describe', '--config', config, '--nodata', 7)
    assert status == 0, err
    assert facts(printed)['no data'] == '2 chips'
    assert '3 of 7 labeled chips have no class' in printed
    assert facts(printed)['test chips'].startswith('none: The test split of')


def test_mistakes_in_labels_are_one_line(
    run: Run, tmp_path: Path, write_scene: WriteScene
) -> None:
    squares = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'Wood|Watr')], SCENE)
    data = {
        'class_path': 'torchgeo_ctm.datamodules.SceneDataModule',
        'init_args': {
            'scene': str(write_scene()),
            'labels': {
                'class_path': 'torchgeo_ctm.labels.PolygonLabels',
                'init_args': {
                    'path': str(squares),
                    'field': 'class',
                    'classes': ['Wood', 'Water'],
                },
            },
        },
    }
    config = write_config(
        tmp_path / 'c.yaml', data, num_classes=2, class_names=['Wood', 'Water']
    )
    _, _, err = result = run('describe', '--config', config)
    refused(result)
    said = "field 'class', row 1: unknown class 'Watr', expected one of: Wood, Water."
    assert err == (f"torchgeo-ctm: {squares}, {said} Did you mean 'Water'?\n")
