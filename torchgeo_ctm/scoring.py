"""Compare a mask with a reference raster, block by block."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow
from scipy.optimize import linear_sum_assignment

from .errors import (
    GridError,
    LabelWarning,
    Note,
    SceneError,
    SettingError,
    check_names,
    name_key,
)
from .grids import IGNORED, check_same_grid
from .legends import renamed
from .rasters import (
    CONFIDENCE,
    grid_of,
    open_raster,
    tagged_class_names,
    value_names,
    warn_of_control_points,
    warn_of_nodata_class,
)

#: Share of the pixels by which another order of classes must fit better to be said, where
#: they are compared by name and by number.
BETTER, BETTER_NUMBERS = 0.25, 0.05
#: Classes that are compared at most.
MOST_CLASSES = 4096
#: Class of a value that has none.
UNKNOWN = -2
#: Suffixes of files of points and polygons.
VECTORS = ('.gpkg', '.geojson', '.json', '.shp', '.fgb', '.parquet', '.kml')


def iou_from_confusion(confusion: NDArray[np.int64]) -> list[float | None]:
    """Return the intersection over union of each class.

    Args:
        confusion: Pixel counts (C, C), rows reference, columns mask.

    Returns:
        IoU 0…1 of each class; None for a class in neither raster.
    """
    hits = np.diag(confusion)
    return _ratios(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def _ratios(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> list[float | None]:
    """Return parts / wholes, None for a whole of 0."""
    return [
        float(part / whole) if whole else None
        for part, whole in zip(parts, wholes, strict=True)
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
        the reference's classes), ``users_accuracy`` (precision), ``producers_accuracy``
        (recall) and ``f1`` by class, ``macro_f1`` (mean over classes that occur in
        either raster), ``weighted_f1`` (weighted by the reference's pixels),
        ``confusion`` (rows reference, columns mask) and ``pixels``. Scores are 0…1.
    """
    total = int(confusion.sum())
    hits = np.diag(confusion)
    drawn, true = confusion.sum(axis=0), confusion.sum(axis=1)
    iou = iou_from_confusion(confusion)
    recall, f1 = _ratios(hits, true), _ratios(2 * hits, drawn + true)
    by_class = {'users_accuracy': _ratios(hits, drawn), 'producers_accuracy': recall}
    weighted = sum((f or 0) * weight for f, weight in zip(f1, true, strict=True))
    return {
        'miou': mean_of_known(iou),
        'iou': dict(zip(names, iou, strict=True)),
        'pixel_accuracy': float(hits.sum() / total) if total else 0.0,
        'average_accuracy': mean_of_known(recall),
        **{
            score: dict(zip(names, values, strict=True))
            for score, values in (by_class | {'f1': f1}).items()
        },
        'macro_f1': mean_of_known(f1),
        'weighted_f1': float(weighted / total) if total else 0.0,
        'confusion': confusion.tolist(),
        'pixels': total,
    }


def cohens_kappa(confusion: NDArray[np.int64]) -> float:
    """Return Cohen's kappa of a confusion matrix (C, C); 1 if both have one class.

    It adds nothing to accuracy and the confusion matrix (Pontius and Millones, 2011,
    https://doi.org/10.1080/01431161.2011.552923), but is still asked for.
    """
    total = confusion.sum()
    chance = float(confusion.sum(axis=0) @ (confusion.sum(axis=1) / total) / total)
    accuracy = float(np.trace(confusion) / total)
    return 1.0 if chance == 1 else (accuracy - chance) / (1 - chance)


def summarise(confusion: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """Return :func:`summarize`, under its old name."""
    warnings.warn('summarise is now summarize', DeprecationWarning, stacklevel=2)
    return summarize(confusion, names)


def evaluate(
    mask: str | Path,
    reference: str | Path,
    classes: Sequence[str] | None = None,
    *,
    class_map: Sequence[str] | None = None,
    align: bool = False,
    band: int | None = None,
) -> dict[str, Any]:
    """Score a mask against a reference raster.

    Classes are compared by name where both rasters name them, else by number. Pixels
    that are nodata, masked, 255 or negative in the reference are left out, and so are
    pixels without a class in the mask (counted in ``pixels_without_mask``).

    Args:
        mask: Class raster; class names are read from its tags.
        reference: Reference raster; class names are read from its tags.
        classes: Names of the reference's values 0, 1, 2, …; None: its own.
        class_map: Names of the reference's values: see :func:`.legends.renamed`.
        align: Bring a reference with another grid or CRS to the grid of the mask, by
            nearest neighbor.
        band: Band of the reference with the classes, 1, 2, …; None: the only one.

    Returns:
        The scores of :func:`summarize`, and ``pixels_without_mask``. Classes that only
        the reference has are added.

    Raises:
        SceneError: If a raster cannot be read, or the reference has other classes.
        SettingError: If *classes* names a class twice, or *class_map* an unknown one.
        GridError: If the two rasters do not share size, CRS and transform.
    """
    try:
        with (
            _open(mask) as predicted,
            _open(reference, band) as truth,
            _on_grid(truth, predicted, align) as aligned,
        ):
            legends = _legends(predicted, truth, classes, class_map)
            confusion, without_mask = _count(
                predicted, aligned, band or 1, legends, str(reference)
            )
    except RasterioError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        raise SceneError(f'Cannot read {mask} and {reference}: {reason}') from error
    if not confusion.any():
        raise SceneError(f'{reference} has no labeled pixel where {mask} has a class.')
    _warn_about_names(confusion, legends, str(mask), str(reference))
    scores = summarize(confusion, legends.names)
    return scores | {'pixels_without_mask': without_mask}


def reference_classes(
    mask: str | Path,
    reference: str | Path,
    classes: Sequence[str] | None = None,
    *,
    class_map: Sequence[str] | None = None,
    align: bool = False,
    band: int | None = None,
) -> NDArray[np.int64]:
    """Read a reference raster with the class indices of a mask, matched by name.

    Classes are matched as :func:`evaluate` does, with the same arguments and errors.

    Returns:
        (H, W) on the grid of the mask, −1 where the reference has no label, or a class
        that the mask does not have.
    """
    with (
        _open(mask) as predicted,
        _open(reference, band) as truth,
        _on_grid(truth, predicted, align) as aligned,
    ):
        legends = _legends(predicted, truth, classes, class_map)
        window = RasterWindow(0, 0, predicted.width, predicted.height)
        values = aligned.read(band or 1).astype(np.int64)
        known = _labeled(aligned, values, window, band or 1)
    indices = np.full(len(legends.names) + 1, -1)
    own = np.flatnonzero(legends.mask >= 0)
    indices[legends.mask[own]] = own
    found = np.full(values.shape, -1)
    # −1 and UNKNOWN become the last place
    place = _classes(legends.reference, values[known])
    found[known] = indices[np.where(place < 0, len(legends.names), place)]
    return found


class _Legends(NamedTuple):
    """The classes that are compared, and the class of each value of two rasters.

    A class of −1 does not count; :data:`UNKNOWN` belongs to a value without a class.
    """

    names: list[str]
    mask: NDArray[np.int64]
    reference: NDArray[np.int64]
    #: Whether classes were compared by name.
    by_name: bool
    #: How to name the values of the reference.
    advice: str
    #: Whether the mask names its classes.
    named: bool


def _legends(
    predicted: DatasetReader,
    truth: DatasetReader,
    classes: Sequence[str] | None,
    class_map: Sequence[str] | None,
) -> _Legends:
    """Return the classes of a mask and its reference."""
    ours, theirs = value_names(predicted), value_names(truth)
    if ours is not None:
        check_names([*ours.values()], SceneError, predicted.name)
    if classes is not None:
        check_names(classes, SettingError, truth.name)
        theirs = dict(enumerate(classes))
    elif theirs is not None:
        check_names([*theirs.values()], SceneError, truth.name)
    named: dict[int, str | None] | None = None if theirs is None else {**theirs}
    if class_map:
        named = renamed(class_map, theirs)
    if ours is None:
        ours = dict(enumerate(class_names(predicted)))
        if classes is not None and len(classes) < len(ours):
            raise SceneError(
                f'{predicted.name} holds class {len(ours) - 1}, but there are names of '
                f'{len(classes)} classes. Expected 0 to {len(classes) - 1}.'
            )
        if class_map:
            raise SceneError(
                f'{predicted.name} does not name its classes, so that class_map cannot '
                'refer to them. Name them first with relabel --class_map.'
            )
        named = None
    own_names = value_names(predicted) is not None
    by_name = named is not None
    if named is None:
        named = {**ours}
    index: dict[str, int] = {}
    for name in (*ours.values(), *named.values()):
        if name is not None:
            index.setdefault(name_key(name), len(index))
    spelled = {name_key(n): n for n in (*named.values(), *ours.values()) if n}
    tables = [
        _table({v: -1 if n is None else index[name_key(n)] for v, n in each.items()})
        for each in (ours, named)
    ]
    advice = 'Name its classes with classes= or class_map=.'
    if classes is not None:
        advice = (
            'Names in classes= are for 0, 1, 2, …: name other values in class_map=.'
        )
    return _Legends(
        [spelled[key] for key in index],
        tables[0],
        tables[1],
        by_name,
        advice,
        own_names,
    )


def _table(classes: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the class of each value from 0 on."""
    table = np.full(max((v for v in classes if v >= 0), default=-1) + 1, UNKNOWN)
    for value, index in classes.items():
        if value >= 0:
            table[value] = index
    return table


def _classes(table: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class of each pixel, :data:`UNKNOWN` for values without one."""
    found: NDArray[np.int64] = np.append(table, UNKNOWN)[np.minimum(values, len(table))]
    return found


def _warn_about_names(
    confusion: NDArray[np.int64], legends: _Legends, mask: str, reference: str
) -> None:
    """Warn of classes that only one raster has, and of their order."""
    drawn, true = confusion.sum(axis=0), confusion.sum(axis=1)
    unknown = set(range(len(drawn))) - set(legends.mask.tolist())
    missing = [n for i, n in enumerate(legends.names) if true[i] and i in unknown]
    if missing and legends.by_name:
        likely = confusion[legends.names.index(missing[0])].argmax()
        warnings.warn(
            f'{mask} has no class {", ".join(map(repr, missing))} of {reference}: their '
            f'{true[sorted(unknown)].sum() / true.sum():.0%} of the pixels count as '
            f'wrong. Pair them in class_map=, as "{missing[0]}={legends.names[likely]}", or '
            f'leave them out, as "{missing[0]}=".',
            LabelWarning,
            stacklevel=3,
        )
    absent = [n for i, n in enumerate(legends.names) if drawn[i] and not true[i]]
    if absent:
        iou = iou_from_confusion(confusion)
        shared = mean_of_known([v for v, n in zip(iou, true, strict=True) if n])
        warnings.warn(
            f'{reference} has no {", ".join(map(repr, absent))}: they count as 0 in miou, '
            f'which is {shared:.3f} without them.',
            LabelWarning,
            stacklevel=3,
        )
    _warn_about_order(confusion, legends, mask, reference)


def best_order(
    confusion: NDArray[np.int64],
) -> tuple[float, float, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return how well classes agree as they are, and in the order that fits best.

    Args:
        confusion: Pixels of each true class (rows) and mapped class (columns).

    Returns:
        The share that agrees, the largest share of any order, and rows and columns
        of that order.
    """
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    total = max(1, int(confusion.sum()))
    found = float(np.trace(confusion) / total)
    return found, float(confusion[rows, columns].sum() / total), (rows, columns)


def _warn_about_order(
    confusion: NDArray[np.int64], legends: _Legends, mask: str, reference: str
) -> None:
    """Warn if another order of classes fits better, or tell the order of numbers."""
    drawn, true = confusion.sum(axis=0), confusion.sum(axis=1)
    # the reference as it spells its classes: by name, or by the value of each
    values = legends.names
    if not legends.by_name:
        known = np.flatnonzero(legends.reference >= 0).tolist()
        by_class = {int(legends.reference[value]): str(value) for value in known}
        values = [by_class.get(i, name) for i, name in enumerate(legends.names)]
    found, best, (rows, columns) = best_order(confusion)
    least = BETTER if legends.by_name else BETTER_NUMBERS
    if min((drawn > 0).sum(), (true > 0).sum()) < 2 or best - found < least:
        if legends.named and not legends.by_name:
            seen = np.flatnonzero(true).tolist()
            order = [f'{values[index]} as {legends.names[index]}' for index in seen]
            warnings.warn(
                f'{reference} does not name its classes. Its values are compared with '
                f'those of {mask}: {", ".join(order[:9])}. {legends.advice}',
                Note,
                stacklevel=4,
            )
        return
    order = [
        f'{values[row]} as {legends.names[column]}'
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if row != column and confusion[row, column]
    ]
    unnamed = reference if legends.named else mask
    if legends.by_name:
        problem, what = 'Classes were compared by name, but', 'class'
        advice = 'Check the names, or pass others as class_map=.'
    else:
        problem, what = f'{unnamed} does not name its classes, and', 'value'
        advice = legends.advice
        if not legends.named:
            advice = (
                'Name them with relabel --class_map, or exchange both if it is the '
                'reference.'
            )
    warnings.warn(
        f'{problem} another order fits better ({best:.0%} instead of {found:.0%} of '
        f'the pixels agree): {what} {", ".join(order[:5])}. {advice}',
        LabelWarning,
        stacklevel=4,
    )


@contextmanager
def _on_grid(
    truth: DatasetReader, predicted: DatasetReader, align: bool
) -> Iterator[DatasetReader]:
    """Yield the reference on the grid of the mask."""
    ours, theirs = grid_of(predicted), grid_of(truth)
    try:
        check_same_grid(predicted.name, ours, truth.name, theirs)
    except GridError as error:
        if not align:
            raise GridError(
                f'{str(error).rpartition(" Warp one")[0]} Pass align=True to bring the '
                'reference to the grid of the mask.'
            ) from error
    else:
        yield truth
        return
    for name, grid in ((predicted.name, ours), (truth.name, theirs)):
        if grid.crs is None or grid.transform.is_identity:
            raise GridError(
                f'{name} has no georeference, so align=True cannot know where it lies. '
                'Assign one with gdal_edit.py -a_srs … -a_ullr …'
            )
    options: dict[str, Any] = {
        'crs': ours.crs,
        'transform': ours.transform,
        'height': ours.height,
        'width': ours.width,
        'resampling': Resampling.nearest,
        # GDAL approximates positions, by default to an eighth of a pixel
        'tolerance': 1e-3,
        # without nodata, alpha tells where the reference ends
        'add_alpha': truth.nodata is None
        and truth.colorinterp[-1] != ColorInterp.alpha,
    }
    try:
        aligned = WarpedVRT(truth, **options)
    except Exception as error:  # CRSs without a way between them: rasterio's own base
        reason = str(error).splitlines()[0]
        raise GridError(
            f'{truth.name} cannot be brought to the grid of {predicted.name}: {reason}'
        ) from error
    with aligned:
        yield aligned


def _open(path: str | Path, band: int | None = None) -> DatasetReader:
    """Open a raster of classes, which may have an alpha band beside it."""
    if not Path(path).exists():
        raise SceneError(f'{path} does not exist, expected a raster of classes.')
    try:
        raster = open_raster(path)
    except SceneError as error:
        if Path(path).suffix.lower() not in VECTORS:
            raise
        raise SceneError(
            f'{path} is a vector file, expected a raster of classes. For labeled points '
            'use the command assess: sample draws them, assess scores the map by them.'
        ) from error
    count, dtype = raster.count, raster.dtypes[(band or 1) - 1 : band or 1]
    alpha = count == 2 and raster.colorinterp[1] is ColorInterp.alpha
    fault = None
    if band is not None and not 1 <= band <= count:
        fault = f'{path} has {count} band{"s" * (count > 1)}, expected band={band}.'
    elif np.dtype(dtype[0]).kind not in 'iu':
        fault = (
            f'{path} has {count} band{"s" * (count > 1)} of {dtype[0]}, expected 1 band '
            'of integer classes. Convert it with gdal_translate -ot Byte.'
        )
    elif band is None and count != 1 and not alpha:
        fault = (
            f'{path} has {count} bands, expected 1 band of integer classes. Choose one '
            'of the reference with band=, of a mask with gdal_translate -b.'
        )
    elif raster.descriptions[0] == CONFIDENCE:
        fault = f'{path} holds confidence in percent, expected classes.'
    if fault is not None:
        raster.close()
        raise SceneError(fault)
    warn_of_control_points(raster, str(path))
    if band is None:
        warn_of_nodata_class(raster)
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
    raster: DatasetReader, values: NDArray[Any], window: Any, band: int = 1
) -> NDArray[np.bool_]:
    """Return which pixels of a block hold a class: valid, not 255, not negative."""
    # the mask of a band covers nodata, alpha bands and mask files
    valid = raster.read_masks(band, window=window) > 0
    if raster.count > 1 and raster.colorinterp[-1] is ColorInterp.alpha:
        # GDAL takes alpha for a mask in unsigned rasters alone
        valid &= raster.read(raster.count, window=window) > 0
    labeled: NDArray[np.bool_] = valid & (values >= 0) & (values != IGNORED)
    return labeled


def _count(
    predicted: DatasetReader,
    truth: DatasetReader,
    band: int,
    legends: _Legends,
    name: str,
) -> tuple[NDArray[np.int64], int]:
    """Return the confusion matrix, and the pixels that the mask leaves out."""
    count = len(legends.names)
    confusion = np.zeros((count, count), np.int64)
    without_mask = 0
    for _, window in predicted.block_windows(1):
        mask = predicted.read(1, window=window).astype(np.int64)
        values = truth.read(band, window=window).astype(np.int64)
        known = _labeled(truth, values, window, band)
        reference = np.full(values.shape, -1)
        reference[known] = _classes(legends.reference, values[known])
        if (reference == UNKNOWN).any():
            classes = np.flatnonzero(legends.reference != UNKNOWN)
            shown = ', '.join(map(str, classes[:12])) + ', …' * (len(classes) > 12)
            raise SceneError(
                f'{name} holds class {values[reference == UNKNOWN].max()}, '
                f'expected {shown}, or 255 for pixels without a label. {legends.advice}'
            )
        found = _labeled(predicted, mask, window)
        found[found] = _classes(legends.mask, mask[found]) >= 0
        without_mask += int((reference[~found] >= 0).sum())
        mask[found] = _classes(legends.mask, mask[found])
        mask[~found] = -1
        confusion += confusion_matrix(reference, mask, count)
    return confusion, without_mask
