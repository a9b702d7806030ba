"""Tiny files with labels, as people have them: squares, points, tables, rasters."""

import csv
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_ctm.grids import Grid

#: A corner and pixels of 10 m; zones 32 and 33 meet at 12° E.
TRANSFORM = Affine(10, 0, 700_000, 0, -10, 5_300_000)
UTM32, UTM33 = CRS.from_epsg(32632), CRS.from_epsg(32633)
SCENE = Grid(100, 100, UTM32, TRANSFORM)


def window(row: int, col: int, size: int = 10, scene: Grid = SCENE) -> Grid:
    """Return the grid of a square window of a scene."""
    moved = scene.transform @ Affine.translation(col, row)
    return Grid(size, size, scene.crs, moved)


def square(box: Sequence[float], scene: Grid = SCENE) -> shapely.Polygon:
    """Return a box of a scene's pixels (row, col, row, col) on the ground."""
    row, col, last_row, last_col = box
    pixels = [(col, row), (last_col, row), (last_col, last_row), (col, last_row)]
    return shapely.Polygon([scene.transform @ pixel for pixel in pixels])


def write_features(
    path: Path,
    geometries: Iterable[Any],
    values: Iterable[Any],
    crs: Any = UTM32,
    to_crs: Any = None,
    **kwargs: Any,
) -> Path:
    """Write geometries with an attribute ``class``, moved to another CRS if asked."""
    # None stays None: a column of lists and blanks is no column of text
    column = pd.Series(list(values), dtype=object)
    frame = gpd.GeoDataFrame({'class': column}, geometry=list(geometries), crs=crs)
    if to_crs is not None:
        frame = frame.to_crs(to_crs)
    if path.suffix == '.parquet':
        frame.to_parquet(path)
    else:
        with warnings.catch_warnings():
            # files without a CRS are made on purpose
            warnings.filterwarnings('ignore', "'crs' was not provided")
            frame.to_file(path, **kwargs)
    return path


def write_squares(
    path: Path,
    squares: Sequence[tuple[Sequence[float], Any]],
    scene: Grid = SCENE,
    to_crs: Any = None,
) -> Path:
    """Write squares of a scene's pixels ((row, col, row, col), class)."""
    geometries = [square(box, scene) for box, _ in squares]
    return write_features(path, geometries, [v for _, v in squares], scene.crs, to_crs)


def write_points(
    path: Path,
    points: Sequence[tuple[float, float, Any]],
    scene: Grid = SCENE,
    to_crs: Any = None,
) -> Path:
    """Write points at (row, column) of a scene, with their class."""
    geometries = [shapely.Point(scene.transform @ (col, row)) for row, col, _ in points]
    return write_features(path, geometries, [v for *_, v in points], scene.crs, to_crs)


def write_table(
    path: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    delimiter: str = ',',
    encoding: str = 'utf-8',
) -> Path:
    """Write a table as CSV."""
    with open(path, 'w', newline='', encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_class_raster(
    path: Path,
    values: NDArray[Any],
    transform: Affine = TRANSFORM,
    crs: Any = UTM32,
    nodata: float | None = None,
) -> Path:
    """Write classes (H, W), or bands of them (bands, H, W)."""
    bands = np.atleast_3d(values.T).T if values.ndim == 2 else values
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=bands.dtype,
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as raster:
        raster.write(bands)
    return path


def named(label: Any, classes: Sequence[str]) -> Mapping[str, bool | None] | None:
    """Return a label in words: present, absent, or None where it is unknown."""
    if label is None:
        return None
    triples = zip(classes, label.present, label.known, strict=True)
    return {name: bool(p) if known else None for name, p, known in triples}
