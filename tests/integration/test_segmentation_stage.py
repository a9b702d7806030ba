"""From pseudo-masks to a segmentation network, and to the map of a scene with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml

from benchmarks.quality import Batch, Labels, Run, Setting, pseudo_masks, tiles
from tests.commands import Run as Command
from tests.commands import TorchGeoMain, refused
from tests.conftest import WriteScene, decisive, save_task, tiny_task
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.errors import CTMError
from torchgeo_ctm.labels import class_shares

CONFIGS = Path(__file__).parents[2] / 'configs'
CHIP = 64


def changed(path: Path, name: str, **sections: Any) -> Path:
    """Write a configuration with other arguments of its data."""
    content = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text())
    content['trainer'] |= {'accelerator': 'cpu', 'max_epochs': 1}
    for section, values in sections.items():
        content['data'].setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def tile_config(folder: Path) -> Path:
    """The synthetic tiles' configuration: few and small ones."""
    more = {'root': str(folder / 'data'), 'num_tiles': [12, 1, 1], 'size': CHIP}
    return changed(
        folder / 'tiles.yaml',
        'synthetic',
        init_args={'img_size': CHIP, 'batch_size': 4},
        dict_kwargs=more,
    )


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    """A checkpoint of class tokens, with untrained weights."""
    task = tiny_task(
        img_size=CHIP,
        num_classes=8,
        class_names=DFC2020.classes,
        class_colors=DFC2020.class_colors,
        # untrained attention is unsure, and labels leave enough of its masks
        maps={'source': 'attention', 'presence': 'threshold', 'refinement': None},
    )
    return save_task(decisive(task), tmp_path / 'eight.ckpt')


def stage_config(path: Path, folder: Path, masks: Path) -> Path:
    """The stage's configuration over these tiles and masks."""
    return changed(
        path,
        'segmentation',
        init_args={
            'images': str(folder / 'data' / 'dfc2020_s1s2' / 's2'),
            'masks': str(masks),
            'min_confidence': 20,
            'batch_size': 4,
            'patch_size': CHIP,
            'num_workers': 0,
        },
    )


@pytest.mark.slow
def test_two_rounds(
    run: Command,
    torchgeo_main: TorchGeoMain,
    tmp_path: Path,
    eight: Path,
    write_scene: WriteScene,
) -> None:
    """The three commands at the configuration's head, then its second round."""
    config, checkpoint = tile_config(tmp_path), eight
    for number in (1, 2):
        masks = tmp_path / f'masks_{number}'
        status, printed, err = run(
            'pseudomasks', '--config', config, '--checkpoint', checkpoint, '--split',
            'train', '--labels', 'true', '--no_images', '--output', masks,
            '--accelerator', 'cpu',
        )  # fmt: skip
        assert status == 0, err
        assert 'GeoTIFFs              12' in printed
        stage = stage_config(tmp_path / f'stage_{number}.yaml', tmp_path, masks)
        name = f'--trainer.logger.init_args.name={number}'
        torchgeo_main('fit', '--config', stage, name)
        [checkpoint] = tmp_path.glob(f'output/{number}/**/last.ckpt')
    scene, mask = write_scene(), tmp_path / 'mask.tif'
    status, printed, err = run(
        'predict', scene, '--checkpoint', checkpoint, '--output', mask,
        '--accelerator', 'cpu', '--probabilities',
    )  # fmt: skip
    assert status == 0, err
    assert 'windows of 64 px, stride 32 px' in err
    with rasterio.open(mask) as found, rasterio.open(scene) as raster:
        assert (found.crs, found.transform) == (raster.crs, raster.transform)
        tags = found.tags()
        assert tags['MAP_SOURCE'] == 'unet resnet18'
        assert tags['CLASS_NAMES'].startswith('["Forest", "Shrubland"')
        classes = found.read(1)
    with rasterio.open(tmp_path / 'mask_probabilities.tif') as shares:
        assert shares.count == 8
        values = shares.read()
    # per cent, rounded
    assert np.abs(values.sum(axis=0, dtype=int) - 100).max() <= 4
    chosen = np.take_along_axis(values, classes[None].astype(int), axis=0)[0]
    assert (chosen >= values.max(axis=0) - 1).all()
    other = tmp_path / 'other'
    for arguments, words in (
        (('--source', 'fused'), ("'source' applies to class-token",)),
        (('--rule', 'paint'), ("'rule' applies to class-token",)),
    ):
        refused(
            run('pseudomasks', '--config', config, '--checkpoint', checkpoint,
                '--output', other, *arguments),
            *words,
        )  # fmt: skip
    refused(
        run('export', checkpoint, '--output', tmp_path / 'unet.onnx'),
        'segmentation task', 'ClassTokenMaskingTask',
    )  # fmt: skip
    refused(
        run('predict', scene, '--checkpoint', checkpoint, '--output',
            tmp_path / 'x.tif', '--window', 40),
        'Did you mean 32',
    )  # fmt: skip


@pytest.mark.slow
def test_it_trains_with_workers(
    run: Command, torchgeo_main: TorchGeoMain, tmp_path: Path, eight: Path
) -> None:
    config, masks = tile_config(tmp_path), tmp_path / 'masks'
    run('pseudomasks', '--config', config, '--checkpoint', eight, '--split', 'train',
        '--no_images', '--output', masks, '--accelerator', 'cpu')  # fmt: skip
    stage = stage_config(tmp_path / 'stage.yaml', tmp_path, masks)
    more = ('--data.init_args.num_workers=2', '--data.init_args.val_share=0.3')
    torchgeo_main('fit', '--config', stage, *more)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    assert torch.load(checkpoint, weights_only=True)['PseudoMaskDataModule']['bands']
    with pytest.raises(CTMError, match=r'num_classes=5 of the model.* expected 8'):
        torchgeo_main('fit', '--config', stage, '--model.num_classes=5')


def test_the_configuration_fits_together() -> None:
    config = yaml.safe_load((CONFIGS / 'segmentation.yaml').read_text())
    before = yaml.safe_load((CONFIGS / 'synthetic.yaml').read_text())
    model, data = config['model']['init_args'], config['data']['init_args']
    assert model['num_classes'] == before['model']['init_args']['num_classes']
    assert model['in_channels'] == before['model']['init_args']['in_channels']
    assert data['patch_size'] == before['model']['init_args']['img_size']
    assert data['images'].startswith(before['data']['dict_kwargs']['root'])


def test_the_benchmark_learns_from_image_labels_alone(tmp_path: Path) -> None:
    """Pseudo-masks of the row do not change with what the true masks hold."""
    setting = Setting(32, (6, 1, 1), 1, 2)
    data = tiles(tmp_path, setting)
    work = Run(data, setting, 0, tmp_path)

    def method(batch: Batch, labels: Labels) -> torch.Tensor:
        assert labels == 'true'
        assert not batch['mask'].any()
        # class 0 looks likely everywhere, its rival comes next
        looks = torch.tensor([0.6, 0.4, *[0.0] * 6])[None, :, None, None]
        shares = (looks + 1e-3) * batch['label'][..., None, None]
        shares = shares.expand(-1, -1, *batch['mask'].shape[1:])
        return shares / shares.sum(dim=1, keepdim=True)

    masks = pseudo_masks(work, method, 0.5)
    assert masks.shape == (6, 32, 32)
    label = torch.cat([batch['label'] for batch in work.batches('train')])
    assert ((masks == 0) | (masks == 255)).all()
    kept = (masks == 0).all(dim=2).all(dim=1)
    assert torch.equal(kept, label[:, 0].bool())
    assert 0 < kept.sum() < 6
    assert class_shares(masks, 8)[kept, 0].eq(1).all()
