"""Read class rasters, strip by strip."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from .. import rasters
from ..errors import GridError, SceneError
from ..grids import IGNORED

#: Pixels read at a time, as whole rows: what is worked out for each takes 50 bytes.
STRIP = 1 << 20
#: What GDAL can sieve and turn into polygons without rounding.
DTYPES = ('uint8', 'int16', 'uint16', 'int32')


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warning that a raster has no georeference, where that is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        yield


def open_raster(path: str | Path, what: str, bands: int | None = 1) -> DatasetReader:
    """Open a raster.

    Args:
        path: The raster.
        what: What it should hold, for the message.
        bands: How many bands it should have; None: any number.

    Raises:
        SceneError: If it is missing, no raster, or has another number of bands.
    """
    if not Path(path).exists():
        raise SceneError(f'{path} does not exist; needed: a raster of {what}')
    raster = rasters.open_raster(path)
    if bands is not None and raster.count != bands:
        raster.close()
        raise SceneError(f'{path} has {raster.count} bands; needed: {bands} of {what}')
    return raster


def open_mask(path: str | Path) -> DatasetReader:
    """Open a class raster.

    Raises:
        SceneError: If it cannot be read or holds something else.
    """
    raster = open_raster(path, 'classes')
    if raster.dtypes[0] not in DTYPES:
        dtype = raster.dtypes[0]
        raster.close()
        raise SceneError(
            f'{path} holds {dtype}; needed: classes as {" or ".join(DTYPES)} '
            '(gdal_translate -ot Byte makes them)'
        )
    if str(raster.descriptions[0]).startswith('confidence'):
        raster.close()
        raise SceneError(f'{path} holds confidence in per cent; needed: classes')
    return raster


def open_confidence(path: str | Path, mask: DatasetReader) -> DatasetReader:
    """Open the confidence raster of a mask.

    Raises:
        SceneError: If it cannot be read or holds something else.
        GridError: If it lies on another grid than *mask*.
    """
    raster = open_raster(path, 'confidence in per cent')
    problem: Exception | None = None
    same = raster.shape == mask.shape and raster.crs == mask.crs
    pixel = max(abs(part) for part in mask.transform[:6:3] + mask.transform[1:6:3])
    if 'CLASS_NAMES' in raster.tags():
        problem = SceneError(f'{path} holds classes; needed: confidence in per cent')
    elif not (same and raster.transform.almost_equals(mask.transform, 1e-6 * pixel)):
        problem = GridError(
            f'{path} and {mask.name} are on different grids; needed: the confidence '
            'that was written with the mask'
        )
    if problem is not None:
        raster.close()
        raise problem
    return raster


def class_names(raster: DatasetReader) -> list[str]:
    """Return the class names of a mask, or ``[]`` where it carries none."""
    tag = raster.tags().get('CLASS_NAMES')
    return [str(name) for name in json.loads(tag)] if tag else []


def class_colors(raster: DatasetReader) -> list[str]:
    """Return the ``#rrggbb`` of each named class, or ``[]`` without a colour table."""
    try:
        palette = raster.colormap(1)
    except ValueError:
        return []
    names = class_names(raster)
    colors = (palette.get(index, (0, 0, 0, 255)) for index in range(len(names)))
    return [f'#{color[0]:02x}{color[1]:02x}{color[2]:02x}' for color in colors]


def strips(raster: DatasetReader) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Read a class raster from top to bottom.

    Yields:
        The first row, and classes (rows, width) with −1 for nodata.

    Raises:
        SceneError: If the file is damaged.
    """
    nodata = IGNORED if raster.nodata is None else raster.nodata
    rows = max(1, STRIP // raster.width)
    for row in range(0, raster.height, rows):
        values = read_rows(raster, row, rows).astype(np.int32)
        values[values == nodata] = -1
        yield row, values


def read_rows(raster: DatasetReader, row: int, rows: int) -> NDArray[np.generic]:
    """Read one strip of at most *rows* rows, (rows, width), from *row* downwards.

    Raises:
        SceneError: If the file is damaged.
    """
    rows = min(rows, raster.height - row)
    try:
        values: NDArray[np.generic] = raster.read(
            1, window=RasterWindow(0, row, raster.width, rows)
        )
    except (RasterioError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SceneError(f'{raster.name} cannot be read: {reason}') from error
    return values
