"""Band names, and the scaling of reflectances, kept with the model."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import BandError, SettingError, did_you_mean

METHODS = ('standard', 'log', 'per_chip_maximum')
ADAPTATIONS = ('dark', 'none')
Resample = Literal['nearest', 'bilinear']
RESAMPLES = ('nearest', 'bilinear')
#: Added to values before their logarithm: dark water then differs from shade, but
#: noise near 0 does not count.
LOG_SHIFT = 100.0

#: Sentinel-2 Level-1C bands in product order.
SENTINEL2_BANDS = (
    'B01',
    'B02',
    'B03',
    'B04',
    'B05',
    'B06',
    'B07',
    'B08',
    'B8A',
    'B09',
    'B10',
    'B11',
    'B12',
)

#: Bands that follow the atmosphere of the day (aerosol, water vapor, cirrus) more than
#: the ground. Leave them out for maps of other scenes.
ATMOSPHERE_BANDS = ('B01', 'B09', 'B10')
#: Sentinel-2 bands that are recommended for maps of other scenes.
GROUND_BANDS = tuple(band for band in SENTINEL2_BANDS if band not in ATMOSPHERE_BANDS)

#: How much haze adds to each band, relative to the shortest wavelengths.
HAZE = {
    'B01': 1.0,
    'B02': 0.8,
    'B03': 0.5,
    'B04': 0.35,
    'B05': 0.25,
    'B06': 0.18,
    'B07': 0.14,
    'B08': 0.1,
    'B8A': 0.08,
    'B11': 0.02,
    'B12': 0.01,
}

#: Mean and standard deviation of Sentinel-2 L1C reflectance × 10,000 over land:
#: the statistics TorchGeo publishes for EuroSAT
#: (torchgeo.datamodules.eurosat.MEAN and STD), rounded to 0.1.
SENTINEL2_STATISTICS = {
    'B01': (1354.4, 245.7),
    'B02': (1118.2, 333.0),
    'B03': (1042.9, 395.1),
    'B04': (947.6, 593.8),
    'B05': (1199.5, 566.4),
    'B06': (1999.8, 861.2),
    'B07': (2369.2, 1086.6),
    'B08': (2296.8, 1117.9),
    'B8A': (2594.1, 1231.6),
    'B09': (732.1, 404.9),
    'B10': (12.1, 4.8),
    'B11': (1819.0, 1002.6),
    'B12': (1118.9, 761.3),
}


class BandOptions(TypedDict, total=False):
    """Options of one band; missing ones are those of all bands.

    Attributes:
        offset: Added to this band first.
        clip: Lowest and highest value of this band, after the offset.
        mean: Mean of this band, after offset and clip.
        std: Standard deviation of this band, likewise.
    """

    offset: float
    clip: list[float] | None
    mean: float
    std: float


class ScalingOptions(TypedDict, total=False):
    """Options of the scaling; see :class:`BandScaling`."""

    method: Literal['standard', 'log', 'per_chip_maximum']
    offset: float
    clip: list[float] | None
    mean: list[float] | None
    std: list[float] | None
    low: list[float] | None
    high: list[float] | None
    adapt: Literal['dark', 'none']
    resample: Literal['nearest', 'bilinear']
    pixel_size: float | None
    per_band: dict[str, BandOptions] | None


def band_key(name: str) -> str:
    """Return one key for all spellings of a band: ``b1`` for ``B1``, ``B01``, ``b01``.

    Text after the name is ignored, as in the descriptions of GDAL's Sentinel-2 driver
    (``B4, central wavelength 665 nm``).
    """
    match = re.match(r'\s*b\s*0*(\d+)(a?)\b', name, flags=re.IGNORECASE)
    if match:
        return f'b{match[1]}{match[2].lower()}'
    return name.strip().lower()


#: Polarizations of radar, whose values are backscatter in decibels.
RADAR_BANDS = ('HH', 'HV', 'VH', 'VV')


def is_reflectance(band: str) -> bool:
    """Return whether a band holds reflectance: all but the polarizations of radar."""
    return band_key(band) not in {band_key(name) for name in RADAR_BANDS}


def rgb_indices(bands: Sequence[str]) -> list[int]:
    """Return the positions of red, green and blue (B04, B03, B02) among *bands*.

    Without those names, return the first three bands, or the first one three times.
    """
    keys = [band_key(band) for band in bands]
    if {'b2', 'b3', 'b4'} <= set(keys):
        return [keys.index('b4'), keys.index('b3'), keys.index('b2')]
    return [0, 1, 2] if len(keys) >= 3 else [0, 0, 0]


def haze_weights(bands: Sequence[str]) -> NDArray[np.float64]:
    """Return how much haze adds to each band, 0 to 1; 0 for unknown bands."""
    known = {band_key(name): weight for name, weight in HAZE.items()}
    return np.array([known.get(band_key(band), 0.0) for band in bands])


def match_bands(
    wanted: Sequence[str], found: Sequence[str | None], source: str
) -> list[int]:
    """Return the positions of the wanted bands in a raster.

    Bands are matched by description if the raster has descriptions, by order otherwise.
    13 bands are those of Sentinel-2 for a model that uses some of these.

    Args:
        wanted: Band names of the model, in its order.
        found: Descriptions of the raster's bands, in file order.
        source: Name of the raster, for errors.

    Returns:
        For each wanted band its 0-based position in the raster.

    Raises:
        BandError: If a wanted band is missing or appears twice.
    """
    names = ', '.join(wanted)
    count = f'{len(found)} {"band" if len(found) == 1 else "bands"}'
    known = {band_key(name) for name in SENTINEL2_BANDS}
    some = {band_key(name) for name in wanted} < known
    if not any(found) and some and len(found) == len(SENTINEL2_BANDS):
        found = SENTINEL2_BANDS
    if not any(found):
        if len(found) < len(wanted):
            raise BandError(
                f'{source} has {count} without names, expected {len(wanted)} in this '
                f'order: {names}. If they are others, as those of Level-2A, which has no '
                'B10, pass scene_bands= with the names in file order.'
            )
        return list(range(len(wanted)))
    if len({band_key(name) for name in wanted}) < len(wanted):
        return _match_seasons(wanted, found, source)
    keys = [band_key(name or '') for name in found]
    missing = [name for name in wanted if band_key(name) not in keys]
    if missing:
        present = ', '.join(name or 'unnamed' for name in found)
        hint = f'missing: {", ".join(missing)}. '
        if len(missing) == len(wanted):
            hint = 'and none of them is there. '
        if all(re.fullmatch(r'band \d+', name) for name in wanted):
            hint += (
                'The bands of the model have no names: set bands of the model to those '
                f'of the scene, [{", ".join(name or "unnamed" for name in found)}], '
                'before it is trained. A trained model takes the scene with '
                f'scene_bands={",".join(f"band {i + 1}" for i in range(len(found)))}.'
            )
        else:
            hint += 'If only the names are wrong, pass the right ones as scene_bands=.'
        if [band_key(name) for name in missing] == ['b10']:
            hint = 'missing: B10. Level-2A has no B10: map Level-1C, or train without B10 for both.'
        raise BandError(
            f'{source} has {count} ({present}), expected {len(wanted)} ({names}), {hint}'
        )
    twice = [name for name in wanted if keys.count(band_key(name)) > 1]
    if twice:
        raise BandError(
            f'{source} has more than one band named {", ".join(twice)}, expected one.'
        )
    return [keys.index(band_key(name)) for name in wanted]


def _match_seasons(
    wanted: Sequence[str], found: Sequence[str | None], source: str
) -> list[int]:
    """Return the positions of bands of which some differ after their names alone.

    Raises:
        BandError: If a raster does not name them in full, once each.
    """
    full = [(name or '').strip().casefold() for name in found]
    for name in wanted:
        if full.count(name.strip().casefold()) != 1:
            raise BandError(
                f'{source} has {full.count(name.strip().casefold())} bands named '
                f'{name!r}, expected one. Pass the names of all its bands as '
                'scene_bands=.'
            )
    return [full.index(name.strip().casefold()) for name in wanted]


class BandScaling(nn.Module):
    """Scale bands from the data set's units to the model's range.

    ``standard``: add *offset*, clip, subtract each band's mean, divide by its
    standard deviation. ``log``: the same with the logarithm of the value + 100, for
    reflectance × 10,000; mean and deviation are still those of the values.
    ``per_chip_maximum``: add *offset*, clip, divide each band by
    its own maximum in that chip (as the reference does; absolute reflectance is lost).
    Means and deviations are buffers, so that a checkpoint holds them.

    Bands in another unit have options of their own, by name. Sentinel-1 in decibels, as
    scaled in the paper: clipped to -25…0 dB and raised by 25 (METHOD, section 6)::

        per_band:
          VV: {offset: 25, clip: [0, 25], mean: 12.4, std: 5.3}
          VH: {offset: 25, clip: [0, 25], mean: 4.7, std: 5.9}
    """

    mean: Tensor
    std: Tensor
    offsets: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        bands: Sequence[str],
        method: Literal['standard', 'log', 'per_chip_maximum'] = 'standard',
        offset: float = 0.0,
        clip: Sequence[float] | None = (0.0, 10000.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        adapt: Literal['dark', 'none'] = 'none',
        per_band: Mapping[str, BandOptions] | None = None,
        resample: Resample = 'nearest',
        pixel_size: float | None = None,
    ) -> None:
        """Initialize a new BandScaling instance.

        Args:
            bands: Names of the bands, in the order of the tensor.
            method: 'standard', 'log' or 'per_chip_maximum'.
            offset: Added first; −1000 for Sentinel-2 processing baseline ≥ 04.00.
            clip: Lowest and highest value, after the offset; None: no clipping.
            mean: One mean per band, after offset and clip; Sentinel-2 bands default
                to :data:`SENTINEL2_STATISTICS`.
            std: One standard deviation per band; likewise.
            low: First percentile of each band of the training data, after offset and
                clip. ``torchgeo-ctm stats`` measures both.
            high: 99th percentile of each band, likewise.
            adapt: How scenes are moved towards the training data before they are
                mapped. 'dark' requires *low* and *high*, see
                :func:`~torchgeo_ctm.scenes.adaptation.dark_adaptation`.
            per_band: Options of single bands, by name: ``offset``, ``clip``, ``mean``
                and ``std``, each in place of the above.
            resample: How coarse bands of scenes in several files come to the grid of
                the finest: 'nearest' or 'bilinear'.
            pixel_size: Side of the pixels of the training data in meters, if known. A
                scene with other pixels gets a warning. Training on scenes records it.

        Raises:
            SettingError: If a statistic is missing, miscounted or not positive, *per_band*
                has an unknown band or option, or *pixel_size* is not positive.
        """
        super().__init__()
        if method not in METHODS:
            raise SettingError(
                f'Unknown scaling method {method!r}, expected one of: '
                f'{", ".join(METHODS)}.' + did_you_mean(method, METHODS)
            )
        if adapt not in ADAPTATIONS:
            raise SettingError(
                f"Unknown scaling adapt {adapt!r}, expected 'dark' or 'none'."
                + did_you_mean(adapt, ADAPTATIONS)
            )
        self.bands = tuple(bands)
        self.method = method
        self.offset = float(offset)
        self.clip = _range(clip, 'clip')
        own = _own_options(self.bands, per_band or {})
        means, stds = self._statistics(mean, std, own)
        self.register_buffer('mean', torch.tensor(means).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(stds).view(-1, 1, 1))
        self._keep_ranges(own)
        #: First and 99th percentile of each band of the training data, if known.
        self.low, self.high = self._percentiles(low, high)
        self.adapt, self.resample = adapt, check_resample(resample)
        if pixel_size is not None and pixel_size <= 0:
            raise SettingError(
                f'scaling pixel_size={pixel_size:g} m, expected above 0.'
            )
        self.pixel_size = pixel_size
        check_adaptation(self, adapt)

    def _percentiles(
        self, low: Sequence[float] | None, high: Sequence[float] | None
    ) -> tuple[list[float] | None, list[float] | None]:
        """Check the given percentiles."""
        if low is None and high is None:
            return None, None
        if low is None or high is None:
            raise SettingError(
                'Only one of low and high is given. Set both, or neither.'
            )
        for name, values in (('low', low), ('high', high)):
            self._check_count(name, values)
        for band, least, most in zip(self.bands, low, high, strict=True):
            if least > most:
                raise SettingError(
                    f'low={least:g} of {band} is above high={most:g}, expected low to '
                    'be at most high.'
                )
        return [float(value) for value in low], [float(value) for value in high]

    def _check_count(self, name: str, values: Sequence[float]) -> None:
        """Check that a list has one number per band."""
        if len(values) != len(self.bands):
            raise SettingError(
                f'{name} has {len(values)} values, expected {len(self.bands)}: one '
                'per band.'
            )

    def _keep_ranges(self, own: Sequence[BandOptions]) -> None:
        """Register each band's offset and range.

        They follow from the arguments in a checkpoint, so they are no part of its
        tensors.
        """
        self.own_ranges = any(options.keys() & {'offset', 'clip'} for options in own)
        offsets = [float(options.get('offset', self.offset)) for options in own]
        clips = [
            _range(options['clip'], 'clip') if 'clip' in options else self.clip
            for options in own
        ]
        lows = [-math.inf if clip is None else clip[0] for clip in clips]
        highs = [math.inf if clip is None else clip[1] for clip in clips]
        # not by the buffers, which a checkpoint's check creates without memory
        if self.method == 'log' and min(lows, default=0.0) < 0:
            raise SettingError(
                "Scaling method 'log' requires values of 0 or more, got "
                f'clip={self.clip}. Use clip: [0, 10000].'
            )
        names = ('offsets', 'lowest', 'highest')
        for name, values in zip(names, (offsets, lows, highs), strict=True):
            numbers = torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def _statistics(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        own: Sequence[BandOptions],
    ) -> tuple[list[float], list[float]]:
        """Check the given statistics, or look them up by band name."""
        if (mean is None) != (std is None):
            raise SettingError(
                'Only one of mean and std is given. Set both, or neither.'
            )
        if mean is None or std is None:
            pairs = [
                self._known(band, options)
                for band, options in zip(self.bands, own, strict=True)
            ]
            mean, std = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        for name, values in (('mean', mean), ('std', std)):
            self._check_count(name, values)
        means = [float(o.get('mean', value)) for o, value in zip(own, mean)]
        stds = [float(o.get('std', value)) for o, value in zip(own, std)]
        if min(stds, default=1) <= 0:
            raise SettingError(f'std must be positive, the smallest is {min(stds)}.')
        return means, stds

    def _known(self, band: str, own: BandOptions) -> tuple[float, float]:
        """Return the built-in mean and standard deviation of a band, or its own."""
        known = {band_key(k): v for k, v in SENTINEL2_STATISTICS.items()}
        if self.method == 'per_chip_maximum':
            return 0.0, 1.0
        if 'mean' in own and 'std' in own:
            return own['mean'], own['std']
        if band_key(band) not in known:
            raise SettingError(
                f'Band {band!r} has no built-in statistics. Set mean and std of all '
                'bands, or of this one under per_band; or name the bands, as in '
                'bands: [B04, B03, B02].' + did_you_mean(band, SENTINEL2_STATISTICS)
            )
        return known[band_key(band)]

    def forward(self, x: Tensor) -> Tensor:
        """Scale images (B, bands, H, W) in the data set's units.

        Raises:
            BandError: If the number of bands differs.
        """
        if x.shape[-3] != len(self.bands):
            raise BandError(
                f'The image has {x.shape[-3]} bands, expected {len(self.bands)}: '
                f'{", ".join(self.bands)}.'
            )
        x = self._clipped(x)
        if self.method == 'per_chip_maximum':
            return x / x.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        if self.method == 'log':
            return self._log(x)
        return x.sub(self.mean).div_(self.std)

    def _log(self, x: Tensor) -> Tensor:
        """Standardize logarithms, as if the values had a log-normal distribution."""
        mean = self.mean + LOG_SHIFT
        variance = torch.log1p((self.std / mean) ** 2)
        center = mean.log() - variance / 2
        return (x + LOG_SHIFT).log_().sub_(center).div_(variance.sqrt())

    def _clipped(self, x: Tensor) -> Tensor:
        """Add offsets and clip."""
        if self.own_ranges:
            return x.add(self.offsets).clamp_(self.lowest, self.highest)
        x = x + self.offset if self.offset else x
        return x if self.clip is None else x.clamp(*self.clip)


def check_resample(resample: Resample) -> Resample:
    """Return how coarse bands are resampled, checked.

    Raises:
        SettingError: If it is unknown.
    """
    if resample not in RESAMPLES:
        raise SettingError(
            f"Unknown resample {resample!r}, expected 'nearest' or 'bilinear'."
            + did_you_mean(str(resample), RESAMPLES)
        )
    return resample


def check_adaptation(scaling: nn.Module, adapt: str) -> None:
    """Check that a scaling knows what an adaptation of scenes requires.

    Raises:
        SettingError: If it does not.
    """
    if adapt == 'none':
        return
    if getattr(scaling, 'low', None) is None:
        raise SettingError(
            f'adapt={adapt!r} requires the low and high values of the training bands '
            'in scaling. Measure them with torchgeo-ctm stats, and train again.'
        )
    if getattr(scaling, 'method', None) == 'per_chip_maximum':
        raise SettingError(
            f"adapt={adapt!r} requires scaling method 'standard' or 'log', got "
            "'per_chip_maximum'."
        )


def _range(clip: Sequence[float] | None, what: str) -> tuple[float, float] | None:
    """Return [lowest, highest] checked, or None."""
    if clip is None:
        return None
    if len(clip) != 2 or not clip[0] < clip[1]:
        raise SettingError(f'{what}={list(clip)}, expected [lowest, highest].')
    return float(clip[0]), float(clip[1])


def _own_options(
    bands: Sequence[str], per_band: Mapping[str, BandOptions]
) -> list[BandOptions]:
    """Return each band's own options, in the order of the bands."""
    keys = [band_key(band) for band in bands]
    own: list[BandOptions] = [{} for _ in bands]
    for band, options in per_band.items():
        if band_key(band) not in keys:
            raise SettingError(
                f'per_band has an unknown band {band!r}, expected some of: '
                f'{", ".join(bands)}.' + did_you_mean(band, bands)
            )
        _check_options(options, BandOptions, f'option of {band} in per_band')
        own[keys.index(band_key(band))] = options
    return own


def _check_options(options: Mapping[str, Any], known: Any, what: str) -> None:
    """Check that a TypedDict has all options."""
    for key in options:
        if key not in known.__annotations__:
            raise SettingError(
                f'Unknown {what}: {key!r}, expected one of: '
                f'{", ".join(known.__annotations__)}.'
                + did_you_mean(key, known.__annotations__)
            )


def resolve_bands(bands: Sequence[str] | None, in_channels: int) -> tuple[str, ...]:
    """Return the band names of a model, by default the 13 of Sentinel-2.

    Raises:
        SettingError: If the number of names differs from *in_channels*, or two are the
            same.
    """
    if bands is None:
        if in_channels == len(SENTINEL2_BANDS):
            return SENTINEL2_BANDS
        return tuple(f'band {i + 1}' for i in range(in_channels))
    if len(bands) != in_channels:
        raise SettingError(
            f'bands has {len(bands)} names, expected {in_channels}: one per channel '
            f'(in_channels={in_channels}).'
        )
    keys = [str(name).strip().casefold() for name in bands]
    twice = [name for name, key in zip(bands, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise SettingError(f'bands has {twice[0]!r} twice, expected unique names.')
    return tuple(bands)


def build_scaling(
    bands: Sequence[str], options: ScalingOptions | None
) -> BandScaling | nn.Identity:
    """Return the scaling of these options; None: the data are already scaled.

    Raises:
        SettingError: If an option is unknown.
    """
    if options is None:
        return nn.Identity()
    _check_options(options, ScalingOptions, 'scaling option')
    return BandScaling(bands, **options)


def scaling_tag(options: Mapping[str, Any] | None) -> str:
    """Return scaling options as text for the tags of products.

    Ranges and the size of pixels are left out, and so are adaptation and resampling,
    which have tags of their own.
    """
    known = (options or {}).items()
    left_out = ('low', 'high', 'adapt', 'resample', 'pixel_size')
    return ' '.join(f'{k}={v}' for k, v in known if v is not None and k not in left_out)
