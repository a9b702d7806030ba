from pathlib import Path

import numpy as np
import pytest
import rasterio.features
from scipy.ndimage import label

from tests.fakes.class_rasters import random_classes, write_classes
from torchgeo_ctm.inference import masks
from torchgeo_ctm.inference.masks import open_mask
from torchgeo_ctm.inference.sieve import sieved


# seeds without a region between two neighbors of one size, which GDAL orders otherwise
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('size', [2, 5, 20])
def test_small_regions_are_merged_as_gdal_does(
    seed: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = random_classes(40 + 9 * seed, 90 - 7 * seed, seed)
    path = write_classes(tmp_path / 'a.tif', values)
    expected = rasterio.features.sieve(values, size, mask=values != 255)
    for rows in (1, 7, 1000):
        monkeypatch.setattr(masks, 'ROW_BAND', rows * values.shape[1])
        with open_mask(path) as mask, sieved(mask, size, tmp_path) as result:
            np.testing.assert_array_equal(result.read(1), expected)


def test_sieving_leaves_nodata_alone(tmp_path: Path) -> None:
    values = random_classes(300, 80)
    path = write_classes(tmp_path / 'a.tif', values)
    with open_mask(path) as mask:
        with sieved(mask, 1, tmp_path) as same:
            np.testing.assert_array_equal(same.read(1), values)
        with sieved(mask, 6, tmp_path) as result:
            assert result.transform == mask.transform
            coarse = result.read(1)
    np.testing.assert_array_equal(coarse == 255, values == 255)
    assert 0 < (coarse != values).sum() < 0.3 * values.size
    small = {
        name: sum(
            (np.bincount(label(v == c)[0].ravel())[1:] < 6).sum() for c in range(4)
        )
        for name, v in (('before', values), ('after', coarse))
    }
    # what is left has no neighbour of that size
    assert small['after'] < 0.02 * small['before']


def test_a_small_patch_takes_the_class_of_its_largest_neighbour(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:, 12:] = 1
    values[5:7, 11:13] = 2
    values[0, 0], values[1, 0], values[0, 1] = 3, 255, 255
    with open_mask(write_classes(tmp_path / 'a.tif', values)) as mask:
        with sieved(mask, 10_000, tmp_path) as result:
            np.testing.assert_array_equal(result.read(1), values)
        with sieved(mask, 5, tmp_path) as result:
            coarse = result.read(1)
    assert (coarse[5:7, 11:13] == 0).all()
    # it has no neighbour but nodata
    assert coarse[0, 0] == 3
