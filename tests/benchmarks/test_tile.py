"""Whether benchmarks/tile.py compares whole predictions, and maps what it says."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from benchmarks.inference import make_scene
from benchmarks.tile import build_unet, compare, make_checkpoint, unet_loop, window_plan
from torchgeo_ctm.trainers import load_task


def test_windows_are_those_of_a_prediction(tmp_path: Path) -> None:
    task = load_task(make_checkpoint(tmp_path / 'recommended.ckpt', steps=1))
    plan = window_plan(task, 700)
    assert (plan.window, plan.stride, len(plan)) == (256, 224, 9)


def test_a_plain_loop_maps_every_pixel(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / 'scene.tif', 300)
    unet_loop(build_unet(), scene, tmp_path / 'mask.tif')
    with rasterio.open(scene) as image, rasterio.open(tmp_path / 'mask.tif') as mask:
        assert (mask.shape, mask.transform) == (image.shape, image.transform)
        assert len(np.unique(mask.read(1))) > 1


@pytest.mark.slow
def test_both_sides_are_timed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / 'recommended.ckpt', steps=1)
    found = compare(tmp_path, 256, rounds=1, batch=2)
    assert found['windows_per_pixel'] == 1
    assert 0 < found['pipeline_efficiency'] < 1
    assert 0 < found['refinement_share'] < 1
    assert found['seconds']['unet'] / found['seconds']['ours'] == pytest.approx(
        found['pipeline_over_unet']
    )
    assert (tmp_path / 'mask.tif').exists()
