"""Define what a source of image-level labels is, and what it returns."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError, SettingError, closest, name_key
from ..grids import Grid

#: Area shares that differ by less than this are equal: sums of parts are rounded.
ROUNDING = 1e-9


class ImageLabel(NamedTuple):
    """The image-level label of one window, over C classes."""

    #: 1 where the class is present, (C,) float32.
    present: NDArray[np.float32]
    #: Where presence or absence is known, (C,) bool; the loss skips the other classes.
    known: NDArray[np.bool_]


class LabelSource(Protocol):
    """Any source of image-level labels for windows of a scene."""

    #: Names of the C classes, in the order of the label's entries.
    classes: tuple[str, ...]

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a window, or None if nothing is known about it.

        Args:
            grid: The window's own pixel grid: size in pixels, CRS and transform.
            tile: Name of the tile or scene that the window belongs to, for sources
                that look labels up by name.
            clear: Pixels (H, W) of the window that are no cloud, for sources that know
                where in a window a class is. None: all.
        """

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        """Return where a scene may have labels, so that windows are drawn there.

        Args:
            grid: The scene's pixel grid.

        Returns:
            Boxes (n, 4) of float64 in the scene's pixels: first row, first column, last
            row, last column; they may overlap. None: labels may be anywhere.
        """


class Unlabeled:
    """A source without labels: nothing is known about any window."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Create the source.

        Args:
            classes: Names of the classes.
        """
        self.classes = tuple(classes)

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel:
        """Return a label in which every class is unknown."""
        count = len(self.classes)
        return ImageLabel(np.zeros(count, np.float32), np.zeros(count, bool))

    def extents(self, grid: Grid) -> None:
        """Return None: windows may be anywhere."""


def label_from_shares(
    shares: NDArray[np.float64], coverage: float, min_share: float, min_coverage: float
) -> ImageLabel:
    """Derive the label of a window from area shares.

    A class is present if it covers *min_share* of the window. It is absent if at least
    *min_coverage* of the window is known and the class covers less than *min_share* of
    the known part, which counts as a sample of the window. In between (less than
    *min_share* of the window, but not of its known part) the class is unknown.

    Args:
        shares: Share of the window that each class covers (C,), 0…1.
        coverage: Share of the window that is known, 0…1.
        min_share: Smallest share that makes a class present, 0…1.
        min_coverage: Smallest coverage at which classes can be absent.

    Returns:
        The label over C classes.
    """
    present = (shares >= min_share - ROUNDING) & (shares > ROUNDING)
    below = (shares < min_share * coverage - ROUNDING) | (shares <= ROUNDING)
    enough = coverage >= min_coverage - ROUNDING
    return ImageLabel(present.astype(np.float32), present | (below & enough))


def check_share(name: str, value: float) -> None:
    """Check that an area share is in 0…1.

    Raises:
        SettingError: If it is not.
    """
    if not 0 <= value <= 1:
        # 10 means percent, and -0.1 is below all
        limit = value / 100 if 1 < value <= 100 else min(max(value, 0), 1)
        raise SettingError(
            f'{name}={value} is out of range, expected 0 to 1. Did you mean {limit:g}?'
        )


def class_indices(
    names: Iterable[str], classes: Sequence[str], where: str
) -> list[int]:
    """Return the positions of class names, ignoring case and blanks.

    Args:
        names: Names as found in a file.
        classes: Names of the classes.
        where: File, and row or field, for the message.

    Raises:
        LabelError: If a name is not one of *classes*.
    """
    known = {name_key(name): index for index, name in enumerate(classes)}
    found = []
    for name in names:
        if name_key(name) not in known:
            close = closest(name_key(name), known)
            hint = f' Did you mean {classes[known[close]]!r}?' if close else ''
            if name.strip().lstrip('-').isdecimal():
                hint = (
                    ' This looks like a code: choose a field with names, or pass the '
                    f"codes as classes=['{name}', …] and no class_names to the task."
                )
            raise LabelError(
                f'{where}: unknown class {name!r}, expected one of: '
                f'{", ".join(classes)}.{hint}'
            )
        found.append(known[name_key(name)])
    return found
