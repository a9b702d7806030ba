"""Categorical rasters on disk: their headers, and blocks of their values."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..errors import LabelError
from ..grids import Grid
from ..rasters import grid_of, open_raster
from .places import corners, pyproj_crs

#: Pixels read at a time.
BLOCK = 2**24
#: Files that a process keeps open.
OPEN_FILES = 32


class RasterFile(NamedTuple):
    """What the header of a raster tells."""

    path: str
    grid: Grid
    crs: pyproj.CRS
    #: Value that means unknown, or None.
    nodata: float | None

    def bounds(self) -> NDArray[np.float64]:
        """Return left, bottom, right, top in the raster's CRS."""
        xy = corners(self.grid)
        return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def raster_paths(paths: str | Path | Sequence[str | Path], pattern: str) -> list[Path]:
    """Return the rasters of a file, several files, or folders.

    Args:
        paths: Files and folders.
        pattern: Which files of a folder, at any depth.

    Raises:
        LabelError: If one is not there, or a folder has none.
    """
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        inside = sorted(path.rglob(pattern)) if path.is_dir() else [path]
        if not path.exists() or not inside:
            fault = f'has no file {pattern}' if path.exists() else 'does not exist'
            raise LabelError(f'{path} {fault}; needed: rasters of classes')
        found += inside
    if not found:
        raise LabelError('no raster of classes was given; needed: at least one')
    return found


def read_header(path: Path, band: int | None) -> RasterFile:
    """Return what a raster's header tells.

    Args:
        path: The raster.
        band: Band with the classes; None: the only one.

    Raises:
        LabelError: If it cannot be opened, has several bands and none is chosen, has no
            such band or no place on the ground.
    """
    with _open(path) as raster:
        if band is None and raster.count > 1:
            raise LabelError(
                f'{path} has {raster.count} bands of {raster.dtypes[0]}; needed: 1 band '
                'of integer classes, or band= of the one that holds them'
            )
        band = band or 1
        if not 1 <= band <= raster.count:
            raise LabelError(
                f'{path} has {raster.count} band{"s" * (raster.count > 1)}; needed: '
                f'band {band}; nearest: '
                f'{min(max(band, 1), raster.count)}'
            )
        if raster.crs is None or raster.transform.is_identity:
            raise LabelError(
                f'{path} has no CRS or no transform; needed: a georeferenced raster of '
                'classes (gdal_edit.py -a_srs … -a_ullr … gives it one)'
            )
        grid = grid_of(raster)
        nodata = raster.nodatavals[band - 1]
        return RasterFile(str(path), grid, pyproj_crs(raster.crs), nodata)


def _open(path: str | Path) -> DatasetReader:
    """Open a raster.

    Raises:
        LabelError: If it is none.
    """
    return open_raster(path, LabelError)


class OpenRasters:
    """Rasters that are opened when they are first read, once a process.

    The handles of the process that made this object are never used by another, and are
    not pickled.
    """

    def __init__(self, band: int) -> None:
        """Open nothing yet.

        Args:
            band: Band to read, 1, 2, ….
        """
        self.band = band
        self._process = os.getpid()
        self._open: OrderedDict[str, DatasetReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handles out."""
        return self.__dict__ | {'_open': OrderedDict()}

    def blocks(
        self, file: RasterFile, rows: tuple[int, int], cols: tuple[int, int]
    ) -> Iterator[tuple[int, np.ma.MaskedArray[Any, Any]]]:
        """Read a part of a raster, from top to bottom.

        Args:
            file: The raster.
            rows: First row, and the row behind the last.
            cols: First column, and the column behind the last.

        Yields:
            The first row, and values (rows, columns) masked where they are unknown.

        Raises:
            LabelError: If the file is damaged.
        """
        width = cols[1] - cols[0]
        if width < 1:
            return
        step = max(BLOCK // width, 1)
        for row in range(*rows, step):
            window = RasterWindow(cols[0], row, width, min(step, rows[1] - row))
            try:
                values = self._reader(file.path).read(
                    self.band, window=window, masked=True
                )
            except (RasterioError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise LabelError(f'{file.path} cannot be read: {reason}') from error
            yield row, values

    def _reader(self, path: str) -> DatasetReader:
        if self._process != os.getpid():  # a fork must not share its parent's handles
            self._open, self._process = OrderedDict(), os.getpid()
        if path not in self._open:
            self._open[path] = _open(path)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]


def check_nodata(file: RasterFile, classes: dict[int, str]) -> None:
    """Refuse a class whose value means nodata in the file.

    Raises:
        LabelError: If there is one.
    """
    if file.nodata is not None and file.nodata in classes:
        value = int(file.nodata)
        raise LabelError(
            f'{file.path}: {value} is nodata, but {classes[value]!r} in class_map; '
            'needed: a file whose nodata is no class (gdal_edit.py -unsetnodata)'
        )
