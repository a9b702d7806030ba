"""Hectares of each class, in the whole map and in zones."""

import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..errors import LabelError, LabelWarning, OutputError, did_you_mean
from ..files import atomic_path, check_file
from ..grids import from_pixels
from ..inference.areas import PixelAreas
from ..inference.masks import open_confidence, open_mask, read_rows
from ..scenes.polygon_file import read_polygons
from .strata import class_bands, strata_of

#: Libraries that write a table.
WRITERS = {'.csv': 'pandas', '.xlsx': 'openpyxl', '.parquet': 'pyarrow'}


def check_table(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a table can be written, before any work is done.

    Raises:
        OutputError: If the suffix is wrong or its library missing, or the file cannot
            be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise OutputError(
            f'{path} is not a table, expected {", ".join(WRITERS)}. Did you mean '
            f'{str(path.with_suffix(".csv"))!r}?'
        )
    if find_spec(WRITERS[suffix]) is None:
        raise OutputError(
            f'{path} requires {WRITERS[suffix]}: pip install {WRITERS[suffix]}. Or write '
            f'{path.with_suffix(".csv")}.'
        )
    return check_file(path, overwrite)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table, complete or not at all."""
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix == '.csv':
            table.to_csv(temporary, index=False, lineterminator='\n')
        elif suffix == '.xlsx':
            with pd.ExcelWriter(temporary, engine='openpyxl') as book:
                table.to_excel(book, index=False)
        else:
            table.to_parquet(temporary, index=False)


def class_table(
    mask: str | Path,
    *,
    zones: str | Path | None = None,
    field: str | None = None,
    confidence: str | Path | None = None,
) -> pd.DataFrame:
    """Measure the classes of a map on the ellipsoid.

    A pixel belongs to the zones that its center lies in.

    Args:
        mask: Class raster.
        zones: Polygons, in any CRS; None: the whole map.
        field: Column with the names of the zones; None: the first text column.
        confidence: Confidence raster in percent, on the same grid.

    Returns:
        A row for each zone and class: ``zone`` (with zones; ``Wald (row 3)`` where
        several have one name), ``class``, ``name``,
        ``pixels``, ``hectares``, ``share`` of the zone's mapped hectares; with
        confidence also ``confidence``, the mean in percent, and ``hectares_weighted``,
        hectares times confidence.

    Raises:
        SceneError: If a raster cannot be read.
        GridError: If the map has no CRS, or the grids differ.
        LabelError: If the zones cannot be read, or none lies in the map.
    """
    strata = strata_of(mask)
    with open_mask(mask) as raster:
        areas = PixelAreas(raster)
        percent = None if confidence is None else open_confidence(confidence, raster)
        found = _Zones.whole()
        inside = np.zeros(1, bool)
        if zones is not None:
            crs = pyproj.CRS.from_user_input(raster.crs)
            names, shapes = read_zones(Path(zones), field, crs)
            found = _Zones(names, shapes)
            inside = _warn(found, shapes, raster, str(zones))
        classes = len(strata.names)
        sums = np.zeros((4, len(found.names) * classes))
        for row, values in class_bands(raster):
            known = values >= 0
            hectares = areas.rows(row, row + len(values))
            weights = [None, hectares]
            if percent is not None:
                right = read_rows(percent, row, len(values)).astype(float)
                seen = right != percent.nodata
                weights += [hectares * seen, hectares * np.where(seen, right, 0)]
            for layer in found.burnt(row, values.shape, raster.transform):
                here = known & (layer >= 0)
                index = layer[here] * classes
                index += np.searchsorted(strata.values, values[here])
                for number, weight in enumerate(weights):
                    sums[number] += np.bincount(
                        index, None if weight is None else weight[here], sums.shape[1]
                    )
        if percent is not None:
            percent.close()
    _warn_of_empty(found, inside, sums[0], str(zones))
    return _table(sums, found, strata.names, strata.values, percent is not None)


class _Zones:
    """Zones in the CRS of a map, in layers of which none overlaps itself."""

    def __init__(self, names: list[str], shapes: NDArray[Any] | None) -> None:
        self.names = names
        self.named = shapes is not None
        self._shapes = np.empty(0, object) if shapes is None else shapes
        self.layers = np.zeros(len(self._shapes), int)
        tree = shapely.STRtree(self._shapes)
        pairs = tree.query(self._shapes, predicate='intersects')
        one, other = pairs[:, pairs[0] > pairs[1]]
        shared = shapely.area(
            shapely.intersection(self._shapes[one], self._shapes[other])
        )
        # slivers of neighbors that were drawn twice are no overlap
        smaller = np.minimum(
            shapely.area(self._shapes[one]), shapely.area(self._shapes[other])
        )
        overlap = shared > 1e-6 * smaller
        self.overlaps = np.stack([one, other], axis=1)[overlap]
        for index in range(len(self._shapes)):
            mine = self.overlaps[self.overlaps[:, 0] == index, 1]
            taken = set(self.layers[mine].tolist())
            self.layers[index] = min(set(range(len(taken) + 1)) - taken)

    @classmethod
    def whole(cls) -> '_Zones':
        """Return one zone: the whole map."""
        return cls([''], None)

    def burnt(
        self, row: int, shape: tuple[int, ...], transform: Affine
    ) -> list[NDArray[np.int64]]:
        """Return the zone of each pixel of a row band, −1 without, for each layer."""
        if not self.named:
            return [np.zeros(shape, np.int64)]
        here = transform @ Affine.translation(0, row)
        corners = np.array([(0, 0), (shape[1], 0), shape[::-1], (0, shape[0])], float)
        band = shapely.polygons(from_pixels(corners, here))
        inside = shapely.intersects(self._shapes, band)
        layers = []
        for layer in np.unique(self.layers[inside]).tolist():
            which = np.flatnonzero(inside & (self.layers == layer))
            ids = rasterio.features.rasterize(
                zip(self._shapes[which], which.tolist(), strict=True),
                shape,
                fill=-1,
                transform=here,
                dtype='int32',
            )
            layers.append(ids.astype(np.int64))
        return layers


def read_zones(
    path: Path, field: str | None, crs: pyproj.CRS
) -> tuple[list[str], NDArray[Any]]:
    """Return polygons of a file in another CRS, and the name of each.

    Args:
        path: Any vector file.
        field: Column with the names; None: the first text column, or numbers.
        crs: CRS of the returned polygons.

    Raises:
        LabelError: If the file cannot be read, or has no polygons.
        GridError: If it has no CRS.
    """
    frame = read_polygons(path, crs)
    return _names(frame, field, str(path)), frame.geometry.to_numpy()


def _names(frame: gpd.GeoDataFrame, field: str | None, name: str) -> list[str]:
    """Return the names of zones, with the row where several have one name."""
    columns = [str(c) for c in frame.columns if c != frame.geometry.name]
    if field is None:
        texts = [c for c in columns if pd.api.types.is_string_dtype(frame[c].dropna())]
        field = next((c for c in texts if frame[c].notna().any()), None)
    elif field not in columns:
        raise LabelError(
            f'{name} has no column {field!r}, expected one of: {", ".join(columns)}.'
            f'{did_you_mean(field, columns)}'
        )
    if field is None:
        return [str(number) for number in range(1, len(frame) + 1)]
    values = frame[field].tolist()
    names = ['' if pd.isna(value) else str(value).strip() for value in values]
    counts = Counter(names)
    return [
        f'{each} (row {row})'.strip() if counts[each] > 1 or not each else each
        for row, each in enumerate(names, 1)
    ]


def _warn(
    zones: _Zones, shapes: NDArray[Any], raster: DatasetReader, name: str
) -> NDArray[np.bool_]:
    """Warn of zones that overlap, or lie outside of the map; return those inside."""
    if len(zones.overlaps):
        count = len(zones.overlaps)
        pairs = (
            '1 pair of zones overlaps'
            if count == 1
            else f'{count} pairs of zones overlap'
        )
        one, other = zones.overlaps[0].tolist()
        warnings.warn(
            f'{name}: {pairs}, as '
            f'{zones.names[other]!r} and {zones.names[one]!r}. What both cover counts in '
            'both.',
            LabelWarning,
            stacklevel=3,
        )
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * raster.shape[::-1]
    whole = shapely.polygons(from_pixels(corners.astype(float), raster.transform))
    outside = ~np.asarray(shapely.intersects(shapes, whole), bool)
    if outside.all():
        raise LabelError(
            f'No zone of {name} lies in {raster.name}. Check the CRS of both.'
        )
    inside = shapely.area(shapely.intersection(whole, shapes))
    partly = ~outside & (inside < 0.999 * shapely.area(shapes))
    for which, what in ((outside, 'outside of'), (partly, 'only partly in')):
        if which.any():
            some = [zones.names[i] for i in np.flatnonzero(which)[:5].tolist()]
            warnings.warn(
                f'{name}: {which.sum()} of {len(which)} zones lie {what} '
                f'{raster.name}: {", ".join(some)}{", …" * int(which.sum() > 5)}.',
                LabelWarning,
                stacklevel=3,
            )
    return ~outside


def _warn_of_empty(
    zones: _Zones, inside: NDArray[np.bool_], pixels: NDArray[np.float64], name: str
) -> None:
    """Warn of zones in the map that hold no pixel with a class."""
    empty = inside & (pixels.reshape(len(inside), -1).sum(axis=1) == 0)
    if empty.any():
        some = [zones.names[i] for i in np.flatnonzero(empty)[:5].tolist()]
        warnings.warn(
            f'{name}: {empty.sum()} of {len(empty)} zones hold no pixel with a class, '
            f'so they have 0 ha: {", ".join(some)}{", …" * int(empty.sum() > 5)}. '
            'A pixel belongs to the zone that its center lies in.',
            LabelWarning,
            stacklevel=3,
        )


def _table(
    sums: NDArray[np.float64],
    zones: _Zones,
    names: list[str],
    values: NDArray[np.int64],
    weighted: bool,
) -> pd.DataFrame:
    """Return the rows of :func:`class_table`."""
    pixels, hectares, seen, right = sums
    mapped = hectares.reshape(len(zones.names), -1).sum(axis=1).repeat(len(names))
    columns: dict[str, Any] = {}
    if zones.named:
        columns['zone'] = np.repeat(np.array(zones.names, object), len(names))
    columns |= {
        'class': np.tile(values, len(zones.names)),
        'name': np.tile(np.array(names, object), len(zones.names)),
        'pixels': pixels.astype(np.int64),
        'hectares': hectares,
        'share': np.divide(
            hectares, mapped, out=np.zeros(len(mapped)), where=mapped > 0
        ),
    }
    if weighted:
        mean = np.divide(right, seen, out=np.full(len(seen), np.nan), where=seen > 0)
        columns |= {'confidence': mean, 'hectares_weighted': right / 100}
    return pd.DataFrame(columns)
