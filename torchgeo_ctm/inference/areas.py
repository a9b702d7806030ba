"""Areas on the ground, whatever the projection."""

from pathlib import Path

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.io import DatasetReader

from ..errors import GridError
from .masks import class_names, open_mask, strips

#: Cells along an axis: over the whole globe, 0.7°, areas are still right to 2e-5.
CELLS = 512
#: Cells along an axis of what is no wider than :data:`REGION`.
REGION_CELLS = 64
#: Degrees; a cell of a region is finer than one of the globe.
REGION = 30.0

WGS84 = pyproj.Geod(ellps='WGS84')


class PixelAreas:
    """The area of every pixel of a raster on the WGS84 ellipsoid.

    Areas are worked out for at most 512 × 512 cells, 64 × 64 of a region, whose corners
    are carried to the ellipsoid, and are linear between their centres.
    """

    def __init__(self, raster: DatasetReader) -> None:
        """Work out the cells.

        Raises:
            GridError: If the raster has no CRS or no transform, or no place on Earth.
        """
        self._height, self._width = raster.shape
        lon, lat = self._corners(raster, REGION_CELLS)
        if not (np.ptp(lon) <= REGION and np.ptp(lat) <= REGION):
            lon, lat = self._corners(raster, CELLS)
        square_metres = np.nan_to_num(_quad_areas(_authalic(lon, lat)))
        pixels = self._height * self._width / (self._cells[0] * self._cells[1])
        self._density = square_metres / pixels / 10_000

    def _corners(
        self, raster: DatasetReader, cells: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitude and latitude of the corners of cells."""
        self._cells = (min(cells, self._height), min(cells, self._width))
        rows, cols = np.meshgrid(
            np.linspace(0, self._height, self._cells[0] + 1),
            np.linspace(0, self._width, self._cells[1] + 1),
            indexing='ij',
        )
        return _to_degrees(raster, *(raster.transform @ (cols, rows)))

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the hectares of each pixel of rows *start* to *stop* − 1, (rows, width)."""
        low, high, share = _between(
            np.arange(start, stop), self._height, self._cells[0]
        )
        rows = self._density[low] * (1 - share[:, None])
        rows += self._density[high] * share[:, None]
        low, high, share = _between(np.arange(self._width), self._width, self._cells[1])
        rows = rows[:, low] * (1 - share) + rows[:, high] * share
        return np.asarray(rows, np.float64)


def class_areas(mask: str | Path) -> dict[str, float]:
    """Add up the area of each class.

    Args:
        mask: Class raster; class names are read from its tags.

    Returns:
        Class name → hectares on the WGS84 ellipsoid, 0 for a class that does not occur.
        Without names, the classes that occur, by number.

    Raises:
        SceneError: If the raster cannot be read.
        GridError: If it has no CRS or no transform.
    """
    with open_mask(mask) as raster:
        names = class_names(raster)
        areas = PixelAreas(raster)
        totals = np.zeros(len(names))
        for row, values in strips(raster):
            known = values >= 0
            hectares = areas.rows(row, row + len(values))[known]
            sums = np.bincount(values[known], hectares)
            longest = max(len(sums), len(totals))
            totals = np.pad(totals, (0, longest - len(totals)))
            totals[: len(sums)] += sums
    return {
        names[index] if index < len(names) else str(index): float(total)
        for index, total in enumerate(totals)
        if index < len(names) or total
    }


def _to_degrees(
    raster: DatasetReader, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude, NaN off the Earth."""
    if raster.crs is None:
        raise GridError(
            f'{raster.name} has no CRS, so its pixels have no area; needed: a CRS '
            '(gdal_edit.py -a_srs EPSG:…)'
        )
    if raster.transform.is_identity:
        raise GridError(
            f'{raster.name} has no transform, so its pixels have no area; needed: a '
            'transform (gdal_edit.py -a_ullr …)'
        )
    try:
        crs = pyproj.CRS.from_user_input(raster.crs)
        transformer = pyproj.Transformer.from_crs(crs, 'EPSG:4326', always_xy=True)
        lon, lat = transformer.transform(x, y)
    except ProjError as error:
        reason = str(error).splitlines()[0]
        raise GridError(f'{raster.name} has no place on Earth: {reason}') from error
    off = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(off, np.nan, lon), np.where(off, np.nan, lat).clip(-90, 90)


def _authalic(
    lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Carry degrees on the ellipsoid to the sphere of equal areas, unit vectors (…, 3).

    On a sphere the area of a quad has a closed form that also holds at the poles and
    across the date line.
    """
    sine = _authalic_q(np.sin(np.radians(lat))) / _authalic_q(np.float64(1))
    cosine = np.sqrt((1 - sine**2).clip(0))
    angle = np.radians(lon)
    return np.stack([cosine * np.cos(angle), cosine * np.sin(angle), sine], axis=-1)


def _authalic_q(sine: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Return the area from equator to latitude, in units of π a² (Snyder 1987, 3-12)."""
    e = np.sqrt(WGS84.es)
    return np.asarray(
        (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    )


def _quad_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas (n, m) in m² of the quads between corners (n+1, m+1, 3)."""
    a, b = corners[:-1, :-1], corners[:-1, 1:]
    c, d = corners[1:, 1:], corners[1:, :-1]
    radius2 = WGS84.a**2 * _authalic_q(np.float64(1)) / 2
    return np.asarray(radius2 * np.abs(_excess(a, b, c) + _excess(a, c, d)))


def _excess(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the signed spherical excess of triangles of unit vectors, in steradians."""
    # differences first: corners of one pixel agree in most of their digits
    volume = (a * np.cross(b - a, c - a)).sum(-1)
    return np.asarray(
        2 * np.arctan2(volume, 1 + (a * b + b * c + c * a).sum(-1)), np.float64
    )


def _between(
    pixels: NDArray[np.int64], length: int, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the cells before and after each pixel's centre, and the latter's share.

    Beyond the centres of the outermost cells the line goes on.
    """
    place = (pixels + 0.5) * cells / length - 0.5
    low = np.floor(place).astype(np.int64).clip(0, max(cells - 2, 0))
    high = (low + 1).clip(max=cells - 1)
    return low, high, place - low
