"""Image labels from polygons: the classes that cover enough of a window."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LabelWarning
from ..grids import Grid
from .clipped_areas import clipped_areas, disjoint, polygon_parts, subdivided
from .features import FeatureLabels, Geometries, View
from .places import outline
from .source import ImageLabel, check_share, label_from_shares
from .vector_files import Features, kept_rows, read_features

#: Area, per area of the bounding box, below which a geometry is a line.
FLAT = 1e-12


class PolygonLabels(FeatureLabels):
    """Labels of windows from polygons that carry one class or several.

    A class is present where the union of its polygons covers *min_share* of the window,
    measured in the window's CRS. With ``complete=True`` the polygons tell everything
    about their ground: where they cover *min_coverage* of a window, classes that stay
    below *min_share* of what is covered are absent. Half a window, the default, is
    enough for what a class that covers a tenth of it rarely hides from; with
    ``min_coverage = 1 - min_share`` it cannot hide, but windows at the edge of the
    labelled ground and maps with gaps (roads, for example) then tell no absence.
    """

    def __init__(
        self,
        path: str | Path,
        field: str,
        classes: Sequence[str] | None = None,
        *,
        layer: str | None = None,
        crs: Any = None,
        ignore: Sequence[str] = (),
        min_share: float = 0.1,
        min_coverage: float = 0.5,
        complete: bool = True,
    ) -> None:
        """Read the polygons.

        Args:
            path: Any vector file that geopandas reads; GeoParquet needs pyarrow.
            field: Attribute with the class of each polygon, or its classes: a list, a
                JSON list, or names with '|', ';' or ',' between them.
            classes: Names of the classes; None: those found, in alphabetical order.
                Case and blanks make no difference.
            layer: Layer of the file, where it has several.
            crs: CRS of the coordinates, where the file names none or a wrong one.
            ignore: Names that are skipped; a polygon with no other name is left out,
                as if it were not in the file.
            min_share: Smallest share of a window that makes a class present, 0…1.
            min_coverage: Smallest share of a window that polygons must cover before
                absence is known, 0…1.
            complete: Whether the polygons name all classes on their ground; if not,
                classes that they do not name are unknown.

        Raises:
            LabelError: If the file is missing, damaged, has no polygons or no CRS, or
                names unknown classes; the message says which row.
            SettingError: If a share is outside 0…1.
        """
        check_share('min_share', min_share)
        check_share('min_coverage', min_coverage)
        features = _polygons(read_features(path, field, layer, crs))
        super().__init__(features, field, classes, ignore)
        self.min_share, self.min_coverage = min_share, min_coverage
        self.complete = complete

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a window, None where nothing is known of it.

        Raises:
            LabelError: If the window has no CRS.
        """
        shares, coverage = self.shares(grid)
        needed = self.min_coverage if self.complete else np.inf
        label = label_from_shares(shares, coverage, self.min_share, needed)
        return label if label.known.any() else None

    def shares(self, grid: Grid) -> tuple[NDArray[np.float64], float]:
        """Return how much of a window polygons cover.

        Args:
            grid: The window.

        Returns:
            Share of the window that each class covers (C,), and that any polygon
            covers, 0…1; ground under several polygons counts once.
        """
        view = self.view(grid.crs)
        found = np.sort(view.tree.query(outline(grid)))
        area = clipped_areas(view.parts[found], grid)
        pixels = grid.height * grid.width
        return area @ view.members[found] / pixels, float(area.sum()) / pixels

    def _prepared(self, geometry: Geometries) -> View:
        """Return polygons of few corners that do not overlap, so that areas add up."""
        broken = ~shapely.is_valid(geometry)  # by rounding, after they were moved
        geometry[broken] = shapely.make_valid(geometry[broken])
        simple, owner = polygon_parts(geometry)
        apart, members = disjoint(simple, self.members[owner])
        parts, whole = subdivided(apart)
        parts = shapely.normalize(parts)
        return View(geometry, parts, members[whole], shapely.STRtree(parts))


def _polygons(features: Features) -> Features:
    """Return the polygons of a file in two dimensions, repaired, without empty ones."""
    kept = ~(
        shapely.is_missing(features.geometry) | shapely.is_empty(features.geometry)
    )
    features = kept_rows(features, kept, 'have no geometry')
    broken = np.flatnonzero(~shapely.is_valid(features.geometry))
    flat = shapely.force_2d(features.geometry)
    if len(broken):
        warnings.warn(
            f'{features.path}: {len(broken):,} of {len(flat):,} geometries were invalid '
            f'and repaired (first: row {features.rows[broken[0]]}: '
            f'{shapely.is_valid_reason(flat[broken[0]])})',
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
        'have no area; nearest: PointLabels for points, a buffer around lines',
    )
