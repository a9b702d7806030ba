"""Join maps of neighboring scenes, of one UTM zone or several, into one map."""

import itertools
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterWindow

from ..errors import (
    GeoreferenceWarning,
    GridError,
    LabelWarning,
    Note,
    SceneError,
    SettingError,
    name_key,
)
from ..files import (
    check_file,
    check_not_input,
    staging_folder,
    uninterrupted,
    write_text,
)
from ..grids import IGNORED, Grid
from ..inference.former import check_polygons, former_products, retire
from ..inference.geotiff import RasterRows, check_output
from ..inference.masks import (
    check_percent,
    class_colors,
    class_names,
    open_confidence,
    open_mask,
)
from ..inference.paths import product_path
from ..inference.style import ramp_style, write_style
from ..inference.vector import check_vector_output, publish_vector, vectorize
from ..rasters import CONFIDENCE, grid_of, open_raster

#: Pixels of a row band.
ROW_BAND = 4_000_000
#: Largest side of a joined map in pixels.
LARGEST = 1_000_000
#: Factor by which a joined map is larger than its maps if one lies at a wrong place.
SPARSE = 50

Bytes = NDArray[np.uint8]


class _Map(NamedTuple):
    """A map on the grid of the joined one."""

    classes: WarpedVRT
    #: Confidence in percent; None if some map has none.
    confidence: WarpedVRT | None
    #: New value of each value; 255 for none.
    table: Bytes
    #: First row, and the row after the last one, that it can reach.
    rows: tuple[int, int]


def join(
    maps: Sequence[str | Path],
    output: str | Path,
    *,
    like: str | Path | None = None,
    polygons: bool = True,
    style: bool = True,
    overwrite: bool = False,
) -> list[Path]:
    """Join maps that overlap or lie side by side.

    Where several maps know a pixel, the class with the highest confidence counts, by
    the rasters MAP_confidence.tif beside them: no border between two maps follows the
    border of a scene. Of equal ones the first class counts. Without these rasters, the
    first map that knows a pixel counts. Classes are joined by name. Maps of another
    grid are brought over by nearest neighbor.

    Args:
        maps: Class rasters with class names, as ``predict`` writes them.
        output: Class raster to write (.tif).
        like: Raster whose grid the joined map gets; None: CRS and pixels of the first
            map, as large as all maps need.
        polygons: Also write OUTPUT.gpkg.
        style: Also write OUTPUT.qml, and OUTPUT_confidence.qml.
        overwrite: Replace existing files.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written.
        SceneError: If a map cannot be read, has no class names, or if there are more
            than 255 classes.
        GridError: If a map has no CRS, lies outside, or the joined map is too large.
        SettingError: If there are fewer than two maps.
    """
    if len(maps) < 2:
        raise SettingError(f'Expected two maps or more to join, got {len(maps)}.')
    output = check_output(output, overwrite)
    check_file(output.with_name(f'{output.name}.aux.xml'), overwrite)
    others = {
        'confidence': product_path(output, 'confidence'),
        'confidence_style': product_path(output, 'confidence', '.qml'),
        'style': output.with_suffix('.qml'),
        'polygons': output.with_suffix('.gpkg'),
    }
    read = [Path(path) for path in maps]
    read += [product_path(path, 'confidence') for path in read]
    for path in (*read, *([Path(like)] if like is not None else [])):
        check_not_input(output, path)
        check_not_input(others['confidence'], path)
    with ExitStack() as stack:
        rasters = [stack.enter_context(open_mask(path)) for path in maps]
        percents = _confidence(stack, rasters)
        wanted = ['confidence'] if percents else []
        wanted += ['confidence_style'] if percents and style else []
        wanted += [n for n, on in (('style', style), ('polygons', polygons)) if on]
        for name in wanted:
            if name == 'polygons':
                check_polygons(others[name])
            check = check_vector_output if name == 'polygons' else check_file
            check(others[name], overwrite)
        names, colors, tables = _classes(rasters)
        _warn_of_strangers(rasters)
        grid = _joined_grid(rasters) if like is None else _grid_like(like)
        placed = _placed(stack, rasters, percents, tables, grid)
        if not percents:
            warnings.warn(
                'Not every map has its …_confidence.tif beside it: where maps overlap, '
                'the first of them counts, so that their order matters.',
                Note,
                stacklevel=2,
            )
        paths = {name: others[name] for name in wanted}
        former = former_products(output)
        with staging_folder(output) as folder:
            _write(placed, grid, output, paths, (names, colors), folder)
    written = [output, *paths.values()]
    retire(former, written)
    return written


def _confidence(
    stack: ExitStack, rasters: Sequence[DatasetReader]
) -> list[DatasetReader]:
    """Open the confidence of every map; none if one is missing."""
    paths = [product_path(Path(raster.name), 'confidence') for raster in rasters]
    if not all(path.exists() for path in paths):
        return []
    return [
        stack.enter_context(open_confidence(path, raster))
        for path, raster in zip(paths, rasters, strict=True)
    ]


def _classes(
    rasters: Sequence[DatasetReader],
) -> tuple[list[str], list[str], list[Bytes]]:
    """Return names and colors of all classes, and a table of new values by map.

    Raises:
        SceneError: If a map has no class names, or if there are too many.
    """
    names: dict[str, str] = {}
    colors: list[str] = []
    tables = []
    for raster in rasters:
        own = class_names(raster)
        if not own:
            raise SceneError(
                f'{raster.name} has no class names, by which maps are joined. Give it '
                'some with torchgeo-ctm relabel --names.'
            )
        table = np.full(max(len(own), IGNORED) + 1, IGNORED, np.uint8)
        for value, (name, color) in enumerate(
            zip(own, class_colors(raster), strict=True)
        ):
            key = name_key(name)
            if key not in names:
                names[key] = name
                colors.append(color)
            if len(names) > IGNORED:
                raise SceneError(
                    f'The maps have more than {IGNORED} classes, expected at most that.'
                )
            table[value] = list(names).index(key)
        tables.append(table)
    return [*names.values()], colors, tables


def _warn_of_strangers(rasters: Sequence[DatasetReader]) -> None:
    """Warn of the first map that has no class in common with any other."""
    names = [class_names(raster) for raster in rasters]
    keys = [{name_key(name) for name in own} for own in names]
    for number, own in enumerate(keys):
        others = [other for other in range(len(keys)) if other != number]
        if not any(own & keys[other] for other in others):
            rest = dict.fromkeys(name for other in others for name in names[other])
            warnings.warn(
                f'{rasters[number].name} has the classes {", ".join(names[number])}, the '
                f'other maps have {", ".join(rest)}: none in common, so the joined map '
                'has all of them. Name them alike with torchgeo-ctm relabel --merge '
                '"OLD=NEW" if they mean the same.',
                LabelWarning,
                stacklevel=3,
            )
            return
    spelled = {name_key(name): name for own in names for name in own}
    for one, other in itertools.combinations(spelled, 2):
        together = any(one in own and other in own for own in keys)
        first, second = (re.sub(r'[\W_]', '', each) for each in (one, other))
        alike = first == second or f'{first}s' == second or first == f'{second}s'
        if alike and not together:
            warnings.warn(
                f'Some maps have the class {spelled[one]!r}, others {spelled[other]!r}, '
                'so the joined map has both. Name them alike with torchgeo-ctm relabel '
                f'--merge "{spelled[one]}={spelled[other]}" if they mean the same.',
                LabelWarning,
                stacklevel=3,
            )


def _joined_grid(rasters: Sequence[DatasetReader]) -> Grid:
    """Return the grid of the first map, as large as all maps need.

    Raises:
        GridError: If a map has no CRS, or the grid would be too large.
    """
    first = grid_of(rasters[0])
    boxes = [_box(raster, first) for raster in rasters]
    top, left = (math.floor(min(box[side] for box in boxes)) for side in (0, 1))
    bottom, right = (math.ceil(max(box[side] for box in boxes)) for side in (2, 3))
    height, width = bottom - top, right - left
    if max(height, width) > LARGEST:
        raise GridError(
            f'The maps are far apart: joined they have {height:,} × {width:,} px, '
            f'expected at most {LARGEST:,} on a side. Pass the grid of a raster as like=.'
        )
    covered = sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes)
    if height * width > SPARSE * covered:
        warnings.warn(
            f'The maps cover {100 * covered / (height * width):.2g} % of the joined map '
            f'of {height:,} × {width:,} px, because they lie far apart. Check their CRS.',
            GeoreferenceWarning,
            stacklevel=3,
        )
    transform = first.transform @ Affine.translation(left, top)
    return Grid(height, width, first.crs, transform)


def _grid_like(path: str | Path) -> Grid:
    """Return the grid of a raster.

    Raises:
        GridError: If it has no CRS.
    """
    with open_raster(path) as raster:
        grid = grid_of(raster)
    if grid.crs is None:
        raise GridError(f'{path} has no CRS, expected the grid of the joined map.')
    return grid


def _box(raster: DatasetReader, grid: Grid) -> tuple[float, float, float, float]:
    """Return where a map lies: first row and column, last row and column, in pixels.

    Raises:
        GridError: If it has no CRS, or cannot be brought to that of the grid.
    """
    if raster.crs is None or grid.crs is None:
        raise GridError(
            f'{raster.name} has no CRS, so that its place is unknown. Give it one with '
            'gdal_edit.py -a_srs.'
        )
    try:
        west, south, east, north = transform_bounds(
            raster.crs, grid.crs, *raster.bounds, densify_pts=51
        )
    except RasterioError as error:
        raise GridError(
            f'{raster.name} cannot be brought to the CRS of the joined map: {error}.'
        ) from error
    inverse = ~grid.transform
    found = [inverse @ (x, y) for x in (west, east) for y in (south, north)]
    # corners that are pixel corners but for rounding
    cols, rows = (
        [round(value, 3) for value in values] for values in zip(*found, strict=True)
    )
    return min(rows), min(cols), max(rows), max(cols)


def _placed(
    stack: ExitStack,
    rasters: Sequence[DatasetReader],
    percents: Sequence[DatasetReader],
    tables: Sequence[Bytes],
    grid: Grid,
) -> list[_Map]:
    """Return the maps on the grid of the joined one.

    Raises:
        GridError: If one lies outside of it.
    """
    placed = []
    options = {
        'crs': grid.crs,
        'transform': grid.transform,
        'height': grid.height,
        'width': grid.width,
        'resampling': Resampling.nearest,
        'src_nodata': IGNORED,
        'nodata': IGNORED,
        # of a pixel, by which interpolated positions may differ from exact ones
        'tolerance': 0.01,
    }
    for number, (raster, table) in enumerate(zip(rasters, tables, strict=True)):
        top, left, bottom, right = _box(raster, grid)
        inside = top < grid.height and bottom > 0 and left < grid.width and right > 0
        if not inside:
            raise GridError(
                f'{raster.name} lies outside of the joined map. Leave it out, or pass the '
                'grid of a raster that covers all maps as like=.'
            )
        own = options
        if raster.nodata is not None:
            own = options | {'src_nodata': raster.nodata}
        placed.append(
            _Map(
                stack.enter_context(WarpedVRT(raster, **own)),
                stack.enter_context(WarpedVRT(percents[number], **options))
                if percents
                else None,
                table,
                (math.floor(top) - 1, math.ceil(bottom) + 1),
            )
        )
    return placed


def _joined(
    maps: Sequence[_Map], grid: Grid
) -> Iterator[tuple[int, Bytes, NDArray[np.int16]]]:
    """Join maps by row bands.

    Yields:
        First row, classes (rows, width), and confidence, −1 where no map knows one.

    Raises:
        SceneError: If a map is damaged.
    """
    step = max(1, ROW_BAND // grid.width)
    for row in range(0, grid.height, step):
        rows = min(step, grid.height - row)
        classes = np.full((rows, grid.width), IGNORED, np.uint8)
        best = np.full((rows, grid.width), -1, np.int16)
        for number, each in enumerate(maps):
            if each.rows[0] >= row + rows or each.rows[1] <= row:
                continue
            window = RasterWindow(0, row, grid.width, rows)
            try:
                values = each.classes.read(1, window=window)
                own = each.table[np.minimum(values, IGNORED)]
                level = np.full(own.shape, len(maps) - number, np.int16)
                if each.confidence is not None:
                    level = each.confidence.read(1, window=window).astype(np.int16)
                    level[level == IGNORED] = 0
                    check_percent(level, each.confidence.src_dataset.name)
            except RasterioError as error:
                raise SceneError(
                    f'{each.classes.src_dataset.name} is damaged: {error}.'
                ) from error
            better = (level > best) | ((level == best) & (own < classes))
            better &= own != IGNORED
            classes[better], best[better] = own[better], level[better]
        yield row, classes, best


def _write(
    maps: Sequence[_Map],
    grid: Grid,
    output: Path,
    paths: dict[str, Path],
    classes: tuple[list[str], list[str]],
    folder: Path,
) -> None:
    """Write the joined map and what belongs to it: all of it, or none.

    Args:
        maps: The maps.
        grid: Grid of the joined one.
        output: Class raster.
        paths: Those of confidence, styles and polygons that are wanted.
        classes: Names and colors.
        folder: Folder for files that are not complete.
    """
    sources = [Path(each.classes.src_dataset.name).name for each in maps]
    tags = {'JOINED': json.dumps(sources)}
    staged = {name: folder / path.name for name, path in paths.items()}
    mask = RasterRows(output, grid, ['land cover class'], tags, classes, folder)
    rasters = [mask]
    try:
        if 'confidence' in paths:
            name = [CONFIDENCE]
            beside = paths['confidence']
            rasters.append(RasterRows(beside, grid, name, tags, folder=folder))
        for row, found, best in _joined(maps, grid):
            mask.write(row, found)
            for percent in rasters[1:]:
                values = np.where(best < 0, IGNORED, best).astype(np.uint8)
                percent.write(row, values)
        for raster in rasters:
            raster.close()
        if 'style' in paths:
            write_style(staged['style'], *classes)
        if 'confidence_style' in paths:
            write_text(staged['confidence_style'], ramp_style(100))
        if 'polygons' in paths:
            percents = rasters[1].rows if len(rasters) > 1 else None
            vectorize(mask.rows, staged['polygons'], confidence=percents)
        for raster, resampling in zip(rasters, ('mode', 'average'), strict=False):
            raster.finish(resampling)
        with uninterrupted():
            for raster in rasters:
                raster.publish()
            for part in ('style', 'confidence_style'):
                if part in paths:
                    staged[part].replace(paths[part])
            if 'polygons' in paths:
                publish_vector(staged['polygons'], paths['polygons'])
    finally:
        for raster in rasters:
            raster.abandon()
