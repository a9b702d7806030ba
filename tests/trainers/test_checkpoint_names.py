"""A checkpoint whose classes or bands have another order is not taken by position."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.conftest import save_task, tiny_task
from tests.fakes.chips import Chips, loader, trainer
from torchgeo_ctm.errors import (
    BandWarning,
    CheckpointError,
    DataError,
    LabelWarning,
    SettingError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import SoftMaskSegmentationTask
from torchgeo_ctm.trainers.checkpoint_names import check_checkpoint_names
from torchgeo_ctm.trainers.metrics import SplitMetrics

NAMES = ['Forest', 'Water', 'Urban/Built-up']
MOVED = ['Water', 'Forest', 'Urban/Built-up']
BANDS = [*SENTINEL2_BANDS]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint of Lightning."""
    folder = tmp_path_factory.mktemp('run')
    run = trainer(folder, max_steps=1, limit_val_batches=0)
    run.fit(tiny_task(), loader('image', 'label'))
    run.save_checkpoint(folder / 'last.ckpt')
    return folder / 'last.ckpt'


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (
            {'class_names': MOVED},
            'has the classes Forest, Water, .* order of the check',
        ),
        ({'bands': BANDS[::-1]}, 'has the bands B01, B02, .* in their order'),
        ({'img_size': 64}, 'does not fit the network of the task, .*size mismatch'),
        ({'num_classes': 4, 'class_names': None, 'class_colors': None}, 'num_classes'),
    ],
)
def test_it_is_refused(
    tmp_path: Path, checkpoint: Path, options: dict[str, Any], says: str
) -> None:
    for call in ('test', 'fit'):
        run = trainer(tmp_path, max_epochs=2, limit_val_batches=0)
        with pytest.raises(CheckpointError, match=says) as found:
            getattr(run, call)(
                tiny_task(**options), loader('image', 'label'), ckpt_path=checkpoint
            )
        assert '\n' not in str(found.value)


def test_other_names_are_told_and_equal_ones_are_not(
    tmp_path: Path, checkpoint: Path
) -> None:
    renamed = {'class_names': ['Wood', 'Sea', 'Town']}
    with pytest.warns(LabelWarning, match='the task Wood, Sea, Town. Weights'):
        trainer(tmp_path).test(
            tiny_task(**renamed), loader('image', 'label'), ckpt_path=checkpoint
        )
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        warnings.simplefilter('error', BandWarning)
        hparams = {'class_names': NAMES, 'bands': None, 'in_channels': 13}
        check_checkpoint_names(hparams, ['forest', *NAMES[1:]], ['B1', *BANDS[1:]])
        check_checkpoint_names(hparams, None, BANDS)
        check_checkpoint_names({'class_names': None}, MOVED, ['red'])


def test_initial_weights_of_another_order_are_told(tmp_path: Path) -> None:
    path = str(save_task(tiny_task(), tmp_path / 'x.ckpt'))
    with pytest.warns(LabelWarning, match='Weights are taken by position'):
        tiny_task(weights=path, class_names=MOVED).setup('fit')
    with pytest.warns(BandWarning, match='Weights are taken by position'):
        tiny_task(weights=path, bands=BANDS[::-1]).setup('fit')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        task = tiny_task(weights=path, class_names=None, class_colors=None)
        task.setup('fit')
        tiny_task(weights=path).setup('fit')
    task.name_classes(MOVED, ['red', 'green', 'blue'])
    with pytest.warns(LabelWarning, match='Weights are taken by position'):
        task.setup('fit')


def test_a_test_says_that_masks_number_their_classes_otherwise() -> None:
    metrics = SplitMetrics('test', 3, False, 0.5)
    assert metrics.order_complaint(NAMES) is None
    mapped = torch.randint(0, 3, (2, 32, 32))
    metrics.masks.update(mapped, (mapped + 1) % 3)
    said = metrics.order_complaint(NAMES)
    assert said is not None
    assert '(100% instead of 0% of the pixels agree): value 0 as Urban' in said
    metrics.masks.reset()
    metrics.masks.update(mapped, mapped)
    assert metrics.order_complaint(NAMES) is None
    metrics.masks.reset()
    metrics.masks.update(mapped, torch.full_like(mapped, 255))
    assert str(metrics.order_complaint(NAMES)).startswith('No test chip has a class')


def test_labels_of_every_batch_are_checked(tmp_path: Path) -> None:
    class Late(Chips):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            sample = super().__getitem__(index)
            return sample | {'label': sample['label'] * (2 if index > 15 else 1)}

    with pytest.raises(Exception, match='A label holds 2, expected 1 for present'):
        trainer(tmp_path, limit_val_batches=0).fit(
            tiny_task(), DataLoader(Late(('image', 'label')), batch_size=8)
        )


def test_batches_that_are_no_mappings_and_valid_as_numbers(tmp_path: Path) -> None:
    pairs = TensorDataset(torch.rand(8, 13, 32, 32), torch.ones(8, 3))
    with pytest.raises(DataError, match="expected a mapping with 'image'"):
        trainer(tmp_path, limit_val_batches=0).fit(
            tiny_task(), DataLoader(pairs, batch_size=8)
        )

    class Valid(Chips):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return super().__getitem__(index) | {'valid': torch.ones(32, 32)}

    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(tiny_task(), DataLoader(Valid(('image', 'label')), batch_size=8))
    assert run.global_step == 1


def test_unknown_networks_of_the_second_stage() -> None:
    with pytest.raises(SettingError, match=r"Unknown model 'u-net'.*'unet'"):
        SoftMaskSegmentationTask(tiny_task(), model='u-net')  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"Unknown backbone 'resnet19'\. .*'resnet1"):
        SoftMaskSegmentationTask(tiny_task(), backbone='resnet19')
    with pytest.raises(SettingError, match=r"Cannot build unet .* 'imagenet22'"):
        SoftMaskSegmentationTask(tiny_task(), weights='imagenet22')
