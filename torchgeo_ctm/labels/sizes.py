"""Are windows as large as what was labelled?"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LabelWarning
from ..grids import Grid
from .polygons import PolygonLabels
from .source import LabelSource

#: Share of the ground below which polygons lie apart, and do not add up in a window.
APART = 0.5


def check_sizes(
    source: LabelSource, grids: Sequence[Grid], window: int, patch: int
) -> None:
    """Tell when polygons are too small to make a class present in a window.

    Small polygons that each have one class, side by side, add up to a land-cover map:
    then nothing is said. Where they lie apart, name several classes each, or a class
    must cover more than half of a window, windows get no label, or are told that what
    they hold is absent.

    Args:
        source: Labels; only polygons have a size.
        grids: Grids of the scenes.
        window: Side of a window in pixels.
        patch: Side of the model's patches in pixels, whose multiple a window is.
    """
    if not isinstance(source, PolygonLabels):
        return
    areas = np.concatenate([_areas(source, grid) for grid in grids])
    typical = float(np.median(areas)) if len(areas) else math.inf
    if typical >= source.min_share * window**2:
        return
    ground = sum(grid.height * grid.width for grid in grids)
    several = bool((source.members.sum(axis=1) > 1).any())
    if not (several or source.min_share > 0.5 or areas.sum() < APART * ground):
        return
    side = math.sqrt(typical)
    fits = max(1, round(side / patch)) * patch
    warnings.warn(
        f'the labels of {source.path}: a typical polygon has {side:.0f} × {side:.0f} '
        f'px, a window {window} × {window} px, and a class must cover '
        f'min_share={source.min_share:g} of it to be present: what a window holds may '
        f'be taken as absent; nearest: img_size={fits}',
        LabelWarning,
        stacklevel=2,
    )


def _areas(source: PolygonLabels, grid: Grid) -> NDArray[np.float64]:
    """Return the areas (n,) in pixels of the polygons that touch a scene."""
    polygons = source.view(grid.crs).whole[source.touching(grid)]
    areas: NDArray[np.float64] = shapely.area(polygons) / abs(
        grid.transform.determinant
    )
    return areas
