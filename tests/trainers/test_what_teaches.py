"""After the first epoch, training says which chips and labels taught nothing."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.conftest import tiny_task
from tests.fakes.chips import Chips, trainer
from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.errors import DataError, SettingError


class Changed(Chips):
    """Chips whose label or image is another one."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(('image', 'label'))
        self.changes = changes

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = super().__getitem__(index)
        return {
            **sample,
            **{key: change(sample[key]) for key, change in self.changes.items()},
        }


def said(tmp_path: Path, chips: Any, **options: Any) -> list[str]:
    """Train one epoch; return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        run = trainer(tmp_path, limit_val_batches=0)
        run.fit(tiny_task(**options), DataLoader(chips, batch_size=8))
    return [str(each.message) for each in caught]


def certain(label: Tensor) -> Tensor:
    """Return labels of 1 for present and -1 for absent, as some libraries code them."""
    return 2 * label - 1


@pytest.mark.parametrize('change', [certain, torch.ones_like])
def test_labels_without_an_absent_class_are_told(tmp_path: Path, change: Any) -> None:
    [text] = [t for t in said(tmp_path, Changed(label=change)) if 'absent' in t]
    assert text == (
        'No class is absent in any of 24 training chips, but training requires absent '
        'classes. A label is 1 for present, 0 for absent and -1 for unknown; points and '
        'polygons say that classes are absent with complete=True.'
    )


def test_a_class_in_every_chip_is_told_unless_classes_compete(tmp_path: Path) -> None:
    def first(label: Tensor) -> Tensor:
        return torch.cat([torch.ones(1), label[1:]])

    [text] = [t for t in said(tmp_path, Changed(label=first)) if 'lacks' in t]
    assert text.startswith('No training chip of 24 lacks Forest. ')
    assert text.endswith('Set patches: {compete: true}.')
    competing = said(tmp_path, Changed(label=first), patches={'compete': True})
    assert not [t for t in competing if 'lacks' in t]


def test_usual_labels_are_not_warned_about(tmp_path: Path) -> None:
    for text in said(tmp_path, Changed()):
        assert 'absent' not in text
        assert 'lacks' not in text
        assert 'single number' not in text


@pytest.mark.parametrize(
    ('key', 'value', 'why'),
    [
        ('label', torch.nan, 'a known label'),
        ('label', -1, 'a known label'),
        ('image', torch.nan, 'a valid pixel'),
        ('image', torch.inf, 'a valid pixel'),
    ],
)
def test_training_on_nothing_is_an_error(
    tmp_path: Path, key: str, value: float, why: str
) -> None:
    chips = Changed(**{key: lambda x: torch.full_like(x, value)})
    with pytest.raises(
        DataError, match=f'None of 24 training chips has {why}'
    ) as found:
        said(tmp_path, chips)
    assert '\n' not in str(found.value)


def test_a_part_of_the_chips_may_have_no_label(tmp_path: Path) -> None:
    run = trainer(tmp_path, limit_val_batches=0, limit_train_batches=1)
    chips = Changed(label=lambda label: torch.full_like(label, -1))
    with pytest.warns(match='8 of 8 training chips have no labeled or no valid pixel'):
        run.fit(tiny_task(), DataLoader(chips, batch_size=8))


def test_images_of_a_single_number_are_told(tmp_path: Path) -> None:
    chips = Changed(image=torch.zeros_like)
    [text] = [t for t in said(tmp_path, chips) if 'single number' in t]
    assert text.startswith('Every image of Changed holds a single number.')


def test_numbers_of_a_sensor_are_told_without_a_scaling(tmp_path: Path) -> None:
    [text] = [t for t in said(tmp_path, Changed(), scaling=None) if 'null' in t]
    assert text.startswith('The network gets numbers up to 2,')
    small = Changed(image=lambda image: (image - 1500) / 500)
    assert not [t for t in said(tmp_path, small, scaling=None) if 'null' in t]


def test_an_offset_of_chips_is_advised_where_it_can_be_set(tmp_path: Path) -> None:
    drawn = torch.from_numpy(render(32, 32, 1)[0]).float()
    shifted = Changed(image=lambda image: drawn + 1000)
    [text] = [t for t in said(tmp_path, shifted) if 'offset' in t]
    assert text.endswith('Set offset: -1000 in model.init_args.scaling.')


def test_an_offset_that_was_added_twice_is_no_normalization(tmp_path: Path) -> None:
    twice = Changed(image=lambda image: image - 1000)
    scaling = {'offset': -1000}
    with pytest.raises(SettingError, match=r'negative, with offset -1000 added\.'):
        said(tmp_path, twice, scaling=scaling)
    # zeros may be nodata, which no offset makes a fault
    said(tmp_path, Changed(image=torch.zeros_like), scaling=scaling)


def test_a_batch_without_a_label_names_its_keys(tmp_path: Path) -> None:
    class Labels(Chips):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            sample = super().__getitem__(index)
            return {'image': sample['image'], 'labels': sample['label']}

    with pytest.raises(
        SettingError, match=r"got image, labels\. Rename 'labels' to 'label'\."
    ):
        said(tmp_path, Labels(('image', 'label')))
