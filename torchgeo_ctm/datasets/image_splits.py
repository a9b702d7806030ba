"""Which images of a folder belong to training, validation and test."""

import hashlib
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import get_args

from ..errors import DataError, SettingError, nearest
from ..split import Split

SPLITS: tuple[Split, ...] = get_args(Split)


def check_split(split: str) -> None:
    """Refuse anything but 'train', 'val' and 'test'.

    Raises:
        SettingError: If *split* is something else.
    """
    if split not in SPLITS:
        raise SettingError(
            f'split={split!r} is unknown; needed: one of {", ".join(SPLITS)}'
            + nearest(split, SPLITS)
        )


def read_list(path: Path) -> list[str]:
    """Return the names in a list, one a line.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f'{path} cannot be read as a list of images: {error}'
        ) from error
    return [line.strip() for line in lines if line.strip()]


def check_listed(names: Sequence[str], found: Collection[str], where: str) -> None:
    """Check that listed images are there, and listed once.

    Args:
        names: Names in the list.
        found: Names of the images that are there.
        where: The list, for the message.

    Raises:
        DataError: If one is not.
    """
    there = set(found)
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(
            f'{where} lists {len(names)} images, {len(missing)} of them are not there: '
            + ', '.join(missing[:3])
            + nearest(missing[0], found)
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f'{where} lists {twice} twice')


def drawn_split(name: str, shares: Sequence[float]) -> Split:
    """Return the split of an image, drawn by its name alone.

    Args:
        name: Name of the image.
        shares: Shares of training, validation and test, which sum to 1.

    Raises:
        SettingError: If these are not three shares that sum to 1.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise SettingError(
            f'shares={list(shares)}; needed: three that sum to 1, as [0.8, 0.1, 0.1]'
        )
    digest = hashlib.sha256(name.encode()).digest()
    place = int.from_bytes(digest[:4], 'big') / 2**32
    train, both, _ = accumulate(shares)
    if place < train:
        return 'train'
    return 'val' if place < both else 'test'
