"""Windows of a scene to label: drawn, or read from a file; and their pictures."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterWindow

from ..errors import LabelError, LabelWarning
from ..grids import Window, check_same_grid, from_pixels, to_pixels
from ..inference.masks import open_confidence, open_mask
from ..inference.paths import product_path
from ..rasters import grid_of
from ..scaling import band_key, rgb_indices
from ..scenes.scene import SceneWindows

Floats = NDArray[np.float64]
#: Smallest share of a drawn window that is valid, and pixels per side that tell.
MIN_VALID, SEEN = 0.9, 4
#: Longest side of a picture, and of the overview that the stretch is measured in.
PICTURE, OVERVIEW = 192, 512


class Drawing(NamedTuple):
    """How many windows to draw, and where."""

    number: int
    #: Side in pixels.
    size: int
    #: Mask whose confidence tells where to label; None: anywhere.
    mask: str | Path | None
    seed: int


def draw_windows(
    scene: SceneWindows, drawing: Drawing, taken: gpd.GeoSeries
) -> gpd.GeoSeries:
    """Draw windows that are spread over the valid part of a scene.

    Windows of a regular grid are ordered along a Hilbert curve and divided into as
    many groups as windows are wanted. One is drawn from each group: at random, or the
    one with the lowest mean confidence.

    Args:
        scene: The scene.
        drawing: Number and size of the windows.
        taken: Windows in the CRS of the scene not to draw again.

    Returns:
        Squares in the CRS of the scene, in random order.

    Raises:
        GridError: If mask and scene are on different grids.
        LabelError: If no window fits.
    """
    size, rng = drawing.size, np.random.default_rng(drawing.seed)
    shape = (scene.grid.height // size, scene.grid.width // size)
    free = _valid(scene, shape, size) & ~_overlapped(scene, shape, size, taken)
    cells = np.argwhere(free)
    if not len(cells):
        raise LabelError(
            f'{scene.scene} has no valid window of {size} px that is not labeled '
            'already. Pass a smaller size.'
        )
    if len(cells) < drawing.number:
        warnings.warn(
            f'{scene.scene} has only {len(cells):,} windows of {size} px to label, '
            f'fewer than {drawing.number:,}. Pass a smaller size for more.',
            LabelWarning,
            stacklevel=4,
        )
    scores = rng.random(shape)
    if drawing.mask is not None:
        scores = _confidence(scene, drawing.mask, shape, size)
    near = gpd.GeoSeries(shapely.points(cells)).hilbert_distance().to_numpy().argsort()
    groups = np.array_split(cells[near], min(drawing.number, len(cells)))
    chosen = np.array([group[scores[tuple(group.T)].argmin()] for group in groups])
    left, top = chosen[rng.permutation(len(chosen)), ::-1].T * float(size)
    squares = shapely.box(left, top, left + size, top + size)
    placed = shapely.transform(squares, lambda p: from_pixels(p, scene.grid.transform))
    return gpd.GeoSeries(placed, crs=scene.grid.crs)


def _valid(scene: SceneWindows, shape: tuple[int, int], size: int) -> NDArray[np.bool_]:
    """Return which windows of a regular grid are valid, (rows, columns)."""
    if not all(shape):
        return np.zeros(shape, bool)
    seen = min(SEEN, size)
    area = Window(0, 0, shape[0] * size, shape[1] * size)
    picture = scene.overview([0], max(shape) * seen, area)[0]
    parts = np.isfinite(picture).reshape(shape[0], seen, shape[1], seen)
    valid: NDArray[np.bool_] = parts.mean(axis=(1, 3)) >= MIN_VALID
    return valid


def _overlapped(
    scene: SceneWindows, shape: tuple[int, int], size: int, taken: gpd.GeoSeries
) -> NDArray[np.bool_]:
    """Return which windows of a regular grid overlap others, (rows, columns)."""
    overlapped = np.zeros(shape, bool)
    for row, col, height, width in boxes(scene, taken):
        rows = slice(row // size, -(-(row + height) // size))
        overlapped[rows, col // size : -(-(col + width) // size)] = True
    return overlapped


def _confidence(
    scene: SceneWindows, mask: str | Path, shape: tuple[int, int], size: int
) -> Floats:
    """Return the mean confidence of windows of a regular grid, (rows, columns)."""
    area = RasterWindow(0, 0, shape[1] * size, shape[0] * size)
    with open_mask(mask) as classes:
        check_same_grid(scene.scene, scene.grid, str(mask), grid_of(classes))
        with open_confidence(product_path(Path(mask), 'confidence'), classes) as raster:
            means = raster.read(
                1,
                window=area,
                out_shape=shape,
                masked=True,
                out_dtype='float64',
                resampling=Resampling.average,
            )
    found: Floats = means.filled(100.0)
    return found


def boxes(scene: SceneWindows, windows: gpd.GeoSeries) -> list[Window]:
    """Return the pixels of windows, as far as they are inside the scene.

    Raises:
        LabelError: If one is outside.
    """
    pixels = shapely.transform(
        np.array(windows.array, object), lambda p: to_pixels(p, scene.grid.transform)
    )
    found = []
    for number, bounds in enumerate(shapely.bounds(pixels).round(), 1):
        left, top = np.maximum(bounds[:2], 0)
        right, bottom = np.minimum(bounds[2:], scene.grid[1::-1])
        if not (right > left and bottom > top):
            raise LabelError(
                f'Window {number} of {len(windows)} is outside {scene.scene}, expected '
                'windows of this scene.'
            )
        sides = (top, left, bottom - top, right - left)
        found.append(Window(*(int(side) for side in sides)))
    return found


def pictures(
    scene: SceneWindows, bands: Sequence[str], windows: Sequence[Window]
) -> list[list[bytes]]:
    """Return PNGs of each window: RGB, and near infrared, red, green if there is any.

    The stretch of a composite is the same in all windows, so that water is dark in
    each.

    Args:
        scene: The scene.
        bands: Names of its bands.
        windows: The windows.
    """
    keys, rgb = [band_key(band) for band in bands], rgb_indices(bands)
    composites = [rgb]
    if {'b8', 'b4', 'b3'} <= {*keys}:
        composites.append([keys.index(key) for key in ('b8', 'b4', 'b3')])
    limits = [
        np.nanpercentile(scene.overview(each, OVERVIEW), (2, 98), axis=(1, 2))
        for each in composites
    ]
    return [
        [
            _png(scene.overview(each, PICTURE, window), *limit)
            for each, limit in zip(composites, limits, strict=True)
        ]
        for window in windows
    ]


def _png(picture: NDArray[np.float32], low: Floats, high: Floats) -> bytes:
    """Return a picture (3, h, w) as PNG, each band stretched, transparent if invalid."""
    colors = (picture.transpose(1, 2, 0) - low) / np.maximum(high - low, 1e-6)
    colors = np.nan_to_num(colors.clip(0, 1) * 255)
    layers = np.dstack([colors, 255 * np.isfinite(picture).all(axis=0)])
    file = io.BytesIO()
    Image.fromarray(layers.round().astype(np.uint8)).save(file, 'PNG')
    return file.getvalue()
