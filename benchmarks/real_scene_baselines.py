"""Yardsticks of the real scene's benchmark that look at one pixel at a time."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from benchmarks.real_scene_data import SIDE, Ground, Windows
from torchgeo_ctm.grids import IGNORED

TREES: Final = 60
LEAF: Final = 10
#: Pixels that a forest learns from, at most.
PIXELS: Final = 60_000
#: Pixels that a forest maps at a time.
CHUNK: Final = 200_000


def constant_map(windows: Windows, scored: Ground) -> NDArray[np.uint8]:
    """Return a map of the class that most windows show."""
    largest = int(windows.tags.sum(axis=0).argmax())
    return np.full(scored.classes.shape, largest, np.uint8)


def tag_forest_map(
    windows: Windows, ground: Ground, scored: Ground, seed: int
) -> NDArray[np.uint8]:
    """Return the map of a forest that learns a window's tags from its pixels.

    A pixel gets the class whose odds rise most over the odds of that tag in all
    windows.
    """
    pixels, number = _pixels(windows, ground, seed)
    tags = windows.tags[number]
    base = tags.mean(axis=0).clip(0.01, 0.99)
    # a tag of every window, or of none, has nothing to learn from
    varies = np.flatnonzero(tags.any(axis=0) & ~tags.all(axis=0))
    if not len(varies):
        return constant_map(windows, scored)
    forest = _forest(seed).fit(ground.bands.reshape(13, -1).T[pixels], tags[:, varies])

    def decide(values: NDArray[Any]) -> NDArray[Any]:
        found = forest.predict_proba(values)
        by_class = found if len(varies) > 1 else [found]
        chance = np.full((len(values), tags.shape[1]), 0.01)
        chance[:, varies] = np.stack([each[:, 1] for each in by_class], axis=1)
        chance = chance.clip(1e-3, 1 - 1e-3)
        gain = np.log(chance / (1 - chance)) - np.log(base / (1 - base))
        gain[:, ~tags.any(axis=0)] = -np.inf
        classes: NDArray[Any] = gain.argmax(axis=1)
        return classes

    return _mapped(decide, scored)


def supervised_forest_map(
    windows: Windows, ground: Ground, scored: Ground, seed: int
) -> NDArray[np.uint8]:
    """Return the map of a forest that learns the reference of the windows' pixels."""
    pixels, _ = _pixels(windows, ground, seed, known=True)
    truth = ground.classes.ravel()[pixels]
    forest = _forest(seed).fit(ground.bands.reshape(13, -1).T[pixels], truth)
    return _mapped(forest.predict, scored)


def _forest(seed: int) -> RandomForestClassifier:
    """Return an untrained forest."""
    return RandomForestClassifier(
        TREES, min_samples_leaf=LEAF, random_state=seed, n_jobs=1
    )


def _pixels(
    windows: Windows, ground: Ground, seed: int, known: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pixels of the windows: their flat index, and the number of their window."""
    rng = np.random.default_rng(seed)
    width = ground.classes.shape[1]
    each = min(PIXELS // len(windows.corners), SIDE * SIDE)
    pixels, number = [], []
    for index, (row, col) in enumerate(windows.corners):
        inside = rng.choice(SIDE * SIDE, each, replace=False)
        pixels.append((row + inside // SIDE) * width + col + inside % SIDE)
        number.append(np.full(each, index))
    flat, owner = np.concatenate(pixels), np.concatenate(number)
    if not known:
        return flat, owner
    keep = ground.classes.ravel()[flat] != IGNORED
    return flat[keep], owner[keep]


def _mapped(decide: Any, scored: Ground) -> NDArray[np.uint8]:
    """Decide the class of every pixel, a part at a time."""
    values = scored.bands.reshape(len(scored.bands), -1).T
    parts = [
        decide(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)
    ]
    return np.concatenate(parts).astype(np.uint8).reshape(scored.classes.shape)
