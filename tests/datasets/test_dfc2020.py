import shutil
import threading
import warnings
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError

from tests.fakes.dfc2020 import Georeference, write_contest, write_dfc2020
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.errors import (
    BandError,
    DataError,
    GeoreferenceWarning,
    GridError,
    NodataWarning,
    SceneError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS


def test_labels_become_the_eight_classes(tmp_path: Path) -> None:
    source = write_dfc2020(tmp_path)
    sample = DFC2020(tmp_path, 'train')[0]
    assert sample['image'].shape == (13, 256, 256)
    assert sample['image'].dtype == torch.float32
    assert sample['mask'].dtype == torch.int64
    names = dict(enumerate(DFC2020.classes)) | {255: None}
    wanted = {
        0: None, 1: 'Forest', 2: 'Shrubland', 3: None, 4: 'Grassland', 5: 'Wetlands',
        6: 'Croplands', 7: 'Urban/Built-up', 8: None, 9: 'Barren', 10: 'Water',
    }  # fmt: skip
    labels = torch.from_numpy(source['train'].astype(np.int64))
    for value, name in wanted.items():
        found = sorted(set(sample['mask'][labels == value].tolist()))
        assert [names[c] for c in found] == [name]


def test_tiles_with_and_without_georeference_share_a_batch(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    [batch] = DataLoader(DFC2020(tmp_path, 'train'), batch_size=2)
    assert batch['image'].shape == (2, 13, 256, 256)
    assert sorted(batch) == ['image', 'mask']


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    all_bands = DFC2020(tmp_path, 'val')[0]['image']
    some = DFC2020(tmp_path, 'val', bands=('B12', 'B02'))[0]['image']
    assert torch.equal(some, all_bands[[12, 1]])


def test_transforms_see_the_classes(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, 'train', transforms=lambda s: {**s, 'image': s['mask']})
    assert dataset[0]['image'].max() == 255


def test_the_zip_is_unpacked(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    write_dfc2020(made)
    with zipfile.ZipFile(tmp_path / 'dfc2020.zip', 'w') as archive:
        for file in made.rglob('*'):
            archive.write(file, file.relative_to(made))
    assert len(DFC2020(tmp_path, 'test')) == 1


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_download_uses_the_hub_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real download code, on a small archive in the real layout."""
    made = tmp_path / 'made'
    write_dfc2020(made)
    archive = tmp_path / 'dfc2020.zip'
    with zipfile.ZipFile(archive, 'w') as content:
        for file in made.rglob('*'):
            content.write(file, file.relative_to(made))
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/dfc2020.zip'
        monkeypatch.setattr(DFC2020, 'url', url)
        assert len(DFC2020(tmp_path / 'root', 'train', download=True)) == 2
        server.shutdown()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        DFC2020(tmp_path)


@pytest.mark.parametrize('what', ['tiles', 'list'])
def test_a_folder_without_tiles(tmp_path: Path, what: str) -> None:
    write_dfc2020(tmp_path)
    folder = tmp_path / 'dfc2020_s1s2'
    if what == 'tiles':
        for tile in folder.glob('dfc/*.tif'):
            tile.unlink()
    else:
        (folder / 'dfc-train-new.csv').write_text('')
    with pytest.raises(DataError, match='needed are GeoTIFF tiles in'):
        DFC2020(tmp_path)


def test_fake_tiles_are_like_the_real_ones(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    paths = sorted((tmp_path / 'dfc2020_s1s2' / 's2').iterdir())
    assert len(paths) == 4
    with rasterio.open(paths[0]) as raster:
        assert (raster.count, raster.dtypes[0], raster.shape) == (
            13,
            'uint16',
            (256, 256),
        )


ALL = (*SENTINEL2_BANDS, 'VV', 'VH')


def stored(path: Path, **options: object) -> NDArray[np.generic]:
    with rasterio.open(path) as raster:
        pixels: NDArray[np.generic] = raster.read(**options)
        return pixels


def test_sentinel1_follows_sentinel2_in_decibels(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, 'val', bands=ALL)
    image = dataset[0]['image']
    assert image.shape == (15, 256, 256)
    assert image.dtype == torch.float32
    name = str(dataset.files[0])
    radar = stored(dataset.layout.path(name, 's1'))
    assert np.array_equal(image[13:], radar.astype(np.float32))
    assert torch.equal(image[:13], DFC2020(tmp_path, 'val')[0]['image'])


def test_bands_of_both_sensors_in_any_order(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    every = DFC2020(tmp_path, 'val', bands=ALL)[0]['image']
    some = DFC2020(tmp_path, 'val', bands=('vh', 'B2', 'VV', 'B12'))
    assert some.bands == ('VH', 'B02', 'VV', 'B12')
    assert torch.equal(some[0]['image'], every[[14, 1, 13, 12]])


def test_radar_alone_needs_no_sentinel2(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    shutil.rmtree(tmp_path / 'dfc2020_s1s2' / 's2')
    assert DFC2020(tmp_path, bands=('VV', 'VH'))[0]['image'].shape == (2, 256, 256)
    with pytest.raises(DataError, match=r'2 of their files are not there.*dfc, s2'):
        DFC2020(tmp_path)


def test_an_unknown_band_is_refused(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    with pytest.raises(BandError, match=r"no band 'HV'.*B12, VV, VH"):
        DFC2020(tmp_path, bands=('B02', 'HV'))


def test_a_missing_tile_is_counted(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    last = DFC2020(tmp_path, 'train').layout.path(
        'ROIs0000_validation_dfc_1_p1.tif', 's2'
    )
    last.unlink()
    with pytest.raises(DataError, match=f'1 of their files .* first {last}'):
        DFC2020(tmp_path, 'train')


def test_rasters_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    folder = tmp_path / 'dfc2020_s1s2'
    other = folder / 's1' / 'ROIs0000_validation_s1_0_p0.tif'
    profile = {'driver': 'GTiff', 'height': 128, 'width': 256, 'dtype': 'float32'}
    with rasterio.open(other, 'w', count=2, **profile) as raster:
        raster.write(np.zeros((2, 128, 256), np.float32))
    with pytest.raises(GridError, match=r'128 × 256 px, .* has 256 × 256 px'):
        DFC2020(tmp_path, bands=ALL)[0]
    with rasterio.open(other, 'w', count=1, **profile) as raster:
        raster.write(np.zeros((1, 128, 256), np.float32))
    with pytest.raises(SceneError, match='has 1 bands, needed is band 2'):
        DFC2020(tmp_path, bands=ALL)[0]


def test_what_is_no_number_becomes_the_mean_of_its_band(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    path = tmp_path / 'dfc2020_s1s2' / 's1' / 'ROIs0000_validation_s1_0_p0.tif'
    with rasterio.open(path, 'r+') as raster:
        pixels = raster.read()
        pixels[1, :2, :5] = np.nan
        raster.write(pixels)
    with pytest.warns(NodataWarning, match=f'{path}: 10 of 131072 values'):
        image = DFC2020(tmp_path, bands=('VV', 'VH'))[0]['image'].numpy()
    known = np.isfinite(pixels)
    assert np.array_equal(image[known], pixels[known].astype(np.float32))
    assert image[1, :2, :5] == pytest.approx(np.nanmean(pixels[1]), abs=1e-3)


@pytest.mark.parametrize('georeference', ['identity', 'same', 'no crs'])
def test_a_georeference_that_cannot_be_true_is_not_passed_on(
    tmp_path: Path, georeference: Georeference
) -> None:
    write_dfc2020(tmp_path, georeference)
    dataset = DFC2020(tmp_path, 'train', bands=ALL)
    assert dataset[0]['image'].shape == (15, 256, 256)
    with pytest.warns(GeoreferenceWarning, match='without a georeference') as said:
        grids = [dataset.chip_grid(index, 224) for index in range(2)]
    assert grids == [None, None]
    assert len(said) == 1


def test_tiles_of_two_zones_are_where_they_say(tmp_path: Path) -> None:
    """Also where two zones have a tile at the same numbers, and no zone has two."""
    write_dfc2020(tmp_path, 'zones')
    dataset = DFC2020(tmp_path, 'train')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        grids = [dataset.chip_grid(index, 224) for index in range(2)]
    for index, grid in enumerate(grids):
        assert grid is not None
        with rasterio.open(dataset.layout.path(str(dataset.files[index]), 's2')) as s2:
            assert grid.crs == s2.crs
            assert grid.transform @ (-16, -16) == s2.transform @ (0, 0)


def test_no_number_of_headers_is_read_to_believe_a_sound_copy(tmp_path: Path) -> None:
    write_contest(tmp_path, validation=12)
    dataset = DFC2020(tmp_path, 'val', protocol='C')
    assert dataset.chip_grid(11, 16) is not None
    # one, and then as many as it takes to see two of one zone apart
    assert len(dataset._grids) <= 4


def test_plot_shows_the_classes(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, bands=ALL)
    mask = dataset.plot(dataset[0]).axes[1].images[0]
    for index, colour in enumerate([*DFC2020.class_colors, '#000000']):
        value = mask.norm(np.array([index if index < 8 else 255]))
        shown: Any = mask.cmap(value)
        assert to_hex(shown[0]) == colour
