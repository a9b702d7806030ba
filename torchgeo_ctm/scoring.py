"""Compare a mask with a reference raster, block by block."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from scipy.optimize import linear_sum_assignment

from .errors import LabelWarning, SceneError, SettingError, check_names, name_key
from .grids import IGNORED, check_same_grid
from .rasters import grid_of, open_raster, tagged_class_names

#: Share of the pixels by which another order of classes must fit better to be said.
BETTER = 0.25
#: Classes that are compared at most.
MOST_CLASSES = 4096
#: Band description of confidence rasters.
CONFIDENCE = 'confidence, per cent'


def iou_from_confusion(confusion: NDArray[np.int64]) -> list[float | None]:
    """Return the intersection over union of each class.

    Args:
        confusion: Pixel counts (C, C), rows reference, columns mask.

    Returns:
        IoU 0…1 of each class; None for a class in neither raster.
    """
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return [
        float(hit / total) if total else None
        for hit, total in zip(hits, union, strict=True)
    ]


def mean_of_known(values: list[float | None]) -> float:
    """Return the mean of the values that are not None; 0 if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def confusion_matrix(
    reference: NDArray[Any], mask: NDArray[Any], num_classes: int
) -> NDArray[np.int64]:
    """Return pixel counts (C, C) by reference (rows) and mask (columns).

    Pixels outside 0…C−1 in either raster are not counted.
    """
    inside = (reference >= 0) & (reference < num_classes)
    inside &= (mask >= 0) & (mask < num_classes)
    index = reference[inside].astype(np.int64) * num_classes + mask[inside]
    counts = np.bincount(index, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def summarize(confusion: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """Return the scores of a confusion matrix (C, C).

    Args:
        confusion: Pixel counts (C, C), rows reference, columns mask.
        names: Name of each class.

    Returns:
        ``miou`` (mean over classes that occur in either raster), ``iou`` (class name
        → value or None), ``pixel_accuracy``, ``average_accuracy`` (mean recall of
        the reference's classes), ``confusion`` (rows reference, columns mask) and
        ``pixels``. Scores are 0…1.
    """
    total = int(confusion.sum())
    iou = iou_from_confusion(confusion)
    rows = confusion.sum(axis=1)
    recall = [
        float(hit / row) if row else None
        for hit, row in zip(np.diag(confusion), rows, strict=True)
    ]
    return {
        'miou': mean_of_known(iou),
        'iou': dict(zip(names, iou, strict=True)),
        'pixel_accuracy': float(np.trace(confusion) / total) if total else 0.0,
        'average_accuracy': mean_of_known(recall),
        'confusion': confusion.tolist(),
        'pixels': total,
    }


def summarise(confusion: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """Return :func:`summarize`, under its old name."""
    warnings.warn('summarise is now summarize', DeprecationWarning, stacklevel=2)
    return summarize(confusion, names)


def evaluate(
    mask: str | Path, reference: str | Path, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Score a mask against a reference raster on the same grid.

    Classes are compared by name where both rasters name them, else by number. Pixels
    that are nodata, masked, 255 or negative in the reference are left out, and so are
    pixels without a class in the mask (counted in ``pixels_without_mask``).

    Args:
        mask: Mask raster, classes 0…C−1; class names are read from its tags.
        reference: Reference raster; class names are read from its tags.
        classes: Names of the reference's values 0, 1, 2, …; None: its own.

    Returns:
        The scores of :func:`summarize`, and ``pixels_without_mask``. Classes that only
        the reference has are added.

    Raises:
        SceneError: If a raster cannot be read, or the reference has other classes.
        SettingError: If *classes* names a class twice.
        GridError: If the two rasters do not share size, CRS and transform.
    """
    try:
        names, table, scores = _compared(mask, reference, classes)
    except RasterioError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        raise SceneError(f'Cannot read {mask} and {reference}: {reason}') from error
    if table is None:
        _warn_about_permutation(np.array(scores['confusion']), names, str(reference))
    return scores


def _compared(
    mask: str | Path, reference: str | Path, classes: Sequence[str] | None
) -> tuple[list[str], NDArray[np.int64] | None, dict[str, Any]]:
    """Return the names of the classes, the class of each reference value, and scores."""
    with _open(mask) as predicted, _open(reference) as truth:
        ours, grid = grid_of(predicted), grid_of(truth)
        check_same_grid(predicted.name, ours, truth.name, grid)
        names = class_names(predicted)
        theirs = tagged_class_names(truth) if classes is None else list(classes)
        check_names(names, SceneError, predicted.name)
        table = None
        if theirs is not None:
            check_names(theirs, SettingError if classes else SceneError, truth.name)
            if tagged_class_names(predicted) is not None:
                names, table = _matched(names, theirs)
            elif classes and len(classes) < len(names):
                raise SceneError(
                    f'{predicted.name} holds class {len(names) - 1}, but there are names '
                    f'of {len(classes)} classes. Expected 0 to {len(classes) - 1}.'
                )
        return names, table, _score(predicted, truth, names, table)


def _matched(ours: list[str], theirs: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of both rasters, and the class of each reference value."""
    known = {name_key(name): index for index, name in enumerate(ours)}
    names = list(ours)
    table = []
    for name in theirs:
        if name_key(name) not in known:
            known[name_key(name)] = len(names)
            names.append(name)
        table.append(known[name_key(name)])
    return names, np.array(table, np.int64)


def _warn_about_permutation(
    confusion: NDArray[np.int64], names: list[str], reference: str
) -> None:
    """Warn if the reference seems to number the classes in another order."""
    if min((confusion.sum(axis=axis) > 0).sum() for axis in (0, 1)) < 2:
        return
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    total = confusion.sum()
    found = float(np.trace(confusion) / total)
    best = float(confusion[rows, columns].sum() / total)
    if best - found < BETTER:
        return
    order = [
        f'{row} is {names[column]}'
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if row != column and confusion[row].sum()
    ]
    warnings.warn(
        f'{reference} does not name its classes, and another order fits far better '
        f'({best:.0%} instead of {found:.0%} of the pixels agree): value '
        f'{", ".join(order[:5])}. Name its classes with --classes.',
        LabelWarning,
        stacklevel=3,
    )


def _open(path: str | Path) -> DatasetReader:
    """Open a raster of classes, which may have an alpha band beside it."""
    if not Path(path).exists():
        raise SceneError(f'{path} does not exist, expected a raster of classes.')
    raster = open_raster(path)
    alpha = raster.count == 2 and raster.colorinterp[1] is ColorInterp.alpha
    if (raster.count != 1 and not alpha) or np.dtype(raster.dtypes[0]).kind not in 'iu':
        count, dtype = raster.count, raster.dtypes[0]
        raster.close()
        raise SceneError(
            f'{path} has {count} band{"s" * (count > 1)} of {dtype}, expected 1 band of '
            'integer classes. Convert it with gdal_translate -ot Byte.'
        )
    if raster.descriptions[0] == CONFIDENCE:
        raster.close()
        raise SceneError(f'{path} holds confidence in percent, expected classes.')
    return raster


def class_names(raster: DatasetReader) -> list[str]:
    """Return the class names of a mask, or numbers up to its maximum."""
    tagged = tagged_class_names(raster)
    if tagged is not None:
        return tagged
    highest = 0
    for _, window in raster.block_windows(1):
        block = raster.read(1, window=window)
        block = block[_labeled(raster, block, window)]
        highest = max(highest, int(block.max(initial=0)))
    if highest >= MOST_CLASSES:
        raise SceneError(
            f'{raster.name} holds class {highest}, expected 0 to {MOST_CLASSES - 1}.'
        )
    return [str(index) for index in range(highest + 1)]


def _labeled(
    raster: DatasetReader, values: NDArray[Any], window: Any
) -> NDArray[np.bool_]:
    """Return which pixels of a block hold a class: valid, not 255, not negative."""
    # the mask of a band covers nodata, alpha bands and mask files
    valid = raster.read_masks(1, window=window) > 0
    labeled: NDArray[np.bool_] = valid & (values >= 0) & (values != IGNORED)
    return labeled


def _score(
    predicted: DatasetReader,
    truth: DatasetReader,
    names: list[str],
    table: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Return the scores of a mask, from the confusion of every block."""
    confusion = np.zeros((len(names), len(names)), np.int64)
    without_mask = 0
    count = len(names) if table is None else len(table)
    for _, window in predicted.block_windows(1):
        mask = predicted.read(1, window=window).astype(np.int64)
        reference = truth.read(1, window=window).astype(np.int64)
        known = _labeled(truth, reference, window)
        if known.any() and reference[known].max() >= count:
            raise SceneError(
                f'{truth.name} holds class {reference[known].max()}, but there are '
                f'names of {count} classes. Expected 0 to {count - 1}, or 255 for '
                'pixels without a label.'
            )
        if table is not None:
            reference[known] = table[reference[known]]
        reference[~known] = -1
        found = _labeled(predicted, mask, window) & (mask < len(names))
        without_mask += int((known & ~found).sum())
        mask[~found] = -1
        confusion += confusion_matrix(reference, mask, len(names))
    if not confusion.any():
        raise SceneError(
            f'{truth.name} has no labeled pixel where {predicted.name} has a class.'
        )
    return summarize(confusion, names) | {'pixels_without_mask': without_mask}
