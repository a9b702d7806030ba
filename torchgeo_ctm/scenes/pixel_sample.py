"""A small sample of a scene's pixels, from all parts of it."""

import numpy as np
from numpy.typing import NDArray

from ..grids import Window
from .scene import SceneWindows

#: Longest side of the overview that is read, and the side and number of the windows
#: that are read along each axis of a scene without overviews.
LONGEST, SIDE, WINDOWS = 512, 64, 8


def sample_pixels(scene: SceneWindows) -> NDArray[np.float32]:
    """Return valid pixels (bands, n) from all parts of a scene, offset added.

    From the scene's overviews if it has any, else from windows on a regular grid. Cheap
    for a scene of any size, and the same pixels for every process.

    Raises:
        SceneError: If the pixels cannot be read.
    """
    raster = scene.open()
    if all(raster.overviews(index) for index in scene.indexes):
        picture = scene.overview(range(len(scene.indexes)), LONGEST)
        pixels = picture.reshape(len(picture), -1)
    else:
        places = [
            Window(row, col, height, width)
            for row, height in _places(scene.grid.height)
            for col, width in _places(scene.grid.width)
        ]
        parts = []
        for place in places:
            values, valid = scene.read(place)
            parts.append(values[:, valid].astype(np.float32))
        pixels = np.concatenate(parts, axis=1)
    pixels = pixels[:, np.isfinite(pixels).all(axis=0)]
    return pixels * scene.factors.reshape(-1, 1) + scene.shifts.reshape(-1, 1)


def _places(size: int) -> list[tuple[int, int]]:
    """Return start and length of evenly spread windows along one axis."""
    side = min(SIDE, size)
    count = min(WINDOWS, -(-size // side))
    starts = np.linspace(0, size - side, count).round().astype(int)
    return [(int(start), side) for start in starts]
