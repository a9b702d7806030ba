"""Accuracy of a map and area of its classes, from labeled samples."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..accuracy import Accuracy, Design, Estimate, estimate
from ..errors import LabelWarning
from .labeled_samples import read_labeled_samples
from .strata import OTHER, warn_of_few


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
    found = read_labeled_samples(mask, samples, column, design)
    found.warn(mask, samples, design)
    names, sizes = [*found.strata.names], found.strata.hectares
    unit = 'pixels' if sizes is None else 'hectares'
    sizes = found.strata.pixels.astype(float) if sizes is None else sizes
    if (found.reference == len(names)).any():
        names, sizes = [*names, OTHER], np.append(sizes, 0)
    known = found.reference >= 0
    rows = np.searchsorted(found.strata.values, found.mapped[known])
    columns, clusters = found.reference[known], None
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (rows, columns), 1)
    _warn_about_strata(names, counts, sizes, unit, design)
    if found.clusters is not None:
        _, number = np.unique(found.clusters[known], return_inverse=True)
        clusters = np.zeros((int(number.max()) + 1, *counts.shape))
        np.add.at(clusters, (number, rows, columns), 1)
        _warn_about_clusters(names, clusters, str(samples))
    accuracy = estimate(counts, sizes, design, clusters)
    return Assessment(names, counts, sizes, unit, accuracy, int((~known).sum()))


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
