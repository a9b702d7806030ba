import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from torchgeo_ctm.demo import constant_guess_miou, run_demo
from torchgeo_ctm.errors import OutputError


def test_constant_guess() -> None:
    confusion = np.array([[30, 0, 0], [10, 0, 0], [0, 0, 0]])
    assert constant_guess_miou(confusion) == pytest.approx(30 / 40 / 2)


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.touch()
    with pytest.raises(OutputError, match='Cannot create folder'):
        run_demo(path)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    # of 800: the bound below is reached at 300
    metrics = run_demo(tmp_path, steps=500)
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    assert metrics['pseudo_mask_miou'] >= 0.7
    assert metrics['constant_guess_miou'] < 0.1
    for name in ('checkpoint.ckpt', 'mask.tif', 'mask_confidence.tif', 'mask.png'):
        assert (tmp_path / name).is_file()
    with (
        rasterio.open(tmp_path / 'mask.tif') as mask,
        rasterio.open(tmp_path / 'scene.tif') as scene,
    ):
        assert (mask.shape, mask.transform) == (scene.shape, scene.transform)
        assert mask.shape == (1024, 1024)
