import math
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine

from tests.fakes.class_rasters import NAMES, UTM, random_classes, write_classes
from tests.fakes.land_cover import write_raster
from torchgeo_ctm.errors import GridError
from torchgeo_ctm.inference.areas import PixelAreas, class_areas, ground_scale

GRIDS = {
    'utm': ('EPSG:32630', UTM),
    'utm, rotated': ('EPSG:32630', UTM @ Affine.rotation(30)),
    'degrees': ('EPSG:4326', Affine(1e-3, 0, 10, 0, -2e-3, 65)),
    'mercator': ('EPSG:3857', Affine(100, 0, 1e6, 0, -100, 9e6)),
    'date line': ('EPSG:4326', Affine(1e-2, 0, 179, 0, -1e-2, -16)),
    'south pole': ('EPSG:3031', Affine(5e3, 0, -8e5, 0, -5e3, 9e5)),
    'drone': ('EPSG:32630', Affine(0.02, 0, 500_000, 0, -0.02, 4_200_000)),
}


def geodesic_hectares(crs: str, outline: shapely.Polygon) -> float:
    to_degrees = pyproj.Transformer.from_crs(crs, 'EPSG:4326', always_xy=True)
    dense = outline.segmentize(outline.length / 4000)
    lon, lat = to_degrees.transform(*np.asarray(dense.exterior.coords).T)
    area, _ = pyproj.Geod(ellps='WGS84').polygon_area_perimeter(lon, lat)
    return abs(area) / 10_000


@pytest.mark.parametrize('grid', GRIDS)
def test_areas_are_those_of_geodesic_polygons(tmp_path: Path, grid: str) -> None:
    crs, transform = GRIDS[grid]
    values = np.full((300, 350), 255, np.uint8)
    # a block of each of two classes, one at a corner, one astride the cells
    values[:64, :50], values[130:297, 100:290] = 0, 3
    areas = class_areas(write_classes(tmp_path / 'a.tif', values, crs, transform))
    assert list(areas) == NAMES
    assert areas['Water'] == 0
    for name, (top, bottom, left, right) in {
        'Forest': (0, 64, 0, 50),
        'Crops': (130, 297, 100, 290),
    }.items():
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        outline = shapely.Polygon([transform @ corner for corner in corners])
        expected = geodesic_hectares(crs, outline)
        # polygons of a few metres lose digits in the geodesic's own sums
        rel = 1e-3 if grid == 'drone' else 1e-5
        assert areas[name] == pytest.approx(expected, rel=rel)


def test_a_wide_raster_is_interpolated_well(tmp_path: Path) -> None:
    # 3,000 px are more than the 512 cells
    transform = Affine(300, 0, 1e6, 0, -300, 1e7)
    values = np.full((3000, 700), 255, np.uint8)
    values[1001:1003, 333:335] = 1
    path = write_classes(tmp_path / 'a.tif', values, 'EPSG:3857', transform)
    corners = [(333, 1001), (335, 1001), (335, 1003), (333, 1003)]
    outline = shapely.Polygon([transform @ corner for corner in corners])
    expected = geodesic_hectares('EPSG:3857', outline)
    assert class_areas(path)['Water'] == pytest.approx(expected, rel=1e-5)


def test_the_globe_is_the_globe(tmp_path: Path) -> None:
    values = np.zeros((720, 1440), np.uint8)
    globe = Affine(0.25, 0, -180, 0, -0.25, 90)
    path = write_classes(tmp_path / 'a.tif', values, 'EPSG:4326', globe)
    assert class_areas(path)['Forest'] == pytest.approx(51_006_562_172.4, rel=1e-4)


def test_the_drone_s_pixels_have_their_nominal_size(tmp_path: Path) -> None:
    crs, transform = GRIDS['drone']
    path = write_classes(tmp_path / 'a.tif', random_classes(70, 90), crs, transform)
    with rasterio.open(path) as raster:
        rows = PixelAreas(raster).rows(0, 70)
    # on the central meridian of UTM the scale is 0.9996
    np.testing.assert_allclose(rows, 0.02**2 / 0.9996**2 / 10_000, rtol=1e-6)


def test_numbers_where_there_are_no_names(tmp_path: Path) -> None:
    values = random_classes(600, 40)
    path = write_classes(tmp_path / 'a.tif', values, names=None)
    areas = class_areas(path)
    assert list(areas) == ['0', '1', '2', '3']
    pixels = (values == 2).sum()
    assert areas['2'] == pytest.approx(pixels * 0.01 / 0.9996**2, rel=1e-4)


def test_without_a_crs_there_is_no_area(tmp_path: Path) -> None:
    path = write_classes(tmp_path / 'a.tif', random_classes(40, 40), None)
    with pytest.raises(GridError, match='has no CRS'):
        class_areas(path)


def test_pixels_off_the_earth_have_no_area(tmp_path: Path) -> None:
    # the whole disk, and space around it
    crs = '+proj=ortho +lat_0=10 +lon_0=5 +ellps=WGS84'
    side = 2 * 6_500_000 / 300
    transform = Affine(side, 0, -6.5e6, 0, -side, 6.5e6)
    path = write_classes(
        tmp_path / 'a.tif', np.zeros((300, 300), np.uint8), crs, transform
    )
    half = 51_006_562_172.4 / 2
    area = class_areas(path)['Forest']
    assert math.isfinite(area) and 0.8 * half < area < half


def test_without_a_transform_there_is_no_area(tmp_path: Path) -> None:
    path = write_classes(
        tmp_path / 'a.tif', random_classes(40, 40), transform=Affine.identity()
    )
    with pytest.raises(GridError, match='has no transform, so its pixels have no area'):
        class_areas(path)


@pytest.mark.parametrize(
    ('crs', 'transform', 'across', 'down', 'north'),
    [
        # UTM on its central meridian: 0.9996 of the ground
        ('EPSG:32633', Affine(10, 0, 5e5 - 1000, 0, -10, 5e6), 10.004, 10.004, (0, -1)),
        # a degree of longitude at 60 degrees is half of one at the equator
        ('EPSG:4326', Affine(1e-3, 0, 10, 0, -1e-3, 60.1), 55.8, 111.4, (0, -1)),
        # across the date line
        ('EPSG:4326', Affine(1e-3, 0, 179.9, 0, -1e-3, 0.1), 111.3, 110.6, (0, -1)),
        # turned by 90 degrees: rows go west
        ('EPSG:32633', Affine(0, -10, 5e5 + 1000, -10, 0, 5e6), 10.0, 10.0, (-1, 0)),
        # south up
        ('EPSG:32633', Affine(10, 0, 5e5 - 1000, 0, 10, 5e6), 10.0, 10.0, (0, 1)),
    ],
)
def test_scale_and_north(
    tmp_path: Path,
    crs: str,
    transform: Affine,
    across: float,
    down: float,
    north: tuple[float, float],
) -> None:
    path = tmp_path / 'mask.tif'
    write_raster(path, np.zeros((1, 200, 200), np.uint8), crs, transform)
    with rasterio.open(path) as raster:
        scale = ground_scale(raster, 100)
    assert scale is not None
    assert (scale.across, scale.down) == pytest.approx((across, down), rel=1e-3)
    length = np.hypot(*scale.north)
    assert np.array(scale.north) / length == pytest.approx(north, abs=1e-3)


def test_no_scale_without_a_georeference(tmp_path: Path) -> None:
    path = tmp_path / 'mask.tif'
    write_raster(path, np.zeros((1, 8, 8), np.uint8), 'EPSG:32633', Affine.identity())
    with rasterio.open(path) as raster:
        assert ground_scale(raster, 4) is None
