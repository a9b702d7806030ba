"""Accuracy of a map and area of its classes, from labeled samples."""

import warnings
from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..accuracy import Accuracy, Design, Estimate, estimate
from ..errors import (
    LabelError,
    LabelWarning,
    Note,
    did_you_mean,
    gdal_reason,
    name_key,
    similar_file,
)
from ..grids import to_pixels
from ..inference.masks import open_mask
from .samples import CLUSTER, STRATA
from .strata import OTHER, Strata, read_strata, warn_of_few

#: Suffixes of tables with coordinates in columns.
TABLES = ('.csv', '.tsv', '.txt')


class Assessment(NamedTuple):
    """Accuracy and areas of a map.

    The last class is :data:`~.strata.OTHER` if a sample has it. ``counts`` has a row for
    each class of the map and a column for each of the reference, in the order of
    ``names``.
    """

    names: list[str]
    counts: NDArray[np.int64]
    #: Size of each class on the map, (C,), in hectares, or in pixels without a CRS.
    sizes: NDArray[np.float64]
    unit: str
    accuracy: Accuracy
    unlabeled: int

    @property
    def areas(self) -> Estimate:
        """Area of each reference class, (C,), in ``unit``; NaN if no sample has it."""
        rows, columns = self.counts.sum(axis=1) > 0, self.counts.sum(axis=0) > 0
        total = np.where(rows | columns, self.sizes[rows].sum(), np.nan)
        value, error, quantile = self.accuracy.area
        return Estimate(total * value, total * error, quantile)


def assess(
    mask: str | Path,
    samples: str | Path,
    *,
    column: str = 'reference',
    design: Design = 'stratified',
) -> Assessment:
    """Estimate the accuracy of a map and the area of its classes.

    Args:
        mask: Class raster.
        samples: Points with their true class, as :func:`.samples.draw_samples` writes
            them. Those without a class are left out, with a warning.
        column: Column of the true class, as a name or a number of the map, or
            ``other`` for none of them: the map is wrong there.
        design: Whether samples were drawn in each class of the map, at random in the
            whole of it, or in blocks, whose number is in the column ``cluster``.

    Raises:
        SceneError: If the map cannot be read, or has no class.
        LabelError: If the samples cannot be read, lie outside the map or on nodata, or
            have a class that the map does not know.
    """
    frame, sampled = _read(Path(samples), column)
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
    drawn = sampled is not None or {'pixel', 'window'} <= {*frame.columns}
    blocks = _clusters(frame, str(samples), design, drawn)
    if sampled is not None:
        pixels_now = dict(zip(strata.names, strata.pixels.tolist(), strict=True))
        if design != 'simple' and sampled != pixels_now:
            warnings.warn(
                f'{samples} was drawn from another map than {mask}: the classes have '
                'other areas, so that estimates are biased. Draw a new sample.',
                LabelWarning,
                stacklevel=2,
            )
    elif drawn and design != 'simple':
        warnings.warn(
            f'{samples} does not record its map any more, because another program wrote '
            f'it again. Estimates are right if it was drawn from {mask}.',
            Note,
            stacklevel=2,
        )
    _, first = np.unique(pixels, axis=0, return_index=True)
    again = np.delete(np.arange(len(pixels)), first)
    if len(again) and design != 'cluster':
        warnings.warn(
            f'{samples}: {_some(ids[again], "lies", "lie")} on the pixel of another '
            'sample. Delete copies: they make intervals too narrow.',
            LabelWarning,
            stacklevel=2,
        )
    reference = _classes(frame[column], strata, f'{samples}, column {column}', ids)
    known = reference >= 0
    if not known.any():
        raise LabelError(
            f'{samples}: column {column} is empty, expected the class of each sample. '
            'Fill it in QGIS.'
        )
    if not drawn and design == 'stratified':
        warnings.warn(
            f'{samples} was not written by sample. Estimates are right if points were '
            'drawn at random in each class of the map. If they were drawn in the whole '
            'map, pass design=simple.',
            Note,
            stacklevel=2,
        )
    names, sizes = [*strata.names], strata.hectares
    unit = 'pixels' if sizes is None else 'hectares'
    sizes = strata.pixels.astype(float) if sizes is None else sizes
    if (reference == len(names)).any():
        names, sizes = [*names, OTHER], np.append(sizes, 0)
    count = len(names)
    counts = np.zeros((count, count), np.int64)
    rows = np.searchsorted(strata.values, mapped[known])
    np.add.at(counts, (rows, reference[known]), 1)
    _warn_about_strata(names, counts, sizes, unit, design)
    if missing := int((~known).sum()):
        warnings.warn(
            f'{samples}: {missing} of {len(known)} samples have no class and are left '
            'out.',
            LabelWarning,
            stacklevel=2,
        )
    clusters = None
    if blocks is not None:
        _, number = np.unique(blocks[known], return_inverse=True)
        clusters = np.zeros((int(number.max()) + 1, count, count))
        np.add.at(clusters, (number, rows, reference[known]), 1)
        if len(clusters) < 2:
            raise LabelError(
                f'{samples} has labels in one cluster only, expected two or more.'
            )
        _warn_about_clusters(names, clusters, str(samples))
    accuracy = estimate(counts, sizes, design, clusters)
    return Assessment(names, counts, sizes, unit, accuracy, missing)


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


def _warn_about_strata(
    names: Sequence[str],
    counts: NDArray[np.int64],
    sizes: NDArray[np.float64],
    unit: str,
    design: Design,
) -> None:
    """Warn of classes of the map with few samples."""
    samples = counts.sum(axis=1)
    # clusters do not need the variance in a class
    fewest = 1 if design == 'cluster' else 2
    several = samples >= fewest
    warn_of_few(np.array(names)[several].tolist(), samples[several])
    for index in np.flatnonzero((samples < fewest) & (sizes > 0)).tolist():
        share = sizes[index] / sizes.sum()
        warnings.warn(
            f'Class {names[index]!r} has no sample: its {sizes[index]:,.0f} {unit}, '
            f'{share:.1%} of the map, are left out of all estimates.'
            if samples[index] == 0
            else f'Class {names[index]!r} has 1 sample: the variance in it is taken as '
            'the largest possible.',
            LabelWarning,
            stacklevel=3,
        )


def _warn_about_clusters(
    names: Sequence[str], clusters: NDArray[np.float64], name: str
) -> None:
    """Warn of classes of the map with samples in one cluster alone."""
    lone = np.flatnonzero((clusters.sum(axis=2) > 0).sum(axis=0) == 1).tolist()
    if lone:
        warnings.warn(
            f'{name}: samples of {", ".join(names[i] for i in lone)} lie in one cluster '
            'alone, so that accuracies have no interval. Draw more clusters.',
            LabelWarning,
            stacklevel=3,
        )


def content(found: Assessment) -> dict[str, Any]:
    """Return an assessment as a document of plain numbers, intervals as ± 95 %."""
    accuracy, areas = found.accuracy, found.areas
    rates = {
        'users_accuracy': accuracy.users,
        'producers_accuracy': accuracy.producers,
        'f1': accuracy.f1,
    }

    def pair(estimate: Estimate, index: int) -> dict[str, float | None]:
        values = estimate.value[index], estimate.half_width[index]
        return dict(zip(('value', 'ci95'), (_number(v) for v in values), strict=True))

    return {
        'overall_accuracy': pair(accuracy.overall, 0),
        'unit': found.unit,
        'classes': {
            name: {
                'samples': int(found.counts[index].sum()),
                'mapped': float(found.sizes[index]),
                'area': pair(areas, index),
                'share': pair(accuracy.area, index),
                **{key: pair(rate, index) for key, rate in rates.items()},
            }
            for index, name in enumerate(found.names)
        },
        'confusion': found.counts.tolist(),
        'confusion_share': accuracy.shares.tolist(),
        'samples': int(found.counts.sum()),
        'samples_without_class': found.unlabeled,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def table(found: Assessment) -> pd.DataFrame:
    """Return a row for each class: areas and rates with half of their intervals."""
    rows = []
    for name, row in content(found)['classes'].items():
        cells = {
            'class': name,
            'samples': row['samples'],
            f'mapped_{found.unit}': row['mapped'],
        }
        cells[found.unit], cells[f'{found.unit}_ci95'] = row['area'].values()
        for key in ('users_accuracy', 'producers_accuracy', 'f1'):
            cells[key], cells[f'{key}_ci95'] = row[key].values()
        rows.append(cells)
    frame = pd.DataFrame(rows)
    for index, name in enumerate(found.names):
        frame[f'reference {name}'] = found.counts[:, index]
    return frame


def no_certainty(found: Assessment) -> str:
    """Return a note on classes whose samples all agree: ± 0 is no certainty there.

    Where n samples agree, 5 % of samples still would if a share of 1 − 0.05^(1 / n) of
    the class were another one.
    """
    samples, most = found.counts.sum(axis=1), found.counts.max(axis=1)
    agree = np.flatnonzero((samples > 1) & (samples == most)).tolist()
    if not agree:
        return ''
    each = [
        f'{found.names[index]} ({samples[index]} samples, '
        f'{1 - 0.05 ** (1 / samples[index]):.0%})'
        for index in agree
    ]
    return (
        '± 0 is no certainty where all samples agree. As much of a class may still be '
        f'another one, at 95 %: {", ".join(each)}.'
    )


def lines(found: Assessment) -> list[str]:
    """Return the lines of a report in plain text."""
    accuracy, areas = found.accuracy, found.areas
    heads = ('samples', f'mapped {found.unit}', f'{found.unit} ± 95 %')
    table: list[tuple[str, ...]] = [('class', *heads, "user's", "producer's", 'F1')]
    for index, name in enumerate(found.names):
        size, area = f'{found.sizes[index]:,.1f}', shown(areas, index, ',.1f')
        rates = (accuracy.users, accuracy.producers, accuracy.f1)
        values = [shown(rate, index, '.3f') for rate in rates]
        table.append((name, str(found.counts[index].sum()), size, area, *values))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    width = max(widths[0], len('overall accuracy'))
    return [
        *(
            '  '.join([f'{row[0]:<{width}}', *map(str.rjust, row[1:], widths[1:])])
            for row in table
        ),
        f'{"overall accuracy":<{width}}  {shown(accuracy.overall, 0, ".3f")}',
        f'{"samples":<{width}}  {found.counts.sum()}',
        *filter(None, [no_certainty(found)]),
    ]


def shown(estimate: Estimate, index: int, form: str) -> str:
    """Return an estimate as ``0.947 ± 0.018``, with a dash for what is not known."""
    value, half = estimate.value[index], estimate.half_width[index]
    if np.isnan(value):
        return '-'
    return f'{value:{form}} ± {"-" if np.isnan(half) else format(half, form)}'
