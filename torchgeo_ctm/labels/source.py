"""What a source of image labels is, and what it answers."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError, SettingError, nearest
from ..grids import Grid

#: Shares of area closer than this are equal: sums of parts differ by rounding.
ROUNDING = 1e-9


class ImageLabel(NamedTuple):
    """The image-level label of one window, over C classes."""

    #: 1 where the class is present, (C,) float32.
    present: NDArray[np.float32]
    #: Where presence or absence is known, (C,) bool; the loss leaves out the rest.
    known: NDArray[np.bool_]


class LabelSource(Protocol):
    """Anything that tells which classes a window of a scene contains."""

    #: Names of the C classes, in the order of the label's entries.
    classes: tuple[str, ...]

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a window, None where nothing is known of it.

        Args:
            grid: The window's own pixel grid: size in pixels, CRS and transform.
            tile: Name of the tile or scene it was cut from, for sources that are
                tables of names.
        """

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        """Return where a scene may have labels, so that windows are drawn there.

        Args:
            grid: The scene's pixel grid.

        Returns:
            Boxes (n, 4) of float64 in the scene's pixels: first row, first column, last
            row, last column; they may overlap. None: it may have labels anywhere.
        """


def label_from_shares(
    shares: NDArray[np.float64], coverage: float, min_share: float, min_coverage: float
) -> ImageLabel:
    """Derive a label from area shares, of which part of the window says nothing.

    A class is present where it covers *min_share* of the window. It is known to be
    absent where at least *min_coverage* of the window is known and the class stays
    below *min_share* there: the known ground is taken as a sample of the window.
    Between the two (below *min_share* of the window, but not of its known ground)
    nothing is known of the class.

    Args:
        shares: Share of the window that each class covers (C,), 0…1.
        coverage: Share of the window of which anything is known, 0…1.
        min_share: Smallest share that makes a class present, 0…1.
        min_coverage: Smallest coverage that tells that a class is absent.

    Returns:
        The label over C classes.
    """
    present = (shares >= min_share - ROUNDING) & (shares > ROUNDING)
    below = (shares < min_share * coverage - ROUNDING) | (shares <= ROUNDING)
    enough = coverage >= min_coverage - ROUNDING
    return ImageLabel(present.astype(np.float32), present | (below & enough))


def check_share(name: str, value: float) -> None:
    """Refuse a share of area outside 0…1.

    Raises:
        SettingError: If it is outside.
    """
    if not 0 <= value <= 1:
        close = min(max(value, 0), 1)
        raise SettingError(f'{name}={value}; needed: 0 to 1; nearest: {close:g}')


def class_indices(
    names: Iterable[str], classes: Sequence[str], where: str
) -> list[int]:
    """Return the positions of class names, whatever their case and blanks.

    Args:
        names: Names as found in a file.
        classes: Names of the classes.
        where: File, and row or field, for the message.

    Raises:
        LabelError: If a name is none of *classes*.
    """
    known = {class_key(name): index for index, name in enumerate(classes)}
    found = []
    for name in names:
        if class_key(name) not in known:
            close = nearest(class_key(name), known)
            hint = f'; nearest: {classes[known[close[11:]]]}' if close else ''
            if name.strip().lstrip('-').isdecimal():
                hint = (
                    '; it is a code: needed: a field of names, or the codes as '
                    f"classes=['{name}', …] and a task without class_names"
                )
            raise LabelError(
                f'{where}: {name!r} is none of the classes {", ".join(classes)}{hint}'
            )
        found.append(known[class_key(name)])
    return found


def class_key(name: str) -> str:
    """Return what makes two names the same class."""
    return ' '.join(str(name).casefold().split())
