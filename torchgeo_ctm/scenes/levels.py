"""How large the values of scenes are, compared: offsets and units."""

import warnings
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ReflectanceWarning
from ..reflectance import NEGATIVE, dark_values, offset_difference, surplus

#: Factor between typical values of two scenes above which they have other units.
OTHER_UNIT: Final = 30


class Levels(NamedTuple):
    """How large the values of a scene are."""

    scene: str
    #: Dark values of the bands, (bands,).
    dark: NDArray[Any]
    #: By how much they are too large, 0 if they are not.
    surplus: int
    #: The median of all values, without sign.
    typical: float


def levels_of(name: str, pixels: NDArray[Any], bands: Sequence[str]) -> Levels:
    """Return how large the values of a scene are.

    Args:
        name: Name of the scene.
        pixels: Some of its pixels, (bands, n).
        bands: Names of the bands.
    """
    typical = float(np.median(np.abs(pixels)))
    return Levels(name, dark_values(pixels, bands), surplus(pixels, bands), typical)


def warn_of_levels(levels: Sequence[Levels]) -> None:
    """Warn of scenes whose values differ from the first one's by offset or unit."""
    for scene in levels:
        fault = None
        if scene.surplus:
            fault = f'look as if {scene.surplus} had been added. Check the offset'
        elif len(scene.dark) and np.median(scene.dark) < NEGATIVE:
            fault = 'are far below 0, as after an offset that was subtracted twice'
        if fault is not None:
            warnings.warn(
                f'{scene.scene}: dark pixels {fault}.', ReflectanceWarning, stacklevel=3
            )
    for scene in levels[1:]:
        first = levels[0]
        small, large = sorted([first.typical, scene.typical])
        if large > OTHER_UNIT * small:
            warnings.warn(
                f'{scene.scene}: values of about {scene.typical:.3g}, those of '
                f'{first.scene} are about {first.typical:.3g}. Give both the same unit.',
                ReflectanceWarning,
                stacklevel=3,
            )
            continue
        difference: float | None = scene.surplus - first.surplus
        difference = difference or offset_difference(scene.dark, first.dark)
        if difference:
            kind = 'higher' if difference > 0 else 'lower'
            warnings.warn(
                f'{scene.scene}: dark pixels are about {abs(difference):,.0f} {kind} than '
                f'those of {first.scene} in every band, as with another offset. Give both '
                'the same.',
                ReflectanceWarning,
                stacklevel=3,
            )
