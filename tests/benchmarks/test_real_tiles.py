"""What benchmarks/real_tiles.py measures, and its mixing and adaptation."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_scene_data import CLASSES
from benchmarks.real_tiles import main
from benchmarks.real_tiles_data import GROUPS, LABELS, Tiles
from benchmarks.real_tiles_oracle import ORACLE
from benchmarks.real_tiles_rows import MERGE, ROWS, TEN, DrawnTiles, TileRun
from tests.conftest import SHARED
from torchgeo_ctm.inference.merging import merging

REAL = SHARED / 'real'
FOLDERS = ['--tiles', str(REAL / 'eurosat'), '--dense', str(REAL / 'dense')]


@pytest.fixture
def tiles() -> Tiles:
    labels = np.arange(20) % len(LABELS)
    values = labels[:, None, None, None] * 100.0 + 500
    bands = np.broadcast_to(values, (20, 13, 64, 64)).astype(np.float32)
    return Tiles(bands, labels)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason='the real tiles are not here')
def test_every_row_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('benchmarks.real_tiles_data.MOSAICS', 2)
    target = tmp_path / 'rows.json'
    more = ['--seeds', '0', '--steps', '2', '--json', str(target), '--mosaics']
    assert main([*FOLDERS, *more]) == 0
    results = json.loads(target.read_text())
    assert [result['row'] for result in results] == [*ROWS, ORACLE]
    *rows, bound = results
    # scored where it has not learned, on TerraMesh alone
    assert {'terra', 'mosaics'} & bound.keys() == {'terra'}
    for result in rows:
        for where in ('terra', 'mosaics'):
            assert 0 <= result[where] <= 1
            assert len(result[f'{where}_iou']) == 5
            assert 0 <= result[f'{where}_four'] <= 1
    scores = {result['row']: result['mosaics'] for result in rows}
    assert scores['forest, ten bands'] > scores['constant guess']


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--tiles', 'absent', '--dense', 'absent'], 'Cannot find absent/labels.csv'),
        ([*FOLDERS, '--rows', 'nothing'], "Unknown row 'nothing', expected some of"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*more, '--json', str(tmp_path / 'rows.json')]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count('\n') == 1


def test_halves_share_no_tile_and_hold_every_label(tiles: Tiles) -> None:
    first, second = tiles.half(0), tiles.half(1)
    assert np.bincount(first.labels).tolist() == [1] * len(LABELS)
    assert np.bincount(second.labels).tolist() == [1] * len(LABELS)


def test_the_truth_of_a_mosaic_is_the_class_of_its_tiles(tiles: Tiles) -> None:
    for mosaic in tiles.mosaics():
        label = ((mosaic.bands[0] - 500) / 100).astype(int)
        assert (GROUPS[label] == mosaic.truth).all()


def test_every_label_is_merged_into_its_class() -> None:
    found = merging(MERGE, list(LABELS), [''] * len(LABELS))
    assert sorted(found.names) == sorted(CLASSES)
    for name, members in zip(found.names, found.members, strict=True):
        assert {CLASSES[GROUPS[index]] for index in members} == {name}


def test_a_run_draws_tiles_by_its_seed(tiles: Tiles) -> None:
    chips = DrawnTiles(TileRun(tiles, 0, steps=2), TEN)
    assert len(chips) == 32
    for sample in (chips[index] for index in range(32)):
        assert int((sample['image'][0, 0, 0] - 500) / 100) == int(sample['label'])
    orders = [DrawnTiles(TileRun(tiles, s, steps=2), TEN).order for s in (0, 0, 1)]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()
