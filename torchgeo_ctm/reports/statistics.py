"""Statistics of the bands of a split, as a configuration takes them."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ..configuration import ranges, read_section
from ..errors import BandWarning, DataError
from ..files import write_text
from ..prediction import quiet_lightning
from ..trainers import ClassTokenMaskingTask
from ..value_counts import MOST_VALUES, ValueCounts
from .chips import ConfiguredSplit
from .counts import LabelCounts

PERCENTILES = (1, 2, 50, 98, 99)


class BandStatistics:
    """Mean, standard deviation and percentiles of bands, streamed chip by chip.

    Law: merging the statistics of two halves gives those of the whole, and they equal
    NumPy's over all pixels at once (means and deviations up to rounding).
    """

    def __init__(self, bands: int, most: int = MOST_VALUES) -> None:
        """Create empty statistics of so many bands; *most* as for ValueCounts."""
        self.count = np.zeros(bands, np.int64)
        self.mean = np.zeros(bands)
        self._squares = np.zeros(bands)
        self.values = [ValueCounts(most) for _ in range(bands)]

    def update(self, pixels: NDArray[np.float32]) -> None:
        """Add pixels (bands, n); what is not finite is left out, band by band."""
        for band, values in enumerate(pixels):
            kept = values[np.isfinite(values)]
            if kept.size:
                mean = float(kept.mean(dtype=np.float64))
                squares = float(((kept.astype(np.float64) - mean) ** 2).sum())
                self._add(band, kept.size, mean, squares)
                self.values[band].add(kept)

    def merge(self, other: Self) -> None:
        """Add the statistics of other pixels of the same bands."""
        for band, values in enumerate(other.values):
            count, mean = int(other.count[band]), float(other.mean[band])
            if count:
                self._add(band, count, mean, float(other._squares[band]))
                self.values[band].merge(values)

    def _add(self, band: int, count: int, mean: float, squares: float) -> None:
        """Combine two means and sums of squared deviations (Chan et al., 1979)."""
        total = self.count[band] + count
        apart = mean - self.mean[band]
        self._squares[band] += squares + apart**2 * self.count[band] * count / total
        self.mean[band] += apart * count / total
        self.count[band] = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (bands,), of the population; 0 without pixels."""
        deviation: NDArray[np.float64] = np.sqrt(
            self._squares / np.maximum(self.count, 1)
        )
        return np.where(self.constant, 0, deviation)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Whether a band has no two different values, (bands,)."""
        return np.array([values.different < 2 for values in self.values])

    def percentiles(self, band: int) -> list[float]:
        """Return the :data:`PERCENTILES` of a band."""
        return [self.values[band].percentile(each) for each in PERCENTILES]

    @property
    def relative_error(self) -> float:
        """Largest relative error of any percentile; 0 if all are exact."""
        return max(values.relative_error for values in self.values)


class SplitStatistics(NamedTuple):
    """What the chips of a training split hold."""

    task: ClassTokenMaskingTask
    bands: BandStatistics
    labels: LabelCounts
    #: Chips in the split, of which ``labels.chips`` were read.
    total: int


def measure(
    config: str | Path,
    *,
    limit: int | None = None,
    nodata: float | None = None,
    progress: bool = True,
) -> SplitStatistics:
    """Measure the training split of a configuration, chip by chip.

    Images are those that the model gets in evaluation: normalised where the data module
    does so, then with offset and clip of the configuration's ``scaling``. Pixels
    without data are left out: NaN and infinity, where a sample's ``valid`` is 0, and
    *nodata*.

    Args:
        config: Configuration of ``torchgeo``.
        limit: Read as many chips, evenly spread over the split; None: all.
        nodata: Value of the data set that means no data, where all bands have it.
        progress: Show a progress bar.

    Raises:
        CTMError: If the configuration, or the data, cannot be used.
    """
    quiet_lightning()
    split = ConfiguredSplit(config, 'train', limit, nodata)
    names = split.task.bands
    bands = BandStatistics(len(names))
    labels = LabelCounts(len(split.task.class_names))
    for chip in split.chips(progress):
        image = split.task.scaling(torch.from_numpy(chip.image)).numpy()
        bands.update(image[:, chip.valid])
        labels.update(chip.label, chip.known, chip.mask)
    _check_bands(split, bands)
    labels.warn(split.task.class_names)
    return SplitStatistics(split.task, bands, labels, split.total)


def _check_bands(split: ConfiguredSplit, bands: BandStatistics) -> None:
    """Refuse bands without a pixel; warn of those without a difference."""
    names = split.task.bands
    for name, count, constant in zip(names, bands.count, bands.constant, strict=True):
        if not count:
            raise DataError(
                f'band {name} has no valid pixel in {len(split)} chips of the training '
                f'split of {split.config}'
            )
        if constant:
            warnings.warn(
                f'band {name} has the same value in every pixel: its std is given as 1',
                BandWarning,
                stacklevel=3,
            )


def write_config(measured: SplitStatistics, config: str | Path, path: Path) -> None:
    """Write a configuration that holds the scaling, to be given after *config*.

    ``torchgeo fit --config CONFIG --config PATH`` then trains with these numbers. What
    else was measured stands in its comments.
    """
    bands = measured.bands
    scaling = ranges(measured.task) | {
        'mean': [_rounded(mean) for mean in bands.mean],
        'std': [_rounded(std) or 1.0 for std in bands.std],
    }
    section = read_section(config, 'model')
    section = {'class_path': section['class_path'], 'init_args': {'scaling': scaling}}
    text = yaml.safe_dump(
        {'model': section}, sort_keys=False, default_flow_style=None, width=88
    )
    lines = [
        'Give this after the configuration it was measured with:',
        f'  torchgeo fit --config {config} --config {path.name}',
        *report(measured),
    ]
    comments = ''.join(f'# {line}'.rstrip() + '\n' for line in lines)
    write_text(path, comments + text)


def report(measured: SplitStatistics) -> list[str]:
    """Return what was measured as lines to read."""
    bands, names = measured.bands, measured.task.bands
    error = bands.relative_error
    exact = f'to {100 * error:.1g} %' if error else 'exact'
    lines = [
        f'{measured.labels.chips} of {measured.total} training chips, '
        + f'{int(bands.count.max())} pixels with data',
        f'bands after offset and clip (percentiles {exact}):',
    ]
    width = max(len('band'), *map(len, names))
    heads = ['mean', 'std', *(f'{each} %' for each in PERCENTILES)]
    lines.append(f'{"band":<{width}}' + ''.join(f'{head:>12}' for head in heads))
    for band, name in enumerate(names):
        values = [bands.mean[band], bands.std[band], *bands.percentiles(band)]
        numbers = ''.join(f'{value:>12.6g}' for value in values)
        lines.append(f'{name:<{width}}{numbers}')
    return lines + measured.labels.report(measured.task.class_names)


def content(measured: SplitStatistics) -> dict[str, Any]:
    """Return what was measured as plain numbers, for JSON."""
    bands = measured.bands
    return {
        'chips': measured.labels.chips,
        'chips_in_split': measured.total,
        'percentiles_relative_error': bands.relative_error,
        'bands': {
            name: {
                'pixels': int(bands.count[band]),
                'mean': float(bands.mean[band]),
                'std': float(bands.std[band]),
                'percentiles': dict(
                    zip(map(str, PERCENTILES), bands.percentiles(band), strict=True)
                ),
            }
            for band, name in enumerate(measured.task.bands)
        },
        'classes': measured.labels.content(measured.task.class_names),
    }


def _rounded(value: float) -> float:
    """Return a number to six significant digits."""
    return float(f'{value:.6g}')
