"""The classes of a map as strata: their names, pixels and hectares."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..errors import GridError, LabelWarning, SceneError
from ..grids import IGNORED
from ..inference.areas import PixelAreas
from ..inference.masks import class_names, open_mask, row_bands

#: True class of a sample whose class the map does not have.
OTHER = 'other (not on the map)'
#: Fewest samples that give a useful interval for a class.
FEW = 10


class Strata(NamedTuple):
    """The classes of a map that names them, or those that occur in it."""

    names: list[str]
    #: Value of each class in the map, (C,).
    values: NDArray[np.int64]
    #: Pixels of each class, (C,).
    pixels: NDArray[np.int64]
    #: Hectares of each class, (C,); None for a map without a CRS.
    hectares: NDArray[np.float64] | None


def class_bands(raster: DatasetReader) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Read a class raster from top to bottom, with its mask band or mask file.

    Yields:
        The first row of a row band, and its classes (rows, width), −1 where invalid.

    Raises:
        SceneError: If the file is damaged.
    """
    masked = MaskFlags.per_dataset in raster.mask_flag_enums[0]
    for row, values in row_bands(raster):
        if masked:
            window = RasterWindow(0, row, raster.width, len(values))
            values[raster.read_masks(1, window=window) == 0] = -1
        values[values == IGNORED] = -1
        yield row, values


#: Takes the first row of a row band and its values (rows, width), −1 for nodata.
Visit = Callable[[int, NDArray[np.int32]], None]


def read_strata(raster: DatasetReader, visit: Visit | None = None) -> Strata:
    """Count the classes of an open map, row band by row band.

    Args:
        raster: The map.
        visit: Called with every row band.

    Raises:
        SceneError: If the map is damaged, or no pixel has a class.
    """
    try:
        areas = PixelAreas(raster)
    except GridError:
        areas = None
    totals = np.zeros((2, 0))
    for row, band in class_bands(raster):
        if visit is not None:
            visit(row, band)
        known = band >= 0
        values = band[known]
        sums = np.stack(
            [
                np.bincount(values, weights, minlength=totals.shape[1])
                for weights in (
                    None,
                    None if areas is None else areas.rows(row, row + len(band))[known],
                )
            ]
        ).astype(float)
        sums[:, : totals.shape[1]] += totals
        totals = sums
    names = class_names(raster)
    named = np.arange(totals.shape[1]) < len(names)
    values = np.union1d(np.arange(len(names)), np.flatnonzero(totals[0] * ~named))
    if not totals[0].any():
        raise SceneError(f'{raster.name} has no pixel with a class.')
    totals = np.pad(totals, ((0, 0), (0, max(0, len(names) - totals.shape[1]))))
    return Strata(
        [names[v] if v < len(names) else str(v) for v in values.tolist()],
        values.astype(np.int64),
        totals[0, values].astype(np.int64),
        None if areas is None else totals[1, values],
    )


def warn_of_few(names: Sequence[str], numbers: NDArray[np.int64]) -> None:
    """Warn of classes with too few samples for an interval of their own.

    Args:
        names: Names of the classes.
        numbers: Samples of each, (C,).
    """
    few = [
        f'{name} ({number})'
        for name, number in zip(names, numbers.tolist(), strict=True)
        if number < FEW
    ]
    if few:
        warnings.warn(
            f'{", ".join(few)}: fewer than {FEW} samples give no useful interval for a '
            'class. Draw more with sample --size or --floor, or merge rare classes with '
            'relabel.',
            LabelWarning,
            stacklevel=4,
        )


def strata_of(path: str | Path) -> Strata:
    """Return the strata of a map.

    Raises:
        SceneError: If it cannot be read, or no pixel has a class.
    """
    with open_mask(path) as raster:
        return read_strata(raster)
