"""Rows of ``real_tiles.py``: from labeled tiles to a map of another scene.

Mixing, spectral jitter, scaling, adaptation and merging are the package's own options.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.real_scene_data import CLASSES, COLORS, SIDE
from benchmarks.real_tiles_data import GROUPS, LABELS, Tiles
from torchgeo_ctm.datamodules.augment import augmentation
from torchgeo_ctm.datamodules.spectral import SpectralJitter
from torchgeo_ctm.inference.merging import merging
from torchgeo_ctm.scaling import GROUND_BANDS
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS
from torchgeo_ctm.scenes.adaptation import dark_adaptation

Map = NDArray[np.uint8]
Row = Callable[['TileRun', NDArray[np.float32]], Map]

TEN: Final = [BANDS.index(name) for name in GROUND_BANDS]
ALL: Final = list(range(len(BANDS)))
STEPS: Final = 400
BATCH: Final = 16
#: Probability that a window is mixed, as in configs/eurosat.yaml.
MIXED: Final = 0.8
#: Of the forest: trees, pixels of a tile, pixels in a leaf.
TREES, PIXELS, LEAF = 60, 150, 5

#: Arguments of the task beside bands and scaling, as in configs/eurosat.yaml.
TASK: Final[dict[str, Any]] = {
    'model': 'ctm_vit_tiny_patch8_224',
    'num_classes': len(LABELS),
    'class_names': list(LABELS),
    'img_size': SIDE,
    'mask_rate': 0.5,
    'lr': 2e-3,
    'model_options': {'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
    # a tile with one label is covered by it: the mean asks for all of it
    'patches': {'head': 'local', 'pooling': 'mean', 'balance': 1},
    'attention': {'distillation_weight': 0},
    'maps': {'source': 'patches', 'presence': 'all', 'refinement': None},
}
#: What ``--merge`` takes to turn the ten labels into the classes of the reference.
MERGE: Final = [
    '+'.join(np.array(list(LABELS))[index == GROUPS]) + f'={name}'
    for index, name in enumerate(CLASSES)
]


class TileRun:
    """What a row is made from; rows that share a network train it once."""

    def __init__(
        self, tiles: Tiles, seed: int, device: str = 'cpu', steps: int | None = None
    ) -> None:
        """Keep tiles and budget.

        Args:
            tiles: The labeled tiles.
            seed: Seed of weights and draws.
            device: Device to train and map on.
            steps: Training steps in place of STEPS.
        """
        self.tiles, self.seed, self.device = tiles, seed, device
        self.steps = steps or STEPS
        self.trained: dict[str, Any] = {}

    def scaling(self, bands: Sequence[int], method: str) -> dict[str, Any]:
        """Return the scaling that ``torchgeo-ctm stats`` measures on the tiles."""
        pixels = np.moveaxis(self.tiles.bands[:, bands], 1, 0).reshape(len(bands), -1)
        low, high = np.percentile(pixels, [1, 99], axis=1)
        numbers = {'mean': pixels.mean(axis=1), 'std': pixels.std(axis=1)}
        numbers |= {'low': low, 'high': high}
        return {'method': method} | {key: v.tolist() for key, v in numbers.items()}


class DrawnTiles(Dataset[dict[str, Tensor]]):
    """Tiles in random order, as many as a run trains on."""

    def __init__(self, run: TileRun, bands: Sequence[int]) -> None:
        """Keep the tiles.

        Args:
            run: Tiles, seed and length.
            bands: Indexes of the bands.
        """
        self.bands = torch.from_numpy(run.tiles.bands[:, bands])
        self.labels = torch.from_numpy(run.tiles.labels)
        rng = np.random.default_rng(run.seed)
        self.order = rng.integers(len(self.labels), size=run.steps * BATCH)

    def __len__(self) -> int:
        """Return the number of tiles of the run."""
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (bands, 64, 64) and ``label`` ()."""
        tile = int(self.order[index])
        return {'image': self.bands[tile], 'label': self.labels[tile]}


def constant(run: TileRun, scene: NDArray[np.float32]) -> Map:
    """Return the class of most tiles everywhere."""
    most = np.bincount(GROUPS[run.tiles.labels], minlength=len(CLASSES)).argmax()
    return np.full(scene.shape[1:], int(most), np.uint8)


def forest(bands: Sequence[int]) -> Row:
    """Return a row: a forest that gives every pixel of a tile the tile's class."""

    def build(run: TileRun, scene: NDArray[np.float32]) -> Map:
        name = f'forest {len(bands)}'
        if name not in run.trained:
            rng = np.random.default_rng(run.seed)
            pixels, classes = [], []
            for tile, label in zip(run.tiles.bands, run.tiles.labels, strict=True):
                chosen = rng.choice(SIDE * SIDE, PIXELS, replace=False)
                pixels.append(tile[bands].reshape(len(bands), -1).T[chosen])
                classes.append(np.full(PIXELS, GROUPS[label]))
            learner = RandomForestClassifier(
                TREES, min_samples_leaf=LEAF, random_state=run.seed, n_jobs=1
            )
            run.trained[name] = learner.fit(
                np.concatenate(pixels), np.concatenate(classes)
            )
        flat = scene[bands].reshape(len(bands), -1).T
        parts = np.array_split(flat, max(1, len(flat) // 200_000))
        found = np.concatenate([run.trained[name].predict(part) for part in parts])
        return found.astype(np.uint8).reshape(scene.shape[1:])

    return build


def ours(
    bands: Sequence[int],
    mixed: bool = True,
    jitter: bool = True,
    method: str = 'log',
    adapt: bool = False,
) -> Row:
    """Return a row: a class-token network, merged by the largest score.

    Args:
        bands: Indexes of the bands.
        mixed: Whether training windows are mixed from several tiles.
        jitter: Whether brightness, haze and season of training windows vary.
        method: How bands are scaled.
        adapt: Whether scenes are adapted to the tiles, as with ``--adapt dark``.
    """

    def build(run: TileRun, scene: NDArray[np.float32]) -> Map:
        # TorchGeo is not needed for the other rows
        from benchmarks.real_scene_tokens import WIDE, fit_task, map_scores

        name = f'ours {len(bands)} {mixed} {jitter} {method}'
        names = [BANDS[index] for index in bands]
        if name not in run.trained:
            arguments = TASK | {
                'in_channels': len(bands),
                'bands': names,
                'scaling': run.scaling(bands, method),
            }
            steps = nn.Sequential(
                augmentation(mix_tiles=MIXED * mixed, num_classes=len(LABELS)),
                SpectralJitter(names, float(jitter)),
            )
            chips = DrawnTiles(run, bands)
            run.trained[name] = fit_task(
                arguments, chips, BATCH, run.seed, run.device, steps
            )
        task = run.trained[name]
        image = scene[bands]
        if adapt:
            image = image.copy()
            pixels = image.reshape(len(bands), -1)
            dark_adaptation(pixels, task.scaling.cpu()).apply(image)
        scores = map_scores(
            task, torch.from_numpy(image), run.device, WIDE, WIDE * 3 // 4
        )
        classes = merging(MERGE, list(LABELS), [COLORS[index] for index in GROUPS])
        order = [classes.names.index(name) for name in CLASSES]
        return classes.scores(scores)[order].argmax(dim=0).numpy().astype(np.uint8)

    return build


#: Rows by name.
ROWS: Final[dict[str, Row]] = {
    'constant guess': constant,
    'forest, 13 bands': forest(ALL),
    'forest, ten bands': forest(TEN),
    'ours, ten bands': ours(TEN),
    'ours, ten bands, dark': ours(TEN, adapt=True),
    'ours, 13 bands, dark': ours(ALL, adapt=True),
    'ours, ten bands, not mixed, dark': ours(TEN, mixed=False, adapt=True),
    'ours, ten bands, no jitter, dark': ours(TEN, jitter=False, adapt=True),
    'ours, ten bands, linear, dark': ours(TEN, method='standard', adapt=True),
}
