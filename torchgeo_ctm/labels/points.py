"""Image-level labels from points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, SettingError
from ..grids import Grid, to_pixels, usual_longitudes
from .crs import pyproj_crs
from .features import FeatureLabels, Geometries, View, outline
from .source import ImageLabel
from .table_files import BLANK, TEXT, column, missing_column, read_table
from .vector_files import (
    Features,
    FeatureSource,
    check_degrees,
    kept_rows,
    read_features,
)

#: Names of coordinate columns in lower case, and whether they are degrees.
COORDINATES = (
    ('lon', 'lat', True),
    ('long', 'lat', True),
    ('longitude', 'latitude', True),
    ('x', 'y', False),
    ('easting', 'northing', False),
)


class PointLabels(FeatureLabels):
    """Labels of windows from points that carry one class or several.

    A window contains the classes of the points in it. Its upper and left edges belong
    to it, its lower and right edges do not, so adjacent windows never share a point.
    Other classes are unknown unless ``complete=True``.
    """

    def __init__(
        self,
        path: FeatureSource,
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
            path: Any vector file that geopandas reads, a ``geopandas.GeoDataFrame``, or
                a table (.csv, .tsv, .txt) with columns lon and lat, or x and y.
            field: Attribute or column with the class or classes of each point; as for
                :class:`PolygonLabels`.
            classes: Names of the classes; None: those found, in alphabetical order.
            layer: Layer of the file, if it has several.
            crs: CRS of the coordinates. A table's lon and lat are EPSG:4326 unless
                given; for x and y it is required.
            x_field: Column of x or longitude, if it has another name.
            y_field: Column of y or latitude, if it has another name.
            ignore: Names to skip; a point with no other name is left out.
            min_points: Smallest number of points that makes a class present.
            complete: Whether classes without a point are absent in windows with at
                least *min_points* points.

        Raises:
            LabelError: If the file is missing, damaged, has no points or no CRS, or
                names unknown classes. The message names the row.
            SettingError: If *min_points* is below 1, or above the number of points.
        """
        if min_points < 1:
            raise SettingError(
                f'min_points={min_points} is too small, expected 1 or more. '
                'Did you mean 1?'
            )
        if isinstance(path, str | Path) and Path(path).suffix.lower() in TEXT:
            features = _read_table_points(path, field, crs, x_field, y_field)
        else:
            features = read_features(path, field, layer, crs)
        super().__init__(_points(features), field, classes, ignore)
        most = int(self.members.sum(axis=0).max(initial=0))
        if min_points > most:
            raise SettingError(
                f'min_points={min_points}, but no class has more than {most} points. '
                'Did you mean 1?'
            )
        self.min_points, self.complete = min_points, complete

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a window, or None if nothing is known about it.

        Args:
            grid: The window.
            tile: Unused.
            clear: Pixels (H, W) of the window that are no cloud; the others do not
                count. None: all.

        Raises:
            LabelError: If the window has no CRS.
        """
        counts, points = self.counts(grid, clear)
        present = counts >= self.min_points
        absent = (counts == 0) & (self.complete and points >= self.min_points)
        known = present | absent
        return ImageLabel(present.astype(np.float32), known) if known.any() else None

    def counts(
        self, grid: Grid, clear: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], int]:
        """Return the number of points of each class in a window (C,), and of all.

        Args:
            grid: The window.
            clear: Pixels (H, W) whose points count; None: all.
        """
        view, grid = self.view(grid.crs), usual_longitudes(grid)
        found = view.tree.query(outline(grid))
        xy = shapely.get_coordinates(view.parts[found])
        pixels = to_pixels(xy, grid.transform)
        within = (pixels >= 0) & (pixels < (grid.width, grid.height))
        inside = np.asarray(within.all(axis=1))
        if clear is not None:
            columns, rows = pixels[inside].astype(np.int64).T
            inside[inside] = clear[rows, columns]
        return view.members[found[inside]].sum(axis=0), int(inside.sum())

    def _prepared(self, geometry: Geometries) -> View:
        """Return single points."""
        parts, owner = shapely.get_parts(geometry, return_index=True)
        return View(geometry, parts, self.members[owner], shapely.STRtree(parts))


def _points(features: Features) -> Features:
    """Return the points of a file in two dimensions, without other geometries."""
    geometry = features.geometry
    kept = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    features = kept_rows(features, kept, 'have no geometry')
    points = shapely.get_dimensions(features.geometry) == 0
    lines = shapely.get_dimensions(features.geometry[~points]) == 1
    why = 'are not points (use PolygonLabels for polygons)'
    if lines.all():
        why = 'are lines (draw polygons for labels)'
    features = kept_rows(features, points, why)
    return features._replace(geometry=shapely.force_2d(features.geometry))


def _read_table_points(
    path: str | Path, field: str, crs: Any, x_field: str | None, y_field: str | None
) -> Features:
    """Read the points of a table."""
    table = read_table(path)
    values = column(table, field, path).to_numpy()
    geometry, known_crs = table_points(path, table, crs, x_field, y_field)
    return Features(str(path), geometry, values, table.index.to_numpy(), known_crs)


def table_points(
    path: str | Path,
    table: pd.DataFrame,
    crs: Any = None,
    x_field: str | None = None,
    y_field: str | None = None,
) -> tuple[NDArray[np.object_], Any]:
    """Return the points (n,) of a table's rows, None where one is blank, and their CRS.

    Args:
        path: Path of the table, for messages.
        table: The table, with columns lon and lat, or x and y.
        crs: CRS of the coordinates; None: degrees of WGS 84.
        x_field: Column of x, if it has another name.
        y_field: Column of y, likewise.

    Raises:
        LabelError: If there are no such columns, or they hold no coordinates.
    """
    x_name, y_name, degrees = _coordinate_columns(path, table, x_field, y_field)
    if crs is None and not degrees:
        raise LabelError(
            f'{path} has {x_name} and {y_name} without a CRS. Pass crs= of these '
            'coordinates, such as EPSG:32633.'
        )
    xy = np.stack([_numbers(path, table[name]) for name in (x_name, y_name)], axis=1)
    known_crs = pyproj_crs(crs or 'EPSG:4326')
    bounds = np.concatenate([xy, xy], axis=1)
    check_degrees(path, table.index, bounds, known_crs, (x_name, y_name))
    geometry = shapely.points(xy)
    geometry[np.isnan(xy).any(axis=1)] = None
    return geometry, known_crs


def _coordinate_columns(
    path: str | Path, table: pd.DataFrame, x_field: str | None, y_field: str | None
) -> tuple[str, str, bool]:
    """Return the columns of x and y, and whether their names mean degrees."""
    spelled = {name.lower(): name for name in table.columns}
    for x, y, degrees in COORDINATES:
        x_name, y_name = x_field or spelled.get(x, ''), y_field or spelled.get(y, '')
        if {x_name, y_name} <= set(table.columns):
            named = {x_name.lower(), y_name.lower()} == {x, y}
            return x_name, y_name, degrees and named
    for name in (x_field, y_field):
        if name is not None and name not in table.columns:
            raise missing_column(path, name, table.columns)
    raise LabelError(
        f'{path} has no two columns of coordinates, expected lon and lat, or x and y; '
        f'found: {", ".join(table.columns)}. Give them one of these names.'
    )


def _numbers(path: str | Path, cells: 'pd.Series[Any]') -> NDArray[np.float64]:
    """Return a column of coordinates, NaN for blanks; a decimal comma is read too."""
    text = cells.astype(str).str.strip().str.replace(',', '.')
    parsed = pd.to_numeric(text, errors='coerce')
    wrong = parsed.isna() & ~text.str.lower().isin(BLANK)
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise LabelError(
            f'{path}, row {cells.index[first]}: {cells.name} is {cells.iloc[first]!r}, '
            'expected a number.'
        )
    numbers = parsed.to_numpy(float, copy=True)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
