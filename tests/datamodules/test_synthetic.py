import warnings
from pathlib import Path

import pytest

from tests.conftest import tiny_task
from tests.fakes.chips import trainer
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datamodules import SyntheticDataModule
from torchgeo_ctm.errors import ReflectanceWarning, SettingError


def test_arguments_of_the_data_set_are_checked_before_it_is_made(
    tmp_path: Path,
) -> None:
    data = SyntheticDataModule(root=str(tmp_path), num_tile=(4, 2, 2))
    with pytest.raises(SettingError, match=r"no argument 'num_tile'.*'num_tiles'"):
        data.prepare_data()
    with pytest.raises(SettingError, match=r"no argument 'num_tile'.*'num_tiles'"):
        data.setup('fit')


def test_a_task_of_torchgeo_gets_numbers_that_are_not_scaled(tmp_path: Path) -> None:
    data = SyntheticDataModule(
        2, img_size=24, root=str(tmp_path), num_tiles=(4, 2, 2), size=32
    )
    run = trainer(tmp_path)
    task = SemanticSegmentation(in_channels=13, num_classes=8)
    run.strategy.connect(task)
    data.trainer = run
    data.prepare_data()
    with pytest.warns(ReflectanceWarning, match='SemanticSegmentation.* of TorchGeo'):
        data.setup('test')
    run.strategy.connect(tiny_task())
    with warnings.catch_warnings():
        warnings.simplefilter('error', ReflectanceWarning)
        data.setup('test')


def test_tiles_are_made_once(tmp_path: Path) -> None:
    datamodule = SyntheticDataModule(
        batch_size=2, img_size=24, root=str(tmp_path), num_tiles=(4, 2, 2), size=32
    )
    datamodule.prepare_data()
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.tif')}
    assert len(made) == 16
    datamodule.setup('fit')
    [first, second] = list(datamodule.train_dataloader())
    assert first['image'].shape == second['image'].shape == (2, 13, 24, 24)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.tif')} == made
