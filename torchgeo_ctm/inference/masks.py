"""Open class and confidence rasters, and read them by row bands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from .. import rasters
from ..errors import CTMError, GridError, SceneError
from ..grids import IGNORED, check_same_grid
from ..legends import class_color
from ..rasters import grid_of, tagged_class_names

#: Pixels of a row band; what is computed for each takes 50 bytes.
ROW_BAND = 1 << 20
#: Types that GDAL can sieve and turn into polygons without rounding.
DTYPES = ('uint8', 'int16', 'uint16', 'int32')


def open_raster(path: str | Path, what: str, bands: int | None = 1) -> DatasetReader:
    """Open a raster.

    Args:
        path: The raster.
        what: Expected content, for the error.
        bands: Expected number of bands; None: any.

    Raises:
        SceneError: If it is missing, not a raster, or has another number of bands.
    """
    if not Path(path).exists():
        raise SceneError(f'{path} does not exist, expected a raster of {what}.')
    raster = rasters.open_raster(path)
    if bands is not None and raster.count != bands:
        raster.close()
        raise SceneError(
            f'{path} has {raster.count} bands, expected {bands} of {what}.'
        )
    return raster


def open_mask(path: str | Path) -> DatasetReader:
    """Open a class raster.

    Raises:
        SceneError: If it cannot be read or does not hold classes.
    """
    raster = open_raster(path, 'classes')
    fault = None
    if raster.dtypes[0] not in DTYPES:
        fault = (
            f'{path} holds {raster.dtypes[0]}, expected classes as '
            f'{" or ".join(DTYPES)}. Convert it with gdal_translate -ot Byte.'
        )
    elif str(raster.descriptions[0]).startswith('confidence'):
        fault = f'{path} holds confidence in percent, expected classes.'
    if fault is not None:
        raster.close()
        raise SceneError(fault)
    rasters.warn_of_control_points(raster, str(path))
    rasters.warn_of_nodata_class(raster)
    return raster


def open_confidence(path: str | Path, mask: DatasetReader) -> DatasetReader:
    """Open the confidence raster of a mask.

    Raises:
        SceneError: If it cannot be read or does not hold confidence.
        GridError: If its grid differs from that of *mask*.
    """
    raster = open_raster(path, 'confidence in percent')
    fault: CTMError | None = None
    if 'CLASS_NAMES' in raster.tags():
        fault = SceneError(f'{path} holds classes, expected confidence in percent.')
    elif raster.dtypes[0] != 'uint8':
        fault = SceneError(
            f'{path} holds {raster.dtypes[0]}, expected confidence in percent as uint8. '
            'Convert it with gdal_translate -ot Byte -scale MIN MAX 0 100.'
        )
    else:
        try:
            check_same_grid(mask.name, grid_of(mask), str(path), grid_of(raster))
        except GridError as error:
            fault = error
    if fault is not None:
        raster.close()
        raise fault
    return raster


def check_percent(values: NDArray[np.integer[Any]], name: str) -> None:
    """Check that known confidence is in percent.

    Raises:
        SceneError: If it is above 100.
    """
    most = int(values.max(initial=0))
    if most > 100:
        raise SceneError(
            f'{name} holds {most}, expected confidence of 0 to 100 percent.'
        )


def class_names(raster: DatasetReader) -> list[str]:
    """Return the class names of a mask, or ``[]`` if it has none.

    Raises:
        SceneError: If its tag is damaged.
    """
    return tagged_class_names(raster) or []


def class_colors(raster: DatasetReader) -> list[str]:
    """Return the ``#rrggbb`` of each named class, matplotlib's tab20 without a palette."""
    try:
        palette = raster.colormap(1)
    except ValueError:
        palette = {}
    count = len(class_names(raster))
    if not palette:
        return [class_color(index) for index in range(count)]
    colors = [palette.get(index, (0, 0, 0)) for index in range(count)]
    return [f'#{color[0]:02x}{color[1]:02x}{color[2]:02x}' for color in colors]


def row_bands(raster: DatasetReader) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Read a class raster from top to bottom.

    Yields:
        The first row of a row band, and its classes (rows, width), −1 for nodata.

    Raises:
        SceneError: If the file is damaged.
    """
    nodata = IGNORED if raster.nodata is None else raster.nodata
    rows = max(1, ROW_BAND // raster.width)
    for row in range(0, raster.height, rows):
        values = read_rows(raster, row, rows).astype(np.int32)
        values[values == nodata] = -1
        yield row, values


def read_rows(raster: DatasetReader, row: int, rows: int) -> NDArray[np.generic]:
    """Read at most *rows* rows, (rows, width), from *row* downwards.

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
        raise SceneError(f'Cannot read {raster.name}: {reason}') from error
    return values
