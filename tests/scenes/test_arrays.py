"""Scenes that are xarray arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray

from tests.conftest import WriteScene
from tests.fakes.runs import QUIET, SMALL, read, stopped_at_batch
from torchgeo_ctm.errors import CTMError, ResumeWarning
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scenes.arrays import array_raster


def opened(scene: Path) -> Any:
    return rioxarray.open_rasterio(scene)


def named(scene: Path) -> Any:
    """Names in the coordinate, bands last, another order."""
    array = opened(scene).assign_coords(band=list(SENTINEL2_BANDS))
    return array.transpose('y', 'x', 'band').isel(band=slice(None, None, -1))


def dataset(scene: Path) -> Any:
    """A variable for each band and one date, as odc-stac gives it."""
    array = opened(scene).assign_coords(band=list(SENTINEL2_BANDS))
    return array.to_dataset('band').expand_dims('time')


def one_variable(scene: Path) -> Any:
    """One variable with all bands, as to_dataset(name=…) gives it."""
    return opened(scene).to_dataset(name='reflectance')


def subset(scene: Path) -> Any:
    """Columns before rows, and long_name still names the bands that were left out."""
    array = opened(scene)
    array.attrs['long_name'] = (*array.attrs['long_name'], 'cirrus')
    return array.transpose('x', 'y', 'band')


def degrees(scene: Path) -> Any:
    """Other names of rows and columns."""
    return opened(scene).rename(y='lat', x='lon')


def masked(scene: Path) -> Any:
    """Numbers with a fraction, whose encoding still is that of the file: integers."""
    return rioxarray.open_rasterio(scene, masked=True)


def half(scene: Path) -> Any:
    """A type that GDAL lacks, in which whole numbers up to 2,048 are exact."""
    return opened(scene).clip(max=2000).astype(np.float16)


def scaled(scene: Path) -> Any:
    """Reflectance, whose scale is in the encoding."""
    with rasterio.open(scene, 'r+') as raster:
        raster.scales = (1e-4,) * raster.count
        raster.offsets = (-0.1,) * raster.count
    return rioxarray.open_rasterio(scene, mask_and_scale=True)


@pytest.mark.filterwarnings('error:saving variable')
@pytest.mark.parametrize(
    'make', [masked, scaled, opened, named, dataset, one_variable, subset, degrees]
)
def test_the_map_is_that_of_the_file(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path, make: Any
) -> None:
    scene, out = write_scene(), tmp_path / 'out'
    out.mkdir()
    array = make(scene)
    expected = predict_scene(scene, checkpoint, tmp_path / 'file.tif', **QUIET)
    found = predict_scene(array, checkpoint, out / 'mask.tif', **QUIET)
    assert np.array_equal(read(found.products['mask']), read(expected.products['mask']))
    with found.open() as one, expected.open() as two:
        assert (one.crs, one.transform) == (two.crs, two.transform)
    assert not list(out.glob('.*'))


@pytest.mark.filterwarnings('error:saving variable', 'error:invalid value')
@pytest.mark.parametrize('bands', [slice(None), 4])
def test_nan_in_an_array_from_a_file_of_integers_is_nodata(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path, bands: Any
) -> None:
    array = masked(write_scene())
    array[bands, 3:9, 5:10] = np.nan
    found = predict_scene(array, checkpoint, tmp_path / 'mask.tif', **QUIET)
    expected = np.zeros(array.shape[1:], bool)
    expected[3:9, 5:10] = True
    assert np.array_equal(read(found.products['mask']) == 255, expected)


def test_a_stopped_run_resumes(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    array = opened(write_scene())
    with stopped_at_batch(2), pytest.raises(KeyboardInterrupt):
        predict_scene(array, checkpoint, tmp_path / 'mask.tif', **SMALL)
    with pytest.warns(ResumeWarning, match='resuming'):
        predict_scene(array, checkpoint, tmp_path / 'mask.tif', **SMALL)


def test_bands_in_another_order_need_names(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene()
    array = opened(scene).isel(band=slice(None, None, -1))
    with pytest.raises(CTMError, match=r'order 13, 12, .*assign_coords'):
        predict_scene(array, checkpoint, tmp_path / 'mask.tif', **QUIET)
    names = SENTINEL2_BANDS[::-1]
    expected = predict_scene(scene, checkpoint, tmp_path / 'file.tif', **QUIET)
    found = predict_scene(
        array, checkpoint, tmp_path / 'mask.tif', scene_bands=names, **QUIET
    )
    assert np.array_equal(read(found.products['mask']), read(expected.products['mask']))


def test_every_value_decides_whether_a_run_resumes(
    write_scene: WriteScene, tmp_path: Path
) -> None:
    array = opened(write_scene())
    changed = array.copy()
    changed.values[5, 7, 9] += 1
    times = []
    for scene in (array, changed, array):
        with array_raster(scene, tmp_path / 'mask.tif') as path:
            times.append(path.stat().st_mtime_ns)
    assert times[0] == times[2] != times[1]


def test_what_cannot_be_mapped_is_one_line(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    array = opened(write_scene())
    for scene, words in (
        (array.expand_dims(time=2), r'dimensions time, band, y, x, expected.*isel'),
        (array.to_numpy(), 'type ndarray, expected a path or'),
        (array > 0, r"type bool, expected numbers\. Convert .*astype\('float32'\)"),
        (array.astype(object), 'type object, expected numbers'),
        (array.isel(x=slice(0, 0)), 'The scene is empty: its size is 13 × 70 × 0'),
        (array.isel(band=[0, *range(12)]), r'order 1, 1, 2, .*does not follow'),
        (array.isel(x=[0, 1, 2, 9]), 'coordinates x of the scene are uneven'),
    ):
        with pytest.raises(CTMError, match=words):
            predict_scene(scene, checkpoint, tmp_path / 'mask.tif', **QUIET)
    with pytest.raises(CTMError, match='scene_bands has 2 names, expected 13'):
        predict_scene(
            array, checkpoint, tmp_path / 'mask.tif', scene_bands='A,B', **QUIET
        )
    with pytest.raises(CTMError, match='no'):
        predict_scene(array, checkpoint, tmp_path / 'no' / 'mask.tif', **QUIET)
    assert not list(tmp_path.glob('*mask*')) and not (tmp_path / 'no').exists()
    with rasterio.open(tmp_path / 'scene.tif') as raster:
        assert raster.count == 13
