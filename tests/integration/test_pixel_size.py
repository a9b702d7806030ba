"""Scenes whose pixels are larger or smaller than those that a model learned from."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from tests.commands import Run
from tests.conftest import WriteScene, save_task, scene_pixels, tiny_task
from tests.fakes.label_files import write_features
from tests.fakes.runs import QUIET
from torchgeo_ctm.errors import PixelSizeWarning, SettingError
from torchgeo_ctm.grids import Grid, common_pixel_size, pixel_size
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling

UTM = 'EPSG:32632'


def grid(side: float, crs: Any = UTM, at: tuple[float, float] = (500_000, 5e6)) -> Grid:
    transform = Affine.translation(*at) @ Affine.scale(side, -side)
    known = None if crs is None else rasterio.CRS.from_user_input(crs)
    return Grid(100, 100, known, transform)


@pytest.mark.parametrize(
    ('place', 'meters'),
    [
        (grid(10), 10),
        (grid(20), 20),
        # a degree of longitude is half as long at 60 degrees north
        (grid(9e-5, 'EPSG:4326', (11, 60)), 10 * math.sqrt(0.5)),
        (grid(100, 'EPSG:2225', (6_500_000, 2_000_000)), 30.48),  # US survey feet
        # Mercator stretches by 2 there
        (grid(20, 'EPSG:3857', (1_000_000, 8_400_000)), 10),
    ],
)
def test_pixel_size_is_in_meters_on_the_ground(place: Grid, meters: float) -> None:
    assert pixel_size(place) == pytest.approx(meters, rel=0.03)


def test_no_pixel_size_without_a_place_on_earth() -> None:
    assert pixel_size(grid(10, None)) is None
    assert pixel_size(grid(10, 'LOCAL_CS["hall",UNIT["metre",1]]')) is None


def test_scenes_share_a_pixel_size_if_they_are_alike() -> None:
    assert common_pixel_size([grid(10), grid(12), grid(10)]) == 10
    assert common_pixel_size([grid(10), grid(30)]) is None
    assert common_pixel_size([grid(10), grid(10, None)]) is None
    assert common_pixel_size([]) is None


def test_a_pixel_size_is_above_zero() -> None:
    with pytest.raises(SettingError, match='pixel_size=0 m, expected above 0'):
        BandScaling(SENTINEL2_BANDS, pixel_size=0)


@pytest.mark.parametrize(
    ('side', 'warned'), [(10, False), (13, False), (20, True), (5, True)]
)
def test_predict_compares_pixel_sizes(
    write_scene: WriteScene, tmp_path: Path, side: float, warned: bool
) -> None:
    scaling = {'method': 'standard', 'pixel_size': 10.0}
    checkpoint = save_task(tiny_task(scaling=scaling), tmp_path / 'tiny.ckpt')
    path = write_scene('scene.tif', pixels=scene_pixels(70, 90))
    with rasterio.open(path, 'r+') as raster:
        raster.transform = grid(side).transform
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        predict_scene(path, checkpoint, tmp_path / 'mask.tif', **QUIET)
    said = [str(w.message) for w in caught if w.category is PixelSizeWarning]
    assert len(said) == warned
    assert all(f'{side} m wide, those of the training data 10 m' in s for s in said)


def test_train_records_the_pixel_size(
    run: Run, write_scene: WriteScene, tmp_path: Path
) -> None:
    from shapely import box

    path = write_scene('scene.tif', pixels=scene_pixels(96, 96))
    with rasterio.open(path) as raster:
        side, crs = raster.res[0], raster.crs.to_epsg()
        left, top = raster.transform @ (0, 0)
    step = 16 * side
    squares = [
        box(
            left + x * step, top - (y + 1) * step, left + (x + 1) * step, top - y * step
        )
        for y, x in np.ndindex(6, 6)
    ]
    names = [('Forest', 'Water')[n % 2] for n in range(len(squares))]
    labels = write_features(tmp_path / 'labels.gpkg', squares, names, crs)
    ckpt = tmp_path / 'model.ckpt'
    given = ('--labels', labels, '--output', ckpt, '--steps', 2, '--window', 16)
    status, _, err = run('train', path, *given, '--accelerator', 'cpu')
    assert status == 0, err
    content = torch.load(ckpt, map_location='cpu', weights_only=False)
    assert content['hyper_parameters']['scaling']['pixel_size'] == side
