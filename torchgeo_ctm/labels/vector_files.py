"""Read vector files: geometries and one attribute."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype, is_string_dtype

from ..errors import LabelError, LabelWarning, did_you_mean, gdal_reason
from .crs import pyproj_crs, same_crs
from .table_files import PARQUET, check_file, missing_column

Floats = NDArray[np.float64]
Geometries = NDArray[np.object_]
#: What features are read from: any file that geopandas reads, or what it has read.
FeatureSource: TypeAlias = str | Path | gpd.GeoDataFrame
#: Suffixes of rasters, which are no features.
RASTERS = ('.tif', '.tiff', '.vrt', '.img', '.jp2')
#: Part of the features from which on a number that has their name stands for it.
USUAL = 0.5
#: Degrees that are rounding.
DEGREES = 1e-6


class Features(NamedTuple):
    """The n features of a file: geometry, attribute, row number (1, 2, …) and CRS.

    ``columns`` names all attributes of the file.
    """

    path: str
    geometry: Geometries
    values: NDArray[np.object_]
    rows: NDArray[np.int64]
    crs: pyproj.CRS
    columns: tuple[str, ...] = ()


def read_features(
    path: FeatureSource,
    field: str,
    layer: str | None = None,
    crs: Any = None,
    argument: str = 'field',
) -> Features:
    """Read geometries and one attribute of a vector file.

    Args:
        path: Any file that geopandas reads: GeoPackage, GeoJSON, shapefile, …, or what
            it has read.
        field: Name of the attribute.
        layer: Name of the layer, if the file has several.
        crs: CRS of the coordinates, if the file has none or a wrong one.
        argument: Argument that names the attribute, for messages.

    Raises:
        LabelError: If the file, layer, field or CRS is missing, the file is damaged, or
            its coordinates are impossible in its CRS.
    """
    if isinstance(path, gpd.GeoDataFrame):
        path, frame = Path('The GeoDataFrame'), path
    elif not isinstance(path, str | Path):
        raise LabelError(
            f'The labels are of type {type(path).__name__}, expected a file or a '
            'GeoDataFrame. Make one with geopandas.GeoDataFrame(data, geometry=…, crs=…).'
        )
    else:
        path = check_file(path, 'a vector file, such as a GeoPackage')
        frame = _frame(path, layer)
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(f'{path} has no geometries, expected points or polygons.')
    if not len(frame):
        raise LabelError(f'{path} has zero features, expected at least one.')
    columns = [name for name in frame.columns if name != frame.geometry.name]
    if path.suffix.lower() in ('.shp', '.dbf'):
        _check_encoding(path, [*columns, *frame.get(field, [])])
    if field not in columns:
        raise missing_column(path, field, columns, argument)
    _tell_of_names(path, frame, field)
    rows = np.arange(1, len(frame) + 1)
    known_crs = _crs(path, frame.crs, crs)
    geometry: Geometries = np.array(frame.geometry.array, dtype=object)
    check_degrees(path, rows, shapely.bounds(geometry), known_crs)
    values = frame[field].astype(object).to_numpy()
    return Features(str(path), geometry, values, rows, known_crs, tuple(columns))


def _tell_of_names(path: Path, frame: gpd.GeoDataFrame, field: str) -> None:
    """Warn if an attribute holds numbers and another one a name for each.

    Somebody may have corrected names of a map's polygons, and left their numbers.
    """
    numbers = frame[field]
    if not is_integer_dtype(numbers) or numbers.nunique() in (1, len(frame)):
        return
    for column in frame.columns:
        texts = frame[column]
        if column == frame.geometry.name or not is_string_dtype(texts):
            continue
        usual = texts.groupby(numbers).agg(lambda t: t.mode().get(0))
        fitting = (numbers.map(usual) == texts).mean()
        if texts.nunique() < len(frame) and usual.is_unique and fitting > USUAL:
            warnings.warn(
                f'{path}: {field!r} holds numbers, and {column!r} has a name for each. '
                f'Pass field={column} to use the names.',
                LabelWarning,
                stacklevel=4,
            )
            return


def _frame(path: Path, layer: str | None) -> Any:
    """Return what geopandas reads from a file.

    Raises:
        LabelError: If it cannot.
    """
    try:
        if path.suffix.lower() in PARQUET:
            return gpd.read_parquet(path)
        return gpd.read_file(path, layer=_layer(path, layer))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        hint = ''
        if path.suffix.lower() in RASTERS:
            hint = ' Read a raster of classes with torchgeo_ctm.labels.RasterLabels.'
        raise LabelError(
            f'{path} cannot be read as features: {gdal_reason(error)}.{hint}'
        ) from error


def _check_encoding(path: Path, texts: Iterable[Any]) -> None:
    """Check that the texts of a shapefile were read in their encoding.

    Raises:
        LabelError: If they are UTF-8, but the file does not say so.
    """
    foreign = [t for t in texts if isinstance(t, str) and not t.isascii()]
    coding = path.with_suffix('.cpg')
    for text in foreign:
        for wrong in ('latin-1', 'cp1252'):
            try:
                right = text.encode(wrong).decode('utf-8')
            except UnicodeError:
                continue
            raise LabelError(
                f'{path} does not state its encoding, which looks like UTF-8: '
                f'{text!r} should be {right!r}. Write UTF-8 into {coding}.'
            )
    if foreign and not coding.exists() and not coding.with_suffix('.CPG').exists():
        warnings.warn(
            f'{path} does not state its encoding: {foreign[0]!r} is a guess. If it is '
            f'wrong, write the encoding into {coding}, such as CP1250.',
            LabelWarning,
            stacklevel=4,
        )


def _layer(path: Path, layer: str | None) -> str | None:
    """Return the layer to read; tables without geometries (QGIS styles) do not count.

    Raises:
        LabelError: If the layer is missing, or not named and there are several.
    """
    listed = gpd.list_layers(path)
    names = [str(name) for name in listed[listed.geometry_type.notna()].name]
    if layer is None and len(names) < 2:
        return names[0] if names else None
    if layer not in names:
        given = 'several layers' if layer is None else f'no layer {layer!r}'
        raise LabelError(
            f'{path} has {given}, expected layer= one of: {", ".join(names)}.'
            f'{did_you_mean(layer or "", names)}'
        )
    return layer


def _crs(path: Path, found: Any, given: Any) -> pyproj.CRS:
    """Return the CRS of the coordinates: the given one, else the file's."""
    if given is None and found is None:
        raise LabelError(
            f'{path} has no CRS. Pass crs= of its coordinates, such as EPSG:4326.'
        )
    if given is None:
        return pyproj_crs(found)
    crs = pyproj_crs(given)
    if found is not None and not same_crs(found, crs):
        warnings.warn(
            f'{path} has the CRS {pyproj_crs(found).name}, but crs={given} is used.',
            LabelWarning,
            stacklevel=4,
        )
    return crs


def kept_rows(features: Features, kept: NDArray[np.bool_], why: str) -> Features:
    """Drop features, and warn how many and why.

    Args:
        features: The features (n,).
        kept: Which to keep, (n,).
        why: Reason, to follow "they".

    Raises:
        LabelError: If none is left.
    """
    if kept.all():
        return features
    count = f'{features.path}: {(~kept).sum():,} of {len(kept):,} features'
    first = f'first: row {features.rows[~kept][0]}'
    if not kept.any():
        raise LabelError(f'{count} {why} ({first}), expected at least one other.')
    warnings.warn(
        f'{count} were left out: they {why} ({first}).', LabelWarning, stacklevel=4
    )
    return features._replace(
        geometry=features.geometry[kept],
        values=features.values[kept],
        rows=features.rows[kept],
    )


def check_degrees(
    path: str | Path,
    rows: Iterable[int],
    bounds: Floats,
    crs: pyproj.CRS,
    names: tuple[str, str] = ('x', 'y'),
) -> None:
    """Check that coordinates in degrees are possible.

    Transforming impossible ones would take minutes, and lead nowhere.

    Args:
        path: File, for the message.
        rows: Number of each row, for the message.
        bounds: Boxes (n, 4), as shapely orders them; NaN for missing ones.
        crs: CRS of the coordinates.
        names: Names of longitude and latitude, for the message.

    Raises:
        LabelError: If a coordinate is impossible. The message says what may be wrong.
    """
    if not crs.is_geographic:
        return
    degrees = bounds * np.degrees(crs.axis_info[0].unit_conversion_factor)
    x, y = degrees[:, ::2], degrees[:, 1::2]
    far_x = ((x < -360 - DEGREES) | (x > 360 + DEGREES)).any(axis=1)
    far_y = (np.abs(y) > 90 + DEGREES).any(axis=1)
    beyond = far_x | far_y
    if not beyond.any():
        return
    row = int(beyond.argmax())
    pair, name, valid = (x, names[0], '-360 to 360')
    if far_y[row]:
        pair, name, valid = (y, names[1], '-90 to 90')
    value = pair[row, np.abs(pair[row]).argmax()]
    hint = f'{beyond.sum():,} of {len(beyond):,} rows are out of range.'
    if beyond.sum() > len(beyond) / 2:
        hint = (
            f'{crs.name} is not the CRS of these coordinates: pass theirs as crs=, such '
            'as EPSG:32633.'
        )
        if not far_x.any() and np.nan_to_num(np.abs(x)).max() <= 90:
            hint = 'Longitude and latitude look swapped.'
    raise LabelError(
        f'{path}, row {list(rows)[row]}: {name} is {value:g} degrees, expected {valid}. '
        f'{hint}'
    )
