"""A part of a scene that is mapped: a rectangle, or polygons in it."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds

from ..errors import GridError, SettingError
from ..grids import Grid, Window, from_pixels, to_pixels, usual_longitudes
from ..windows import WindowPlan

#: Part of a pixel by which edges may differ, as rounding.
ROUNDING = 1e-3
#: Rows of polygons that are rasterized at once.
ROWS = 256

Booleans = NDArray[np.bool_]


@dataclass
class Area:
    """A part of a scene.

    Attributes:
        name: What tags of a mask call it.
        window: The rectangle of the scene that the map covers.
        shape: Polygons in pixels of the scene, column before row; None: the rectangle.
        inner: Share of the wanted ground that lies in the scene, 0 to 1.
    """

    name: str
    window: Window
    shape: Any = None
    inner: float = 1.0
    _rows: dict[int, Booleans] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> list[Any]:
        """Everything that the map of the area depends on, serializable as JSON."""
        text = b'' if self.shape is None else shapely.to_wkb(self.shape)
        return [*self.window, hashlib.sha256(text).hexdigest()]

    def grid(self, scene: Grid) -> Grid:
        """Return the grid of the area, whose pixels are those of the scene."""
        row, col, height, width = self.window
        transform = scene.transform @ Affine.translation(col, row)
        return Grid(height, width, scene.crs, transform)

    def touches(self, plan: WindowPlan) -> Booleans:
        """Return which windows (n,) of a plan share ground with the area."""
        tops, lefts = (
            np.array([start for start, _ in axis], float)
            for axis in (plan.rows, plan.cols)
        )
        top, left = (
            values.ravel() for values in np.meshgrid(tops, lefts, indexing='ij')
        )
        return self.meets(shapely.box(left, top, left + plan.window, top + plan.window))

    def meets(self, boxes: NDArray[Any]) -> Booleans:
        """Return which boxes (n,) in pixels, column before row, share ground with it."""
        row, col, height, width = self.window
        whole = shapely.box(col, row, col + width, row + height)
        shape = whole if self.shape is None else self.shape
        shapely.prepare(shape)
        # an edge in common is none
        touching = shapely.intersects(shape, boxes) & ~shapely.touches(shape, boxes)
        return np.asarray(touching, bool)

    def inside(self, row: int, rows: int) -> Booleans:
        """Return which pixels (rows, width) of the area's rectangle belong to it.

        A pixel belongs to the polygons that its center lies in.

        Args:
            row: First row, counted in the rectangle.
            rows: Number of rows.
        """
        if self.shape is None:
            return np.ones((rows, self.window.width), bool)
        first, last = row // ROWS, (row + rows - 1) // ROWS
        self._rows = {n: self._block(n) for n in range(first, last + 1)}
        whole = np.concatenate([*self._rows.values()])
        return whole[row - first * ROWS :][:rows]

    def _block(self, number: int) -> Booleans:
        """Return :meth:`inside` for a block of rows, kept from the last call."""
        known = self._rows.get(number)
        if known is not None:
            return known
        row = number * ROWS
        size = min(ROWS, self.window.height - row), self.window.width
        place = Affine.translation(self.window.col, self.window.row + row)
        found: Booleans = geometry_mask([self.shape], size, place, invert=True)
        return found


def chosen_area(
    name: str, grid: Grid, bbox: Sequence[Any] | str | None, area: str | Path | None
) -> Area | None:
    """Return the part of a scene that is mapped, None for all of it.

    Args:
        name: Name of the scene.
        grid: Its grid.
        bbox: A box of longitude and latitude, as for :func:`box_area`.
        area: Or a file of polygons.

    Raises:
        SettingError: If both are given, or the box is not one.
        LabelError: If the polygons cannot be read.
        GridError: If the scene has no CRS, or lies elsewhere.
    """
    if bbox is not None and area is not None:
        raise SettingError(
            f'Got bbox={bbox} and area={str(area)!r}, expected one of both.'
        )
    if bbox is not None:
        return box_area(name, grid, bbox)
    if area is None:
        return None
    if not isinstance(area, str | Path):
        raise SettingError(
            f'area is a {type(area).__name__}, expected a file of polygons. Write it with '
            'to_file().'
        )
    check_place(name, grid, 'area')
    # imports geopandas
    from .polygon_file import read_polygons

    shapes = read_polygons(Path(area), grid.crs).geometry.to_numpy()
    return polygon_area(name, grid, Path(area).name, shapes)


def box_area(scene: str, grid: Grid, bbox: Sequence[Any] | str) -> Area:
    """Return the part of a scene in a box of longitude and latitude.

    The rectangle covers the box, whose edges are not straight in other CRSs.

    Args:
        scene: Name of the scene.
        grid: Its grid.
        bbox: West, south, east, north in degrees, also as text with commas. A west
            beyond east crosses the date line.

    Raises:
        SettingError: If the box is not one.
        GridError: If the scene has no CRS, or lies elsewhere.
    """
    if isinstance(bbox, str):
        bbox = [part.strip() for part in bbox.split(',')]
    text = ','.join(map(str, bbox))
    west, south, east, north = read_box(bbox)
    check_place(scene, grid, 'bbox')
    box = west, south, east + 360 * (east <= west), north
    try:
        return _box_area(scene, grid, f'bbox {text}', box)
    except GridError as error:
        swapped = south, min(west, east), north, max(west, east)
        if max(abs(west), abs(east)) <= 90 and _touches(scene, grid, swapped):
            raise GridError(f'{error} Longitude and latitude are swapped.') from error
        if east < west and _touches(scene, grid, (east, south, west, north)):
            raise GridError(f'{error} West and east are swapped.') from error
        raise


def _touches(scene: str, grid: Grid, box: tuple[float, float, float, float]) -> bool:
    """Return whether a box of longitude and latitude touches a scene."""
    try:
        _box_area(scene, grid, 'box', box)
    except GridError:
        return False
    return True


def _box_area(
    scene: str, grid: Grid, name: str, box: tuple[float, float, float, float]
) -> Area:
    """Return the part of a scene in a box of west, south, east, north in degrees."""
    if not _meets(grid, box):
        raise GridError(f'{name} lies outside of {scene}, expected an area in it.')
    bounds = transform_bounds('EPSG:4326', grid.crs, *box)
    return _area(scene, grid, name, shapely.box(*bounds), False)


def _meets(grid: Grid, box: tuple[float, float, float, float]) -> bool:
    """Return whether the rectangle around a scene, in degrees, meets a box.

    In meters, a box of nearly a full turn would be around everything.
    """
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (grid.width, grid.height)
    x, y = from_pixels(corners.astype(float), grid.transform).T
    bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    west, south, east, north = transform_bounds(grid.crs, 'EPSG:4326', *bounds)
    # a scene across the date line ends west of where it starts
    width, turn = (east - west) % 360 or east - west, (box[0] - west) % 360
    beside = turn < width or turn + box[2] - box[0] > 360
    return bool(beside and south < box[3] and box[1] < north)


def read_box(bbox: Sequence[Any]) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a box in degrees.

    Raises:
        SettingError: If it is not one.
    """
    text = ','.join(map(str, bbox))
    wrong = f'Invalid bbox {text!r}, expected WEST,SOUTH,EAST,NORTH in degrees'
    try:
        west, south, east, north = (float(value) for value in bbox)
    except ValueError:
        raise SettingError(f'{wrong}, as 11.2,46.9,11.5,47.1.') from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
        raise SettingError(f'{wrong} of longitude and latitude, south below north.')
    return west, south, east, north


def polygon_area(scene: str, grid: Grid, name: str, polygons: NDArray[Any]) -> Area:
    """Return the part of a scene in polygons.

    Args:
        scene: Name of the scene.
        grid: Its grid.
        name: Name of the polygons.
        polygons: Polygons (n,) in the CRS of the scene.

    Raises:
        GridError: If the scene lies elsewhere.
        SettingError: If no pixel's center is inside.
    """
    area = _area(scene, grid, name, shapely.union_all(polygons), True)
    height = area.window.height
    if not any(
        area.inside(row, min(ROWS, height - row)).any()
        for row in range(0, height, ROWS)
    ):
        raise SettingError(
            f'{name} contains the center of no pixel of {scene}, expected a larger area.'
        )
    return area


def check_place(scene: str, grid: Grid, option: str) -> None:
    """Check that a scene has a place on Earth.

    Args:
        scene: Name of the scene.
        grid: Its grid.
        option: What requires it, for the message.

    Raises:
        GridError: If it has none.
    """
    if grid.crs is None or grid.transform.is_identity:
        raise GridError(
            f'{scene} has no CRS or no transform, which {option} requires. Set them with '
            'gdal_edit.py -a_srs … -a_ullr …'
        )


def _area(scene: str, grid: Grid, name: str, shape: Any, exact: bool) -> Area:
    """Return the part of a scene in a shape of its CRS, or in the rectangle around."""
    transform = usual_longitudes(grid).transform
    pixels = shapely.transform(shape, lambda xy: to_pixels(xy, transform))
    whole = shapely.box(0, 0, grid.width, grid.height)
    # in degrees, a full turn away is the same place
    turn = 360 / transform.a if grid.crs.is_geographic else 0
    parts = [
        shapely.intersection(shapely.affinity.translate(pixels, step * turn), whole)
        for step in ((-1, 0, 1) if turn else (0,))
    ]
    inner = shapely.union_all(parts)
    if not shapely.area(inner):
        raise GridError(f'{name} lies outside of {scene}, expected an area in it.')
    left, top, right, bottom = shapely.bounds(inner)
    col, row = (math.floor(value + ROUNDING) for value in (left, top))
    width = max(1, math.ceil(right - ROUNDING) - col)
    height = max(1, math.ceil(bottom - ROUNDING) - row)
    share = float(shapely.area(inner) / shapely.area(pixels))
    window = Window(row, col, height, width)
    return Area(name, window, inner if exact else None, share)
