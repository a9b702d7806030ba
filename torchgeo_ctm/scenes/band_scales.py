"""Read GDAL's scale and offset of bands."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..scaling import is_reflectance

#: Reflectance in the numbers of Sentinel-2.
REFLECTANCE = 10_000
#: Scales below this turn integers into reflectances 0…1.
SMALL = 0.01
#: Offsets beyond this are no measure of any sensor.
LARGEST = 1e6


class BandScales(NamedTuple):
    """How stored values become reflectance × 10,000: value × factor + offset."""

    #: Which bands hold reflectance, (bands,) bool.
    optical: NDArray[np.bool_]
    #: Factor of each band, 1 without tags.
    factors: NDArray[np.float64]
    #: Offset of each band, 0 without tags.
    offsets: NDArray[np.float64]
    #: Whether tags change any value.
    stated: bool
    #: Which tags are not applied and what to do, or None.
    message: str | None

    @classmethod
    def read(
        cls, raster: DatasetReader, indexes: Sequence[int], bands: Sequence[str]
    ) -> Self:
        """Read the tags of some bands.

        Args:
            raster: The raster.
            indexes: Its bands, from 1.
            bands: Names of the bands that they are for the model.
        """
        optical = np.array([is_reflectance(band) for band in bands], bool)
        scales = np.array([raster.scales[i - 1] for i in indexes], float)
        offsets = np.array([raster.offsets[i - 1] for i in indexes], float)
        factors, shifts = np.ones(len(bands)), np.zeros(len(bands))
        tagged = (scales != 1) | (offsets != 0)
        plain = (scales == 1) & (np.abs(offsets) >= 1) | ~tagged
        integer = all(np.dtype(raster.dtypes[i - 1]).kind in 'iu' for i in indexes)
        if (tagged & optical).any():
            numbers = scales[optical]
            if ((numbers > 0) & (numbers < SMALL)).all() and _plausible(offsets):
                factors[optical] = _rounded(numbers * REFLECTANCE)
                shifts[optical] = _rounded(offsets[optical] * REFLECTANCE)
                tagged &= ~optical
            elif integer and plain[optical].all() and _plausible(offsets):
                shifts[optical] = offsets[optical]
                tagged &= ~optical
        stated = bool((factors != 1).any() or (shifts != 0).any())
        message = None
        if tagged.any():
            first = int(tagged.argmax())
            names = ', '.join(np.array(bands)[tagged])
            message = (
                f'scale={scales[first]:g} and offset={offsets[first]:g} of {names} in '
                'the file are not applied: values are taken as stored. Apply them '
                'first with gdal_translate -unscale if the training data had them '
                'applied.'
            )
        return cls(optical, factors, shifts, stated, message)


def _plausible(numbers: NDArray[np.float64]) -> bool:
    """Return whether all offsets are numbers that a sensor can need."""
    return bool((np.abs(numbers) <= LARGEST).all())


def _rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers without the rounding of 0.0001 × 10,000."""
    return np.round(numbers, 9)
