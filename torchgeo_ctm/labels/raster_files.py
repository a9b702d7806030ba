"""Read class rasters: their headers, blocks of values, and values on another grid."""

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from ..errors import LabelError, LabelWarning, SceneError, name_key
from ..grids import Grid, Window, corners
from ..rasters import grid_of, open_raster, value_names
from .crs import pyproj_crs

Masked = np.ma.MaskedArray[Any, Any]
#: Pixels read at a time.
BLOCK = 2**24
#: Files that a process keeps open.
OPEN_FILES = 32


class RasterFile(NamedTuple):
    """Header of a class raster."""

    path: str
    grid: Grid
    crs: pyproj.CRS
    #: Value of unknown pixels, or None.
    nodata: float | None
    #: Name of each value, if the file has them.
    names: dict[int, str] | None = None

    def bounds(self) -> NDArray[np.float64]:
        """Return left, bottom, right, top in the raster's CRS."""
        xy = corners(self.grid)
        return np.concatenate([xy.min(axis=0), xy.max(axis=0)])

    def turns(self) -> 'list[RasterFile]':
        """Return the file, and in degrees also a full turn to the west and east."""
        if not self.crs.is_geographic:
            return [self]
        moved = [Affine.translation(x, 0) @ self.grid.transform for x in (-360, 360)]
        return [self] + [
            self._replace(grid=self.grid._replace(transform=each)) for each in moved
        ]


def raster_paths(paths: str | Path | Sequence[str | Path], pattern: str) -> list[Path]:
    """Return the rasters of a file, several files, or folders.

    Args:
        paths: Files and folders.
        pattern: Pattern of the file names in folders, at any depth.

    Raises:
        LabelError: If a file is missing, or a folder has no raster.
    """
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        inside = sorted(path.rglob(pattern)) if path.is_dir() else [path]
        if not path.exists() or not inside:
            fault = f'has no file {pattern}' if path.exists() else 'does not exist'
            raise LabelError(f'{path} {fault}, expected class rasters.')
        found += inside
    if not found:
        raise LabelError('No class raster was given, expected at least one.')
    return found


def read_header(path: Path, band: int | None) -> RasterFile:
    """Read the header of a class raster.

    Args:
        path: The raster.
        band: Band with the classes; None: the only one.

    Raises:
        LabelError: If the file cannot be opened, has several bands and none is chosen,
            has no such band, or is not georeferenced.
    """
    with open_raster(path, LabelError) as raster:
        if band is None and raster.count > 1:
            raise LabelError(
                f'{path} has {raster.count} bands of {raster.dtypes[0]}, expected 1 '
                'band of integer classes. Pass band= of the one with the classes.'
            )
        band = band or 1
        if not 1 <= band <= raster.count:
            raise LabelError(
                f'{path} has {raster.count} band{"s" * (raster.count > 1)}, expected '
                f'band {band}. Did you mean {min(max(band, 1), raster.count)}?'
            )
        if raster.crs is None or raster.transform.is_identity:
            raise LabelError(
                f'{path} has no CRS or no transform, expected a georeferenced raster. '
                'Set them with gdal_edit.py -a_srs … -a_ullr …'
            )
        nodata = raster.nodatavals[band - 1]
        names = None
        # the tag of another program is no fault of a file whose values are mapped
        with suppress(SceneError):
            names = value_names(raster) if band == 1 else None
        crs = pyproj_crs(raster.crs)
        return RasterFile(str(path), grid_of(raster), crs, nodata, names)


def check_nodata(file: RasterFile, classes: dict[int, str]) -> None:
    """Check that the nodata value of a file is not a class.

    Raises:
        LabelError: If it is.
    """
    if file.nodata is not None and file.nodata in classes:
        value = int(file.nodata)
        raise LabelError(
            f'{file.path}: {value} is nodata, but {classes[value]!r} in class_map. '
            'Remove the nodata value with gdal_edit.py -unsetnodata.'
        )


def warn_of_names(files: Sequence[RasterFile], classes: dict[int, str]) -> None:
    """Warn if a file names a value as the class map names another one."""
    known = {name_key(name) for name in classes.values()}
    for file in files:
        for value, name in (file.names or {}).items():
            given = classes.get(value)
            if given is None or name_key(name) not in known - {name_key(given)}:
                continue
            warnings.warn(
                f'{file.path} names its value {value} {name!r}, class_map {given!r}. '
                'Values are read as class_map says.',
                LabelWarning,
                stacklevel=3,
            )
            return


class RasterReader:
    """Reader of one band of many rasters, which keeps the last files open.

    File handles belong to one process: they are not pickled, and not used after a fork.
    """

    def __init__(self, band: int) -> None:
        """Create a reader without opening a file.

        Args:
            band: Band to read, 1, 2, ….
        """
        self.band = band
        self._process = os.getpid()
        self._open: OrderedDict[str, DatasetReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Drop open file handles before pickling."""
        return self.__dict__ | {'_open': OrderedDict()}

    def warped(self, file: RasterFile, grid: Grid) -> Masked:
        """Read a raster on another grid, the nearest pixel for each of the grid's.

        Args:
            file: The raster.
            grid: The grid, in any CRS.

        Returns:
            Values (H, W) of the grid, masked if unknown or outside the raster.

        Raises:
            LabelError: If the file is damaged.
        """
        options = {
            'crs': grid.crs,
            'transform': grid.transform,
            'height': grid.height,
            'width': grid.width,
            'src_nodata': file.nodata,
            'nodata': file.nodata,
            # a full turn away, or as in the file
            'src_transform': file.grid.transform,
            # without nodata, an alpha band tells what is outside the raster
            'add_alpha': file.nodata is None,
        }

        with self._opened(file) as raster, WarpedVRT(raster, **options) as vrt:
            values: Masked = vrt.read(self.band, masked=True)
        return values

    def blocks(self, file: RasterFile, window: Window) -> Iterator[Masked]:
        """Read a window of a raster from top to bottom.

        Args:
            file: The raster.
            window: The window, inside the raster.

        Yields:
            Values (rows, width), masked if unknown.

        Raises:
            LabelError: If the file is damaged.
        """
        step = max(BLOCK // max(window.width, 1), 1)
        for row in range(0, window.height, step):
            height = min(step, window.height - row)
            part = RasterWindow(window.col, window.row + row, window.width, height)
            with self._opened(file) as raster:
                values = raster.read(self.band, window=part, masked=True)
            yield values

    @contextmanager
    def _opened(self, file: RasterFile) -> Iterator[DatasetReader]:
        """Open a raster, or find it open.

        Raises:
            LabelError: If the file is damaged.
        """
        if self._process != os.getpid():  # a fork must not share its parent's handles
            self._open, self._process = OrderedDict(), os.getpid()
        if file.path not in self._open:
            self._open[file.path] = open_raster(file.path, LabelError)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(file.path)
        try:
            yield self._open[file.path]
        except (RasterioError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise LabelError(f'{file.path} cannot be read: {reason}') from error
