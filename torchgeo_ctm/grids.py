"""Rasters as grids of pixels: a window, a georeferenced grid, the ignored value."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from .errors import GridError

Floats = NDArray[np.float64]

#: Pixels whose sides differ by up to this factor are of one size to a network: pixels in
#: degrees are narrower in the north.
SAME_SIZE: Final = 1.5
#: Value of the pixels of a mask that are no data or have no label.
IGNORED: Final = 255


class Window(NamedTuple):
    """A window in the scene's grid, in pixels; (row, col) is its upper left corner."""

    row: int
    col: int
    height: int
    width: int


class Grid(NamedTuple):
    """The grid of a raster: size in pixels, CRS (or None) and affine transform."""

    height: int
    width: int
    crs: Any
    transform: Any


def crs_agree_at(one: Any, two: Any, xy: Floats) -> bool:
    """Return whether two CRSs put points at the same place, however they are spelled.

    A CRS with heights is compared by its horizontal part. A datum that is only called
    unknown equals one with its ellipsoid.

    Args:
        one: CRS of the points, or None.
        two: The other CRS, or None.
        xy: Points (n, 2), x before y.
    """
    if one == two or one is None or two is None:
        return bool(one == two)
    try:
        first, second = (pyproj.CRS.from_user_input(crs) for crs in (one, two))
        if first.equals(second, ignore_axis_order=True):
            return True
        vague = any(_is_vague(crs) for crs in (first, second))
        if vague and not _same_shape(first, second):
            return False
        transformer = pyproj.Transformer.from_crs(
            first, second, always_xy=True, allow_ballpark=vague
        )
        moved = np.stack(transformer.transform(*xy.T), axis=1)
    except ProjError:
        return False
    # a tenth of a millimeter
    near = 1e-9 if first.is_geographic and second.is_geographic else 1e-4
    return bool(np.isfinite(moved).all() and np.abs(moved - xy).max(initial=0) < near)


def _is_vague(crs: pyproj.CRS) -> bool:
    """Return whether the datum of a CRS is unknown but for its ellipsoid."""
    return crs.datum is None or crs.datum.name.lower().startswith(
        ('unknown', 'unnamed')
    )


def _same_shape(one: pyproj.CRS, two: pyproj.CRS) -> bool:
    """Return whether two CRSs have the same ellipsoid and prime meridian."""
    shapes = [crs.ellipsoid for crs in (one, two)]
    zeros = [crs.prime_meridian for crs in (one, two)]
    if None in shapes or None in zeros:
        return False
    axes = [(e.semi_major_metre, e.inverse_flattening) for e in shapes if e is not None]
    greenwich = [m.longitude for m in zeros if m is not None]
    return bool(np.allclose(axes[0], axes[1], rtol=1e-9) and len({*greenwich}) == 1)


def check_same_grid(name: str, ours: Grid, other: str, theirs: Grid) -> None:
    """Check that two rasters share one grid; name the first difference.

    Args:
        name: Name of the first raster, for the message.
        ours: Its grid.
        other: Name of the second.
        theirs: Its grid; transforms may differ by a hundredth of a pixel, which is
            rounding, anywhere on the raster.

    Raises:
        GridError: If size, CRS or transform differ.
    """
    far = max(ours.height, ours.width)
    one, two = ours.transform, theirs.transform
    if ours.crs is not None and getattr(ours.crs, 'is_geographic', False):
        # 190 degrees and -170 degrees are one place
        turns = round((one.c - two.c) / 360)
        two = Affine.translation(360 * turns, 0) @ two
    pixel = max(abs(one.a), abs(one.b), abs(one.d), abs(one.e))
    near = one.almost_equals(two, precision=0.01 * pixel / far) and all(
        abs(a - b) <= 0.01 * pixel
        for a, b in zip(one @ (far, far), two @ (far, far), strict=True)
    )
    for what, same, pair in (
        ('size (rows, columns)', ours[:2] == theirs[:2], (ours[:2], theirs[:2])),
        (
            'CRS',
            crs_agree_at(ours.crs, theirs.crs, corners(ours)),
            (ours.crs, theirs.crs),
        ),
        ('transform', near, (tuple(one)[:6], tuple(two)[:6])),
    ):
        if not same:
            raise GridError(
                f'{name} and {other} are on different grids: {what} {pair[0]} and '
                f'{pair[1]}. Warp one to the grid of the other first.'
            )


def usual_longitudes(grid: Grid) -> Grid:
    """Return a grid with its center in -180 to 180 degrees, if it is in degrees."""
    if not getattr(grid.crs, 'is_geographic', False):
        return grid
    center = (grid.transform @ (grid.width / 2, grid.height / 2))[0]
    turns = np.floor((center + 180) / 360)
    moved = Affine.translation(-360 * turns, 0) @ grid.transform
    return grid._replace(transform=moved) if turns else grid


def to_pixels(xy: Floats, transform: Any) -> Floats:
    """Return points (n, 2) of a CRS, x and y, as columns and rows of a grid."""
    return from_pixels(xy, ~transform)


def from_pixels(pixels: Floats, transform: Any) -> Floats:
    """Return points (n, 2), columns and rows of a grid, as x and y of its CRS."""
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    xy: Floats = pixels @ matrix + (transform.c, transform.f)
    return xy


def pixel_sides(grid: Grid) -> tuple[float, float] | None:
    """Return the sides of the middle pixel in meters, along the row and the column.

    Args:
        grid: The grid.

    Returns:
        Both lengths on the ellipsoid, or None for a grid without a place on Earth.
    """
    if grid.crs is None:
        return None
    middle = np.array([grid.width, grid.height]) / 2
    steps = middle + np.array([(0, 0), (1, 0), (0, 1)])
    x, y = from_pixels(steps, grid.transform).T
    try:
        lon, lat = _degrees(grid.crs).transform(x, y)
    except ProjError:
        return None
    if not np.isfinite([lon, lat]).all():
        return None
    geod = pyproj.Geod(ellps='WGS84')
    across, down = (geod.inv(lon[0], lat[0], lon[i], lat[i])[2] for i in (1, 2))
    return (float(across), float(down)) if across > 0 and down > 0 else None


@cache
def _degrees(crs: Any) -> pyproj.Transformer:
    """Return the transformer from a CRS to longitude and latitude."""
    known = pyproj.CRS.from_user_input(crs)
    return pyproj.Transformer.from_crs(known, 'OGC:CRS84', always_xy=True)


def pixel_size(grid: Grid) -> float | None:
    """Return the side in meters of a square as large as the middle pixel, if known.

    It has two digits: scale factors of projections differ in the third.
    """
    sides = None if grid.transform.is_identity else pixel_sides(grid)
    return None if sides is None else float(f'{(sides[0] * sides[1]) ** 0.5:.2g}')


def common_pixel_size(grids: Iterable[Grid]) -> float | None:
    """Return the median :func:`pixel_size`, or None if they differ or one is unknown."""
    sizes = [pixel_size(grid) for grid in grids]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes) or max(known) > SAME_SIZE * min(known):
        return None
    return float(np.median(known))


def corners(grid: Grid) -> Floats:
    """Return the four corners (4, 2) of a grid in its CRS, clockwise."""
    height, width = grid.height, grid.width
    pixels = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    return from_pixels(pixels, grid.transform)


def clipped_boxes(bounds: Floats, grid: Grid) -> Floats:
    """Clip boxes to a grid, and put rows first.

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
