"""Polygons of a class raster."""

import importlib.util
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import GridError, OutputError, SceneError, SettingError, did_you_mean
from ..files import check_file, check_not_input, temporary_path
from .areas import PixelAreas
from .masks import class_names, open_confidence, open_mask
from .polygons import polygons
from .regions import Regions, find_regions
from .sieve import sieved

#: GDAL's driver by suffix; only GeoPackage can be written in chunks.
DRIVERS = {'.gpkg': 'GPKG', '.fgb': 'FlatGeobuf', '.parquet': 'Parquet'}


def check_vector_output(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a vector file can be written, before any work is done.

    Args:
        path: The vector file to write.
        overwrite: Whether an existing file may be replaced.

    Returns:
        *path*.

    Raises:
        OutputError: If the suffix is wrong or its library missing, the folder is
            missing or read-only, or the file exists and may not be replaced.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in DRIVERS:
        close = did_you_mean(suffix, DRIVERS) or " Did you mean '.gpkg'?"
        expected = ', '.join(DRIVERS)
        raise OutputError(f'{path} is not a vector file, expected {expected}.{close}')
    if suffix == '.parquet' and importlib.util.find_spec('pyarrow') is None:
        raise OutputError(
            f'{path} requires pyarrow: pip install "torchgeo-ctm[parquet]". Or write '
            f'{path.stem}.gpkg.'
        )
    return check_file(path, overwrite)


def vectorize(
    mask: str | Path,
    output: str | Path,
    *,
    confidence: str | Path | None = None,
    sieve: int = 0,
    min_area: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Write the polygons of a class raster, one for each 4-connected region of a class.

    Attributes: ``class`` (number), ``name``, ``area_ha`` (hectares on the WGS84
    ellipsoid; empty for a raster without a CRS, whose pixels have no size),
    ``confidence`` (mean over the polygon's pixels in percent; empty without a
    confidence raster). Corners are corners of pixels. Without a georeference they are
    in pixels, rows counted downwards. Nodata pixels are left out.

    Args:
        mask: Class raster.
        output: Vector file to write: .gpkg, .fgb or .parquet.
        confidence: Confidence raster in percent, on the same grid.
        sieve: Merge regions of fewer pixels into their largest neighbor, but never
            across nodata. As in gdal_sieve, a region stays if all its neighbors are
            as small.
        min_area: Leave out polygons of fewer hectares.
        overwrite: Replace an existing file.

    Returns:
        *output*.

    Raises:
        OutputError: If *output* cannot be written.
        SceneError: If a raster cannot be read or does not hold what it should.
        GridError: If the grids of the rasters differ, or *min_area* is given for a
            raster without a CRS.
        SettingError: If *sieve* or *min_area* is negative.
    """
    output = check_vector_output(output, overwrite)
    for name, value, unit in (('sieve', sieve, 'px'), ('min_area', min_area, 'ha')):
        if not 0 <= value < np.inf:
            raise SettingError(f'{name}={value} {unit}, expected 0 or more.')
    check_not_input(output, mask)
    with ExitStack() as stack:
        raster = stack.enter_context(open_mask(mask))
        percent = None
        if confidence is not None:
            percent = stack.enter_context(open_confidence(confidence, raster))
        areas = _pixel_areas(raster, min_area)
        folder = temporary_path(output)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with _output_errors(output):
            folder.mkdir()
            source = stack.enter_context(sieved(raster, sieve, folder))
        regions = find_regions(source, areas, percent)
        with _output_errors(output):
            _write(_frames(source, raster, regions, min_area), folder / output.name)
            publish_vector(folder / output.name, output)
    return output


def _pixel_areas(raster: DatasetReader, min_area: float) -> PixelAreas | None:
    """Return the areas of the pixels; None without a CRS, if no area is required."""
    try:
        return PixelAreas(raster)
    except GridError as error:
        if min_area:
            raise GridError(
                f'min_area={min_area} ha cannot be measured: {error} Or use sieve, in '
                'pixels.'
            ) from error
        return None


@contextmanager
def _output_errors(output: Path) -> Iterator[None]:
    """Re-raise errors of the disk and the driver as OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f'Cannot write {output}: {reason}') from error


def _frames(
    source: DatasetReader, mask: DatasetReader, regions: Regions, min_area: float
) -> Iterator[gpd.GeoDataFrame]:
    """Yield the polygons in chunks: at least one, which may be empty."""
    names, crs = class_names(mask), None
    if mask.crs is not None:
        crs = pyproj.CRS.from_user_input(mask.crs)
    left = len(regions.first)
    for shapes in polygons(source):
        index = _region_of(shapes, source, regions)
        left -= len(index)
        keep = slice(None) if not min_area else regions.hectares[index] >= min_area
        index = index[keep]
        classes = regions.classes[index]
        columns = {
            'class': classes,
            'name': pd.Series(
                [names[c] if c < len(names) else str(c) for c in classes.tolist()],
                dtype=object,
            ),
            'area_ha': regions.hectares[index],
            'confidence': regions.confidence[index],
        }
        yield gpd.GeoDataFrame(columns, geometry=shapes[keep], crs=crs)
    if left:
        raise SceneError(
            f'GDAL made no polygon for {left} regions of {mask.name}. The file may be '
            'damaged.'
        )


def _region_of(
    shapes: NDArray[Any], source: DatasetReader, regions: Regions
) -> NDArray[np.int64]:
    """Return the index of each polygon's region.

    The first corner in reading order is the upper left corner of the first pixel.
    """
    outlines = shapely.get_exterior_ring(shapes)
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    cols, rows = np.rint(~source.transform @ tuple(xy.T)).astype(np.int64)
    first = np.full(len(shapes), np.iinfo(np.int64).max)
    # a corner may lie on the right edge, one column past the last pixel
    np.minimum.at(first, owner, rows * (source.width + 1) + cols)
    pixel = first // (source.width + 1) * source.width + first % (source.width + 1)
    index = np.searchsorted(regions.first, pixel)
    if not np.array_equal(regions.first.take(index, mode='clip'), pixel):
        raise SceneError(
            f'Polygons and pixels of {source.name} differ. The file may be damaged.'
        )
    return np.asarray(index, np.int64)


def _write(frames: Iterable[gpd.GeoDataFrame], path: Path) -> None:
    """Write the polygons, chunk by chunk where the driver can append."""
    suffix = path.suffix.lower()
    if suffix != '.gpkg':
        frame = pd.concat(frames, ignore_index=True)
        if suffix == '.parquet':
            frame.to_parquet(path, index=False)
            return
        frames = [frame]
    # GDAL 3.6, which QGIS 3.22 has, warns about later versions
    options = {'dataset_options': {'VERSION': '1.2'}} if suffix == '.gpkg' else {}
    for number, frame in enumerate(frames):
        if number and frame.empty:
            continue
        with warnings.catch_warnings():
            # a raster without a CRS has polygons without one
            warnings.filterwarnings('ignore', "'crs' was not provided")
            pyogrio.write_dataframe(
                frame,
                path,
                layer=layer_name(path),
                driver=DRIVERS[suffix],
                geometry_type='Polygon',
                append=number > 0,
                **options,
            )


def layer_name(path: Path) -> str:
    """Return the name of the layer in a vector file, that of the file.

    GeoPackage reserves names that begin with gpkg, sqlite and rtree, and GDAL refuses
    those that begin with punctuation.
    """
    reserved = path.stem.lower().startswith(('gpkg', 'sqlite', 'rtree'))
    plain = path.stem[0].isalnum() or path.stem[0] == '_'
    return path.stem if plain and not reserved else f'mask_{path.stem}'


def publish_vector(made: Path, path: Path) -> None:
    """Give the file its final name, and delete SQLite's files of an older one."""
    for ending in ('-wal', '-shm', '-journal'):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    made.replace(path)
