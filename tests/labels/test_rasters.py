import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import SEN12MSDataModule

from tests.fakes.label_files import (
    SCENE,
    TRANSFORM,
    UTM32,
    UTM33,
    named,
    window,
    write_class_raster,
)
from torchgeo_ctm.errors import LabelError, LabelWarning, SettingError
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.labels import (
    IGBP,
    IGBP_SIMPLIFIED,
    WORLDCOVER,
    RasterLabels,
    check_overlap,
    raster_files,
)

#: The window at the upper left corner, upside down.
TURNED = TRANSFORM @ Affine.translation(10, 10) @ Affine.rotation(180)
MAP = {1: 'Forest', 2: 'Water'}
CLASSES = ('Forest', 'Water')


def halves(rows: int = 40, cols: int = 40) -> NDArray[np.uint8]:
    """Forest on the left, water on the right."""
    values = np.ones((rows, cols), np.uint8)
    values[:, cols // 2 :] = 2
    return values


def test_shares_by_hand(tmp_path: Path) -> None:
    values = halves()
    values[0] = 9  # other
    values[1] = 0  # nodata
    path = write_class_raster(tmp_path / 'a.tif', values, nodata=0)
    shares, coverage = RasterLabels(path, MAP).shares(window(0, 16))
    assert shares == pytest.approx([0.4 * 0.8, 0.6 * 0.8])
    assert coverage == pytest.approx(0.9)


def test_parts_of_coarse_pixels_count_in_part(tmp_path: Path) -> None:
    # pixels of 500 m, windows of 100 m across their borders
    coarse = TRANSFORM @ Affine.scale(50)
    path = write_class_raster(
        tmp_path / 'a.tif', np.array([[1, 2], [3, 2]], 'u1'), coarse
    )
    source = RasterLabels(path, MAP)
    assert source.shares(window(47, 44))[0] == pytest.approx([0.6 * 0.3, 0.4])
    shares, coverage = source.shares(window(0, 0))
    assert [*shares, coverage] == pytest.approx([1, 0, 1])
    # three pixels reach over the raster's edge
    shares, coverage = source.shares(window(0, 93))
    assert [*shares, coverage] == pytest.approx([0, 0.7, 0.7])


def test_oblong_windows_and_pixels(tmp_path: Path) -> None:
    # pixels of 40 m × 20 m, a window of 100 m × 30 m
    oblong = TRANSFORM @ Affine.scale(4, 2)
    values = np.array([[1, 1, 2], [2, 2, 2]], np.uint8)
    path = write_class_raster(tmp_path / 'a.tif', values, oblong)
    shares, coverage = RasterLabels(path, MAP).shares(Grid(3, 10, UTM32, TRANSFORM))
    assert [*shares, coverage] == pytest.approx([16 / 30, 14 / 30, 1])


def test_fine_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (90, 90)).astype(np.int16)
    fine = TRANSFORM @ Affine.scale(1 / 3)
    path = write_class_raster(tmp_path / 'a.tif', values, fine)
    shares, coverage = RasterLabels(path, MAP).shares(window(5, 10))
    inside = values[15:45, 30:60]
    assert shares == pytest.approx([(inside == 1).mean(), (inside == 2).mean()])
    assert coverage == pytest.approx(1)


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    path = write_class_raster(
        tmp_path / 'a.tif', rng.integers(0, 4, (60, 60)).astype(np.uint8)
    )
    grids = [window(7, 9, 31), window(7, 9, 31)._replace(crs=UTM33)]
    grids[1] = Grid(31, 31, UTM32, grids[0].transform @ Affine.rotation(20))
    source = RasterLabels(path, MAP)
    whole = [source.shares(grid)[0] for grid in grids]
    monkeypatch.setattr(raster_files, 'BLOCK', 100)
    for grid, expected in zip(grids, whole, strict=True):
        assert source.shares(grid)[0] == pytest.approx(expected)


def test_tiles_side_by_side_add_up(tmp_path: Path) -> None:
    values = halves()
    write_class_raster(tmp_path / 'left.tif', values[:, :15])
    moved = TRANSFORM @ Affine.translation(15, 0)
    write_class_raster(tmp_path / 'right.tif', values[:, 15:], moved)
    whole = RasterLabels(write_class_raster(tmp_path / 'whole.tiff', values), MAP)
    tiles = RasterLabels(tmp_path, MAP)
    assert len(tiles) == 2
    for col in (0, 10, 15, 28):
        grid = window(3, col)
        assert tiles.shares(grid)[0] == pytest.approx(whole.shares(grid)[0])
        assert tiles.shares(grid)[1] == pytest.approx(1)
    assert sorted(tiles.extents(SCENE).tolist()) == [[0, 0, 40, 15], [0, 15, 40, 40]]


def test_first_of_overlapping_rasters_counts(tmp_path: Path) -> None:
    first = np.ones((20, 20), np.uint8)
    first[:10] = 0
    paths = [
        write_class_raster(tmp_path / 'b.tif', first, nodata=0),
        write_class_raster(tmp_path / 'a.tif', np.full((20, 20), 2, np.uint8)),
    ]
    shares, coverage = RasterLabels(paths, MAP, samples=20).shares(window(5, 0))
    assert [*shares, coverage] == pytest.approx([0.5, 0.5, 1])


@pytest.mark.parametrize('crs', ['EPSG:4326', 'EPSG:3035', 'EPSG:32633'])
def test_other_crs_and_rotated_windows(tmp_path: Path, crs: str) -> None:
    """Shares found by points agree with those of the same map, painted finely."""
    box = rasterio.warp.transform_bounds(
        UTM32, crs, 699_800, 5_298_800, 701_200, 5_300_200
    )
    size = 700
    pixel = ((box[2] - box[0]) / size, (box[3] - box[1]) / size)
    transform = Affine(pixel[0], 0, box[0], 0, -pixel[1], box[3])
    cols, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    ground = transform @ (cols.ravel(), rows.ravel())
    x = rasterio.warp.transform(crs, UTM32, *ground)[0]
    # forest west of a line of UTM zone 32
    values = np.where(np.array(x) < 700_060, 1, 2).reshape(size, size).astype(np.uint8)
    path = write_class_raster(tmp_path / 'a.tif', values, transform, crs)
    source = RasterLabels(path, MAP)
    shares, coverage = source.shares(window(0, 0, 15))
    assert coverage == 1
    assert shares == pytest.approx([0.4, 0.6], abs=0.02)
    turned = Grid(15, 15, UTM32, TRANSFORM @ Affine.rotation(90))
    assert source.shares(turned)[0] == pytest.approx([1, 0], abs=0.02)
    boxes = source.extents(SCENE)
    assert boxes.tolist() == [[0, 0, 100, 100]]


def test_points_agree_with_areas(tmp_path: Path) -> None:
    path = write_class_raster(tmp_path / 'a.tif', halves())
    barely = TRANSFORM @ Affine.translation(12, 3) @ Affine.rotation(0.01)
    shares, coverage = RasterLabels(path, MAP).shares(Grid(16, 16, UTM32, barely))
    assert [*shares, coverage] == pytest.approx([0.5, 0.5, 1], abs=0.01)


def test_raster_of_the_globe(tmp_path: Path) -> None:
    values = np.ones((18, 36), np.uint8)
    values[:, 18:] = 2  # water in the east
    globe = Affine(10, 0, -180, 0, -10, 90)
    path = write_class_raster(tmp_path / 'a.tif', values, globe, 'EPSG:4326')
    source = RasterLabels(path, MAP)
    label = source.label(window(0, 0))
    assert named(label, CLASSES) == {'Forest': False, 'Water': True}
    assert source.extents(SCENE).tolist() == [[0, 0, 100, 100]]
    check_overlap(source, [SCENE])


def test_label(tmp_path: Path) -> None:
    values = halves()
    values[:, 3:20] = 9
    values[10:20] = 255
    path = write_class_raster(tmp_path / 'a.tif', values, nodata=255)
    classes = ('Water', 'Forest', 'Urban')
    source = RasterLabels(path, MAP, classes, min_share=0.25)
    # 30 % forest, the rest is no class; the map does not have Urban
    assert named(source.label(window(0, 0)), classes) == {
        'Water': False,
        'Forest': True,
        'Urban': None,
    }
    # half of it unknown: forest covers 15 % of the window, 30 % of what is known
    assert named(source.label(window(5, 0)), classes) == {
        'Water': False,
        'Forest': None,
        'Urban': None,
    }
    assert source.label(window(6, 0)) is None
    assert source.label(window(60, 60)) is None
    assert RasterLabels(path, MAP, nodata=[9]).label(window(0, 5)) is None


def test_bands_and_values_that_share_a_class(tmp_path: Path) -> None:
    values = np.stack([np.zeros((10, 10), np.uint16), halves(10, 10)])
    path = write_class_raster(tmp_path / 'a.tif', values)
    source = RasterLabels(path, {1: 'Forest', 2: 'forest', 3: 'Water'}, band=2)
    assert source.classes == CLASSES
    assert source.shares(window(0, 0))[0].tolist() == pytest.approx([1, 0])
    with pytest.raises(
        LabelError, match=r'has 2 bands, expected band 3\. Did you mean 2'
    ):
        RasterLabels(path, MAP, band=3)


def test_floats_are_read_as_they_are(tmp_path: Path) -> None:
    values = halves(10, 10).astype(np.float32)
    values[:4] = np.nan
    values[4] = 1.5
    path = write_class_raster(tmp_path / 'a.tif', values)
    shares, coverage = RasterLabels(path, MAP).shares(window(0, 0))
    assert [*shares, coverage] == pytest.approx([0.25, 0.25, 0.6])


def test_ignored_and_unknown_names_of_the_map(tmp_path: Path) -> None:
    path = write_class_raster(tmp_path / 'a.tif', halves())
    source = RasterLabels(path, MAP, ignore=['water'])
    assert source.classes == ('Forest',)
    shares, coverage = source.shares(window(0, 15))
    assert [*shares, coverage] == pytest.approx([0.5, 1])
    with pytest.raises(
        LabelError, match=r"class_map: .*'Water'.* Did you mean 'Waters'"
    ):
        RasterLabels(path, MAP, ['Forest', 'Waters'])
    with pytest.raises(SettingError, match='leaves no class'):
        RasterLabels(path, MAP, ['Forest'], ignore=CLASSES)


def test_shares_are_those_of_exact_areas(tmp_path: Path) -> None:
    """Parity with areas of pixels cut by the window, within 1 % of the window."""
    rng = np.random.default_rng(3)
    values = np.kron(rng.integers(0, 4, (40, 40)), np.ones((3, 3))).astype(np.uint8)
    # pixels of 9.3 m × 11.7 m, none of whose edges lies on an edge of the window's
    size = (0.93, 1.17)
    transform = TRANSFORM @ Affine.translation(-3.3, -4.7) @ Affine.scale(*size)
    path = write_class_raster(tmp_path / 'a.tif', values, transform, nodata=0)
    source = RasterLabels(path, MAP)
    for row, col, side in [(0, 0, 64), (20, 11, 48), (31, 7, 70)]:
        edges = [
            np.clip((np.arange(121) * step + start - first), 0, side)
            for step, start, first in ((size[1], -4.7, row), (size[0], -3.3, col))
        ]
        areas = np.outer(*(np.diff(edge) for edge in edges)) / side**2
        shares, coverage = source.shares(window(row, col, side))
        for index in (0, 1):
            exact = areas[values == index + 1].sum()
            assert shares[index] == pytest.approx(exact, abs=0.01)
        assert coverage == pytest.approx(areas[values > 0].sum(), abs=0.01)


def test_masked_pixels_are_unknown(tmp_path: Path) -> None:
    path = write_class_raster(tmp_path / 'a.tif', halves())
    valid = np.ones((40, 40), bool)
    valid[:5] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, 'r+') as file:
        file.write_mask(valid)
    source = RasterLabels(path, MAP)
    for grid in (window(0, 0), window(0, 0)._replace(transform=TURNED)):
        shares, coverage = source.shares(grid)
        assert [*shares, coverage] == pytest.approx([0.5, 0, 0.5])


def test_legends() -> None:
    assert list(WORLDCOVER) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    assert list(IGBP) == list(range(1, 18))
    contest = (
        'Forest',
        'Shrubland',
        'Savanna',
        'Grassland',
        'Wetlands',
        'Croplands',
        'Urban/Built-up',
        'Snow/Ice',
        'Barren',
        'Water',
    )
    mapping = SEN12MSDataModule.DFC2020_CLASS_MAPPING.tolist()
    assert {v: contest[mapping[v] - 1] for v in range(1, 18)} == IGBP_SIMPLIFIED


def test_legend_by_name(tmp_path: Path) -> None:
    path = write_class_raster(tmp_path / 'a.tif', np.full((10, 10), 80, np.uint8))
    source = RasterLabels(path, 'worldcover')
    assert source.classes == tuple(WORLDCOVER.values())
    label = source.label(window(0, 0))
    assert label is not None
    assert label.known.all()
    assert label.present.nonzero()[0].tolist() == [7]
    with pytest.raises(
        SettingError, match=r"'world_cover'.* Did you mean 'worldcover'"
    ):
        RasterLabels(path, 'world_cover')


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'min_share': 2}, 'min_share=2'),
        ({'samples': 0}, 'samples=0'),
        ({'class_map': {}}, 'class_map is empty'),
        ({'class_map': {'x': 'Forest'}}, 'an integer for each class'),
    ],
)
def test_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_class_raster(tmp_path / 'a.tif', halves())
    with pytest.raises(SettingError, match=message):
        RasterLabels(path, **({'class_map': MAP} | settings))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match='does not exist, expected class rasters'):
        RasterLabels(tmp_path / 'none.tif', MAP)
    with pytest.raises(LabelError, match=r'has no file \*\.tif'):
        RasterLabels(tmp_path, MAP)
    with pytest.raises(LabelError, match='No class raster was given'):
        RasterLabels([], MAP)
    (tmp_path / 'text.tif').write_text('no raster')
    with pytest.raises(LabelError, match='Cannot open'):
        RasterLabels(tmp_path / 'text.tif', MAP)
    path = write_class_raster(tmp_path / 'a.tif', halves(), Affine.identity(), None)
    with pytest.raises(LabelError, match='no CRS or no transform'):
        RasterLabels(path, MAP)
    path = write_class_raster(tmp_path / 'b.tif', halves(), nodata=2)
    with pytest.raises(LabelError, match="2 is nodata, but 'Water' in class_map"):
        RasterLabels(path, MAP)


def test_damaged_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_class_raster(
        tmp_path / 'a.tif', rng.integers(0, 9, (100, 100)).astype(np.uint8)
    )
    source = RasterLabels(path, MAP)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(LabelError, match=r'a\.tif cannot be (read|opened)'):
        source.label(window(80, 80))


@pytest.mark.parametrize(
    ('names', 'told'),
    [
        (['none', 'Forest', 'Water'], False),
        (['none', 'Water', 'Forest'], True),
        (['', 'not JSON of names'], False),
    ],
)
def test_names_in_the_file_that_contradict_the_class_map_are_told(
    tmp_path: Path, names: list[str], told: bool
) -> None:
    path = write_class_raster(tmp_path / 'a.tif', halves())
    with rasterio.open(path, 'r+') as raster:
        raster.update_tags(CLASS_NAMES=json.dumps(names))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        RasterLabels(path, MAP)
    assert len(caught) == told
    assert all('a.tif names its value 1' in str(each.message) for each in caught)


def test_overlap_with_scenes(tmp_path: Path) -> None:
    source = RasterLabels(write_class_raster(tmp_path / 'a.tif', halves()), MAP)
    far = SCENE._replace(transform=TRANSFORM @ Affine.translation(5000, 0))
    check_overlap(source, [SCENE, far])
    with pytest.warns(LabelWarning, match='only 1 of 3'):
        check_overlap(source, [SCENE, far, far])
    with pytest.raises(LabelError, match=r'a\.tif overlap none of the 1 scenes'):
        check_overlap(source, [far])
    with pytest.raises(LabelError, match='without a CRS'):
        source.label(window(0, 0)._replace(crs=None))


class Windows(Dataset[Any]):
    """Shares of one window after another."""

    def __init__(self, source: RasterLabels) -> None:
        self.source = source

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.source.shares(window(0, 6 * index))[0]


def test_in_workers_and_pickled(tmp_path: Path) -> None:
    source = RasterLabels(write_class_raster(tmp_path / 'a.tif', halves()), MAP)
    data = Windows(source)
    expected = np.stack([data[index] for index in range(4)])  # opens the file here
    loaded = DataLoader(data, batch_size=2, num_workers=2)
    assert np.array_equal(np.concatenate([b.numpy() for b in loaded]), expected)
    thawed = Windows(pickle.loads(pickle.dumps(source)))
    assert np.array_equal([thawed[index] for index in range(4)], expected)


def test_a_fork_opens_its_own_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RasterLabels(write_class_raster(tmp_path / 'a.tif', halves()), MAP)
    source.shares(window(0, 0))
    handles = dict(source._reader._open)
    monkeypatch.setattr(os, 'getpid', lambda: -1)
    source.shares(window(0, 0))
    assert source._reader._open.keys() == handles.keys()
    assert all(source._reader._open[path] is not handles[path] for path in handles)


def test_many_files_keep_few_open(tmp_path: Path) -> None:
    for index in range(raster_files.OPEN_FILES + 5):
        moved = TRANSFORM @ Affine.translation(index, 0)
        write_class_raster(tmp_path / f'{index:02}.tif', np.ones((10, 1), 'u1'), moved)
    source = RasterLabels(tmp_path, MAP)
    shares, _ = source.shares(window(0, 0, 40))
    assert shares[0] == pytest.approx(37 * 10 / 1600)
    assert len(source._reader._open) == raster_files.OPEN_FILES


def test_a_picture_is_no_map_of_classes(tmp_path: Path) -> None:
    bands = np.ones((13, 4, 4), np.uint16)
    path = write_class_raster(tmp_path / 'a.tif', bands)
    message = 'has 13 bands of uint16, expected 1 band of integer classes. Pass band='
    with pytest.raises(LabelError, match=message):
        RasterLabels(path, MAP)
    assert RasterLabels(path, MAP, band=1).classes == CLASSES


def test_values_that_the_class_map_does_not_mention_are_counted(tmp_path: Path) -> None:
    values = halves(100, 100)
    values[:2, :50] = 7
    values[5, :3] = 9
    values[6] = 0  # nodata
    path = write_class_raster(tmp_path / 'a.tif', values, nodata=0)
    with pytest.warns(LabelWarning) as caught:
        check_overlap(RasterLabels(path, MAP), [SCENE])
    said = [str(warning.message) for warning in caught]
    assert len(said) == 1
    assert said[0].endswith('2 values in the scenes are not in class_map and count as '
                            'no class: 7 (100 px), 9 (3 px).')  # fmt: skip
    # what is mentioned, ignored or nodata is no surprise; nor is what lies elsewhere
    known = RasterLabels(path, MAP | {9: 'Other'}, ignore=['Other'], nodata=[7])
    assert not known.unmapped(SCENE)
    elsewhere = Grid(10, 10, UTM32, TRANSFORM @ Affine.translation(50, 50))
    assert not RasterLabels(path, MAP).unmapped(elsewhere)
