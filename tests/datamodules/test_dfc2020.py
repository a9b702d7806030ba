import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.dfc2020 import write_contest, write_dfc2020
from torchgeo_ctm.datamodules import (
    ChipDataModule,
    DFC2020DataModule,
    SyntheticDataModule,
)
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.datasets.dfc2020 import PROTOCOLS
from torchgeo_ctm.errors import GeoreferenceWarning, SettingError, TileCountWarning
from torchgeo_ctm.scaling import SENTINEL2_BANDS

# a few tiles are not what the protocols have
pytestmark = pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.TileCountWarning')


@pytest.mark.parametrize('stage', ['fit', 'validate', 'test'])
def test_splits(tmp_path: Path, stage: str) -> None:
    write_dfc2020(tmp_path)
    datamodule = DFC2020DataModule(batch_size=1, root=str(tmp_path))
    datamodule.setup(stage)
    name = {'fit': 'train', 'validate': 'val', 'test': 'test'}[stage]
    loader = getattr(datamodule, f'{name}_dataloader')()
    batch = next(iter(loader))
    assert batch['image'].shape == (1, 13, 224, 224)
    # scaling belongs to the model: reflectances arrive as they are
    assert 500 <= batch['image'].min()
    assert batch['image'].max() < 3000


def test_bands_of_both_sensors(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    bands = [*SENTINEL2_BANDS, 'VV', 'VH']
    data = DFC2020DataModule(batch_size=2, bands=bands, root=str(tmp_path))
    data.setup('fit')
    [batch] = data.train_dataloader()
    assert batch['image'].shape == (2, 15, 224, 224)
    # decibels stay decibels
    assert batch['image'][:, 13:].min() < -39
    assert batch['image'][:, 13:].max() < 6


def test_each_protocol_has_its_splits(tmp_path: Path) -> None:
    write_contest(tmp_path)
    counts = {}
    for protocol in ('B', 'C'):
        data = DFC2020DataModule(img_size=24, protocol=protocol, root=str(tmp_path))
        for stage in ('fit', 'test'):
            data.setup(stage)
        splits: Any = (data.train_dataset, data.val_dataset, data.test_dataset)
        counts[protocol] = [len(dataset) for dataset in splits]
    assert counts == {'B': [9, 2, 4], 'C': [4, 11, 11]}


def test_another_number_of_tiles_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_contest(tmp_path)
    data = DFC2020DataModule(img_size=24, protocol='C', root=str(tmp_path))
    with pytest.warns(TileCountWarning) as said:
        data.setup('fit')
    messages = [str(warning.message) for warning in said]
    wanted = [('4', 'train', '5,128'), ('11', 'val', '986')]
    for message, (found, split, needed) in zip(messages, wanted, strict=True):
        assert (
            f'has {found} tiles for split {split}, protocol C has {needed}' in message
        )
    complete = {'C': PROTOCOLS['C'] | {'val': 11}}
    monkeypatch.setattr(DFC2020, 'tile_counts', complete)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        data.setup('validate')


def test_synthetic_tiles_have_no_protocol(tmp_path: Path) -> None:
    tiles: Any = {'root': str(tmp_path), 'num_tiles': (2, 1, 1), 'size': 32}
    with warnings.catch_warnings():
        warnings.simplefilter('error', TileCountWarning)
        SyntheticDataModule(img_size=32, **tiles).setup('fit')
    with pytest.raises(
        SettingError, match="protocol='B' applies to DFC2020 only, Synthetic"
    ):
        SyntheticDataModule(img_size=32, protocol='B', **tiles)


def test_chips_without_places_are_named_and_nothing_more(tmp_path: Path) -> None:
    """Copernicus-Bench's copy: WGS 84 and an identity transform."""
    write_dfc2020(tmp_path, 'identity')
    data = DFC2020DataModule(root=str(tmp_path))
    with pytest.warns(TileCountWarning):
        chips = data.chips('train')
    with pytest.warns(GeoreferenceWarning) as said:
        places = [data.chip_place(chips, index) for index in range(2)]
    assert [grid for _, grid in places] == [None, None]
    assert [name for name, _ in places] == [chips.chip_name(i) for i in range(2)]
    assert len(said) == 1
    assert ChipDataModule(data, 'train').dataset_name == 'dfc2020'
