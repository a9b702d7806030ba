from pathlib import Path

import pytest
import rasterio

from benchmarks.real_chip import run
from tests.conftest import SHARED

REAL = SHARED / 'real'


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason='the real chip is not here')
def test_water_from_image_labels(tmp_path: Path) -> None:
    scores = run(REAL, tmp_path, steps=60)
    assert scores['iou']['Water'] >= 0.85 * scores['supervised_iou']['1']
    with (
        rasterio.open(tmp_path / 'spain_mask.tif') as mask,
        rasterio.open(REAL / 'spain_s2.tif') as scene,
    ):
        assert mask.crs == scene.crs
        assert mask.transform == scene.transform
        assert mask.shape == scene.shape
