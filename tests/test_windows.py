from itertools import pairwise

import numpy as np
import pytest

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.windows import blend_weight, plan_windows, window_starts

SIZES = [1, 7, 8, 9, 16, 23, 24]


@pytest.mark.parametrize('height', SIZES)
@pytest.mark.parametrize('stride', range(1, 9))
def test_every_pixel_is_covered_and_no_window_leaves_the_scene(
    height: int, stride: int
) -> None:
    width = 13
    covered = np.zeros((height, width), int)
    plan = plan_windows(height, width, 8, stride)
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


@pytest.mark.parametrize('stride', [1, 3, 8])
def test_weights_are_positive_symmetric_and_largest_inside(stride: int) -> None:
    weight = blend_weight(8, stride)
    assert weight.min() > 0
    assert weight.max() == 1 or stride < 4
    np.testing.assert_array_equal(weight, weight.T)
    np.testing.assert_array_equal(weight, weight[::-1])
    assert weight[4, 4] == weight.max()


def test_without_overlap_every_weight_is_one() -> None:
    np.testing.assert_array_equal(blend_weight(8, 8), 1)


@pytest.mark.parametrize(
    ('length', 'window', 'stride'), [(10, 8, 9), (10, 8, 0), (0, 8, 4), (10, 0, 1)]
)
def test_impossible_plans_are_refused(length: int, window: int, stride: int) -> None:
    with pytest.raises(SettingError):
        window_starts(length, window, stride)


def test_too_large_a_stride_names_the_nearest() -> None:
    with pytest.raises(SettingError, match='nearest: 8'):
        window_starts(10, 8, 9)
