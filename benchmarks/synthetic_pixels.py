"""How far single pixels go on SyntheticLandCover: random forests, scored on test tiles.

Prints JSON: per row the mIoU over all test pixels and over those at least 5 pixels from
a border, where no neighbourhood reaches into another class. Takes about ten minutes
on two cores; nothing is downloaded.
"""

import argparse
import json
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from sklearn.ensemble import RandomForestClassifier

from torchgeo_ctm.datasets.synthetic import SyntheticLandCover

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Tiles = list[tuple[Floats, Labels]]

CLASSES = len(SyntheticLandCover.classes)
#: Row of the report → widths in pixels of the neighbourhoods that the forest sees.
FORESTS = {
    'random forest, pixel': (),
    'random forest, pixel and 3 x 3': (3,),
    'random forest, pixel, 3 x 3 and 7 x 7': (3, 7),
}


def describe(image: Floats, windows: Sequence[int]) -> Floats:
    """Return the features of every pixel, (H * W, features).

    They are the bands of *image* (bands, H, W) and, for each of *windows* (pixels), the
    mean and the standard deviation of every band in that neighbourhood.
    """
    features = [image]
    for window in windows:
        size = (1, window, window)
        mean = uniform_filter(image, size)
        variance = uniform_filter(image**2, size) - mean**2
        features += [mean, np.sqrt(variance.clip(0))]
    return np.concatenate(features).reshape(-1, image[0].size).T


def confusion(mask: Labels, predicted: Labels) -> Labels:
    """Count pixels by true (row) and predicted (column) class."""
    pairs = np.bincount(mask * CLASSES + predicted, minlength=CLASSES**2)
    return pairs.reshape(CLASSES, CLASSES)


def mean_iou(counts: Labels) -> float:
    """Return the mean intersection over union of a confusion matrix."""
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return float(np.mean(hits / np.maximum(union, 1)))


def score_forest(
    train: Tiles,
    test: Tiles,
    windows: Sequence[int],
    pixels: int,
    trees: int,
    seed: int,
) -> dict[str, Any]:
    """Fit a forest on pixels of *train*, drawn alike from every tile; score *test*."""
    rng = np.random.default_rng(seed)
    features, targets = [], []
    for image, mask in train:
        chosen = rng.choice(mask.size, min(mask.size, pixels // len(train)), False)
        features.append(describe(image, windows)[chosen])
        targets.append(mask.ravel()[chosen])
    # leaves of one pixel would learn noise and fill the memory
    forest = RandomForestClassifier(
        trees, min_samples_leaf=5, n_jobs=-1, random_state=seed
    )
    forest.fit(np.concatenate(features), np.concatenate(targets))
    everywhere = np.zeros((CLASSES, CLASSES), np.int64)
    inside = everywhere.copy()
    for image, mask in test:
        predicted = forest.predict(describe(image, windows)).reshape(mask.shape)
        far = minimum_filter(mask, 9) == maximum_filter(mask, 9)
        everywhere += confusion(mask.ravel(), predicted.ravel())
        inside += confusion(mask[far], predicted[far])
    return {'mIoU': mean_iou(everywhere), 'mIoU away from borders': mean_iou(inside)}


def score_constant(test: Tiles) -> dict[str, Any]:
    """Score the best constant guess: the class that fills most of *test* itself."""
    shares = np.bincount(np.concatenate([mask.ravel() for _, mask in test]))
    return {'mIoU': float(shares.max() / shares.sum() / CLASSES)}


def read(root: str, split: Literal['train', 'test'], **settings: Any) -> Tiles:
    """Return image (13, H, W) and mask (H, W) of every tile of a split."""
    dataset = SyntheticLandCover(root, split, **settings)
    samples = (dataset[index] for index in range(len(dataset)))
    return [(sample['image'].numpy(), sample['mask'].numpy()) for sample in samples]


def main() -> None:
    """Draw the data set, score the guesses and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pixels', type=int, default=100_000, help='to train on')
    parser.add_argument('--trees', type=int, default=100, help='in each forest')
    parser.add_argument('--seed', type=int, default=0, help='of tiles and forests')
    parser.add_argument('--num-tiles', type=int, nargs=3, default=(600, 100, 100))
    options = parser.parse_args()
    settings = {'num_tiles': options.num_tiles, 'seed': options.seed}
    with TemporaryDirectory() as root:
        start = time.perf_counter()
        SyntheticLandCover(root, **settings)
        seconds = time.perf_counter() - start
        train = read(root, 'train', **settings)
        test = read(root, 'test', **settings)
    rows = {'constant': score_constant(test)}
    for name, windows in FORESTS.items():
        rows[name] = score_forest(
            train, test, windows, options.pixels, options.trees, options.seed
        )
    report = vars(options) | {'seconds to draw': seconds, 'rows': rows}
    print(json.dumps(report, indent=2))


if __name__ == '__main__':
    main()
