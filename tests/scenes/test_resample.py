"""Coarse bands on the grid of 10 m: repeated, or interpolated between valid pixels."""

import itertools
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from tests.fakes import eopf
from tests.fakes.sentinel2 import CORNER, TAKEN, native, write_band, write_shifted_bands
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.grids import Window
from torchgeo_ctm.scenes.inputs import input_files
from torchgeo_ctm.scenes.scene import SceneWindows
from torchgeo_ctm.scenes.sources import find_source

Array = NDArray[Any]
#: Corner and pixels of each band, and where a 10 m pixel (row, col) lies in it: at
#: (row + shift) / step. The last rows and columns of the coarse bands are missing.
LAYOUT = {
    'B02': (CORNER, (31, 37), 1, (0, 0)),
    'B05': ((CORNER[0] - 10, CORNER[1]), (15, 19), 2, (0, 1)),
    'B01': ((CORNER[0] - 10, CORNER[1] + 20), (5, 6), 6, (2, 1)),
}
WHOLE = Window(0, 0, 31, 37)


def along(values: Array, valid: Array, at: Array) -> tuple[Array, Array]:
    """Interpolate the valid pixels of each row at coordinates, edges repeated."""
    total, weights = np.zeros((len(values), len(at))), np.zeros((len(values), len(at)))
    first = np.floor(at - 0.5).astype(int)
    for step in (0, 1):
        weight = 1 - np.abs(at - 0.5 - first - step)
        index = np.clip(first + step, 0, values.shape[1] - 1)
        total += weight * np.where(valid, values, 0.0)[:, index]
        weights += weight * valid[:, index]
    return total / np.where(weights > 0, weights, 1), weights > 0


def on_10_m(band: str, values: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Return a band bilinear and nearest, in float64, and where nearest is valid."""
    _, size, step, shifts = LAYOUT[band]
    row, col = (
        (np.arange(count) + 0.5 + shift) / step
        for count, shift in zip(WHOLE[2:], shifts, strict=True)
    )
    wide, kept = along(values, valid, col)
    smooth, _ = along(wide.T, kept.T, row)
    place = np.ix_(
        *(np.minimum(x.astype(int), n - 1) for x, n in zip((row, col), size))
    )
    return smooth.T, values[place], valid[place]


def write(
    folder: Path,
    suffix: str = '.tif',
    nodata: float | None = None,
    masked: bool = False,
    dtype: str = 'uint16',
    declared: bool = True,
) -> dict[str, tuple[Array, Array, Array]]:
    """Write bands with nodata; return :func:`on_10_m` of each."""
    rng, made = np.random.default_rng(5), {}
    # as in a product, in which 0 is nodata
    start = f'T32TMT_{TAKEN}_' if suffix == '.jp2' and nodata == 0 else 's2_'
    for band, (corner, size, step, _) in LAYOUT.items():
        values = rng.integers(1, 9999, size).astype(dtype)
        gaps = (rng.random(size) < 0.3) & (step > 1)
        mask = rng.random(size) > 0.3 if masked and step > 1 else None
        if nodata is not None:
            values[gaps] = nodata
        valid = np.ones(size, bool) if nodata is None else ~gaps
        tagged = nodata if declared and suffix == '.tif' else None
        path = folder / f'{start}{band}{suffix}'
        write_band(path, values, 10 * step, corner, nodata=tagged, mask=mask)
        made[band] = on_10_m(band, values, valid if mask is None else valid & mask)
    return made


@pytest.mark.parametrize(
    ('suffix', 'nodata', 'masked', 'dtype'),
    [
        ('.tif', None, False, 'uint16'),
        ('.jp2', None, False, 'uint16'),
        ('.tif', 0, False, 'uint16'),
        ('.jp2', 0, False, 'uint16'),
        ('.tif', 7, True, 'uint16'),
        ('.tif', None, True, 'uint16'),
        ('.tif', math.nan, False, 'float32'),
        ('.tif', -9999, False, 'float32'),
        ('.tif', math.nan, True, 'float32'),
        ('.tif', None, True, 'float32'),
    ],
)
def test_every_pixel_is_the_mean_of_its_valid_neighbors(
    tmp_path: Path, suffix: str, nodata: float | None, masked: bool, dtype: str
) -> None:
    expected = write(tmp_path, suffix, nodata, masked, dtype)
    source, plain = find_source(tmp_path, resample='bilinear'), find_source(tmp_path)
    assert (source.resample, plain.resample) == ('bilinear', 'nearest')
    rounding = 0.501 if dtype == 'uint16' else 0.01
    with rasterio.open(source.dataset) as raster, rasterio.open(plain.dataset) as other:
        pixels = raster.read()
        assert np.array_equal(raster.dataset_mask(), other.dataset_mask())
        for band, found, repeated in zip(
            raster.descriptions, pixels, other.read(), strict=True
        ):
            smooth, nearest, valid = expected[band]
            np.testing.assert_array_equal(repeated, nearest)
            if band == 'B02':
                np.testing.assert_array_equal(found, nearest)
                continue
            assert np.abs(found - smooth)[valid].max() < rounding
            assert (found != nearest)[valid].mean() > 0.3
            if nodata is not None:
                assert set(found[~valid].tolist()) == {nodata} or math.isnan(nodata)
                assert not (found[valid] == nodata).any()
        for row, col, side in itertools.product((0, 7, 22), (0, 5, 29), (3, 5, 9)):
            part = pixels[:, row : row + side, col : col + side]
            place = RasterWindow(col, row, part.shape[2], part.shape[1])
            np.testing.assert_array_equal(raster.read(window=place), part)


def test_the_files_of_bands_are_known(tmp_path: Path) -> None:
    """So that a changed file is noticed, and no product is written to one."""
    write(tmp_path, nodata=0)
    source = find_source(tmp_path, resample='bilinear')
    with rasterio.open(source.dataset) as raster:
        found = input_files(raster, str(tmp_path))
    assert found == sorted(path.resolve() for path in tmp_path.iterdir())


def test_a_mean_of_valid_pixels_is_not_nodata(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.ones((8, 8), np.int16), nodata=0)
    values = np.where(np.indices((4, 4)).sum(axis=0) % 2, 1, -1).astype(np.int16)
    write_band(tmp_path / 'B05.tif', values, 20, nodata=0)
    with rasterio.open(find_source(tmp_path, resample='bilinear').dataset) as raster:
        assert raster.read(2).all()


@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
def test_a_given_nodata_value_is_not_interpolated(tmp_path: Path, dtype: str) -> None:
    expected = write(tmp_path, nodata=0, dtype=dtype, declared=False)
    bands = [*LAYOUT]
    options: dict[str, Any] = {'nodata': 0}
    plain = SceneWindows(tmp_path, bands, 16, 16, **options).read(WHOLE)
    scene = SceneWindows(tmp_path, bands, 16, 16, resample='bilinear', **options)
    pixels, valid = scene.read(WHOLE)
    np.testing.assert_array_equal(valid, plain[1])
    for band, found, nearest in zip(bands, pixels, plain[0], strict=True):
        kept = expected[band][2]
        assert np.abs(found - expected[band][0])[kept].max() < 0.501 or band == 'B02'
        np.testing.assert_array_equal(found[~kept], nearest[~kept])


@pytest.mark.parametrize('nodata', [math.nan, -9999, 70_000])
def test_a_nodata_value_that_no_pixel_has(tmp_path: Path, nodata: float) -> None:
    write(tmp_path)
    plain, given = (
        find_source(tmp_path, resample='bilinear', nodata=n).dataset
        for n in (None, nodata)
    )
    with rasterio.open(plain) as one, rasterio.open(given) as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_zarr_and_folders_are_interpolated_alike(tmp_path: Path) -> None:
    rng, pixels = np.random.default_rng(2), {}
    for band in ('B01', 'B02', 'B05'):
        side = 1200 // native(band)
        pixels[band] = rng.integers(1, 9999, (side, side)).astype(np.uint16)
        pixels[band][: 600 // native(band), :3] = 0
        path = tmp_path / 'bands' / f'{band}.tif'
        write_band(path, pixels[band], native(band), nodata=0)
    product = eopf.write_product(tmp_path, pixels, np.ones((60, 60), np.uint8))
    whole, bands = Window(0, 0, 120, 120), ('B01', 'B02', 'B05')
    found, folder, plain = (
        SceneWindows(scene, bands, 32, 32, resample=resample).read(whole)
        for scene, resample in modes(product, tmp_path / 'bands')
    )
    np.testing.assert_array_equal(found[0], folder[0])
    np.testing.assert_array_equal(found[1], folder[1])
    np.testing.assert_array_equal(found[1], plain[1])
    assert (found[0] != plain[0]).mean() > 0.5
    # clouds are classes, which have no mean
    smooth, nearest = (find_source(product, resample=m) for _, m in modes(1, 1)[1:])
    assert smooth.classification == nearest.classification


def modes(one: Any, other: Any) -> list[tuple[Any, Literal['nearest', 'bilinear']]]:
    return [(one, 'bilinear'), (other, 'bilinear'), (other, 'nearest')]


def test_nothing_else_changes(tmp_path: Path) -> None:
    """Neither the bands of one resolution, nor a scene in one file."""
    write_shifted_bands(tmp_path)
    (tmp_path / 's2_B05.tif').unlink()
    for scene in (tmp_path / 's2_B02.tif', tmp_path):
        found = find_source(scene, ['B02'], resample='bilinear')
        assert found == find_source(scene, ['B02'])
        assert found.resample == 'nearest'
    with pytest.raises(SettingError, match=r"'bilinar', expected .* mean 'bilinear'"):
        find_source(tmp_path, resample='bilinar')  # type: ignore[arg-type]
