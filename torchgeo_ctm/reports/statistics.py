"""Measure the bands of a training split, and write them as a configuration."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ..configuration import ranges, read_section
from ..errors import BandWarning, DataError
from ..files import write_text
from ..lightning_messages import quiet_lightning
from ..trainers import ClassTokenMaskingTask
from .chips import ConfiguredSplit
from .counts import LabelCounts

PERCENTILES = (1, 2, 50, 98, 99)
#: Pixels that percentiles are computed from at most.
SAMPLE = 2**20


class BandStatistics:
    """Mean, standard deviation and percentiles of bands, updated chip by chip.

    Percentiles are those of a uniform random sample of at most :data:`SAMPLE` pixels
    (reservoir sampling), so they are exact for data of that size.
    """

    def __init__(self, bands: int, sample: int = SAMPLE, seed: int = 0) -> None:
        """Create empty statistics.

        Args:
            bands: Number of bands.
            sample: Maximum number of pixels to compute percentiles from.
            seed: Seed of the sample.
        """
        self.count = np.zeros(bands, np.int64)
        self.mean = np.zeros(bands)
        self._squares = np.zeros(bands)
        self._low, self._high = np.full(bands, np.inf), np.full(bands, -np.inf)
        #: Pixels that were given, whether finite or not.
        self.pixels = 0
        self._sample = np.empty((bands, sample), np.float32)
        self._random = np.random.default_rng(seed)

    def update(self, pixels: NDArray[np.float32]) -> None:
        """Add pixels (bands, n); values that are not finite are skipped by band."""
        for band, values in enumerate(pixels):
            kept = values[np.isfinite(values)].astype(np.float64)
            if kept.size:
                # Chan et al. (1979): combine two means and sums of squared deviations
                total, mean = self.count[band] + kept.size, kept.mean()
                apart = mean - self.mean[band]
                self._squares[band] += ((kept - mean) ** 2).sum()
                self._squares[band] += apart**2 * self.count[band] * kept.size / total
                self.mean[band] += apart * kept.size / total
                self.count[band] = total
                self._low[band] = min(self._low[band], kept.min())
                self._high[band] = max(self._high[band], kept.max())
        self._draw(pixels)

    def _draw(self, pixels: NDArray[np.float32]) -> None:
        """Replace pixels of the sample, so that all pixels so far are equally likely.

        Algorithm R: pixel number t takes a random slot with probability sample / t.
        """
        size = self._sample.shape[1]
        number = self.pixels + np.arange(pixels.shape[1])
        slot = np.where(number < size, number, self._random.integers(0, number + 1))
        taken = slot < size
        self._sample[:, slot[taken]] = pixels[:, taken]
        self.pixels += pixels.shape[1]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (bands,) of the population; 0 without pixels."""
        deviation: NDArray[np.float64] = np.sqrt(
            self._squares / np.maximum(self.count, 1)
        )
        return np.where(self.constant, 0, deviation)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Whether a band has no two different values, (bands,)."""
        return self._low >= self._high

    @property
    def sampled(self) -> int:
        """Number of pixels that percentiles are computed from."""
        return min(self.pixels, self._sample.shape[1])

    def percentiles(self, band: int) -> list[float]:
        """Return the :data:`PERCENTILES` of a band; NaN without pixels."""
        values = self._sample[band, : self.sampled].astype(np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            return [float('nan')] * len(PERCENTILES)
        found: list[float] = np.percentile(values, PERCENTILES).tolist()
        return found


class SplitStatistics(NamedTuple):
    """Statistics of the chips of a training split."""

    task: ClassTokenMaskingTask
    bands: BandStatistics
    labels: LabelCounts
    #: Number of chips in the split; ``labels.chips`` of them were read.
    total: int


def measure(
    config: str | Path,
    *,
    limit: int | None = None,
    nodata: float | None = None,
    progress: bool = True,
) -> SplitStatistics:
    """Measure the bands and labels of a configuration's training split.

    Images are those of evaluation: normalized if the data module normalizes, then with
    offset and clip of the configuration's ``scaling``. Invalid pixels are skipped: NaN
    and infinity, pixels whose ``valid`` is 0, and *nodata*.

    Args:
        config: Configuration of ``torchgeo``.
        limit: Maximum number of chips to read, evenly spread over the split; None: all.
        nodata: Nodata value of the data set; pixels that have it in all bands are invalid.
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
    if len(split) == split.total:
        # some chips alone do not tell what is missing
        labels.warn(split.task.class_names)
    return SplitStatistics(split.task, bands, labels, split.total)


def _check_bands(split: ConfiguredSplit, bands: BandStatistics) -> None:
    """Check that bands have valid pixels; warn about constant bands.

    Raises:
        DataError: If a band has no valid pixel.
    """
    names = split.task.bands
    for name, count, constant in zip(names, bands.count, bands.constant, strict=True):
        if not count:
            raise DataError(
                f'Band {name} has no valid pixel in {len(split)} chips of the training '
                f'split of {split.config}.'
            )
        if constant:
            warnings.warn(
                f'Band {name} has the same value in every pixel. Its std is set to 1.',
                BandWarning,
                stacklevel=3,
            )


def write_config(measured: SplitStatistics, config: str | Path, path: Path) -> None:
    """Write the measured scaling as a configuration to pass after *config*.

    ``torchgeo fit --config CONFIG --config PATH`` then trains with these numbers. The
    file's comments contain all statistics. ``low`` and ``high`` are the first and 99th
    percentiles.
    """
    given = measured.task.hparams['scaling'] or {}
    kept = {'adapt': given['adapt']} if 'adapt' in given else {}
    if given.get('method') == 'log':
        kept['method'] = 'log'
    scaling = ranges(measured.task) | kept | measured_scaling(measured.bands)
    section = read_section(config, 'model')
    section = {'class_path': section['class_path'], 'init_args': {'scaling': scaling}}
    text = yaml.safe_dump(
        {'model': section}, sort_keys=False, default_flow_style=None, width=88
    )
    lines = [
        'Pass this file after the configuration that it was measured with:',
        f'  torchgeo fit --config {config} --config {path.name}',
        *report(measured),
    ]
    comments = ''.join(f'# {line}'.rstrip() + '\n' for line in lines)
    write_text(path, comments + text)


def measured_scaling(bands: BandStatistics) -> dict[str, list[float]]:
    """Return statistics as options of a scaling: mean, std, low and high."""
    ends = [bands.percentiles(band) for band in range(len(bands.mean))]
    return {
        'mean': [_rounded(mean) for mean in bands.mean],
        'std': [_rounded(std) or 1.0 for std in bands.std],
        'low': [_rounded(values[0]) for values in ends],
        'high': [_rounded(values[-1]) for values in ends],
    }


def report(measured: SplitStatistics) -> list[str]:
    """Return the statistics as lines of text."""
    bands, names = measured.bands, measured.task.bands
    every = 'all' if bands.sampled == bands.pixels else f'{bands.sampled} random'
    lines = [
        f'{measured.labels.chips} of {measured.total} training chips, '
        + f'{int(bands.count.max())} valid pixels',
        f'bands after offset and clip (percentiles of {every} pixels):',
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
    """Return the statistics as plain numbers for JSON."""
    bands = measured.bands
    return {
        'chips': measured.labels.chips,
        'chips_in_split': measured.total,
        'percentiles_of_pixels': bands.sampled,
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
    """Round a number to six significant digits."""
    return float(f'{value:.6g}')
