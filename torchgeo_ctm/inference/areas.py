"""Areas on the ground, in any projection."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.io import DatasetReader

from ..errors import GridError
from .masks import class_names, open_mask, row_bands

#: Cells along an axis. Over the whole globe, 0.7° each, areas are right to 2e-5.
CELLS = 512
#: Cells along an axis of a raster no wider than :data:`REGION`.
REGION_CELLS = 64
#: Degrees; a cell of a region is finer than one of the globe.
REGION = 30.0

#: Lambert's cylindrical equal-area projection of the WGS84 ellipsoid, in meters.
EQUAL_AREA = pyproj.Proj(proj='cea', ellps='WGS84')
#: Its y at the pole, and the square of the radius of the sphere of equal area.
POLE = EQUAL_AREA(0, 90)[1]
RADIUS2 = pyproj.Geod(ellps='WGS84').a * POLE


class Scale(NamedTuple):
    """Size of a pixel on the ground in meters, and the direction of north in pixels."""

    across: float
    down: float
    #: Columns and rows, of any length.
    north: tuple[float, float]


class PixelAreas:
    """The area of every pixel of a raster on the WGS84 ellipsoid.

    Areas are computed for at most 512 × 512 cells, 64 × 64 of a region, whose corners
    are projected to the sphere of equal area, and interpolated linearly between the
    centers of the cells.
    """

    def __init__(self, raster: DatasetReader) -> None:
        """Compute the areas of the cells.

        Raises:
            GridError: If the raster has no CRS, no transform, or no location on Earth.
        """
        self._height, self._width = raster.shape
        lon, lat = self._corners(raster, REGION_CELLS)
        if not (np.ptp(lon) <= REGION and np.ptp(lat) <= REGION):
            lon, lat = self._corners(raster, CELLS)
        square_meters = np.nan_to_num(_quad_areas(_on_sphere(lon, lat)))
        pixels = self._height * self._width / (self._cells[0] * self._cells[1])
        self._density = square_meters / pixels / 10_000

    def _corners(
        self, raster: DatasetReader, cells: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitude and latitude (n+1, m+1) of the corners of n × m cells."""
        self._cells = (min(cells, self._height), min(cells, self._width))
        rows, cols = (
            np.linspace(0, side, count + 1)
            for side, count in zip(raster.shape, self._cells, strict=True)
        )
        return _to_degrees(raster, rows, cols)

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the hectares of each pixel of rows *start* to *stop* − 1, (rows, width)."""
        low, high, weight = _between(
            np.arange(start, stop), self._height, self._cells[0]
        )
        rows = self._density[low] * (1 - weight[:, None])
        rows += self._density[high] * weight[:, None]
        low, high, weight = _between(
            np.arange(self._width), self._width, self._cells[1]
        )
        rows = rows[:, low] * (1 - weight) + rows[:, high] * weight
        return np.asarray(rows, np.float64)


def class_areas(mask: str | Path) -> dict[str, float]:
    """Return the area of each class.

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
        for row, values in row_bands(raster):
            known = values >= 0
            hectares = areas.rows(row, row + len(values))[known]
            sums = np.bincount(values[known], hectares, len(totals)).astype(float)
            sums[: len(totals)] += totals
            totals = sums
    return {
        names[index] if index < len(names) else str(index): float(total)
        for index, total in enumerate(totals)
        if index < len(names) or total
    }


def ground_scale(raster: DatasetReader, row: float) -> Scale | None:
    """Return how large pixels are on the ground, and where north is.

    Args:
        raster: The raster.
        row: Row in whose middle column it is measured.

    Returns:
        The scale, or None for a raster without a location on Earth.
    """
    half = max(0.5, min(raster.shape) / 16)
    col, steps = raster.width / 2, np.array([-half, 0, half])
    try:
        lon, lat = _to_degrees(raster, row + steps, col + steps)
    except GridError:
        return None
    ellipsoid = pyproj.Geod(ellps='WGS84')
    across, down = (
        ellipsoid.inv(lon[a], lat[a], lon[b], lat[b])[2] / (2 * half)
        for a, b in (((1, 0), (1, 2)), ((0, 1), (2, 1)))
    )
    # degrees per column and per row; longitudes turn at the date line
    turns = np.array([lon[1, 2] - lon[1, 0], lon[2, 1] - lon[0, 1]])
    steps = np.array(
        [(turns + 180) % 360 - 180, [lat[1, 2] - lat[1, 0], lat[2, 1] - lat[0, 1]]]
    )
    if not (across > 0 and down > 0 and np.linalg.det(steps)):
        return None
    north = np.linalg.solve(steps, [0.0, 1.0])
    return Scale(float(across), float(down), (float(north[0]), float(north[1])))


def _to_degrees(
    raster: DatasetReader, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude of corners of pixels, NaN off the Earth.

    Args:
        raster: The raster.
        rows: Rows (n,), may be fractions.
        cols: Columns (m,), likewise.

    Returns:
        Degrees (n, m) each.
    """
    for fault, what, fix in (
        (raster.crs is None, 'CRS', '-a_srs EPSG:…'),
        (raster.transform.is_identity, 'transform', '-a_ullr …'),
    ):
        if fault:
            raise GridError(
                f'{raster.name} has no {what}, so its pixels have no area. Assign one '
                f'with gdal_edit.py {fix}.'
            )
    grid = np.meshgrid(cols, rows)
    try:
        crs = pyproj.CRS.from_user_input(raster.crs)
        transformer = pyproj.Transformer.from_crs(crs, 'EPSG:4326', always_xy=True)
        lon, lat = transformer.transform(*(raster.transform @ (grid[0], grid[1])))
    except ProjError as error:
        reason = str(error).splitlines()[0]
        raise GridError(f'{raster.name} has no location on Earth: {reason}') from error
    off = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(off, np.nan, lon), np.where(off, np.nan, lat).clip(-90, 90)


def _on_sphere(
    lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return unit vectors (…, 3) on the sphere of equal area.

    On a sphere the area of a quadrangle has a closed form that also holds at the poles
    and across the date line.
    """
    sine = EQUAL_AREA(np.zeros_like(lat), np.nan_to_num(lat))[1] / POLE
    cosine = np.sqrt((1 - sine**2).clip(0))
    angle = np.radians(lon)
    return np.stack([cosine * np.cos(angle), cosine * np.sin(angle), sine], axis=-1)


def _quad_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas (n, m) in m² of the quadrangles between corners (n+1, m+1, 3)."""
    a, b = corners[:-1, :-1], corners[:-1, 1:]
    c, d = corners[1:, 1:], corners[1:, :-1]
    return np.asarray(RADIUS2 * np.abs(_excess(a, b, c) + _excess(a, c, d)))


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
    """Return the cells before and after each pixel's center, and the latter's weight.

    Beyond the centers of the outermost cells the line is extrapolated.
    """
    position = (pixels + 0.5) * cells / length - 0.5
    low = np.floor(position).astype(np.int64).clip(0, max(cells - 2, 0))
    high = (low + 1).clip(max=cells - 1)
    return low, high, position - low
