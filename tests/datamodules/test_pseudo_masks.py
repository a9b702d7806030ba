from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torchgeo.trainers import SemanticSegmentationTask

from tests.conftest import scene_pixels
from tests.fakes.masks import CLASSES, COLORS, coded, place, write_image, write_mask
from torchgeo_ctm.datamodules import PseudoMaskDataModule
from torchgeo_ctm.errors import CTMError, LabelError, SceneError, SettingError
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling
from torchgeo_ctm.trainers import SegmentationPredictor, load_predictor

CHIP = 32


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Twelve tiles of a chip each, in two zones, the mask of one missing."""
    full = np.full((CHIP, CHIP), 90, np.uint8)
    for number in range(12):
        pixels, classes = coded(CHIP, CHIP, 100 * number)
        corner = place(600_000 + 1000 * number)
        zone = ('EPSG:32632', 'EPSG:32633')[number % 2]
        write_image(tmp_path / 'images' / f's2_{number}.tif', pixels, corner, zone)
        if number:
            path = tmp_path / 'masks' / f'dfc_{number}.tif'
            write_mask(path, classes, corner, zone, confidence=full)
    return tmp_path


def module(folder: Path, **options: Any) -> PseudoMaskDataModule:
    arguments = {'patch_size': CHIP, 'batch_size': 2} | options
    return PseudoMaskDataModule(
        str(folder / 'images'), str(folder / 'masks'), **arguments
    )


def network(**options: Any) -> SemanticSegmentationTask:
    arguments: dict[str, Any] = {
        'model': 'unet',
        'backbone': 'resnet18',
        'in_channels': 13,
        'num_classes': 3,
        'ignore_index': 255,
    }
    return SemanticSegmentationTask(**(arguments | options))


def trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_tiles_and_their_masks(tiles: Path) -> None:
    data = module(tiles, val_share=0.3)
    data.setup('fit')
    data.setup('validate')
    assert data.legend == (list(CLASSES), list(COLORS))
    assert len(data.train_dataloader()) == len(data.train_sampler) // 2
    shown: dict[str, set[int]] = {'train': set(), 'val': set()}
    for split, loader in (
        ('train', data.train_dataloader()),
        ('val', data.val_dataloader()),
    ):
        for batch in loader:
            assert batch['image'].shape[1:] == (13, CHIP, CHIP)
            assert torch.equal(batch['image'][:, 0].long() % 3, batch['mask'])
            shown[split] |= set(batch['image'][:, 0, 0, 0].int().tolist())
    assert not shown['train'] & shown['val']
    assert shown['train'] | shown['val'] <= {100 * n for n in range(1, 12)}


def test_chips_are_turned_with_their_masks_then_scaled(tiles: Path) -> None:
    torch.manual_seed(0)
    data = module(tiles)
    data.setup('fit')
    scaling = BandScaling(SENTINEL2_BANDS)
    mean, std = scaling.mean, scaling.std
    batch = next(iter(data.train_dataloader()))
    before = {
        key: value.clone() for key, value in batch.items() if key in ('image', 'mask')
    }
    turned = []
    for training in (True, True, True, True, False):
        step = trainer()
        step.training = training
        step.validating = not training
        data.trainer = step
        given = {key: value.clone() for key, value in before.items()}
        after = data.on_after_batch_transfer(given, 0)
        assert after['mask'].dtype == torch.int64
        own = (after['image'] * std + mean).round()
        assert torch.equal(own[:, 0].long() % 3, after['mask'])
        turned.append(not torch.equal(after['mask'], before['mask']))
    assert any(turned[:-1])
    assert not turned[-1]


def test_low_confidence_is_ignored(tiles: Path) -> None:
    data = module(tiles, min_confidence=95)
    with pytest.raises(LabelError, match='lower min_confidence'):
        data.setup('fit')


def test_a_scene_of_its_own(tmp_path: Path) -> None:
    """One large scene: blocks of it are for validation."""
    pixels, classes = coded(200, 230)
    write_image(tmp_path / 'images' / 'scene.tif', pixels)
    write_mask(tmp_path / 'masks' / 'mask.tif', classes)
    image = str(tmp_path / 'images' / 'scene.tif')
    data = PseudoMaskDataModule([image], [str(tmp_path / 'masks')], patch_size=CHIP)
    data.setup('fit')
    places = [set(), set()]  # type: list[set[int]]
    for number, loader in enumerate((data.train_dataloader(), data.val_dataloader())):
        for batch in loader:
            places[number] |= set(batch['image'][:, 0].flatten().int().tolist())
    assert all(places)
    assert not places[0] & places[1]


@pytest.mark.parametrize('stage', ['test', 'predict'])
def test_other_stages_are_refused(tiles: Path, stage: str) -> None:
    with pytest.raises(SettingError, match='torchgeo-ctm predict SCENE'):
        module(tiles).setup(stage)


def test_what_does_not_fit(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='nearest: 64'):
        module(tiles, patch_size=70)
    (tmp_path / 'empty').mkdir()
    data = PseudoMaskDataModule(str(tmp_path / 'empty'), str(tiles / 'masks'))
    with pytest.raises(SceneError, match='empty'):
        data.setup('fit')
    with pytest.raises(SettingError, match=r'nearest: \d+, or length=64'):
        module(tiles, batch_size=64).setup('fit')
    for options, words in (
        ({'in_channels': 3}, 'in_channels=3 .* needed: 13'),
        ({'num_classes': 8}, 'num_classes=8 .* needed: 3'),
        ({'ignore_index': None}, 'ignore_index=None .* needed: 255'),
    ):
        with pytest.raises(CTMError, match=words):
            trainer(max_steps=1).fit(network(**options), datamodule=module(tiles))


def test_it_trains_and_its_checkpoint_maps(tiles: Path, tmp_path: Path) -> None:
    data = module(tiles, scaling={'method': 'standard', 'offset': -5.0})
    run = trainer(max_steps=2, limit_val_batches=1)
    run.fit(network(), datamodule=data)
    path = tmp_path / 'unet.ckpt'
    run.save_checkpoint(path, weights_only=True)
    task = load_predictor(path)
    assert isinstance(task, SegmentationPredictor)
    assert (task.class_names, task.class_colors) == (list(CLASSES), list(COLORS))
    assert task.bands == SENTINEL2_BANDS
    assert task.hparams['img_size'] == CHIP
    image = torch.from_numpy(scene_pixels(CHIP, CHIP)[None].astype('f4'))
    with torch.no_grad():
        scaled = BandScaling(SENTINEL2_BANDS, offset=-5.0)(image)
        wanted = run.model.eval()(scaled).softmax(1)  # type: ignore[union-attr]
        assert torch.allclose(task.predict_step({'image': image}, 0)['scores'], wanted)


def test_a_chip_is_drawn(tiles: Path) -> None:
    data = module(tiles)
    data.setup('fit')
    mask = torch.full((CHIP, CHIP), 255)
    mask[:5] = 1
    image = torch.rand(13, CHIP, CHIP)
    figure = data.plot({'image': image, 'mask': mask, 'prediction': mask})
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ['image', 'mask', 'prediction']
    drawn: Any = figure.axes[1].images[0].get_array()
    assert int((~np.ma.getmaskarray(drawn)).sum()) == 5 * CHIP
