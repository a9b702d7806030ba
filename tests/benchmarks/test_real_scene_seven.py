"""What benchmarks/real_scene_seven.py measures, on a small scene, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_scene_data import VALUES, Place, Scene
from benchmarks.real_scene_seven import (
    BY_EYE,
    SEVEN,
    main,
    scores_by_eye,
    tagged_windows,
)

SHAPE = (384, 1024)


@pytest.fixture(scope='module')
def scene() -> Scene:
    """Return a scene where the real one has windows of marsh: rows 0 to 383."""
    rng = np.random.default_rng(0)
    cells = rng.integers(5, size=(SHAPE[0] // 16, SHAPE[1] // 16))
    classes = cells.repeat(16, axis=0).repeat(16, axis=1)
    values = np.array([v for v, _ in sorted(VALUES.items(), key=lambda pair: pair[1])])
    colors = rng.integers(300, 3000, (13, 5))
    bands = colors[:, classes] + rng.integers(-50, 50, (13, *SHAPE))
    reference = np.stack([values[classes], np.full(SHAPE, 90)])
    return Scene(bands.astype(np.uint16), reference.astype(np.uint8), Place())


def test_windows_have_the_tags_of_reference_and_eye(scene: Scene) -> None:
    windows = tagged_windows(scene.ground((0, 384), ''))
    assert windows.tags.shape[1] == len(SEVEN)
    assert (windows.corners % 64 == 0).all()
    later = tagged_windows(scene.ground((128, 384), ''))
    kept = windows.corners[:, 0] >= 128
    assert (later.corners == windows.corners[kept] - [128, 0]).all()
    assert (later.tags == windows.tags[kept]).all()
    row, col = windows.corners[0]
    part = scene.classes[row : row + 64, col : col + 64]
    for index in range(5):
        assert windows.tags[0, index] == ((part == index).mean() >= 0.1)


def test_a_map_with_the_tags_scores_one(scene: Scene) -> None:
    ground = scene.ground((0, 384), '')
    found, windows = ground.classes.copy(), tagged_windows(ground)
    for (row, col), tags in zip(windows.corners, windows.tags, strict=True):
        for index, name in enumerate(BY_EYE):
            if tags[SEVEN.index(name)]:
                # a fifth of the window, and the rest as it is
                rows = slice(row + 32 * index, row + 32 * index + 13)
                found[rows, col : col + 64] = SEVEN.index(name)
    scores = scores_by_eye(found, ground)
    marsh = int(windows.tags[:, SEVEN.index('marsh')].sum())
    assert marsh == scores['tagged']['marsh'] > 0
    assert scores['window_f1']['marsh'] == 1
    assert scores['miou_elsewhere'] == 1
    found[:] = SEVEN.index('trees')
    scores = scores_by_eye(found, ground)
    assert scores['window_f1']['marsh'] == 0
    assert 0 < scores['miou_elsewhere'] < 0.3


def test_both_rows_are_scored(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.save(tmp_path / 'scene.npz')
    rows = ['--train-rows', '0:192', '--score-rows', '192:384', '--steps', '2']
    files = ['--cache', str(tmp_path / 'scene.npz'), '--json', str(tmp_path / 'x.json')]
    assert main([*rows, *files, '--seeds', '0']) == 0
    results = json.loads((tmp_path / 'x.json').read_text())
    names = [result['row'] for result in results]
    assert names == ['per-pixel forest on tags', 'ours, refined']
    assert capsys.readouterr().out.count('\n') == 2


def test_ground_without_tagged_windows_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bands, reference = np.ones((13, 300, 64), np.uint16), np.full((2, 300, 64), 4)
    Scene(bands, reference.astype(np.uint8), Place()).save(tmp_path / 'scene.npz')
    rows = ['--train-rows', '130:200', '--score-rows', '200:300', '--steps', '2']
    files = ['--cache', str(tmp_path / 'scene.npz'), '--json', str(tmp_path / 'x.json')]
    assert main([*rows, *files]) == 2
    error = capsys.readouterr().err
    assert 'No window of these rows was tagged by eye' in error
    assert error.count('\n') == 1
