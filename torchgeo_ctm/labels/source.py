"""What a source of image labels is, and what it answers."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError, nearest
from ..windows import Grid


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
    known = {_key(name): index for index, name in enumerate(classes)}
    found = []
    for name in names:
        if _key(name) not in known:
            close = nearest(_key(name), known)
            hint = f'; nearest: {classes[known[close[11:]]]}' if close else ''
            raise LabelError(
                f'{where}: {name!r} is none of the classes {", ".join(classes)}{hint}'
            )
        found.append(known[_key(name)])
    return found


def _key(name: str) -> str:
    """Return what makes two names the same class."""
    return ' '.join(str(name).casefold().split())
