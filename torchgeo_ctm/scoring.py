"""Compare a mask with a reference raster, block by block."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from .errors import SceneError
from .grids import IGNORED, check_same_grid
from .rasters import grid_of, open_raster, tagged_class_names

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


def evaluate(mask: str | Path, reference: str | Path) -> dict[str, Any]:
    """Score a mask against a reference raster on the same grid.

    Pixels that are nodata, 255 or negative in the reference are left out, and so are
    pixels that are nodata in the mask (counted in ``pixels_without_mask``).

    Args:
        mask: Mask raster, classes 0…C−1; class names are read from its tags.
        reference: Reference raster with the same classes.

    Returns:
        The scores of :func:`summarize`, and ``pixels_without_mask``.

    Raises:
        SceneError: If a raster cannot be read, or the reference has other classes.
        GridError: If the two rasters do not share size, CRS and transform.
    """
    try:
        with _open(mask) as predicted, _open(reference) as truth:
            ours, theirs = grid_of(predicted), grid_of(truth)
            check_same_grid(predicted.name, ours, truth.name, theirs)
            return _score(predicted, truth, class_names(predicted))
    except RasterioError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        raise SceneError(f'Cannot read {mask} and {reference}: {reason}') from error


def _open(path: str | Path) -> DatasetReader:
    """Open a raster of classes."""
    if not Path(path).exists():
        raise SceneError(f'{path} does not exist, expected a raster of classes.')
    raster = open_raster(path)
    if raster.count != 1 or np.dtype(raster.dtypes[0]).kind not in 'iu':
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
    names = tagged_class_names(raster)
    if names is not None:
        return names
    highest = 0
    for _, window in raster.block_windows(1):
        block = raster.read(1, window=window)
        block = block[(block >= 0) & (block != IGNORED)]
        if raster.nodata is not None:
            block = block[block != raster.nodata]
        highest = max(highest, int(block.max(initial=0)))
    if highest >= MOST_CLASSES:
        raise SceneError(
            f'{raster.name} holds class {highest}, expected 0 to {MOST_CLASSES - 1}.'
        )
    return [str(index) for index in range(highest + 1)]


def _score(
    predicted: DatasetReader, truth: DatasetReader, names: list[str]
) -> dict[str, Any]:
    """Return the scores of a mask, from the confusion of every block."""
    confusion = np.zeros((len(names), len(names)), np.int64)
    without_mask = 0
    for _, window in predicted.block_windows(1):
        mask = predicted.read(1, window=window).astype(np.int64)
        reference = truth.read(1, window=window).astype(np.int64)
        known = (reference >= 0) & (reference != IGNORED)
        if truth.nodata is not None:
            known &= reference != truth.nodata
        if known.any() and reference[known].max() >= len(names):
            raise SceneError(
                f'{truth.name} holds class {reference[known].max()}, but '
                f'{predicted.name} has {len(names)} classes. Expected 0 to '
                f'{len(names) - 1}, or 255 for pixels without a label.'
            )
        reference[~known] = -1
        if predicted.nodata is not None:
            mask[mask == predicted.nodata] = -1
        without_mask += int((known & (mask < 0)).sum())
        confusion += confusion_matrix(reference, mask, len(names))
    if not confusion.any():
        raise SceneError(
            f'{truth.name} has no labeled pixel where {predicted.name} has a class.'
        )
    return summarize(confusion, names) | {'pixels_without_mask': without_mask}
