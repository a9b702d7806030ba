"""What changed between two maps of one place: hectares from each class to each other."""

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import LabelWarning, SceneError, SettingError, name_key
from ..files import check_file, check_not_input, staging_folder, uninterrupted
from ..grids import IGNORED, check_same_grid
from ..inference.areas import PixelAreas
from ..inference.former import check_polygons, former_products, retire
from ..inference.geotiff import RasterRows, check_output
from ..inference.masks import (
    check_percent,
    class_colors,
    open_confidence,
    open_mask,
    read_rows,
)
from ..inference.paths import product_path
from ..inference.style import write_style
from ..inference.vector import check_vector_output, publish_vector, vectorize
from ..rasters import grid_of
from .strata import Strata, class_bands, strata_of

#: The first class of a raster of change, and its color.
UNCHANGED = 'unchanged'
GRAY = '#e6e6e6'
#: Part of the color of a change that is of the later class.
LATER = 0.75

Floats = NDArray[np.float64]


class Change(NamedTuple):
    """The change between two maps.

    Attributes:
        hectares: Hectares on the ellipsoid, a row for each class before and a column for
            each class after.
        unknown: Hectares that a map does not know, or not well enough.
        paths: The files.
    """

    hectares: pd.DataFrame
    unknown: float
    paths: list[Path]


def change(
    before: str | Path,
    after: str | Path,
    output: str | Path,
    *,
    min_confidence: int = 0,
    polygons: bool = True,
    min_area: float = 0.0,
    overwrite: bool = False,
) -> Change:
    """Compare two maps of one place, class by class, by the names of the classes.

    The raster has the class ``unchanged``, then one for each change that occurs, as
    ``Forest to Water``, the largest first. The polygons are those of changes.

    Args:
        before: Class raster of the first date.
        after: That of the second date, on the same grid.
        output: Class raster of change to write (.tif), with OUTPUT.qml for QGIS.
        min_confidence: Percent; a pixel that either map knows less well, by its
            MASK_confidence.tif, has no class.
        polygons: Also write OUTPUT.gpkg.
        min_area: Leave out polygons of fewer hectares.
        overwrite: Replace existing files.

    Raises:
        OutputError: If a file cannot be written.
        SceneError: If a map cannot be read, they have no class in common, or more than
            254 changes occur.
        GridError: If the grids differ, or have no CRS.
        SettingError: If an option is invalid.
    """
    output = check_output(output, overwrite)
    paths = [output, check_file(output.with_suffix('.qml'), overwrite)]
    check_file(output.with_name(f'{output.name}.aux.xml'), overwrite)
    if polygons:
        check_polygons(output.with_suffix('.gpkg'))
        paths.append(check_vector_output(output.with_suffix('.gpkg'), overwrite))
    for path in (before, after):
        check_not_input(output, path)
        if min_confidence:
            check_not_input(output, product_path(Path(path), 'confidence'))
    if not 0 <= min_confidence <= 100:
        raise SettingError(f'min_confidence={min_confidence}, expected 0 to 100.')
    if 0 < min_confidence < 1:
        raise SettingError(
            f'min_confidence={min_confidence} is in percent, expected 0 or 1 to 100. '
            f'Did you mean {100 * min_confidence:g}?'
        )
    if not 0 <= min_area < np.inf:
        raise SettingError(f'min_area={min_area} ha, expected 0 or more.')
    pair = _Pair(before, after, min_confidence)
    hectares, unknown = pair.hectares()
    pair.warn_of_strangers(hectares)
    former = former_products(output)
    with staging_folder(output) as folder:
        _write(pair, hectares, paths, folder, min_area)
    retire(former, paths)
    return Change(
        pd.DataFrame(hectares, index=pair.names, columns=pair.names), unknown, paths
    )


def lines(found: Change) -> list[str]:
    """Return the hectares as lines of text."""
    table, values = found.hectares, found.hectares.to_numpy()
    total = float(values.sum())
    changed = float(values[~np.eye(len(values), dtype=bool)].sum())
    cells = [[f'{value:,.1f}' for value in row] for row in values]
    width = max(map(len, [*table.index, 'ha from']))
    widths = [
        max(map(len, [name, *column]))
        for name, column in zip(table.columns, zip(*cells, strict=True), strict=True)
    ]
    text = [
        '  '.join([f'{name:<{width}}', *map(str.rjust, row, widths)])
        for name, row in zip(
            ['ha from', *table.index], [[*table.columns], *cells], strict=True
        )
    ]
    share = changed / total if total else 0.0
    return [
        *text,
        f'changed    {changed:,.1f} ha, {share:.1%} of {total:,.1f} ha',
        f'unknown    {found.unknown:,.1f} ha',
    ]


class _Pair:
    """Two maps, read together."""

    def __init__(
        self, before: str | Path, after: str | Path, min_confidence: int
    ) -> None:
        self.paths, self.least = [Path(before), Path(after)], min_confidence
        strata = [strata_of(path) for path in self.paths]
        keys = [[name_key(name) for name in each.names] for each in strata]
        if not {*keys[0]} & {*keys[1]}:
            raise SceneError(
                f'{before} has the classes {", ".join(strata[0].names)}, {after} '
                f'{", ".join(strata[1].names)}: expected some in common. Name them alike '
                'with torchgeo-ctm relabel.'
            )
        named = dict(
            zip(keys[1] + keys[0], strata[1].names + strata[0].names, strict=True)
        )
        order = list(dict.fromkeys(keys[0] + keys[1]))
        #: Names of all classes, those of the first map first.
        self.names = [named[key] for key in order]
        self._own = [{order.index(key) for key in each} for each in keys]
        self._tables = [
            _table(each, [order.index(key) for key in own])
            for each, own in zip(strata, keys, strict=True)
        ]
        self.colors = self._colors(keys, order)

    def warn_of_strangers(self, hectares: Floats) -> None:
        """Warn of classes that one map alone can have: they count as change.

        Args:
            hectares: Hectares from class to class (C, C).
        """
        for one, two in ((0, 1), (1, 0)):
            path, other = self.paths[one], self.paths[two]
            occurs = hectares.sum(axis=two) > 0
            alone = sorted(self._own[one] - self._own[two])
            strange = [self.names[index] for index in alone if occurs[index]]
            if strange:
                warnings.warn(
                    f'{path} has {", ".join(map(repr, strange))}, which are no classes '
                    f'of {other}: their ground counts as changed. Name both alike with torchgeo-ctm '
                    'relabel.',
                    LabelWarning,
                    stacklevel=4,
                )

    def _colors(self, keys: list[list[str]], order: list[str]) -> list[str]:
        """Return the color of each class, of the later map where both have it."""
        found: dict[str, str] = {}
        for path, own in zip(self.paths, keys, strict=True):
            with open_mask(path) as raster:
                found |= dict(zip(own, class_colors(raster), strict=False))
        return [found.get(key, GRAY) for key in order]

    def bands(
        self,
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], Floats]]:
        """Read both maps by row bands.

        Yields:
            First row, classes before and after (rows, width), −1 where one is unknown,
            and hectares of the pixels.
        """
        with ExitStack() as stack:
            one, two = (stack.enter_context(open_mask(path)) for path in self.paths)
            check_same_grid(one.name, grid_of(one), two.name, grid_of(two))
            areas = PixelAreas(one)
            percents = [
                stack.enter_context(
                    open_confidence(product_path(path, 'confidence'), mask)
                )
                for path, mask in zip(self.paths, (one, two), strict=True)
                if self.least
            ]
            for (row, first), (_, second) in zip(
                class_bands(one), class_bands(two), strict=True
            ):
                found = [
                    np.append(table, -1)[np.where(values < 0, len(table), values)]
                    for table, values in zip(self._tables, (first, second), strict=True)
                ]
                unknown = (found[0] < 0) | (found[1] < 0)
                for percent in percents:
                    unknown |= _uncertain(percent, row, len(first), self.least)
                found = [np.where(unknown, -1, values) for values in found]
                yield row, found[0], found[1], areas.rows(row, row + len(first))

    def hectares(self) -> tuple[Floats, float]:
        """Return hectares from each class to each (C, C), and those that are unknown."""
        count, total = len(self.names), np.zeros(len(self.names) ** 2 + 1)
        for _, one, two, hectares in self.bands():
            index = np.where(one < 0, count**2, one * count + two)
            total += np.bincount(index.ravel(), hectares.ravel(), count**2 + 1)
        return total[:-1].reshape(count, count), float(total[-1])


def _uncertain(
    percent: DatasetReader, row: int, rows: int, least: int
) -> NDArray[np.bool_]:
    """Return where some rows of a confidence raster are below a percentage.

    Raises:
        SceneError: If they are no percentages.
    """
    values = read_rows(percent, row, rows).astype(np.int64)
    none = values == (IGNORED if percent.nodata is None else percent.nodata)
    check_percent(values[~none], percent.name)
    return np.asarray(none | (values < least), bool)


def _table(strata: Strata, index: list[int]) -> NDArray[np.int64]:
    """Return the index of the class of each value of a map, −1 for none."""
    table = np.full(int(strata.values.max()) + 1, -1, np.int64)
    table[strata.values] = index
    return table


def _write(
    pair: _Pair, hectares: Floats, paths: list[Path], folder: Path, min_area: float
) -> None:
    """Write the raster of change, its style and polygons: all of them, or none.

    Args:
        pair: The maps.
        hectares: Hectares from class to class (C, C).
        paths: Raster, style, and polygons if these are wanted.
        folder: Folder for files that are not complete.
        min_area: Leave out polygons of fewer hectares.
    """
    output = paths[0]
    count = len(pair.names)
    off = hectares * ~np.eye(count, dtype=bool)
    changes = [i for i in np.argsort(-off, axis=None, kind='stable') if off.flat[i] > 0]
    if len(changes) >= IGNORED:
        raise SceneError(
            f'{len(changes)} changes between {count} classes occur, expected at most '
            f'{IGNORED - 1}. Merge classes with torchgeo-ctm relabel --merge.'
        )
    table = np.full(count**2 + 1, IGNORED, np.uint8)
    table[np.arange(count) * (count + 1)] = 0
    names, colors = [UNCHANGED], [GRAY]
    for value, index in enumerate(changes, 1):
        ends = divmod(int(index), count)
        table[index] = value
        names.append(' to '.join(pair.names[each] for each in ends))
        shades = zip(*(to_rgb(pair.colors[each]) for each in ends), strict=True)
        red, green, blue = ((1 - LATER) * a + LATER * b for a, b in shades)
        colors.append(to_hex((red, green, blue)))
    tags = {'CHANGE': json.dumps([Path(path).name for path in pair.paths])}
    if pair.least:
        tags['MIN_CONFIDENCE'] = str(pair.least)
    with open_mask(pair.paths[0]) as raster:
        grid = grid_of(raster)
    classes = (names, colors)
    rows = RasterRows(output, grid, ['land cover class'], tags, classes, folder)
    try:
        for row, first, second, _ in pair.bands():
            rows.write(row, table[np.where(first < 0, -1, first * count + second)])
        rows.close()
        staged = [folder / path.name for path in paths]
        write_style(staged[1], names, colors)
        for path in staged[2:]:
            vectorize(rows.rows, path, min_area=min_area, leave_out=[0])
        rows.finish('mode')
        with uninterrupted():
            rows.publish()
            staged[1].replace(paths[1])
            for path, final in zip(staged[2:], paths[2:], strict=True):
                publish_vector(path, final)
    finally:
        rows.abandon()
