"""Tokens by convolutions."""

import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.network.stem import ConvStem


@pytest.mark.parametrize('patch', [2, 4, 8, 16])
def test_one_token_for_each_patch(patch: int) -> None:
    stem = ConvStem(13, 64, patch)
    assert stem(torch.randn(2, 13, 64, 32)).shape == (2, 64, 64 // patch, 32 // patch)


def test_images_do_not_affect_each_other() -> None:
    stem = ConvStem(5, 32, 8)
    images = torch.randn(3, 5, 32, 32)
    alone = torch.cat([stem(image[None]) for image in images])
    torch.testing.assert_close(stem(images), alone)


def test_fields_of_view_overlap() -> None:
    stem = ConvStem(1, 32, 8)
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(stem(image)[0, :, 1, 1].sum(), image)
    seen = slope[0, 0].nonzero()
    # the patch itself is rows and columns 8 to 15
    assert seen.min() < 8


@pytest.mark.parametrize(
    ('patch', 'dim', 'message'),
    [(6, 64, 'got 6. Did you mean 4'), (16, 100, 'got 100. Did you mean 96')],
)
def test_what_cannot_be_halved(patch: int, dim: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ConvStem(13, dim, patch)


def test_a_network_with_it() -> None:
    network = ClassTokenViT(32, 8, 13, 4, 32, 2, 2, stem='conv')
    logits, maps, patches = network.forward_attention(torch.randn(2, 13, 32, 48))
    assert logits.shape == (2, 4)
    assert maps.shape == (2, 2, 4, 4, 6)
    assert patches is not None
    assert patches.shape == (2, 4, 4, 6)
    torch.autograd.grad(logits.sum(), list(network.patch_embed.parameters()))


def test_unknown_stem() -> None:
    with pytest.raises(SettingError, match="Unknown stem 'hybrid'"):
        ClassTokenViT(32, 8, 13, 4, 32, 1, 2, stem='hybrid')  # type: ignore[arg-type]
