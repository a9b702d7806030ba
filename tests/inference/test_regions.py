from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import label

from tests.fakes.class_rasters import random_classes, write_classes
from torchgeo_ctm.inference.areas import PixelAreas
from torchgeo_ctm.inference.regions import find_regions


@pytest.mark.parametrize('shape', [(70, 90), (600, 53), (257, 1), (1, 300), (1, 1)])
def test_regions_are_those_of_scipy(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = random_classes(*shape, seed=3)
    share = np.random.default_rng(1).integers(0, 101, shape).astype(np.uint8)
    share[::3, ::2] = 255
    path = write_classes(tmp_path / 'a.tif', values)
    other = write_classes(tmp_path / 'b.tif', share, names=None)
    expected = []
    for value in range(4):
        labels, count = label(values == value)
        for index in range(1, count + 1):
            inside = labels == index
            known = share[inside & (share != 255)]
            mean = known.mean() if len(known) else np.nan
            expected.append((np.flatnonzero(inside)[0], value, inside.sum(), mean))
    with rasterio.open(path) as mask, rasterio.open(other) as confidence:
        found = find_regions(mask, PixelAreas(mask), confidence)
        without = find_regions(mask, None, None)
    columns = np.array(sorted(expected), float).reshape(-1, 4).T
    np.testing.assert_array_equal(found.first, columns[0])
    np.testing.assert_array_equal(found.classes, columns[1])
    np.testing.assert_array_equal(found.pixels, columns[2])
    np.testing.assert_allclose(found.confidence, columns[3])
    np.testing.assert_allclose(found.hectares, found.pixels * 0.01, rtol=1e-3)
    np.testing.assert_array_equal(without.first, found.first)
    assert np.isnan(without.hectares).all() and np.isnan(without.confidence).all()


def test_a_region_that_winds_through_every_row_band_is_one(tmp_path: Path) -> None:
    values = np.zeros((1030, 9), np.uint8)
    # a comb: teeth 2, 4, … of class 1, joined only in the last row
    values[:, ::2] = 1
    values[-1] = 1
    with rasterio.open(write_classes(tmp_path / 'a.tif', values)) as mask:
        found = find_regions(mask, None, None)
    assert found.first.tolist() == [0, 1, 3, 5, 7]
    assert found.pixels.tolist() == [1030 * 5 + 4] + [1029] * 4
