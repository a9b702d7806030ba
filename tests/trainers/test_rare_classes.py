"""Classes that hardly any training chip shows are named before training."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_task
from tests.fakes.chips import Chips, loader, trainer
from torchgeo_ctm.datamodules import SyntheticDataModule
from torchgeo_ctm.errors import LabelWarning
from torchgeo_ctm.trainers import rare_classes
from torchgeo_ctm.trainers.rare_classes import warn_about_rare_classes

NAMES = ['Forest', 'Water', 'Urban/Built-up']


class Stored(Chips):
    """Chips whose labels lie in memory."""

    def __init__(self, labels: list[list[float]]) -> None:
        super().__init__(('image',), len(labels))
        self.labels = labels

    def __getitem__(self, index: int) -> Any:
        raise AssertionError('no chip is read')

    def image_label(self, index: int) -> torch.Tensor:
        return torch.tensor(self.labels[index])


def refused(batch: Any) -> torch.Tensor:
    raise AssertionError('no chip is read')


def test_rare_classes_are_named_with_their_counts() -> None:
    # -1 is unknown, which is not present
    chips = Stored(5 * [[1.0, 0.0, -1.0]] + 4 * [[0.0, 1.0, -1.0]])
    with pytest.warns(LabelWarning) as caught:
        warn_about_rare_classes(chips, refused, NAMES)
    [warning] = caught
    text = str(warning.message)
    assert text.startswith(
        'Fewer than 5 of 9 labeled training chips show Water (4), Urban/Built-up (0). '
    )
    assert '\n' not in text
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_about_rare_classes(Stored(5 * [[1.0, 1.0, 1.0]]), refused, NAMES)


@pytest.mark.parametrize('keys', [('image', 'label'), ('image', 'mask')])
def test_it_is_said_before_training(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Class 2 is in no chip, whether labels are given or come from masks."""
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    with pytest.warns(LabelWarning, match=r'show Urban/Built-up \(0\)\. So few'):
        run.fit(tiny_task(), loader(*keys))


def test_reading_draws_nothing_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Random(Chips):
        read = 0

        def __getitem__(self, index: int) -> Any:
            self.read += 1
            torch.rand(1)
            return super().__getitem__(index)

    chips = Random(('image', 'label'))
    task = tiny_task()
    before = torch.get_rng_state()
    monkeypatch.setattr(rare_classes, 'READ', 10)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # of a part of the chips there is no count
        warn_about_rare_classes(chips, task.presence, NAMES)
    assert chips.read == 10
    assert torch.equal(torch.get_rng_state(), before)


def test_data_modules_are_asked_for_their_training_set(tmp_path: Path) -> None:
    data = SyntheticDataModule(
        2, img_size=32, root=str(tmp_path), size=32, num_tiles=(4, 2, 2)
    )
    task = tiny_task(num_classes=8, class_names=None, class_colors=None)
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    with pytest.warns(LabelWarning, match='Fewer than 5 of 4 labeled training chips'):
        run.fit(task, datamodule=data)


def test_batches_without_a_data_set_are_left_alone(tmp_path: Path) -> None:
    class Batches:
        def __iter__(self) -> Any:
            yield from loader('image', 'label')

    batches: Any = Batches()
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    with pytest.warns(LabelWarning) as caught:
        run.fit(tiny_task(), batches)
    # the counts of the epoch, and none before it
    [said] = [str(each.message) for each in caught if each.category is LabelWarning]
    assert said.startswith('No training chip of 8 contains Urban/Built-up. ')
