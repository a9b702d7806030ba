"""Small scenes of four kinds of land cover, with the labels that people have of them.

Scenes are Voronoi cells, each of one class with its own spectrum, under haze, noise and
a gain of the scene's own; a window of 48 px shows two or three classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy.spatial import cKDTree

CLASSES = ('Forest', 'Water', 'Croplands', 'Urban/Built-up')
COLORS = ('#009900', '#1c0dff', '#c24f44', '#a5a5a5')
BANDS = ('B02', 'B04', 'B08', 'B11')

#: Reflectance x 10,000 of each class in each band.
SPECTRA = np.array(
    [(300, 250, 3000, 1200), (500, 250, 150, 60), (700, 900, 2600, 2600),
     (1300, 1500, 1900, 2000)], float,
)  # fmt: skip

PIXEL = 10


class LandCover(NamedTuple):
    """A scene on disk, and what is really there."""

    scene: Path
    reference: Path
    classes: NDArray[np.uint8]
    crs: str
    transform: Affine


def write_land_cover(
    folder: Path, name: str, zone: int, seed: int, size: int = 384, cell: int = 40
) -> LandCover:
    """Write a scene ``NAME.tif`` and its classes ``NAME_reference.tif``.

    Args:
        folder: Where to.
        name: Name of the scene.
        zone: Number of its UTM zone, north.
        seed: Seed of what it shows.
        size: Side in pixels.
        cell: Distance between cells' centres in pixels.
    """
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, size, (round(size / cell) ** 2, 2))
    # dealt, not drawn: every class is in every scene, as often
    kinds = rng.permutation(np.arange(len(centres)) % len(CLASSES)).astype(np.uint8)
    places: Any = np.moveaxis(np.indices((size, size)), 0, -1)
    classes = kinds[cKDTree(centres).query(places)[1]]
    image = SPECTRA[classes] * rng.normal(1, 0.05, (1, 1, len(BANDS)))
    image += 100 + rng.normal(0, 120, image.shape)
    crs = f'EPSG:326{zone}'
    transform = Affine(PIXEL, 0, 500_000, 0, -PIXEL, 5_300_000)
    scene, reference = folder / f'{name}.tif', folder / f'{name}_reference.tif'
    pixels = np.moveaxis(image, -1, 0).round().clip(1, 65535).astype(np.uint16)
    write_raster(scene, pixels, crs, transform, descriptions=BANDS)
    write_raster(reference, classes[None], crs, transform, nodata=255)
    return LandCover(scene, reference, classes, crs, transform)


def write_raster(
    path: Path,
    pixels: NDArray[np.generic],
    crs: str,
    transform: Affine,
    nodata: float | None = None,
    descriptions: Sequence[str] | None = None,
) -> Path:
    """Write a tiled, deflated GeoTIFF."""
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=pixels.dtype,
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        crs=crs,
        transform=transform,
        nodata=nodata,
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress='deflate',
    ) as raster:
        raster.write(pixels)
        if descriptions is not None:
            raster.descriptions = tuple(descriptions)
    return path


def write_squares(
    path: Path, scenes: Sequence[LandCover], side: int, gap: int, share: float = 0.1
) -> Path:
    """Write a GeoPackage of squares that say which classes they contain.

    Args:
        path: Written, in longitude and latitude.
        scenes: Scenes that the squares lie on.
        side: Side of a square in pixels.
        gap: Distance between squares in pixels.
        share: Share of a square that makes a class worth a tag.
    """
    frames = []
    for scene in scenes:
        tags, squares = [], []
        for row in range(0, len(scene.classes) - side + 1, side + gap):
            for col in range(0, len(scene.classes) - side + 1, side + gap):
                part = scene.classes[row : row + side, col : col + side]
                shares = np.bincount(part.ravel(), minlength=len(CLASSES)) / part.size
                names = [n for n, s in zip(CLASSES, shares, strict=True) if s >= share]
                tags.append('|'.join(names))
                squares.append(_box(scene.transform, row, col, side))
        frame = gpd.GeoDataFrame({'tags': tags}, geometry=squares, crs=scene.crs)
        frames.append(frame.to_crs('EPSG:4326'))
    pd.concat(frames).to_file(path)
    return path


def _box(transform: Affine, row: int, col: int, side: int) -> shapely.Polygon:
    """Return a square of pixels in the scene's CRS."""
    left, top = transform @ (col, row)
    right, bottom = transform @ (col + side, row + side)
    return shapely.box(left, bottom, right, top)


def write_points(path: Path, scenes: Sequence[LandCover], each: int, seed: int) -> Path:
    """Write a table of *each* random points a scene: lon, lat and class."""
    rng = np.random.default_rng(seed)
    lines = ['lon,lat,land cover']
    for scene in scenes:
        rows, cols = rng.integers(0, len(scene.classes), (2, each))
        x, y = scene.transform @ (cols + 0.5, rows + 0.5)
        points = gpd.GeoSeries(gpd.points_from_xy(x, y), crs=scene.crs).to_crs(4326)
        lines += [
            f'{point.x:.7f},{point.y:.7f},{CLASSES[kind]}'
            for point, kind in zip(points, scene.classes[rows, cols], strict=True)
        ]
    path.write_text('\n'.join(lines) + '\n')
    return path


def write_coarse_map(folder: Path, scene: LandCover, factor: int) -> Path:
    """Write what most of every *factor* × *factor* pixels are, in values 10, 20, …."""
    side = len(scene.classes) // factor
    cells = scene.classes[: side * factor, : side * factor]
    cells = cells.reshape(side, factor, side, factor)
    votes = [(cells == kind).sum(axis=(1, 3)) for kind in range(len(CLASSES))]
    coarse = (10 + 10 * np.argmax(votes, axis=0)).astype(np.uint8)
    transform = scene.transform @ Affine.scale(factor)
    path = folder / f'{scene.scene.stem}_coarse.tif'
    return write_raster(path, coarse[None], scene.crs, transform, nodata=0)
