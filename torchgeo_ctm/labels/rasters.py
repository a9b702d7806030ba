"""Image labels from a map of classes: the classes that cover enough of a window."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingError
from ..grids import Grid
from .class_names import check_classes, found_classes
from .legends import legend
from .places import clipped_boxes, corners, moved, to_ground, to_pixels
from .raster_files import (
    OpenRasters,
    RasterFile,
    check_nodata,
    raster_paths,
    read_header,
)
from .raster_grids import TOUCH, apart, box_in, outline_in, overlaps, parallel, spread
from .source import ImageLabel, check_share, class_indices, class_key, label_from_shares

Floats = NDArray[np.float64]


class RasterLabels:
    """Labels of windows from one or many rasters of classes, of any resolution.

    Nothing is resampled. Where the rasters lie in the window's CRS with parallel axes,
    areas are exact: every pixel counts with the part of it that lies inside. Elsewhere
    *samples* × *samples* points spread evenly over the window are looked up, each in
    the pixel that it falls into. Where rasters overlap, the first in order that knows
    a point counts.

    Values outside the class map count in the area but are no class. Nodata, and ground
    outside the rasters, is unknown, and so is every class that the map does not have.
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
                Or a well-known legend: worldcover, igbp, igbp-simplified.
            classes: Names of the classes; None: the class map's, in its order.
            ignore: Names of the class map that are no class here.
            min_share: Smallest share of a window that makes a class present, 0…1.
            min_coverage: Smallest share of a window that must be known, 0…1.
            band: Band with the classes, 1, 2, …; None: the only one.
            nodata: Values that mean unknown, besides the one that a file names.
            pattern: Which files of a folder are rasters of classes.
            samples: Points along each side of a window that is looked up by points.

        Raises:
            LabelError: If a raster is missing, damaged, not georeferenced or of several
                bands, or the class map names unknown classes.
            SettingError: If a number is outside its range.
        """
        check_share('min_share', min_share)
        check_share('min_coverage', min_coverage)
        if samples < 1:
            raise SettingError(f'samples={samples}; needed: 1 or more; nearest: 1')
        values = legend(class_map)
        skipped = {class_key(name) for name in ignore}
        kept = {v: name for v, name in values.items() if class_key(name) not in skipped}
        self.classes = check_classes(
            found_classes(kept.values()) if classes is None else classes
        )
        self.min_share, self.min_coverage = min_share, min_coverage
        self.samples, self.nodata = samples, tuple(nodata)
        if not kept:
            raise SettingError(f'ignore={list(ignore)} leaves nothing of class_map')
        self._mentioned = np.array(sorted(values), np.int64)
        self._codes = np.array(sorted(kept), np.int64)
        names = [kept[int(code)] for code in self._codes]
        self._targets = np.array(class_indices(names, self.classes, 'class_map'), int)
        self._mapped = np.isin(np.arange(len(self.classes)), self._targets)
        self.files = [read_header(path, band) for path in raster_paths(paths, pattern)]
        for file in self.files:
            check_nodata(file, values)
        more = len(self.files) - 1
        self.path = self.files[0].path + (f' and {more:,} more' if more else '')
        self._bounds = np.stack([file.bounds() for file in self.files])
        self._groups = _by_crs(self.files)
        self._open = OpenRasters(band or 1)

    def __len__(self) -> int:
        """Return the number of rasters."""
        return len(self.files)

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a window, None where too little of it is known.

        Raises:
            LabelError: If the window has no CRS, or a raster is damaged.
        """
        shares, coverage = self.shares(grid)
        if coverage <= 0 or coverage < self.min_coverage - TOUCH:
            return None
        label = label_from_shares(shares, coverage, self.min_share, self.min_coverage)
        known = label.known & self._mapped
        return label._replace(known=known) if known.any() else None

    def shares(self, grid: Grid) -> tuple[Floats, float]:
        """Return how much of a window each class covers.

        Args:
            grid: The window.

        Returns:
            Share of the window that each class covers (C,), and that is known, 0…1.
        """
        near = self._near(grid)
        exact = all(parallel(file, grid) for file in near) and apart(near, grid)
        totals = (self._areas if exact else self._points)(grid, near)
        return totals[:-2], float(totals[:-1].sum())

    def extents(self, grid: Grid) -> Floats:
        """Return the boxes of the rasters in a scene (LabelSource.extents)."""
        boxes = np.array([box_in(file, grid) for file in self._near(grid)])
        boxes = clipped_boxes(boxes.reshape(-1, 4), grid)
        kept: Floats = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        return kept

    def unmapped(self, grid: Grid) -> Counter[int]:
        """Count pixels around a scene whose value the class map does not mention.

        Args:
            grid: The scene.

        Returns:
            Value → number of pixels.

        Raises:
            LabelError: If a raster is damaged.
        """
        found: Counter[int] = Counter()
        for file in self._near(grid):
            box = to_pixels(outline_in(grid, file.crs), file.grid.transform)
            limits = (file.grid.width, file.grid.height)
            left, top = np.floor(box.min(axis=0)).clip(0, limits).astype(int).tolist()
            right, bottom = (
                np.ceil(box.max(axis=0)).clip(0, limits).astype(int).tolist()
            )
            for _, values in self._open.blocks(file, (top, bottom), (left, right)):
                others = values.data[~self._unknown(values)]
                others = others[~np.isin(others, self._mentioned)]
                unique, counts = np.unique(others, return_counts=True)
                found.update(dict(zip(unique.tolist(), counts.tolist(), strict=True)))
        return found

    def _near(self, grid: Grid) -> list[RasterFile]:
        """Return the rasters that may reach into a window, in order."""
        near: list[int] = []
        for crs, members in self._groups.items():
            xy = outline_in(grid, crs)
            if not len(xy):
                continue
            low, high = xy.min(axis=0), xy.max(axis=0)
            bounds = self._bounds[members]
            touching = (bounds[:, :2] < high) & (bounds[:, 2:] > low)
            near += members[touching.all(axis=1)].tolist()
        return [self.files[index] for index in sorted(near)]

    def _areas(self, grid: Grid, files: Sequence[RasterFile]) -> Floats:
        """Return the share of a window of each class, of none, and unknown (C + 2,)."""
        totals = np.zeros(len(self.classes) + 2)
        for file in files:
            box = to_pixels(corners(grid), file.grid.transform)
            (left, top), (right, bottom) = box.min(axis=0), box.max(axis=0)
            cols, col_weights = overlaps(left, right, file.grid.width)
            rows, row_weights = overlaps(top, bottom, file.grid.height)
            for row, values in self._open.blocks(file, rows, cols):
                inside = row_weights[row - rows[0] :][: len(values)]
                weights = (
                    np.outer(inside, col_weights) / (right - left) / (bottom - top)
                )
                found = self._classified(values)
                totals += np.bincount(found.ravel(), weights.ravel(), len(totals))
        return totals

    def _points(self, grid: Grid, files: Sequence[RasterFile]) -> Floats:
        """Return what :meth:`_areas` does, by points spread over the window."""
        unknown = len(self.classes) + 1
        xy = to_ground(spread(grid, self.samples), grid.transform)
        found = np.full(len(xy), unknown)
        for file in files:
            open_points = np.flatnonzero(found == unknown)
            if not len(open_points):
                break
            ground = moved(xy[open_points], grid.crs, file.crs)
            pixels = np.floor(to_pixels(ground, file.grid.transform))
            limits = (file.grid.width, file.grid.height)
            inside = ((pixels >= 0) & (pixels < limits)).all(axis=1)
            if inside.any():
                cells = pixels[inside].astype(np.intp)
                found[open_points[inside]] = self._looked_up(file, cells)
        return np.bincount(found, minlength=unknown + 1) / len(xy)

    def _looked_up(self, file: RasterFile, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the class at columns and rows (n, 2) of a raster."""
        found = np.empty(len(cells), np.intp)
        (left, top), (right, bottom) = cells.min(axis=0), cells.max(axis=0) + 1
        for row, values in self._open.blocks(file, (top, bottom), (left, right)):
            here = (cells[:, 1] >= row) & (cells[:, 1] < row + len(values))
            col, line = (cells[here] - (left, row)).T
            found[here] = self._classified(values[line, col])
        return found

    def _classified(self, values: np.ma.MaskedArray[Any, Any]) -> NDArray[np.intp]:
        """Return class 0…C−1, C for values of no class, C + 1 for unknown ones."""
        plain = values.data
        position = np.searchsorted(self._codes, plain).clip(max=len(self._codes) - 1)
        of_class = self._codes[position] == plain
        found = np.where(of_class, self._targets[position], len(self.classes))
        found[self._unknown(values)] = len(self.classes) + 1
        return found

    def _unknown(self, values: np.ma.MaskedArray[Any, Any]) -> NDArray[np.bool_]:
        """Return which values mean that nothing is known."""
        plain = values.data
        unknown: NDArray[np.bool_] = np.ma.getmaskarray(values).copy()
        unknown |= np.isin(plain, self.nodata) | ~np.isfinite(plain)
        return unknown


def _by_crs(files: Sequence[RasterFile]) -> dict[Any, NDArray[np.intp]]:
    """Return the positions of the rasters of each CRS."""
    groups: dict[Any, list[int]] = {}
    for index, file in enumerate(files):
        groups.setdefault(file.crs, []).append(index)
    return {crs: np.array(members) for crs, members in groups.items()}
