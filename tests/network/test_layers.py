"""The layers have the parameter names and the numbers of timm's."""

import pytest
import timm.layers
import torch
from torch import Tensor, nn

from torchgeo_ctm.network import layers


def seeded(make: type[nn.Module], *arguments: int) -> nn.Module:
    torch.manual_seed(0)
    return make(*arguments)


@pytest.mark.parametrize(
    ('name', 'arguments', 'shape'),
    [
        ('Mlp', (8, 16), (2, 5, 8)),
        ('LayerNorm2d', (8,), (2, 8, 4, 6)),
        ('PatchEmbed', (32, 8, 3, 16), (2, 3, 32, 32)),
    ],
)
def test_modules(name: str, arguments: tuple[int, ...], shape: tuple[int, ...]) -> None:
    ours = seeded(getattr(layers, name), *arguments)
    theirs = seeded(getattr(timm.layers, name), *arguments)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])
    x = torch.randn(shape)
    if name == 'PatchEmbed':
        found: Tensor = ours.proj(x).flatten(2).transpose(1, 2)  # type: ignore[operator]
        assert ours.img_size == theirs.img_size
    else:
        found = ours(x)
    assert torch.equal(found, theirs(x))


@pytest.mark.parametrize('std', [0.02, 1.0])
def test_a_seed_draws_the_same_weights(std: float) -> None:
    torch.manual_seed(0)
    ours = layers.trunc_normal_(torch.empty(1000), std)
    torch.manual_seed(0)
    theirs = timm.layers.trunc_normal_(torch.empty(1000), std=std)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert std > 0.5 or torch.equal(ours, theirs)


@pytest.mark.parametrize('size', [(4, 4), (6, 3), (2, 5)])
def test_positions(size: tuple[int, int]) -> None:
    positions = torch.randn(1, 3 + 16, 8)
    ours = layers.resample_positions(positions, size, (4, 4), 3)
    theirs = timm.layers.resample_abs_pos_embed(positions, list(size), [4, 4], 3)
    torch.testing.assert_close(ours, theirs)
