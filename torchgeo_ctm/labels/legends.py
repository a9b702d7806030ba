"""Legends of well-known land-cover maps: raster value → class name."""

from collections.abc import Mapping

from ..errors import SettingError, did_you_mean

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

LEGENDS: dict[str, dict[int, str]] = {
    'worldcover': WORLDCOVER,
    'igbp': IGBP,
    'igbp-simplified': IGBP_SIMPLIFIED,
}


def legend(class_map: Mapping[int, str] | str) -> dict[int, str]:
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
