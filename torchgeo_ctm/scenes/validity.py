"""Decide which pixels of a raster are data."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..errors import NodataWarning, SettingError

#: Values that fill what a sensor did not see, where no nodata value says so.
FILLS = (0, -9999, -32768, 65535, -99999, 1e20)
#: Largest number of a float32, as images have them.
LARGEST = float(np.finfo(np.float32).max)


class Validity:
    """Which pixels of some bands of a raster are data.

    A pixel is invalid if the mask or alpha band of the raster says so, or if any band
    has its nodata value or is no finite float32. 0 is nodata only where every band is 0:
    in Sentinel-2, dark water is 0 in single bands.
    """

    def __init__(
        self, raster: DatasetReader, indexes: Sequence[int], nodata: float | None
    ) -> None:
        """Read how a raster marks invalid pixels.

        Args:
            raster: The raster.
            indexes: Bands of the raster, from 1.
            nodata: Nodata value of all bands, instead of what the raster says; None:
                as the raster says.
        """
        flags = [flag for i in indexes for flag in raster.mask_flag_enums[i - 1]]
        self.masked = nodata is None and bool(
            {MaskFlags.per_dataset, MaskFlags.alpha} & {*flags}
        )
        kinds = list(raster.colorinterp)
        #: Alpha band, from 1. GDAL's masks know it as the second or fourth band alone.
        self.alpha: int | None = None
        if nodata is None and not self.masked and ColorInterp.alpha in kinds:
            self.alpha = kinds.index(ColorInterp.alpha) + 1
        #: Nodata value of each band, None without one.
        self.nodata: list[float | None] = [
            raster.nodatavals[i - 1] if nodata is None else nodata for i in indexes
        ]

    @property
    def always(self) -> bool:
        """Whether the raster marks no pixel as invalid."""
        marked = self.masked or self.alpha is not None
        return not marked and all(value is None for value in self.nodata)

    def valid(
        self, raster: DatasetReader, pixels: NDArray[Any], place: RasterWindow
    ) -> NDArray[np.bool_]:
        """Return which pixels are data.

        Args:
            raster: The raster.
            pixels: Values of the bands (bands, height, width), as stored.
            place: The window of the raster that they show, at any resolution.

        Returns:
            Validity (height, width).
        """
        shape = pixels.shape[1:]
        valid = np.ones(shape, bool)
        if self.masked:
            valid &= raster.dataset_mask(window=place, out_shape=shape) > 0
        if self.alpha is not None:
            valid &= raster.read(self.alpha, window=place, out_shape=shape) > 0
        zeros: NDArray[np.bool_] | None = None
        for band, nodata in zip(pixels, self.nodata, strict=True):
            if nodata is None:
                continue
            found = equals_nodata(band, nodata)
            if nodata == 0:
                zeros = found if zeros is None else zeros & found
            else:
                valid &= ~found
        if zeros is not None:
            valid &= ~zeros
        if pixels.dtype.kind == 'f':
            for band in pixels:
                valid &= np.abs(band) <= LARGEST
        return valid

    def fill(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
        """Return a value that looks like a fill value without being nodata, or None.

        Args:
            pixels: Values of the bands (bands, height, width), as stored.
            valid: Validity (height, width).
        """
        first = np.where(valid, pixels[0], 1)
        ends = {float(first.min(initial=1)), float(first.max(initial=1))}
        for value in ends:
            common = value in FILLS or abs(value) >= FILLS[-1]
            if common:
                filled = valid.copy()
                for band in pixels:
                    filled &= band == value
                if filled.any():
                    return value
        return None


def check_number(name: str, value: float | None) -> None:
    """Check a number that is given for a scene's values, as nodata or offset.

    Raises:
        SettingError: If it is infinite.
    """
    if value is not None and np.abs(value) > LARGEST:
        raise SettingError(
            f'{name}={value:g} is too large, expected a finite number. Values that are '
            'not finite never count as data.'
        )


def warn_of_nodata(raster: DatasetReader, name: str, nodata: float | None) -> None:
    """Warn about a nodata value that no band of a raster can hold.

    Args:
        raster: The raster.
        name: Its name, for the message.
        nodata: Nodata value that was given, instead of what the raster says.
    """
    if nodata is None or np.isnan(nodata):
        return
    kinds = {np.dtype(dtype) for dtype in raster.dtypes}
    for kind in kinds:
        if kind.kind not in 'iu':
            return
        info = np.iinfo(kind)
        if info.min <= nodata <= info.max and nodata % 1 == 0:
            return
    warnings.warn(
        f'{name} holds {", ".join(sorted(map(str, kinds)))}, which is never '
        f'{nodata:g}: nodata={nodata:g} marks no pixel.',
        NodataWarning,
        stacklevel=3,
    )


def equals_nodata(band: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Return where a band has its nodata value, as GDAL's own mask does.

    Floats may differ by rounding: -3.40282306e38 of a header is -3.4028235e38 in a
    pixel.
    """
    if np.isnan(nodata):
        return np.asarray(np.isnan(band))
    if band.dtype.kind != 'f':
        equal: NDArray[np.bool_] = band == nodata
        return equal
    info = np.finfo(band.dtype)
    spread = 4 * float(info.eps) * abs(nodata)
    # not beyond the largest number, which infinity would match
    low, high = (
        max(min(limit, float(info.max)), float(info.min))
        for limit in (nodata - spread, nodata + spread)
    )
    if abs(nodata) > float(info.max):
        low = high = nodata
    near: NDArray[np.bool_] = (band >= low) & (band <= high)
    return near
