"""Image-level labels from class rasters, by the area of each class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from ..errors import SettingError, name_key
from ..grids import Grid, Window, clipped_boxes, from_pixels, to_pixels
from ..legends import as_class_map
from .class_names import check_classes, found_classes
from .crs import transformed
from .raster_files import (
    Masked,
    RasterFile,
    RasterReader,
    check_nodata,
    raster_paths,
    read_header,
    warn_of_names,
)
from .source import ROUNDING, ImageLabel, check_share, class_indices, label_from_shares

Floats = NDArray[np.float64]
#: Most points along each side of a window that finer rasters are read at.
MOST_SAMPLES = 2048


class Overlap(NamedTuple):
    """A raster that may overlap a grid."""

    file: RasterFile
    #: Left, bottom, right, top of the overlap in the raster's CRS.
    box: Floats
    #: Pixels of the raster along a pixel of the grid.
    density: float


class RasterLabels:
    """Labels of windows from one or many class rasters of any resolution and CRS.

    The rasters are read at the center of every pixel of a window, without
    interpolation. If a window is small or the rasters are finer, each pixel of the
    window is read at several points. If rasters overlap, the first one that is not
    nodata counts.

    Values outside the class map belong to no class, but count in the area. Nodata and
    the area outside the rasters are unknown, and so is every class that the class map
    does not contain.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        class_map: Mapping[int, str] | str,
        classes: Sequence[str] | None = None,
        *,
        ignore: Sequence[str] = (),
        min_share: float = 0.1,
        min_coverage: float = 0.5,
        band: int | None = None,
        nodata: Sequence[int] = (),
        pattern: str = '*.tif',
        samples: int = 64,
    ) -> None:
        """Read the rasters' headers.

        Args:
            paths: Raster files, or folders of them.
            class_map: Name of the class for each value; several values may share one.
                Or a well-known legend: worldcover, dfc2020, dynamic-world, esri, igbp,
                igbp-simplified.
            classes: Names of the classes; None: the class map's, in its order.
            ignore: Names of the class map that are not classes here.
            min_share: Smallest share of a window that makes a class present, 0…1.
            min_coverage: Smallest share of a window that must be known, 0…1.
            band: Band with the classes, 1, 2, …; None: the only one.
            nodata: Values that mean unknown, in addition to the file's nodata.
            pattern: Pattern of the file names in folders.
            samples: Minimum number of points along each side of a window.

        Raises:
            LabelError: If a raster is missing, damaged, not georeferenced or has
                several bands, or the class map names unknown classes.
            SettingError: If a number is out of range.
        """
        check_share('min_share', min_share)
        check_share('min_coverage', min_coverage)
        if samples < 1:
            raise SettingError(
                f'samples={samples} is too small, expected 1 or more. Did you mean 1?'
            )
        values = as_class_map(class_map)
        skipped = {name_key(name) for name in ignore}
        kept = {v: name for v, name in values.items() if name_key(name) not in skipped}
        self.classes = check_classes(
            found_classes(kept.values()) if classes is None else classes
        )
        if not kept:
            raise SettingError(f'ignore={list(ignore)} leaves no class in class_map.')
        self.min_share, self.min_coverage = min_share, min_coverage
        self.samples, self.nodata = samples, tuple(nodata)
        self._mentioned = np.array(sorted(values), np.int64)
        self._codes = np.array(sorted(kept), np.int64)
        names = [kept[int(code)] for code in self._codes]
        self._targets = np.array(class_indices(names, self.classes, 'class_map'), int)
        self._mapped = np.isin(np.arange(len(self.classes)), self._targets)
        self.files = [read_header(path, band) for path in raster_paths(paths, pattern)]
        for file in self.files:
            check_nodata(file, values)
        warn_of_names(self.files, values)
        more = len(self.files) - 1
        self.path = self.files[0].path + (f' and {more:,} more' if more else '')
        #: The files where they are, in degrees also a full turn away.
        self._places = [place for file in self.files for place in file.turns()]
        self._bounds = np.stack([place.bounds() for place in self._places])
        self._reader = RasterReader(band or 1)

    def __len__(self) -> int:
        """Return the number of rasters."""
        return len(self.files)

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a window, or None if too little of it is known.

        Args:
            grid: The window.
            tile: Unused.
            clear: Pixels (H, W) of the window that are no cloud; the others do not
                count. None: all.

        Raises:
            LabelError: If the window has no CRS, or a raster is damaged.
        """
        shares, coverage = self.shares(grid, clear)
        if coverage <= 0 or coverage < self.min_coverage - ROUNDING:
            return None
        label = label_from_shares(shares, coverage, self.min_share, self.min_coverage)
        known = label.known & self._mapped
        return label._replace(known=known) if known.any() else None

    def shares(
        self, grid: Grid, clear: NDArray[np.bool_] | None = None
    ) -> tuple[Floats, float]:
        """Return the area shares of the classes in a window.

        Args:
            grid: The window.
            clear: Pixels (H, W) that count; None: all.

        Returns:
            Share of the window that each class covers (C,), and that is known, 0…1.
        """
        near = self._near(grid)
        density = max((overlap.density for overlap in near), default=1)
        points = self._points(grid, density)
        unknown = len(self.classes) + 1
        found = np.full(points.height * points.width, unknown)
        for file, *_ in near:
            blank = np.flatnonzero(found == unknown)
            if len(blank):
                values = self._reader.warped(file, points).ravel()
                found[blank] = self._classified(values[blank])
        if clear is not None:
            times = points.height // grid.height
            found = found[clear.repeat(times, 0).repeat(times, 1).ravel()]
        shares = np.bincount(found, minlength=unknown + 1) / found.size
        return shares[:-2], float(shares[:-1].sum())

    def _points(self, grid: Grid, density: float) -> Grid:
        """Return a window's grid, divided for *samples* and the rasters' density."""
        side = min(grid.height, grid.width)
        split = round(max(1, min(density, MOST_SAMPLES / side)))
        count = split * int(np.ceil(self.samples / side / split))
        transform = grid.transform @ Affine.scale(1 / count)
        return Grid(grid.height * count, grid.width * count, grid.crs, transform)

    def extents(self, grid: Grid) -> Floats:
        """Return the boxes of the rasters in a scene (LabelSource.extents)."""
        found = [np.zeros((0, 4))]
        for file, box, _ in self._near(grid):
            xy = transformed(_lattice(*box), file.crs, grid.crs)
            pixels = to_pixels(xy[np.isfinite(xy).all(axis=1)], grid.transform)
            if len(pixels):
                found.append(np.hstack([pixels.min(axis=0), pixels.max(axis=0)])[None])
        boxes = clipped_boxes(np.concatenate(found), grid)
        kept: Floats = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        return kept

    def unmapped(self, grid: Grid) -> Counter[int]:
        """Count pixels in a scene whose value is not in the class map.

        Args:
            grid: The scene.

        Returns:
            Value → number of pixels.

        Raises:
            LabelError: If a raster is damaged.
        """
        found: Counter[int] = Counter()
        for file, box, _ in self._near(grid):
            for values in self._reader.blocks(file, _window(file, box)):
                others = values.data[~self._unknown(values)]
                others = others[~np.isin(others, self._mentioned)]
                unique, counts = np.unique(others, return_counts=True)
                found.update(dict(zip(unique.tolist(), counts.tolist(), strict=True)))
        return found

    def _near(self, grid: Grid) -> list[Overlap]:
        """Return the rasters that may overlap a grid, in order."""
        inside: dict[Any, Floats] = {}
        near = []
        for file, bounds in zip(self._places, self._bounds, strict=True):
            if file.crs not in inside:
                inside[file.crs] = _bounds_in(grid, file.crs)
            other = inside[file.crs]
            low = np.maximum(bounds[:2], other[:2])
            high = np.minimum(bounds[2:], other[2:])
            if (low < high).all():
                box = np.concatenate([low, high])
                near.append(Overlap(file, box, _density(file, other, grid)))
        return near

    def _classified(self, values: Masked) -> NDArray[np.intp]:
        """Return class 0…C−1, C for values of no class, C + 1 for unknown ones."""
        plain = values.data
        position = np.searchsorted(self._codes, plain).clip(max=len(self._codes) - 1)
        of_class = self._codes[position] == plain
        found = np.where(of_class, self._targets[position], len(self.classes))
        found[self._unknown(values)] = len(self.classes) + 1
        return found

    def _unknown(self, values: Masked) -> NDArray[np.bool_]:
        """Return where values are unknown."""
        plain = values.data
        unknown: NDArray[np.bool_] = np.ma.getmaskarray(values).copy()
        unknown |= np.isin(plain, self.nodata) | ~np.isfinite(plain)
        return unknown


def _lattice(left: float, low: float, right: float, high: float) -> Floats:
    """Return 9 × 9 points (81, 2) of a box, its corners among them."""
    x, y = np.meshgrid(np.linspace(left, right, 9), np.linspace(low, high, 9))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _bounds_in(grid: Grid, crs: Any) -> Floats:
    """Return left, bottom, right, top of a grid in a CRS; NaN where not defined."""
    pixels = _lattice(0, 0, grid.width, grid.height)
    xy = transformed(from_pixels(pixels, grid.transform), grid.crs, crs)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return np.full(4, np.nan)
    return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def _density(file: RasterFile, bounds: Floats, grid: Grid) -> float:
    """Return how many pixels of a raster are along a pixel of a grid in *bounds*."""
    low, high = to_pixels(bounds.reshape(2, 2), file.grid.transform)
    sides: Floats = np.abs(high - low) / (grid.width, grid.height)
    return float(sides.max())


def _window(file: RasterFile, box: Floats) -> Window:
    """Return the window of a raster that covers a box of its CRS."""
    pixels = to_pixels(_lattice(*box), file.grid.transform)
    limits = (file.grid.width, file.grid.height)
    col, row = np.floor(pixels.min(axis=0)).clip(0, limits).astype(int).tolist()
    last_col, last_row = np.ceil(pixels.max(axis=0)).clip(0, limits).astype(int)
    return Window(row, col, int(last_row) - row, int(last_col) - col)
