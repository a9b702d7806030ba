"""Image labels from points: the classes of the points in a window."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, SettingError
from ..grids import Grid
from .features import FeatureLabels, Geometries, View
from .places import check_degrees, outline, pyproj_crs, to_pixels
from .source import ImageLabel
from .table_files import TEXT, Table, missing_column, read_table
from .vector_files import Features, kept_rows, read_features

#: Names of coordinate columns, in lower case, and whether they are degrees.
COORDINATES = (
    ('lon', 'lat', True),
    ('long', 'lat', True),
    ('longitude', 'latitude', True),
    ('x', 'y', False),
    ('easting', 'northing', False),
)


class PointLabels(FeatureLabels):
    """Labels of windows from points that carry one class or several.

    A window contains the classes of the points in it; its first row and column belong
    to it, what lies just behind its last does not, so that windows side by side never
    share a point. Other classes are unknown unless ``complete=True``.
    """

    def __init__(
        self,
        path: str | Path,
        field: str,
        classes: Sequence[str] | None = None,
        *,
        layer: str | None = None,
        crs: Any = None,
        x_field: str | None = None,
        y_field: str | None = None,
        ignore: Sequence[str] = (),
        min_points: int = 1,
        complete: bool = False,
    ) -> None:
        """Read the points.

        Args:
            path: Any vector file that geopandas reads, or a table (.csv, .tsv, .txt)
                with columns lon and lat, or x and y.
            field: Attribute or column with the class of each point, or its classes; as
                for :class:`PolygonLabels`.
            classes: Names of the classes; None: those found, in alphabetical order.
            layer: Layer of the file, where it has several.
            crs: CRS of the coordinates. Of a table's lon and lat it is EPSG:4326
                unless given; of its x and y it must be given.
            x_field: Column of x or longitude, where it has another name.
            y_field: Column of y or latitude, where it has another name.
            ignore: Names that are skipped; a point with no other name is left out.
            min_points: Smallest number of points that makes a class present.
            complete: Whether windows with at least *min_points* points contain no class
                without a point.

        Raises:
            LabelError: If the file is missing, damaged, has no points or no CRS, or
                names unknown classes; the message says which row.
            SettingError: If *min_points* is below 1.
        """
        if min_points < 1:
            raise SettingError(
                f'min_points={min_points}; needed: 1 or more; nearest: 1'
            )
        if Path(path).suffix.lower() in TEXT:
            features = _table_points(read_table(path), field, crs, x_field, y_field)
        else:
            features = read_features(path, field, layer, crs)
        super().__init__(_points(features), field, classes, ignore)
        self.min_points, self.complete = min_points, complete

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a window, None where nothing is known of it.

        Raises:
            LabelError: If the window has no CRS.
        """
        counts, points = self.counts(grid)
        present = counts >= self.min_points
        absent = (counts == 0) & (self.complete and points >= self.min_points)
        known = present | absent
        return ImageLabel(present.astype(np.float32), known) if known.any() else None

    def counts(self, grid: Grid) -> tuple[NDArray[np.int64], int]:
        """Return the number of a window's points of each class (C,), and of all."""
        view = self.view(grid.crs)
        found = view.tree.query(outline(grid))
        xy = shapely.get_coordinates(view.parts[found])
        pixels = to_pixels(xy, grid.transform)
        inside = ((pixels >= 0) & (pixels < (grid.width, grid.height))).all(axis=1)
        return view.members[found[inside]].sum(axis=0), int(inside.sum())

    def _prepared(self, geometry: Geometries) -> View:
        """Return single points."""
        parts, owner = shapely.get_parts(geometry, return_index=True)
        return View(geometry, parts, self.members[owner], shapely.STRtree(parts))


def _points(features: Features) -> Features:
    """Return the points of a file, without empty ones and other geometries."""
    kept = ~(
        shapely.is_missing(features.geometry) | shapely.is_empty(features.geometry)
    )
    features = kept_rows(features, kept, 'have no geometry')
    points = shapely.get_dimensions(features.geometry) == 0
    why = 'are no points; nearest: PolygonLabels for polygons'
    features = kept_rows(features, points, why)
    return features._replace(geometry=shapely.force_2d(features.geometry))


def _table_points(
    table: Table, field: str, crs: Any, x_field: str | None, y_field: str | None
) -> Features:
    """Return the points of a table."""
    values = table.column(field)
    x_name, y_name, degrees = _coordinate_columns(table, x_field, y_field)
    if crs is None and not degrees:
        raise LabelError(
            f'{table.path} gives {x_name} and {y_name} without a CRS; needed: crs= of '
            'these coordinates, such as EPSG:32633'
        )
    xy = np.stack([_numbers(table, name) for name in (x_name, y_name)], axis=1)
    where = pyproj_crs(crs or 'EPSG:4326')
    bounds = np.concatenate([xy, xy], axis=1)
    check_degrees(table.path, table.rows, bounds, where, (x_name, y_name))
    geometry = shapely.points(xy)
    geometry[np.isnan(xy).any(axis=1)] = None
    return Features(table.path, geometry, values, table.rows, where)


def _coordinate_columns(
    table: Table, x_field: str | None, y_field: str | None
) -> tuple[str, str, bool]:
    """Return the columns of x and y, and whether their names say degrees."""
    spelled = {name.lower(): name for name in table.columns}
    for x, y, degrees in COORDINATES:
        x_name, y_name = x_field or spelled.get(x), y_field or spelled.get(y)
        if x_name in table.columns and y_name in table.columns:
            named = {x_name.lower(), y_name.lower()} == {x, y}
            return x_name, y_name, degrees and named
    for name in (x_field, y_field):
        if name is not None and name not in table.columns:
            raise LabelError(missing_column(table.path, name, table.columns))
    raise LabelError(
        f'{table.path} has no two columns of coordinates; found: '
        f'{", ".join(table.columns)}; needed: lon and lat, or x and y, or x_field= and '
        'y_field='
    )


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column of coordinates, NaN for a blank; a decimal comma is read too."""
    numbers = np.full(len(table.rows), np.nan)
    for index, cell in enumerate(table.column(name)):
        text = str(cell).strip().replace(',', '.')
        try:
            numbers[index] = float(text) if text else np.nan
        except ValueError as error:
            raise LabelError(
                f'{table.path}, row {table.rows[index]}: {name} is {cell!r}; needed: a '
                'number'
            ) from error
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
