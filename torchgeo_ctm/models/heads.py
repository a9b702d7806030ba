"""From class tokens to logits: the paper's head, and one token alone."""

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn


class JointHead(nn.Module):
    """All class tokens, concatenated, through one linear layer (the paper's head)."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        """Create a Linear(C·D, C)."""
        super().__init__()
        self.fc = nn.Linear(num_classes * embed_dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map class tokens (B, C, D) to logits (B, C)."""
        logits: Tensor = self.fc(tokens.flatten(1))
        return logits


class TokenHead(nn.Module):
    """Each class token alone through a weight vector of its own."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        """Create C weight vectors of width D and C biases."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, embed_dim))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        trunc_normal_(self.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map class tokens (B, C, D) to logits (B, C)."""
        logits: Tensor = (tokens * self.weight).sum(dim=-1) + self.bias
        return logits
