"""The layers of timm that the network uses, with the same parameter names and numbers.

timm imports torchvision, which imports PyTorch's compiler: 6 s that mapping a scene does
not need. The tests compare each with timm's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def trunc_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill a tensor with normal numbers of mean 0, truncated to -2…2."""
    if tensor.is_meta:
        return tensor  # without numbers, and PyTorch would import its compiler
    share = math.erf(2 / std / math.sqrt(2))
    with torch.no_grad():
        tensor.uniform_(-share, share).erfinv_().mul_(std * math.sqrt(2))
        return tensor.clamp_(-2, 2)


def resample_positions(
    positions: Tensor, size: tuple[int, int], old: tuple[int, int], prefix: int
) -> Tensor:
    """Resample position embeddings to another patch grid.

    Args:
        positions: Embeddings (1, prefix + old height × old width, D).
        size: Height and width of the new grid.
        old: Height and width of the old grid.
        prefix: Number of tokens before the patches, which keep theirs.
    """
    kept, patches = positions[:, :prefix], positions[:, prefix:]
    grid = patches.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=size, mode='bicubic', antialias=True)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([kept, patches], dim=1)


class PatchEmbed(nn.Module):
    """Turn patches into tokens by one linear layer: a convolution of their size."""

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        padding: int = 0,
    ) -> None:
        """Create the layer; sizes are in pixels."""
        super().__init__()
        height, width = (img_size,) * 2 if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.proj: nn.Module = nn.Conv2d(
            in_chans, embed_dim, patch_size, patch_size, padding
        )


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, features: int, hidden: int) -> None:
        """Create the layers."""
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, S, D) to tokens (B, S, D)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        """Create the layer."""
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each position of (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
