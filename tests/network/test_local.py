"""The local head sees what it says it sees, and nothing else."""

import pytest
import torch

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.network.local import LocalHead


def network(**options: object) -> ClassTokenViT:
    """A tiny network with a local head."""
    torch.manual_seed(0)
    sizes = {'img_size': 32, 'patch_size': 8, 'embed_dim': 16, 'depth': 1}
    return ClassTokenViT(
        **(sizes | {'num_heads': 2, 'num_classes': 3, 'patch_head': 'local'} | options)  # type: ignore[arg-type]
    ).eval()


@pytest.mark.parametrize('depth', [0, 1, 2, 3])
def test_the_field_of_view_is_what_a_logit_depends_on(depth: int) -> None:
    torch.manual_seed(0)
    head = LocalHead(2, 3, width=8, depth=depth).eval()
    x = torch.randn(1, 2, 64, 64, requires_grad=True)
    head(x)[0, :, 8, 8].sum().backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum(dim=0).sum(dim=1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == head.field_of_view
    # the logit lies in the middle of what it sees: at the center of its 4 pixels
    assert int(rows[0] + rows[-1]) / 2 == 8 * head.stride + 1.5


def test_logits_are_on_a_grid_of_four_pixels_whatever_the_patches() -> None:
    x = torch.randn(2, 13, 48, 32)
    for patch_size in (4, 8, 16):
        model = network(patch_size=patch_size, img_size=32)
        logits, attention, patches = model.forward_attention(x)
        assert patches is not None and patches.shape == (2, 3, 12, 8)
        assert attention.shape[-2:] == (48 // patch_size, 32 // patch_size)
        torch.testing.assert_close(patches, model.local_logits(x))
        torch.testing.assert_close(logits, model(x))


def test_a_part_of_an_image_has_the_logits_that_the_image_has_there() -> None:
    model = network()
    x = torch.randn(1, 13, 96, 96)
    whole = model.local_logits(x)
    margin = 12  # at least half of the field of view, on the grid of 4 px
    part = model.local_logits(
        x[..., 32 - margin : 64 + margin, 32 - margin : 64 + margin]
    )
    inner = slice(margin // 4, -(margin // 4))
    torch.testing.assert_close(part[..., inner, inner], whole[..., 8:16, 8:16])


def test_an_image_that_its_grid_does_not_cover_is_refused() -> None:
    with pytest.raises(SettingError, match='34 × 32 px is not a multiple of 4 px'):
        network().local_logits(torch.randn(1, 13, 34, 32))


def test_the_whole_image_is_seen_without_a_local_head() -> None:
    assert network(patch_head='tokens').field_of_view is None
    assert network().field_of_view == 20


def test_unknown_heads_and_sizes_are_refused() -> None:
    with pytest.raises(SettingError, match="expected 'tokens' or 'local'"):
        network(patch_head='lokal')
    with pytest.raises(SettingError, match='local_width'):
        network(local_width=0)
    with pytest.raises(SettingError, match="patch_head='local'"):
        network(patch_head='tokens').local_logits(torch.randn(1, 13, 32, 32))
