from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from torchgeo_ctm.errors import OutputError
from torchgeo_ctm.grids import IGNORED, Grid
from torchgeo_ctm.inference.geotiff import RasterRows, check_output
from torchgeo_ctm.inference.paths import product_path

GRID = Grid(700, 600, 'EPSG:32630', Affine(10, 0, 500_000, 0, -10, 4_200_000))
CLASSES = (['Forest', 'Urban & <Built-up>'], ['#009900', '#a5a5a5'])


def write(
    path: Path, grid: Grid = GRID
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    values = np.random.default_rng(0).integers(0, 2, grid[:2]).astype(np.uint8)
    values[:5] = IGNORED
    product = RasterRows(path, grid, ['land cover class'], {'STRIDE': '7'}, CLASSES)
    for row in range(0, grid.height, 100):
        product.write(row, values[row : row + 100])
    assert not path.exists()
    product.finish('mode')
    assert not path.exists()
    product.publish()
    return values


def test_a_finished_raster_has_every_fact(tmp_path: Path) -> None:
    path = tmp_path / 'mask.tif'
    values = write(path)
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(1), values)
        assert raster.crs == 'EPSG:32630'
        assert raster.transform == GRID.transform
        assert raster.nodata == IGNORED
        assert raster.dtypes == ('uint8',)
        assert raster.descriptions == ('land cover class',)
        assert raster.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
        assert raster.overviews(1) == [2]
        assert raster.tags()['STRIDE'] == '7'
        assert raster.tags()['CLASS_NAMES'] == '["Forest", "Urban & <Built-up>"]'
        palette = raster.colormap(1)
        assert palette[0] == (0, 0x99, 0, 255)
        assert palette[1] == (0xA5, 0xA5, 0xA5, 255)
        assert palette[IGNORED][3] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'mask.tif',
        'mask.tif.aux.xml',
    ]


@pytest.mark.parametrize('size', [(1, 1), (512, 512), (1300, 700), (3, 5000)])
def test_the_raster_is_a_valid_cog(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / 'mask.tif'
    write(path, GRID._replace(height=size[0], width=size[1]))
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, (errors, warnings)


def test_many_bands_with_a_scale(tmp_path: Path) -> None:
    path = tmp_path / 'shares.tif'
    values = np.arange(2 * 30 * 40, dtype=np.uint8).reshape(2, 30, 40) % 101
    product = RasterRows(path, Grid(30, 40, None, GRID.transform), ['a', 'b'], {})
    product.write(0, values)
    product.close(0.01)
    product.finish('average')
    product.publish()
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), values)
        assert raster.scales == (0.01, 0.01)
        assert raster.descriptions == ('a', 'b')


def test_gdal_reads_the_names_from_the_sidecar(tmp_path: Path) -> None:
    path = tmp_path / 'mask.tif'
    write(path)
    # a copy into a format that keeps names inside shows what GDAL has read
    copy = tmp_path / 'copy.vrt'
    rasterio.shutil.copy(path, copy, driver='VRT')
    text = copy.read_text()
    assert '<Category>Forest</Category>' in text
    assert '<Category>Urban &amp; &lt;Built-up&gt;</Category>' in text


def test_an_abandoned_raster_leaves_nothing(tmp_path: Path) -> None:
    product = RasterRows(tmp_path / 'mask.tif', GRID, ['x'], {}, CLASSES)
    product.write(0, np.zeros((10, 600), np.uint8))
    product.abandon()
    product.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_scene_without_georeference_is_written_without(tmp_path: Path) -> None:
    path = tmp_path / 'mask.tif'
    write(path, Grid(30, 40, None, Affine.identity()))
    with rasterio.open(path) as raster:
        assert raster.crs is None
        assert raster.transform.is_identity


def test_a_rotated_transform_is_kept(tmp_path: Path) -> None:
    rotated = GRID.transform @ Affine.rotation(20)
    write(tmp_path / 'mask.tif', GRID._replace(transform=rotated))
    with rasterio.open(tmp_path / 'mask.tif') as raster:
        assert raster.transform.almost_equals(rotated, precision=1e-9)


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'there.tif').touch()
    (tmp_path / 'folder.tif').mkdir()
    for name, message in (
        ('mask.jpg', r"Did you mean 'mask\.tif'"),
        ('nowhere/mask.tif', 'does not exist. Create it'),
        ('there.tif/mask.tif', 'there.tif is a file, expected a folder'),
        ('there.tif', 'Pass overwrite=True'),
        ('folder.tif', 'is a folder'),
    ):
        with pytest.raises(OutputError, match=message):
            check_output(tmp_path / name)
    assert check_output(tmp_path / 'there.tif', overwrite=True).name == 'there.tif'


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='no such folder here')
def test_a_folder_that_only_seems_writable_is_refused(tmp_path: Path) -> None:
    """Root may write anywhere, says the system, also where no file can be."""
    with pytest.raises(OutputError, match='/proc is not writable: No such file'):
        check_output('/proc/mask.tif')
    check_output(tmp_path / 'mask.tif')
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match='Cannot write'):
        RasterRows(tmp_path / 'gone' / 'mask.tif', GRID, ['x'], {}, CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_lost_is_noticed(tmp_path: Path) -> None:
    """GDAL reports no error when it writes its last blocks."""
    product = RasterRows(tmp_path / 'mask.tif', GRID, ['x'], {}, CLASSES)
    product.write(0, np.ones((700, 600), np.uint8))
    close = product._raster.close

    def lossy() -> None:
        close()
        size = product.rows.stat().st_size
        with product.rows.open('r+b') as file:
            # one strip of zeros, as in a file with a hole
            file.seek(size // 2)
            file.write(bytes(600))

    fails = pytest.raises(OutputError, match='disk did not keep all of it')
    with patch.object(type(product._raster), 'close', lambda _: lossy()), fails:
        product.close()
    product.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('ending', ['.rows', ''])
def test_what_a_crash_left_is_replaced(tmp_path: Path, ending: str) -> None:
    left = tmp_path / 'run' / f'mask.tif{ending}'
    left.parent.mkdir()
    for content in (b'', b'II*\0' + bytes(4), b'II*\0\xff\xff\xff\0' + bytes(50)):
        left.write_bytes(content)
        product = RasterRows(tmp_path / 'mask.tif', GRID, ['x'], {}, folder=left.parent)
        product.write(0, np.ones((700, 600), np.uint8))
        product.finish('mode')
        product.abandon()


def test_product_names(tmp_path: Path) -> None:
    mask = tmp_path / 'a.b.tif'
    assert product_path(mask, 'confidence').name == 'a.b_confidence.tif'
    assert product_path(mask, '', '.png').name == 'a.b.png'
