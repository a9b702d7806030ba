"""Tiles with one label, and the scenes that ``real_tiles.py`` maps from them."""

import csv
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_scene_data import SIDE
from torchgeo_ctm.errors import DataError
from torchgeo_ctm.grids import IGNORED

#: EuroSAT's labels, and the class of the scene's reference that each belongs to.
LABELS: Final = {
    'AnnualCrop': 2,
    'Forest': 0,
    'HerbaceousVegetation': 1,
    'Highway': 3,
    'Industrial': 3,
    'Pasture': 1,
    'PermanentCrop': 2,
    'Residential': 3,
    'River': 4,
    'SeaLake': 4,
}
#: Class of each label, (10,).
GROUPS: Final = np.array(list(LABELS.values()))
#: Values of TerraMesh's land cover, and their class; rangeland counts as grass.
TERRAMESH: Final = {2: 0, 9: 1, 4: 2, 5: 3, 1: 4}
MOSAICS: Final = 12
MOSAIC_TILES: Final = 4


class Target(NamedTuple):
    """A scene with truth.

    Attributes:
        bands: Reflectance x 10,000, (13, H, W) float32.
        truth: Indexes of the five classes (H, W) uint8; 255 is ignored.
    """

    bands: NDArray[np.float32]
    truth: NDArray[np.uint8]


class Tiles(NamedTuple):
    """Tiles of one label each.

    Attributes:
        bands: Reflectance x 10,000, (N, 13, 64, 64) float32.
        labels: Index in LABELS (N,).
    """

    bands: NDArray[np.float32]
    labels: NDArray[np.int64]

    def half(self, number: int) -> 'Tiles':
        """Return every other tile of each label: half 0 or 1."""
        chosen = [
            index
            for label in range(len(LABELS))
            for index in np.flatnonzero(self.labels == label)[number::2]
        ]
        return Tiles(self.bands[chosen], self.labels[chosen])

    def mosaics(self) -> list[Target]:
        """Return mosaics of 256 px, cut from tiles at random."""
        rng = np.random.default_rng(0)
        side = MOSAIC_TILES * SIDE
        found = []
        for _ in range(MOSAICS):
            bands = np.zeros((self.bands.shape[1], side, side), np.float32)
            truth = np.zeros((side, side), np.uint8)
            for row in range(0, side, SIDE):
                for col in range(0, side, SIDE):
                    tile = int(rng.integers(len(self.labels)))
                    place = (slice(row, row + SIDE), slice(col, col + SIDE))
                    bands[:, *place] = self.bands[tile]
                    truth[place] = GROUPS[self.labels[tile]]
            found.append(Target(bands, truth))
        return found


def read_tiles(folder: Path) -> Tiles:
    """Read the tiles that ``labels.csv`` of a folder lists.

    Raises:
        DataError: If the folder has no such table.
    """
    import rasterio

    table = folder / 'labels.csv'
    if not table.is_file():
        raise DataError(f'Cannot find {table}. Pass the folder of the EuroSAT tiles.')
    bands, labels = [], []
    with table.open(newline='', encoding='utf-8') as lines:
        for row in csv.DictReader(lines):
            with rasterio.open(folder / row['path']) as raster:
                bands.append(raster.read().astype(np.float32))
            labels.append(list(LABELS).index(row['label']))
    return Tiles(np.stack(bands), np.array(labels))


def read_targets(folder: Path) -> dict[str, list[Target]]:
    """Read the TerraMesh tiles of a folder, without their radiometric offset.

    Raises:
        DataError: If the folder has none.
    """
    import rasterio

    found = []
    for path in sorted(folder.glob('terramesh_*_s2l1c.tif')):
        with rasterio.open(path) as raster:
            offset = float(raster.tags().get('radiometric_offset', 0))
            bands = raster.read().astype(np.float32) - offset
        truth_path = path.with_name(path.name.replace('_s2l1c', '_lulc'))
        with rasterio.open(truth_path) as raster:
            values = raster.read(1)
        truth = np.full(values.shape, IGNORED, np.uint8)
        for value, index in TERRAMESH.items():
            truth[values == value] = index
        found.append(Target(bands, truth))
    if not found:
        raise DataError(
            f'Cannot find terramesh_*_s2l1c.tif in {folder}. Pass the folder of the '
            'TerraMesh tiles.'
        )
    return {'terra': found}
