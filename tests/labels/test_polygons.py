import copy
import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from affine import Affine
from torch.utils.data import DataLoader, Dataset

from tests.fakes.label_files import (
    SCENE,
    UTM32,
    UTM33,
    named,
    square,
    window,
    write_features,
    write_squares,
)
from tests.fakes.labeled_scenes import grid_at
from torchgeo_ctm.errors import LabelError, LabelWarning, Note, SettingError
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import PointLabels, PolygonLabels, check_overlap, check_sizes
from torchgeo_ctm.labels.polygons import (
    clipped_areas,
    disjoint,
    polygon_parts,
    subdivided,
)

CLASSES = ('Forest', 'Water')


def labels(path: Path, *args: Any, **kwargs: Any) -> PolygonLabels:
    return PolygonLabels(path, 'class', *args, **kwargs)


def test_classes_of_any_sequence(tmp_path: Path) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 3, 3), 'Water')])
    found = [labels(path, np.array(CLASSES)), labels(path, (name for name in CLASSES))]
    assert [each.classes for each in found] == [CLASSES, CLASSES]
    with pytest.raises(SettingError, match=r"no order, .*\['Forest', 'Water'\]\?"):
        labels(path, {*CLASSES})


@pytest.mark.parametrize('kind', [dict, gpd.GeoSeries, pd.DataFrame])
def test_what_is_no_table_of_geometries_is_refused(kind: Any) -> None:
    with pytest.raises(
        LabelError, match=f'type {kind.__name__}, expected a file or a Ge'
    ):
        labels(kind())


def test_shares_by_hand(tmp_path: Path) -> None:
    path = write_squares(
        tmp_path / 'a.gpkg',
        # 30 of 100 px; 40 px, 10 of them over the first; half outside the window
        [
            ((0, 0, 3, 10), 'Forest'),
            ((2, 0, 6, 10), 'Forest'),
            ((9, 0, 11, 5), 'Water'),
        ],
    )
    shares, coverage = labels(path, CLASSES).shares(window(0, 0))
    assert shares == pytest.approx([0.6, 0.05])
    assert coverage == pytest.approx(0.65)


def test_label_of_complete_and_partial_polygons(tmp_path: Path) -> None:
    squares = [((0, 0, 6, 10), 'Forest'), ((6, 0, 6.5, 10), 'Water')]
    path = write_squares(tmp_path / 'a.gpkg', squares)
    three = ('Forest', 'Water', 'Urban')
    complete = labels(path, three)
    partial = labels(path, three, complete=False)
    assert named(complete.label(window(0, 0)), three) == {
        'Forest': True,
        'Water': False,
        'Urban': False,
    }
    assert named(partial.label(window(0, 0)), three) == {
        'Forest': True,
        'Water': None,
        'Urban': None,
    }
    # a quarter covered: too little to tell that anything is absent
    assert named(complete.label(window(4, 0)), three) == {
        'Forest': True,
        'Water': None,
        'Urban': None,
    }
    # 5 px of 100 are water: too few to be present, nothing else is known
    assert complete.label(window(6, 0)) is None
    assert complete.label(window(50, 50)) is None


def test_class_below_its_share_of_the_window_but_not_of_what_is_known(
    tmp_path: Path,
) -> None:
    squares = [((0, 0, 5, 10), 'Forest'), ((5, 0, 5.8, 10), 'Water')]
    path = write_squares(tmp_path / 'a.gpkg', squares)
    # water: 8 % of the window, 14 % of the 58 % that are covered
    label = labels(path).label(window(0, 0))
    assert named(label, CLASSES) == {'Forest': True, 'Water': None}


@pytest.mark.parametrize('min_coverage, known', [(0.5, True), (0.9, False)])
def test_min_coverage(tmp_path: Path, min_coverage: float, known: bool) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 8, 10), 'Forest')])
    source = labels(path, CLASSES, min_coverage=min_coverage)
    label = source.label(window(0, 0))
    assert label is not None
    assert label.known.tolist() == [True, known]


@pytest.mark.parametrize('scene_crs', [UTM32, UTM33, pyproj.CRS(32633)])
@pytest.mark.parametrize('suffix', ['gpkg', 'geojson', 'shp', 'parquet'])
def test_degrees_and_windows_in_two_zones(
    tmp_path: Path, scene_crs: Any, suffix: str
) -> None:
    left = 700_000 if scene_crs is UTM32 else 300_000
    scene = Grid(50, 50, scene_crs, Affine(10, 0, left, 0, -10, 5_300_000))
    squares = [((0, 0, 3, 10), 'Forest'), ((3, 0, 10, 10), 'Water')]
    path = write_squares(tmp_path / f'a.{suffix}', squares, scene, 'EPSG:4326')
    shares, coverage = labels(path, CLASSES).shares(window(0, 0, scene=scene))
    # straight edges stay straight to a millimetre over 100 m
    assert shares == pytest.approx([0.3, 0.7], abs=1e-4)
    assert coverage == pytest.approx(1, abs=1e-4)


def test_rotated_window(tmp_path: Path) -> None:
    turned = SCENE.transform @ Affine.translation(50, 50) @ Affine.rotation(30)
    scene = Grid(20, 20, UTM32, turned)
    squares = [((0, 0, 5, 20), 'Forest'), ((5, 0, 40, 10), 'Water')]
    path = write_squares(tmp_path / 'a.gpkg', squares, scene)
    shares, _ = labels(path).shares(window(0, 0, 20, scene))
    assert shares == pytest.approx([0.25, 0.375], abs=1e-6)
    boxes = labels(path).extents(scene)
    assert sorted(boxes.round(6).tolist()) == [[0, 0, 5, 20], [5, 0, 20, 10]]


@pytest.mark.parametrize(
    ('col', 'expected'), [(0, [1, 1, 0]), (2, [1, 1, 0]), (3, None), (8, [1, 0, 0])]
)
def test_a_window_has_the_tags_of_the_one_square_that_covers_it(
    tmp_path: Path, col: int, expected: list[int] | None
) -> None:
    grid = grid_at(10, 50, 'EPSG:32632', (10, 30))
    left, top = grid.transform @ (0, 0)
    squares = [
        shapely.box(left + start, top - 100, left + start + 100, top)
        for start in (0, 100)
    ]
    frame = gpd.GeoDataFrame({'tags': ['a|b', 'a']}, geometry=squares, crs='EPSG:32632')
    frame.to_file(tmp_path / 'squares.gpkg')
    source = PolygonLabels(
        tmp_path / 'squares.gpkg', 'tags', ['a', 'b', 'c'], min_coverage=0.8, whole=True
    )
    window = grid.transform @ Affine.translation(col, 0)
    label = source.label(Grid(10, 10, grid.crs, window))
    if expected is None:
        assert label is None
    else:
        assert label is not None
        assert label.present.tolist() == expected
        assert label.known.all()


def test_order_and_splitting_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 30, (40, 2))
    sizes = rng.uniform(2, 12, (40, 2))
    squares = [
        ((r, c, r + h, c + w), str(rng.choice(['Forest', 'Water', 'Urban'])))
        for (r, c), (h, w) in zip(corners, sizes, strict=True)
    ]
    halves = [
        part
        for (r, c, last, end), name in squares
        for part in (((r, c, last, c + 1), name), ((r, c + 1, last, end), name))
    ]
    shuffled = [squares[index] for index in rng.permutation(40)]
    sources = [
        labels(write_squares(tmp_path / f'{index}.gpkg', each))
        for index, each in enumerate([squares, shuffled, halves])
    ]
    for row in range(0, 40, 7):
        first, *others = (source.shares(window(row, row)) for source in sources)
        for other in others:
            assert other[0] == pytest.approx(first[0], abs=1e-9)
            assert other[1] == pytest.approx(first[1], abs=1e-9)


def test_shares_are_those_of_unions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    blobs = [
        shapely.Point(700_000 + x, 5_300_000 - y).buffer(r)
        for x, y, r in zip(*rng.uniform(20, 300, (2, 30)), rng.uniform(5, 60, 30))
    ]
    names = rng.choice(['a', 'b'], 30)
    source = labels(write_features(tmp_path / 'a.gpkg', blobs, names))
    grid = window(5, 5, 20)
    ground = square((5, 5, 25, 25))
    for index, name in enumerate('ab'):
        chosen = [b for b, n in zip(blobs, names, strict=True) if n == name]
        expected = shapely.union_all(chosen).intersection(ground).area / ground.area
        assert source.shares(grid)[0][index] == pytest.approx(expected, abs=1e-9)
    expected = shapely.union_all(blobs).intersection(ground).area / ground.area
    assert source.shares(grid)[1] == pytest.approx(expected, abs=1e-9)


def stars(rng: np.random.Generator, count: int) -> Any:
    """Polygons with dents and holes, half of them with corners on whole numbers."""
    found = []
    for index in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 14))
        radii = rng.uniform(4, 40, 14)
        xy = 50 + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
        hole = shapely.Point(50, 50).buffer(3)
        star = shapely.make_valid(shapely.Polygon(xy)).difference(hole)
        found.append(shapely.set_precision(star, 1.0) if index % 2 else star)
    # through WKB, so that they forget their precision
    whole = shapely.from_wkb(shapely.to_wkb(np.array(found)))
    return shapely.normalize(polygon_parts(whole)[0])


TURNED = Affine.translation(40, 50) @ Affine.rotation(33) @ Affine.scale(0.5, -0.7)


@pytest.mark.parametrize(
    'transform', [Affine.translation(45, 45), Affine.translation(30, 30), TURNED]
)
def test_clipped_areas_are_those_of_intersections(transform: Affine) -> None:
    polygons = stars(np.random.default_rng(2), 200)
    grid = Grid(15, 10, None, transform)
    ground = square((0, 0, 15, 10), grid)
    pixel = abs(transform.determinant)
    expected = shapely.area(shapely.intersection(polygons, ground)) / pixel
    assert clipped_areas(polygons, grid) == pytest.approx(expected, abs=1e-9)
    parts, owner = subdivided(polygons, 8)
    assert len(parts) > 2 * len(polygons)
    area = clipped_areas(parts, grid)
    again = np.bincount(owner, area, len(polygons))
    assert again == pytest.approx(expected, abs=1e-9)


def test_a_sliver_at_the_edge_of_a_window_has_no_area() -> None:
    """As a border between tagged squares, after rounding. GEOS 3.14 fails at it."""
    beyond = 64.00000000005821
    corners = [(48.0, 48.0), (48.0, 48.0), (48.0, beyond), (48.0, beyond), (48.0, 48.0)]
    polygons = np.array([shapely.Polygon(corners), shapely.box(40, 40, 70, 64)])
    grid = Grid(64, 64, None, Affine.identity())
    assert clipped_areas(polygons, grid).tolist() == [0, 24 * 24]


def test_disjoint_polygons_keep_their_classes() -> None:
    overlapping = np.array([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2)])
    apart, members = disjoint(overlapping, np.eye(2, dtype=bool))
    found = sorted((p.bounds, *m) for p, m in zip(apart, members, strict=True))
    assert found == [
        ((0, 0, 1, 2), True, False),
        ((1, 0, 2, 2), True, True),
        ((2, 0, 3, 2), False, True),
    ]
    neighbours = np.array([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)])
    assert disjoint(neighbours, np.eye(2, dtype=bool))[0] is neighbours


@pytest.mark.parametrize(
    'value', ['Forest;water', 'forest | WATER', 'Water,Forest', '["Forest", "Water"]']
)
def test_several_classes_in_a_text(tmp_path: Path, value: str) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 10, 10), value)])
    assert labels(path, CLASSES).shares(window(0, 0))[0].tolist() == [1, 1]


def test_two_spellings_of_a_class_are_said(tmp_path: Path) -> None:
    squares = [
        ((0, 0, 5, 10), 'Wald'),
        ((5, 0, 10, 10), 'wald '),
        ((0, 0, 1, 1), 'See'),
    ]
    path = write_squares(tmp_path / 'a.gpkg', squares)
    with pytest.warns(LabelWarning, match=r"are one class: 'wald' as 'Wald'\.$"):
        assert labels(path).classes == ('See', 'Wald')


@pytest.mark.parametrize('suffix', ['parquet', 'geojson'])
def test_several_classes_in_a_list(tmp_path: Path, suffix: str) -> None:
    squares = [((0, 0, 5, 10), ['Forest', 'Water']), ((5, 0, 10, 10), ['Water'])]
    source = labels(write_squares(tmp_path / f'a.{suffix}', squares, to_crs=4326))
    assert source.classes == CLASSES
    shares, coverage = source.shares(window(0, 0))
    assert [*shares, coverage] == pytest.approx([0.5, 1, 1], abs=1e-4)


def test_numbers_as_classes_and_classes_found(tmp_path: Path) -> None:
    path = write_squares(
        tmp_path / 'a.gpkg', [((0, 0, 5, 10), 311), ((5, 0, 9, 10), 112)]
    )
    assert labels(path).classes == ('112', '311')
    path = write_squares(
        tmp_path / 'b.gpkg', [((0, 0, 5, 10), 'forest '), ((5, 0, 9, 10), 'Forest')]
    )
    assert labels(path).classes == ('Forest',)


def test_name_with_a_comma_is_one_class(tmp_path: Path) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 10, 10), 'Beaches, dunes')])
    assert labels(path, ['Beaches, dunes']).shares(window(0, 0))[0].tolist() == [1]


def test_unknown_class_names_row_and_nearest(tmp_path: Path) -> None:
    path = write_squares(
        tmp_path / 'a.gpkg', [((0, 0, 5, 10), 'Water'), ((5, 0, 9, 10), 'Forrest')]
    )
    with pytest.raises(LabelError, match=r"row 2.*'Forrest'.* Did you mean 'Forest'"):
        labels(path, CLASSES)


def test_ignored_names_are_counted(tmp_path: Path) -> None:
    squares = [((0, 0, 5, 10), 'Water'), ((5, 0, 9, 10), 'Water;Cloud')]
    path = write_squares(tmp_path / 'a.gpkg', [*squares, ((0, 0, 9, 9), 'cloud')])
    with pytest.warns(LabelWarning, match='skipped in 2 of 3 rows'):
        source = labels(path, ['Water'], ignore=['Cloud'])
    assert len(source) == 2
    with (
        pytest.warns(LabelWarning, match='skipped in 3 of 3'),
        pytest.raises(LabelError, match='all 3 features name ignored classes only'),
    ):
        labels(path, ['Forest'], ignore=['Cloud', 'Water'])


def test_ignored_names_that_nothing_has_are_told(tmp_path: Path) -> None:
    path = write_squares(
        tmp_path / 'a.gpkg', [((0, 0, 5, 10), 'Water'), ((5, 0, 9, 10), 'Cloud')]
    )
    with pytest.warns(LabelWarning, match=r"names 'Waters' of ignore\. Did you mean"):
        assert labels(path, ignore=['Waters']).classes == ('Cloud', 'Water')


@pytest.mark.parametrize(
    ('names', 'told'),
    [
        (['water', 'trees', 'water', 'trees', 'water'], True),
        # one was corrected
        (['water', 'trees', 'water', 'trees', 'built'], True),
        (['water', 'water', 'water', 'water', 'trees'], False),
        (['a', 'b', 'c', 'd', 'e'], False),
        ([1.5, 2.5, 1.5, 2.5, 1.5], False),
    ],
)
def test_numbers_beside_names_are_told(
    tmp_path: Path, names: list[Any], told: bool
) -> None:
    """As in the polygons of a map, which somebody has corrected."""
    frame = gpd.GeoDataFrame(
        {'class': [3, 0, 3, 0, 3], 'name': names},
        geometry=shapely.box([0, 5, 5, 0, 9], [0, 0, 10, 10, 0], 10, 20),
        crs=UTM32,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        PolygonLabels(frame, 'class')
    said = [str(w.message) for w in caught if 'has a name for each' in str(w.message)]
    assert len(said) == told
    assert all(text.endswith('Pass field=name to use the names.') for text in said)


def test_empty_blank_and_invalid_features_are_counted(tmp_path: Path) -> None:
    bow = shapely.Polygon(
        [SCENE.transform @ xy for xy in [(0, 0), (10, 10), (10, 0), (0, 10)]]
    )
    geometries = [bow, None, shapely.Polygon(), square((20, 0, 30, 10))]
    names = ['Forest', 'Forest', 'Water', None]
    path = write_features(tmp_path / 'a.gpkg', geometries, names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        source = labels(path, CLASSES)
    told = [str(w.message) for w in caught if w.category is LabelWarning]
    assert len(told) == 3
    assert (
        '2 of 4 features were left out: they have no geometry (first: row 2)' in told[0]
    )
    assert '1 of 2 geometries were invalid and repaired (first: row 1' in told[1]
    assert "they name no class in 'class' (first: row 4)" in told[2]
    assert source.shares(window(0, 0))[0] == pytest.approx([0.5, 0])


def test_points_and_lines_are_no_polygons(tmp_path: Path) -> None:
    point = shapely.Point(700_050, 5_299_950)
    path = write_features(tmp_path / 'a.gpkg', [point], ['Forest'])
    with pytest.raises(LabelError, match=r'have no area \(use PointLabels'):
        labels(path)
    path = write_features(
        tmp_path / 'b.geojson', [point, square((0, 0, 10, 10))], ['Forest', 'Forest']
    )
    with pytest.warns(LabelWarning, match='1 of 2 features were left out'):
        assert len(labels(path, crs=UTM32)) == 1


def test_file_without_crs(tmp_path: Path) -> None:
    path = write_features(tmp_path / 'a.gpkg', [square((0, 0, 9, 9))], ['a'], crs=None)
    with pytest.raises(LabelError, match=r'has no CRS\. Pass crs='):
        labels(path)
    assert labels(path, crs='EPSG:32632').shares(window(0, 0))[1] == pytest.approx(0.81)
    with pytest.raises(LabelError, match='Cannot understand crs=EPSG:99'):
        labels(path, crs='EPSG:99')


def test_given_crs_wins_and_says_so(tmp_path: Path) -> None:
    path = write_features(tmp_path / 'a.geojson', [square((0, 0, 9, 9))], ['a'], 4326)
    with pytest.warns(
        LabelWarning, match='has the CRS WGS 84, but crs=EPSG:32632 is used'
    ):
        source = labels(path, crs='EPSG:32632')
    assert source.shares(window(0, 0))[1] == pytest.approx(0.81)


def test_layers(tmp_path: Path) -> None:
    path = tmp_path / 'a.gpkg'
    for layer in ('fields', 'roads'):
        write_features(path, [square((0, 0, 9, 9))], [layer], layer=layer)
    with pytest.raises(LabelError, match=r'several layers, expected .*fields, roads'):
        labels(path)
    with pytest.raises(LabelError, match=r"no layer 'field'.* Did you mean 'fields'"):
        labels(path, layer='field')
    assert labels(path, layer='roads').classes == ('roads',)


def test_missing_things_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabelError, match=r'none\.gpkg does not exist'):
        labels(tmp_path / 'none.gpkg')
    (tmp_path / 'text.gpkg').write_text('no geopackage')
    with pytest.raises(LabelError, match='cannot be read as features'):
        labels(tmp_path / 'text.gpkg')
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'a')])
    with pytest.raises(
        LabelError, match=r"no column 'klass', expected one of: class. Did you"
    ):
        PolygonLabels(path, 'klass')
    with pytest.raises(LabelError, match=r'Pass its name as complete=\.'):
        PolygonLabels(path, 'class', complete='only_these')
    empty = tmp_path / 'empty.geojson'
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(LabelError, match='zero features'):
        labels(empty)
    (tmp_path / 'a.csv').write_text('class,b\n1,2\n')
    with pytest.raises(LabelError, match='has no geometries'):
        labels(tmp_path / 'a.csv')
    path = write_squares(tmp_path / 'a.parquet', [((0, 0, 9, 9), 'a')])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(LabelError, match=r'pip install "torchgeo-ctm\[parquet\]"'):
        labels(path)


def test_no_feature_names_a_class(tmp_path: Path) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), ' ')])
    with pytest.raises(LabelError, match='no row names a class'):
        labels(path)


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            {'min_share': 10},
            'min_share=10 is out of range, expected 0 to 1. Did you mean 0.1',
        ),
        ({'min_coverage': -1}, 'min_coverage=-1'),
        ({'classes': 'Forest'}, r'expected a list. Did you mean \[Forest\]'),
        ({'classes': ['Forest', 'forest ']}, 'has duplicates'),
    ],
)
def test_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'Forest')])
    with pytest.raises(SettingError, match=message):
        labels(path, **settings)


def test_window_without_crs(tmp_path: Path) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'Forest')])
    with pytest.raises(LabelError, match='scene without a CRS cannot'):
        labels(path).label(window(0, 0)._replace(crs=None))


def test_extents_are_cut_to_the_scene(tmp_path: Path) -> None:
    squares = [
        ((-5, 90, 10, 120), 'a'),
        ((200, 0, 210, 10), 'a'),
        ((20, 30, 25, 31), 'b'),
    ]
    source = labels(write_squares(tmp_path / 'a.gpkg', squares))
    boxes = sorted(source.extents(SCENE).round(6).tolist())
    assert boxes == [[0, 90, 10, 100], [20, 30, 25, 31]]
    assert source.extents(window(50, 50)).shape == (0, 4)


def test_overlap_with_scenes(tmp_path: Path) -> None:
    near = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'a')], to_crs=4326)
    far = SCENE._replace(transform=SCENE.transform @ Affine.translation(5000, 0))
    check_overlap(labels(near), [SCENE])
    with pytest.warns(LabelWarning, match='overlap only 1 of 3 scenes'):
        check_overlap(labels(near), [far, SCENE, far])
    with pytest.warns(Note, match=r'overlap 2 of 3 scenes, not c\.$'):
        check_overlap(labels(near), [SCENE, SCENE, far], ['a', 'b', 'c'])
    with pytest.raises(LabelError, match=r'touch none of the 1 scenes\. If WGS 84'):
        check_overlap(labels(near), [far])
    spread = [((0, 0, 9, 9), 'a'), ((900, 0, 909, 9), 'a'), ((800, 0, 809, 9), 'a')]
    path = write_squares(tmp_path / 'b.gpkg', spread)
    with pytest.warns(LabelWarning, match=r'2 of 3 touch none of the 1 scenes\.$'):
        check_overlap(labels(path), [SCENE])
    path = write_squares(tmp_path / 'c.gpkg', [*spread[:1], ((900, 0, 909, 9), 'b')])
    with pytest.warns(LabelWarning, match=r'They are all that there is of b\.$'):
        check_overlap(labels(path), [SCENE])
    with pytest.raises(SettingError, match='No scene'):
        check_overlap(labels(path), [])


def test_swapped_coordinates_are_recognized(tmp_path: Path) -> None:
    source = labels(
        write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 'a')], to_crs=4326)
    )
    swapped = write_features(
        tmp_path / 'b.gpkg', source.swapped().geometry, ['a'], crs=4326
    )
    with pytest.raises(LabelError, match=r'has x and y .* swapped'):
        check_overlap(labels(swapped), [SCENE])


@pytest.mark.parametrize(
    ('factors', 'says'),
    [
        ((-1, 1), r'Longitudes of the file have the wrong sign: west is negative\.'),
        ((1, -1), r'Latitudes of the file have the wrong sign: south is negative\.'),
    ],
)
def test_a_lost_sign_is_recognized(
    tmp_path: Path, factors: tuple[int, int], says: str
) -> None:
    squares = [((0, 0, 9, 9), 'a')]
    source = labels(write_squares(tmp_path / 'a.gpkg', squares, to_crs=4326))
    wrong = write_features(
        tmp_path / 'b.gpkg', source.mirrored(*factors).geometry, ['a'], crs=4326
    )
    with pytest.raises(LabelError, match=says):
        check_overlap(labels(wrong), [SCENE])


def test_features_beyond_the_crs(tmp_path: Path) -> None:
    globe, polar = shapely.box(-180, -60, 180, 84), shapely.box(0, 80, 60, 90)
    near = shapely.box(11, 47, 12.5, 48.5)
    path = write_features(
        tmp_path / 'a.gpkg', [globe, polar, near], ['a', 'b', 'c'], 4326
    )
    with pytest.warns(LabelWarning, match='2 of 3 features reach beyond'):
        shares, _ = labels(path).shares(window(0, 0))
    assert shares == pytest.approx([0, 0, 1])


def test_long_edges_bend_with_the_parallels(tmp_path: Path) -> None:
    grid = window(40, 40)
    middle = grid.transform @ (5, 5)
    to_degrees = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
    lon, lat = to_degrees.transform(*middle)
    # straight between its ends, its lower edge would pass 60 km from the window
    country = shapely.box(lon - 10, lat, lon + 8, lat + 5)
    path = write_features(tmp_path / 'a.gpkg', [country], ['a'], 4326)
    # half a metre off in 100 m
    assert labels(path).shares(grid)[0] == pytest.approx([0.5], abs=0.01)


class Windows(Dataset[Any]):
    """Label of one window after another."""

    def __init__(self, source: PolygonLabels) -> None:
        self.source = source

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.source.shares(window(2 * index, 0))[0]


def test_in_workers_and_pickled(tmp_path: Path) -> None:
    squares = [((0, 0, 5, 10), 'Forest'), ((3, 0, 9, 8), 'Water')]
    source = labels(write_squares(tmp_path / 'a.gpkg', squares, to_crs=4326))
    expected = [source.shares(window(2 * index, 0))[0] for index in range(4)]
    thawed = pickle.loads(pickle.dumps(source))
    assert np.array_equal(
        [thawed.shares(window(2 * i, 0))[0] for i in range(4)], expected
    )
    batches = DataLoader(Windows(copy.deepcopy(source)), batch_size=2, num_workers=1)
    found = np.concatenate([batch.numpy() for batch in batches])
    assert np.array_equal(found, expected)


def test_moved_to_a_crs_once(tmp_path: Path) -> None:
    source = labels(write_squares(tmp_path / 'a.gpkg', [((0, 0, 5, 10), 'Forest')]))
    first = source.view(UTM32)
    assert source.view(UTM33) is not first
    assert source.view(pyproj.CRS(32632)).parts is first.parts


def test_meters_that_are_called_degrees_are_refused_at_once(tmp_path: Path) -> None:
    shapes = [square((0, 0, 9, 9)), square((9, 9, 20, 20))]
    path = write_features(tmp_path / 'a.gpkg', shapes, ['a', 'b'], crs=4326)
    with pytest.raises(LabelError) as caught:
        labels(path)
    assert str(caught.value) == (
        f'{path}, row 1: y is 5.3e+06 degrees, expected -90 to 90. WGS 84 is not the '
        'CRS of these coordinates: pass theirs as crs=, such as EPSG:32633.'
    )
    with pytest.warns(LabelWarning, match='but crs=32632 is used'):
        assert labels(path, crs=32632).shares(window(0, 0))[1] == pytest.approx(0.82)


def test_degrees_reach_the_poles_and_around(tmp_path: Path) -> None:
    boxes = [shapely.box(-180, -90, -170, 90), shapely.box(190, 10, 360, 20)]
    assert len(labels(write_features(tmp_path / 'a.gpkg', boxes, 'ab', crs=4326))) == 2
    far = [*boxes, shapely.box(500, 10, 501, 11)]
    path = write_features(tmp_path / 'b.gpkg', far, 'abc', crs=4326)
    message = r'row 3: x is 501 degrees, expected -360 to 360. 1 of 3 rows are out'
    with pytest.raises(LabelError, match=message):
        labels(path)


def test_codes_need_names(tmp_path: Path) -> None:
    path = write_squares(tmp_path / 'a.gpkg', [((0, 0, 9, 9), 7)])
    with pytest.raises(
        LabelError, match=r"unknown class '7', .* looks like a code: choose a field"
    ):
        labels(path, CLASSES)
    assert labels(path, ('7', '8')).classes == ('7', '8')


@pytest.mark.parametrize(
    ('squares', 'min_share', 'side', 'said'),
    [
        # wall to wall, but a class must cover more than half of a window
        ([((r, c, r + 20, c + 20), 'Forest') for r in range(0, 100, 20)
          for c in range(0, 100, 20)], 0.6, 40, True),
        ([((r, c, r + 20, c + 20), 'Forest') for r in range(0, 100, 20)
          for c in range(0, 100, 20)], 0.6, 20, False),
        # a land-cover map adds up; squares of several classes or apart do not
        ([((r, c, r + 10, c + 10), 'Forest') for r in range(0, 100, 10)
          for c in range(0, 100, 10)], 0.1, 40, False),
        ([((r, c, r + 10, c + 10), 'Forest|Water') for r in range(0, 100, 10)
          for c in range(0, 100, 10)], 0.1, 40, True),
        ([((0, 0, 10, 10), 'Forest'), ((50, 50, 60, 60), 'Water')], 0.1, 40, True),
        ([((0, 0, 15, 15), 'Forest'), ((50, 50, 65, 65), 'Water')], 0.1, 40, False),
    ],
)  # fmt: skip
def test_polygons_smaller_than_a_window_are_told(
    tmp_path: Path, squares: Any, min_share: float, side: int, said: bool
) -> None:
    source = labels(write_squares(tmp_path / 'a.gpkg', squares), min_share=min_share)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        check_sizes(source, [SCENE], side, 4)
    assert bool(caught) == said
    if said:
        edge = squares[0][0][2]
        message = str(caught[0].message)
        assert f'has {edge} × {edge} px, a window {side} × {side} px' in message
        assert message.endswith(f'Did you mean img_size={round(edge / 4) * 4}?')


def test_a_geodataframe_serves_as_a_file(tmp_path: Path) -> None:
    path = write_squares(
        tmp_path / 'a.gpkg', [((0, 0, 6, 10), 'Forest'), ((6, 0, 9, 10), 'Water')]
    )
    frame = gpd.read_file(path)
    found = PolygonLabels(frame, 'class').shares(window(0, 0))
    assert np.array_equal(found[0], labels(path).shares(window(0, 0))[0])
    with pytest.raises(LabelError, match="The GeoDataFrame has no column 'kind'"):
        PolygonLabels(frame, 'kind')
    with pytest.raises(LabelError, match='The GeoDataFrame has no CRS'):
        PolygonLabels(frame.set_crs(None, allow_override=True), 'class')
    centers = frame.set_geometry(frame.centroid)
    assert PointLabels(centers, 'class').counts(window(0, 0))[0].tolist() == [1, 1]


def test_a_raster_is_no_file_of_polygons(tmp_path: Path) -> None:
    (tmp_path / 'classes.tif').write_bytes(b'II*')
    with pytest.raises(LabelError, match=r'torchgeo_ctm\.labels\.RasterLabels'):
        labels(tmp_path / 'classes.tif')
