"""Read samples with their true class, as people labeled them."""

import warnings
from json import loads
from pathlib import Path
from typing import Any, NamedTuple, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..accuracy import Design
from ..errors import (
    LabelError,
    LabelWarning,
    Note,
    SettingError,
    did_you_mean,
    gdal_reason,
    name_key,
    similar_file,
)
from ..grids import to_pixels
from ..inference.masks import open_mask
from .samples import CLUSTER, STRATA
from .strata import OTHER, Strata, read_strata

Integers = NDArray[np.int64]

#: Suffixes of tables with coordinates in columns.
TABLES = ('.csv', '.tsv', '.txt')
#: Suffixes of maps, which are no samples.
RASTERS = ('.tif', '.tiff', '.vrt')
#: Samples, or clusters, from which on their extent is that of the ground they are from.
MANY = 20
#: Share of the map's pixels below which a rectangle around samples is a part of it.
CORNER = 0.25


class LabeledSamples(NamedTuple):
    """Samples of a map with their true class; n of them."""

    ids: NDArray[Any]
    #: Row and column of each, (n, 2).
    pixels: Integers
    #: Value of the map, (n,).
    mapped: Integers
    #: Index of the true class, (n,): -1 without one, C for one that the map lacks.
    reference: Integers
    #: Cluster of each, (n,); None for another design.
    clusters: NDArray[Any] | None
    strata: Strata
    #: Whether ``sample`` drew them.
    drawn: bool
    #: Pixels of each class of the map that they were drawn from, if the file says so.
    origin: dict[str, int] | None

    def warn(self, mask: str | Path, samples: str | Path, design: Design) -> None:
        """Warn if estimates may be wrong: another map or design, copies, no class."""
        strata = self.strata
        now = dict(zip(strata.names, strata.pixels.tolist(), strict=True))
        if design == 'simple' or self.origin == now:
            pass
        elif self.origin is not None:
            _warn(
                f'{samples} was drawn from another map than {mask}: the classes have '
                'other areas, so that estimates are biased. Draw a new sample.'
            )
        elif self.drawn:
            _warn(
                f'{samples} does not record its map any more, because another program '
                f'wrote it again. Estimates are right if it was drawn from {mask}.',
                Note,
            )
        elif design == 'stratified':
            _warn(
                f'{samples} was not written by sample. Estimates are right if points '
                'were drawn at random in each class of the map. If they were drawn in '
                'the whole map, pass design=simple.',
                Note,
            )
        if self._one_corner():
            _warn(
                f'All samples of {samples} lie in one part of {mask}. Estimates are for '
                'the whole map, so they are right only if points could be drawn in all '
                'of it.'
            )
        _, first = np.unique(self.pixels, axis=0, return_index=True)
        again = np.delete(self.ids, first)
        if len(again) and design != 'cluster':
            _warn(
                f'{samples}: {_some(again, "lies", "lie")} on the pixel of another '
                'sample. Delete copies: they make intervals too narrow.'
            )
        if missing := int((self.reference < 0).sum()):
            _warn(
                f'{samples}: {missing} of {len(self.ids)} samples have no class and are '
                'left out.'
            )

    def _one_corner(self) -> bool:
        """Return whether many samples, or clusters, leave most of the map alone."""
        draws = self.ids if self.clusters is None else np.unique(self.clusters)
        sides = np.ptp(self.pixels, axis=0) + 1
        return len(draws) >= MANY and bool(
            sides.prod() < CORNER * self.strata.pixels.sum()
        )


def _warn(text: str, category: type[Warning] = LabelWarning) -> None:
    """Warn the caller of ``assess``."""
    warnings.warn(text, category, stacklevel=4)


def read_labeled_samples(
    mask: str | Path, samples: str | Path, column: str, design: Design
) -> LabeledSamples:
    """Read samples, and the map at each.

    Args:
        mask: Class raster.
        samples: Points with their true class.
        column: Column of the true class.
        design: How the samples were drawn.

    Raises:
        SceneError: If the map cannot be read, or has no class.
        LabelError: If the samples cannot be read, lie outside the map or on nodata,
            have a class that the map does not know or none at all, or lack their
            clusters.
        SettingError: If there is no such design.
    """
    designs: tuple[str, ...] = get_args(Design)
    if design not in designs:
        raise SettingError(
            f'Unknown design {design!r}, expected one of: {", ".join(designs)}.'
            + did_you_mean(str(design), designs)
        )
    frame, origin = _read(Path(samples), column)
    with open_mask(mask) as raster:
        pixels = _pixels(raster, frame, str(samples))
        mapped = np.full(len(frame), -1)

        def look_up(row: int, values: NDArray[np.int32]) -> None:
            here = (pixels[:, 0] >= row) & (pixels[:, 0] < row + len(values))
            mapped[here] = values[pixels[here, 0] - row, pixels[here, 1]]

        strata = read_strata(raster, look_up)
    ids = _ids(frame)
    if (mapped < 0).any():
        raise LabelError(
            f'{samples}: {_some(ids[mapped < 0], "lies", "lie")} on nodata of {mask}. '
            'Delete them, or pass the map that was sampled.'
        )
    drawn = origin is not None or {'pixel', 'window'} <= {*frame.columns}
    clusters = _clusters(frame, str(samples), design, drawn)
    reference = _classes(frame[column], strata, f'{samples}, column {column}', ids)
    if (reference < 0).all():
        raise LabelError(
            f'{samples}: column {column} is empty, expected the class of each sample. '
            'Fill it in QGIS.'
        )
    if clusters is not None and len(np.unique(clusters[reference >= 0])) < 2:
        raise LabelError(
            f'{samples} has labels in one cluster only, expected two or more.'
        )
    return LabeledSamples(
        ids, pixels, mapped, reference, clusters, strata, drawn, origin
    )


def _read(path: Path, column: str) -> tuple[gpd.GeoDataFrame, dict[str, int] | None]:
    """Return the samples, and the pixels of each class of the map they are from."""
    if not path.exists():
        close = similar_file(path, ('.gpkg', '.geojson', '.parquet', '.fgb', '.shp'))
        raise LabelError(f'{path} does not exist, expected points with classes.{close}')
    metadata: dict[str, str] = {}
    try:
        if path.suffix.lower() == '.parquet':
            frame = gpd.read_parquet(path)
        elif path.suffix.lower() in TABLES:
            # labels import PyTorch
            from ..labels.points import table_points
            from ..labels.table_files import read_table

            table = read_table(path)
            points, crs = table_points(path, table)
            frame = gpd.GeoDataFrame(table, geometry=points, crs=crs)
        else:
            layers = [name for name, kind in pyogrio.list_layers(path) if kind]
            if not layers:
                raise LabelError(f'{path} has no layer with points.')
            metadata = pyogrio.read_info(path, layers[0])['dataset_metadata'] or {}
            frame = pyogrio.read_dataframe(path, layer=layers[0])
    except (OSError, ValueError, RuntimeError) as error:
        if path.suffix.lower() in RASTERS:
            raise LabelError(
                f'{path} is a raster, expected points with classes. Pass the map first, '
                'then the samples.'
            ) from error
        raise LabelError(f'Cannot read {path}: {gdal_reason(error)}.') from error
    if column not in frame:
        columns = [str(name) for name in frame.columns if name != 'geometry']
        raise LabelError(
            f'{path} has no column {column!r}, expected one of: {", ".join(columns)}.'
            f'{did_you_mean(column, columns)}'
        )
    if not len(frame):
        raise LabelError(f'{path} has no sample.')
    points = frame.geometry.geom_type == 'Point'
    if not points.all():
        kind = frame.geometry.geom_type[~points].iloc[0] or 'nothing'
        raise LabelError(f'{path} has {kind} among its samples, expected points.')
    return frame, loads(metadata[STRATA]) if STRATA in metadata else None


def _clusters(
    frame: gpd.GeoDataFrame, name: str, design: Design, ours: bool
) -> NDArray[Any] | None:
    """Return the cluster of each sample (n,), None for another design.

    Raises:
        LabelError: If there are none, or samples of clusters are assessed as others.
    """
    if design != 'cluster':
        if ours and CLUSTER in frame:
            raise LabelError(f'{name} was drawn in clusters. Pass --design cluster.')
        return None
    if CLUSTER not in frame or frame[CLUSTER].isna().any():
        raise LabelError(
            f'{name} lacks the number of each block in a column {CLUSTER!r}. Draw the '
            'samples with sample --clusters.'
        )
    return np.asarray(frame[CLUSTER])


def _pixels(
    raster: DatasetReader, frame: gpd.GeoDataFrame, name: str
) -> NDArray[np.int64]:
    """Return row and column (n, 2) of each sample."""
    if frame.crs is not None and raster.crs is not None:
        frame = frame.to_crs(pyproj.CRS.from_user_input(raster.crs))
    xy = np.stack([frame.geometry.x, frame.geometry.y], axis=1)
    pixels = to_pixels(xy, raster.transform)[:, ::-1]
    inside = (np.isfinite(pixels) & (pixels >= 0) & (pixels < raster.shape)).all(axis=1)
    if not inside.any():
        raise LabelError(
            f'All samples of {name} lie outside of {raster.name}. Is the CRS of their '
            'coordinates right, and x before y?'
        )
    if not inside.all():
        which = _some(_ids(frame)[~inside], 'lies', 'lie')
        raise LabelError(
            f'{name}: {which} outside of {raster.name}. Delete them, or pass the map '
            'that was sampled.'
        )
    return np.floor(pixels).astype(np.int64)


def _ids(frame: gpd.GeoDataFrame) -> NDArray[Any]:
    """Return the numbers of samples."""
    return np.asarray(frame['id'] if 'id' in frame else np.arange(1, len(frame) + 1))


def _some(ids: NDArray[Any], one: str, more: str) -> str:
    """Return ``3 samples (4, 7, 9) lie``."""
    shown = ', '.join(map(str, ids[:5])) + ', …' * (len(ids) > 5)
    many = len(ids) > 1
    return f'{len(ids)} sample{"s" * many} ({shown}) {more if many else one}'


def _classes(
    values: 'pd.Series[Any]', strata: Strata, where: str, ids: NDArray[Any]
) -> NDArray[np.int64]:
    """Return the class of each sample, −1 without one, C for one not on the map."""
    index = {str(value): i for i, value in enumerate(strata.values.tolist())}
    index |= {name_key(name): i for i, name in enumerate(strata.names)}
    for word in ('other', OTHER):
        index.setdefault(name_key(word), len(strata.names))
    found = np.full(len(values), -1)
    by_number = False
    for number, value in enumerate(values):
        if pd.isna(value) or not str(value).strip():
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        key = name_key(value)
        by_number |= key.isdecimal()
        if key not in index:
            raise LabelError(
                f'{where}, sample {ids[number]}: {value!r} is not a class of the map, '
                f'expected one of: {", ".join([*strata.names, OTHER])}.'
                f'{did_you_mean(str(value), strata.names)}'
            )
        found[number] = index[key]
    numbers = dict(zip(strata.values.tolist(), strata.names, strict=True))
    if by_number and any(str(value) != name for value, name in numbers.items()):
        listed = ', '.join(f'{value} as {name}' for value, name in numbers.items())
        warnings.warn(
            f'{where} holds numbers. They are read as those of the map: {listed}. Write '
            'names if they mean other classes.',
            LabelWarning,
            stacklevel=3,
        )
    return found
