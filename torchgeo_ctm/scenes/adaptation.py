"""Move a scene towards the training data by its own statistics, in small doses."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..reflectance import DARK
from ..scaling import (
    ATMOSPHERE_BANDS,
    BandScaling,
    band_key,
    check_adaptation,
    haze_weights,
    is_reflectance,
)

#: Weight of the scene's own mean and standard deviation. The full dose destroys maps,
#: because it also removes what distinguishes the classes of the scene.
DOSE: Final = 0.25
#: Share of the pixels outside the training range above which a band is reported.
OUTSIDE: Final = 0.5


@dataclass(frozen=True)
class Adaptation:
    """Linear function of each band, in the units of the training data.

    Attributes:
        name: Name of the adaptation, for the tags of products.
        gain: Factor of each band (bands,).
        shift: Added to each band afterwards (bands,).
    """

    name: str
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]

    def apply(self, image: NDArray[np.float32]) -> None:
        """Adapt pixels (bands, H, W) in place."""
        image *= self.gain[:, None, None]
        image += self.shift[:, None, None]

    def undone(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return adapted pixels (bands, n) as they were."""
        return (pixels - self.shift[:, None]) / self.gain[:, None]


def dark_adaptation(pixels: NDArray[np.float32], scaling: BandScaling) -> Adaptation:
    """Return the adaptation 'dark' of a scene to the data that a model was trained on.

    Subtracts the dark-object offset of each band: the scene's first percentile less
    that of the training data, weighted by how much haze adds to the band. Then moves
    mean and standard deviation a quarter of the way from those of the scene to those of
    the training data. Bands of radar stay as they are.

    Args:
        pixels: Pixels (bands, n) of :func:`~torchgeo_ctm.scenes.pixel_sample.sample_pixels`, at least one.
        scaling: The model's :class:`~torchgeo_ctm.scaling.BandScaling`.

    Raises:
        SettingError: If the model does not know the range of its training data.
    """
    check_adaptation(scaling, 'dark')
    offsets, mean, std = (
        value.flatten().cpu().numpy().astype(np.float64)
        for value in (scaling.offsets, scaling.mean, scaling.std)
    )
    values = pixels + offsets[:, None]
    lowest = np.percentile(values, DARK, axis=1)
    haze = haze_weights(scaling.bands) * (lowest - np.asarray(scaling.low))
    own = values.mean(axis=1) - haze
    gain = std / (DOSE * values.std(axis=1) + (1 - DOSE) * std)
    shift = mean - gain * (haze + DOSE * own + (1 - DOSE) * mean)
    optical = np.array([is_reflectance(band) for band in scaling.bands])
    # the model adds its offset after the adaptation
    shift = np.where(optical, shift + gain * offsets - offsets, 0)
    gain = np.where(optical, gain, 1)
    return Adaptation('dark', gain.astype(np.float32), shift.astype(np.float32))


def knows_range(scaling: object) -> bool:
    """Return whether a model knows the range of its training data."""
    return getattr(scaling, 'low', None) is not None


def atmosphere_complaint(
    pixels: NDArray[np.float32], scaling: BandScaling
) -> str | None:
    """Return in one line which atmosphere bands are outside their training range.

    Args:
        pixels: Pixels (bands, n) of :func:`~torchgeo_ctm.scenes.pixel_sample.sample_pixels`.
        scaling: The model's scaling.

    Returns:
        The bands with more than half of their pixels outside, and what to do; or None.
    """
    lows, highs = scaling.low, scaling.high
    if lows is None or highs is None or not pixels.shape[1]:
        return None
    facts = []
    for index in _atmosphere(scaling):
        low, high = lows[index], highs[index]
        values = pixels[index] + float(scaling.offsets[index])
        outside = np.mean((values < low) | (values > high))
        if outside > OUTSIDE:
            facts.append(
                f'{scaling.bands[index]} is outside its training range of {low:g} to '
                f'{high:g} in {100 * outside:.0f} % of the pixels'
            )
    if not facts:
        return None
    return (
        f'{", ".join(facts)}. These bands follow the atmosphere of the day. Expect '
        f'wrong classes, and train without {", ".join(ATMOSPHERE_BANDS)}.'
    )


def _atmosphere(scaling: object) -> list[int]:
    """Return the indexes of the atmosphere bands of a model."""
    keys = {band_key(band) for band in ATMOSPHERE_BANDS}
    names = enumerate(getattr(scaling, 'bands', ()))
    return [index for index, band in names if band_key(band) in keys]
