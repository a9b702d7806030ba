import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError

from tests.datasets.fake_dfc2020 import write_dfc2020
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.errors import DataError


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
