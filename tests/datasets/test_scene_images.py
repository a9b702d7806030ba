import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fakes.masks import coded, place, write_image
from torchgeo_ctm.datasets import SceneImages, SceneWindows
from torchgeo_ctm.datasets.scene_images import OPEN
from torchgeo_ctm.errors import GridError, SettingError
from torchgeo_ctm.scaling import SENTINEL2_BANDS


def opened(path: Path, window: int = 16, **options: float) -> SceneWindows:
    return SceneWindows(path, ('B04', 'B02'), window, window, **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings('ignore:.*left out')
def test_bands_by_name_pixel_for_pixel(tmp_path: Path) -> None:
    pixels, _ = coded(40, 48)
    backwards = pixels[::-1].copy()
    first = write_image(tmp_path / 'a.tif', pixels)
    second = write_image(
        tmp_path / 'b.tif', backwards, place(700_000), bands=SENTINEL2_BANDS[::-1]
    )
    images = pickle.loads(pickle.dumps(SceneImages([opened(first), opened(second)])))
    for left in (600_000, 700_000):
        query = images[left + 80 : left + 160, 5_000_000 - 200 : 5_000_000 - 100]
        assert torch.equal(
            query['image'], torch.from_numpy(pixels[[3, 1], 10:20, 8:16].astype('f4'))
        )


@pytest.mark.filterwarnings('ignore:.*left out')
def test_offset_and_nodata_as_in_prediction(tmp_path: Path) -> None:
    pixels, _ = coded(16, 16, 2000)
    pixels[:, :4] = 0
    path = write_image(tmp_path / 'a.tif', pixels, nodata=0)
    scene = opened(path, offset=-1000.0)
    images = SceneImages([scene])
    image = images[images.bounds]['image']
    assert torch.equal(image, scene[0]['image'])
    assert image.min() > 1000
    assert torch.allclose(image[:, 0, 0], image[:, 4:].mean(dim=(1, 2)))


@pytest.mark.filterwarnings('ignore:.*left out')
def test_what_is_refused(tmp_path: Path) -> None:
    images = SceneImages([opened(write_image(tmp_path / 'a.tif', coded(40, 48)[0]))])
    x, y, t = images.bounds
    with pytest.raises(IndexError, match='in none of 1 scenes'):
        images[x.start - 10 : x.start + 100, y.start : y.start + 100]
    with pytest.raises(GridError, match='px off'):
        images[x.start + 5 : x.start + 105, y.start : y.start + 100]
    with pytest.raises(GridError, match='20 × 20'):
        images[x.start : x.start + 80 : 20, y.start : y.start + 80 : 20]
    with pytest.raises(SettingError, match='larger than the window of 16 px'):
        images[x, y, t]
    with pytest.raises(GridError, match='EPSG:4326'):
        images.crs = 'EPSG:4326'
    with pytest.raises(GridError, match='20 × 20'):
        images.res = 20
    images.crs, images.res = images.crs, images.res


@pytest.mark.filterwarnings('ignore:.*left out')
def test_few_files_stay_open(tmp_path: Path) -> None:
    path = write_image(tmp_path / 'a.tif', coded(8, 8)[0])
    images = SceneImages([opened(path, 8)] * (OPEN + 5))
    for number in range(OPEN + 5):
        scene = images._opened(number)
        scene.open()
    assert len(images._open) == OPEN
    assert images._opened(OPEN + 4) is scene
    # those that were handed in stay closed
    assert images.scenes[0]._raster is None
    assert np.array_equal(scene.read(scene.plan[0])[0][1], coded(8, 8)[0][1])
