from itertools import pairwise

import numpy as np
import pytest

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.windows import WindowPlan, axis_weights, split_evenly, window_starts

SIZES = [1, 7, 8, 9, 16, 23, 24]


@pytest.mark.parametrize('height', SIZES)
@pytest.mark.parametrize('stride', range(1, 9))
def test_every_pixel_is_covered_and_no_window_leaves_the_scene(
    height: int, stride: int
) -> None:
    width = 13
    covered = np.zeros((height, width), int)
    planned = WindowPlan(height, width, 8, stride)
    plan = [planned[number] for number in range(len(planned))]
    for row, col, tall, wide in plan:
        assert 0 <= row
        assert row + tall <= height
        assert 0 <= col
        assert col + wide <= width
        assert (tall, wide) == (min(8, height), min(8, width))
        covered[row : row + tall, col : col + wide] += 1
    assert covered.min() >= 1
    assert plan == sorted(set(plan))
    if stride == 8 and height % 8 == 0:
        assert covered[:, :5].max() == 1


@pytest.mark.parametrize('length', SIZES)
@pytest.mark.parametrize('stride', range(1, 9))
def test_windows_are_never_further_apart_than_the_stride(
    length: int, stride: int
) -> None:
    starts = window_starts(length, 8, stride)
    assert all(0 < b - a <= stride for a, b in pairwise(starts))


@pytest.mark.parametrize('length', SIZES)
@pytest.mark.parametrize('stride', range(1, 9))
def test_weights_are_positive_and_sum_to_one(length: int, stride: int) -> None:
    total = np.zeros(length)
    for start, weight in axis_weights(length, 8, stride):
        assert weight.min() > 0
        total[start : start + len(weight)] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_windows_fade_into_each_other() -> None:
    (_, first), (start, second) = axis_weights(12, 8, 4)
    assert start == 4
    np.testing.assert_allclose(first, [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    np.testing.assert_allclose(second, first[::-1])


def test_without_overlap_every_weight_is_one() -> None:
    for _, weight in axis_weights(24, 8, 8):
        np.testing.assert_array_equal(weight, 1)


def test_windows_are_numbered_strip_by_strip() -> None:
    plan = WindowPlan(20, 30, 8, 6)
    assert [row for row, _ in plan.rows] == [0, 6, 12]
    assert plan.row_of(len(plan.cols)) == 1


@pytest.mark.parametrize(
    ('count', 'largest', 'sizes'),
    [
        (0, 8, []),
        (5, 8, [5]),
        (10, 8, [4, 6]),
        (17, 8, [4, 8, 5]),
        (10, 6, [4, 6]),
        (10, 5, [5, 5]),
        (50, 8, [4, 8, 8, 8, 8, 8, 6]),
        (8, 1, [1] * 8),
    ],
)
def test_batches_are_nearly_equal(count: int, largest: int, sizes: list[int]) -> None:
    parts = split_evenly(range(count), largest)
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == list(range(count))


@pytest.mark.parametrize(
    ('length', 'window', 'stride'), [(10, 8, 9), (10, 8, 0), (0, 8, 4), (10, 0, 1)]
)
def test_impossible_plans_are_refused(length: int, window: int, stride: int) -> None:
    with pytest.raises(SettingError):
        window_starts(length, window, stride)


def test_too_large_a_stride_names_the_nearest() -> None:
    with pytest.raises(SettingError, match='Did you mean 8'):
        window_starts(10, 8, 9)
