"""Patches to tokens by convolutions."""

from torch import nn

from ..errors import SettingError
from .layers import LayerNorm2d


class ConvStem(nn.Sequential):
    """Tokens from overlapping fields of view, in place of one linear layer.

    As many 3 × 3 convolutions of stride 2 as halve *patch_size* to 1, each with a norm
    and GELU, the width doubling up to *embed_dim*, then one of 1 × 1. Vision
    transformers without it learn texture slowly (Xiao et al. 2021, Early Convolutions
    Help Transformers See Better). The norm is over the bands of each pixel: images of a
    batch do not affect each other.
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        """Create the stem.

        Args:
            in_chans: Number of bands.
            embed_dim: Token width D.
            patch_size: Side of a patch in pixels, a power of 2.

        Raises:
            SettingError: If *patch_size* is no power of 2, or *embed_dim* too small.
        """
        halvings = patch_size.bit_length() - 1
        if patch_size < 2 or patch_size != 1 << halvings:
            nearest = max(2, 1 << max(patch_size.bit_length() - 1, 1))
            raise SettingError(
                f"stem='conv' requires a patch_size that is a power of 2, got "
                f'{patch_size}. Did you mean {nearest}?'
            )
        if embed_dim % (1 << (halvings - 1)):
            step = 1 << (halvings - 1)
            raise SettingError(
                f"stem='conv' with patches of {patch_size} px requires an embed_dim that "
                f'is a multiple of {step}, got {embed_dim}. Did you mean '
                f'{max(1, round(embed_dim / step)) * step}?'
            )
        layers: list[nn.Module] = []
        for halving in range(halvings):
            width = embed_dim >> (halvings - 1 - halving)
            layers += [
                nn.Conv2d(in_chans, width, 3, stride=2, padding=1),
                LayerNorm2d(width),
                nn.GELU(),
            ]
            in_chans = width
        super().__init__(*layers, nn.Conv2d(in_chans, embed_dim, 1))
