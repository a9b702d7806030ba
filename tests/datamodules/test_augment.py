"""Augmentation of batches, and chips of one size."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from torchgeo_ctm.datamodules.augment import FitChip, MixTiles, augmentation
from torchgeo_ctm.errors import LabelError, SettingError


def numbered(*shape: int) -> dict[str, Tensor]:
    """Return a batch whose image and mask hold each pixel's number."""
    pixels = torch.arange(shape[-2] * shape[-1]).reshape(shape[-2:])
    mask = pixels.expand(shape[0], -1, -1).clone()
    return {
        'image': mask[:, None].repeat(1, 3, 1, 1).float(),
        'mask': mask,
        'valid': mask % 3 == 0,
        'label': torch.rand(shape[0], 4),
        'label_known': torch.ones(shape[0], 4),
        'scene': torch.arange(shape[0]),
    }


def orientations(size: tuple[int, int], upright: bool = False) -> Counter[Any]:
    """Count the orientations of 1,600 chips."""
    batch = numbered(1600, *size)
    masks = augmentation(upright)(batch)['mask']
    return Counter(tuple(mask.flatten().tolist()) for mask in masks)


def test_all_eight_orientations_are_equally_likely() -> None:
    torch.manual_seed(0)
    found = orientations((4, 4))
    pixels = torch.arange(16).reshape(4, 4)
    turned = [
        torch.rot90(side, n) for side in (pixels, pixels.flip(-1)) for n in range(4)
    ]
    assert set(found) == {tuple(mask.flatten().tolist()) for mask in turned}
    # 200 expected, with a standard deviation of 13
    assert min(found.values()) > 140


@pytest.mark.parametrize(('upright', 'count'), [(False, 4), (True, 2)])
def test_other_chips_are_flipped(upright: bool, count: int) -> None:
    torch.manual_seed(0)
    found = orientations((3, 5), upright)
    assert len(found) == count
    pixels = torch.arange(15).reshape(3, 5)
    assert tuple(pixels.flip(-1).flatten().tolist()) in found
    assert len(orientations((4, 4), upright)) == (2 if upright else 8)


def test_whatever_lies_on_pixels_moves_alike_and_nothing_else() -> None:
    batch = numbered(16, 6, 6)
    augmented = augmentation()({key: value.clone() for key, value in batch.items()})
    assert augmented.keys() == batch.keys()
    for key, value in augmented.items():
        assert value.dtype == batch[key].dtype
        assert value.shape == batch[key].shape
    for band in range(3):
        assert torch.equal(augmented['image'][:, band], augmented['mask'].float())
    assert torch.equal(augmented['valid'], augmented['mask'] % 3 == 0)
    assert not torch.equal(augmented['mask'], batch['mask'])
    for key in ('label', 'label_known', 'scene'):
        assert torch.equal(augmented[key], batch[key])


def test_a_batch_without_masks() -> None:
    batch = numbered(4, 6, 6)
    augmented = augmentation()({key: batch[key] for key in ('image', 'label')})
    assert augmented.keys() == {'image', 'label'}


def test_a_seed_repeats_the_augmentation() -> None:
    def draw() -> Tensor:
        torch.manual_seed(7)
        mask: Tensor = augmentation()(numbered(32, 5, 5))['mask']
        return mask

    assert torch.equal(draw(), draw())


def test_the_matrix_tells_where_pixels_went() -> None:
    """Boxes and key points of other augmentations follow it."""
    augment: Any = augmentation()
    mask = augment(numbered(16, 6, 6))['mask']
    for chip, matrix in zip(mask, augment.steps.transform_matrix, strict=True):
        for number in (0, 9, 23):
            row, col = divmod(number, 6)
            x, y, _ = (matrix @ torch.tensor([col, row, 1.0])).long().tolist()
            assert chip[y, x] == number


def sample(height: int, width: int) -> dict[str, Tensor]:
    """Return a sample whose image and mask hold each pixel's number."""
    batch = numbered(1, height, width)
    return {key: batch[key][0] for key in ('image', 'mask')}


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('size', [(10, 14), (30, 14), (10, 40), (30, 40)])
def test_image_and_mask_stay_together(size: tuple[int, int], train: bool) -> None:
    """Crop and pad alike, without resizing."""
    fit = FitChip(size, None, train)
    for _ in range(5):
        got = fit(sample(20, 24))
        assert type(got['image']) is type(got['mask']) is Tensor
        assert got['mask'].shape == got['image'].shape[-2:] == size
        inside = got['mask'] != 255
        # 255 is padding, and one pixel of the sample
        assert inside.sum() >= min(20, size[0]) * min(24, size[1]) - 1
        assert torch.equal(got['image'][1][inside], got['mask'][inside].float())


def test_evaluation_takes_the_center() -> None:
    got = FitChip((6, 6))(sample(10, 10))
    assert torch.equal(got['mask'], sample(10, 10)['mask'][2:8, 2:8])


def test_padding_is_ignored() -> None:
    mask = torch.zeros(4, 4, dtype=torch.long)
    got = FitChip((8, 6))({'image': torch.ones(3, 4, 4), 'mask': mask})
    wanted = torch.full((8, 6), 255)
    wanted[2:6, 1:5] = 0
    assert torch.equal(got['mask'], wanted)
    assert torch.equal(got['image'][0] == 1, wanted == 0)


@pytest.mark.parametrize('resize', ['stretch', 'cover'])
@pytest.mark.parametrize('shape', [(20, 30), (30, 20), (99, 7), (8, 12)])
def test_resizing_keeps_classes_whole(shape: tuple[int, int], resize: Any) -> None:
    labels = torch.randint(0, 2, shape) * 20
    pixels = {'image': torch.rand(3, *shape) * 255, 'mask': labels}
    got = FitChip((16, 24), resize, train=True)(pixels)
    assert got['image'].shape == (3, 16, 24)
    # no value between two classes, none of padding, none outside 0…255
    assert set(got['mask'].flatten().tolist()) <= {0, 20}
    assert 0 <= got['image'].min()
    assert got['image'].max() <= 255


def test_stretching_shows_the_whole_image_and_covering_the_center() -> None:
    mask = torch.arange(4)[None].expand(8, 4).repeat_interleave(8, dim=1)
    pixels = {'image': mask[None].expand(3, -1, -1).float(), 'mask': mask}
    stretched = FitChip((8, 8), 'stretch')(pixels)['mask']
    assert set(stretched.flatten().tolist()) == {0, 1, 2, 3}
    covered = FitChip((8, 8), 'cover')(pixels)['mask']
    assert torch.equal(covered, mask[:, 12:20])


def test_a_seed_repeats_the_crops() -> None:
    def draw() -> list[Tensor]:
        torch.manual_seed(3)
        return [FitChip((6, 6), None, True)(sample(20, 20))['mask'] for _ in range(9)]

    assert all(map(torch.equal, draw(), draw()))
    assert len({tuple(mask.flatten().tolist()) for mask in draw()}) > 5


def tiles(count: int = 8, side: int = 16) -> dict[str, Tensor]:
    """Return chips whose pixels all hold the chip's class."""
    label = torch.arange(count) % 4
    flat = label[:, None, None].expand(-1, side, side)
    return {'image': flat[:, None].repeat(1, 2, 1, 1).float(), 'label': label}


def test_a_mixed_chip_has_the_labels_of_its_pixels() -> None:
    torch.manual_seed(0)
    batch = tiles(64)
    mixed = MixTiles(1.0, num_classes=4)(batch)
    several = 0
    for image, label in zip(mixed['image'], mixed['label'], strict=True):
        assert (
            torch.unique(image).long().tolist() == torch.nonzero(label)[:, 0].tolist()
        )
        # one row and one column cut the chip into four parts of one value each
        for axis in (0, 1):
            borders = (image[0].diff(dim=axis) != 0).any(dim=1 - axis)
            assert borders.sum() <= 1
        several += int(label.sum() > 1)
    assert several > 32
    assert torch.equal(batch['image'], tiles(64)['image'])


def test_mixing_none_of_the_chips_only_spreads_the_label() -> None:
    batch = tiles()
    mixed = MixTiles(0.0, num_classes=4)(batch)
    assert torch.equal(mixed['image'], batch['image'])
    assert torch.equal(mixed['label'].argmax(dim=1), batch['label'])
    assert torch.equal(mixed['label'].sum(dim=1), torch.ones(8))


def test_masks_and_valid_pixels_are_mixed_alike() -> None:
    torch.manual_seed(0)
    batch = tiles()
    batch |= {'mask': batch['image'][:, 0].long(), 'valid': batch['image'][:, 0] > 1}
    mixed = augmentation(mix_tiles=1.0, num_classes=4)(batch)
    assert torch.equal(mixed['mask'], mixed['image'][:, 0].long())
    assert torch.equal(mixed['valid'], mixed['image'][:, 0] > 1)


@pytest.mark.parametrize(
    ('label', 'found'),
    [
        (torch.tensor([[1.0, 0, 0], [1, 1, 0]]), 'a chip with 2 labels'),
        (torch.tensor([[1.0, 0, 0], [0, 0, 0]]), 'a chip with 0 labels'),
        (None, 'no label'),
    ],
)
def test_chips_without_exactly_one_label_are_not_mixed(
    label: Tensor | None, found: str
) -> None:
    batch = {'image': torch.zeros(2, 1, 8, 8)}
    if label is not None:
        batch['label'] = label
    with pytest.raises(LabelError, match=f'exactly one label a chip, got {found}'):
        MixTiles(0.5, num_classes=3)(batch)


def test_a_share_of_mixed_chips_is_0_to_1() -> None:
    with pytest.raises(SettingError, match=r'mix_tiles must be 0 to 1, got 1\.5'):
        augmentation(mix_tiles=1.5, num_classes=3)
