"""Write the polygons of a class raster to a vector file, with attributes."""

import importlib.util
import shutil
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import (
    GridError,
    NodataWarning,
    OutputError,
    SceneError,
    SettingError,
    did_you_mean,
)
from ..files import check_file, check_not_input, temporary_path
from .areas import PixelAreas
from .masks import class_names, open_confidence, open_mask
from .outlines import to_coordinates
from .polygons import polygons
from .regions import Regions, find_regions
from .sieve import sieved
from .style import embed_style, legend, polygons_style

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
        raise OutputError(
            f'{path} cannot be written as polygons, expected {", ".join(DRIVERS)}.{close}'
        )
    if suffix == '.parquet' and importlib.util.find_spec('pyarrow') is None:
        raise OutputError(
            f'{path} requires pyarrow: pip install "torchgeo-ctm[parquet]". Or write '
            f'{path.with_suffix(".gpkg")}.'
        )
    check_file(path, overwrite)
    if suffix == '.gpkg' and path.exists():
        _check_closed(path)
    return path


def _check_closed(path: Path) -> None:
    """Check that no other program has a GeoPackage open, whose edits would be lost."""
    try:
        with closing(sqlite3.connect(path, timeout=0.5)) as database:
            # fails while another connection has the file open
            database.execute('PRAGMA locking_mode = EXCLUSIVE')
            database.execute('PRAGMA journal_mode = DELETE')
            database.execute('BEGIN EXCLUSIVE')
    except sqlite3.OperationalError as error:
        if 'locked' in str(error):
            raise OutputError(
                f'{path} is open in another program, expected one that can be '
                'replaced. Remove the layer from QGIS, or write to another name.'
            ) from error
    except sqlite3.DatabaseError:
        pass  # no GeoPackage: it can be replaced


def vectorize(
    mask: str | Path,
    output: str | Path,
    *,
    confidence: str | Path | None = None,
    sieve: int = 0,
    min_area: float = 0.0,
    simplify: float = 0.0,
    fill_holes: float = 0.0,
    smooth: bool = False,
    leave_out: Sequence[int] = (),
    style: bool = True,
    hectares: bool = False,
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
        simplify: Meters; simplify borders by triangles of about this side. Neighbors
            keep one border. ``area_ha`` stays that of the pixels.
        fill_holes: Hectares; fill smaller holes of a polygon, with the polygons in
            them. The mean confidence stays that of its own pixels.
        smooth: Cut corners of borders. Neighbors keep one border.
        leave_out: Classes without polygons.
        style: Put the colors and names for QGIS into a GeoPackage, which has them
            wherever it goes.
        hectares: Put the hectares of each class into the names of that style.
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
    for name, value, unit in (
        ('sieve', sieve, 'px'),
        ('min_area', min_area, 'ha'),
        ('simplify', simplify, 'm'),
        ('fill_holes', fill_holes, 'ha'),
    ):
        if not 0 <= value < np.inf:
            raise SettingError(f'{name}={value} {unit}, expected 0 or more.')
    if (simplify or fill_holes or smooth) and (
        not hasattr(shapely, 'coverage_simplify') or shapely.geos_version < (3, 12)
    ):
        raise SettingError(
            'simplify, fill_holes and smooth require shapely 2.1 with GEOS 3.12. '
            'Install it with pip install "shapely>=2.1".'
        )
    check_not_input(output, mask)
    with ExitStack() as stack:
        raster = stack.enter_context(open_mask(mask))
        percent = None
        if confidence is not None:
            percent = stack.enter_context(open_confidence(confidence, raster))
        measured = {
            'min_area': min_area,
            'simplify': simplify,
            'fill_holes': fill_holes,
        }
        areas = _pixel_areas(raster, measured)
        folder = temporary_path(output)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with _output_errors(output):
            folder.mkdir()
            source = stack.enter_context(sieved(raster, sieve, folder))
        regions = find_regions(source, areas, percent)
        chunks = _chunks(source, raster, regions)
        if simplify or fill_holes or smooth:
            whole = _generalized(chunks, source, regions, simplify, fill_holes, smooth)
            regions, chunks = whole.regions, iter([whole.chunk])
        with _output_errors(output):
            frames = _frames(chunks, raster, regions, min_area, leave_out)
            _write(frames, folder / output.name)
            if min_area and not (regions.hectares >= min_area).any():
                _warn_of_nothing(output, min_area, regions)
            if style and output.suffix.lower() == '.gpkg':
                made = polygons_style(*legend(mask, hectares))
                _embed(made, folder / output.name)
            publish_vector(folder / output.name, output)
    return output


def _warn_of_nothing(output: Path, min_area: float, regions: Regions) -> None:
    """Warn that no region of a map is large enough for a polygon."""
    most = regions.hectares.max(initial=0)
    warnings.warn(
        f'{output} has no polygon: none has min_area={min_area:g} ha or more, the '
        f'largest has {most:.2f} ha.',
        NodataWarning,
        stacklevel=3,
    )


def _pixel_areas(
    raster: DatasetReader, measured: Mapping[str, float]
) -> PixelAreas | None:
    """Return the areas of the pixels; None without a CRS, if nothing is measured."""
    try:
        return PixelAreas(raster)
    except GridError as error:
        for name, value in measured.items():
            if value:
                raise GridError(
                    f'{name}={value} cannot be measured: {error} Or use sieve, in '
                    'pixels.'
                ) from error
        return None


@contextmanager
def _output_errors(output: Path) -> Iterator[None]:
    """Re-raise errors of the disk and the driver as OutputError."""
    try:
        yield
    except (OSError, RuntimeError, sqlite3.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutputError(f'Cannot write {output}: {reason}') from error


#: Polygons and the index of the region of each.
Chunk = tuple[NDArray[Any], NDArray[np.int64]]


def _chunks(
    source: DatasetReader, mask: DatasetReader, regions: Regions
) -> Iterator[Chunk]:
    """Yield the polygons in chunks: at least one, which may be empty."""
    left = len(regions.first)
    for shapes in polygons(source):
        index = _region_of(shapes, source, regions)
        left -= len(index)
        yield shapes, index
    if left:
        raise SceneError(
            f'GDAL made no polygon for {left} regions of {mask.name}. The file may be '
            'damaged.'
        )


class _Generalized(NamedTuple):
    """Polygons that were changed together, and regions with their new areas."""

    chunk: Chunk
    regions: Regions


def _generalized(
    chunks: Iterator[Chunk],
    source: DatasetReader,
    regions: Regions,
    simplify: float,
    fill_holes: float,
    smooth: bool,
) -> _Generalized:
    """Fill holes, simplify and smooth all polygons together, in memory."""
    from . import generalize

    parts = [chunk for chunk in chunks if len(chunk[0])]
    if not parts:
        return _Generalized((np.empty(0, object), np.empty(0, np.int64)), regions)
    shapes, index = (np.concatenate(each) for each in zip(*parts, strict=True))
    shapes = shapely.transform(shapes, lambda xy: to_coordinates(xy, ~source.transform))
    shapes = generalize.with_every_corner(shapes)
    if fill_holes:
        pixel = (regions.hectares / regions.pixels)[index]
        shapes, gained, inside = generalize.holes_to_fill(shapes, fill_holes / pixel)
        hectares = regions.hectares.copy()
        hectares[index] += gained * pixel
        regions = regions._replace(hectares=hectares)
        shapes, index = shapes[~inside], index[~inside]
    tolerance = 0.0
    if simplify:
        side = np.sqrt(10_000 * regions.hectares.sum() / regions.pixels.sum())
        tolerance = simplify / side
    shapes = generalize.simplified(shapes, tolerance)
    if smooth:
        shapes = generalize.smoothed(shapes, source.shape)
    shapes = shapely.transform(shapes, lambda xy: to_coordinates(xy, source.transform))
    # some programs add the area of a hole that turns like its outline
    shapes = shapely.orient_polygons(shapes)
    return _Generalized((shapes, index), regions)


def _frames(
    chunks: Iterator[Chunk],
    mask: DatasetReader,
    regions: Regions,
    min_area: float,
    leave_out: Sequence[int],
) -> Iterator[gpd.GeoDataFrame]:
    """Yield the polygons with their attributes."""
    names, crs = class_names(mask), None
    if mask.crs is not None:
        crs = pyproj.CRS.from_user_input(mask.crs)
    for shapes, index in chunks:
        keep = ~np.isin(regions.classes[index], leave_out)
        if min_area:
            keep &= regions.hectares[index] >= min_area
        kept = index[keep]
        classes = regions.classes[kept]
        columns = {
            'class': classes,
            'name': pd.Series(
                [names[c] if c < len(names) else str(c) for c in classes.tolist()],
                dtype=object,
            ),
            'area_ha': regions.hectares[kept],
            'confidence': regions.confidence[kept],
        }
        yield gpd.GeoDataFrame(columns, geometry=shapes[keep], crs=crs)


def _embed(style: str, path: Path) -> None:
    """Put the style of the polygons into their GeoPackage."""
    with closing(sqlite3.connect(path)) as database, database:
        embed_style(database, layer_name(path), style)


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


def read_vectorized(path: str | Path) -> gpd.GeoDataFrame:
    """Return the polygons of a file that :func:`vectorize` wrote."""
    if Path(path).suffix.lower() == '.parquet':
        return gpd.read_parquet(path)
    # named, because the style inside is a layer too
    return gpd.read_file(path, layer=pyogrio.list_layers(path)[0, 0])


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
