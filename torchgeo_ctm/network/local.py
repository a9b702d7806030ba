"""Patch logits from local evidence: a small convolutional network."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError


class LocalHead(nn.Module):
    """Class logits every few pixels, from a field of view of a few pixels.

    A convolution of stride 4, residual 3 × 3 convolutions with batch normalization, and
    a 1 × 1 convolution to the classes. Image-level labels say which classes an image
    holds, not where. A network that sees the whole image can learn the label of the
    image at every position; one that sees 20 px has to find the evidence where it is.
    """

    #: Pixels from one logit to the next.
    stride = 4

    def __init__(
        self, in_chans: int, num_classes: int, width: int = 64, depth: int = 2
    ) -> None:
        """Create the head.

        Args:
            in_chans: Number of bands.
            num_classes: Number of classes C.
            width: Channels of every layer.
            depth: Number of residual convolutions; each widens the field of view by 8 px.

        Raises:
            SettingError: If *width* is below 1 or *depth* below 0.
        """
        super().__init__()
        if width < 1 or depth < 0:
            raise SettingError(
                f'Expected local_width >= 1 and local_depth >= 0, got {width} and '
                f'{depth}.'
            )
        self.stem = nn.Conv2d(in_chans, width, self.stride, stride=self.stride)
        self.stem_norm = nn.BatchNorm2d(width)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth))
        self.head = nn.Conv2d(width, num_classes, 1)

    @property
    def field_of_view(self) -> int:
        """Side of the square of pixels that one logit depends on."""
        return self.stride * (1 + 2 * len(self.convs))

    def check_size(self, height: int, width: int) -> None:
        """Check the size of an image in pixels.

        Raises:
            SettingError: If it is not a multiple of the stride.
        """
        if height % self.stride or width % self.stride:
            raise SettingError(
                f'An image of {height} × {width} px is not a multiple of {self.stride} '
                'px, the distance of the local logits. Use another size, or '
                'patches: {head: tokens}.'
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled images (B, bands, H, W) to patch logits (B, C, H/4, W/4)."""
        self.check_size(x.shape[-2], x.shape[-1])
        x = F.gelu(self.stem_norm(self.stem(x)))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.gelu(norm(conv(x)))
        logits: Tensor = self.head(x)
        return logits
