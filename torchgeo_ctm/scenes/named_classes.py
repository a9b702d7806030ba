"""Values of class rasters that name their classes."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelWarning, name_key
from ..grids import IGNORED


def match_values(
    named: dict[int, str] | None, classes: Sequence[str] | None, source: str
) -> NDArray[np.int64] | None:
    """Return the class of each value of a raster, matched by name.

    Args:
        named: Name of each value; None: the raster names none.
        classes: Names of the classes of the model, C; None: unknown.
        source: Name of the raster, for warnings.

    Returns:
        Class indices 0…C−1 by value 0, 1, 2, …, 255 for another class. None if values
        are class indices already, or no name is that of a class.
    """
    if not named or not classes:
        return None
    index = {name_key(name): number for number, name in enumerate(classes)}
    found = {value: index.get(name_key(name)) for value, name in named.items()}
    if all(value == number for value, number in found.items()):
        return None
    other = [named[value] for value, number in found.items() if number is None]
    if len(other) == len(named):
        warnings.warn(
            f'{source} names its classes {", ".join(named.values())}, which are none of '
            f'the model: {", ".join(classes)}. Its values are taken for class numbers.',
            LabelWarning,
            stacklevel=4,
        )
        return None
    if other:
        warnings.warn(
            f'{source} has classes that the model lacks: {", ".join(other)}. Pixels of '
            'them are ignored.',
            LabelWarning,
            stacklevel=4,
        )
    values = np.full(max(named) + 1, IGNORED)
    for value, number in found.items():
        if number is not None:
            values[value] = number
    return values


def as_classes(
    values: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return pixels as the classes of their values, see :func:`match_values`."""
    known = (values >= 0) & (values < len(classes))
    found = np.full(values.shape, IGNORED)
    found[known] = classes[values[known]]
    return found
