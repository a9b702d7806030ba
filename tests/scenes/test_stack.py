import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.windows import Window

from tests.fakes.bad_inputs import write_raster
from tests.fakes.sentinel2 import (
    CORNER,
    TAKEN,
    native,
    pixels_of,
    refused,
    write_band,
    write_shifted_bands,
)
from torchgeo_ctm.errors import NodataWarning
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


def test_control_points_and_rpcs_are_kept(tmp_path: Path) -> None:
    """Where bands have no transform but these, a scene says how it is placed."""
    points = [
        GroundControlPoint(row, col, 5e5 + col, 4e6 - row, 7)
        for row, col in ((0, 0), (0, 5), (5, 0))
    ]
    zeros = [0.0] * 20
    rpcs = RPC(0, 500, 38, 0.01, zeros, zeros, 2, 2, -3, 0.01, zeros, zeros, 2, 2)
    for name in ('B02', 'B03'):
        path = write_raster(
            tmp_path / f'{name}.tif',
            np.ones((1, 5, 5), np.uint16),
            crs=None,
            transform=Affine.identity(),
        )
        with rasterio.open(path, 'r+') as raster:
            raster.gcps = points, CRS.from_epsg(32630)
            raster.rpcs = rpcs
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        found, crs = raster.gcps
        assert [(p.row, p.col, p.x, p.y) for p in found] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]
        assert crs == CRS.from_epsg(32630)
        assert raster.rpcs.line_off == 2
        assert raster.rpcs.long_scale == 0.01


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


@pytest.mark.parametrize('suffix', ['.tif', '.jp2'])
def test_shifted_coarse_bands(tmp_path: Path, suffix: str) -> None:
    expected = write_shifted_bands(tmp_path, suffix)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        assert raster.shape == (31, 37)
        assert raster.transform == Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
        bands = np.stack([expected[band] for band in raster.descriptions])
        np.testing.assert_array_equal(raster.read(), bands)
        assert (raster.dataset_mask() == 255).all()
        for row, col, side in itertools.product((0, 7, 22), (0, 5, 29), (1, 5, 9)):
            rows, columns = slice(row, row + side), slice(col, col + side)
            np.testing.assert_array_equal(
                raster.read(window=Window.from_slices(rows, columns, boundless=True)),
                bands[:, rows, columns],
            )


@pytest.mark.parametrize('nodata', [None, 0])
def test_pixels_that_a_band_does_not_reach_are_invalid(
    tmp_path: Path, nodata: float | None
) -> None:
    left, top = CORNER
    ones = np.ones((20, 30), np.uint16)
    ones[4, 4] = nodata is None
    write_band(tmp_path / 'B02.tif', ones, nodata=nodata)
    write_band(
        tmp_path / 'B05.tif',
        np.full((8, 9), 5, np.uint16),
        20,
        corner=(left + 30, top + 10),
        nodata=nodata,
    )
    with pytest.warns(NodataWarning, match=r'outside rows 0 to 14 and columns 3 to 20'):
        source = find_source(tmp_path)
    with rasterio.open(source.dataset) as raster:
        valid = np.zeros((20, 30), bool)
        valid[:15, 3:21] = True
        np.testing.assert_array_equal(raster.dataset_mask() > 0, valid)
        assert (raster.read(2)[valid] == 5).all()
        # a pixel that is nodata in one band only is valid
        assert valid[4, 4] and (raster.read(1)[4, 4] == 0) == (nodata == 0)


def test_bands_that_do_not_overlap(tmp_path: Path) -> None:
    ones = np.ones((6, 6), np.uint16)
    write_band(tmp_path / 'B02.tif', ones)
    left, top = CORNER
    for corner in ((left + 60, top), (left, top - 60), (left - 120, top)):
        write_band(tmp_path / 'B05.tif', ones, 20, corner=corner)
        refused(tmp_path, r'B0\d\.tif and B0\d\.tif do not overlap')
    # each overlaps the finest, but not the other
    write_band(tmp_path / 'B02.tif', np.ones((6, 60), np.uint16))
    write_band(tmp_path / 'B05.tif', ones, 20)
    write_band(tmp_path / 'B06.tif', ones, 20, corner=(left + 300, top))
    refused(tmp_path, r'B06\.tif and B05\.tif do not overlap')


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
    refused(tmp_path, r'B03\.tif and B02\.tif have different CRS: EPSG:32633 and')
    write_band(path, ones, corner=(CORNER[0] + 5, CORNER[1]))
    refused(tmp_path, 'start at the corner of one')
    write_band(path, ones, resolution=15)
    refused(tmp_path, 'integer multiples of the finest')
    write_band(path, np.stack([ones, ones]))
    refused(tmp_path, r'B03\.tif has 2 bands, expected one raster per band')


def test_different_sizes_without_a_transform(tmp_path: Path) -> None:
    for band, rows in (('B02', 4), ('B03', 3)):
        with pytest.warns(NotGeoreferencedWarning):
            write_band(
                tmp_path / f'{band}.tif',
                np.ones((rows, 4), np.uint16),
                transform=Affine.identity(),
            )
    refused(tmp_path, r'no transform and different sizes: 3 × 4 and 4 × 4 px')
