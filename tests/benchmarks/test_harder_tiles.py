"""The conditions of the quality table do what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harder_tiles import (
    CONDITIONS,
    COUPLE,
    RARE,
    Condition,
    HarderDataModule,
    HarderTiles,
    mistaken,
)
from torchgeo_ctm.datasets import DFC2020, SyntheticLandCover

NAMES = list(DFC2020.classes)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp('tiles')
    SyntheticLandCover(root, num_tiles=(40, 2, 4), size=64)
    return root


def open_tiles(folder: Path, condition: Condition, split: str = 'train') -> HarderTiles:
    return HarderTiles(
        root=folder, split=split, num_tiles=(40, 2, 4), size=64, condition=condition
    )


def labels(tiles: HarderTiles) -> torch.Tensor:
    return torch.stack([tiles[index]['label'] for index in range(len(tiles))])


def test_wrong_labels_in_training_alone(folder: Path) -> None:
    plain, wrong = (
        labels(open_tiles(folder, condition)) for condition in ('plain', 'wrong labels')
    )
    assert wrong.shape == plain.shape
    assert not torch.equal(wrong, plain)
    # a class is taken for another one: there are as many
    assert torch.equal(wrong.sum(1), plain.sum(1))
    tested = [open_tiles(folder, c, 'test') for c in ('plain', 'wrong labels')]
    assert torch.equal(labels(tested[0]), labels(tested[1]))


def test_a_fifth_is_mistaken() -> None:
    rng = np.random.default_rng(0)
    present = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    kept = np.mean([mistaken(present, rng)[:3].mean() for _ in range(2000)])
    assert kept == pytest.approx(0.8, abs=0.02)


def test_rare_classes_are_rare(folder: Path) -> None:
    rare = [NAMES.index(name) for name in RARE]
    plain, fewer = (
        labels(open_tiles(folder, condition)) for condition in ('plain', 'unbalanced')
    )
    assert 0 < len(fewer) < len(plain)
    assert (fewer[:, rare] > 0).sum() < 0.5 * (plain[:, rare] > 0).sum()


def test_two_classes_come_together(folder: Path) -> None:
    both = [NAMES.index(name) for name in COUPLE]
    found = labels(open_tiles(folder, 'together'))[:, both]
    assert torch.equal(found[:, 0], found[:, 1])


def test_clouds_are_bright_and_not_scored(folder: Path) -> None:
    clear, cloudy = (open_tiles(folder, c, 'test')[0] for c in ('plain', 'clouds'))
    hidden = cloudy['mask'] == 255
    assert 0.15 < hidden.float().mean() < 0.35
    assert torch.equal(cloudy['image'][:, ~hidden], clear['image'][:, ~hidden])
    assert cloudy['image'][1, hidden].mean() > clear['image'][1, hidden].mean() + 1000
    assert torch.equal(cloudy['label'], clear['label'])


@pytest.mark.parametrize('condition', CONDITIONS)
def test_tiles_are_the_same_every_time(folder: Path, condition: Condition) -> None:
    # tiles of other traits have a folder of their own
    root = folder / 'real' if condition == 'real traits' else folder
    first, second = (open_tiles(root, condition)[1] for _ in range(2))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_data_module_of_it(folder: Path) -> None:
    data = HarderDataModule(
        4, 0, 64, root=folder, num_tiles=(40, 2, 4), size=64, condition='clouds'
    )
    data.prepare_data()
    data.setup('fit')
    batch = next(iter(data.train_dataloader()))
    assert batch['label'].shape == (4, 8)
    assert (batch['mask'] == 255).any()
