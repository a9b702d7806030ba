"""Label windows of a scene by click, in a notebook."""

from collections.abc import Sequence
from importlib.util import find_spec
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd

from ..errors import LabelError, OutputError, SettingError, similar_file
from ..files import given_paths
from ..grids import Grid
from ..inference.scene_mask import SceneMask
from ..inference.vector import check_vector_output
from ..labels.class_names import check_classes
from ..legends import usual_colors
from ..scenes.scene import SceneWindows
from ..scenes.sources import band_names
from .answers import read_answers
from .windows import Drawing, boxes, draw_windows, pictures

if TYPE_CHECKING:
    from .widget import WindowGrid


#: What outlines of windows can be read from.
Outlines = str | Path | gpd.GeoDataFrame | gpd.GeoSeries


def label_windows(
    scene: str | Path,
    windows: int | str | Path | gpd.GeoDataFrame | gpd.GeoSeries,
    classes: Sequence[str],
    output: str | Path = 'labels.gpkg',
    *,
    size: int = 64,
    mask: SceneMask | str | Path | None = None,
    colors: Sequence[str] | None = None,
    seed: int = 0,
) -> 'WindowGrid':
    """Show windows of a scene with a button for each class, in a notebook.

    Every click is written to *output*, from which ``torchgeo-ctm train --labels`` and
    :class:`~torchgeo_ctm.labels.PolygonLabels` learn. A class that was not clicked is
    unknown, unless "only these" was: then it is absent. Call this again with the same
    *output* to go on.

    Args:
        scene: A raster, a folder of bands, a ``.SAFE``.
        windows: How many windows to label in all: those of *output*, and others drawn
            from the whole valid scene. Or polygons, as a GeoDataFrame or a vector
            file: the box around each is a window.
        classes: Names of the classes.
        output: GeoPackage with the labels.
        size: Side of drawn windows in pixels.
        mask: Mask of the scene with its confidence: windows are drawn where it is
            least sure.
        colors: Color of each class; None: what maps usually have.
        seed: Seed of the draw.

    Raises:
        LabelError: If *output* or *windows* do not fit to scene and classes.
        OutputError: If *output* cannot be written.
        SceneError: If the scene cannot be read.
        SettingError: If a number is out of range, or anywidget is not installed.
    """
    if find_spec('anywidget') is None:
        raise SettingError(
            'label_windows requires anywidget. Install it with pip install '
            '"torchgeo-ctm[notebooks]".'
        )
    from .widget import WindowGrid

    [scene] = given_paths('scene', [scene])

    number = None if isinstance(windows, Outlines) else _count('windows', windows)
    size = _count('size', size)
    names, bands = check_classes(classes), band_names(scene)
    if colors is None:
        colors = usual_colors(names)
    if len(colors) != len(names):
        raise SettingError(
            f'colors has {len(colors)} entries, expected {len(names)}, one a class.'
        )
    output = Path(output)
    if output.suffix.lower() != '.gpkg':
        raise OutputError(
            f'{output} is not a GeoPackage. Did you mean '
            f'{output.with_suffix(".gpkg").name!r}?'
        )
    check_vector_output(output, overwrite=True)
    opened = SceneWindows(scene, bands, size, size)
    answers = read_answers(output, names, _crs(opened.grid, scene))
    if number is not None:
        path = mask.products['mask'] if isinstance(mask, SceneMask) else mask
        drawing = Drawing(number - len(answers), size, path, seed)
        if drawing.number > 0:
            answers.add(draw_windows(opened, drawing, answers.geometry))
    else:
        answers.add(_read_windows(windows))
    shown = pictures(opened, bands, boxes(opened, answers.geometry))
    answers.save()
    return WindowGrid(answers, shown, list(colors))


def _count(name: str, value: Any) -> int:
    """Return a number of windows or pixels.

    Raises:
        SettingError: If it is not an integer, or less than 1.
    """
    try:
        count = index(value)
    except TypeError:
        raise SettingError(f'Invalid {name}={value!r}, expected an integer.') from None
    if count < 1:
        raise SettingError(f'{name}={count} is too small, expected at least 1.')
    return count


def _crs(grid: Grid, scene: str | Path) -> object:
    """Return the CRS of a scene.

    Raises:
        LabelError: If it has none.
    """
    if grid.crs is None:
        raise LabelError(
            f'{scene} has no CRS, so that labels cannot be found again. Set one with '
            'gdal_edit.py -a_srs EPSG:…'
        )
    return grid.crs


def _read_windows(windows: Any) -> gpd.GeoSeries:
    """Return windows to label.

    Raises:
        LabelError: If they cannot be read, have no CRS or are not polygons.
    """
    name = 'windows'
    if isinstance(windows, str | Path):
        name, path = str(windows), Path(windows)
        if not path.exists():
            raise LabelError(
                f'{path} does not exist, expected windows to label.'
                f'{similar_file(path, (".gpkg", ".geojson", ".parquet", ".shp"))}'
            )
        try:
            windows = gpd.read_file(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise LabelError(f'{path} cannot be read as polygons: {error}.') from error
    shapes = windows.geometry
    if not len(shapes) or not shapes.geom_type.isin(['Polygon', 'MultiPolygon']).all():
        raise LabelError(f'{name} has no polygons, expected the outlines of windows.')
    if shapes.crs is None:
        raise LabelError(f'{name} has no CRS. Set one with set_crs.')
    return shapes
