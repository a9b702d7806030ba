from pathlib import Path

import numpy as np
import pytest
import torch
from torchgeo.datasets import DatasetNotFoundError, IntersectionDataset, RasterDataset

from tests.fakes.masks import CLASSES, COLORS, coded, place, write_image, write_mask
from torchgeo_ctm.datasets import PseudoMasks
from torchgeo_ctm.datasets.pseudo_masks import shared_legend
from torchgeo_ctm.errors import DataError, LabelError, SettingError


def test_classes_and_what_is_left_out(tmp_path: Path) -> None:
    classes = coded(40, 48)[1]
    classes[:5] = 255
    confidence = (np.arange(classes.size).reshape(classes.shape) % 101).astype(np.uint8)
    confidence[:5] = 255
    write_mask(tmp_path / 'a.tif', classes, confidence=confidence)
    for least in (0, 60, 100):
        masks = PseudoMasks(tmp_path, min_confidence=least)
        assert len(masks) == 1
        x, y, t = masks.bounds
        mask = masks[x, y, t]['mask']
        assert mask.dtype == torch.int64
        wanted = np.where(confidence >= least, classes, 255)
        assert np.array_equal(mask, wanted)
        part = masks[x.start + 80 : x.start + 160, y.stop - 200 : y.stop - 100, :]
        assert np.array_equal(part['mask'], wanted[10:20, 8:16])


def test_transforms_see_what_is_left_out(tmp_path: Path) -> None:
    low = np.zeros((8, 8), np.uint8)
    write_mask(tmp_path / 'a.tif', coded(8, 8)[1], confidence=low)
    masks = PseudoMasks(
        tmp_path, min_confidence=1, transforms=lambda s: s | {'n': s['mask'].min()}
    )
    assert masks[masks.bounds]['n'] == 255


def test_several_zones_as_torchgeo_does(tmp_path: Path) -> None:
    """Masks of two zones in the CRS of the first; nothing there becomes 255."""
    full = np.full((32, 32), 100, np.uint8)
    for number, zone in enumerate(('EPSG:32632', 'EPSG:32633')):
        write_mask(
            tmp_path / f'{number}.tif',
            np.full((32, 32), number),
            place(500_000),
            zone,
            confidence=full,
        )
    masks = PseudoMasks(tmp_path, min_confidence=50)
    assert len(masks) == 2
    for number in range(2):
        west, south, east, north = masks.index.geometry.iloc[number].bounds
        found = masks[west:east, south:north]['mask']
        assert set(found.unique().tolist()) <= {number, 255}
        assert (found == number).float().mean() > 0.8  # its box stands askew


def test_it_intersects_with_torchgeos_own(tmp_path: Path) -> None:
    class Images(RasterDataset):
        filename_glob = 'image.tif'

    pixels, classes = coded(32, 32)
    write_image(tmp_path / 'images' / 'image.tif', pixels)
    write_mask(tmp_path / 'masks' / 'mask.tif', classes)
    both = IntersectionDataset(
        Images(tmp_path / 'images'), PseudoMasks(tmp_path / 'masks')
    )
    sample = both[both.bounds]
    assert torch.equal(sample['image'][0].long() % 3, sample['mask'])


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='does not exist'):
        PseudoMasks(tmp_path / 'nowhere')
    with pytest.raises(DatasetNotFoundError):
        PseudoMasks(tmp_path)
    classes = coded(8, 8)[1]
    path = write_mask(tmp_path / 'a.tif', classes)
    with pytest.raises(SettingError, match='Did you mean 100'):
        PseudoMasks(path, min_confidence=101)
    assert len(PseudoMasks(path)) == 1
    with pytest.raises(DataError, match=r'a_confidence\.tif does not exist'):
        PseudoMasks(path, min_confidence=50)
    write_mask(tmp_path / 'a_confidence.tif', classes[:4])
    with pytest.raises(DataError, match='not on the grid'):
        PseudoMasks(path, min_confidence=50)
    bands = write_image(tmp_path / 'more' / 'image.tif', coded(8, 8)[0])
    with pytest.raises(DataError, match='13 bands'):
        PseudoMasks([path, bands])
    with pytest.raises(DataError, match='no CRS'):
        PseudoMasks(write_mask(tmp_path / 'none.tif', classes, crs=None))


def test_the_legend_is_the_masks_own(tmp_path: Path) -> None:
    classes = coded(8, 8)[1]
    write_mask(tmp_path / 'a.tif', classes, scene='a_scene.tif')
    facts = PseudoMasks(tmp_path).facts
    assert facts[0].scene == 'a_scene.tif'
    assert shared_legend(facts) == (list(CLASSES), list(COLORS))
    assert shared_legend(facts, CLASSES, ['#000000'] * 3)[1] == ['#000000'] * 3
    with pytest.raises(LabelError, match='expected Land, Sea'):
        shared_legend(facts, ['Land', 'Sea'])
    with pytest.raises(LabelError, match='2 colors for 3 classes'):
        shared_legend(facts, None, ['#000000', '#ffffff'])
    write_mask(tmp_path / 'b.tif', classes, names=('x', 'y', 'z'))
    with pytest.raises(LabelError, match=r'b\.tif has the classes x, y, z'):
        shared_legend(PseudoMasks(tmp_path).facts)
    write_image(tmp_path / 'plain' / 'c.tif', classes[None], bands=('classes',))
    with pytest.raises(LabelError, match='Pass class_names'):
        shared_legend(PseudoMasks(tmp_path / 'plain').facts)
