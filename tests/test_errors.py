from pathlib import Path

import pytest

from torchgeo_ctm.errors import closest, did_you_mean, similar_file

CLASSES = ('Forest', 'Water', 'Croplands', 'Urban/Built-up')


@pytest.mark.parametrize(
    ('given', 'found'),
    [
        ('Forrest', 'Forest'),
        ('Built', 'Urban/Built-up'),
        ('BUILT-UP', 'Urban/Built-up'),
        ('Deciduous broad-leaved forest', 'Forest'),
        ('xyz', ''),
        ('o', ''),  # a letter says nothing
    ],
)
def test_the_nearest_name(given: str, found: str) -> None:
    assert closest(given, CLASSES) == (found or None)
    question = f' Did you mean {found!r}?' if found else ''
    assert did_you_mean(given, CLASSES) == question


def test_a_part_of_two_names_is_neither() -> None:
    names = ('Evergreen Needleleaf Forests', 'Evergreen Broadleaf Forests')
    assert closest('green', names) is None
    assert closest('broad', names) == 'Evergreen Broadleaf Forests'


def test_the_nearest_file(tmp_path: Path) -> None:
    for name in ('train.yaml', 'train.txt'):
        (tmp_path / name).touch()
    close = similar_file(tmp_path / 'trian.yaml', ('.yaml',))
    assert close == f' Did you mean {str(tmp_path / "train.yaml")!r}?'
    assert similar_file(tmp_path / 'zebra.yaml', ('.yaml',)) == ''
    assert similar_file(tmp_path / 'no' / 'train.yaml', ('.yaml',)) == ''
