"""A STAC item that describes a class raster and its companion products."""

import importlib.util
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import shapely.geometry
from matplotlib.colors import to_hex
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform, transform_geom
from shapely.geometry.polygon import orient

from ..errors import DateNote, GridError, OutputError
from ..files import write_text
from ..grids import IGNORED, Grid, corners
from ..rasters import grid_of
from .areas import PixelAreas
from .masks import open_mask, open_raster

if TYPE_CHECKING:
    import pystac

MEDIA_TYPES = {
    '.tif': 'image/tiff; application=geotiff; profile=cloud-optimized',
    '.tiff': 'image/tiff; application=geotiff; profile=cloud-optimized',
    '.gpkg': 'application/geopackage+sqlite3',
    '.fgb': 'application/vnd.flatgeobuf',
    '.parquet': 'application/vnd.apache.parquet',
    '.png': 'image/png',
    '.qml': 'text/xml',
}
ROLES = {'.png': ['overview'], '.qml': ['style']}
#: Tags of a mask that may hold the acquisition time, best first.
DATE_TAGS = ('ACQUISITION', 'DATETIME', 'TIFFTAG_DATETIME')
TIFF_DATE = '%Y:%m:%d %H:%M:%S'


def write_item(
    path: Path,
    mask: Path,
    assets: Mapping[str, Path],
    class_names: Sequence[str],
    class_colors: Sequence[str],
    properties: Mapping[str, Any],
) -> None:
    """Write a STAC item with the projection, raster and classification extensions.

    Its time is ``datetime`` of *properties*, else the date in the mask's tags
    (``ACQUISITION``, ``DATETIME``, ``TIFFTAG_DATETIME``), else the time at which the
    mask was written. ``ctm:datetime_source`` names the source.

    Args:
        path: The item to write; an existing one is replaced.
        mask: Class raster.
        assets: The other products by name; rasters are described band by band.
        class_names: Name of each class.
        class_colors: Color of each class, as matplotlib reads it.
        properties: Further properties of the item.

    Raises:
        OutputError: If pystac is missing or the file cannot be written.
        SceneError: If a raster cannot be read.
        GridError: If the mask has no CRS.
    """
    if importlib.util.find_spec('pystac') is None:
        raise OutputError(f'{path} requires pystac: pip install "torchgeo-ctm[stac]".')
    with open_mask(mask) as raster:
        item = _item(raster, mask, properties)
    for name, asset in {'mask': mask, **assets}.items():
        item.add_asset(name, _asset(asset, path.parent))
        if asset.suffix.lower() in ('.tif', '.tiff'):
            with open_raster(asset, name, bands=None) as raster:
                _describe_bands(item.assets[name], raster)
    _describe_classes(item.assets['mask'], class_names, class_colors)
    text = json.dumps(item.to_dict(include_self_link=False), indent=2)
    write_text(path, text + '\n')


def _item(
    raster: DatasetReader, mask: Path, properties: Mapping[str, Any]
) -> 'pystac.Item':
    """Return the item without assets: footprint, time and grid."""
    import pystac
    from pystac.extensions.projection import ProjectionExtension

    if raster.crs is None:
        raise GridError(f'{mask} has no CRS, which a STAC item requires.')
    if not (raster.crs.is_projected or raster.crs.is_geographic):
        raise GridError(
            f'{mask} has a local CRS, but a STAC item requires a location on Earth.'
        )
    geometry = _footprint(raster)
    acquired, source = _acquired(raster, mask, properties.get('datetime'))
    rest = {key: value for key, value in properties.items() if key != 'datetime'}
    item = pystac.Item(
        id=mask.stem,
        geometry=shapely.geometry.mapping(geometry),
        bbox=_bbox(geometry),
        datetime=acquired,
        properties={**rest, 'ctm:datetime_source': source},
    )
    item.common_metadata.created = _written(mask)
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    authority = raster.crs.to_authority()
    projection.apply(
        code=':'.join(authority) if authority else None,
        wkt2=None if authority else raster.crs.to_wkt(version='WKT2_2019'),
        bbox=_extent(raster),
        shape=list(raster.shape),
        transform=list(raster.transform)[:6],
    )
    return item


def _extent(raster: DatasetReader) -> list[float]:
    """Return lowest x and y, then highest, whichever way rows and columns run."""
    xy = corners(grid_of(raster))
    return [*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist()]


def check_location(scene: str, grid: Grid) -> None:
    """Check that a grid has a footprint on Earth.

    Args:
        scene: Name of the scene, for the message.
        grid: The grid, with a CRS and a transform.

    Raises:
        GridError: If it has none.
    """
    bounds = shapely.bounds(_degrees(scene, grid))
    if not (abs(bounds) <= (540, 90.001, 540, 90.001)).all():
        raise GridError(
            f'{scene} has no location on Earth: its corners are at '
            f'{", ".join(f"{value:g}" for value in bounds)} degrees.'
        )
    if not grid.crs.is_geographic and not _returns(grid):
        raise GridError(
            f'{scene} has no location on Earth: its corners are outside the projection '
            f'of its CRS. Assign the right CRS with gdal_edit.py -a_srs …'
        )


def _returns(grid: Grid) -> bool:
    """Return whether corners, turned to degrees and back, are where they were."""
    xy = corners(grid)
    try:
        degrees = transform(grid.crs, 'EPSG:4326', *xy.T.tolist())
        back = np.array(transform('EPSG:4326', grid.crs, *degrees[:2])).T
    except (RasterioError, CPLE_BaseError):
        return False
    size = np.ptp(xy, axis=0).max()
    return bool((np.abs(back - xy) <= 0.01 * size).all())


def _footprint(raster: DatasetReader) -> Any:
    """Return the footprint in degrees, split at the date line, counter-clockwise.

    Vertices are added, because straight edges of a projection are curves in degrees.
    """
    shape = _wrapped(_degrees(raster.name, grid_of(raster)))
    parts = [orient(part) for part in getattr(shape, 'geoms', [shape])]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _degrees(name: str, grid: Grid) -> Any:
    """Return the footprint of a grid in degrees.

    Raises:
        GridError: If it has none.
    """
    outline = shapely.Polygon(corners(grid))
    dense = outline.segmentize(max(outline.length / 80, 1e-12))
    try:
        degrees = transform_geom(
            grid.crs, 'EPSG:4326', shapely.geometry.mapping(dense), precision=7
        )
    # rasterio passes on some errors of GDAL as they are
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise GridError(f'{name} has no location on Earth: {reason}') from error
    return shapely.geometry.shape(degrees)


def _wrapped(shape: Any) -> Any:
    """Return a shape with its longitudes in -180 to 180, split at the date line."""
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180:
        return shape
    parts = []
    for turn in (-360, 0, 360):
        globe = shapely.box(turn - 180, -90, turn + 180, 90)
        part = shapely.transform(
            shape.intersection(globe), lambda xy, turn=turn: xy - (turn, 0)
        )
        parts += [p for p in getattr(part, 'geoms', [part]) if p.area > 0]
    return shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0]


def _bbox(geometry: Any) -> list[float]:
    """Return west, south, east, north; west > east across the date line (RFC 7946)."""
    west, south, east, north = geometry.bounds
    parts = [part.bounds for part in getattr(geometry, 'geoms', [geometry])]
    if west == -180 and east == 180 and len(parts) > 1:
        west = min(part[0] for part in parts if part[2] == 180)
        east = max(part[2] for part in parts if part[0] == -180)
    return [west, south, east, north]


def _acquired(raster: DatasetReader, mask: Path, given: Any) -> tuple[datetime, str]:
    """Return the acquisition time and the source that it comes from."""
    tags = raster.tags()
    sources = {'properties': given} | {tag: tags.get(tag) for tag in DATE_TAGS}
    for source, value in sources.items():
        date = _date(value)
        if date is not None:
            return date, source
    warnings.warn(
        f'{tags.get("SCENE", mask.name)}: no date of acquisition was found, so the STAC '
        'item has the time at which the mask was written. To set it, run gdal_edit.py '
        '-mo SENSING_TIME=2024-06-01T10:20:00Z on the scene before it is mapped.',
        DateNote,
        stacklevel=4,
    )
    return _written(mask), 'time at which the mask was written'


def _date(value: Any) -> datetime | None:
    """Parse ISO 8601 or the format of TIFF, in UTC unless an offset is given."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = datetime.strptime(value, TIFF_DATE)
            except ValueError:
                return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


def _written(mask: Path) -> datetime:
    """Return when a file was written."""
    return datetime.fromtimestamp(int(mask.stat().st_mtime), UTC)


def _asset(asset: Path, folder: Path) -> 'pystac.Asset':
    """Return an asset with a path relative to the item's folder."""
    import pystac

    reference = Path(os.path.relpath(asset, folder)).as_posix()
    suffix = asset.suffix.lower()
    return pystac.Asset(
        href=reference if reference.startswith('.') else f'./{reference}',
        media_type=MEDIA_TYPES.get(suffix),
        roles=ROLES.get(suffix, ['data']),
    )


def _describe_bands(asset: 'pystac.Asset', raster: DatasetReader) -> None:
    """Add the raster extension, with an entry for each band."""
    from pystac.extensions.raster import DataType, RasterBand, RasterExtension

    bands = [
        RasterBand.create(
            data_type=DataType(dtype),
            nodata=int(nodata) if dtype != 'float32' and nodata is not None else nodata,
            spatial_resolution=_resolution(raster),
            scale=None if scale == 1 else scale,
        )
        for dtype, nodata, scale in zip(
            raster.dtypes, raster.nodatavals, raster.scales, strict=True
        )
    ]
    RasterExtension.ext(asset, add_if_missing=True).bands = bands
    asset.title = ', '.join(text for text in raster.descriptions if text) or None


def _resolution(raster: DatasetReader) -> float | None:
    """Return the pixel size in meters; for pixels in degrees, at the center."""
    if raster.crs is None:
        return None
    if raster.crs.is_projected:
        side = abs(raster.transform.determinant) ** 0.5
        return float(side * raster.crs.linear_units_factor[1])
    row = raster.height // 2
    hectares = PixelAreas(raster).rows(row, row + 1)[0, raster.width // 2]
    return float(round((hectares * 10_000) ** 0.5, 3))


def _describe_classes(
    asset: 'pystac.Asset', names: Sequence[str], colors: Sequence[str]
) -> None:
    """Add the classification extension, with name and color of each class."""
    from pystac.extensions.classification import Classification, ClassificationExtension

    classes = [
        Classification.create(
            value=value,
            # the extension allows only these characters; the title keeps all
            name=re.sub('[^0-9A-Za-z_-]+', '_', name),
            title=name,
            color_hint=to_hex(color)[1:].upper(),
        )
        for value, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    classes.append(Classification.create(IGNORED, name='nodata', nodata=True))
    ClassificationExtension.ext(asset, add_if_missing=True).classes = classes
