"""Fused maps of the reference network, to compare with."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_ctm.network.class_token_vit import ClassTokenViT


class ReferenceFusion(nn.Module):
    """The reference's fused maps: attention × ReLU of an untrained 3 × 3 convolution.

    No gradient ever reaches that convolution; it exists here for comparison only.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], model: ClassTokenViT) -> None:
        """Take the convolution from the reference's tensors."""
        super().__init__()
        self.model = model
        self.register_buffer('weight', _tensor(state_dict, 'mct.head.weight'))
        self.register_buffer('bias', _tensor(state_dict, 'mct.head.bias'))

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused maps (B, C, h, w) of scaled images (B, bands, H, W)."""
        tokens, attention = self.model.forward_features(x, maps=True, gated=False)
        if attention is None:
            raise RuntimeError('forward_features returned no maps')
        patches = tokens[:, self.model.num_prefix_tokens :].transpose(1, 2)
        features = patches.reshape(*patches.shape[:2], *attention.shape[-2:])
        weight, bias = self.get_buffer('weight'), self.get_buffer('bias')
        cam = F.conv2d(features, weight, bias, padding=1)
        fused: Tensor = attention.sum(dim=1) * cam.relu()
        return fused


def _tensor(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor of the reference's checkpoint, with or without a prefix."""
    return next(state_dict[key] for key in state_dict if key.endswith(name))
