"""Longitudes of -180 to 180 and of 0 to 360 degrees are the same places."""

from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from tests.fakes.bad_inputs import write_raster
from torchgeo_ctm.errors import GridError
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.inference.stac import check_location
from torchgeo_ctm.labels import PointLabels, PolygonLabels, RasterLabels
from torchgeo_ctm.labels.source import LabelSource

CLASSES = ['Forest', 'Water']
PIXEL = 0.001


def source(kind: str, folder: Path, west: float) -> LabelSource:
    """Write labels of 64 px: Water in the eastern half, Forest in the western one."""
    if kind == 'raster':
        values = np.zeros((1, 64, 64), np.uint8)
        values[:, :, 32:] = 1
        transform = Affine(PIXEL, 0, west, 0, -PIXEL, 10)
        path = write_raster(
            folder / 'l.tif', values, crs='EPSG:4326', transform=transform
        )
        return RasterLabels(path, dict(enumerate(CLASSES)))
    halves = [west, west + 32 * PIXEL, west + 64 * PIXEL]
    if kind == 'polygons':
        boxes = [shapely.box(a, 10 - 64 * PIXEL, b, 10) for a, b in pairwise(halves)]
        frame = gpd.GeoDataFrame({'class': CLASSES}, geometry=boxes, crs='EPSG:4326')
        frame.to_file(folder / 'l.gpkg')
        return PolygonLabels(folder / 'l.gpkg', 'class', CLASSES)
    rows = [
        f'{x + 0.016},9.97,{name}' for x, name in zip(halves, CLASSES, strict=False)
    ]
    (folder / 'l.csv').write_text('\n'.join(['lon,lat,class', *rows]))
    return PointLabels(folder / 'l.csv', 'class', CLASSES)


@pytest.mark.parametrize('kind', ['raster', 'polygons', 'points'])
@pytest.mark.parametrize(
    ('labels', 'scene'),
    [(350, 350), (350, -10), (-10, 350), (179.95, -180.05), (-180.05, 179.95)],
)
def test_labels_are_found_a_full_turn_away(
    labels: float, scene: float, kind: str, tmp_path: Path
) -> None:
    found = source(kind, tmp_path, labels)
    crs = rasterio.crs.CRS.from_epsg(4326)
    for column, name in enumerate(CLASSES):
        place = Affine(PIXEL, 0, scene + 32 * column * PIXEL, 0, -PIXEL, 10)
        label = found.label(Grid(64, 32, crs, place))
        assert label is not None
        assert label.present.tolist() == [name == each for each in CLASSES]


@pytest.mark.parametrize('crs', ['EPSG:3857', '+proj=longlat +a=1737400 +b=1737400'])
def test_corners_off_the_earth_are_refused(crs: str) -> None:
    far = (
        Affine(1e6, 0, -5e7, 0, -1e6, 5e7) if crs == 'EPSG:3857' else Affine.scale(0.1)
    )
    grid = Grid(96, 96, rasterio.crs.CRS.from_user_input(crs), far)
    with pytest.raises(GridError, match='no location on Earth'):
        check_location('s.tif', grid)
