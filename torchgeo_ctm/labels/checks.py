"""Check that labels and scenes overlap, and that windows suit the labels."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning, Note, SettingError
from ..grids import Grid
from .features import FeatureLabels
from .points import PointLabels
from .polygons import PolygonLabels
from .rasters import RasterLabels
from .source import LabelSource
from .tables import TableLabels

#: Values that a message names at most.
NAMED = 10
#: Share of the scenes' area below which polygons are isolated, and do not add up in a
#: window.
ISOLATED = 0.5


def check_overlap(
    source: LabelSource, grids: Sequence[Grid], tiles: Sequence[str] | None = None
) -> None:
    """Check that labels overlap the scenes; warn if most do not.

    Values of class rasters that are not in their class map are reported too.

    Args:
        source: Labels.
        grids: Grids of the scenes.
        tiles: Names of the scenes, to look up labels from a table.

    Raises:
        LabelError: If no label touches any scene. If labels would with x and y swapped,
            the message says so.
        SettingError: If there is no scene.
    """
    if not grids:
        raise SettingError('No scene was given, expected at least one.')
    if isinstance(source, FeatureLabels):
        _check_features(source, grids)
    if isinstance(source, PolygonLabels):
        _check_outlines(source)
    names = [None] * len(grids) if tiles is None else tiles
    labeled = [
        _has_labels(source, grid, name) for grid, name in zip(grids, names, strict=True)
    ]
    if isinstance(source, RasterLabels):
        _report_unmapped(source, grids)
    if isinstance(source, TableLabels) and tiles is not None:
        _check_names(source, tiles)
    if not any(labeled):
        raise LabelError(
            f'{_name(source)} overlap none of the {len(grids):,} scenes, expected '
            'labels of the same area.'
        )
    lost = [str(name) for name, has in zip(names, labeled, strict=True) if not has]
    if lost:
        few = sum(labeled) < len(labeled) / 2
        some = ', '.join(lost[:3]) + ', …' * (len(lost) > 3)
        _warn(
            f'{_name(source)} overlap {"only " * few}{sum(labeled):,} of {len(grids):,} '
            f'scenes{"" if tiles is None else f", not {some}"}.',
            LabelWarning if few else Note,
        )


def _check_names(source: TableLabels, tiles: Sequence[str]) -> None:
    """Check that a table names the scenes; warn if it names others.

    Raises:
        LabelError: If it names none of them.
    """
    lost = source.lost(tiles)
    some = ', '.join(lost[:3]) + ', …' * (len(lost) > 3)
    if len(lost) == len(source):
        raise LabelError(
            f'{_name(source)} name none of the {len(tiles):,} scenes: they name {some}, '
            f'the scenes are {", ".join(tiles[:3])}{", …" * (len(tiles) > 3)}. Is '
            'id_field the column with the names of the scenes?'
        )
    if lost:
        _warn(
            f'{_name(source)}: {len(lost):,} of {len(source):,} rows name no scene: {some}.'
        )


def _has_labels(source: LabelSource, grid: Grid, tile: str | None) -> bool:
    """Return whether a scene may have labels; unknown counts as yes."""
    boxes = source.extents(grid)
    if boxes is not None:
        return len(boxes) > 0
    return tile is None or source.label(grid, tile) is not None


def _check_features(source: FeatureLabels, grids: Sequence[Grid]) -> None:
    """Check that features touch the scenes; warn if some do not.

    Raises:
        LabelError: If none does.
    """
    inside = _touching(source, grids)
    touching = len(inside)
    scenes = f'touch none of the {len(grids):,} scenes'
    if not touching:
        raise LabelError(f'{_name(source)} {scenes}. {_why_apart(source, grids)}')
    outside = len(source) - touching
    if outside:
        lost = ~source.members[inside].any(axis=0)
        names = ', '.join(np.array(source.classes)[lost])
        all_of = f' They are all that there is of {names}.' if names else ''
        _warn(f'{_name(source)}: {outside:,} of {len(source):,} {scenes}.{all_of}')


def _why_apart(source: FeatureLabels, grids: Sequence[Grid]) -> str:
    """Return what may be wrong with features that touch no scene."""
    if len(_touching(source.swapped(), grids)):
        return 'The file has x and y (longitude and latitude) swapped.'
    if source.crs.is_geographic:
        for factors, name, side in (
            ((-1, 1), 'Longitudes', 'west'),
            ((1, -1), 'Latitudes', 'south'),
        ):
            if len(_touching(source.mirrored(*factors), grids)):
                return f'{name} of the file have the wrong sign: {side} is negative.'
    return f'If {source.crs.name} is not their CRS, pass theirs as crs=.'


def label_needs(source: LabelSource, window: int) -> str:
    """Return what labels a window of some pixels needs, as the end of a sentence."""
    if isinstance(source, PointLabels) and source.min_points > 1:
        return (
            f'a window of {window} px holds min_points={source.min_points} points of a '
            'class; else lower min_points'
        )
    return f'labels cover enough of a window of {window} px; else use smaller windows'


def _check_outlines(source: PolygonLabels) -> None:
    """Warn about polygons with one outline and other classes."""
    outlines = shapely.to_wkb(shapely.normalize(source.geometry))
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(o, index), index) for index, o in enumerate(outlines)]
    differ = [p for p in pairs if (source.members[p[0]] != source.members[p[1]]).any()]
    if not differ:
        return
    rows, classes = source.rows[[*differ[0]]], source.members[[*differ[0]]]
    one, other = (';'.join(np.array(source.classes)[row]) for row in classes)
    more = len(differ) - 1
    _warn(
        f'{_name(source)}: rows {rows[0]:,} and {rows[1]:,} have one outline, but the '
        f'classes {one} and {other}{f" ({more:,} more such rows)" * bool(more)}. Remove '
        f'one, or write both classes into one, as {one};{other}.'
    )


def _touching(source: FeatureLabels, grids: Sequence[Grid]) -> NDArray[np.int64]:
    """Return the numbers of the features that touch any scene."""
    return np.unique(np.concatenate([source.touching(grid) for grid in grids]))


def _report_unmapped(source: RasterLabels, grids: Sequence[Grid]) -> None:
    """Warn about raster values that are not in the class map."""
    found: Counter[int] = sum((source.unmapped(grid) for grid in grids), Counter())
    if found:
        named = [f'{value} ({count:,} px)' for value, count in found.most_common(NAMED)]
        more = ['…'] if len(found) > NAMED else []
        _warn(
            f'{_name(source)}: {len(found):,} values in the scenes are not in class_map '
            f'and count as no class: {", ".join(named + more)}.'
        )


def check_sizes(
    source: LabelSource, grids: Sequence[Grid], window: int, patch: int
) -> None:
    """Warn if polygons are too small to make a class present in a window.

    Small adjacent polygons with one class each are a land-cover map: they add up in a
    window, and there is no warning. If small polygons are isolated, name several
    classes each, or a class must cover more than half of a window, windows get no
    label, or classes in them are taken as absent.

    Args:
        source: Labels; only polygons have a size.
        grids: Grids of the scenes.
        window: Side of a window in pixels.
        patch: Side of the model's patches in pixels, which divides the window.
    """
    if not isinstance(source, PolygonLabels):
        return
    areas = np.concatenate(
        [
            shapely.area(source.view(grid.crs).whole[source.touching(grid)])
            / abs(grid.transform.determinant)
            for grid in grids
        ]
    )
    typical = float(np.median(areas)) if len(areas) else math.inf
    least = source.min_coverage if source.whole else source.min_share
    if typical >= least * window**2:
        return
    isolated = areas.sum() < ISOLATED * sum(grid.height * grid.width for grid in grids)
    several = bool((source.members.sum(axis=1) > 1).any())
    if isolated or several or source.whole or source.min_share > 0.5:
        side = math.sqrt(typical)
        fits = max(1, round(side / patch)) * patch
        _warn(
            f'{_name(source)}: a typical polygon has {side:.0f} × {side:.0f} px, a '
            f'window {window} × {window} px, and {_requirement(source)} Did you mean '
            f'img_size={fits}?'
        )


def _requirement(source: PolygonLabels) -> str:
    """Return what small polygons miss, for a message."""
    if source.whole:
        return (
            f'one polygon must cover min_coverage={source.min_coverage:g} of it. Few '
            'windows have a label.'
        )
    return (
        f'a class must cover min_share={source.min_share:g} of it to be present. Present '
        'classes may be taken as absent.'
    )


def _name(source: LabelSource) -> str:
    """Return the name of labels in a message."""
    name = str(getattr(source, 'path', type(source).__name__))
    # as a message begins with it
    return f'Labels of {name.replace("The GeoDataFrame", "the GeoDataFrame")}'


def _warn(message: str, category: type[Warning] = LabelWarning) -> None:
    warnings.warn(message, category, stacklevel=4)
