"""Simplified polygons are still a coverage: no gaps, no overlaps, no lost region."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine

from tests.commands import Run, refused
from tests.fakes.class_rasters import UTM, random_classes, write_classes
from torchgeo_ctm.inference import polygons
from torchgeo_ctm.inference.vector import vectorize

pytestmark = pytest.mark.skipif(
    not hasattr(shapely, 'coverage_simplify') or shapely.geos_version < (3, 12),
    reason='shapely 2.0 cannot simplify coverages',
)
OPTIONS: list[dict[str, Any]] = [
    {'simplify': 10},
    {'simplify': 60},
    {'smooth': True},
    {'simplify': 20, 'smooth': True},
    {'fill_holes': 0.5},
    {'simplify': 25, 'fill_holes': 2, 'smooth': True},
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, 'ROW_BAND', 2000)
    monkeypatch.setattr(polygons, 'CHUNK', 100)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('holes', [True, False])
def test_neighbors_keep_one_border(
    tmp_path: Path, options: dict[str, Any], holes: bool
) -> None:
    values = random_classes(90, 110)
    if not holes:
        values[values == 255] = 0
    mask = write_classes(tmp_path / 'm.tif', values)
    vectorize(mask, tmp_path / 'plain.gpkg')
    vectorize(mask, tmp_path / 'm.gpkg', **options)
    plain, frame = (gpd.read_file(tmp_path / n) for n in ('plain.gpkg', 'm.gpkg'))
    shapes = frame.geometry.to_numpy()
    assert shapely.coverage_is_valid(shapes)
    assert frame.is_valid.all()
    assert (frame.geom_type == 'Polygon').all()
    if not holes:
        # the union is the raster itself
        whole = shapely.box(*shapely.total_bounds(plain.geometry.to_numpy()))
        assert shapely.coverage_union_all(shapes).equals(whole)
    assert frame.area_ha.sum() >= plain.area_ha.sum() * (1 - 1e-9)
    if not options.get('fill_holes'):
        assert len(frame) == len(plain)
        assert frame.area_ha.sum() == pytest.approx(plain.area_ha.sum())
    elif not holes:
        assert frame.area_ha.sum() == pytest.approx(plain.area_ha.sum())
        assert len(frame) < len(plain)


@pytest.mark.parametrize('options', [{}, *OPTIONS], ids=str)
def test_holes_turn_against_their_outline(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Else pyproj's geometry_area_perimeter would add the areas of holes."""
    mask = write_classes(tmp_path / 'm.tif', random_classes(50, 60))
    frame = gpd.read_file(vectorize(mask, tmp_path / 'a.gpkg', **options), layer='a')
    for polygon in frame.geometry:
        for part in shapely.get_parts(polygon):
            assert shapely.is_ccw(part.exterior)
            assert not any(shapely.is_ccw(hole) for hole in part.interiors)


@pytest.mark.parametrize(
    ('crs', 'transform'),
    [
        ('EPSG:32630', UTM @ Affine.rotation(20)),
        ('EPSG:4326', Affine(1e-4, 0, 10, 0, -1e-4, 50)),
        ('EPSG:3857', Affine(15, 0, 0, 0, -15, 6_500_000)),
    ],
    ids=['rotated', 'degrees', 'mercator'],
)
def test_meters_are_meters_in_any_crs(
    tmp_path: Path, crs: str, transform: Affine
) -> None:
    """A staircase goes as soon as triangles may be half a pixel."""
    rows, cols = np.indices((60, 60))
    mask = write_classes(
        tmp_path / 'm.tif', (rows > cols).astype(np.uint8), crs, transform
    )
    counts = []
    for meters in (3, 12):
        vectorize(mask, tmp_path / 'm.gpkg', simplify=meters, overwrite=True)
        shapes = gpd.read_file(tmp_path / 'm.gpkg').geometry.to_numpy()
        counts.append(shapely.get_num_coordinates(shapes).max())
    assert counts[0] > 100
    assert counts[1] < 20


def test_holes_are_filled_with_what_lies_in_them(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[2:7, 2:7] = 1  # 25 pixels of 0.01 ha, with a class inside
    values[4, 4] = 2
    values[10:12, 10:12] = 255
    values[15:18, 15:18] = 3
    mask = write_classes(tmp_path / 'm.tif', values)
    vectorize(mask, tmp_path / 'm.gpkg', fill_holes=0.1)
    frame = gpd.read_file(tmp_path / 'm.gpkg').sort_values('class')
    assert frame['class'].tolist() == [0, 1]
    np.testing.assert_allclose(frame['area_ha'], [3.75, 0.25], rtol=2e-3)
    np.testing.assert_allclose(frame.area / 1e4, [3.75, 0.25])


def test_smooth_borders_stay_within_a_pixel(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(60, 60))
    vectorize(mask, tmp_path / 'plain.gpkg')
    vectorize(mask, tmp_path / 'm.gpkg', smooth=True)
    borders = [
        shapely.union_all(gpd.read_file(tmp_path / n).boundary.to_numpy())
        for n in ('plain.gpkg', 'm.gpkg')
    ]
    assert shapely.hausdorff_distance(*borders) < 10
    assert shapely.get_num_coordinates(borders[1]) > shapely.get_num_coordinates(
        borders[0]
    )


def test_options_of_vectorize(run: Run, tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(30, 30))
    plain = write_classes(
        tmp_path / 'p.tif', random_classes(30, 30), None, Affine.identity()
    )
    output = tmp_path / 'o.gpkg'
    refused(run('vectorize', mask, output, '--simplify', -1), '--simplify -1')
    refused(run('vectorize', plain, output, '--fill_holes', 1), '--fill_holes 1', 'CRS')
    assert not output.exists()
    assert run('vectorize', plain, output, '--smooth')[0] == 0
    nothing = np.full((5, 5), 255, np.uint8)
    empty = write_classes(tmp_path / 'e.tif', nothing)
    assert run('vectorize', empty, output, '--simplify', 9, '--overwrite')[0] == 0
    assert len(gpd.read_file(output)) == 0
