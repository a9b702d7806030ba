from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchgeo.datasets import DatasetNotFoundError

from tests.fakes.image_folders import every, write_endotect
from tests.fakes.serve import pack, served
from torchgeo_ctm.datasets import EndoTect, endotect
from torchgeo_ctm.split import SPLITS

ZIP = 'hyper-kvasir-segmented-images.zip'


def test_jpeg_masks_become_two_classes(tmp_path: Path) -> None:
    write_endotect(tmp_path)
    images = EndoTect(tmp_path)
    assert images.classes == ('background', 'polyp')
    for index, sample in enumerate(every(images)):
        path = tmp_path / 'segmented-images' / 'masks' / f'{images.names[index]}.jpg'
        stored = np.asarray(Image.open(path).convert('L'))
        assert set(np.unique(sample['mask'])) == {0, 1}
        assert np.array_equal(sample['mask'] == 1, stored > 127)
    # compression has left other values than black and white in these masks
    assert len(np.unique(stored)) > 2


def test_every_image_is_in_one_split(tmp_path: Path) -> None:
    write_endotect(tmp_path)
    splits = [EndoTect(tmp_path, split) for split in SPLITS]
    names = [name for images in splits for name in images.names]
    assert len(names) == len(set(names)) == 40
    assert len(splits[0]) > 20
    assert EndoTect(tmp_path, 'val', shares=(0, 1, 0)).names == sorted(names)


def test_the_zip_is_unpacked(tmp_path: Path) -> None:
    write_endotect(tmp_path / 'made')
    pack(tmp_path / 'root' / ZIP, tmp_path / 'made')
    assert len(EndoTect(tmp_path / 'root')) > 20


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert endotect.ARCHIVE.url.endswith(f'simula.no/downloads/hyper-kvasir/{ZIP}')
    write_endotect(tmp_path / 'made')
    pack(tmp_path / 'site' / ZIP, tmp_path / 'made')
    with served(tmp_path / 'site') as address:
        archive = endotect.ARCHIVE._replace(url=f'{address}/{ZIP}')
        monkeypatch.setattr(endotect, 'ARCHIVE', archive)
        assert len(EndoTect(tmp_path / 'root', download=True)) > 20


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        EndoTect(tmp_path)
