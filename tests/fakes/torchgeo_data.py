"""TorchGeo's own data sets in the layouts their readers expect, a few chips each."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from torchgeo.datasets import EuroSAT

#: Sides of BigEarthNet's bands in pixels: 10, 20 and 60 m of 1,200 m.
BIGEARTHNET_SIDES = {
    'B01': 20,
    'B02': 120,
    'B03': 120,
    'B04': 120,
    'B05': 60,
    'B06': 60,
    'B07': 60,
    'B08': 120,
    'B8A': 60,
    'B09': 20,
    'B11': 60,
    'B12': 60,
}

#: The seasons of SEN12MS, with a scene of each in the training list.
SEN12MS_SEASONS = (
    'ROIs1158_spring',
    'ROIs1868_summer',
    'ROIs1970_fall',
    'ROIs2017_winter',
)

#: EuroSAT's classes, which are its folders.
EUROSAT_CLASSES = (
    'AnnualCrop',
    'Forest',
    'HerbaceousVegetation',
    'Highway',
    'Industrial',
    'Pasture',
    'PermanentCrop',
    'Residential',
    'River',
    'SeaLake',
)
#: The order of bands in EuroSAT's files.
EUROSAT_BANDS = (*(f'B{number:02d}' for number in range(1, 13)), 'B8A')

#: Values of L8 Biome's masks: fill, cloud shadow, clear, thin cloud, cloud.
L8BIOME_VALUES = (0, 64, 128, 192, 255)


def write_bigearthnet(root: Path) -> dict[str, list[list[str]]]:
    """Write two training patches, one to validate and one to test.

    Returns:
        For each split the labels of its patches, by the names of the 43 classes.
    """
    rng = np.random.default_rng(0)
    labels = {
        'train': [['Sea and ocean', 'Pastures'], ['Coniferous forest']],
        'val': [['Pastures', 'Mixed forest']],
        # burnt areas are none of the 19 classes
        'test': [['Burnt areas', 'Water bodies']],
    }
    number = 0
    root.mkdir(parents=True, exist_ok=True)
    for split, patches in labels.items():
        lines = []
        for names in patches:
            s2 = f'S2A_MSIL2A_20170613T101031_{number}_45'
            s1 = f'S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_45'
            lines.append(f'{s2},{s1}')
            folder = root / 'BigEarthNet-v1.0' / s2
            for band, side in BIGEARTHNET_SIDES.items():
                values = rng.integers(1, 4000, (1, side, side)).astype(np.uint16)
                write_raster(folder / f'{s2}_{band}.tif', values, pixel=1200 / side)
            _write_labels(folder / f'{s2}_labels_metadata.json', names)
            folder = root / 'BigEarthNet-S1-v1.0' / s1
            for band in ('VV', 'VH'):
                decibels = rng.uniform(-25, 0, (1, 120, 120)).astype(np.float32)
                write_raster(folder / f'{s1}_{band}.tif', decibels)
            _write_labels(folder / f'{s1}_labels_metadata.json', names)
            number += 1
        (root / f'bigearthnet-{split}.csv').write_text('\n'.join(lines) + '\n')
    return labels


def write_eurosat(root: Path, size: int = 64) -> None:
    """Write two training tiles, one to validate and one to test of each class.

    Every band holds 100 times its number, and B8A 850, plus noise.
    """
    rng = np.random.default_rng(0)
    levels = [850 if band == 'B8A' else 100 * int(band[1:]) for band in EUROSAT_BANDS]
    folder = root / 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    lists: dict[str, list[str]] = {'train': [], 'val': [], 'test': []}
    for name in EUROSAT_CLASSES:
        for number, split in enumerate(('train', 'train', 'val', 'test'), 1):
            noise = rng.integers(-9, 10, (len(levels), size, size))
            values = (np.array(levels)[:, None, None] + noise).astype(np.uint16)
            write_raster(folder / name / f'{name}_{number}.tif', values)
            lists[split].append(f'{name}_{number}.jpg')
    for split, names in lists.items():
        (root / f'eurosat-{split}.txt').write_text(''.join(f'{n}\n' for n in names))


def write_landcoverai(root: Path, size: int = 64) -> NDArray[np.uint8]:
    """Write two training chips, one to validate, one to test; return all masks.

    The originals are 512 px.
    """
    rng = np.random.default_rng(0)
    (root / 'output').mkdir(parents=True)
    masks = []
    number = 0
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        names = [f'M-33-20-D-c-4-2_{number + i}' for i in range(count)]
        for name in names:
            pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / 'output' / f'{name}.jpg')
            masks.append(blocks(rng, np.arange(5), size))
            Image.fromarray(masks[-1]).save(root / 'output' / f'{name}_m.png')
        (root / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))
        number += count
    return np.stack(masks)


def write_sen12ms(root: Path, size: int = 64) -> dict[str, NDArray[np.uint16]]:
    """Write a training patch of each season and one to test.

    The originals are 256 px.

    Returns:
        The IGBP class (size, size), 1…17, of each patch, by its name in the lists.
    """
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {'train': [], 'test': []}
    classes: dict[str, NDArray[np.uint16]] = {}
    for number, season in enumerate((*SEN12MS_SEASONS, SEN12MS_SEASONS[0])):
        split = 'test' if number == len(SEN12MS_SEASONS) else 'train'
        scene = f'{number + 1}_p30.tif'
        lists[split].append(f'{season}_s2_{scene}')
        cover = np.zeros((4, size, size), np.uint16)
        cover[0] = blocks(rng, np.arange(1, 18), size)
        classes[lists[split][-1]] = cover[0]
        rasters: dict[str, NDArray[np.generic]] = {
            's1': rng.uniform(-25, 0, (2, size, size)).astype(np.float32),
            's2': rng.integers(0, 4000, (13, size, size)).astype(np.uint16),
            'lc': cover,
        }
        for source, values in rasters.items():
            folder = root / season / f'{source}_{number + 1}'
            write_raster(folder / f'{season}_{source}_{scene}', values)
    for split, names in lists.items():
        (root / f'{split}_list.txt').write_text(''.join(f'{n}\n' for n in names))
    return classes


def write_l8biome(root: Path, scenes: int = 5, size: int = 96) -> None:
    """Write scenes side by side, each with a border of fill on its left."""
    rng = np.random.default_rng(0)
    for number in range(scenes):
        name = f'LC8{119 + number:03d}038201412{number}LGN00'
        folder = root / 'barren' / name
        image = rng.integers(5000, 30000, (11, size, size)).astype(np.uint16)
        values = np.array(L8BIOME_VALUES[1:], np.uint8)
        mask = values[blocks(rng, np.arange(4), size)]
        border = size // 8
        image[:, :, :border] = mask[:, :border] = 0
        west = 500_000 + 30 * 2 * size * number
        write_raster(folder / f'{name}.TIF', image, 30, west, nodata=None)
        write_raster(folder / f'{name}_fixedmask.TIF', mask[None], 30, west)


def blocks(
    rng: np.random.Generator, values: NDArray[np.int_], size: int
) -> NDArray[np.uint8]:
    """Return 4 × 4 blocks of classes drawn from *values*, *size* px a side."""
    coarse = rng.choice(values, (4, 4))
    side = size // 4
    return coarse.repeat(side, 0).repeat(side, 1).astype(np.uint8)


def write_raster(
    path: Path,
    values: NDArray[np.generic],
    pixel: float = 10,
    west: float = 500_000,
    nodata: float | None = None,
) -> None:
    """Write a GeoTIFF in UTM zone 32 N, pixels of *pixel* m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=values.dtype,
        count=values.shape[0],
        height=values.shape[1],
        width=values.shape[2],
        crs='EPSG:32632',
        transform=Affine(pixel, 0, west, 0, -pixel, 4_200_000),
        nodata=nodata,
    ) as raster:
        raster.write(values)


def _write_labels(path: Path, names: list[str]) -> None:
    path.write_text(json.dumps({'labels': names}))


def write_coded_eurosat(
    root: Path, values: Callable[[str], NDArray[np.generic]]
) -> None:
    """Write a chip of every class and split, 64 px, in EuroSAT's layout.

    Args:
        root: Folder of the data set.
        values: Returns the pixels (64, 64) of a band, by its name.
    """
    chip = np.stack([values(band) for band in EuroSAT.all_band_names]).astype('u2')
    for number, split in enumerate(EuroSAT.splits):
        names = [f'{name}_{number}' for name in EUROSAT_CLASSES]
        for name in names:
            folder = root / EuroSAT.base_dir / name.rpartition('_')[0]
            write_raster(folder / f'{name}.tif', chip)
        lines = ''.join(f'{name}.jpg\n' for name in names)
        (root / EuroSAT.split_filenames[split]).write_text(lines)
