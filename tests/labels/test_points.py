import pickle
from pathlib import Path
from typing import Any

import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from tests.fakes.label_files import (
    SCENE,
    UTM32,
    UTM33,
    named,
    square,
    window,
    write_features,
    write_points,
    write_table,
)
from torchgeo_ctm.errors import LabelError, LabelWarning, SettingError
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import PointLabels, check_overlap

CLASSES = ('Forest', 'Urban', 'Water')


def labels(path: Path, *args: Any, **kwargs: Any) -> PointLabels:
    return PointLabels(path, 'class', *args, **kwargs)


def test_classes_of_the_points_in_a_window(tmp_path: Path) -> None:
    points = [(1, 1, 'Forest'), (2, 3, 'Forest;Water'), (50, 50, 'Urban')]
    path = write_points(tmp_path / 'a.gpkg', points)
    source = labels(path)
    assert source.classes == CLASSES
    partial = {'Forest': True, 'Urban': None, 'Water': True}
    assert named(source.label(window(0, 0)), CLASSES) == partial
    complete = labels(path, complete=True).label(window(0, 0))
    assert named(complete, CLASSES) == partial | {'Urban': False}
    assert source.label(window(20, 20)) is None
    two = labels(path, complete=True, min_points=2).label(window(0, 0))
    assert named(two, CLASSES) == {'Forest': True, 'Urban': False, 'Water': None}


def test_windows_side_by_side_never_share_a_point(tmp_path: Path) -> None:
    points = [(row, col, 'Forest') for row in range(0, 21, 5) for col in (0, 10, 15)]
    source = labels(write_points(tmp_path / 'a.gpkg', points))
    counts = [
        source.counts(window(row, col))[1] for row in (0, 10, 20) for col in (0, 10)
    ]
    assert counts == [2, 4, 2, 4, 1, 2]
    assert sum(counts) == len(points)


@pytest.mark.parametrize('crs, left', [(UTM32, 700_000), (UTM33, 300_000)])
def test_degrees_and_windows_in_two_zones(tmp_path: Path, crs: Any, left: int) -> None:
    scene = Grid(50, 50, crs, Affine(10, 0, left, 0, -10, 5_300_000))
    points = [(0.5, 9.5, 'Forest'), (9.5, 0.5, 'Water'), (10.5, 5, 'Urban')]
    path = write_points(tmp_path / 'a.geojson', points, scene, to_crs=4326)
    counts, total = labels(path).counts(window(0, 0, scene=scene))
    assert (counts.tolist(), total) == ([1, 0, 1], 2)
    boxes = labels(path).extents(scene)
    expected = [[0.5, 9.5] * 2, [9.5, 0.5] * 2, [10.5, 5] * 2]
    for box, point in zip(sorted(boxes.tolist()), expected, strict=True):
        assert box == pytest.approx(point, abs=1e-4)


def test_rotated_window(tmp_path: Path) -> None:
    turned = SCENE.transform @ Affine.translation(50, 50) @ Affine.rotation(45)
    scene = Grid(10, 10, UTM32, turned)
    # the second lies in the window's bounding box, but outside
    points = [(5, 5, 'Forest'), (-1, 11, 'Water')]
    source = labels(write_points(tmp_path / 'a.gpkg', points, scene))
    assert source.counts(scene)[0].tolist() == [1, 0]


def test_multipoints_count_each_point(tmp_path: Path) -> None:
    several = shapely.MultiPoint([SCENE.transform @ xy for xy in [(1, 1), (2, 2)]])
    source = labels(write_features(tmp_path / 'a.gpkg', [several], ['Forest']))
    assert source.counts(window(0, 0))[0].tolist() == [2]


@pytest.mark.parametrize('delimiter, comma', [(',', '.'), (';', ',')])
@pytest.mark.parametrize('header', [('lon', 'lat'), ('Longitude', 'Latitude')])
def test_table_of_degrees(
    tmp_path: Path, delimiter: str, comma: str, header: tuple[str, str]
) -> None:
    rows = [('12.5', '47.5', 'Forest'), ('12.6', '47.5', 'Water'), ('', '', 'Water')]
    written = [[cell.replace('.', comma) for cell in row] for row in rows]
    path = write_table(
        tmp_path / 'a.csv', [*header, 'class'], written, delimiter, 'utf-8-sig'
    )
    with pytest.warns(LabelWarning, match=r'1 of 3 .*no geometry \(first: row 4\)'):
        source = labels(path)
    grid = Grid(10, 10, 'EPSG:4326', Affine(0.01, 0, 12.45, 0, -0.01, 47.55))
    assert source.counts(grid)[0].tolist() == [1, 0]


def test_table_of_meters(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / 'a.csv', ['E', 'N', 'class'], [(700_001, 5_299_999, 7)]
    )
    with pytest.raises(
        LabelError, match=r'no two columns of coordinates, expected lon .*; found: E, N'
    ):
        labels(path)
    with pytest.raises(LabelError, match="no column 'easting', expected one of: E"):
        labels(path, x_field='easting', y_field='N')
    with pytest.raises(LabelError, match=r'E and N without a CRS\. Pass crs='):
        labels(path, x_field='E', y_field='N')
    source = labels(path, x_field='E', y_field='N', crs=32632)
    assert source.classes == ('7',)
    assert source.counts(window(0, 0))[1] == 1


@pytest.mark.parametrize(
    'row, message',
    [
        (('12.5', 'north', 'a'), "row 2: lat is 'north', expected a number."),
        (
            ('12.5', '91', 'a'),
            'row 2: lat is 91 degrees, expected -90 to 90. Longitude',
        ),
    ],
)
def test_bad_coordinates(tmp_path: Path, row: tuple[str, ...], message: str) -> None:
    path = write_table(tmp_path / 'a.csv', ['lon', 'lat', 'class'], [row])
    with pytest.raises(LabelError, match=message):
        labels(path)


def test_swapped_coordinates_are_recognized(tmp_path: Path) -> None:
    path = write_table(tmp_path / 'a.csv', ['lon', 'lat', 'class'], [(35, 139, 'a')])
    with pytest.raises(LabelError, match='look swapped'):
        labels(path)
    points = [(5, 5, 'Forest'), (6, 6, 'Water')]
    right = labels(write_points(tmp_path / 'b.gpkg', points, to_crs=4326))
    check_overlap(right, [SCENE])
    xy = shapely.get_coordinates(right.geometry)
    rows = [(y, x, 'Forest') for x, y in xy]
    swapped = labels(write_table(tmp_path / 'c.csv', ['lon', 'lat', 'class'], rows))
    with pytest.raises(LabelError, match=r'touch none of .* swapped'):
        check_overlap(swapped, [SCENE])


def test_polygons_are_no_points(tmp_path: Path) -> None:
    path = write_features(tmp_path / 'a.gpkg', [square((0, 0, 5, 5))], ['Forest'])
    with pytest.raises(LabelError, match=r'are not points \(use PolygonLabels'):
        labels(path)


def test_unknown_class_names_row(tmp_path: Path) -> None:
    rows = [(12, 47, 'Forest'), (12, 47, 'Watr')]
    path = write_table(tmp_path / 'a.csv', ['lon', 'lat', 'class'], rows)
    with pytest.raises(LabelError, match=r"row 3: .*'Watr'.* Did you mean 'Water'"):
        labels(path, CLASSES)
    with pytest.raises(LabelError, match="no column 'class'"):
        labels(write_table(tmp_path / 'b.csv', ['lon', 'lat'], [(12, 47)]))


def test_min_points(tmp_path: Path) -> None:
    path = write_points(tmp_path / 'b.gpkg', [(1, 1, 'Forest'), (2, 3, 'Forest')])
    assert labels(path, min_points=2).label(window(0, 0)) is not None
    with pytest.raises(SettingError, match='no class has more than 2 points'):
        labels(path, min_points=3)
    with pytest.raises(
        SettingError, match='min_points=0 is too small, expected 1 or more'
    ):
        labels(tmp_path / 'a.csv', min_points=0)


def test_pickled(tmp_path: Path) -> None:
    source = labels(write_points(tmp_path / 'a.gpkg', [(5, 5, 'Forest')]))
    assert source.counts(window(0, 0))[1] == 1
    assert pickle.loads(pickle.dumps(source)).counts(window(0, 0))[1] == 1


def test_one_wrong_row_is_named_and_not_called_swapped(tmp_path: Path) -> None:
    rows = [(12.1 + index / 1e4, 47.1, 'a') for index in range(20)]
    rows[4] = (12.1, 948, 'a')
    path = write_table(tmp_path / 'a.csv', ['lon', 'lat', 'class'], rows)
    with pytest.raises(LabelError) as caught:
        labels(path)
    said = f'{path}, row 6: lat is 948 degrees, expected -90 to 90.'
    assert str(caught.value) == f'{said} 1 of 20 rows are out of range.'
    rows = [(700_001, 5_299_999, 'a')] * 3
    path = write_table(tmp_path / 'b.csv', ['lon', 'lat', 'class'], rows)
    with pytest.raises(LabelError, match='pass theirs as crs=') as caught:
        labels(path)
    assert 'swapped' not in str(caught.value)


@pytest.mark.parametrize(('longitude', 'west'), [(200.5, -160.0), (-159.5, 200.0)])
def test_longitudes_of_0_to_360_are_those_of_180_to_180(
    tmp_path: Path, longitude: float, west: float
) -> None:
    path = tmp_path / 'p.csv'
    path.write_text(f'lon,lat,class\n{longitude},10.5,Forest\n')
    grid = Grid(10, 10, CRS.from_epsg(4326), Affine(0.1, 0, west, 0, -0.1, 11))
    labels = PointLabels(path, 'class')
    assert labels.counts(grid)[1] == 1
    assert len(labels.extents(grid)) == len(labels.touching(grid)) == 1
