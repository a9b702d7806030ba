"""DFC2020 as Copernicus-Bench and the contest ship it, with a few tiles."""

from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

#: What tiles say about their places: two zones; one tile nothing; Copernicus-Bench's
#: identity transform beside WGS 84; a copied transform; no CRS.
Georeference = Literal['zones', 'one missing', 'identity', 'same', 'no crs']

#: Upper left corners are no multiples of 10 m, and x crosses 2^19 m inside a tile.
CORNER = (523_000.3, 4_200_000.7)


def write_dfc2020(
    root: Path, georeference: Georeference = 'one missing'
) -> dict[str, NDArray[np.uint8]]:
    """Write Copernicus-Bench's copy; return the first label raster of each split.

    Two tiles to train on, one in each other split; the second carries no
    georeference, as some copies do not.
    """
    folder = root / 'dfc2020_s1s2'
    for sensor in ('s1', 's2', 'dfc'):
        (folder / sensor).mkdir(parents=True)
    rng = np.random.default_rng(0)
    first: dict[str, NDArray[np.uint8]] = {}
    number = 0
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        names = []
        for _ in range(count):
            name = f'ROIs0000_validation_dfc_{number}_p{number}.tif'
            names.append(name)
            labels = draw_labels(rng, 64)
            first.setdefault(split, labels)
            paths = {s: folder / s / name.replace('dfc', s) for s in SENSORS}
            write_tile(paths, labels, rng, place(georeference, number))
            number += 1
        (folder / f'dfc-{split}-new.csv').write_text('\n'.join(names) + '\n')
    return first


def write_contest(
    root: Path,
    validation: int = 11,
    test: int = 4,
    block: int = 8,
    georeference: Georeference = 'zones',
    by_group: bool = False,
) -> None:
    """Write the contest's own layout, tiles of 4 x *block* pixels.

    Tiles take turns in two scenes, 0 and 2; *by_group* names folders after the group,
    ``s2_validation``, with all scenes in one, as some copies do.
    """
    rng = np.random.default_rng(1)
    for group, count in (('validation', validation), ('test', test)):
        for number in range(count):
            scene, patch = 2 * (number % 2), number // 2 * 5
            paths = {}
            for sensor in SENSORS:
                inside = f'{sensor}_{group if by_group else scene}'
                folder = root / f'ROIs0000_{group}' / inside
                folder.mkdir(parents=True, exist_ok=True)
                name = f'ROIs0000_{group}_{sensor}_{scene}_p{patch}.tif'
                paths[sensor] = folder / name
            labels = draw_labels(rng, block)
            write_tile(paths, labels, rng, place(georeference, number))


SENSORS = ('s1', 's2', 'dfc')


def draw_labels(rng: np.random.Generator, block: int) -> NDArray[np.uint8]:
    """Draw 4 x 4 blocks of the source's labels 0…10."""
    blocks = rng.permutation(np.arange(16) % 11).reshape(4, 4)
    labels: NDArray[np.uint8] = blocks.repeat(block, 0).repeat(block, 1).astype('u1')
    return labels


def place(georeference: Georeference, number: int) -> dict[str, object]:
    """Return CRS and transform of a tile: a column of them, south to south."""
    step = 2560 * number
    placed = {
        'crs': 'EPSG:32632',
        'transform': Affine(10, 0, 500_000, 0, -10, 4_200_000 - step),
    }
    if georeference == 'zones':
        placed['crs'] = f'EPSG:3263{2 + number % 2}'
        placed['transform'] = Affine(10, 0, CORNER[0], 0, -10, CORNER[1] - step)
    elif georeference == 'one missing' and number == 1:
        return {}
    elif georeference == 'identity':
        return {'crs': 'EPSG:4326', 'transform': Affine.identity()}
    elif georeference == 'same':
        placed['transform'] = Affine(10, 0, 500_000, 0, -10, 4_200_000)
    elif georeference == 'no crs':
        del placed['crs']
    return placed


def write_tile(
    paths: dict[str, Path],
    labels: NDArray[np.uint8],
    rng: np.random.Generator,
    placed: dict[str, object],
) -> None:
    """Write reflectances, labels and, in decibels of float64, Sentinel-1."""
    image = rng.integers(500, 3000, (13, *labels.shape)).astype(np.uint16)
    # of its own generator, so that the other sensor's numbers do not depend on it
    backscatter = np.random.default_rng(int(image[0, 0, 0]))
    radar = backscatter.uniform(-40, 5, (2, *labels.shape))
    for sensor, values in (('s1', radar), ('s2', image), ('dfc', labels[None])):
        _write(paths[sensor], values, placed)


def _write(path: Path, values: NDArray[np.generic], place: dict[str, object]) -> None:
    count, height, width = values.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=values.dtype,
        count=count,
        height=height,
        width=width,
        **place,
    ) as raster:
        raster.write(values)
