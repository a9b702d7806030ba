import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.labels import class_shares, presence_from_mask


def test_share_decides() -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.long)
    mask[0, 0] = 1  # exactly 10 %
    mask[0, 1, :9] = 2  # 9 %
    assert presence_from_mask(mask, 4).tolist() == [[1, 1, 0, 0]]


def test_share_is_of_the_whole_chip() -> None:
    mask = torch.full((1, 10, 10), 255)
    mask[0, 0, :9] = 1
    assert presence_from_mask(mask, 2).tolist() == [[0, 0]]
    assert presence_from_mask(mask, 2, min_share=0.05).tolist() == [[0, 1]]


def test_values_outside_the_classes_are_no_class() -> None:
    mask = torch.tensor([[[-1, 3, 255, 2]]])
    assert presence_from_mask(mask, 3, min_share=0.1).tolist() == [[0, 0, 1]]


def test_zero_share_still_needs_a_pixel() -> None:
    mask = torch.tensor([[[0, 0]]])
    assert presence_from_mask(mask, 2, min_share=0.0).tolist() == [[1, 0]]


def test_shares_of_labelled_and_unlabelled_area() -> None:
    mask = torch.tensor([[[0, 0, 1, 255]]])
    assert class_shares(mask, 2).tolist() == [[0.5, 0.25]]


def test_images_of_a_batch_do_not_mix() -> None:
    mask = torch.stack([torch.full((4, 4), c) for c in (2, 0)])
    assert torch.equal(presence_from_mask(mask, 3), torch.eye(3)[[2, 0]])


def test_a_share_in_percent_is_refused() -> None:
    with pytest.raises(SettingError, match='min_share=10'):
        presence_from_mask(torch.zeros(1, 2, 2, dtype=torch.long), 2, min_share=10)
