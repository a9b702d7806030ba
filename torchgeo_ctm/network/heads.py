"""From tokens to logits: the paper's head, one token alone, and patches."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..losses import log_odds
from .layers import trunc_normal_


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


class PatchHead(nn.Linear):
    """From patch tokens to patch logits, whose sigmoid says what a patch shows."""

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        activation: Literal['sigmoid', 'softmax'] = 'sigmoid',
    ) -> None:
        """Create a Linear(D, C).

        Args:
            embed_dim: Width of a token.
            num_classes: Number of classes.
            activation: 'sigmoid', each class by itself; 'softmax': the logits returned
                are log-odds against all other classes, so that their sigmoids sum to 1
                over the classes, as shares of land cover do.

        Raises:
            SettingError: If *activation* is unknown, or a single class would compete.
        """
        if activation not in ('sigmoid', 'softmax'):
            raise SettingError(
                f"Unknown patch_activation {activation!r}, expected 'sigmoid' or "
                "'softmax'."
            )
        if activation == 'softmax' and num_classes < 2:
            raise SettingError(
                "patch_activation='softmax' requires 2 classes or more, got "
                f"num_classes={num_classes}. Use patch_activation='sigmoid'."
            )
        super().__init__(embed_dim, num_classes)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        """Map patch tokens (B, N, D) to logits (B, N, C)."""
        logits = super().forward(tokens)
        return log_odds(logits) if self.activation == 'softmax' else logits
