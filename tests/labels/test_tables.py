import importlib.util
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.fakes.label_files import SCENE, named, window, write_table
from torchgeo_ctm.errors import LabelError, LabelWarning
from torchgeo_ctm.labels import TableLabels, check_overlap

CLASSES = ('Forest', 'Water')
GRID = window(0, 0)


def listed(path: Path, *args: Any, **kwargs: Any) -> TableLabels:
    return TableLabels(path, 'tile', 'labels', *args, **kwargs)


def flags(path: Path, *args: Any, **kwargs: Any) -> TableLabels:
    return TableLabels(path, 'tile', None, *args, **kwargs)


@pytest.mark.parametrize(
    'cell',
    [
        'Forest;Water',
        'water|FOREST',
        'Forest, Water',
        '["Forest", "Water"]',
        "['Forest', 'Water']",
        "['Forest' 'Water']",  # NumPy's print
        "['Forest'\n 'Water']",
        "array(['Forest', 'Water'], dtype=object)",
        "('Forest', 'Water')",
        '[Forest, Water]',
    ],
)
def test_lists_of_classes(tmp_path: Path, cell: str) -> None:
    rows = [('t1', cell), ('t2', 'Water'), ('t3', '[]')]
    source = listed(write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows))
    assert [name.title() for name in source.classes] == list(CLASSES)
    assert named(source.label(GRID, 't1'), CLASSES) == {'Forest': True, 'Water': True}
    assert named(source.label(GRID, 't2'), CLASSES) == {'Forest': False, 'Water': True}
    assert named(source.label(GRID, 't3'), CLASSES) == {'Forest': False, 'Water': False}


def test_names_with_commas_and_apostrophes(tmp_path: Path) -> None:
    names = ['Beaches, dunes, sands', "Men's land"]
    rows = [('a', str(names)), ('b', '["Beaches, dunes, sands" "Men\'s land"]')]
    source = listed(write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows), names)
    for tile in 'ab':
        label = source.label(GRID, tile)
        assert label is not None
        assert label.present.tolist() == [1, 1]


def test_parquet_as_bigearthnet_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'metadata.parquet'
    columns = {'patch_id': ['S2A_1_2', 'S2A_1_3'], 'labels': [['Forest', 'Water'], []]}
    pd.DataFrame(columns).to_parquet(path)
    source = TableLabels(path, 'patch_id', 'labels')
    assert named(source.label(GRID, 'S2A_1_2.tif'), CLASSES) == {
        'Forest': True,
        'Water': True,
    }
    empty = source.label(GRID, 'S2A_1_3')
    assert empty is not None
    assert empty.known.all()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(LabelError, match='needs pyarrow'):
        TableLabels(path, 'patch_id', 'labels')


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_multi_hot(tmp_path: Path, delimiter: str, encoding: str) -> None:
    header = ['tile', ' water', 'FOREST']
    rows = [('a', 1, 0), ('b', '', 'True'), ('c', '0.0', '1.0')]
    path = write_table(tmp_path / 'a.csv', header, rows, delimiter, encoding)
    source = flags(path, CLASSES)
    assert named(source.label(GRID, 'a'), CLASSES) == {'Forest': False, 'Water': True}
    assert named(source.label(GRID, 'b'), CLASSES) == {'Forest': True, 'Water': None}
    assert named(source.label(GRID, 'c'), CLASSES) == {'Forest': True, 'Water': False}
    assert source.label(GRID, 'd') is None
    assert flags(path).classes == ('water', 'FOREST')


def test_multi_hot_parquet(tmp_path: Path) -> None:
    path = tmp_path / 'a.parquet'
    columns = {'tile': [7, 8], 'Forest': [True, False], 'Water': [1.0, None]}
    pd.DataFrame(columns).to_parquet(path)
    source = flags(path)
    assert named(source.label(GRID, '7'), CLASSES) == {'Forest': True, 'Water': True}
    assert named(source.label(GRID, '8'), CLASSES) == {'Forest': False, 'Water': None}


def test_partial_table(tmp_path: Path) -> None:
    rows = [('a', 'Forest'), ('b', 'Water'), ('c', '[]')]
    path = write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows)
    source = listed(path, complete=False)
    assert named(source.label(GRID, 'a'), CLASSES) == {'Forest': True, 'Water': None}
    assert source.label(GRID, 'c') is None


@pytest.mark.parametrize('name', ['a_1.5_x', 'a_1.5_x.tif', 's2/a_1.5_x.TIFF'])
@pytest.mark.parametrize('asked', ['a_1.5_x', 'b\\a_1.5_x.jp2'])
def test_tiles_by_name(tmp_path: Path, name: str, asked: str) -> None:
    rows = [(name, 'Forest'), ('007', 'Water'), ('NA', 'Forest')]
    source = listed(write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows))
    # another folder is another tile
    others = '/' in name and '\\' in asked
    assert (source.label(GRID, asked) is None) == others
    assert source.label(GRID, '007') is not None
    assert source.label(GRID, 'NA') is not None
    assert source.label(GRID, '7') is None
    assert source.label(GRID, 'a_1') is None
    with pytest.raises(LabelError, match='expected the name of the tile'):
        source.label(GRID)


def test_duplicate_tiles(tmp_path: Path) -> None:
    rows = [('a', 'Forest'), ('b', 'Water'), ('a.tif', 'forest')]
    path = write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows)
    with pytest.warns(LabelWarning, match=r'1 of 3 rows .*repeat .*\(first: row 4\)'):
        assert len(listed(path)) == 2
    path = write_table(
        tmp_path / 'b.csv', ['tile', 'labels'], [*rows[:2], ('a', 'Forest;Water')]
    )
    with pytest.raises(
        LabelError, match="tile 'a' has different labels in rows 2 and 4"
    ):
        listed(path)


def test_blanks_are_counted(tmp_path: Path) -> None:
    rows = [('a', 'Forest'), ('', 'Forest'), ('', ''), ('b', ' ')]
    path = write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows)
    with pytest.warns(LabelWarning) as caught:
        source = listed(path)
    assert len(source) == 1
    told = [str(warning.message) for warning in caught]
    # the row without a single cell is no row
    assert (
        "1 of 3 rows were left out: they have a blank 'tile' (first: row 3)" in told[0]
    )
    assert 'they say nothing about any class (first: row 5)' in told[1]


def test_unknown_and_ignored_classes(tmp_path: Path) -> None:
    rows = [('a', 'Forest'), ('b', 'Foresst;Cloud'), ('c', 'Cloud')]
    path = write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows)
    with pytest.raises(
        LabelError, match=r"'labels', row 3: .*'Foresst'.* Did you mean 'Forest'"
    ):
        listed(path, CLASSES, ignore=['cloud'])
    rows[1] = ('b', 'Forest;Cloud')
    path = write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows)
    with pytest.warns(LabelWarning, match='skipped in 2 of 3 rows'):
        source = listed(path, CLASSES, ignore=['cloud'])
    assert named(source.label(GRID, 'c'), CLASSES) == {'Forest': False, 'Water': False}


@pytest.mark.parametrize(
    'header, rows, message',
    [
        (
            ['id', 'labels'],
            [('a', 'x')],
            "no column 'tile', expected one of: id, labels",
        ),
        (
            ['tile', 'label'],
            [('a', 'x')],
            "no column 'labels', .* Did you mean 'label'",
        ),
        (['tile', 'labels', 'labels'], [('a', 'x', 'y')], 'several columns'),
        (['tile', 'labels'], [('a', 'x', 'y')], r'row 2: 3 cells under 2 columns'),
        (['tile', 'labels'], [], 'has no rows'),
        (['tile', 'labels'], [('', 'x')], 'labels no tile'),
        (['tile', 'labels'], [('a', "['x' ... 'y']")], r'row 2: .* cannot be read'),
    ],
)
def test_bad_tables(
    tmp_path: Path, header: Sequence[str], rows: Sequence[Any], message: str
) -> None:
    path = write_table(tmp_path / 'a.csv', header, rows)
    with (
        pytest.warns(LabelWarning) if 'no tile' in message else nullcontext(),
        pytest.raises(LabelError, match=message),
    ):
        listed(path)


def test_bad_multi_hot(tmp_path: Path) -> None:
    header, rows = ['tile', 'Forest', 'Water', 'split'], [('a', 1, 0, 'train')]
    path = write_table(tmp_path / 'a.csv', header, rows)
    with pytest.raises(LabelError, match=r"row 2: column 'split' has 'train'.*ignore="):
        flags(path)
    assert flags(path, ignore=['split']).classes == CLASSES
    assert flags(path, ['Water'], ignore=['Forest']).classes == ('Water',)
    with pytest.warns(LabelWarning, match='1 columns of 0 and 1 .*: Forest'):
        flags(path, ['Water'])
    with pytest.raises(
        LabelError, match=r"no column 'Waters', .* Did you mean 'Water'"
    ):
        flags(path, ['Waters', 'Forest'])
    path = write_table(tmp_path / 'b.csv', ['tile', 'Forest'], [('a', 1), ('b', 2)])
    with pytest.raises(LabelError, match="row 3: column 'Forest' has '2'"):
        flags(path)
    with pytest.raises(LabelError, match="no column besides 'tile'"):
        flags(write_table(tmp_path / 'c.csv', ['tile'], [('a',)]))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match='does not exist'):
        listed(tmp_path / 'none.csv')
    (tmp_path / 'a.xlsx').write_bytes(b'')
    with pytest.raises(LabelError, match=r'is not a table, expected one of: \.csv'):
        listed(tmp_path / 'a.xlsx')
    (tmp_path / 'a.parquet').write_text('no parquet')
    with pytest.raises(LabelError, match='cannot be read as Parquet'):
        listed(tmp_path / 'a.parquet')
    (tmp_path / 'a.csv').write_text('tile,labels\na,Wälder\n', encoding='latin-1')
    with pytest.raises(LabelError, match='is not UTF-8'):
        listed(tmp_path / 'a.csv')
    (tmp_path / 'b.csv').write_text('')
    with pytest.raises(LabelError, match='has no rows'):
        listed(tmp_path / 'b.csv')


def test_overlap_is_told_by_names(tmp_path: Path) -> None:
    rows = [('a', 'Forest'), ('b', 'Water')]
    source = listed(write_table(tmp_path / 'a.csv', ['tile', 'labels'], rows))
    assert source.extents(SCENE) is None
    check_overlap(source, [SCENE])
    with pytest.warns(LabelWarning, match='1 of 2 rows name no scene: b'):
        check_overlap(source, [SCENE, SCENE], ['a.tif', 'c.tif'])
    said = (
        r'none of the 2 scenes: they name a, b, the scenes are c\.tif, d\.tif\. Is id_'
    )
    with pytest.raises(LabelError, match=said):
        check_overlap(source, [SCENE, SCENE], ['c.tif', 'd.tif'])
