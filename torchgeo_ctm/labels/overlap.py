"""Do labels and scenes lie on the same ground?"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import LabelError, LabelWarning, SettingError
from ..grids import Grid
from .features import FeatureLabels
from .rasters import RasterLabels
from .source import LabelSource

#: Values that a message names at most.
NAMED = 10


def check_overlap(
    source: LabelSource, grids: Sequence[Grid], tiles: Sequence[str] | None = None
) -> None:
    """Refuse labels that lie outside every scene, and tell when most of them do.

    Values of class rasters that their class map does not mention are told too.

    Args:
        source: Labels.
        grids: Grids of the scenes.
        tiles: Names of the scenes, which labels from a table are looked up by.

    Raises:
        LabelError: If no label touches any scene. Where they would with x and y
            exchanged, the message says so.
        SettingError: If there is no scene.
    """
    if not grids:
        raise SettingError('no scene was given; needed: at least one')
    if isinstance(source, FeatureLabels):
        _check_features(source, grids)
    empty = [
        not _has_labels(source, grid, tiles[index] if tiles is not None else None)
        for index, grid in enumerate(grids)
    ]
    if isinstance(source, RasterLabels):
        _tell_unmapped(source, grids)
    what = _what(source)
    if all(empty):
        raise LabelError(
            f'{what} lie in none of the {len(grids):,} scenes; needed: labels of the '
            'same ground'
        )
    if sum(empty) > len(empty) / 2:
        warnings.warn(
            f'{what} lie in only {empty.count(False):,} of {len(grids):,} scenes',
            LabelWarning,
            stacklevel=2,
        )


def _has_labels(source: LabelSource, grid: Grid, tile: str | None) -> bool:
    """Return whether a scene may have labels; unknown counts as yes."""
    boxes = source.extents(grid)
    if boxes is not None:
        return len(boxes) > 0
    return tile is None or source.label(grid, tile) is not None


def _check_features(source: FeatureLabels, grids: Sequence[Grid]) -> None:
    """Refuse features that touch no scene.

    Raises:
        LabelError: If none does.
    """
    touched = _touched(source, grids)
    if not touched:
        hint = (
            '; with x and y (longitude and latitude) exchanged they would: the file has '
            'them swapped'
            if _touched(source.swapped(), grids)
            else f'; is {source.crs.name} the CRS of its coordinates?'
        )
        raise LabelError(
            f'{_what(source)} touch none of the {len(grids):,} scenes{hint}'
        )
    outside = len(source) - touched
    if outside > len(source) / 2:
        warnings.warn(
            f'{_what(source)}: {outside:,} of {len(source):,} touch none of the '
            f'{len(grids):,} scenes',
            LabelWarning,
            stacklevel=3,
        )


def _tell_unmapped(source: RasterLabels, grids: Sequence[Grid]) -> None:
    """Tell which values of rasters are no class."""
    found: Counter[int] = Counter()
    for grid in grids:
        found += source.unmapped(grid)
    if not found:
        return
    named = [f'{value} ({count:,} px)' for value, count in found.most_common(NAMED)]
    more = ['…'] if len(found) > NAMED else []
    warnings.warn(
        f'{_what(source)}: {len(found):,} values around the scenes are not in '
        f'class_map and count as no class: {", ".join(named + more)}',
        LabelWarning,
        stacklevel=3,
    )


def _touched(source: FeatureLabels, grids: Sequence[Grid]) -> int:
    """Return how many features touch any scene."""
    touched = np.zeros(len(source), bool)
    for grid in grids:
        touched[source.touching(grid)] = True
    return int(touched.sum())


def _what(source: LabelSource) -> str:
    """Return how a message calls labels."""
    path = getattr(source, 'path', None)
    return f'the labels of {path}' if path else f'the labels of {type(source).__name__}'
