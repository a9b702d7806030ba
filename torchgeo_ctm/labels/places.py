"""Coordinate reference systems, and where things lie in a grid's pixels."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from ..errors import LabelError
from ..grids import Grid

Floats = NDArray[np.float64]
#: Degrees that are rounding.
DEGREES = 1e-6


@lru_cache(maxsize=256)
def pyproj_crs(crs: Any) -> pyproj.CRS:
    """Return pyproj's CRS for rasterio's, an authority code or a WKT.

    Raises:
        LabelError: If there is none, or it cannot be understood.
    """
    if crs is None:
        raise LabelError(
            'a scene without a CRS has no place on the ground; needed: a georeferenced '
            'scene, or labels by name (TableLabels)'
        )
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise LabelError(
            f'crs={crs} is not understood; needed: a CRS such as EPSG:32633'
        ) from error


@lru_cache(maxsize=256)
def same_crs(first: Any, second: Any) -> bool:
    """Return whether two CRS are one, whatever the order of their axes."""
    return pyproj_crs(first).equals(pyproj_crs(second), ignore_axis_order=True)


@lru_cache(maxsize=64)
def transformer(source: Any, target: Any) -> pyproj.Transformer:
    """Return the way from one CRS to another, x before y in both."""
    return pyproj.Transformer.from_crs(
        pyproj_crs(source), pyproj_crs(target), always_xy=True
    )


def moved(xy: Floats, source: Any, target: Any) -> Floats:
    """Return points (n, 2) in another CRS, not finite where it is not defined."""
    if same_crs(source, target):
        return xy
    return np.stack(transformer(source, target).transform(*xy.T), axis=1)


def straight(crs: Any) -> float:
    """Return how long an edge in a CRS may be before it must bend in another: 5 km.

    Edges are straight in the CRS of their file. Bent over 5 km, a parallel of latitude
    is half a metre off; without corners in between, that of a country is kilometres off.
    """
    if pyproj_crs(crs).is_geographic:
        return 0.05
    return 5000 / float(pyproj_crs(crs).axis_info[0].unit_conversion_factor)


def moved_and_back(
    xy: Floats, source: Any, target: Any
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return points (n, 2) in another CRS, and which of them it is defined for (n,).

    Far outside its area a projection may fold the globe: coordinates look right, but
    lead elsewhere when they are moved back, by more than a metre.
    """
    there = moved(xy, source, target)
    off = np.abs(moved(there, target, source) - xy)
    degrees = pyproj_crs(source).is_geographic
    if degrees:
        off[:, 0] = np.minimum(off[:, 0], np.abs(off[:, 0] - 360))
    near = off < (1e-5 if degrees else 1.0)
    defined = near & np.isfinite(there)
    return there, defined[:, 0] & defined[:, 1]


def check_degrees(
    path: str | Path,
    rows: Sequence[int],
    bounds: Floats,
    crs: pyproj.CRS,
    names: tuple[str, str] = ('x', 'y'),
) -> None:
    """Refuse coordinates that a CRS in degrees does not have.

    Moving them would take minutes, and lead nowhere.

    Args:
        path: File, for the message.
        rows: Number of each row, for the message.
        bounds: Boxes (n, 4), as shapely orders them; NaN where there is none.
        crs: CRS of the coordinates.
        names: What the message calls longitude and latitude.

    Raises:
        LabelError: If there are any; the message says what may be wrong.
    """
    if not crs.is_geographic:
        return
    degrees = bounds * np.degrees(crs.axis_info[0].unit_conversion_factor)
    x, y = degrees[:, ::2], degrees[:, 1::2]
    far_x = ((x < -180 - DEGREES) | (x > 360 + DEGREES)).any(axis=1)
    far_y = (np.abs(y) > 90 + DEGREES).any(axis=1)
    beyond = far_x | far_y
    if not beyond.any():
        return
    row = int(np.argmax(beyond))
    pair, name, needed = (x, names[0], '-180 to 360')
    if far_y[row]:
        pair, name, needed = (y, names[1], '-90 to 90')
    value = pair[row, np.argmax(np.abs(pair[row]))]
    hint = f' ({beyond.sum():,} of {len(beyond):,} rows are beyond)'
    if beyond.sum() > len(beyond) / 2:
        hint = (
            f'; {crs.name} is not the CRS of its coordinates: give theirs as crs=, such '
            'as EPSG:32633'
        )
        if not far_x.any() and np.nan_to_num(np.abs(x)).max() <= 90:
            hint = '; longitude and latitude look swapped'
    raise LabelError(
        f'{path}, row {rows[row]}: {name} is {value:g} degrees; needed: {needed}{hint}'
    )


def to_pixels(xy: Floats, transform: Any) -> Floats:
    """Return points (n, 2) of a CRS, x and y, in a grid's pixels: column, row."""
    return _apply(~transform, xy)


def to_ground(pixels: Floats, transform: Any) -> Floats:
    """Return points (n, 2) in a grid's pixels, column and row, in its CRS: x, y."""
    return _apply(transform, pixels)


def _apply(affine: Any, xy: Floats) -> Floats:
    matrix = np.array([[affine.a, affine.d], [affine.b, affine.e]])
    moved: Floats = xy @ matrix + (affine.c, affine.f)
    return moved


def corners(grid: Grid) -> Floats:
    """Return the four corners (4, 2) of a grid in its CRS, in order."""
    height, width = grid.height, grid.width
    pixels = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    return to_ground(pixels, grid.transform)


def outline(grid: Grid) -> Any:
    """Return the ground of a grid as a polygon in its CRS."""
    return shapely.Polygon(corners(grid))


def clipped_boxes(bounds: Floats, grid: Grid) -> Floats:
    """Return boxes cut to a grid.

    Args:
        bounds: Boxes (n, 4) in pixels, as shapely orders them: first column, first
            row, last column, last row.
        grid: The grid.

    Returns:
        Boxes (n, 4): first row, first column, last row, last column.
    """
    limits = (grid.height, grid.width) * 2
    boxes: Floats = np.clip(bounds[:, [1, 0, 3, 2]], 0.0, limits)
    return boxes
