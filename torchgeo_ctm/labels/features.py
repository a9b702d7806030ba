"""What labels from points and labels from polygons share: features on the ground."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning
from ..grids import Grid
from .class_names import Memberships, memberships
from .places import (
    clipped_boxes,
    moved_and_back,
    outline,
    pyproj_crs,
    same_crs,
    straight,
    to_pixels,
)
from .source import ImageLabel
from .vector_files import Features, kept_rows

Geometries = NDArray[np.object_]
#: Degrees of longitude; a wider feature may fold over itself in another CRS.
WIDE = 90


class View(NamedTuple):
    """Features as they lie in one CRS."""

    #: The features (n,).
    whole: Geometries
    #: Simple geometries (m,) that the features consist of.
    parts: Geometries
    #: Classes on each part (m, C) bool.
    members: NDArray[np.bool_]
    #: Index of the parts' bounding boxes.
    tree: Any


class FeatureLabels:
    """Base class of labels from features; see PointLabels and PolygonLabels.

    Features are moved to a window's CRS once for each CRS and process.
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        features: Features,
        field: str,
        classes: Sequence[str] | None,
        ignore: Sequence[str],
    ) -> None:
        """Read the classes of features whose geometries are in order.

        Raises:
            LabelError: If a class is unknown or no feature is left.
        """
        self.path, self.crs = features.path, features.crs
        where = f'{features.path}, field {field!r}'
        named = memberships(features.values, features.rows, classes, ignore, where)
        self.classes = named.classes
        features = kept_rows(features, named.stated, f'name no class in {field!r}')
        left = named.ignored[named.stated]
        if left.all():
            raise LabelError(
                f'{where}: all {len(left):,} features name ignored classes only; '
                'needed: at least one that does not'
            )
        self.geometry: Geometries = features.geometry[~left]
        self.members: NDArray[np.bool_] = _members(named)
        self._views: list[tuple[Any, View]] = []
        self._latest: tuple[Any, View] | None = None

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self.geometry)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what each process makes for itself."""
        return self.__dict__ | {'_views': [], '_latest': None}

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a window (LabelSource.label)."""
        raise NotImplementedError

    def _prepared(self, geometry: Geometries) -> View:
        """Return geometries (n,) of a window's CRS, made ready to be asked."""
        raise NotImplementedError

    def view(self, crs: Any) -> View:
        """Return the features in a CRS.

        Raises:
            LabelError: If *crs* is None.
        """
        if self._latest is not None and self._latest[0] is crs:
            return self._latest[1]
        view = next((v for known, v in self._views if same_crs(known, crs)), None)
        if view is None:
            view = self._prepared(self._moved(crs))
            self._views.append((crs, view))
        self._latest = (crs, view)
        return view

    def _moved(self, crs: Any) -> Geometries:
        """Return the features' geometries in a CRS, empty where it is not defined."""
        if same_crs(self.crs, crs):
            return self.geometry.copy()
        geometry = shapely.segmentize(self.geometry, straight(self.crs))
        xy, owner = shapely.get_coordinates(geometry, return_index=True)
        there, defined = moved_and_back(xy, self.crs, crs)
        if self.crs.is_geographic:
            bounds = shapely.bounds(geometry)
            defined &= (bounds[:, 2] - bounds[:, 0] <= WIDE)[owner]
        moved: Geometries = shapely.set_coordinates(geometry, there)
        beyond = np.bincount(owner[~defined], minlength=len(moved)) > 0
        if beyond.any():
            warnings.warn(
                f'{self.path}: {beyond.sum():,} of {len(moved):,} features '
                f'reach beyond where {pyproj_crs(crs).name} is defined and are left '
                "out there; needed: features cut to the scenes' surroundings",
                LabelWarning,
                stacklevel=4,
            )
        moved[beyond] = shapely.GeometryCollection()
        return moved

    def touching(self, grid: Grid) -> NDArray[np.intp]:
        """Return the positions of the features that touch a grid's ground."""
        ground = outline(grid)
        shapely.prepare(ground)
        return np.flatnonzero(shapely.intersects(ground, self.view(grid.crs).whole))

    def extents(self, grid: Grid) -> NDArray[np.float64]:
        """Return the boxes of the features in a scene (LabelSource.extents).

        A point's box has no size. What reaches out of the scene is cut off.
        """
        view = self.view(grid.crs)
        parts = view.parts[view.tree.query(outline(grid), predicate='intersects')]
        pixels = shapely.transform(parts, lambda xy: to_pixels(xy, grid.transform))
        return clipped_boxes(shapely.bounds(pixels).reshape(-1, 4), grid)

    def swapped(self) -> Self:
        """Return the same features with x and y exchanged, as mistakes have it."""
        other = copy.copy(self)
        other.geometry = shapely.transform(self.geometry, lambda xy: xy[:, ::-1])
        other._views, other._latest = [], None
        return other


def _members(named: Memberships) -> NDArray[np.bool_]:
    """Return who names what, of the features that are kept."""
    return named.members[named.stated & ~named.ignored]
