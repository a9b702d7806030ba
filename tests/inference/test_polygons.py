from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray

from tests.fakes.class_rasters import random_classes, write_classes
from torchgeo_ctm.inference import polygons as module
from torchgeo_ctm.inference.masks import open_mask
from torchgeo_ctm.inference.polygons import polygons


def gdal_polygons(path: Path) -> NDArray[Any]:
    """Every polygon of a small raster as GDAL makes them in one go."""
    with rasterio.open(path) as mask:
        made = rasterio.features.shapes(mask.read(1), transform=mask.transform)
        return np.array(
            [shapely.geometry.shape(s) for s, value in made if value != 255]
        )


def in_order(shapes: NDArray[Any]) -> NDArray[Any]:
    """Polygons and their rings in an order of their own."""
    shapes = shapely.normalize(shapes)
    return shapes[np.argsort(shapely.to_wkb(shapes).astype(object))]


def test_chunks_hold_every_polygon_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_classes(tmp_path / 'a.tif', random_classes(60, 50))
    monkeypatch.setattr(module, 'BATCH', 7)
    monkeypatch.setattr(module, 'CHUNK', 35)
    with open_mask(path) as mask:
        chunks = [chunk for chunk in polygons(mask) if len(chunk)]
    assert [len(chunk) for chunk in chunks[:-1]] == [35] * (len(chunks) - 1)
    assert shapely.equals_exact(np.concatenate(chunks), gdal_polygons(path)).all()


@pytest.mark.parametrize('rows', [1, 2, 3, 7, 50])
@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('seed', range(4))
def test_row_bands_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, classes: int, seed: int
) -> None:
    """Noise: regions that wind, touch themselves at corners, and hold one another."""
    noise = np.random.default_rng(seed).random((53, 41))
    values = (noise * classes).astype(np.uint8)
    values[noise > 0.96] = 255
    # a frame, and a comb whose teeth join in the last row
    values[0], values[:, 0], values[:, -1], values[-1] = 0, 0, 0, 0
    values[5:, 4:20:2] = 1
    values[-2, 4:20] = 1
    path = write_classes(tmp_path / 'a.tif', values)
    monkeypatch.setattr(module, 'ROW_BAND', rows * values.shape[1])
    with open_mask(path) as mask:
        found = np.concatenate(list(polygons(mask)))
    assert shapely.is_valid(found).all()
    assert shapely.equals_exact(in_order(found), in_order(gdal_polygons(path))).all()
