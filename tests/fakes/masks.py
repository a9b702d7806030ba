"""Images and masks of one ground, written as the package itself writes masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from torchgeo_ctm.grids import Grid
from torchgeo_ctm.inference.geotiff import RasterRows
from torchgeo_ctm.inference.paths import product_path
from torchgeo_ctm.scaling import SENTINEL2_BANDS

CLASSES = ('Forest', 'Water', 'Urban/Built-up')
COLORS = ('#009900', '#1c0dff', '#a5a5a5')
ZONE = 'EPSG:32632'


def place(left: float = 600_000, top: float = 5_000_000) -> Affine:
    """The transform of a raster of 10 m pixels with this corner."""
    return Affine(10, 0, left, 0, -10, top)


def write_mask(
    path: Path,
    classes: NDArray[np.integer[Any]],
    transform: Affine | None = None,
    crs: str | None = ZONE,
    confidence: NDArray[np.integer[Any]] | None = None,
    scene: str | None = None,
    names: Sequence[str] = CLASSES,
    colors: Sequence[str] = COLORS,
) -> Path:
    """Write a mask (H, W) and, if given, its confidence in per cent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = None if crs is None else rasterio.CRS.from_string(crs)
    grid = Grid(classes.shape[0], classes.shape[1], known, transform or place())
    tags = {} if scene is None else {'SCENE': scene}
    layers: list[tuple[Path, Any, str, Any]] = [
        (path, classes, 'land cover class', (names, colors))
    ]
    if confidence is not None:
        beside = product_path(path, 'confidence')
        layers.append((beside, confidence, 'confidence, per cent', None))
    for target, values, description, legend in layers:
        raster = RasterRows(target, grid, [description], tags, legend)
        raster.write(0, values.astype(np.uint8))
        raster.finish('mode')
        raster.publish()
    return path


def write_image(
    path: Path,
    pixels: NDArray[Any],
    transform: Affine | None = None,
    crs: str = ZONE,
    bands: Sequence[str] = SENTINEL2_BANDS,
    nodata: float | None = None,
) -> Path:
    """Write an image (bands, H, W) with named bands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=pixels.dtype,
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        crs=crs,
        transform=transform or place(),
        nodata=nodata,
    ) as raster:
        raster.write(pixels)
        raster.descriptions = tuple(bands)
    return path


def coded(
    height: int, width: int, first: int = 0
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """An image whose every pixel tells its place, and a mask that follows from it.

    Band b of pixel n (counted from *first*) holds n + b; the mask holds n modulo 3.
    """
    number = first + np.arange(height * width).reshape(height, width)
    bands = np.arange(len(SENTINEL2_BANDS))[:, None, None]
    return (number + bands).astype(np.uint16), (number % 3).astype(np.uint8)
