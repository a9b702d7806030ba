"""Image-level labels from polygons, by the area that they cover."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import geometry_mask

from ..errors import LabelError, LabelWarning
from ..grids import Grid, to_pixels, usual_longitudes
from .features import FeatureLabels, Geometries, View, outline
from .source import ImageLabel, check_share, label_from_shares
from .vector_files import Features, FeatureSource, kept_rows, read_features

Floats = NDArray[np.float64]
#: Area, per area of the bounding box, below which a geometry is a line.
FLAT = 1e-12


class PolygonLabels(FeatureLabels):
    """Labels of windows from polygons that carry one class or several.

    A class is present if the union of its polygons covers *min_share* of the window,
    measured in the window's CRS. With ``complete=True`` the polygons name every class
    inside them. If they cover *min_coverage* of a window, classes that cover less than
    *min_share* of the covered part are absent. A class could then still be present in
    the rest of the window. With the default of half a window this is rare, and with
    ``min_coverage = 1 - min_share`` it is impossible. But then no class is absent in
    windows at the edge of the labeled area, or in maps with gaps such as roads.

    Tags of areas, such as squares, say that a class is somewhere inside. With
    ``whole=True`` a window has the classes of the one polygon that covers at least
    *min_coverage* of it. It has no label if there is none.
    """

    def __init__(
        self,
        path: FeatureSource,
        field: str,
        classes: Sequence[str] | None = None,
        *,
        layer: str | None = None,
        crs: Any = None,
        ignore: Sequence[str] = (),
        min_share: float = 0.1,
        min_coverage: float = 0.5,
        complete: bool | str = True,
        whole: bool = False,
    ) -> None:
        """Read the polygons.

        Args:
            path: Any vector file that geopandas reads; GeoParquet needs pyarrow. Or a
                ``geopandas.GeoDataFrame``.
            field: Attribute with the class or classes of each polygon: a name, a list,
                a JSON list, or names separated by '|', ';' or ','.
            classes: Names of the classes; None: those found, in alphabetical order.
                Case and blanks are ignored.
            layer: Layer of the file, if it has several.
            crs: CRS of the coordinates, if the file has none or a wrong one.
            ignore: Names to skip; a polygon with no other name is left out, as if it
                were not in the file.
            min_share: Smallest share of a window that makes a class present, 0…1.
            min_coverage: Smallest share of a window that polygons must cover for
                classes to be absent, 0…1.
            complete: Whether the polygons name all classes inside them; if not, classes
                that they do not name are unknown. Or the name of a boolean attribute
                that says it for each polygon.
            whole: Whether each polygon is an area that was tagged as a whole. Such
                polygons are about as large as a window, or larger. *min_share* has no
                meaning then.

        Raises:
            LabelError: If the file is missing, damaged, has no polygons or no CRS, or
                names unknown classes. The message names the row.
            SettingError: If a share is outside 0…1.
        """
        check_share('min_share', min_share)
        check_share('min_coverage', min_coverage)
        features = _polygons(read_features(path, field, layer, crs))
        super().__init__(features, field, classes, ignore)
        self.min_share, self.min_coverage = min_share, min_coverage
        self.complete, self.whole = complete, whole
        #: Whether each polygon names all classes inside it, (n,).
        self.names_all = np.full(len(self), complete is not False)
        if isinstance(complete, str):
            flagged = read_features(path, complete, layer, crs, 'complete')
            self.names_all = _flags(flagged, complete)
            self.names_all = self.names_all[self.rows - 1]

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a window, or None if nothing is known about it.

        Args:
            grid: The window.
            tile: Unused.
            clear: Pixels (H, W) of the window that are no cloud; the others do not
                count. None: all.

        Raises:
            LabelError: If the window has no CRS.
        """
        if self.whole:
            return self._tag(grid, clear)
        shares, coverage = self.shares(grid, clear)
        needed = self.min_coverage if self.complete else np.inf
        label = label_from_shares(shares, coverage, self.min_share, needed)
        return label if label.known.any() else None

    def _tag(
        self, grid: Grid, clear: NDArray[np.bool_] | None = None
    ) -> ImageLabel | None:
        """Return the classes of the polygon that covers a window, if one does."""
        area, pixels, members = self._areas(grid, clear)
        if area.max(initial=0) < self.min_coverage * pixels:
            return None
        *present, names_all = members[area.argmax()]
        return ImageLabel(np.array(present, np.float32), np.array(present) | names_all)

    def shares(
        self, grid: Grid, clear: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], float]:
        """Return the area shares of a window that polygons cover.

        Args:
            grid: The window.
            clear: Pixels (H, W) that count; None: all.

        Returns:
            Share of the window that each class covers (C,), and that polygons cover
            whose classes are all named, 0…1. Overlapping polygons count once.
        """
        area, pixels, members = self._areas(grid, clear)
        *shares, coverage = (area @ members / pixels).tolist()
        return np.array(shares), coverage

    def _areas(
        self, grid: Grid, clear: NDArray[np.bool_] | None
    ) -> tuple[Floats, int, NDArray[np.bool_]]:
        """Return area and classes of the polygons in a window, and its own area.

        The last column of the classes says whether they are all classes (C + 1).
        """
        view = self.view(grid.crs)
        grid = usual_longitudes(grid)
        found = np.sort(view.tree.query(outline(grid)))
        parts, members = view.parts[found], view.members[found]
        if clear is None:
            return clipped_areas(parts, grid), grid.height * grid.width, members
        return clear_pixels(parts, grid, clear), int(clear.sum()), members

    def _prepared(self, geometry: Geometries) -> View:
        """Return polygons with few vertices and no overlaps, so that areas add up.

        Polygons that were tagged as a whole stay as they are.
        """
        broken = ~shapely.is_valid(geometry)  # by rounding, when transformed
        geometry[broken] = shapely.make_valid(geometry[broken])
        members = np.column_stack([self.members, self.names_all])
        if self.whole:
            tree = shapely.STRtree(geometry)
            return View(geometry, geometry, members, tree)
        simple, owner = polygon_parts(geometry)
        apart, members = disjoint(simple, members[owner])
        parts, whole = subdivided(apart)
        return View(geometry, parts, members[whole], shapely.STRtree(parts))


def _flags(features: Features, field: str) -> NDArray[np.bool_]:
    """Return a boolean attribute (n,); nothing is false.

    Raises:
        LabelError: If a value is not a boolean.
    """
    values = [False if value is None else value for value in features.values]
    for row, value in zip(features.rows, values, strict=True):
        if value not in (0, 1):
            raise LabelError(
                f'{features.path}, row {row}: {field}={value!r}, expected true or false.'
            )
    return np.array(values, bool)


def _polygons(features: Features) -> Features:
    """Return the polygons of a file in two dimensions, valid and not empty."""
    geometry = features.geometry
    kept = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    features = kept_rows(features, kept, 'have no geometry')
    broken = np.flatnonzero(~shapely.is_valid(features.geometry))
    flat = shapely.force_2d(features.geometry)
    if len(broken):
        warnings.warn(
            f'{features.path}: {len(broken):,} of {len(flat):,} geometries were invalid '
            f'and repaired (first: row {features.rows[broken[0]]}: '
            f'{shapely.is_valid_reason(flat[broken[0]])}).',
            LabelWarning,
            stacklevel=3,
        )
        flat[broken] = shapely.make_valid(flat[broken])
    bounds = shapely.bounds(flat)
    box = (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])
    features = features._replace(geometry=flat)
    return kept_rows(
        features,
        shapely.area(flat) > FLAT * box,
        'have no area (use PointLabels for points, or buffer lines)',
    )


def clipped_areas(polygons: Geometries, grid: Grid) -> Floats:
    """Return the area of each polygon inside a window.

    Args:
        polygons: Polygons (n,).
        grid: The window, in the polygons' CRS.

    Returns:
        Areas (n,) in square pixels.
    """
    pixels = shapely.transform(polygons, lambda xy: to_pixels(xy, grid.transform))
    left, top, right, bottom = shapely.bounds(pixels).reshape(-1, 4).T
    cut = np.flatnonzero(
        (left < 0) | (top < 0) | (right > grid.width) | (bottom > grid.height)
    )
    window = shapely.box(0, 0, grid.width, grid.height)
    try:
        clipped = shapely.clip_by_rect(pixels[cut], *window.bounds)
        # GEOS 3.14 may return invalid polygons where holes touch the rectangle, as
        # those of vectorized masks do
        wrong = ~shapely.is_valid(clipped)
        clipped[wrong] = shapely.intersection(pixels[cut[wrong]], window)
    except shapely.errors.GEOSException:
        # or fail at slivers along its edge, as borders of tagged squares are
        clipped = shapely.intersection(shapely.make_valid(pixels[cut]), window)
    pixels[cut] = clipped
    area: Floats = shapely.area(pixels)
    return area


def clear_pixels(polygons: Geometries, grid: Grid, clear: NDArray[np.bool_]) -> Floats:
    """Return the number of clear pixels of a window in each polygon.

    Args:
        polygons: Polygons (n,), in their CRS.
        grid: The window, in the polygons' CRS.
        clear: Pixels (H, W) that count.

    Returns:
        Pixels (n,) whose center is inside.
    """
    counts = np.zeros(len(polygons))
    for number, polygon in enumerate(polygons):
        inside = geometry_mask([polygon], clear.shape, grid.transform, invert=True)
        counts[number] = (inside & clear).sum()
    return counts


def disjoint(
    polygons: Geometries, members: NDArray[np.bool_]
) -> tuple[Geometries, NDArray[np.bool_]]:
    """Split overlapping polygons along each other's outlines.

    The results do not overlap, and each has the classes of all the polygons that cover
    it. Polygons that only share borders stay as they are.

    Args:
        polygons: Polygons (n,).
        members: Classes of each, (n, C) bool.

    Returns:
        Polygons (m,) and the classes of each (m, C).
    """
    shared = _overlapping(polygons)
    if not shared.any():
        return polygons, members
    crowd = polygons[shared]
    outlines = shapely.union_all(shapely.boundary(crowd))
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(outlines)))
    tree = shapely.STRtree(shapely.point_on_surface(faces))
    polygon, face = tree.query(crowd, predicate='contains')
    classes = np.zeros((len(faces), members.shape[1]), bool)
    np.logical_or.at(classes, face, members[shared][polygon])
    covered = np.bincount(face, minlength=len(faces)) > 0
    return (
        np.concatenate([polygons[~shared], faces[covered]]),
        np.concatenate([members[~shared], classes[covered]]),
    )


def _overlapping(polygons: Geometries) -> NDArray[np.bool_]:
    """Return which polygons (n,) overlap another; shared borders do not count."""
    shared = np.zeros(len(polygons), bool)
    tree = shapely.STRtree(polygons)
    first, second = tree.query(polygons, predicate='intersects')
    pair = first < second
    first, second = first[pair], second[pair]
    overlap = shapely.relate_pattern(polygons[first], polygons[second], 'T********')
    shared[first[overlap]] = True
    shared[second[overlap]] = True
    return shared


def subdivided(
    polygons: Geometries, largest: int = 256
) -> tuple[Geometries, NDArray[np.intp]]:
    """Split polygons with many vertices, so that a window meets few vertices.

    The parts of a polygon do not overlap, and together cover the same area.

    Args:
        polygons: Polygons (n,).
        largest: Maximum number of vertices of a part.

    Returns:
        Parts (m,), and the position in *polygons* that each comes from (m,).
    """
    owner = np.arange(len(polygons))
    parts, owners = [polygons[:0]], [owner[:0]]
    for _ in range(24):  # enough for any outline; an endless loop is impossible
        large = shapely.get_num_coordinates(polygons) > largest
        parts.append(polygons[~large])
        owners.append(owner[~large])
        polygons, owner = polygons[large], owner[large]
        if not len(polygons):
            break
        halves = shapely.intersection(polygons, _halves(shapely.bounds(polygons)))
        polygons, kept = polygon_parts(halves.ravel())
        owner = np.tile(owner, 2)[kept]
    return np.concatenate([*parts, polygons]), np.concatenate([*owners, owner])


def _halves(bounds: Floats) -> Geometries:
    """Return both halves (2, n) of boxes (n, 4), split across the longer side."""
    left, bottom, right, top = bounds.T
    wide = right - left > top - bottom
    x, y = np.where(wide, (left + right) / 2, right), (bottom + top) / 2
    first = shapely.box(left, bottom, x, np.where(wide, top, y))
    second = shapely.box(np.where(wide, x, left), np.where(wide, bottom, y), right, top)
    return np.stack([first, second])


def polygon_parts(geometries: Geometries) -> tuple[Geometries, NDArray[np.intp]]:
    """Return the polygons in geometries (n,), and the position of their geometry."""
    owner = np.arange(len(geometries))
    # twice, because make_valid returns collections that contain multipolygons
    for _ in range(2):
        geometries, inside = shapely.get_parts(geometries, return_index=True)
        owner = owner[inside]
    kept = shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON
    kept &= ~shapely.is_empty(geometries)
    return geometries[kept], owner[kept]
