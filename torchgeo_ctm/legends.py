"""Legends of well-known land-cover maps: raster value → class name."""

import re
from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .errors import SettingError, did_you_mean, name_key

#: ESA WorldCover 10 m 2021 v200 (product user manual, table of the 11 classes).
WORLDCOVER = {
    10: 'Tree cover',
    20: 'Shrubland',
    30: 'Grassland',
    40: 'Cropland',
    50: 'Built-up',
    60: 'Bare / sparse vegetation',
    70: 'Snow and ice',
    80: 'Permanent water bodies',
    90: 'Herbaceous wetland',
    95: 'Mangroves',
    100: 'Moss and lichen',
}

#: MODIS MCD12Q1, layer LC_Type1, and SEN12MS's first band of land cover: the
#: International Geosphere-Biosphere Programme's classes (user guide of collection 6).
IGBP = {
    1: 'Evergreen Needleleaf Forests',
    2: 'Evergreen Broadleaf Forests',
    3: 'Deciduous Needleleaf Forests',
    4: 'Deciduous Broadleaf Forests',
    5: 'Mixed Forests',
    6: 'Closed Shrublands',
    7: 'Open Shrublands',
    8: 'Woody Savannas',
    9: 'Savannas',
    10: 'Grasslands',
    11: 'Permanent Wetlands',
    12: 'Croplands',
    13: 'Urban and Built-up Lands',
    14: 'Cropland/Natural Vegetation Mosaics',
    15: 'Permanent Snow and Ice',
    16: 'Barren',
    17: 'Water Bodies',
}

#: IGBP's classes in the simplified scheme of the 2020 Data Fusion Contest
#: (https://arxiv.org/abs/2002.08254), as TorchGeo's SEN12MSDataModule maps them.
IGBP_SIMPLIFIED = {
    1: 'Forest',
    2: 'Forest',
    3: 'Forest',
    4: 'Forest',
    5: 'Forest',
    6: 'Shrubland',
    7: 'Shrubland',
    8: 'Savanna',
    9: 'Savanna',
    10: 'Grassland',
    11: 'Wetlands',
    12: 'Croplands',
    13: 'Urban/Built-up',
    14: 'Croplands',
    15: 'Snow/Ice',
    16: 'Barren',
    17: 'Water',
}

#: The masks of DFC2020: the simplified scheme by its own numbers.
DFC2020 = dict(enumerate(dict.fromkeys(IGBP_SIMPLIFIED.values()), 1))

#: Band "label" of Dynamic World V1 (https://doi.org/10.1038/s41597-022-01307-4).
DYNAMIC_WORLD = {
    0: 'Water',
    1: 'Trees',
    2: 'Grass',
    3: 'Flooded vegetation',
    4: 'Crops',
    5: 'Shrub and scrub',
    6: 'Built',
    7: 'Bare',
    8: 'Snow and ice',
}

#: Sentinel-2 10 m Land Use/Land Cover of Esri and Impact Observatory, since 2017.
ESRI = {
    1: 'Water',
    2: 'Trees',
    4: 'Flooded vegetation',
    5: 'Crops',
    7: 'Built area',
    8: 'Bare ground',
    9: 'Snow/ice',
    10: 'Clouds',
    11: 'Rangeland',
}

#: Colors of Dynamic World, and how words begin that name the same ground, in English,
#: German, French, Spanish, Italian and Portuguese. ``$`` ends a word.
COLORS = {
    '#419bdf': 'water|lake|river|ocean|sea$|gewässer|.*wasser|fluss|see$|meer|eaux?$|'
    'lac$|rivière|mer$|agua|río|lago|mar$|acqua|fiume|mare$|água',
    '#397d49': 'tree|forest|wood|.*wald|wälder|bäume|baum|forêt|bois$|arbre|bosque|'
    'árbol|bosc|foresta|alber|floresta|árvore',
    '#88b053': 'grass|meadow|pasture|(?!salz).*wiese|weide|grünland|prairie|pâtur|prad|'
    'prat|pasto|pastag|pascol',
    '#7a87c6': 'flooded|wetland|marsh|swamp|sumpf|moor$|salzwies|feucht|marais|humid|'
    'humed|pantan|palud|umid|húmid',
    '#e49635': 'crop|field|agricult|acker|äcker|feld|culture|champs?$|cultiv|coltiv|'
    'agrícol|agricol|lavour',
    '#dfc35a': 'shrub|scrub|savanna|open|busch|gebüsch|strauch|heide|arbust|buisson|'
    'matorral|cespugli|macchia',
    '#c4281b': 'built|urban|building|settlement|town|siedlung|bebau|gebäude|stadt|städt|'
    'bâti|ville|urbain|ciudad|edific|construi|città|cidade',
    '#a59b8f': 'bare|barren|sand|beach|rock|soil|strand|fels|boden$|sable|plage|roche|'
    'sols?$|arena|playa|roca|suelo|sabbia|spiaggia|rocc|suolo|areia|praia|rocha',
    '#b39fe1': 'snow|ice|glacier|schnee|eis$|gletscher|neige|glace|nieve|hielo|neve|'
    'ghiacci|gelo$',
}
#: Colors of other classes, unlike those.
OTHER_COLORS = ('#e377c2', '#9467bd', '#8c564b', '#bcbd22', '#17becf', '#393b79')
#: Colors of classes whose names are not looked at: matplotlib's tab20.
TAB20 = (
    *('#1f77b4', '#aec7e8', '#ff7f0e', '#ffbb78', '#2ca02c', '#98df8a', '#d62728'),
    *('#ff9896', '#9467bd', '#c5b0d5', '#8c564b', '#c49c94', '#e377c2', '#f7b6d2'),
    *('#7f7f7f', '#c7c7c7', '#bcbd22', '#dbdb8d', '#17becf', '#9edae5'),
)
#: Colors between which further ones are chosen: hues, lightness and saturation.
GRID = [
    '#' + ''.join(f'{round(255 * x):02x}' for x in hls_to_rgb(hue / 32, light, full))
    for light in (0.5, 0.3, 0.7, 0.4, 0.6)
    for full in (0.9, 0.5)
    for hue in range(32)
]

LEGENDS: dict[str, dict[int, str]] = {
    'worldcover': WORLDCOVER,
    'dfc2020': DFC2020,
    'dynamic-world': DYNAMIC_WORLD,
    'esri': ESRI,
    'igbp': IGBP,
    'igbp-simplified': IGBP_SIMPLIFIED,
}


def as_class_map(class_map: Mapping[int, str] | str) -> dict[int, str]:
    """Return a class map, looking up the name of a well-known legend.

    Raises:
        SettingError: If the name is unknown, a value is not an integer, or the map is
            empty.
    """
    if isinstance(class_map, str):
        if class_map not in LEGENDS:
            raise SettingError(
                f'Unknown class_map {class_map!r}, expected one of: '
                f'{", ".join(LEGENDS)}; or a class name for each value.'
                f'{did_you_mean(class_map, LEGENDS)}'
            )
        return LEGENDS[class_map]
    try:
        found = {int(value): str(name) for value, name in class_map.items()}
    except ValueError as error:
        raise SettingError(
            f'Invalid class_map: {error}, expected an integer for each class.'
        ) from error
    if not found:
        raise SettingError('class_map is empty, expected a class name for each value.')
    return found


def usual_colors(names: Sequence[str]) -> list[str]:
    """Return the ``#rrggbb`` that maps usually give to classes of these names.

    Each color is given once. Where names and :data:`OTHER_COLORS` leave none, classes
    get colors that are as far as possible from all others.
    """
    others = iter(OTHER_COLORS)
    colors: list[str | None] = []
    for name in names:
        words = re.findall(r'[^\W_]+', name_key(name))
        fitting = [
            color
            for color, begins in COLORS.items()
            if any(re.match(begins, word) for word in words) and color not in colors
        ]
        colors.append(fitting[0] if fitting else next(others, None))
    given = [color for color in colors if color is not None]
    more = iter(_unlike([*given, *COLORS, *OTHER_COLORS], len(names) - len(given)))
    return [next(more) if color is None else color for color in colors]


@cache
def class_color(index: int) -> str:
    """Return the ``#rrggbb`` of a class by its index: tab20, then colors unlike those."""
    if index < len(TAB20):
        return TAB20[index]
    return _unlike(TAB20, index + 1 - len(TAB20))[-1]


def _unlike(used: Sequence[str], count: int) -> list[str]:
    """Return colors of which each is far from those that are used, black and white."""
    grid, more = _channels(GRID), []
    distance = np.full(len(grid), np.inf)
    for color in _channels([*used, '#000000', '#ffffff']):
        distance = np.minimum(distance, np.linalg.norm(grid - color, axis=1))
    for _ in range(count):
        best = int(distance.argmax())
        more.append(GRID[best])
        distance = np.minimum(distance, np.linalg.norm(grid - grid[best], axis=1))
    return more


def _channels(colors: Sequence[str]) -> NDArray[np.float64]:
    """Return red, green and blue of colors, (n, 3)."""
    return np.array([list(bytes.fromhex(color[1:])) for color in colors], np.float64)


def renamed(
    entries: Sequence[str], names: Mapping[int, str] | None
) -> dict[int, str | None]:
    """Return the class of each value of a raster.

    Args:
        entries: Each the name of a well-known legend, ``VALUE=NAME``, or
            ``NAME=OTHER NAME`` for all values of a name. Nothing after the sign means
            that the values do not count. A comma in a name has split an entry.
        names: Names that the raster itself has for its values, or None.

    Returns:
        Value → name, or None if it does not count.

    Raises:
        SettingError: If an entry is invalid, a name is unknown, or a value has two.
    """
    found: dict[int, str | None] = dict(names or {})
    given: dict[int, str] = {}
    for entry in rejoined(entries, LEGENDS):
        old, equals, new = (part.strip() for part in entry.rpartition('='))
        if not equals:
            found |= as_class_map(new)
        elif old.lstrip('-').isdigit():
            if given.setdefault(int(old), new) != new:
                raise SettingError(
                    f'class_map names the value {old} twice, {given[int(old)]!r} and '
                    f'{new!r}, expected one name.'
                )
            found[int(old)] = new or None
        else:
            source = dict(names or {}) | {v: n for v, n in found.items() if n}
            values = [v for v, n in source.items() if name_key(n) == name_key(old)]
            if not values:
                known = list(dict.fromkeys(source.values()))
                raise SettingError(
                    f'Unknown class {old!r} in class_map {entry!r}, expected one of: '
                    f'{", ".join(known) or "no name is known"}.'
                    f'{did_you_mean(old, known)}'
                )
            found |= dict.fromkeys(values, new or None)
    return found


def rejoined(
    parts: Sequence[str], whole: Sequence[str] | Mapping[str, object] = ()
) -> list[str]:
    """Return entries with ``=`` that commas in class names have split.

    Args:
        parts: Parts of the entries, in order.
        whole: Parts that are entries without ``=``.
    """
    entries, rest = [], ''
    for part in parts:
        rest = f'{rest}, {part}' if rest else part
        if '=' in part or rest in whole:
            entries.append(rest)
            rest = ''
    return [*entries, rest] if rest else entries
