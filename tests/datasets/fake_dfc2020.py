"""DFC2020 as Copernicus-Bench ships it, with one or two tiles a split."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray


def write_dfc2020(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Write the tiles and lists; return the first label raster of each split.

    The second training tile carries no georeference, as some copies do not.
    """
    folder = root / 'dfc2020_s1s2'
    for sensor in ('s2', 'dfc'):
        (folder / sensor).mkdir(parents=True)
    rng = np.random.default_rng(0)
    first: dict[str, NDArray[np.uint8]] = {}
    number = 0
    for split, count in (('train', 2), ('val', 1), ('test', 1)):
        names = []
        for _ in range(count):
            name = f'ROIs0000_validation_dfc_{number}_p{number}.tif'
            names.append(name)
            blocks = rng.permutation(np.arange(16) % 11).reshape(4, 4)
            labels = blocks.repeat(64, 0).repeat(64, 1).astype(np.uint8)
            image = rng.integers(500, 3000, (13, 256, 256)).astype(np.uint16)
            first.setdefault(split, labels)
            place: dict[str, object] = {
                'crs': 'EPSG:32632',
                'transform': Affine(10, 0, 500_000, 0, -10, 4_200_000 - 2560 * number),
            }
            if split == 'train' and len(names) == 2:
                place = {}
            _write(folder / 's2' / name.replace('dfc', 's2'), image, place)
            _write(folder / 'dfc' / name, labels[None], place)
            number += 1
        (folder / f'dfc-{split}-new.csv').write_text('\n'.join(names) + '\n')
    return first


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
