"""TorchGeo's own data modules, as they stand, under our task."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchgeo.datamodules import SEN12MSDataModule

from tests.commands import Run, TorchGeoMain
from tests.conftest import save_task, tiny_task
from tests.fakes.torchgeo_configs import MAKERS, small_config
from tests.fakes.torchgeo_data import (
    write_bigearthnet,
    write_l8biome,
    write_landcoverai,
    write_sen12ms,
)
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.reports.chips import ConfiguredSplit
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task


@pytest.mark.slow
@pytest.mark.parametrize('name', MAKERS)
def test_fit_and_test(name: str, tmp_path: Path, torchgeo_main: TorchGeoMain) -> None:
    """The real entry, in this process; its own command line and configuration."""
    config = small_config(name, tmp_path)
    torchgeo_main('fit', '--config', config)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    printed = torchgeo_main('test', '--config', config, '--ckpt_path', checkpoint)
    masks = name != 'bigearthnet'
    for metric in ('test_mAP', 'test_F1'):
        assert metric in printed
    for metric in ('test_miou', 'test_miou_true_labels'):
        assert (metric in printed) == masks
    task = load_task(checkpoint)
    model = yaml.safe_load(config.read_text())['model']['init_args']
    assert task.class_names == model['class_names']
    assert list(task.bands) == model['bands']


def test_configurations_fit_together() -> None:
    for name in MAKERS:
        path = Path(__file__).parents[2] / 'configs' / f'{name}.yaml'
        model = yaml.safe_load(path.read_text())['model']['init_args']
        count = model['num_classes']
        assert len(set(model['class_names'])) == count
        assert len(set(model['class_colors'])) == count
        assert len(model.get('class_values', range(count))) == count
        assert len(model['bands']) == model['in_channels']


def test_bigearthnet_labels(tmp_path: Path) -> None:
    config = small_config('bigearthnet', tmp_path)
    # 43 classes in the files, 19 in the labels
    names = {'Sea and ocean': 'Marine waters', 'Water bodies': 'Inland waters'}
    for split in ('train', 'test'):
        chips = ConfiguredSplit(config, split)
        found = [
            {chips.task.class_names[c] for c in np.flatnonzero(chip.label)}
            for chip in chips.chips(progress=False)
            if chip.label is not None
        ]
        given = write_bigearthnet(tmp_path / 'again' / split)[split]
        wanted = [{names.get(n, n) for n in each} - {'Burnt areas'} for each in given]
        assert found == wanted


def test_landcoverai_masks(tmp_path: Path) -> None:
    masks = write_landcoverai(tmp_path / 'again')
    chips = ConfiguredSplit(small_config('landcoverai', tmp_path), 'train')
    for chip, mask in zip(chips.chips(progress=False), masks, strict=False):
        assert chip.mask is not None
        assert chip.label is not None
        assert np.array_equal(chip.mask, mask)
        assert 0.5 < chip.image.max() <= 1
        shares = np.bincount(mask.ravel(), minlength=5) / mask.size
        assert np.array_equal(chip.label, shares >= 0.02)


def test_sen12ms_masks_are_numbered_by_the_data_module(tmp_path: Path) -> None:
    classes = write_sen12ms(tmp_path / 'again')
    chips = ConfiguredSplit(small_config('sen12ms', tmp_path), 'train')
    simplified = SEN12MSDataModule.DFC2020_CLASS_MAPPING.numpy()
    found = [chip.mask for chip in chips.chips(progress=False) if chip.mask is not None]
    assert len(found) == 3  # one of four scenes validates
    wanted = [simplified[cover] - 1 for cover in classes.values()]
    for mask in found:
        assert any(np.array_equal(mask, each) for each in wanted)


def test_fill_is_no_class(tmp_path: Path) -> None:
    write_l8biome(tmp_path / 'again')
    chips = ConfiguredSplit(small_config('l8biome', tmp_path), 'train', nodata=0)
    classes = set()
    fill = 0
    for chip in chips.chips(progress=False, with_crs=True):
        assert chip.mask is not None
        empty = (chip.image == 0).all(axis=0)
        assert np.array_equal(empty, ~chip.valid)
        # masks are read by the nearest pixel, images are not
        assert (chip.mask[empty] == 255).mean() > 0.9 if empty.any() else True
        assert chip.crs == 'EPSG:3857'
        classes |= set(chip.mask.ravel().tolist())
        fill += int(empty.sum())
    assert classes == {0, 1, 2, 3, 255}
    assert fill


def test_pseudo_masks_are_scored_by_class(run: Run, tmp_path: Path) -> None:
    config = small_config('sen12ms', tmp_path)
    model = yaml.safe_load(config.read_text())['model']['init_args']
    task = ClassTokenMaskingTask(**(model | {'maps': {'threshold': 1e-6}}))
    checkpoint = save_task(task, tmp_path / 'sen12ms.ckpt')
    status, printed, err = run(
        'pseudomasks', '--config', config, '--checkpoint', checkpoint,
        '--output', tmp_path / 'out', '--split', 'train', '--accelerator', 'cpu',
    )  # fmt: skip
    assert status == 0, err
    assert 'miou' in printed
    masks = np.load(tmp_path / 'out' / 'masks_sen12ms.npy')
    chips = ConfiguredSplit(config, 'train').chips(progress=False)
    for mask, chip in zip(masks, chips, strict=True):
        assert np.array_equal(mask, chip.mask if chip.mask is not None else 0)


@pytest.mark.parametrize('shape', [(2, 4, 4), (2, 1, 4, 4)])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.float32])
def test_values_of_masks_become_classes(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    task = tiny_task(class_values=[7, 0, 255])
    mask = torch.full(shape, 9, dtype=dtype)
    mask[0, ..., :2], mask[0, ..., 2:], mask[1, ..., 3] = 7, 255, 0
    classes = task.reference_mask(mask)
    assert classes.shape == (2, 4, 4)
    assert classes.dtype == torch.int64
    assert set(classes[0].ravel().tolist()) == {0, 2}
    assert set(classes[1].ravel().tolist()) == {1, 255}
    # most of the second chip is 9, no class: nothing is absent there
    assert task.presence({'mask': mask}).tolist() == [[1, 0, 1], [-1, 1, -1]]


def test_values_of_masks_are_one_a_class() -> None:
    for values in ([1, 2], [1, 2, 2]):
        with pytest.raises(SettingError, match='3 different values'):
            tiny_task(class_values=values)
