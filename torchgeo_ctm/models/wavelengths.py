"""Wavelengths of bands by name, for networks that are conditioned on them."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import SettingError, did_you_mean
from ..scaling import band_key, is_reflectance


class Spectrum(NamedTuple):
    """Center and width of a band, in micrometers."""

    center: float
    width: float


#: Width in micrometers of a band of which only the center is given.
WIDTH = 0.05
#: What radar bands are given as: values that mean radar, not its wavelength.
RADAR = Spectrum(50_000.0, 1_000_000.0)
RADAR_DOFA = 3.75

#: Sentinel-2, as DOFA and Copernicus-FM were trained with it.
SENTINEL2 = {
    'b1': Spectrum(0.44, 0.02),
    'b2': Spectrum(0.49, 0.065),
    'b3': Spectrum(0.56, 0.035),
    'b4': Spectrum(0.665, 0.03),
    'b5': Spectrum(0.705, 0.015),
    'b6': Spectrum(0.74, 0.015),
    'b7': Spectrum(0.783, 0.02),
    'b8': Spectrum(0.842, 0.115),
    'b8a': Spectrum(0.86, 0.02),
    'b9': Spectrum(0.94, 0.02),
    'b10': Spectrum(1.37, 0.03),
    'b11': Spectrum(1.61, 0.09),
    'b12': Spectrum(2.19, 0.18),
}
#: Landsat 8 and 9 (OLI and TIRS), by the number of the band.
LANDSAT = {
    '1': Spectrum(0.443, 0.016),
    '2': Spectrum(0.482, 0.06),
    '3': Spectrum(0.561, 0.057),
    '4': Spectrum(0.655, 0.037),
    '5': Spectrum(0.865, 0.028),
    '6': Spectrum(1.609, 0.085),
    '7': Spectrum(2.201, 0.187),
    '8': Spectrum(0.59, 0.172),
    '9': Spectrum(1.373, 0.02),
    '10': Spectrum(10.895, 0.59),
    '11': Spectrum(12.005, 1.01),
}
#: PlanetScope SuperDove, by its names, and NAIP, by TorchGeo's.
NAMED = {
    'coastal_blue': Spectrum(0.443, 0.02),
    'blue': Spectrum(0.49, 0.05),
    'green_i': Spectrum(0.531, 0.036),
    'green': Spectrum(0.565, 0.036),
    'yellow': Spectrum(0.61, 0.02),
    'red': Spectrum(0.665, 0.031),
    'red_edge': Spectrum(0.705, 0.015),
    'rededge': Spectrum(0.705, 0.015),
    'nir': Spectrum(0.865, 0.04),
    'r': Spectrum(0.635, 0.032),
    'g': Spectrum(0.555, 0.06),
    'b': Spectrum(0.465, 0.06),
}
LANDSAT_NAME = re.compile(r'(?:l[89]|lc0?[89]|oli|tirs|sr|st|toa)[ _-]?b0*(\d+)$')


def landsat_key(name: str) -> str:
    """Return one key for all names of a band of Landsat 8 and 9: ``b5`` for ``SR_B5``."""
    found = LANDSAT_NAME.match(band_key(name))
    return f'b{found[1]}' if found else band_key(name)


def like_landsat(bands: Sequence[str]) -> bool:
    """Return whether bare names, as ``B5``, are rather Landsat's than Sentinel-2's.

    That is where they hold near and shortwave infrared of Landsat, or its two thermal
    bands, and no band 8A or 12, which Sentinel-2 alone has.
    """
    keys = {name.strip().lower() for name in bands}
    infrared = {'b5', 'b6', 'b7'} <= keys and 'b8' not in keys
    return (infrared or {'b10', 'b11'} <= keys) and not {'b8a', 'b12'} & keys


def band_spectra(
    bands: Sequence[str], given: Mapping[str, float] | None = None
) -> list[Spectrum]:
    """Return center and width of each band.

    ``B1`` to ``B12`` are Sentinel-2's; those of Landsat 8 and 9 are ``SR_B5``,
    ``ST_B10`` or ``L8_B5``.

    Args:
        bands: Names of the bands.
        given: Centers in micrometers by band name, which take precedence.

    Raises:
        SettingError: If a band is unknown, or a given center is not one.
    """
    own = {band_key(name): value for name, value in (given or {}).items()}
    for name in given or {}:
        if band_key(name) not in map(band_key, bands):
            raise SettingError(
                f'wavelengths has {name!r}, but the bands are {", ".join(bands)}.'
                + did_you_mean(name, bands)
            )
    return [_spectrum(band, own) for band in bands]


def _spectrum(band: str, given: Mapping[str, float]) -> Spectrum:
    """Return center and width of a band."""
    key = band_key(band)
    if key in given:
        number = isinstance(given[key], int | float)
        if not number or not 0.1 <= given[key] <= 100:
            raise SettingError(
                f'wavelengths of {band!r} must be 0.1 to 100 micrometers, got '
                f'{given[key]!r}.'
            )
        return Spectrum(float(given[key]), WIDTH)
    if not is_reflectance(band):
        return RADAR
    landsat = LANDSAT_NAME.match(key)
    found = LANDSAT.get(landsat[1]) if landsat else SENTINEL2.get(key) or NAMED.get(key)
    if found is None:
        raise SettingError(
            f'The wavelength of band {band!r} is unknown. Set model_options: {{wavelengths: '
            f'{{{band}: MICROMETERS}}}}, or bands to the names of Sentinel-2, Landsat '
            '(SR_B5), NAIP or PlanetScope.'
        )
    return found
