"""Check that the values of a scene are in the units of the training data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .scaling import SENTINEL2_STATISTICS, BandScaling, band_key, is_reflectance

#: Medians of a checkpoint's means between which they are reflectances x 10,000.
_REFLECTANCES = (300.0, 6000.0)
#: Number of Landsat Collection 2 for a reflectance of 0, with room for darker pixels.
_LANDSAT = 6900
#: Advice to set another offset, in a call or on the command line.
PASS_OFFSET = 'Pass offset={:g}.'
#: Least mean, or first percentile, of the bands of training data with an offset of 1000.
SHIFTED = 950
#: Percentile that stands for dark objects, such as water and shade.
DARK = 1
#: Sizes of a difference that may be an offset, how much bands may differ then, and the
#: fewest bands that tell.
OFFSETS = (600, 2500)
ALIKE = 500
FEWEST = 3
#: First percentile of reflectances x 10,000 that none has without a wrong offset, in most
#: bands: the correction of the atmosphere leaves dark water a little below 0.
NEGATIVE = -400
#: Part of the median of all bands that B10 does not reach, but in thick clouds.
BRIGHT = 0.7
#: Bands in which water and shade are far darker than any dry land.
_INFRARED = ('b5', 'b6', 'b7', 'b8', 'b8a', 'b11', 'b12')


def scaling_complaint(
    pixels: NDArray[Any] | Tensor,
    bands: Sequence[str],
    scaling: object,
    eight_bits: bool = False,
    offset: float | None = None,
    advice: str = PASS_OFFSET,
) -> str | None:
    """Return in one line why values are not what a scaling expects, or None.

    Args:
        pixels: Valid pixels (bands, n).
        bands: Names of the bands, in that order.
        scaling: The scaling of the network.
        eight_bits: They are stored in 8 bits, without a scale.
        offset: The offset of the scene, for the advice; None: that of the scaling.
        advice: Where another offset is set, with ``{:g}`` for the number.
    """
    optical = [i for i, band in enumerate(bands) if is_reflectance(band)]
    if not isinstance(scaling, BandScaling) or scaling.method == 'per_chip_maximum':
        return None
    if not optical:
        return None
    low = None if scaling.low is None else np.array(scaling.low)[optical]
    return reflectance_complaint(
        pixels[optical] + scaling.offset,
        scaling.mean.flatten()[optical].cpu(),
        scaling.std.flatten()[optical].cpu(),
        [bands[index] for index in optical],
        eight_bits,
        scaling.offset if offset is None else offset,
        advice,
        low,
    )


def band_doubts(pixels: NDArray[Any], bands: Sequence[str], named: bool) -> list[str]:
    """Return what looks wrong with single bands, one line each.

    Args:
        pixels: Valid pixels (bands, n).
        bands: Names of the bands, in that order.
        named: Whether the scene names its bands.

    Returns:
        Bands that hold one value only or have another unit, parts with another offset,
        and the order or the names of bands if B10, whose light the atmosphere absorbs,
        is not dark.
    """
    pixels = pixels[:, np.isfinite(pixels).all(axis=0)]
    if pixels.shape[1] < 64:
        return []
    flat = (pixels == pixels[:, :1]).all(axis=1)
    doubts = []
    if flat.any() and flat.mean() < 0.5:
        which = [
            f'{bands[i]} is {pixels[i, 0]:g}' for i in np.flatnonzero(flat).tolist()
        ]
        doubts.append(
            f'{", ".join(which)} in all pixels that were looked at. Expect wrong classes '
            'if the band is missing.'
        )
    keys = [band_key(band) for band in bands]
    middle = np.median(pixels, axis=1)
    small = (pixels % 1 != 0).any(axis=1) & (np.quantile(abs(pixels), 0.999, 1) <= 2)
    if small.any() and np.median(middle) > _REFLECTANCES[0]:
        names = ', '.join(bands[index] for index in np.flatnonzero(small).tolist())
        doubts.append(f'values of {names} lie below 2, those of other bands far above.')
    if 'b10' in keys:
        b10 = pixels[keys.index('b10')]
        shifted, dark = float(((b10 >= 990) & (b10 <= 1100)).mean()), np.mean(b10 < 200)
        # other bands have most of their values between
        between = np.mean((b10 >= 300) & (b10 < 900))
        if min(shifted, dark) > max(0.05, between):
            doubts.append(
                f'{100 * shifted:.0f} % of the pixels look as if 1000 had been added, '
                'the others do not, as in a mosaic of scenes before and after processing '
                'baseline 04.00. Expect wrong classes in one part.'
            )
        elif np.median(b10) > BRIGHT * np.median(middle) > 0:
            why = 'its B10 is no dark band, so that its bands probably have wrong names'
            if not named:
                why = (
                    'it does not name its bands, and what is taken for B10 is no dark '
                    'band, so that their order is probably another one (in EuroSAT, B8A '
                    'is the last)'
                )
            doubts.append(f'{why}. Pass scene_bands= with the names in file order.')
    return doubts


def dark_values(pixels: NDArray[Any], bands: Sequence[str]) -> NDArray[Any]:
    """Return the dark values of the bands of reflectance, from pixels (bands, n)."""
    optical = [index for index, band in enumerate(bands) if is_reflectance(band)]
    return np.percentile(pixels[optical], DARK, axis=1) if optical else np.zeros(0)


def offset_difference(found: NDArray[Any], expected: NDArray[Any]) -> float | None:
    """Return by how much the dark values of all bands differ alike, as an offset does.

    Haze brightens blue more than infrared, and another place has other dark objects.
    Both leave some band where it was.

    Args:
        found: Dark values (bands,) of a scene, reflectance × 10,000.
        expected: Those of the training data, or of another scene.
    """
    if len(found) < FEWEST:
        return None
    difference = found - expected
    middle = float(np.median(difference))
    least, most = OFFSETS
    alike = np.ptp(difference) <= ALIKE
    return middle if alike and least <= abs(middle) <= most else None


def surplus(pixels: NDArray[Any], bands: Sequence[str]) -> int:
    """Return by how many thousands values are too large for reflectances × 10,000.

    0 if no band tells, or if bands are not those of Sentinel-2.

    Args:
        pixels: Valid pixels (bands, n).
        bands: Names of the bands, in that order.
    """
    known = {band_key(name): numbers for name, numbers in SENTINEL2_STATISTICS.items()}
    keys = [band_key(band) for band in bands]
    at = [index for index, key in enumerate(keys) if key in known]
    if not at or not pixels.shape[1]:
        return 0
    keys = [keys[index] for index in at]
    means, stds = np.array([known[key] for key in keys]).T
    return _shift(pixels[at].astype(np.float64), keys, means, stds)


def offset_complaint(
    pixels: NDArray[Any], scaling: BandScaling, offset: float | None = None
) -> str | None:
    """Return in one line that all bands differ from the training data by an offset.

    Args:
        pixels: Valid pixels (bands, n) of a scene, in the units of the training data.
        scaling: The scaling of the network, which knows its training range.
        offset: The offset of the scene, for the advice; None: that of the scaling.
    """
    low, high = _REFLECTANCES
    if scaling.low is None or not pixels.shape[1]:
        return None
    if not low <= float(scaling.mean.median()) <= high:
        return None
    values = pixels + scaling.offsets.flatten()[:, None].cpu().numpy()
    # a column of the range is a pixel as dark as the training data
    expected = dark_values(np.array(scaling.low)[:, None], scaling.bands)
    difference = offset_difference(dark_values(values, scaling.bands), expected)
    if difference is None:
        return None
    kind = 'higher' if difference > 0 else 'lower'
    given = scaling.offset if offset is None else offset
    return (
        f'dark pixels are about {abs(difference):,.0f} {kind} than those of the training '
        f'data in every band, as with another offset. {_remedy(given, difference, PASS_OFFSET)}'
    )


def _remedy(given: float, surplus: float, advice: str) -> str:
    """Return the advice to correct an offset by a surplus, in whole thousands."""
    thousands = max(1, round(abs(surplus) / 1000)) * np.sign(surplus)
    return advice.format(given - 1000 * thousands)


def reflectance_complaint(
    pixels: ArrayLike | Tensor,
    mean: ArrayLike | Tensor,
    std: ArrayLike | Tensor,
    bands: Sequence[str],
    eight_bits: bool = False,
    offset: float = 0.0,
    advice: str = PASS_OFFSET,
    low: ArrayLike | None = None,
) -> str | None:
    """Return in one line why values are not in the units of the training data.

    For scaling method 'standard'. The check uses percentiles over all bands, so that
    scenes of only water, snow, cloud, sand or shade pass.

    Args:
        pixels: Valid pixels (bands, n) of the scene, with the offset added.
        mean: Mean (bands,) of the training data.
        std: Standard deviation (bands,) of the training data.
        bands: Names of the bands, in that order.
        eight_bits: They are stored in 8 bits, which cannot hold reflectances x 10,000.
        offset: The offset that was added, for the advice.
        advice: Where another offset is set, with ``{:g}`` for the number.
        low: First percentile (bands,) of the training data, if known.

    Returns:
        What was found and what to change, or None without a fault, or with less than 64
        pixels.
    """
    values, means, stds = (_array(numbers) for numbers in (pixels, mean, std))
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < 64:
        return None
    # one in a thousand is still a hundred pixels
    values = values[:, :: max(1, values.shape[1] // 100_000)]
    if (values == values[:, :1]).all():
        return 'every band holds one and the same value in all pixels'
    middle = np.median(values, axis=1)
    least, most = _REFLECTANCES
    if least <= np.median(means) <= most:
        if eight_bits:
            return (
                f'{_span(values)}, stored in 8 bits: give reflectances × 10,000, or a '
                'scale that makes them reflectances'
            )
        # a model that was trained on shifted numbers knows no dark band
        shifted = bool(np.min(means if low is None else np.asarray(low)) >= SHIFTED)
        return _reflectance_fault(values, means, stds, bands, offset, advice, shifted)
    ratio = float(np.median(np.abs(middle) / (np.abs(means) + 3 * stds)))
    if ratio <= 30:
        return None
    return _typical(middle, means) + (
        ': divide the scene by 10,000' if 1e3 < ratio < 1e5 else ': give the same unit'
    )


def _array(numbers: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return numbers as float64, one row per band."""
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu().numpy()
    array = np.asarray(numbers, np.float64)
    return array if array.ndim == 2 else array.reshape(-1)


def _number(value: float) -> str:
    """Format a number: 1,234 or 0.0123."""
    return f'{value:,.0f}' if abs(value) >= 10 else f'{value:.3g}'


def _span(values: NDArray[np.float64]) -> str:
    """Return the range of values in words."""
    smallest, largest = (_number(float(f(values))) for f in (np.min, np.max))
    return f'values lie between {smallest} and {largest}'


def _typical(middle: NDArray[np.float64], means: NDArray[np.float64]) -> str:
    """Return found and expected values in words."""
    return (
        f'values of about {_number(float(np.median(middle)))} were found where the '
        f'model was trained on about {_number(float(np.median(means)))}'
    )


def _reflectance_fault(
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
    bands: Sequence[str],
    offset: float,
    advice: str,
    shifted: bool,
) -> str | None:
    """Return what is wrong with numbers that should be reflectances x 10,000."""
    smallest, span, middle = values.min(), _span(values), np.median(values, axis=1)
    keys = [band_key(band) for band in bands]
    if smallest >= -1 and np.quantile(values, 0.999) <= 2:
        return f'{span}, as reflectances of 0…1 do: multiply the scene by 10,000'
    if smallest >= -1 and np.quantile(values, 0.999) <= 100 and (values % 1).any():
        return f'{span}, as reflectances in percent do: multiply the scene by 100'
    if _is_8_bit(values, keys):
        return f'{span}, as in an 8-bit picture: give reflectances × 10,000'
    if (values % 1).any() and np.quantile(abs(values), 0.999) <= 100:
        return f'{span}, as standardized values do: give reflectances × 10,000'
    lowest = np.percentile(values, DARK, axis=1)
    if (
        np.median(lowest) < NEGATIVE
        or np.mean(middle < -0.05 * np.median(means)) >= 0.5
    ):
        return (
            f'{span}, many below 0, as after an offset that was subtracted twice. '
            + _remedy(offset, -1000, advice)
        )
    shift = 0 if shifted else _shift(values, keys, means, stds)
    if shift:
        return (
            f'{span}, none near 0, as in Sentinel-2 products of processing baseline '
            f'04.00 and later. {_remedy(offset, shift, advice)}'
        )
    # six bands reach the shortwave infrared, where snow is dark, and clouds have shadows
    if len(values) >= 6 and np.quantile(values, 0.001, axis=1).min() >= _LANDSAT:
        return (
            f'{span}, as numbers of Landsat Collection 2 Level-2 do: give their scale '
            'with gdal_edit.py -scale 0.0000275 -offset -0.2'
        )
    # clouds and snow in the sun reach 16,000
    if np.median(middle) > 20_000:
        return _typical(middle, means) + ': give reflectances × 10,000'
    return None


def _is_8_bit(values: NDArray[np.float64], keys: Sequence[str]) -> bool:
    """Return whether values are those of an 8-bit picture, not of dark water.

    A picture has white pixels, or infrared bands far brighter than sunlit water.
    """
    if values.min() < 0 or values.max() > 255 or (values % 1).any():
        return False
    white, almost = (np.count_nonzero(values == level) for level in (255, 254))
    infrared = [key in _INFRARED for key in keys]
    tops = np.quantile(values, 0.99, axis=1)[infrared]
    telling = len({'b2', 'b3', 'b4', 'b11', 'b12'} & {*keys}) > 0
    return bool(white > 10 + 2 * almost or (tops.size and telling and tops.min() > 200))


def _shift(
    values: NDArray[np.float64],
    keys: Sequence[str],
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
) -> int:
    """Return by how many thousands values are too large; 0 for a bright scene.

    B10 alone is enough: the atmosphere absorbs nearly all of it, and above clouds it
    varies. Without B10, the check looks for open water, which is about 0 in the whole
    infrared: 1 in 1,000 pixels near 1,000 in three such bands or more, at nearly the
    same value, none darker in any band, in a scene that is not bright as snow is.
    """
    floor = np.quantile(values, 0.001, axis=1)
    shift = round(max(0, floor.min() - 50) / 1000) * 1000
    if not shift or floor.min() < shift - 100:
        return 0
    if 'b10' in keys:
        cirrus = keys.index('b10')
        steady = np.median(values[cirrus]) - floor[cirrus] < 80
        return shift if steady and -10 <= floor[cirrus] - shift <= 100 else 0
    dark = [floor[keys.index(key)] for key in _INFRARED if key in keys]
    bright = np.median((np.median(values, axis=1) - shift - means) / stds) > 2.5
    if len(dark) < 3 or bright:
        return 0
    near = min(dark) >= shift - 20 and max(dark) <= shift + 100
    return shift if near and max(dark) - min(dark) <= 60 else 0
