"""Vision transformers of timm and TorchGeo with random weights."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torchgeo.models
from torch import Tensor, nn
from torchgeo.models import DOFA, CopernicusFM

#: Largest deviation of weights: what every block adds to the tokens is visible.
SPREAD = 0.1


def randomized(model: nn.Module) -> nn.Module:
    """Give every parameter random values, for evaluation."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            one = 'norm' in name and name.endswith('weight')
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(one + min(SPREAD, fan**-0.5) * noise)
    return model.eval()


def published(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as it is published: without head and norm of a mean."""
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(('head.', 'fc_norm.'))
    }


def last_tokens(
    model: nn.Module, blocks: Any, call: Callable[[], object], prefix: int
) -> Tensor:
    """Return the patch tokens that the last block returns.

    Args:
        model: The network.
        blocks: Its blocks.
        call: Runs it.
        prefix: Number of tokens before the patches.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: object, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handle = blocks[-1].register_forward_hook(keep)
    with torch.no_grad():
        call()
    handle.remove()
    return seen[0][:, prefix:]


#: Names in TorchGeo or timm, their sizes with few blocks, and the registers.
PLAIN: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], int]] = {
    'vit_small_patch16': (
        torchgeo.models.vit_small_patch16_224,
        {'depth': 2, 'img_size': 64},
        0,
    ),
    'vit_large_patch16': (
        torchgeo.models.vit_large_patch16_224,
        {'depth': 1, 'img_size': 64},
        0,
    ),
    'vit_huge_patch14': (
        torchgeo.models.vit_huge_patch14_224,
        {'depth': 1, 'img_size': 56},
        0,
    ),
    'vit_small_patch14_dinov2': (
        torchgeo.models.vit_small_patch14_dinov2,
        {'depth': 2, 'img_size': 56},
        0,
    ),
    'vit_base_patch14_dinov2': (
        torchgeo.models.vit_base_patch14_dinov2,
        {'depth': 1, 'img_size': 56},
        0,
    ),
    'vit_small_patch14_reg4_dinov2': (
        lambda **options: timm.create_model('vit_small_patch14_reg4_dinov2', **options),
        {'depth': 2, 'img_size': 56},
        4,
    ),
}


def plain(name: str, in_chans: int = 13) -> nn.Module:
    """Return a plain vision transformer, one of :data:`PLAIN`."""
    build, options, _ = PLAIN[name]
    return randomized(build(in_chans=in_chans, num_classes=0, **options))


def dofa() -> DOFA:
    """Return a small DOFA for images of 64 px."""
    model: Any = randomized(DOFA(img_size=64, embed_dim=128, depth=2, num_heads=2))
    return model  # type: ignore[no-any-return]


def copernicus_fm() -> CopernicusFM:
    """Return a small Copernicus-FM for images of 64 px."""
    model: Any = randomized(
        CopernicusFM(img_size=64, embed_dim=128, depth=2, num_heads=2)
    )
    return model  # type: ignore[no-any-return]


def copernicus_tokens(
    model: CopernicusFM,
    image: Tensor,
    centers: Sequence[float],
    widths: Sequence[float],
) -> Tensor:
    """Return Copernicus-FM's patch tokens of an unknown place, scale and date.

    Args:
        model: The network.
        image: Images (B, bands, H, W).
        centers: Wavelengths in nanometers.
        widths: Bandwidths in nanometers.
    """
    unknown = torch.full((len(image), 4), float('nan'))
    return last_tokens(
        model, model.blocks, lambda: model(image, unknown, centers, widths), 1
    )
