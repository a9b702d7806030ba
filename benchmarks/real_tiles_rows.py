"""Rows of ``real_tiles.py``: from labeled tiles to a map of another scene."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.real_scene_data import CLASSES, SIDE
from benchmarks.real_scene_unet import turned
from benchmarks.real_tiles_data import GROUPS, LABELS, Tiles
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS

Map = NDArray[np.uint8]
Row = Callable[['TileRun', NDArray[np.float32]], Map]

#: Bands that follow the atmosphere of the day: aerosol, water vapor, cirrus.
ATMOSPHERE: Final = ('B01', 'B09', 'B10')
TEN: Final = [index for index, name in enumerate(BANDS) if name not in ATMOSPHERE]
ALL: Final = list(range(len(BANDS)))
#: How much haze adds to each band, relative to the shortest wavelengths.
HAZE: Final = {
    'B01': 1.0,
    'B02': 0.8,
    'B03': 0.5,
    'B04': 0.35,
    'B05': 0.25,
    'B06': 0.18,
    'B07': 0.14,
    'B08': 0.1,
    'B8A': 0.08,
    'B11': 0.02,
    'B12': 0.01,
}
STEPS: Final = 400
BATCH: Final = 16
#: Probability that a window is mixed, and that each of three parts is replaced.
MIXED, REPLACED = 0.8, 0.7
#: Standard deviation of gain by image and by band.
GAIN, BAND_GAIN = 0.1, 0.05
#: Of the forest: trees, pixels of a tile, pixels in a leaf.
TREES, PIXELS, LEAF = 60, 150, 5

#: Arguments of the task beside bands and scaling.
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

    def statistics(
        self, bands: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of each band over the tiles."""
        values = self.tiles.bands[:, bands]
        return values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))


class MixedTiles(Dataset[dict[str, Tensor]]):
    """Tiles in random orientation and brightness, mixed with other tiles."""

    def __init__(self, run: TileRun, bands: Sequence[int], mixed: bool) -> None:
        """Keep the tiles.

        Args:
            run: Tiles, seed and length.
            bands: Indexes of the bands.
            mixed: Whether windows are mixed; their label is then the union.
        """
        self.bands = torch.from_numpy(run.tiles.bands[:, bands])
        self.labels, self.seed, self.mixed = run.tiles.labels, run.seed, mixed
        self.length = run.steps * BATCH

    def __len__(self) -> int:
        """Return the number of windows of the run."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (bands, 64, 64) and ``label`` (10,)."""
        rng = np.random.default_rng((self.seed, index))
        image, tile = self._tile(rng)
        label = torch.zeros(len(LABELS))
        parts = [tile]
        if self.mixed and rng.random() < MIXED:
            row, col = rng.integers(SIDE // 4, SIDE * 3 // 4, size=2)
            for top, left in ((True, False), (False, True), (False, False)):
                if rng.random() < REPLACED:
                    other, tile = self._tile(rng)
                    rows = slice(None, row) if top else slice(row, None)
                    cols = slice(None, col) if left else slice(col, None)
                    image[:, rows, cols] = other[:, rows, cols]
                    parts.append(tile)
        label[self.labels[parts]] = 1
        gain = 1 + GAIN * rng.standard_normal()
        by_band = 1 + BAND_GAIN * rng.standard_normal((len(image), 1, 1))
        image *= torch.from_numpy(gain * by_band).float()
        return {'image': image, 'label': label}

    def _tile(self, rng: np.random.Generator) -> tuple[Tensor, int]:
        """Draw a tile, in random orientation."""
        tile = int(rng.integers(len(self.labels)))
        return turned(self.bands[tile], int(rng.integers(8))).clone(), tile


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
    bands: Sequence[int], mixed: bool = True, dark: bool = False, dose: float = 0
) -> Row:
    """Return a row: a class-token network, merged by the largest score.

    Args:
        bands: Indexes of the bands.
        mixed: Whether training windows are mixed from several tiles.
        dark: Whether the scene is shifted to the tiles' darkest values.
        dose: How much of the scene's own mean and deviation it is standardized by.
    """

    def build(run: TileRun, scene: NDArray[np.float32]) -> Map:
        # TorchGeo is not needed for the other rows
        from benchmarks.real_scene_tokens import WIDE, fit_task, map_scores

        name = f'ours {len(bands)} {mixed}'
        mean, std = run.statistics(bands)
        if name not in run.trained:
            arguments = TASK | {
                'in_channels': len(bands),
                'bands': [BANDS[index] for index in bands],
                'scaling': {
                    'method': 'standard',
                    'mean': mean.tolist(),
                    'std': std.tolist(),
                },
            }
            chips = MixedTiles(run, bands, mixed)
            run.trained[name] = fit_task(arguments, chips, BATCH, run.seed, run.device)
        image = adapted(run, scene[bands], bands, dark, dose)
        scores = map_scores(
            run.trained[name], torch.from_numpy(image), run.device, WIDE, WIDE // 2
        )
        groups = [np.flatnonzero(index == GROUPS) for index in range(len(CLASSES))]
        merged = torch.stack([scores[group].amax(dim=0) for group in groups])
        return merged.argmax(dim=0).numpy().astype(np.uint8)

    return build


def adapted(
    run: TileRun,
    image: NDArray[np.float32],
    bands: Sequence[int],
    dark: bool,
    dose: float,
) -> NDArray[np.float32]:
    """Return a scene, moved towards the tiles.

    Args:
        run: The tiles.
        image: The scene (bands, H, W).
        bands: Indexes of the bands.
        dark: Subtract the difference of the first percentiles, weighted by how much
            haze adds to each band.
        dose: Standardize by this share of the scene's own mean and deviation, the rest
            being the tiles'.
    """
    tiles = run.tiles.bands[:, bands]
    if dark:
        lowest = np.percentile(image, 1, axis=(1, 2))
        offset = lowest - np.percentile(tiles, 1, axis=(0, 2, 3))
        weight = np.array([HAZE.get(BANDS[index], 0) for index in bands])
        image = image - (weight * offset).astype(np.float32)[:, None, None]
    if dose:
        mean, std = (value[:, None, None] for value in run.statistics(bands))
        own = image.mean(axis=(1, 2), keepdims=True)
        own_std = image.std(axis=(1, 2), keepdims=True)
        center = dose * own + (1 - dose) * mean
        image = (image - center) / (dose * own_std + (1 - dose) * std) * std + mean
    return image.astype(np.float32)


#: Rows by name.
ROWS: Final[dict[str, Row]] = {
    'constant guess': constant,
    'forest, 13 bands': forest(ALL),
    'forest, ten bands': forest(TEN),
    'ours, 13 bands': ours(ALL),
    'ours, ten bands, not mixed': ours(TEN, mixed=False),
    'ours, ten bands': ours(TEN),
    'ours, ten bands, dark': ours(TEN, dark=True),
    'ours, ten bands, dark, scene 0.25': ours(TEN, dark=True, dose=0.25),
}
