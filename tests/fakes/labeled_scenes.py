"""Scenes with labels for tests: small grids anywhere on Earth, and a simple source."""

from collections.abc import Callable
from functools import cache

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS

from torchgeo_ctm.grids import Grid, Window
from torchgeo_ctm.labels import ImageLabel

Rule = Callable[[Grid], list[int] | None]


def grid_at(
    lon: float,
    lat: float,
    crs: str,
    size: tuple[int, int] = (600, 600),
    pixel: float = 10,
    turn: float = 0,
) -> Grid:
    """A grid of a CRS whose upper left corner lies at a place."""
    x, y = Transformer.from_crs('EPSG:4326', crs, always_xy=True).transform(lon, lat)
    transform = Affine.translation(x, y) @ Affine.rotation(turn)
    return Grid(*size, CRS.from_string(crs), transform @ Affine.scale(pixel, -pixel))


def footprint(grid: Grid, window: Window, onto: str) -> shapely.Polygon:
    """The ground of a window, with 20 corners along each edge, in another CRS."""
    along = np.linspace(0, 1, 20, endpoint=False)
    row = np.concatenate([0 * along, along, 1 + 0 * along, 1 - along])
    col = np.concatenate([along, 1 + 0 * along, 1 - along, 0 * along])
    x, y = grid.transform @ (
        window.col + col * window.width,
        window.row + row * window.height,
    )
    transformer = _transformer(grid.crs.to_wkt(), onto)
    return shapely.Polygon(np.column_stack(transformer.transform(x, y)))


@cache
def _transformer(start: str, onto: str) -> Transformer:
    return Transformer.from_crs(start, onto, always_xy=True)


class RuleLabels:
    """Labels that a function of the window's grid gives: presences, or None."""

    def __init__(
        self,
        classes: tuple[str, ...],
        rule: Rule,
        boxes: list[tuple[float, float, float, float]] | None = None,
    ) -> None:
        self.classes = classes
        self.rule = rule
        self.boxes = boxes
        self.asked: list[tuple[Grid, str | None]] = []

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        self.asked.append((grid, tile))
        present = self.rule(grid)
        if present is None:
            return None
        return ImageLabel(
            np.array(present, np.float32), np.ones(len(self.classes), bool)
        )

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        return None if self.boxes is None else np.array(self.boxes, float)
