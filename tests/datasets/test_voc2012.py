import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchgeo.datasets import DatasetNotFoundError
from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from tests.fakes.image_folders import every, write_voc2012
from tests.fakes.serve import pack, served
from torchgeo_ctm.datasets import VOC2012
from torchgeo_ctm.errors import DataError, SettingError

TAR = 'VOCtrainval_11-May-2012.tar'


def test_samples_are_those_of_torchvisions_reader(tmp_path: Path) -> None:
    write_voc2012(tmp_path)
    for split, image_set in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        images = VOC2012(tmp_path, split)  # type: ignore[arg-type]
        reader = VOCSegmentation(tmp_path, '2012', image_set)
        assert len(images) == len(reader) > 0
        for sample, (image, mask) in zip(every(images), reader, strict=True):
            assert np.array_equal(sample['image'].permute(1, 2, 0), np.asarray(image))
            # the palette's indices, outlines (255) ignored
            assert mask.mode == 'P'
            assert np.array_equal(sample['mask'], np.asarray(mask))
            assert (sample['mask'] == 255).any()


def test_class_colours_are_the_palette_of_its_masks(tmp_path: Path) -> None:
    write_voc2012(tmp_path)
    images = VOC2012(tmp_path)
    assert len(images.classes) == len(images.class_colors) == 21
    folder = tmp_path / 'VOCdevkit' / 'VOC2012' / 'SegmentationClass'
    palette = Image.open(next(folder.iterdir())).getpalette()
    assert palette is not None
    # the development kit's own example: class 20, tvmonitor, is (0, 64, 128)
    assert palette[60:63] == [0, 64, 128]
    assert images.class_colors[20] == '#004080'


def test_the_tar_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc2012(tmp_path / 'made')
    tar = pack(tmp_path / 'root' / TAR, tmp_path / 'made')
    with pytest.raises(DataError, match='does not have the MD5'):
        VOC2012(tmp_path / 'root', 'val')
    md5 = hashlib.md5(tar.read_bytes()).hexdigest()
    entry = DATASET_YEAR_DICT['2012'] | {'md5': md5}
    monkeypatch.setitem(DATASET_YEAR_DICT, '2012', entry)
    assert len(VOC2012(tmp_path / 'root', 'val')) == 2


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc2012(tmp_path / 'made')
    tar = pack(tmp_path / 'site' / TAR, tmp_path / 'made')
    md5 = hashlib.md5(tar.read_bytes()).hexdigest()
    with served(tmp_path / 'site') as address:
        published = {'url': f'{address}/{TAR}', 'md5': md5}
        entry = DATASET_YEAR_DICT['2012'] | published
        monkeypatch.setitem(DATASET_YEAR_DICT, '2012', entry)
        assert len(VOC2012(tmp_path / 'root', download=True)) == 4


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        VOC2012(tmp_path)


def test_bad_input(tmp_path: Path) -> None:
    write_voc2012(tmp_path)
    with pytest.raises(SettingError, match="Unknown split 'trainval'"):
        VOC2012(tmp_path, 'trainval')  # type: ignore[arg-type]
    (tmp_path / 'VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg').unlink()
    with pytest.raises(DataError, match='1 of them are missing: 2007_000001'):
        VOC2012(tmp_path)
    (tmp_path / 'VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt').unlink()
    with pytest.raises(DataError, match='is not the devkit of VOC 2012'):
        VOC2012(tmp_path)
