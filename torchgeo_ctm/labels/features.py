"""Base of labels from vector features, in the CRS of a window."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning
from ..grids import Grid, clipped_boxes, corners, to_pixels, usual_longitudes
from .class_names import memberships
from .crs import pyproj_crs, same_crs
from .source import ImageLabel
from .vector_files import Features, kept_rows

Floats = NDArray[np.float64]
Geometries = NDArray[np.object_]
#: Longitude beyond which a feature also counts on the other side of the date line.
NEAR_DATE_LINE = 170
#: Degrees of longitude; a wider feature may fold over itself in another CRS.
WIDE = 90


class View(NamedTuple):
    """Features in the CRS of a window."""

    #: The features (n,).
    whole: Geometries
    #: Simple geometries (m,) that the features consist of.
    parts: Geometries
    #: Classes of each part (m, C) bool.
    members: NDArray[np.bool_]
    #: Spatial index of the parts.
    tree: Any


class FeatureLabels:
    """Base class of labels from features; see PointLabels and PolygonLabels.

    Features are transformed once for each CRS and process.
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        features: Features,
        field: str,
        classes: Sequence[str] | None,
        ignore: Sequence[str],
    ) -> None:
        """Read the classes of features whose geometries were checked.

        Raises:
            LabelError: If a class is unknown or no feature is left.
        """
        self.path, self.crs = features.path, features.crs
        where = f'{features.path}, field {field!r}'
        named = memberships(features.values, features.rows, classes, ignore, where)
        self.classes = named.classes
        features = kept_rows(features, named.stated, f'name no class in {field!r}')
        kept = ~named.ignored[named.stated]
        if not kept.any():
            raise LabelError(
                f'{where}: all {len(kept):,} features name ignored classes only, '
                'expected at least one that does not.'
            )
        self.geometry: Geometries = features.geometry[kept]
        #: Row of each feature in its file, from 1.
        self.rows = features.rows[kept]
        self.members: NDArray[np.bool_] = named.members[named.stated][kept]
        self._views: list[tuple[Any, View]] = []

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self.geometry)

    def __getstate__(self) -> dict[str, Any]:
        """Drop what each process computes for itself."""
        return self.__dict__ | {'_views': []}

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a window (LabelSource.label)."""
        raise NotImplementedError

    def _prepared(self, geometry: Geometries) -> View:
        """Return geometries (n,) in the CRS of a window, prepared for queries."""
        raise NotImplementedError

    def view(self, crs: Any) -> View:
        """Return the features in a CRS.

        Raises:
            LabelError: If *crs* is None.
        """
        for known, view in self._views:
            if known is crs or same_crs(known, crs):
                return view
        geometry = self._transformed(crs)
        if pyproj_crs(crs).is_geographic:
            geometry = _usual(geometry)
        view = self._prepared(geometry)
        self._views.append((crs, view))
        return view

    def _transformed(self, crs: Any) -> Geometries:
        """Return the features' geometries in a CRS, empty where it is not defined."""
        if same_crs(self.crs, crs):
            return self.geometry.copy()
        series = gpd.GeoSeries(self.geometry, crs=self.crs)
        series = series.segmentize(_longest_edge(self.crs))
        moved = series.to_crs(pyproj_crs(crs))
        beyond = _folded(series, moved.to_crs(self.crs))
        if self.crs.is_geographic:
            bounds = series.bounds.to_numpy()
            beyond |= bounds[:, 2] - bounds[:, 0] > WIDE
        if beyond.any():
            warnings.warn(
                f'{self.path}: {beyond.sum():,} of {len(moved):,} features reach beyond '
                f'the area of {pyproj_crs(crs).name} and are left out there. Clip them '
                'to the surroundings of the scenes to use them.',
                LabelWarning,
                stacklevel=4,
            )
        geometry: Geometries = np.array(moved.array, dtype=object)
        geometry[beyond] = shapely.GeometryCollection()
        return geometry

    def touching(self, grid: Grid) -> NDArray[np.intp]:
        """Return the positions of the features that touch a grid."""
        ground = outline(usual_longitudes(grid))
        shapely.prepare(ground)
        return np.flatnonzero(shapely.intersects(ground, self.view(grid.crs).whole))

    def extents(self, grid: Grid) -> Floats:
        """Return the boxes of the features in a scene (LabelSource.extents).

        A point's box has no size. Boxes are clipped to the scene.
        """
        view, grid = self.view(grid.crs), usual_longitudes(grid)
        parts = view.parts[view.tree.query(outline(grid), predicate='intersects')]
        pixels = shapely.transform(parts, lambda xy: to_pixels(xy, grid.transform))
        return clipped_boxes(shapely.bounds(pixels).reshape(-1, 4), grid)

    def swapped(self) -> Self:
        """Return a copy with x and y swapped, to detect swapped input."""
        return self._changed(lambda xy: xy[:, ::-1])

    def mirrored(self, x: int, y: int) -> Self:
        """Return a copy with coordinates multiplied, to detect a lost sign."""
        return self._changed(lambda xy: xy * (x, y))

    def _changed(self, change: Callable[[Floats], Floats]) -> Self:
        """Return a copy with other coordinates (n, 2)."""
        other = copy.copy(self)
        other.geometry = shapely.transform(self.geometry, change)
        other._views = []
        return other


def outline(grid: Grid) -> Any:
    """Return the outline of a grid as a polygon in its CRS."""
    return shapely.Polygon(corners(grid))


def _usual(geometry: Geometries) -> Geometries:
    """Return geometries at -180 to 180 degrees; near the date line on both sides."""
    moved = geometry.copy()
    middle = np.nan_to_num(shapely.bounds(geometry)[:, [0, 2]].mean(axis=1))
    for turn, beyond in ((-360, middle > 180), (360, middle < -180)):
        moved[beyond] = _turned(moved[beyond], turn)
    west, east = np.nan_to_num(shapely.bounds(moved)[:, [0, 2]]).T
    for turn, near in ((-360, east > NEAR_DATE_LINE), (360, west < -NEAR_DATE_LINE)):
        moved[near] = shapely.union(moved[near], _turned(moved[near], turn))
    return moved


def _turned(geometry: Geometries, turn: float) -> Geometries:
    """Return geometries moved by some degrees of longitude."""
    moved: Geometries = shapely.transform(
        geometry, lambda xy: xy + np.array([turn, 0.0])
    )
    return moved


def _longest_edge(crs: pyproj.CRS) -> float:
    """Return the maximum segment length in a CRS before it is transformed: 5 km.

    Edges are straight in the CRS of their file. With a vertex every 5 km, a parallel of
    latitude is at most half a meter off; without, a country's border is off by km.
    """
    if crs.is_geographic:
        return 0.05
    return 5000 / float(crs.axis_info[0].unit_conversion_factor)


def _folded(original: gpd.GeoSeries, back: gpd.GeoSeries) -> NDArray[np.bool_]:
    """Return which features (n,) a projection does not reproduce.

    Far outside its area a projection may fold the globe. Coordinates look right, but
    are more than a meter away when they are transformed there and back.
    """
    xy, owner = shapely.get_coordinates(original.array, return_index=True)
    off = np.abs(shapely.get_coordinates(back.array) - xy)
    degrees = original.crs.is_geographic
    if degrees:
        off[:, 0] = np.minimum(off[:, 0], np.abs(off[:, 0] - 360))
    near = (off < (1e-5 if degrees else 1.0)).all(axis=1)  # not so for infinity and NaN
    return np.bincount(owner[~near], minlength=len(original)) > 0
