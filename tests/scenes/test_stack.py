import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from tests.fakes.sentinel2 import CORNER, TAKEN, native, pixels_of, refused, write_band
from torchgeo_ctm.scenes.sources import find_source


def test_nothing_lies_where_all_bands_are_0(tmp_path: Path) -> None:
    for band in ('B02', 'B11'):
        values = pixels_of(band, native(band))
        values[: 200 // native(band)] = 0
        values[-1, -1] = 0 if band == 'B11' else 5
        write_band(tmp_path / f'T32TMT_{TAKEN}_{band}.jp2', values, native(band))
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        valid = raster.dataset_mask() > 0
    assert not valid[:20].any()
    assert valid[20:, :-2].all()
    assert valid[-1, -1]


def test_types_are_brought_together(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.full((5, 5), 60_000, np.uint16))
    write_band(tmp_path / 'B03.tif', np.full((5, 5), -5, np.int16), nodata=-9)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        assert raster.dtypes == ('int32', 'int32')
        assert raster.nodatavals == (None, -9)
        assert raster.read()[:, 0, 0].tolist() == [60_000, -5]


def test_masks_are_kept(tmp_path: Path) -> None:
    fine, coarse = np.ones((12, 12), bool), np.ones((6, 6), bool)
    fine[:3], coarse[:, :2] = False, False
    ones = np.ones((12, 12), np.uint16)
    write_band(tmp_path / 'B02.tif', ones, mask=fine)
    write_band(tmp_path / 'B03.tif', ones)
    write_band(tmp_path / 'B05.tif', ones[:6, :6], 20, mask=coarse)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        valid = fine & coarse.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(raster.dataset_mask() > 0, valid)
        window = Window(3, 1, 5, 5)
        np.testing.assert_array_equal(
            raster.dataset_mask(window=window) > 0, valid[1:6, 3:8]
        )


def test_a_coarse_pixel_that_is_cut_off(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.ones((7, 9), np.uint16))
    write_band(tmp_path / 'B05.tif', np.ones((4, 4), np.uint16), 20)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        assert raster.shape == (7, 8)
        assert (raster.read() == 1).all()


def test_no_georeference_is_invented(tmp_path: Path) -> None:
    for band in ('B02', 'B03'):
        with rasterio.open(tmp_path / f'{band}.png', 'w', driver='GTiff', count=1,
                           width=4, height=4, dtype='uint8') as raster:  # fmt: skip
            raster.write(np.ones((1, 4, 4), np.uint8))
        (tmp_path / f'{band}.png').rename(tmp_path / f'{band}.tif')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        source = find_source(tmp_path)
    with rasterio.open(source.dataset) as raster:
        assert raster.crs is None
        assert raster.transform.is_identity


def test_grids_that_do_not_nest(tmp_path: Path) -> None:
    ones = np.ones((60, 60), np.uint16)
    write_band(tmp_path / 'B02.tif', ones)
    path = tmp_path / 'B03.tif'
    write_band(path, ones, crs='EPSG:32633')
    refused(tmp_path, r'B03\.tif and B02\.tif have different CRS \(EPSG:32633 and')
    write_band(path, ones, corner=(CORNER[0] + 5, CORNER[1]))
    refused(tmp_path, 'same upper left corner')
    write_band(path, ones, resolution=15)
    refused(tmp_path, 'whole multiples')
    write_band(path, ones[:58])
    refused(tmp_path, r'different areas \(58 × 60 and 60 × 60 px')
    write_band(path, np.stack([ones, ones]))
    refused(tmp_path, r'B03\.tif has 2 bands; needed: one raster a band')
