from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchgeo.datasets import DatasetNotFoundError

from tests.fakes.image_folders import write_ade20k
from tests.fakes.serve import pack, served
from torchgeo_ctm.datasets import ADE20K, ade20k
from torchgeo_ctm.errors import DataError

FOLDER = 'ADEChallengeData2016'


def test_samples_and_class_names(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    images = ADE20K(tmp_path)
    assert [len(ADE20K(tmp_path, s)) for s in ('train', 'val', 'test')] == [4, 2, 2]
    assert len(images.classes) == 151
    assert images.classes[:4] == ('other', 'wall', 'building', 'thing 3')
    assert images.classes[8] == 'bed'
    sample = images[0]
    assert sample['image'].shape == (3, 52, 80)
    path = tmp_path / FOLDER / 'annotations' / 'training' / 'ADE_train_00000001.png'
    # 0 is a class of its own, "other": nothing is shifted and nothing ignored
    assert np.array_equal(sample['mask'], np.asarray(Image.open(path)))
    assert sample['mask'].dtype == torch.int64


def test_the_zip_is_unpacked(tmp_path: Path) -> None:
    write_ade20k(tmp_path / 'made')
    pack(tmp_path / 'root' / f'{FOLDER}.zip', tmp_path / 'made')
    assert len(ADE20K(tmp_path / 'root', 'val')) == 2


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real download code, on a small archive in the real layout."""
    assert ade20k.ARCHIVE.url.endswith(f'/places/ADEchallenge/{FOLDER}.zip')
    write_ade20k(tmp_path / 'made')
    pack(tmp_path / 'site' / f'{FOLDER}.zip', tmp_path / 'made')
    with served(tmp_path / 'site') as address:
        archive = ade20k.ARCHIVE._replace(url=f'{address}/{FOLDER}.zip')
        monkeypatch.setattr(ade20k, 'ARCHIVE', archive)
        assert len(ADE20K(tmp_path / 'root', download=True)) == 4
    # what is there is not fetched again: nobody serves any more
    assert len(ADE20K(tmp_path / 'root', download=True)) == 4


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match='download=True'):
        ADE20K(tmp_path)


def test_a_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / f'{FOLDER}.zip').write_bytes(b'not a zip')
    with pytest.raises(DataError, match='Remove the file and fetch it again'):
        ADE20K(tmp_path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    (tmp_path / 'made').mkdir()
    (tmp_path / 'made' / 'readme.txt').write_text('')
    pack(tmp_path / f'{FOLDER}.zip', tmp_path / 'made')
    with pytest.raises(DataError, match=f'has no {FOLDER}'):
        ADE20K(tmp_path)


@pytest.mark.parametrize('what', ['missing', 'short', 'other'])
def test_class_list_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    write_ade20k(tmp_path)
    path = tmp_path / FOLDER / 'objectInfo150.txt'
    lines = path.read_text().splitlines()
    path.unlink()
    if what != 'missing':
        lines = lines[:100] if what == 'short' else lines[::-1]
        path.write_text('\n'.join(lines))
    with pytest.raises(DataError, match=r'objectInfo150\.txt'):
        ADE20K(tmp_path)
