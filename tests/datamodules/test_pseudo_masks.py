from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from tests.conftest import scene_pixels
from tests.fakes.masks import CLASSES, COLORS, coded, place, write_image, write_mask
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datamodules import PseudoMaskDataModule
from torchgeo_ctm.errors import (
    CTMError,
    DataError,
    LabelError,
    SceneError,
    SettingError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling
from torchgeo_ctm.split import Split
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


def count(data: PseudoMaskDataModule, split: Split) -> int:
    assert data.splits is not None
    return len(data.splits.windows(split))


def network(**options: Any) -> SemanticSegmentation:
    arguments: dict[str, Any] = {
        'model': 'unet',
        'backbone': 'resnet18',
        'in_channels': 13,
        'num_classes': 3,
        'ignore_index': 255,
    }
    return SemanticSegmentation(**(arguments | options))


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
    assert len(data.train_dataloader()) == -(-count(data, 'train') // 2)
    shown: dict[str, set[int]] = {'train': set(), 'val': set()}
    for split, loader in (
        ('train', data.train_dataloader()),
        ('val', data.val_dataloader()),
    ):
        for batch in loader:
            assert batch['image'].shape[1:] == (13, CHIP, CHIP)
            assert torch.equal(batch['image'][:, 0].long() % 3, batch['mask'])
            shown[split] |= set(batch['image'][:, 0].amin(dim=(1, 2)).int().tolist())
    assert not shown['train'] & shown['val']
    assert shown['train'] | shown['val'] <= {100 * n for n in range(1, 12)}
    assert count(data, 'train') + count(data, 'val') == 11


def test_chips_are_turned_with_their_masks_then_scaled(tiles: Path) -> None:
    data = module(tiles, length=200)
    data.setup('fit')
    scaling = BandScaling(SENTINEL2_BANDS)
    mean, std = scaling.mean, scaling.std
    steps = {'train': set(), 'val': set()}  # type: dict[str, set[tuple[int, int]]]
    for split, loader in (
        ('train', data.train_dataloader()),
        ('val', data.val_dataloader()),
    ):
        for batch in loader:
            after = data.on_after_batch_transfer(batch, 0)
            assert set(after) == {'image', 'mask'}
            assert after['mask'].dtype == torch.int64
            own = (after['image'] * std + mean).round()[:, 0]
            assert torch.equal(own.long() % 3, after['mask'])
            down, right = own[:, 1, 0] - own[:, 0, 0], own[:, 0, 1] - own[:, 0, 0]
            steps[split] |= set(zip(down.int().tolist(), right.int().tolist()))
    sides = ((1, CHIP), (1, -CHIP), (-1, CHIP), (-1, -CHIP))
    assert steps['train'] == {*sides, *((b, a) for a, b in sides)}
    assert steps['val'] == {(CHIP, 1)}


def test_low_confidence_is_ignored(tiles: Path) -> None:
    data = module(tiles, min_confidence=95)
    with pytest.raises(LabelError, match='Lower min_confidence'):
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


def test_ground_without_a_class_is_not_shown(tmp_path: Path) -> None:
    pixels, classes = coded(256, 256)
    classes[:, :176] = 255
    write_image(tmp_path / 'images' / 'scene.tif', pixels)
    write_mask(tmp_path / 'masks' / 'mask.tif', classes)
    data = module(tmp_path, length=40, val_share=0.4)
    data.setup('fit')
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert (batch['mask'] != 255).flatten(1).any(dim=1).all()


def test_epochs_repeat_and_differ(tiles: Path) -> None:
    data = module(tiles)
    data.setup('fit')
    epochs = []
    for epoch in (0, 0, 1):
        loader = data.train_dataloader()
        loader.epoch = lambda epoch=epoch: epoch
        epochs.append(torch.cat([batch['image'] for batch in loader]))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def test_small_images_and_dates_go_with_their_ground(tmp_path: Path) -> None:
    """Also where the dates are half an image apart."""
    for day in range(2):
        for number in range(12):
            pixels, classes = coded(CHIP, CHIP, 100 * number)
            corner = place(600_000 + 640 * number + 160 * day)
            name = f'd{day}_n{number}'
            write_image(tmp_path / 'images' / f'{name}.tif', pixels, corner)
            write_mask(tmp_path / 'masks' / f'{name}_m.tif', classes, corner)
    data = module(tmp_path, val_share=0.3)
    data.setup('fit')
    assert data.splits is not None
    assert count(data, 'train') + count(data, 'val') == 24
    places = [
        {name.split('_')[1] for name in (data.splits.windows(split).place(n)[0]
         for n in range(len(data.splits.windows(split))))}
        for split in ('train', 'val')
    ]  # fmt: skip
    assert all(places)
    assert not places[0] & places[1]


def test_ground_too_small_to_split(tmp_path: Path) -> None:
    pixels, classes = coded(40, 40)
    write_image(tmp_path / 'images' / 'scene.tif', pixels)
    write_mask(tmp_path / 'masks' / 'mask.tif', classes)
    with pytest.raises(SettingError, match='smaller patch_size'):
        module(tmp_path).setup('fit')


@pytest.mark.parametrize('stage', ['test', 'predict'])
def test_other_stages_are_refused(tiles: Path, stage: str) -> None:
    with pytest.raises(SettingError, match='torchgeo-ctm predict SCENE'):
        module(tiles).setup(stage)


def test_what_does_not_fit(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='Did you mean 64'):
        module(tiles, patch_size=70)
    (tmp_path / 'empty').mkdir()
    data = PseudoMaskDataModule(str(tmp_path / 'empty'), str(tiles / 'masks'))
    with pytest.raises(SceneError, match='empty'):
        data.setup('fit')
    data = PseudoMaskDataModule(str(tiles), str(tmp_path / 'empty'))
    with pytest.raises(DataError, match=r'empty has no mask \(\.tif\)'):
        data.setup('fit')
    with pytest.raises(SettingError, match='patch_size=1024 is larger than the images'):
        module(tiles, patch_size=1024).setup('fit')
    for share in (0, 1, -0.1):
        with pytest.raises(SettingError, match=r'Did you mean 0\.1'):
            module(tiles, val_share=share)
    for options, words in (
        ({'in_channels': 3}, 'in_channels=3 .* expected 13'),
        ({'num_classes': 8}, 'num_classes=8 .* expected 3'),
        ({'ignore_index': None}, 'ignore_index=None .* expected 255'),
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
