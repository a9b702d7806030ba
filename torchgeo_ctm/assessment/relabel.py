"""Give a map other classes, names and colors."""

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Note, SceneError, SettingError, check_names
from ..files import atomic_path, check_file, check_not_input
from ..grids import IGNORED
from ..inference.former import former_products, retire
from ..inference.geotiff import RasterRows, check_output, rgb_of
from ..inference.masks import class_colors, open_mask
from ..inference.merging import merging
from ..inference.paths import product_path
from ..inference.style import style_text
from ..legends import class_color, renamed
from ..rasters import grid_of, value_names
from .strata import class_bands, strata_of


class _Classes(NamedTuple):
    """Classes of a map: names, colors, and the values of each."""

    names: list[str]
    colors: list[str]
    values: list[list[int]]


def relabel(
    mask: str | Path,
    output: str | Path,
    *,
    class_map: Sequence[str] | None = None,
    merge: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    style: bool = True,
    overwrite: bool = False,
) -> list[Path]:
    """Write a map with other classes, names or colors, as ``predict`` writes maps.

    Args:
        mask: Class raster.
        output: Class raster to write. Classes are numbered 0, 1, 2, …
        class_map: Names of the values of a map that does not name them: see
            :func:`.legends.renamed`. Values of one name become one class.
        merge: Merged classes as ``'A+B=NAME'``; ``'A=NAME'`` renames a class.
        names: Names of all classes after that, in order.
        colors: Their colors, as matplotlib reads them.
        style: Also write the style for QGIS, OUTPUT.qml.
        overwrite: Replace existing files.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written.
        SceneError: If the map cannot be read, or has more than 255 classes.
        SettingError: If names or colors are invalid.
    """
    output = check_output(output, overwrite)
    qml = output.with_suffix('.qml')
    for beside in (qml, output.with_name(f'{output.name}.aux.xml')):
        if beside != qml or style:
            check_file(beside, overwrite)
    check_not_input(output, mask)
    new = _new(_old(mask, class_map), merge, names, colors)
    table = np.full(max(max(v) for v in new.values if v) + 1, IGNORED, np.uint8)
    for index, values in enumerate(new.values):
        table[values] = index
    former = former_products(output)
    with open_mask(mask) as raster:
        kept = ('AREA_OR_POINT', 'CLASS_NAMES')
        tags = {k: v for k, v in raster.tags().items() if k not in kept}
        rows = RasterRows(
            output, grid_of(raster), ['land cover class'], tags, (new.names, new.colors)
        )
        try:
            for row, band in class_bands(raster):
                rows.write(row, _translated(table, band))
            rows.finish('mode')
            if style:
                # one disk may have room for the style alone
                with atomic_path(qml) as hidden:
                    text = style_text(new.names, new.colors)
                    hidden.write_text(text, encoding='utf-8')
                    rows.publish()
            else:
                rows.publish()
        finally:
            rows.abandon()
    written = [output, *([qml] if style else [])]
    retire(former, written)
    confidence = product_path(Path(mask), 'confidence')
    if confidence.exists():
        warnings.warn(
            f'{confidence} is that of the classes of {mask}, so that {output} has none. '
            'If classes were only renamed, copy it to '
            f'{product_path(output, "confidence")}.',
            Note,
            stacklevel=2,
        )
    return written


def _check_new(mask: str, new: Collection[int], values: Sequence[int]) -> None:
    """Check that a class map names a value of a map that names others.

    Args:
        mask: Path of the map.
        new: Values that the class map adds.
        values: Values that the map holds.

    Raises:
        SettingError: If it names none of them.
    """
    if not {*new} & {*values}:
        some = ', '.join(map(str, sorted(new)[:5])) + ', …' * (len(new) > 5)
        raise SettingError(
            f'{mask} names its classes, and holds none of the values {some} of '
            'class_map. Leave class_map out, or use merge to rename classes.'
        )


def _translated(table: NDArray[np.uint8], band: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return the new classes of pixels (rows, width); −1 stays without."""
    found = np.append(table, np.uint8(IGNORED))[np.minimum(band, len(table))]
    return np.where(band < 0, np.uint8(IGNORED), found).astype(np.uint8)


def _old(mask: str | Path, class_map: Sequence[str] | None) -> _Classes:
    """Return the classes of a map."""
    with open_mask(mask) as raster:
        known = value_names(raster)
        palette = class_colors(raster)
        try:
            table = raster.colormap(1)
        except ValueError:
            table = {}
    strata = strata_of(mask)
    if class_map:
        named = renamed(class_map, known)
        if known is not None:
            added = named.keys() - known.keys()
            changed = {v for v in known.keys() & named.keys() if named[v] != known[v]}
            if added and not changed:
                _check_new(str(mask), added, strata.values[strata.pixels > 0].tolist())
    elif known is not None:
        named = {**known}
    else:
        named = dict(zip(strata.values.tolist(), strata.names, strict=True))
    missing = [
        str(value)
        for value, pixels in zip(strata.values.tolist(), strata.pixels, strict=True)
        if pixels and value not in named
    ]
    if missing:
        raise SceneError(
            f'{mask} holds class {", ".join(missing[:5])}, expected a name for each '
            f'in class_map. Pass --class_map "{missing[0]}=NAME", or '
            f'"{missing[0]}=" for nodata.'
        )
    values: dict[str, list[int]] = {}
    for value, name in sorted(named.items()):
        if name is not None and value >= 0:
            values.setdefault(name, []).append(value)
    if not values:
        raise SettingError('class_map leaves no class, expected at least one.')
    colors = []
    for number, first in enumerate(each[0] for each in values.values()):
        color = class_color(number)
        if first < len(palette):
            color = palette[first]
        elif table.get(first, (0, 0, 0, 0))[3]:
            color = '#' + bytes(table[first][:3]).hex()
        colors.append(color)
    return _Classes([*values], colors, [*values.values()])


def _new(
    old: _Classes,
    merge: Sequence[str] | None,
    names: Sequence[str] | None,
    colors: Sequence[str] | None,
) -> _Classes:
    """Return the classes of the new map."""
    merged = merging(merge, old.names, old.colors)
    values = [[v for m in group for v in old.values[m]] for group in merged.members]
    count = len(merged.names)
    for what, given in (('names', names), ('colors', colors)):
        if given is not None and len(given) != count:
            raise SettingError(
                f'{what} has {len(given)} entries, expected {count}: one for each of '
                f'{", ".join(merged.names)}.'
            )
    if count > IGNORED:
        raise SceneError(f'The map has {count} classes, expected at most {IGNORED}.')
    new = _Classes(list(names or merged.names), list(colors or merged.colors), values)
    check_names(new.names, SettingError, 'names')
    for color in new.colors:
        try:
            rgb_of(color)
        except ValueError as error:
            raise SettingError(
                f'Unknown color {color!r}, expected #rrggbb or a name as red.'
            ) from error
    return new
