from pathlib import Path

import pytest

from torchgeo_ctm.errors import nearest, nearest_file

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
    assert nearest(given, CLASSES) == (f'; nearest: {found}' if found else '')


def test_a_part_of_two_names_is_neither() -> None:
    names = ('Evergreen Needleleaf Forests', 'Evergreen Broadleaf Forests')
    assert nearest('green', names) == ''
    assert nearest('broad', names) == '; nearest: Evergreen Broadleaf Forests'


def test_the_nearest_file(tmp_path: Path) -> None:
    for name in ('train.yaml', 'train.txt'):
        (tmp_path / name).touch()
    close = nearest_file(tmp_path / 'trian.yaml', ('.yaml',))
    assert close == f'; nearest: {tmp_path / "train.yaml"}'
    assert nearest_file(tmp_path / 'zebra.yaml', ('.yaml',)) == ''
    assert nearest_file(tmp_path / 'no' / 'train.yaml', ('.yaml',)) == ''
