from importlib.util import find_spec
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from shapely.geometry import Point, box

from tests.commands import Run, refused
from tests.fakes.class_rasters import NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.assessment.zones import class_table
from torchgeo_ctm.errors import LabelWarning
from torchgeo_ctm.inference import masks
from torchgeo_ctm.inference.areas import class_areas


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, 'ROW_BAND', 1000)


def window(row: int, col: int, height: float, width: float) -> object:
    left, top = UTM @ (col, row)
    return box(left, top - 10 * height, left + 10 * width, top)


def zones(path: Path, shapes: dict[str, object], crs: str = 'EPSG:32630') -> Path:
    frame = gpd.GeoDataFrame(
        {'number': range(len(shapes)), 'district': list(shapes)},
        geometry=list(shapes.values()),
        crs='EPSG:32630',
    )
    frame.to_crs(crs).to_file(path, driver='GPKG')
    return path


def test_the_whole_map(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(70, 90))
    table = class_table(mask)
    assert table['name'].tolist() == NAMES
    expected = class_areas(mask)
    np.testing.assert_allclose(table['hectares'], list(expected.values()))
    assert table['share'].sum() == pytest.approx(1)


@pytest.mark.parametrize('crs', ['EPSG:32630', 'EPSG:4326', 'EPSG:3035'])
def test_zones_of_any_crs(tmp_path: Path, crs: str) -> None:
    values = random_classes(70, 90)
    mask = write_classes(tmp_path / 'm.tif', values)
    places = {'a': (3, 4, 30, 50), 'b': (33, 4, 30, 50), 'c': (3, 54, 60, 30)}
    path = zones(tmp_path / 'z.gpkg', {n: window(*p) for n, p in places.items()}, crs)
    table = class_table(mask, zones=path)
    for name, (row, col, height, width) in places.items():
        inside = values[row : row + height, col : col + width]
        counts = np.bincount(inside[inside < 255], minlength=len(NAMES))
        zone = table[table['zone'] == name]
        assert zone['pixels'].tolist() == counts.tolist()
        assert zone['share'].sum() == pytest.approx(1)


def test_overlapping_zones_count_in_both_and_are_said(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', np.zeros((40, 40), np.uint8), names=['a'])
    shapes = {
        'one': window(0, 0, 20, 20),
        'two': window(10, 10, 20, 20),
        'far': window(100, 100, 5, 5),
        'half': window(30, 30, 20, 20),
    }
    path = zones(tmp_path / 'z.gpkg', shapes)
    with pytest.warns(LabelWarning) as caught:
        table = class_table(mask, zones=path)
    texts = ' '.join(str(each.message) for each in caught)
    assert "1 pair of zones overlaps, as 'one' and 'two'" in texts
    assert '1 of 4 zones lie outside of' in texts
    assert '1 of 4 zones lie only partly in' in texts
    assert table['pixels'].tolist() == [400, 400, 0, 100]


def test_zones_without_a_pixel_are_told(tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.uint8)
    values[20:] = 255
    mask = write_classes(tmp_path / 'm.tif', values, names=['a'])
    shapes = {
        'field': window(0, 0, 5, 5),
        'between centers': window(10, 10, 0.4, 0.4),
        'clouds': window(30, 30, 5, 5),
    }
    path = zones(tmp_path / 'z.gpkg', shapes)
    with pytest.warns(LabelWarning) as caught:
        table = class_table(mask, zones=path)
    text = str(caught[-1].message)
    assert '2 of 3 zones hold no pixel with a class' in text
    assert 'between centers, clouds' in text
    assert table['pixels'].tolist() == [25, 0, 0]


def test_zones_of_one_name_are_told_apart_by_row(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', np.zeros((40, 40), np.uint8), names=['a'])
    frame = gpd.GeoDataFrame(
        {'district': ['Wald', 'See', 'Wald', None]},
        geometry=[window(0, 10 * n, 5, n + 1) for n in range(4)],
        crs='EPSG:32630',
    )
    frame.to_file(tmp_path / 'z.gpkg')
    table = class_table(mask, zones=tmp_path / 'z.gpkg')
    assert table['zone'].tolist() == ['Wald (row 1)', 'See', 'Wald (row 3)', '(row 4)']
    assert table['pixels'].tolist() == [5, 10, 15, 20]


def test_hectares_are_weighted_by_confidence(tmp_path: Path) -> None:
    values = np.array([[0, 0, 1, 255]], np.uint8)
    mask = write_classes(tmp_path / 'm.tif', values, names=['a', 'b'])
    percent = write_classes(
        tmp_path / 'c.tif',
        np.array([[100, 50, 20, 255]], np.uint8),
        names=None,
        description='confidence, per cent',
    )
    table = class_table(mask, confidence=percent)
    np.testing.assert_allclose(table['confidence'], [75, 20])
    np.testing.assert_allclose(
        table['hectares_weighted'], table['hectares'] * [0.75, 0.2]
    )


@pytest.mark.parametrize('suffix', ['.csv', '.parquet', '.xlsx'])
def test_tables(run: Run, tmp_path: Path, suffix: str) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(30, 30))
    output = tmp_path / f'a{suffix}'
    library = {'.csv': 'pandas', '.parquet': 'pyarrow', '.xlsx': 'openpyxl'}[suffix]
    answer = run('areas', mask, '--output', output)
    if find_spec(library) is None:
        refused(answer, f'pip install {library}', 'a.csv')
        assert not output.exists()
        return
    assert answer[0] == 0
    read = {'.csv': pd.read_csv, '.parquet': pd.read_parquet, '.xlsx': pd.read_excel}
    pd.testing.assert_frame_equal(read[suffix](output), class_table(mask))  # type: ignore[operator]
    refused(run('areas', mask, '--output', output), '--overwrite')


def test_mistakes(run: Run, tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(30, 30))
    plain = write_classes(
        tmp_path / 'p.tif', random_classes(9, 9), None, Affine.identity()
    )
    out = tmp_path / 'a.csv'
    refused(run('areas', plain, '--output', out), 'no CRS')
    wrong = run('areas', mask, '--output', tmp_path / 'a.xls')
    refused(wrong, f'Did you mean {str(out)!r}?')
    refused(run('areas', mask, '--zones', tmp_path / 'z.gpkg'), 'does not exist')
    far = zones(tmp_path / 'z.gpkg', {'x': window(900, 900, 5, 5)})
    command = ('areas', mask, '--output', out, '--zones')
    refused(run(*command, far), 'No zone of', 'Check the CRS')
    refused(run(*command, far, '--field', 'distric'), "Did you mean 'district'?")
    points = zones(tmp_path / 'q.gpkg', {'x': Point(500_050, 4_199_950)})
    refused(run(*command, points), 'has Point, expected polygons')
    frame = gpd.GeoDataFrame({'n': ['x']}, geometry=[window(0, 0, 5, 5)])
    frame.to_file(tmp_path / 'n.gpkg')
    refused(run(*command, tmp_path / 'n.gpkg'), 'no CRS')
    gpd.read_file(far).to_file(far, layer='other')
    refused(run(*command, far), 'several layers (', 'other')
    refused(run(*command, mask), 'Cannot read')
    assert not out.exists()
