from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.fakes.class_rasters import COLORS, NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.errors import GridError, SceneError
from torchgeo_ctm.inference.masks import (
    class_colors,
    class_names,
    open_confidence,
    open_mask,
    open_raster,
    row_bands,
)


def test_names_and_colours_are_read_back(tmp_path: Path) -> None:
    values = random_classes(20, 20)
    with open_mask(write_classes(tmp_path / 'a.tif', values)) as mask:
        assert class_names(mask) == NAMES
        assert class_colors(mask) == COLORS
    with open_mask(write_classes(tmp_path / 'b.tif', values, names=None)) as mask:
        assert class_names(mask) == class_colors(mask) == []


def test_row_bands_put_together_are_the_raster(tmp_path: Path) -> None:
    values = random_classes(600, 30)
    with open_mask(write_classes(tmp_path / 'a.tif', values)) as mask:
        rows, parts = zip(*row_bands(mask), strict=True)
    assert rows == (0, 100, 200, 300, 400, 500)
    expected = np.where(values == 255, -1, values.astype(int))
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    values = random_classes(20, 20)
    write_classes(
        tmp_path / 'share.tif', values, names=None, description='confidence, per cent'
    )
    (tmp_path / 'text.tif').write_text('no raster')
    profile = {'driver': 'GTiff', 'height': 2, 'width': 2, 'transform': UTM}
    with rasterio.open(tmp_path / 'two.tif', 'w', count=2, dtype='uint8', **profile):
        pass
    with rasterio.open(
        tmp_path / 'float.tif', 'w', count=1, dtype='float32', **profile
    ):
        pass
    for name, message in (
        ('gone.tif', 'does not exist'),
        ('text.tif', 'Cannot open'),
        ('two.tif', '2 bands, expected 1'),
        ('float.tif', 'float32, expected classes as uint8'),
        ('share.tif', 'holds confidence'),
    ):
        with pytest.raises(SceneError, match=message) as caught:
            open_mask(tmp_path / name)
        assert '\n' not in str(caught.value)
    with open_raster(tmp_path / 'two.tif', 'anything', bands=None) as raster:
        assert raster.count == 2


def test_confidence_must_lie_on_the_mask_s_grid(tmp_path: Path) -> None:
    values = random_classes(20, 20)
    share = write_classes(tmp_path / 'share.tif', values, names=None)
    moved = write_classes(
        tmp_path / 'moved.tif',
        values,
        names=None,
        transform=UTM.translation(1, 0) @ UTM,
    )
    path = write_classes(tmp_path / 'a.tif', values)
    with open_mask(path) as mask:
        open_confidence(share, mask).close()
        with pytest.raises(GridError, match='different grids'):
            open_confidence(moved, mask)
        with pytest.raises(SceneError, match='holds classes'):
            open_confidence(path, mask)


def test_a_damaged_raster_is_an_error(tmp_path: Path) -> None:
    path = write_classes(tmp_path / 'a.tif', random_classes(600, 600))
    path.write_bytes(path.read_bytes()[:200_000])
    with open_mask(path) as mask, pytest.raises(SceneError, match='Cannot read'):
        list(row_bands(mask))
