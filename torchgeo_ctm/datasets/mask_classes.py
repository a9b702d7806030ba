"""What the values in a mask stand for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, SettingError, nearest
from ..grids import IGNORED

#: How many different values a mask may hold: 16 bits.
VALUES = 65_536


class MaskClasses:
    """Turn the values of a mask into classes 0…C−1 and 255, ignored."""

    def __init__(
        self, classes: Sequence[str], mask_values: Mapping[int, str | None] | None
    ) -> None:
        """Create the table of values.

        Args:
            classes: Names of the C classes.
            mask_values: Name of the class, or None for ignored, of each value; None: a
                value is the class's position. 255 is ignored unless it is named.

        Raises:
            SettingError: If there are no classes, too many, or two of one name, or
                *mask_values* names an unknown class or an impossible value.
        """
        self.classes = _check_classes(classes)
        self._class_of = np.full(VALUES, -1, np.int64)
        self._class_of[IGNORED] = IGNORED
        if mask_values is None:
            self._class_of[: len(self.classes)] = np.arange(len(self.classes))
        for value, name in (mask_values or {}).items():
            self._class_of[_check_value(value)] = self._position(name)

    def _position(self, name: str | None) -> int:
        """Return the position of a class, 255 for None."""
        if name is None:
            return IGNORED
        if name not in self.classes:
            raise SettingError(
                f'mask_values: {name!r} is none of the classes '
                f'{", ".join(self.classes)}' + nearest(str(name), self.classes)
            )
        return self.classes.index(name)

    def __call__(self, values: NDArray[np.int64], where: str) -> Tensor:
        """Return the classes (H, W) int64 of a mask's values (H, W).

        Args:
            values: Values as they are stored.
            where: Name of the mask, for the message.

        Raises:
            DataError: If a value stands for no class.
        """
        inside = (values >= 0) & (values < VALUES)
        classes = np.where(inside, self._class_of[values.clip(0, VALUES - 1)], -1)
        if (classes < 0).any():
            raise DataError(self._unknown(np.unique(values[classes < 0]), where))
        return torch.from_numpy(classes)

    def _unknown(self, values: NDArray[np.int64], where: str) -> str:
        """Say which values stand for no class, and what is nearest."""
        shown = ', '.join(map(str, values[:5])) + (', …' if len(values) > 5 else '')
        known = np.flatnonzero(self._class_of >= 0)
        closest = int(known[np.abs(known - values[0]).argmin()])
        position = int(self._class_of[closest])
        name = 'ignored' if position == IGNORED else self.classes[position]
        lossy = where.lower().endswith(('.jpg', '.jpeg'))
        return (
            f'{where} holds {shown}, which stand for no class; needed: '
            f'{_ranges(known)}; nearest to {values[0]}: {closest} ({name})'
            + ('; JPEG changes values, PNG keeps them' if lossy else '')
        )


def _check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises:
        SettingError: If there are none, too many, or two of one name.
    """
    names = tuple(classes)
    if isinstance(classes, str) or not 0 < len(names) <= IGNORED:
        raise SettingError(
            f'classes={classes!r}; needed: a list of 1 to {IGNORED} names, in the order '
            'of their values in the masks'
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingError(f'classes: {twice[0]!r} is there twice')
    return names


def _check_value(value: int) -> int:
    """Return a value that a mask can hold.

    Raises:
        SettingError: If it is none.
    """
    if not isinstance(value, int) or not 0 <= value < VALUES:
        raise SettingError(
            f'mask_values: {value!r} is no value of a mask; needed: a whole number in '
            f'0…{VALUES - 1}'
        )
    return value


def _ranges(values: NDArray[np.int64]) -> str:
    """Return ascending numbers as ``0…20, 255``."""
    parts = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ', '.join(
        f'{part[0]}…{part[-1]}' if len(part) > 1 else str(part[0]) for part in parts
    )


def pascal_colors(count: int) -> tuple[str, ...]:
    """Return PASCAL VOC's colour map, ``#rrggbb``: up to 256 different colours.

    The bits of a class's number go to red, green and blue in turn, from the highest bit
    of a channel to its lowest (Everingham et al., VOC2012 development kit).
    """
    colors = []
    for number in range(count):
        channels = [
            sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
            for channel in range(3)
        ]
        colors.append('#' + ''.join(f'{value:02x}' for value in channels))
    return tuple(colors)
