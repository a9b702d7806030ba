"""What the rasters of DFC2020 hold: pixels, and a place that may not be true."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from ..errors import NodataWarning, SceneError
from ..grids import Grid, Window
from ..rasters import grid_of
from ..scenes.scene import open_scene


def stated_grid(path: Path) -> Grid | None:
    """Return the grid that a raster states; None without a CRS or a transform.

    Args:
        path: A raster. An identity transform is none: rasterio reports one for files
            that state nothing, and Copernicus-Bench's copy states it beside a CRS.

    Raises:
        SceneError: If it cannot be opened.
    """
    with open_scene(path) as raster:
        if raster.crs is None or raster.transform.is_identity:
            return None
        return grid_of(raster)


def one_place(grids: Iterable[Grid | None]) -> bool:
    """Tell whether tiles that cannot lie at one place are said to do so.

    True where no CRS has two tiles at different places, and one has two at the same:
    then the transform was copied from tile to tile. Stops at the first two tiles of a
    CRS that lie apart, which in a sound copy are the first two.

    Args:
        grids: What the tiles state.
    """
    places: dict[Any, Any] = {}
    repeated = False
    for grid in grids:
        if grid is None:
            continue
        crs = grid.crs.to_wkt()
        if crs not in places:
            places[crs] = grid.transform
        elif places[crs] != grid.transform:
            return False
        else:
            repeated = True
    return repeated


def read_pixels(path: Path, bands: list[int], window: Window | None) -> NDArray[Any]:
    """Read pixels (bands, height, width) as stored.

    Args:
        path: A raster.
        bands: Numbers of the bands, from 1.
        window: The window in the raster's pixels; None: all of it.

    Raises:
        SceneError: If it has fewer bands, or cannot be read.
    """
    place = None
    if window is not None:
        place = RasterWindow(window.col, window.row, window.width, window.height)
    with open_scene(path) as raster:
        if raster.count < max(bands):
            raise SceneError(
                f'{path} has {raster.count} bands, needed is band {max(bands)}'
            )
        try:
            pixels: NDArray[Any] = raster.read(bands, window=place)
        except RasterioIOError as error:
            reason = ' '.join(str(error.__cause__ or error).split())
            raise SceneError(f'{path} cannot be read: {reason}') from error
    return pixels


def filled(image: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Replace what is no number by its band's mean of the others (0 without any).

    Args:
        image: Pixels (bands, height, width).
        path: Where they come from, for the warning.
    """
    valid = np.isfinite(image)
    if valid.all():
        return image
    count = np.maximum(valid.sum(axis=(1, 2)), 1)
    mean = np.where(valid, image, 0).sum(axis=(1, 2), dtype=np.float64) / count
    warnings.warn(
        f'{path}: {(~valid).sum()} of {valid.size} values are no numbers, replaced by '
        "their band's mean",
        NodataWarning,
        stacklevel=4,
    )
    return np.where(valid, image, mean[:, None, None]).astype(np.float32)
