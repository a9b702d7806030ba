"""Exported masks as the reference and the labels of a scene."""

import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import array_bounds
from rasterio.windows import Window as RasterWindow
from shapely import STRtree

from ..errors import DataError, GridError, LabelWarning
from ..grids import IGNORED, Grid, Window, corners, crs_agree_at
from ..labels import ImageLabel
from ..rasters import open_raster
from ..scenes.scene import SceneWindows
from .pseudo_masks import MaskFacts, confidence_path

#: Smallest share of a window, 0…1, that must have a class to learn anything from it.
MIN_LABELED = 0.05
#: Pixels along the side of a window that are looked at for a class.
SAMPLES = 16
#: How far pixels of image and mask may be off each other, in pixels: rounding.
TOLERANCE = 0.01


class MaskReference:
    """Reference of a scene made of any number of masks on its pixels.

    Masks may cover any part of the scene, and extend beyond it. Where two of them
    overlap, the first one with a class counts. As a source of labels
    (:class:`~torchgeo_ctm.labels.LabelSource`) it labels the windows in which at least
    :data:`MIN_LABELED` of the pixels have a class, with no class known.
    """

    def __init__(
        self,
        scene: SceneWindows,
        masks: Sequence[MaskFacts],
        classes: Sequence[str],
        min_confidence: float = 0,
    ) -> None:
        """Initialize the reference.

        Args:
            scene: The scene; its ``window`` is the side of a window.
            masks: Masks on the pixels of the scene.
            classes: Names of the classes.
            min_confidence: In percent; see :class:`PseudoMasks`.
        """
        self.grid = scene.grid
        self.masks = list(masks)
        self.classes = tuple(classes)
        self.min_confidence = min_confidence
        #: Window of each mask in pixels of the scene.
        self.windows = [window_in(scene.grid, mask.grid) for mask in masks]
        #: Side in pixels of a cell of the low-resolution map of labeled pixels.
        self.step = max(1, scene.window // SAMPLES)
        self._labeled: NDArray[np.bool_] | None = None
        unknown = np.zeros(len(classes))
        self._label = ImageLabel(unknown.astype(np.float32), unknown.astype(bool))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return the class indices (height, width) of a window, 255 where unknown."""
        found = np.full((window.height, window.width), IGNORED, np.uint8)
        for mask, own in zip(self.masks, self.windows, strict=True):
            top, left = max(own.row, window.row), max(own.col, window.col)
            bottom = min(own.row + own.height, window.row + window.height)
            right = min(own.col + own.width, window.col + window.width)
            if top < bottom and left < right:
                part = Window(top - own.row, left - own.col, bottom - top, right - left)
                rows = slice(top - window.row, bottom - window.row)
                cols = slice(left - window.col, right - window.col)
                here = found[rows, cols]
                np.copyto(here, self._classes(mask, part), where=here == IGNORED)
        return found

    def _classes(
        self, mask: MaskFacts, part: Window, shape: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Read part of a mask, resampled to *shape* by nearest neighbor."""
        classes = _read(mask.path, part, shape)
        if self.min_confidence:
            confidence = _read(confidence_path(mask.path), part, shape)
            classes[confidence < self.min_confidence] = IGNORED
        return classes

    def extents(self, grid: Grid) -> NDArray[np.float64]:
        """Return the boxes (n, 4) of the masks in pixels of the scene."""
        return np.array(
            [(w.row, w.col, w.row + w.height, w.col + w.width) for w in self.windows],
            np.float64,
        ).reshape(-1, 4)

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return a label without known classes, None where too few pixels have one."""
        if self._labeled is None:
            self._labeled = self._find_labeled()
        col, row = ~self.grid.transform @ (grid.transform.c, grid.transform.f)
        rows, cols = (
            slice(round(start) // self.step, -(-(round(start) + size) // self.step))
            for start, size in ((row, grid.height), (col, grid.width))
        )
        share = self._labeled[rows, cols].mean()
        return self._label if share >= MIN_LABELED else None

    def _find_labeled(self) -> NDArray[np.bool_]:
        """Return the low-resolution map of labeled pixels, one sample per cell."""
        step = self.step
        size = [-(-side // step) for side in self.grid[:2]]
        labeled = np.zeros(size, bool)
        for mask, own in zip(self.masks, self.windows, strict=True):
            top, left = max(own.row, 0), max(own.col, 0)
            bottom = min(own.row + own.height, self.grid.height)
            right = min(own.col + own.width, self.grid.width)
            rows = slice(top // step, -(-bottom // step))
            cols = slice(left // step, -(-right // step))
            part = Window(top - own.row, left - own.col, bottom - top, right - left)
            shape = labeled[rows, cols].shape
            labeled[rows, cols] |= self._classes(mask, part, shape) != IGNORED
        return labeled


def _read(path: str, part: Window, shape: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Read part of a raster of one band."""
    window = RasterWindow(part.col, part.row, part.width, part.height)
    with open_raster(path, DataError) as raster:
        values: NDArray[np.uint8] = raster.read(1, window=window, out_shape=shape)
    return values


def window_in(scene: Grid, mask: Grid) -> Window:
    """Return the window of a mask in pixels of a scene; it may extend beyond it."""
    col, row = ~scene.transform @ (mask.transform.c, mask.transform.f)
    return Window(round(row), round(col), mask.height, mask.width)


def match_masks(
    scenes: Sequence[SceneWindows], masks: Sequence[MaskFacts]
) -> list[list[MaskFacts]]:
    """Return the masks of each scene.

    A mask belongs to the scene whose pixels it shares (CRS, resolution and pixel
    corners), so that nothing is resampled. Where several scenes overlap, as on
    different dates, it belongs to the one that it names (tag ``SCENE``), or else whose
    name starts the name of its file.

    Args:
        scenes: The scenes.
        masks: The masks.

    Raises:
        DataError: If no mask shares the pixels of a scene.
        GridError: If a raster is rotated or has no CRS.
    """
    boxes = [_checked_box(scene.grid, scene.scene) for scene in scenes]
    tree = STRtree(boxes)
    found: list[list[MaskFacts]] = [[] for _ in scenes]
    lost, unclear = [], []
    for mask in masks:
        # half a pixel smaller, so that neighbors do not count
        box = _checked_box(mask.grid, mask.path).buffer(-mask.grid.transform.a / 2)
        near = [
            number
            for number in sorted(tree.query(box, 'intersects').tolist())
            if _same_pixels(scenes[number].grid, mask.grid)
        ]
        named = [n for n in near if _names(mask, scenes[n])]
        apart: list[int] = []
        for number in near:
            shown = boxes[number].intersection(box)
            if not any(shown.intersection(boxes[n]).area > 0 for n in apart):
                apart.append(number)
        if not near:
            lost.append(mask.path)
        elif len(apart) < len(near) and named:
            apart = [max(named, key=lambda n: len(scenes[n].scene))]
        elif len(apart) < len(near):
            unclear.append(mask.path)
        for number in apart:
            found[number].append(mask)
    if len(lost) == len(masks):
        raise DataError(
            f'None of {len(masks)} masks lies on the pixels of one of {len(scenes)} '
            f'images: {masks[0].path} {_described(masks[0].grid)}, {scenes[0].scene} '
            f'{_described(scenes[0].grid)}. Pass the images that the masks were made '
            'of.'
        )
    _warn(lost, unclear)
    return found


def _checked_box(grid: Grid, name: str) -> Any:
    """Return the outline of a raster that is georeferenced and north up."""
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    if b or d or a <= 0 or e >= 0:
        raise GridError(f'{name} is not north up, expected a raster that is. Warp it.')
    if grid.crs is None:
        raise GridError(f'{name} has no CRS, expected a georeferenced raster.')
    return shapely.box(*array_bounds(grid.height, grid.width, grid.transform))


def _same_pixels(one: Grid, other: Grid) -> bool:
    """Return whether two rasters share CRS, resolution, and pixel corners."""
    if not crs_agree_at(one.crs, other.crs, corners(one)):
        return False
    scale_x, _, left, _, scale_y, top = tuple(~one.transform @ other.transform)[:6]
    off = max(abs(shift - round(shift)) for shift in (left, top))
    same: bool = max(abs(scale_x - 1), abs(scale_y - 1)) < 1e-6 and off < TOLERANCE
    return same


def _names(mask: MaskFacts, scene: SceneWindows) -> bool:
    """Return whether a mask names a scene, by tag or else by the start of its name."""
    name = PurePath(scene.scene)
    if mask.scene is not None:
        return mask.scene == name.name
    return PurePath(mask.path).stem.startswith(name.stem)


def _warn(lost: Sequence[str], unclear: Sequence[str]) -> None:
    """Warn about masks without a scene, and about those with several."""
    if lost:
        warnings.warn(
            f'{len(lost)} masks lie on the pixels of no image and were left out '
            f'(first: {lost[0]}).',
            LabelWarning,
            stacklevel=3,
        )
    if unclear:
        warnings.warn(
            f'{len(unclear)} masks lie on several images and name none (first: '
            f'{unclear[0]}). Each is used with the first image that shows its ground.',
            LabelWarning,
            stacklevel=3,
        )


def _described(grid: Grid) -> str:
    """Return CRS, resolution and bounds of a grid in words."""
    bounds = array_bounds(grid.height, grid.width, grid.transform)
    numbers = ', '.join(f'{value:.10g}' for value in bounds)
    return f'({grid.crs.to_string()}, {grid.transform.a:g} per pixel, bounds {numbers})'
