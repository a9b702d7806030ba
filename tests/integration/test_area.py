"""A part of a scene is mapped as in the map of the whole scene."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds

from tests.commands import Run, TorchGeoMain, refused
from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.label_files import square
from tests.fakes.labeled_scenes import RuleLabels
from tests.fakes.runs import SMALL, read, stopped_at_batch, trainer
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import (
    AreaNote,
    CTMError,
    GridError,
    ResumeWarning,
    SettingError,
)
from torchgeo_ctm.grids import IGNORED, Grid, Window
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.rasters import grid_of
from torchgeo_ctm.scenes.area import Area, box_area
from torchgeo_ctm.scenes.batches import SceneBatches
from torchgeo_ctm.windows import WindowPlan

pytestmark = pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')

CONFIGS = Path(__file__).parents[2] / 'configs'
#: Several batches of two windows in a row.
OPTIONS = SMALL | {'batch_size': 2, 'polygons': False}


@pytest.fixture
def scene(write_scene: WriteScene) -> Path:
    """A scene with nodata at its left edge, which moves the batches of some rows."""
    pixels = scene_pixels(150, 200)
    pixels[:, 40:90, :60] = 0
    return write_scene(pixels=pixels, nodata=0)


@pytest.fixture(params=['local', 'tokens'])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    task = tiny_task(patches={'head': request.param})
    return save_task(decisive(task), tmp_path / 'tiny.ckpt')


def grid_at(scene: Path) -> Grid:
    with rasterio.open(scene) as raster:
        return grid_of(raster)


def write_area(scene: Path, *shapes: Any, name: str = 'area.gpkg') -> Path:
    """Write polygons in pixels of a scene (column, row) as a GeoPackage."""
    grid = grid_at(scene)
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    ground = [shapely.affinity.affine_transform(s, (a, b, d, e, c, f)) for s in shapes]
    path = scene.with_name(name)
    gpd.GeoDataFrame(geometry=ground, crs=grid.crs).to_crs(4326).to_file(path)
    return path


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the windows that are computed."""
    numbers: list[int] = []
    stack = SceneBatches._stack

    def counting(self: SceneBatches, chosen: Any, *given: Any) -> Any:
        numbers.extend(chosen)
        return stack(self, chosen, *given)

    with monkeypatch.context() as patch:
        patch.setattr(SceneBatches, '_stack', counting)
        yield numbers


def test_polygons_are_mapped_as_in_the_whole_map(
    scene: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triangle = shapely.Polygon([(70.2, 30), (131.4, 38), (100, 99.7)])
    hole = shapely.Point(100, 55).buffer(8)
    area = write_area(scene, triangle.difference(hole))
    whole = predict_scene(scene, checkpoint, tmp_path / 'whole.tif', **OPTIONS).paths
    with counted(monkeypatch) as numbers:
        made = predict_scene(
            scene, checkpoint, tmp_path / 'm.tif', area=area, **OPTIONS
        ).paths
    # rows 30 to 99 of 32 px each 16, of which batches of two touch the triangle
    assert 0 < len(numbers) < 60
    rows, cols = np.s_[30:100], np.s_[70:132]
    with rasterio.open(made[0]) as ours, rasterio.open(scene) as theirs:
        assert ours.shape == (70, 62)
        assert ours.transform == theirs.transform @ Affine.translation(70, 30)
        assert ours.crs == theirs.crs
        assert ours.tags()['AREA'] == 'area.gpkg'
    # to the CRS of the file and back, borders move by less than a pixel's thousandth
    inside = geometry_mask(
        [triangle.difference(hole)], (70, 62), Affine.translation(70, 30), invert=True
    )
    for part, full in zip(made[:2], whole[:2], strict=True):
        expected = np.where(inside, read(full)[rows, cols], IGNORED)
        np.testing.assert_array_equal(read(part), expected)


def test_a_box_is_mapped_as_in_the_whole_map(
    run: Run, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    grid = grid_at(scene)
    square_ = square((50, 40, 90, 110), grid)
    west, south, east, north = transform_bounds(grid.crs, 'EPSG:4326', *square_.bounds)
    assert west < 0
    flags = (
        '--checkpoint', checkpoint, '--accelerator', 'cpu', '--window', 32,
        '--stride', 16, '--batch_size', 2,
    )  # fmt: skip
    whole, part, again = (tmp_path / name for name in ('w.tif', 'p.tif', 'a.tif'))
    assert run('predict', scene, '--output', whole, *flags)[0] == 0
    box = ('--bbox', west, south, east, north)
    status, _, err = run('predict', scene, '--output', part, *flags, *box)
    assert status == 0, err
    joined = ('--bbox', f'{west},{south},{east},{north}')
    assert run('predict', scene, '--output', again, *flags, *joined)[0] == 0
    assert read(again).tobytes() == read(part).tobytes()
    with rasterio.open(part) as raster:
        bounds = raster.bounds
        # the box in degrees is a little larger than the square
        assert shapely.box(*bounds).contains(square_)
        assert 40 <= raster.height <= 43
        assert 70 <= raster.width <= 73
    col, row = (round(value) for value in ~grid.transform @ (bounds.left, bounds.top))
    height, width = read(part).shape
    for suffix in ('', '_confidence'):
        full = read(tmp_path / f'w{suffix}.tif')[row : row + height, col : col + width]
        np.testing.assert_array_equal(read(tmp_path / f'p{suffix}.tif'), full)


def test_a_resumed_run_writes_the_same_bytes_and_notices_another_area(
    scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    disk = shapely.Point(120, 70).buffer(45)
    area = write_area(scene, disk)
    options = OPTIONS | {'area': area}
    whole = predict_scene(scene, checkpoint, tmp_path / 'whole.tif', **options)

    def interrupted() -> None:
        with stopped_at_batch(4), pytest.raises(KeyboardInterrupt):
            predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)

    interrupted()
    with pytest.warns(ResumeWarning, match='resuming'):
        mask = predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)
    for one, other in zip(mask.paths[:2], whole.paths[:2], strict=True):
        assert one.read_bytes() == other.read_bytes()
    options |= {'overwrite': True}
    interrupted()
    write_area(scene, disk.buffer(-5))
    with pytest.warns(ResumeWarning, match='because area changed; starting over'):
        predict_scene(scene, checkpoint, tmp_path / 'm.tif', **options)


def test_what_lies_outside_of_the_scene_is_told(
    scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error', AreaNote)
        options = OPTIONS | {'area': write_area(scene, shapely.box(0, 0, 40, 40))}
        predict_scene(scene, checkpoint, tmp_path / 'inside.tif', **options)
    options['area'] = write_area(scene, shapely.box(-30, 0, 10, 40))
    with pytest.warns(AreaNote, match='25 % of .* lies in the scene'):
        predict_scene(scene, checkpoint, tmp_path / 'partly.tif', **options)


@pytest.mark.parametrize(
    ('shape', 'touching'),
    [
        (None, 4),
        # the corner of one window
        (shapely.box(0, 0, 3, 3), 1),
        # an edge in common is none
        (shapely.box(32, 0, 64, 32), 1),
        (shapely.box(31, 31, 33, 33), 4),
    ],
)
def test_windows_touch_an_area_if_they_share_ground(shape: Any, touching: int) -> None:
    area = Area('a', Window(20, 20, 20, 20), shape)
    assert area.touches(WindowPlan(96, 96, 32, 32)).sum() == touching


@pytest.mark.parametrize(
    ('bbox', 'columns'),
    [
        ((179.5, 9.7, -179.5, 10.2), (500, 1000)),
        ((-179.5, 9.7, -179.3, 10.2), (1500, 200)),
        ((179.2, 9.7, 179.5, 10.2), (200, 300)),
        ('179.2, 9.7,179.5,10.2', (200, 300)),
    ],
)
@pytest.mark.parametrize('west', [-181, 179])
def test_a_box_across_the_date_line(bbox: Any, columns: Any, west: float) -> None:
    place = Affine(0.001, 0, west, 0, -0.001, 10.5)
    grid = Grid(1000, 2000, CRS.from_epsg(4326), place)
    assert box_area('s', grid, bbox).window == (300, columns[0], 500, columns[1])
    with pytest.raises(SettingError, match="Invalid bbox '1,2;3', expected WEST,"):
        box_area('s', grid, '1,2;3')


def test_a_scene_in_meters_across_the_date_line() -> None:
    grid = Grid(500, 4000, CRS.from_epsg(32601), Affine(10, 0, 150_000, 0, -10, 9e5))
    for box in ((179.8, 8, -179.7, 8.2), (-179.9, 8, -179.7, 8.2), (179, 8, 179.9, 9)):
        area = box_area('s', grid, box)
        assert 0 < area.window.width <= 4000
    # nearly all around, but for the scene
    for box in ((-179.4, 8, 179.7, 8.2), (-179, 8, 179, 8.2)):
        with pytest.raises(
            GridError, match=r'lies outside of s, expected an area in it'
        ):
            box_area('s', grid, box)


def test_rows_of_polygons_do_not_depend_on_the_call() -> None:
    disk = shapely.Point(300, 320).buffer(290)
    area = Area('a', Window(30, 10, 580, 580), disk)
    whole = geometry_mask([disk], (580, 580), Affine.translation(10, 30), invert=True)
    for row, rows in ((0, 580), (3, 5), (250, 20), (255, 1), (256, 256), (575, 5)):
        np.testing.assert_array_equal(area.inside(row, rows), whole[row : row + rows])


def test_what_is_no_area_leaves_no_file(
    run: Run, scene: Path, write_scene: WriteScene, tmp_path: Path
) -> None:
    checkpoint = save_task(tiny_task(), tmp_path / 'tiny.ckpt')
    out = tmp_path / 'out'
    out.mkdir()
    bare = write_scene('bare.tif', crs=None)

    names = (f'area{number}.gpkg' for number in count())

    def area(*shapes: Any) -> tuple[str, Path]:
        return ('--area', write_area(scene, *shapes, name=next(names)))

    call = (
        '--checkpoint',
        checkpoint,
        '--output',
        out / 'm.tif',
        '--accelerator',
        'cpu',
    )
    dot = shapely.box(50.1, 50.1, 50.3, 50.3)
    with rasterio.open(scene) as raster:
        west, south, east, north = transform_bounds(raster.crs, 4326, *raster.bounds)
    swapped = (south, west, north, east)
    for path, flags, words in (
        (scene, ('--bbox', 'a,b,c,d'), "Invalid bbox 'a,b,c,d', expected WEST,SOUTH"),
        (scene, ('--bbox', 1, 2, 3), "Invalid bbox '1,2,3'"),
        (scene, ('--bbox', 500000, 1, 2, 3), 'in degrees of longitude and latitude'),
        (scene, ('--bbox', 1, 3, 2, 1), 'south below north'),
        (scene, ('--bbox', 7, 50, 8, 51), 'bbox 7,50,8,51 lies outside of'),
        (scene, ('--bbox', *swapped), 'Longitude and latitude are swapped.'),
        (scene, ('--bbox', north, west, south, east), 'latitude are swapped.'),
        (scene, ('--bbox', east + 1, south, west - 1, north), 'West and east are swap'),
        (bare, ('--bbox', 7, 50, 8, 51), 'has no CRS or no transform, which bbox'),
        (bare, area(dot), 'has no CRS or no transform, which area requires'),
        (scene, area(dot), '.gpkg contains the center of no pixel'),
        (scene, area(shapely.box(900, 0, 999, 9)), '.gpkg lies outside of'),
        (scene, area(), 'has no polygon, expected at least one'),
        (scene, area(shapely.Point(9, 9)), 'has Point, expected polygons'),
        (scene, ('--area', tmp_path / 'no.gpkg'), 'does not exist, expected polygons'),
        (scene, ('--area', scene), 'Cannot read'),
        (scene, (*area(dot), '--bbox', 1, 2, 3, 4), 'expected one of both'),
    ):  # fmt: skip
        refused(run('predict', path, *call, *flags), words)
        assert not list(out.iterdir())
    # the polygons of a map do not replace those of its area
    named = (*call[:2], '--output', tmp_path / 'area.tif', '--overwrite')
    path = write_area(scene, dot)
    refused(run('predict', scene, *named, '--area', path), 'is the input itself')


def in_area(area: Path, scene: Path, window: Any) -> bool:
    """Return whether a window shares ground with the polygons of a file."""
    grid = grid_at(scene)
    [shape] = gpd.read_file(area).to_crs(grid.crs).geometry
    row, col, height, width = window
    ground = square((row, col, row + height, col + width), grid)
    return bool(shape.intersection(ground).area > 0)


@pytest.mark.parametrize('unlabeled', [None, 24])
def test_training_draws_windows_that_touch_the_area(
    scene: Path, unlabeled: int | None
) -> None:
    area = write_area(scene, shapely.Point(120, 70).buffer(50))
    classes = ('Forest', 'Water', 'Urban/Built-up')
    shown: dict[str, list[Any]] = {}
    for name, given in (('all', None), ('area', str(area))):
        data = SceneDataModule(
            str(scene), 4, 0, 16, labels=RuleLabels(classes, lambda grid: [1, 0, 1]),
            shares=(0.6, 0.4, 0), block_size=32, length=64, windows_per_read=2,
            unlabeled_window=unlabeled, area=given,
        )  # fmt: skip
        data.trainer = trainer()
        data.trainer.strategy.connect(tiny_task())
        data.setup('fit')
        batches = [*data.train_dataloader()]
        shown[name] = [w for b in batches for w in b['window'].tolist()]
        assert data.splits is not None
        held = [window for _, window, _ in data.splits.windows('val').windows]
        shown[name] += held
        assert len(held) > 2
    inside = {name: [in_area(area, scene, w) for w in shown[name]] for name in shown}
    assert all(inside['area'])
    assert not all(inside['all'])


def test_a_data_module_maps_an_area_as_predict_does(
    torchgeo_main: TorchGeoMain, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    area = write_area(scene, shapely.Point(120, 70).buffer(45))
    made = predict_scene(scene, checkpoint, tmp_path / 'm.tif', area=area, **OPTIONS)
    torchgeo_main(
        'predict', '--config', CONFIGS / 'scene.yaml', '--ckpt_path', checkpoint,
        '--data.scene', scene, '--data.window', 32, '--data.stride', 16,
        '--data.batch_size', 2, '--data.area', area, '--trainer.accelerator', 'cpu',
        '--trainer.callbacks.output', tmp_path / 't.tif',
    )  # fmt: skip
    assert (tmp_path / 't.tif').read_bytes() == made.paths[0].read_bytes()


def test_torchgeo_predict_needs_weights_and_a_writer(
    torchgeo_main: TorchGeoMain, scene: Path, checkpoint: Path, tmp_path: Path
) -> None:
    given = ['predict', '--config', CONFIGS / 'scene.yaml', '--data.scene', scene]
    given += ['--trainer.accelerator', 'cpu']
    with pytest.raises(CTMError, match='random initial weights'):
        torchgeo_main(*given, '--trainer.callbacks.output', tmp_path / 'm.tif')
    assert not [*tmp_path.glob('*m.tif*')]
    with pytest.raises(CTMError, match='No callback of the trainer writes the maps'):
        torchgeo_main(*given, '--ckpt_path', checkpoint, '--trainer.callbacks', 'null')


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'area': 'no.gpkg'}, 'does not exist, expected polygons'),
        ({'area': 'a.gpkg', 'bbox': [1, 2, 3, 4]}, 'expected one of both'),
        ({'bbox': [7, 50, 8, 51]}, 'lies outside of'),
    ],
)
@pytest.mark.parametrize('stage', ['fit', 'predict'])
def test_a_data_module_refuses_what_predict_refuses(
    scene: Path, options: dict[str, Any], expected: str, stage: str
) -> None:
    labels = RuleLabels(('Forest', 'Water', 'Urban/Built-up'), lambda grid: [1, 0, 1])
    data = SceneDataModule(str(scene), labels=labels, window=32, **options)
    data.trainer = trainer()
    data.trainer.strategy.connect(tiny_task())
    with pytest.raises(CTMError, match=expected):
        data.setup(stage)
