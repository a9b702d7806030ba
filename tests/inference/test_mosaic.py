import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_ctm.inference.mosaic import RowMosaic
from torchgeo_ctm.maps.class_maps import resize
from torchgeo_ctm.windows import WindowPlan, split_evenly


def run(
    plan: WindowPlan, windows: dict[int, Tensor], channels: int, batch_size: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Send scores of windows (C, h, w) through the mosaic, in batches."""
    mosaic = RowMosaic(plan, channels)
    side = plan.window
    rows = []
    columns = len(plan.cols)
    for strip in range(len(plan.rows)):
        held = [n for n in windows if plan.row_of(n) == strip]
        for numbers in split_evenly(held, batch_size):
            scores = torch.stack([windows[n] for n in numbers])
            valid = torch.ones(len(numbers), side, side, dtype=torch.bool)
            rows += list(mosaic.add(list(numbers), scores, valid))
    rows += list(mosaic.finish())
    assert columns * len(plan.rows) == len(plan)
    assert [part.row for part in rows] == sorted(part.row for part in rows)
    scores = torch.cat([part.scores for part in rows], dim=1)
    return scores.numpy(), torch.cat([part.valid for part in rows]).numpy()


def cut(scene: Tensor, plan: WindowPlan) -> dict[int, Tensor]:
    """Return the scene's own pixels in every window, padded with nonsense."""
    windows = {}
    for number in range(len(plan)):
        row, col, tall, wide = plan[number]
        window = torch.full((scene.shape[0], plan.window, plan.window), 7.0)
        window[:, :tall, :wide] = scene[:, row : row + tall, col : col + wide]
        windows[number] = window
    return windows


@pytest.mark.parametrize(
    'size', [(1, 1), (7, 30), (8, 8), (9, 5), (24, 17), (1, 60), (90, 3)]
)
@pytest.mark.parametrize('stride', range(1, 9))
def test_identity_gives_the_scene_back(size: tuple[int, int], stride: int) -> None:
    scene = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    plan = WindowPlan(*size, 8, stride)
    blended, valid = run(plan, cut(scene, plan), 2)
    np.testing.assert_allclose(blended, scene, rtol=2e-6)
    assert valid.all()
    # decided classes come back exactly
    classes = (scene[0] * 5).long()
    shares = torch.nn.functional.one_hot(classes, 5).movedim(-1, 0).float()
    decided, _ = run(plan, cut(shares, plan), 5)
    assert np.array_equal(decided.argmax(axis=0), classes)


def test_constants_blend_as_by_hand() -> None:
    plan = WindowPlan(1, 12, 8, 4)
    assert [start for start, _ in plan.cols] == [0, 4]
    values = {0: torch.full((1, 2, 2), 1.0), 1: torch.full((1, 2, 2), 4.0)}
    blended, _ = run(plan, values, 1)
    first = np.array([4, 3, 2, 1]) / 4
    second = np.array([1, 2, 3, 4]) / 4
    between = (first * 1 + second * 4) / (first + second)
    expected = [1] * 4 + between.tolist() + [4] * 4
    np.testing.assert_allclose(blended[0, 0], expected, rtol=1e-6)


def test_maps_are_resized_as_whole_windows_are() -> None:
    """Blending at the height of the maps equals resizing first, then blending."""
    plan = WindowPlan(40, 52, 16, 7)
    generator = torch.Generator().manual_seed(0)
    small = {n: torch.rand(3, 4, 4, generator=generator) for n in range(len(plan))}
    large = {n: resize(map_[None], (16, 16))[0] for n, map_ in small.items()}
    np.testing.assert_allclose(
        run(plan, small, 3)[0], run(plan, large, 3)[0], atol=1e-6
    )


@pytest.mark.parametrize('batch_size', [1, 2, 5, 100])
def test_batches_change_no_byte(batch_size: int) -> None:
    plan = WindowPlan(40, 52, 16, 7)
    generator = torch.Generator().manual_seed(0)
    windows = {n: torch.rand(3, 4, 4, generator=generator) for n in range(len(plan))}
    expected = run(plan, windows, 3)[0]
    assert np.array_equal(run(plan, windows, 3, batch_size)[0], expected)


def test_windows_left_out_are_invalid() -> None:
    plan = WindowPlan(32, 24, 8, 8)
    kept = [n for n in range(len(plan)) if n not in (0, 4, 6, 7, 8)]
    windows = {n: torch.ones(1, 2, 2) for n in kept}
    blended, valid = run(plan, windows, 1)
    expected = np.zeros((32, 24), bool)
    for number in kept:
        row, col, tall, wide = plan[number]
        expected[row : row + tall, col : col + wide] = True
    assert np.array_equal(valid, expected)
    assert (blended[0][expected] == 1).all()


def test_invalid_pixels_inside_a_window() -> None:
    plan = WindowPlan(8, 12, 8, 4)
    mosaic = RowMosaic(plan, 1)
    scene = torch.rand(8, 12) > 0.3
    valid = torch.stack([scene[:, :8], scene[:, 4:]])
    list(mosaic.add([0, 1], torch.ones(2, 1, 1, 1), valid))
    [rows] = mosaic.finish()
    assert torch.equal(rows.valid, scene)
