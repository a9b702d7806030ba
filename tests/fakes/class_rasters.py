"""Class rasters for tests, written without the package."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import zoom

NAMES = ['Forest', 'Water', 'Urban & <Built-up>/Roads', 'Crops']
COLORS = ['#009900', '#1c0dff', '#a5a5a5', '#c24f44']
UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


def random_classes(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Patches of 1 to some hundred pixels, with holes, diagonals and nodata."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(NAMES), (height // 8 + 2, width // 8 + 2))
    values = zoom(coarse, 8, order=0)[:height, :width].astype(np.uint8)
    noise = rng.random((height, width))
    values = np.where(noise < 0.15, rng.integers(0, len(NAMES), values.shape), values)
    values = np.where(noise > 0.97, 255, values)
    values[: height // 5, : width // 4] = 255
    return values.astype(np.uint8)


def write_classes(
    path: Path,
    values: NDArray[Any],
    crs: str | None = 'EPSG:32630',
    transform: Affine = UTM,
    names: list[str] | None = NAMES,
    description: str = 'land cover class',
) -> Path:
    """Write a raster as predict does; without names, a confidence raster."""
    palette = {255: (0, 0, 0, 0)}
    for index, color in enumerate(COLORS):
        red, green, blue = bytes.fromhex(color[1:])
        palette[index] = (red, green, blue, 255)
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=values.dtype,
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        nodata=255,
        crs=crs,
        transform=transform,
    ) as raster:
        raster.set_band_description(1, description)
        if names is not None:
            raster.update_tags(CLASS_NAMES=json.dumps(names))
            raster.write_colormap(1, palette)
        raster.write(values, 1)
    return path
