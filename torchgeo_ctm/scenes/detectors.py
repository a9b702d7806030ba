"""Packages that find the clouds of a scene, and what they read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]


class Detector(NamedTuple):
    """What a detector reads, and how it finds clouds.

    Attributes:
        extra: Extra of this package that installs it.
        bands: Bands that it reads, in its order.
        pixel: Side of its pixels in meters.
        cloud: Name of the pixels that it finds.
        load: Returns a function of the rows that are read, reflectances × 10,000 (B, h,
            w), which returns what to keep of them (k, h, w), and a function that finds
            the clouds (H, W) in all that was kept (k, H, W) and the valid pixels (H, W).
            It is given the type of the device.
    """

    extra: str
    bands: tuple[str, ...]
    pixel: float
    cloud: str
    load: Callable[
        [str], tuple[Callable[[Floats], Floats], Callable[[Floats, Booleans], Booleans]]
    ]


def _s2cloudless(device: str) -> Any:
    """Load s2cloudless with the options that its authors recommend for 60 m."""
    from s2cloudless import S2PixelCloudDetector

    detector = S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)

    def rows(values: Floats) -> Floats:
        pixels = np.moveaxis(values, 0, -1)[None] / 10_000
        kept: Floats = detector.get_cloud_probability_maps(pixels)
        return kept

    def clouds(kept: Floats, valid: Booleans) -> Booleans:
        found: Any = detector.get_mask_from_prob(kept * valid)[0]
        return np.asarray(found > 0, bool)

    return rows, clouds


def _omnicloudmask(device: str) -> Any:
    """Load OmniCloudMask, which downloads its weights when it is first used."""
    from omnicloudmask import predict_from_array

    def clouds(kept: Floats, valid: Booleans) -> Booleans:
        # 0 in all bands is its nodata
        values = np.where(valid, np.maximum(kept, 1), 0)
        found: Any = predict_from_array(values, inference_device=device)[0]
        return np.asarray(found > 0, bool)

    return (lambda values: values), clouds


DETECTORS = {
    's2cloudless': Detector(
        'clouds',
        ('B01', 'B02', 'B04', 'B05', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12'),
        60.0,
        'cloud',
        _s2cloudless,
    ),
    'omnicloudmask': Detector(
        'omnicloudmask', ('B04', 'B03', 'B08'), 20.0, 'cloud or shadow', _omnicloudmask
    ),
}
