"""Polygons of a class raster: complete, or not at all."""

import importlib.util
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import GridError, OutputError, SceneError, SettingError, nearest
from ..files import check_file, check_not_input, temporary_path
from .areas import PixelAreas
from .masks import class_names, open_confidence, open_mask
from .memory import give_back
from .polygons import polygons, sieved
from .regions import Patches, find_patches

#: GDAL's driver by suffix; only GeoPackage can be written piece by piece.
DRIVERS = {'.gpkg': 'GPKG', '.fgb': 'FlatGeobuf', '.parquet': 'Parquet'}

#: Corners of polygons after whose making memory is given back.
CORNERS = 1 << 20

T = TypeVar('T')


def check_vector_output(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse an output that could not be written, before any work is done.

    Args:
        path: The vector file to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: If the suffix is wrong or its library missing, the folder is
            missing or read-only, or the file exists and may not be replaced.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in DRIVERS:
        close = nearest(suffix, DRIVERS) or '; nearest: .gpkg'
        raise OutputError(f'{path} is not one of {", ".join(DRIVERS)}{close}')
    if suffix == '.parquet' and importlib.util.find_spec('pyarrow') is None:
        raise OutputError(
            f'{path} needs pyarrow: pip install "torchgeo-ctm[parquet]"; nearest '
            f'without it: {path.stem}.gpkg'
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
    """Turn a class raster into polygons, one for each 4-connected patch of a class.

    Attributes: ``class`` (number), ``name``, ``area_ha`` (hectares on the WGS84
    ellipsoid, whatever the CRS; empty where the raster has none, because then a pixel
    has no size), ``confidence`` (mean over the polygon's pixels in per cent; empty
    without a confidence raster). Corners lie exactly on the raster's grid; without a
    georeference they are in pixels, rows counted downwards. Nodata makes no polygon.

    Args:
        mask: Class raster as predict writes it.
        output: Vector file to write: .gpkg, .fgb or .parquet.
        confidence: Confidence raster in per cent, on the same grid.
        sieve: Patches of fewer pixels are merged into their largest neighbour, but
            never across nodata; as in gdal_sieve, one whose neighbours are all that
            small stays.
        min_area: Polygons of fewer hectares are left out.
        overwrite: Replace an existing file.

    Returns:
        *output*.

    Raises:
        OutputError: If *output* cannot be written.
        SceneError: If a raster cannot be read or holds something else.
        GridError: If confidence lies on another grid, or *min_area* is asked of a
            raster without a CRS.
        SettingError: If *sieve* or *min_area* is negative.
    """
    output = check_vector_output(output, overwrite)
    if sieve < 0:
        raise SettingError(f'sieve={sieve} px; needed: 0 or more; nearest: 0')
    if not 0 <= min_area < np.inf:
        raise SettingError(f'min_area={min_area} ha; needed: 0 or more; nearest: 0')
    check_not_input(output, mask)
    with ExitStack() as stack:
        raster = stack.enter_context(open_mask(mask))
        share = None
        if confidence is not None:
            share = stack.enter_context(open_confidence(confidence, raster))
        areas = _pixel_areas(raster, min_area)
        folder = temporary_path(output)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _refusable(output, folder.mkdir)
        source = _refusable(output, lambda: sieved(raster, sieve, folder))
        stack.enter_context(source)
        patches = find_patches(source, areas, share)
        frames = _frames(source, raster, patches, min_area)
        _refusable(output, lambda: _write(frames, folder / output.name))
        _refusable(output, lambda: _publish(folder / output.name, output))
    return output


def _pixel_areas(raster: DatasetReader, min_area: float) -> PixelAreas | None:
    """Return the areas of the pixels; None where they have none and need none."""
    try:
        return PixelAreas(raster)
    except GridError as error:
        if min_area:
            raise GridError(
                f'min_area={min_area} ha cannot be measured: {error}; nearest: sieve, '
                'in pixels'
            ) from error
        return None


def _refusable(output: Path, work: Callable[[], T]) -> T:
    """Do what the disk or the driver may refuse."""
    try:
        return work()
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f'Cannot write {output}: {reason}') from error


def _frames(
    source: DatasetReader, mask: DatasetReader, patches: Patches, min_area: float
) -> Iterator[gpd.GeoDataFrame]:
    """Make the polygons in chunks: at least one, which may be empty."""
    names, crs = class_names(mask), None
    if mask.crs is not None:
        crs = pyproj.CRS.from_user_input(mask.crs)
    left = len(patches.first)
    corners = 0
    for shapes in polygons(source):
        corners += int(shapely.get_num_coordinates(shapes).sum())
        if corners > CORNERS:
            # what making them took; a stop for all threads, so not every time
            give_back()
            corners = 0
        index = _patch_of(shapes, source, patches)
        left -= len(index)
        keep = slice(None) if not min_area else patches.hectares[index] >= min_area
        index = index[keep]
        classes = patches.classes[index]
        columns = {
            'class': classes,
            'name': pd.Series(
                [names[c] if c < len(names) else str(c) for c in classes.tolist()],
                dtype=object,
            ),
            'area_ha': patches.hectares[index],
            'confidence': patches.confidence[index],
        }
        yield gpd.GeoDataFrame(columns, geometry=shapes[keep], crs=crs)
    if left:
        raise SceneError(f'{mask.name}: GDAL lost {left} patches; is the file damaged?')


def _patch_of(
    shapes: NDArray[Any], source: DatasetReader, patches: Patches
) -> NDArray[np.int64]:
    """Return which patch each polygon outlines.

    The first corner in reading order is the upper left one of the first pixel.
    """
    outlines = shapely.get_exterior_ring(shapes)
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    cols, rows = np.rint(~source.transform @ tuple(xy.T)).astype(np.int64)
    first = np.full(len(shapes), np.iinfo(np.int64).max)
    # a corner may lie on the right edge, one column past the last pixel
    np.minimum.at(first, owner, rows * (source.width + 1) + cols)
    pixel = first // (source.width + 1) * source.width + first % (source.width + 1)
    index = np.searchsorted(patches.first, pixel)
    if not np.array_equal(patches.first.take(index, mode='clip'), pixel):
        raise SceneError(f'{source.name}: polygons and pixels differ; is it damaged?')
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
    # GDAL 3.6, as in QGIS 3.22, warns of later versions
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
                layer=path.stem,
                driver=DRIVERS[suffix],
                geometry_type='Polygon',
                append=number > 0,
                **options,
            )


def _publish(made: Path, path: Path) -> None:
    """Give the file its final name, without what SQLite left beside an older one."""
    for ending in ('-wal', '-shm', '-journal'):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    made.replace(path)
