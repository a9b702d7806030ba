"""Read features: points and polygons of any vector file."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning, nearest
from .places import check_degrees, pyproj_crs
from .table_files import PARQUET, check_file, missing_column


class Features(NamedTuple):
    """Features of a file: geometry, what its attribute says, row (1, 2, …), CRS."""

    path: str
    geometry: NDArray[np.object_]
    values: list[Any]
    rows: list[int]
    crs: pyproj.CRS


def read_features(
    path: str | Path, field: str, layer: str | None = None, crs: Any = None
) -> Features:
    """Read geometries and one attribute of a vector file.

    Args:
        path: Any file that geopandas reads: GeoPackage, GeoJSON, shapefile, …
        field: Name of the attribute.
        layer: Name of the layer, for a file of several.
        crs: CRS of the coordinates, where the file names none or a wrong one.

    Raises:
        LabelError: If the file, layer, field or CRS is missing, it is damaged, or its
            coordinates are none of its CRS.
    """
    path = check_file(path, 'features')
    try:
        if path.suffix.lower() in PARQUET:
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, layer=_layer(path, layer))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise LabelError(f'{path} cannot be read as features: {reason}') from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(f'{path} has no geometries; needed: points or polygons')
    if not len(frame):
        raise LabelError(f'{path} has zero features; needed: at least one')
    columns = [name for name in frame.columns if name != frame.geometry.name]
    if field not in columns:
        raise LabelError(missing_column(path, field, columns))
    rows = list(range(1, len(frame) + 1))
    where = _crs(path, frame.crs, crs)
    geometry = np.asarray(frame.geometry.array, dtype=object)
    check_degrees(path, rows, shapely.bounds(geometry), where)
    return Features(str(path), geometry, frame[field].tolist(), rows, where)


def _layer(path: Path, layer: str | None) -> str | None:
    """Return the layer to read; tables without geometries, as QGIS's styles, are none.

    Raises:
        LabelError: If it is not there, or is not named and there are several.
    """
    listed = gpd.list_layers(path)
    names = [str(name) for name in listed[listed.geometry_type.notna()].name]
    if layer is None and len(names) < 2:
        return names[0] if names else None
    if layer not in names:
        given = 'several layers' if layer is None else f'no layer {layer!r}'
        raise LabelError(
            f'{path} has {given}; needed: layer= one of {", ".join(names)}'
            f'{nearest(layer or "", names)}'
        )
    return layer


def _crs(path: Path, found: Any, given: Any) -> pyproj.CRS:
    """Return the CRS of the coordinates, the given one before the file's."""
    if given is None and found is None:
        raise LabelError(
            f'{path} names no CRS; needed: crs= of its coordinates, such as EPSG:4326'
        )
    if given is None:
        return pyproj_crs(found)
    crs = pyproj_crs(given)
    if found is not None and not pyproj_crs(found).equals(crs, ignore_axis_order=True):
        warnings.warn(
            f'{path} names {pyproj_crs(found).name}, but its coordinates are taken as '
            f'crs={given}, as asked',
            LabelWarning,
            stacklevel=4,
        )
    return crs


def kept_rows(features: Features, kept: NDArray[np.bool_], why: str) -> Features:
    """Leave features out, and say how many and why.

    Raises:
        LabelError: If none is left.
    """
    dropped: list[int] = np.flatnonzero(~kept).tolist()
    if not dropped:
        return features
    given = f'{features.path}: {len(dropped):,} of {len(kept):,} features'
    first = f'first: row {features.rows[dropped[0]]}'
    if len(dropped) == len(kept):
        raise LabelError(f'{given} {why} ({first}); needed: at least one that is not')
    warnings.warn(
        f'{given} were left out: they {why} ({first})', LabelWarning, stacklevel=4
    )
    positions = np.flatnonzero(kept)
    return features._replace(
        geometry=features.geometry[positions],
        values=[features.values[index] for index in positions],
        rows=[features.rows[index] for index in positions],
    )
