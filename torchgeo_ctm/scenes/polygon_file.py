"""Read the polygons of a vector file."""

from pathlib import Path

import geopandas as gpd
import pyogrio
import pyproj

from ..errors import GridError, LabelError, gdal_reason, similar_file

#: Longest edge of a polygon that is straight in another CRS, in meters and degrees.
STRAIGHT = (5_000.0, 0.05)


def read_polygons(path: Path, crs: pyproj.CRS) -> gpd.GeoDataFrame:
    """Read the polygons of a file in another CRS, with their attributes.

    Args:
        path: Any vector file.
        crs: CRS of the returned polygons.

    Raises:
        LabelError: If the file cannot be read, or has no polygons.
        GridError: If it has no CRS.
    """
    if not path.exists():
        close = similar_file(path, ('.gpkg', '.geojson', '.shp', '.fgb', '.parquet'))
        raise LabelError(f'{path} does not exist, expected polygons.{close}')
    try:
        if path.suffix.lower() == '.parquet':
            frame = gpd.read_parquet(path)
        else:
            layers = [name for name, kind in pyogrio.list_layers(path) if kind]
            if len(layers) > 1:
                raise LabelError(
                    f'{path} has several layers ({", ".join(layers)}), expected one. '
                    'Export the one to use to a file of its own.'
                )
            frame = pyogrio.read_dataframe(path, layer=layers[0] if layers else None)
    except (OSError, ValueError, RuntimeError) as error:
        raise LabelError(f'Cannot read {path}: {gdal_reason(error)}.') from error
    if not isinstance(frame, gpd.GeoDataFrame) or not len(frame):
        raise LabelError(f'{path} has no polygon, expected at least one.')
    kinds = set(frame.geom_type.dropna()) - {'Polygon', 'MultiPolygon'}
    if kinds:
        raise LabelError(f'{path} has {", ".join(kinds)}, expected polygons.')
    if frame.crs is None:
        raise GridError(f'{path} has no CRS, expected one. Assign it in QGIS.')
    meters, degrees = STRAIGHT
    longest = degrees if frame.crs.is_geographic else meters
    shapes = frame.geometry.make_valid().segmentize(longest)
    return frame.set_geometry(shapes.to_crs(crs).make_valid())
