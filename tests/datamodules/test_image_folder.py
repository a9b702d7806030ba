"""Chips of images in folders, and their configurations through TorchGeo's command."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from tests.commands import TorchGeoMain
from tests.conftest import tiny_task
from tests.fakes.image_folders import (
    paint,
    write_ade20k,
    write_coco,
    write_endotect,
    write_image_folder,
    write_voc2012,
)
from torchgeo_ctm.datamodules import (
    ADE20KDataModule,
    ChipDataModule,
    COCODataModule,
    EndoTectDataModule,
    ImageFolderDataModule,
    VOC2012DataModule,
)
from torchgeo_ctm.errors import LabelWarning, SettingError
from torchgeo_ctm.prediction import pseudo_masks
from torchgeo_ctm.trainers import load_task

CONFIGS = Path(__file__).parents[2] / 'configs'

TINY = '--model.init_args.model_options={embed_dim: 16, depth: 2, num_heads: 2}'


def folder(root: Path, **more: Any) -> ImageFolderDataModule:
    options: dict[str, Any] = {
        'batch_size': 2,
        'img_size': 32,
        'classes': ['land', 'water'],
    }
    return ImageFolderDataModule(root=str(root), **(options | more))


def test_chips_are_those_of_evaluation(tmp_path: Path) -> None:
    write_image_folder(tmp_path, size=(32, 32))
    data = folder(tmp_path)
    chips = data.chips('train')
    data.setup('test')
    tested: Any = data.test_dataset
    assert data.chip_place(chips, 1) == ('train_1', None)
    for index in range(3):
        sample = chips[index]
        colors = paint(sample['mask'].numpy().astype(np.uint8))
        assert np.array_equal(sample['image'].permute(1, 2, 0), colors)
    assert torch.equal(tested[0]['mask'], data.chips('test')[0]['mask'])


def test_chips_name_the_classes_of_a_task_without_names(tmp_path: Path) -> None:
    write_image_folder(tmp_path, size=(32, 32))
    nameless: dict[str, Any] = {'class_names': None, 'class_colors': None}
    task, data = tiny_task(num_classes=2, **nameless), folder(tmp_path)
    data.trainer = Trainer(logger=False, accelerator='cpu')
    data.trainer.strategy.connect(task)
    data.chips('train')
    assert task.class_names == ['land', 'water']


@pytest.mark.parametrize(
    ('module', 'write', 'classes'),
    [
        (ADE20KDataModule, write_ade20k, 151),
        (VOC2012DataModule, write_voc2012, 21),
        (COCODataModule, write_coco, 81),
        (EndoTectDataModule, write_endotect, 2),
    ],
)
def test_batches(
    tmp_path: Path,
    module: type[ImageFolderDataModule],
    write: Callable[[Path], None],
    classes: int,
) -> None:
    write(tmp_path)
    data = module(batch_size=2, img_size=(24, 40), root=str(tmp_path))
    for stage in ('fit', 'validate', 'test'):
        data.setup(stage)
    for split in ('train', 'val', 'test'):
        batch = next(iter(getattr(data, f'{split}_dataloader')()))
        assert batch['image'].shape[1:] == (3, 24, 40)
        # scaling belongs to the model: pixels arrive as they are
        assert batch['image'].max() > 100
        assert batch['mask'].shape[1:] == (24, 40)
        held = set(batch['mask'].flatten().tolist()) - {255}
        assert held <= set(range(classes))
        assert len(data.chips(split).classes) == classes
    name = ChipDataModule(data, 'val').dataset_name
    assert name == module.__name__.removesuffix('DataModule').lower()


def test_a_task_without_names_gets_those_of_the_data(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for given in (None, ['Land', 'Wasser']):
        task = tiny_task(
            in_channels=3,
            num_classes=2,
            class_names=given,
            class_colors=None,
            scaling={'method': 'per_chip_maximum'},
        )
        trainer = Trainer(
            max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(task, datamodule=folder(tmp_path))
        assert task.class_names == (given or ['land', 'water'])
        trainer.save_checkpoint(tmp_path / 'task.ckpt')
        loaded = load_task(tmp_path / 'task.ckpt')
        assert loaded.class_names == (given or ['land', 'water'])
        assert loaded.class_colors == ['#000000', '#800000']


@pytest.mark.parametrize(
    ('arguments', 'options', 'message'),
    [
        ({'num_classes': 3}, {}, 'num_classes=3, but .* has 2 classes'),
        (
            {'class_names': ['water', 'land']},
            {},
            'in another order, expected land, water',
        ),
        ({}, {'batch_size': 4}, 'batch_size=4 is larger than the 3 training images'),
    ],
)
def test_task_and_data_that_do_not_fit(
    tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    write_image_folder(tmp_path)
    defaults = {'num_classes': 2, 'class_names': None, 'class_colors': None}
    task = tiny_task(
        in_channels=3, scaling={'method': 'per_chip_maximum'}, **(defaults | arguments)
    )
    trainer = Trainer(max_epochs=1, accelerator='cpu', logger=False)
    with pytest.raises(SettingError, match=message):
        trainer.fit(task, datamodule=folder(tmp_path, **options))


def test_an_unknown_way_to_resize() -> None:
    with pytest.raises(
        SettingError, match=r"Unknown resize 'strech', .* Did you mean 'stretch'"
    ):
        ImageFolderDataModule(resize='strech')  # type: ignore[arg-type]


def test_labels_of_whole_images_and_crops(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    rows = [f'{s}_{n},water' for s in ('train', 'val', 'test') for n in range(3)]
    (tmp_path / 'labels.csv').write_text('\n'.join(['image,classes', *rows]))
    labels = {'masks': None, 'labels': 'labels.csv'}
    with pytest.warns(LabelWarning, match="Labels stay true with resize='stretch'"):
        folder(tmp_path, resize='cover', **labels).setup('fit')
    data = folder(tmp_path, **labels)
    data.setup('fit')
    batch = next(iter(data.train_dataloader()))
    assert batch['label'].tolist() == [[0, 1], [0, 1]]
    assert 'mask' not in batch


WRITERS: dict[str, Callable[[Path], None]] = {
    'ade20k': write_ade20k,
    'voc2012': write_voc2012,
    'coco': write_coco,
    'endotect': write_endotect,
}


def small(name: str, root: Path) -> list[str]:
    """What a test adds to a configuration: less of everything."""
    size = '[24,40]' if name == 'ade20k' else '32'
    return [
        f'--config={CONFIGS / name}.yaml',
        f'--data.dict_kwargs.root={root}',
        '--data.init_args.batch_size=2',
        '--data.init_args.num_workers=0',
        f'--data.init_args.img_size={size}',
        f'--model.init_args.img_size={size}',
        TINY,
        '--trainer.precision=32-true',
        '--trainer.accelerator=cpu',
        '--trainer.max_epochs=1',
        '--trainer.limit_train_batches=2',
    ]


@pytest.mark.slow
@pytest.mark.parametrize('name', WRITERS)
def test_configuration_through_the_command(
    name: str, tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    """Fit, test and pseudo-masks."""
    WRITERS[name](tmp_path / 'data')
    arguments = small(name, tmp_path / 'data')
    torchgeo_main('fit', *arguments)
    [path] = tmp_path.glob('output/**/last.ckpt')
    printed = torchgeo_main('test', *arguments, f'--ckpt_path={path}')
    for metric in ('test_mAP', 'test_F1', 'test_miou', 'test_miou_true_labels'):
        assert metric in printed
    task = load_task(path)
    config: Any = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text())
    assert len(set(task.class_names)) == config['model']['init_args']['num_classes']
    assert len(set(task.class_colors)) == len(task.class_names)
    used = next(tmp_path.glob('output/**/config.yaml'))
    wanted = 'true' if name == 'ade20k' else 'predicted'
    assert task.options.maps.labels == wanted
    written = pseudo_masks(
        used, path, tmp_path / 'masks', labels='true', accelerator='cpu', progress=False
    )
    masks = np.load(tmp_path / 'masks' / f'pms_{name}.npy')
    size = (24, 40) if name == 'ade20k' else (32, 32)
    assert masks.shape == (written['chips'], *size)
    assert 0 <= written['miou'] <= 1
    truth = np.load(tmp_path / 'masks' / f'masks_{name}.npy')
    for mask, classes in zip(masks, truth, strict=True):
        # true image labels: no class that the image does not hold
        assert set(np.unique(mask)) <= set(np.unique(classes))


def test_configurations_say_what_the_data_sets_say() -> None:
    for name, module in (
        ('voc2012', VOC2012DataModule),
        ('endotect', EndoTectDataModule),
    ):
        text = (CONFIGS / f'{name}.yaml').read_text()
        assert module.__name__ in text
        model = yaml.safe_load(text)['model']['init_args']
        assert len(set(model['class_names'])) == model['num_classes']
        assert len(set(model['class_colors'])) == model['num_classes']
    ade = (CONFIGS / 'ade20k.yaml').read_text()
    # the reference's: 151 labels, 208 × 320 px, patches of 8 px, true image labels
    model = yaml.safe_load(ade)['model']['init_args']
    assert (model['num_classes'], model['img_size']) == (151, [208, 320])
    assert re.search('patch8', model['model'])
    assert model['maps']['labels'] == 'true'
