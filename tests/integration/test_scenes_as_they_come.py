"""``torchgeo-ctm predict`` on the scenes that people really have."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.commands import Run, refused
from tests.conftest import (
    TRANSFORM,
    WriteScene,
    decisive,
    save_task,
    scene_pixels,
    tiny_task,
)
from torchgeo_ctm.grids import IGNORED


@pytest.fixture
def predict(run: Run, tmp_path: Path) -> Any:
    """Predict a scene into ``out/m.tif``; return status, stdout and stderr."""
    checkpoint = save_task(decisive(tiny_task()), tmp_path / 'tiny.ckpt')
    (tmp_path / 'out').mkdir()

    def call(scene: Path, *flags: object) -> tuple[int, str, str]:
        return run(
            'predict', scene, '--checkpoint', checkpoint, '--output',
            tmp_path / 'out' / 'm.tif', '--accelerator', 'cpu', *flags,
        )  # fmt: skip

    return call


def mask(tmp_path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with rasterio.open(tmp_path / 'out' / 'm.tif') as raster:
        values: np.ndarray[Any, np.dtype[np.uint8]] = raster.read(1)
    return values


def test_an_unreadable_block_in_the_middle(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    whole = write_scene('whole.tif', height=128, width=128)
    with rasterio.open(whole) as raster:
        profile = raster.profile | {
            'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'compress': 'deflate',
        }  # fmt: skip
        with rasterio.open(tmp_path / 'scene.tif', 'w', **profile) as copy:
            copy.write(raster.read())
            copy.descriptions = raster.descriptions
    content = bytearray((tmp_path / 'scene.tif').read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / 'scene.tif').write_bytes(content)
    refused(predict(tmp_path / 'scene.tif'), 'scene.tif cannot be read at row')
    assert not list((tmp_path / 'out').iterdir())


def test_nan_and_infinities_inside(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    pixels = scene_pixels(70, 90).astype(np.float32)
    pixels[4, 10:20, 10:20] = np.nan
    pixels[:, 30, 40] = np.inf
    pixels[2, 31, 40] = -np.inf
    assert predict(write_scene(pixels=pixels))[0] == 0
    empty = ~np.isfinite(pixels).all(axis=0)
    np.testing.assert_array_equal(mask(tmp_path) == IGNORED, empty)


def test_nan_as_nodata_and_nodata_given(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    pixels = scene_pixels(70, 90).astype(np.float32)
    pixels[:, :20] = np.nan
    pixels[:, 20:30] = -9999
    scene = write_scene(pixels=pixels, nodata=np.nan)
    status, _, err = predict(scene, '--nodata', -9999)
    assert status == 0, err
    assert (mask(tmp_path)[:30] == IGNORED).all()
    assert (mask(tmp_path)[30:] < 3).all()


def test_class_zero_is_not_nodata(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    pixels = scene_pixels(70, 90)
    pixels[:, :, :30] = 0
    assert predict(write_scene(pixels=pixels), '--nodata', 0)[0] == 0
    values = mask(tmp_path)
    assert (values[:, :30] == IGNORED).all()
    assert 0 in values[:, 30:]


def test_complex_numbers(predict: Any, write_scene: WriteScene, tmp_path: Path) -> None:
    scene = write_scene(pixels=scene_pixels(40, 40).astype(np.complex64))
    refused(predict(scene), 'complex64', 'expected real numbers')
    assert not list((tmp_path / 'out').iterdir())


def test_negative_numbers(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    pixels = scene_pixels(70, 90).astype(np.int16) - 1600
    assert (pixels < 0).any()
    assert predict(write_scene(pixels=pixels))[0] == 0
    assert (mask(tmp_path) < 3).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 40_000), (3000, 2)])
def test_extreme_shapes(
    predict: Any, write_scene: WriteScene, tmp_path: Path, size: tuple[int, int]
) -> None:
    # many small windows of the default's 256 px would take minutes
    flags = ('--window', 32, '--stride', 32)
    status, _, err = predict(write_scene(pixels=scene_pixels(*size)), *flags)
    assert status == 0, err
    values = mask(tmp_path)
    assert values.shape == size
    assert (values < 3).all()


def test_a_rotated_grid_is_kept_and_said(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    rotated = TRANSFORM @ Affine.rotation(20)
    status, _, err = predict(write_scene(transform=rotated))
    assert status == 0
    assert 'is rotated: the mask keeps its grid' in err
    with rasterio.open(tmp_path / 'out' / 'm.tif') as raster:
        assert raster.transform.almost_equals(rotated, 1e-9)


def test_no_georeference(predict: Any, write_scene: WriteScene, tmp_path: Path) -> None:
    status, _, err = predict(write_scene(crs=None, transform=Affine.identity()))
    assert status == 0
    assert 'has no CRS and has no transform' in err
    assert (tmp_path / 'out' / 'm.gpkg').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc takes no files')
def test_a_folder_that_takes_no_files(
    run: Run, write_scene: WriteScene, checkpoint: Path
) -> None:
    refused(
        run('predict', write_scene(), '--checkpoint', checkpoint, '--output',
            '/proc/m.tif', '--accelerator', 'cpu'),
        'Folder /proc is not writable',
    )  # fmt: skip


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no full disk here')
def test_a_full_disk_is_said(
    predict: Any, write_scene: WriteScene, tmp_path: Path, monkeypatch: Any
) -> None:
    original = Path.open

    def full(path: Path, mode: str = 'r', *options: Any, **named: Any) -> Any:
        if (path.name, mode) == ('records', 'r+b'):
            path = Path('/dev/full')
        return original(path, mode, *options, **named)

    monkeypatch.setattr(Path, 'open', full)
    refused(predict(write_scene()), 'Cannot write', 'm.tif', 'No space left')
    assert not [p for p in (tmp_path / 'out').iterdir() if p.name[0] != '.']


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda pixels: (pixels / 10_000).astype(np.float32), '10,000'),
        (lambda pixels: (pixels % 255).astype(np.uint8), '8 bits'),
    ],
)
def test_numbers_on_another_scale_are_warned_about(
    predict: Any, write_scene: WriteScene, change: Any, words: str
) -> None:
    status, _, err = predict(write_scene(pixels=change(scene_pixels(70, 90))))
    assert status == 0
    lines = [line for line in err.splitlines() if 'scene.tif: ' in line]
    assert len(lines) == 1, err
    line = lines[0]
    assert words in line


def test_the_offset_is_applied_and_recorded(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    """Numbers of baseline 04.00 with the offset are those of before without."""
    pixels = scene_pixels(70, 90)
    assert predict(write_scene('old.tif', pixels=pixels))[0] == 0
    expected = mask(tmp_path)
    shifted = write_scene('new.tif', pixels=(pixels + 1000).astype(np.uint16))
    assert predict(shifted, '--offset', -1000, '--overwrite')[0] == 0
    np.testing.assert_array_equal(mask(tmp_path), expected)
    with rasterio.open(tmp_path / 'out' / 'm.tif') as raster:
        assert raster.tags()['OFFSET'] == '-1000'
    with rasterio.open(shifted, 'r+') as raster:
        raster.update_tags(PROCESSING_BASELINE='05.09')
    assert predict(shifted, '--overwrite')[0] == 0
    np.testing.assert_array_equal(mask(tmp_path), expected)


def test_a_folder_of_bands(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    whole = write_scene()
    assert predict(whole)[0] == 0
    expected = mask(tmp_path)
    folder = tmp_path / 'bands'
    folder.mkdir()
    with rasterio.open(whole) as raster:
        profile = raster.profile | {'count': 1}
        for index, name in enumerate(raster.descriptions, 1):
            with rasterio.open(folder / f'S2_{name}.tif', 'w', **profile) as band:
                band.write(raster.read(index), 1)
    assert predict(folder, '--overwrite')[0] == 0
    np.testing.assert_array_equal(mask(tmp_path), expected)


def test_a_stac_item_and_no_other_product(
    predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    flags = [f'--no_{name}' for name in ('polygons', 'style', 'picture', 'confidence')]
    assert predict(write_scene(), *flags, '--stac')[0] == 0
    out = tmp_path / 'out'
    assert sorted(p.name for p in out.iterdir()) == [
        'm.json', 'm.tif', 'm.tif.aux.xml',
    ]  # fmt: skip
    item = json.loads((out / 'm.json').read_text())
    assert item['properties']['ctm:map_rule'] == 'argmax'


def test_vectorize(
    run: Run, predict: Any, write_scene: WriteScene, tmp_path: Path
) -> None:
    import geopandas

    assert predict(write_scene(), '--no_polygons')[0] == 0
    scene_mask, out = tmp_path / 'out' / 'm.tif', tmp_path / 'polygons.fgb'
    status, printed, err = run('vectorize', scene_mask, out)
    assert status == 0, err
    assert printed.splitlines() == [str(out), str(tmp_path / 'polygons.qml')]
    frame = geopandas.read_file(out)
    assert frame['area_ha'].sum() == pytest.approx(63, rel=2e-3)
    # the confidence raster beside the mask is found by its name
    assert frame['confidence'].between(33, 100).all()
    refused(run('vectorize', scene_mask, out), '--overwrite')
    # another format shares the style that is there, but no other style
    status, printed, _ = run('vectorize', scene_mask, out.with_suffix('.gpkg'))
    assert (status, out.with_suffix('.gpkg').exists()) == (0, True)
    foreign = tmp_path / 'foreign.qml'
    foreign.write_text('<qgis/>')
    refused(run('vectorize', scene_mask, tmp_path / 'foreign.gpkg'), 'foreign.qml')
    assert foreign.read_text() == '<qgis/>'
    refused(run('vectorize', scene_mask, tmp_path / 'x.shp'), '.gpkg')
    refused(run('vectorize', tmp_path / 'none.tif', tmp_path / 'y.gpkg'), 'none.tif')
