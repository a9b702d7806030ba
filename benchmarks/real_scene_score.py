"""Scores of a map of the real scene: IoU, an interval by blocks, points by eye."""

import csv
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from benchmarks.real_scene_data import CLASSES, FOUR, MERGED, Ground
from torchgeo_ctm.demo.data import POINTS
from torchgeo_ctm.grids import IGNORED

#: Side in pixels of the blocks of ground that the interval draws from.
BLOCK: Final = 64
DRAWS: Final = 1000
#: Distance in pixels from a border of the reference within which errors count as near.
NEAR: Final = 3


def scores(found: NDArray[np.uint8], ground: Ground) -> dict[str, Any]:
    """Return the scores of a map.

    Args:
        found: Map (H, W), indexes of CLASSES.
        ground: The rows that it shows.

    Returns:
        ``miou``, ``iou`` by class and ``miou_interval`` (95 %) of trees, open land,
        built and water at every pixel of these classes; ``miou_five`` and ``iou_five``
        of the five classes where the reference is sure; ``eye``, the accuracy at the
        ``eye_points`` labeled by eye in these rows, or None; ``wrong``, the share of
        the pixels of the four classes that are wrong, and ``wrong_near_border``, the
        share of these within 3 px of a border of the reference. Shares are 0 to 1.
    """
    merged = np.append(MERGED, np.full(IGNORED + 1 - len(MERGED), -1))
    truth, drawn = merged[ground.classes], merged[found]
    blocks = block_confusions(truth, drawn, len(FOUR))
    four = iou(blocks.sum(axis=0))
    sure = np.where(ground.sure == IGNORED, -1, ground.sure.astype(np.int64))
    five = iou(block_confusions(sure, found, len(CLASSES)).sum(axis=0))
    right, points = points_by_eye(drawn, ground.row)
    return {
        'miou': mean(four),
        'miou_interval': interval(blocks),
        'iou': named(FOUR, four),
        'miou_five': mean(five),
        'iou_five': named(CLASSES, five),
        'eye': round(right / points, 4) if points else None,
        'eye_points': points,
        **border_errors(truth, drawn),
    }


def border_errors(truth: NDArray[Any], found: NDArray[Any]) -> dict[str, float | None]:
    """Return the share of wrong pixels, and how many of them are near a border.

    Args:
        truth: Reference (H, W); negative pixels are not counted.
        found: Map (H, W).
    """
    padded = np.pad(truth, 1, mode='edge')
    border = np.zeros(truth.shape, bool)
    for row, col in ((0, 1), (2, 1), (1, 0), (1, 2)):
        height, width = truth.shape
        border |= padded[row : row + height, col : col + width] != truth
    near = border.any() & (distance_transform_edt(~border) < NEAR)
    known = truth >= 0
    wrong = known & (truth != found)
    return {
        'wrong': round(float(wrong.sum() / max(known.sum(), 1)), 4),
        'wrong_near_border': round(float((wrong & near).sum() / wrong.sum()), 4)
        if wrong.any()
        else None,
    }


def block_confusions(
    truth: NDArray[Any], found: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """Count pixels by block, reference and map: (blocks, C, C).

    Args:
        truth: Reference (H, W); negative pixels are not counted.
        found: Map (H, W).
        classes: Number of classes C.
    """
    rows, cols = (np.arange(length) // BLOCK for length in truth.shape)
    block = rows[:, None] * (cols[-1] + 1) + cols
    known = truth >= 0
    index = (block * classes + truth) * classes + found
    size = int(block[-1, -1] + 1) * classes**2
    counts = np.bincount(index[known].astype(np.int64), minlength=size)
    return counts.reshape(-1, classes, classes)


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU of each class of (..., C, C); NaN for one that is in neither."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean over the classes that occur; 0 if none does."""
    return 0.0 if np.isnan(values).all() else round(float(np.nanmean(values)), 4)


def named(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, Any]:
    """Return values by class name; None for a class that does not occur."""
    return {
        name: None if np.isnan(value) else round(float(value), 4)
        for name, value in zip(names, values, strict=True)
    }


def interval(blocks: NDArray[np.int64]) -> list[float]:
    """Return the 95 % interval of mIoU when blocks are drawn anew, with replacement."""
    counted = blocks[blocks.any(axis=(1, 2))]
    if not len(counted):
        return [0.0, 0.0]
    rng = np.random.default_rng(0)
    weights = rng.multinomial(
        len(counted), np.full(len(counted), 1 / len(counted)), DRAWS
    )
    values = iou(np.tensordot(weights, counted, 1))
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(axis=1)
    means = total / np.maximum(present.sum(axis=1), 1)
    return [round(float(value), 4) for value in np.percentile(means, [2.5, 97.5])]


def points_by_eye(
    drawn: NDArray[np.int64], row: int, names: tuple[str, ...] = FOUR
) -> tuple[int, int]:
    """Count the points labeled by eye that a map has right, and all of them.

    Args:
        drawn: Map (H, W), indexes of *names*.
        row: Its first row in the scene.
        names: Names of its classes; points of others do not count.
    """
    right = points = 0
    with POINTS.open(newline='', encoding='utf-8') as table:
        for point in csv.DictReader(table):
            y, x = int(point['row']) - row, int(point['col'])
            inside = 0 <= y < drawn.shape[0] and x < drawn.shape[1]
            if inside and point['label'] in names:
                points += 1
                right += int(drawn[y, x] == names.index(point['label']))
    return right, points
