"""Windows that a person labels by click, and the file that training reads."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from tests.fakes.land_cover import LandCover, write_land_cover, write_raster
from torchgeo_ctm import label_windows
from torchgeo_ctm.annotation import click
from torchgeo_ctm.configuration import read_data, write_content
from torchgeo_ctm.errors import (
    GridError,
    LabelError,
    LabelWarning,
    OutputError,
    SettingError,
)
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import PolygonLabels
from torchgeo_ctm.labels.detect import read_labels
from torchgeo_ctm.train import plan

CLASSES = ('forest', 'water', 'roads, built')


@pytest.fixture(scope='session')
def ground(tmp_path_factory: pytest.TempPathFactory) -> LandCover:
    """A scene of 256 px: 16 windows of 64 px, 64 of 32."""
    return write_land_cover(tmp_path_factory.mktemp('ground'), 'scene', 32, 0, 256)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    pytest.importorskip('anywidget')
    return tmp_path / 'labels.gpkg'


def grid_of_row(path: Path, row: int) -> Grid:
    """The grid of the window in a row of a file."""
    left, _, _, top = gpd.read_file(path).geometry[row].bounds
    return Grid(64, 64, 'EPSG:32632', Affine(10, 0, left, 0, -10, top))


def test_a_class_is_absent_only_if_that_was_said(
    ground: LandCover, output: Path
) -> None:
    grid = label_windows(ground.scene, 16, CLASSES, output)
    grid.answer(0, ['forest', 'roads, built'], only_these=True)
    grid.answer(1, ['water'])
    grid.answer(2, not_sure=True)
    grid.answer(3, only_these=True)
    with pytest.warns(LabelWarning, match='13 of 16 features were left out'):
        labels, options = read_labels(str(output), 'class')
    assert isinstance(labels, PolygonLabels)
    assert options['complete'] == 'only_these'
    assert labels.classes == ('forest', 'roads, built', 'water')
    found = [labels.label(grid_of_row(output, row)) for row in range(5)]
    present = [None if label is None else label.present.tolist() for label in found]
    known = [None if label is None else label.known.tolist() for label in found]
    assert present == [[1, 1, 0], [0, 0, 1], None, [0, 0, 0], None]
    assert known == [[True] * 3, [False, False, True], None, [True] * 3, None]


def test_every_click_is_on_disk_and_the_next_call_goes_on(
    ground: LandCover, output: Path
) -> None:
    grid = label_windows(ground.scene, 5, CLASSES, output)
    # what the browser sends
    grid.set_state({'answers': [[[1, 2], False, False], *grid.answers[1:]]})
    assert grid.message == f'1 of 5 windows labeled in {output}'
    assert gpd.read_file(output)['class'][0] == '["water", "roads, built"]'
    assert [path.name for path in output.parent.iterdir()] == ['labels.gpkg']
    again = label_windows(ground.scene, 9, CLASSES, output)
    assert again.answers == [[[1, 2], False, False], *[[[], False, False]] * 8]
    assert len(again.pictures) == 9
    before, after = grid.windows.geometry, again.windows.geometry
    assert after[:5].geom_equals(before).all()
    # none over another
    assert shapely.union_all(after).area == pytest.approx(9 * 640**2)
    fewer = label_windows(ground.scene, 2, CLASSES, output)
    assert len(fewer.answers) == 9


def test_windows_are_spread_and_seeded(ground: LandCover, output: Path) -> None:
    def centers(seed: int) -> Any:
        output.unlink(missing_ok=True)
        grid = label_windows(ground.scene, 4, CLASSES, output, size=32, seed=seed)
        return shapely.get_coordinates(grid.windows.centroid)

    first = centers(0)
    assert (first == centers(0)).all()
    assert (first != centers(1)).any()
    quarters = ((first - first.mean(axis=0)) > 0) @ [1, 2]
    assert len({*quarters.tolist()}) == 4


def test_windows_are_where_the_map_is_least_sure(
    ground: LandCover, output: Path, tmp_path: Path
) -> None:
    mask, confidence = tmp_path / 'mask.tif', tmp_path / 'mask_confidence.tif'
    percent = np.full((1, 256, 256), 90, np.uint8)
    # one window of each quarter
    for row, col in ((0, 0), (64, 192), (192, 64), (128, 128)):
        percent[0, row : row + 64, col : col + 64] = 40
    write_raster(mask, ground.classes[None], ground.crs, ground.transform, 255)
    write_raster(confidence, percent, ground.crs, ground.transform, 255)
    grid = label_windows(ground.scene, 4, CLASSES, output, mask=mask)
    pixels = shapely.get_coordinates(grid.windows.centroid)
    cols, rows = (pixels - [500_000, 5_300_000]).T / [[10], [-10]]
    assert (percent[0, rows.astype(int), cols.astype(int)] == 40).all()
    with rasterio.open(mask, 'r+') as raster:
        raster.transform = Affine(10, 0, 0, 0, -10, 0)
    output.unlink()
    with pytest.raises(GridError, match='are on different grids'):
        label_windows(ground.scene, 4, CLASSES, output, mask=mask)


def test_nodata_is_not_labeled(output: Path, tmp_path: Path) -> None:
    ground = write_land_cover(tmp_path, 'half', 32, 1, 128)
    with rasterio.open(ground.scene, 'r+') as raster:
        pixels = raster.read()
        pixels[:, :, 60:] = 0
        raster.nodata = 0
        raster.write(pixels)
    with pytest.warns(LabelWarning, match='has only 4 windows of 32 px'):
        grid = label_windows(ground.scene, 9, CLASSES, output, size=32)
    assert grid.windows.total_bounds[2] <= 500_000 + 10 * 64
    with pytest.raises(LabelError, match='no valid window of 200 px'):
        label_windows(ground.scene, 9, CLASSES, tmp_path / 'b.gpkg', size=200)


def test_windows_of_a_file_in_degrees(
    ground: LandCover, output: Path, tmp_path: Path
) -> None:
    squares = label_windows(ground.scene, 3, CLASSES, output).windows
    squares[['geometry']].to_crs(4326).to_file(tmp_path / 'next.gpkg')
    grid = label_windows(ground.scene, tmp_path / 'next.gpkg', CLASSES, output)
    assert len(grid.answers) == 3
    far = squares.translate(1e5).to_frame('geometry')
    with pytest.raises(LabelError, match=r'Window 4 of 6 is outside .*scene\.tif'):
        label_windows(ground.scene, far, CLASSES, output)
    assert len(gpd.read_file(output)) == 3


def test_pictures_are_png_with_false_color(ground: LandCover, output: Path) -> None:
    [views] = label_windows(ground.scene, 1, CLASSES, output).pictures
    assert len(views) == 1  # no B03
    assert all(view.startswith(b'\x89PNG') for view in views)


def test_training_takes_the_labels(
    ground: LandCover, output: Path, tmp_path: Path
) -> None:
    grid = label_windows(ground.scene, 16, ['Croplands', 'Forest'], output)
    for number in range(16):
        grid.answer(number, [['Croplands'], ['Forest']][number % 2])
    with pytest.warns(LabelWarning, match='no window without Croplands, Forest'):
        read_labels(str(output), 'class')
    for number in range(16):
        grid.answer(number, [['Croplands'], ['Forest']][number % 2], only_these=True)
    content, reasons = plan([str(ground.scene)], str(output))
    assert reasons[0] == 'labels: 16 polygons (Croplands 8, Forest 8)'
    assert content['model']['init_args']['img_size'] == 64
    write_content(content, tmp_path / 'model.yaml')
    data: Any = read_data(tmp_path / 'model.yaml')
    assert data.labels().names_all.all()


def test_bad_input(ground: LandCover, output: Path, tmp_path: Path) -> None:
    grid = label_windows(ground.scene, 2, CLASSES, output)
    with pytest.raises(LabelError, match=r"unknown class 'watr'.*Did you mean 'water'"):
        grid.answer(0, ['watr'])
    with pytest.raises(LabelError, match='Unknown window 2, expected 0 to 1'):
        grid.answer(2)
    with pytest.raises(SettingError, match='size=0 is too small'):
        label_windows(ground.scene, 2, CLASSES, output, size=0)
    with pytest.raises(SettingError, match=r'Invalid windows=2.5, expected an integer'):
        label_windows(ground.scene, 2.5, CLASSES, output)
    with pytest.raises(OutputError, match=r"Did you mean 'labels.gpkg'"):
        label_windows(ground.scene, 2, CLASSES, output.with_suffix('.shp'))
    grid.answer(0, ['water'])
    with pytest.raises(LabelError, match="row 1: unknown class 'water'"):
        label_windows(ground.scene, 2, ['trees', 'built'], output)
    other = tmp_path / 'other.gpkg'
    grid.windows[['geometry']].to_file(other)
    with pytest.raises(LabelError, match="no column 'class'"):
        label_windows(ground.scene, 2, CLASSES, other)


def test_a_notebook_without_widgets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(click, 'find_spec', lambda name: None)
    with pytest.raises(SettingError, match=r'pip install "torchgeo-ctm\[notebooks\]"'):
        label_windows('scene.tif', 2, CLASSES, tmp_path / 'labels.gpkg')


def test_a_file_that_cannot_be_written_is_said_in_the_grid(
    ground: LandCover, output: Path
) -> None:
    grid = label_windows(ground.scene, 2, CLASSES, output)
    output.unlink()
    output.mkdir()
    with pytest.raises(OutputError, match='is a folder'):
        grid.answer(0, ['water'])
    assert grid.message.startswith(f'Not saved: {output} is a folder')


def test_an_older_grid_does_not_erase_what_a_newer_one_wrote(
    ground: LandCover, output: Path
) -> None:
    old = label_windows(ground.scene, 4, CLASSES, output)
    new = label_windows(ground.scene, 4, CLASSES, output)
    new.answer(1, ['water'])
    with pytest.raises(OutputError, match='was changed by another grid'):
        old.answer(0, ['forest'])
    assert old.message.startswith('Not saved')
    new.answer(2, ['forest'])
    assert gpd.read_file(output)['class'].notna().tolist() == [False, True, True, False]
