import numpy as np
import pytest
from numpy.typing import NDArray

from torchgeo_ctm.inference.mosaic import RowMosaic
from torchgeo_ctm.windows import Window, blend_weight, plan_windows


def run(
    scene: NDArray[np.float32], window: int, stride: int
) -> tuple[NDArray[np.float32], list[int]]:
    """Send a scene's own pixels through the mosaic."""
    height, width = scene.shape[1:]
    mosaic = RowMosaic(scene.shape[0], height, width, window)
    weight = blend_weight(window, stride)
    parts = []
    for place in plan_windows(height, width, window, stride):
        row, col, tall, wide = place
        values = scene[:, row : row + tall, col : col + wide]
        parts += list(mosaic.add(place, values, weight[:tall, :wide]))
    parts += list(mosaic.finish())
    return np.concatenate([part for _, part in parts], axis=1), [r for r, _ in parts]


@pytest.mark.parametrize('size', [(1, 1), (7, 30), (8, 8), (9, 5), (24, 17)])
@pytest.mark.parametrize('stride', [1, 3, 4, 8])
def test_identity_gives_the_scene_back(size: tuple[int, int], stride: int) -> None:
    scene = np.random.default_rng(0).random((2, *size), dtype=np.float32)
    blended, rows = run(scene, 8, stride)
    np.testing.assert_allclose(blended, scene, rtol=1e-6)
    assert rows == sorted(rows)


def test_constants_blend_as_by_hand() -> None:
    mosaic = RowMosaic(1, 1, 3, 2)
    weight = np.array([[1.0, 0.5]], np.float32)
    for col, value in ((0, 1.0), (1, 4.0)):
        place = Window(0, col, 1, 2)
        assert not list(mosaic.add(place, np.full((1, 1, 2), value, 'f4'), weight))
    [(row, blended)] = mosaic.finish()
    assert row == 0
    assert blended[0, 0].tolist() == pytest.approx([1, (0.5 * 1 + 1 * 4) / 1.5, 4])


def test_pixels_without_weight_are_nan() -> None:
    mosaic = RowMosaic(2, 2, 2, 2)
    weight = np.array([[1, 0], [1, 1]], np.float32)
    list(mosaic.add(Window(0, 0, 2, 2), np.ones((2, 2, 2), np.float32), weight))
    [(_, blended)] = mosaic.finish()
    assert np.isnan(blended[:, 0, 1]).all()
    assert np.isfinite(blended).sum() == 6
