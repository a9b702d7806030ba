"""Attention that shows its class rows, the block around it, and the two heads."""

import warnings

import torch
import torch.nn.functional as F
from timm.layers import Mlp, trunc_normal_
from torch import Tensor, nn

from .hard_concrete import HardConcreteGate


class ClassTokenAttention(nn.Module):
    """Self-attention that also returns the rows of the class tokens.

    The value path is fused; only the C class rows of the attention matrix are ever
    written to memory, the S × S matrix never is.
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int, qkv_bias: bool, head_gates: bool
    ) -> None:
        """Create the projections; parameter names are timm's."""
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.gate = HardConcreteGate(num_heads) if head_gates else None

    def rows_by_head(self, x: Tensor, num_rows: int) -> Tensor:
        """Return the first tokens' softmax rows of every head, (B, heads, rows, S)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self._rows(q[:, :, :num_rows], k)

    def _rows(self, q: Tensor, k: Tensor) -> Tensor:
        """Return softmax rows (B, heads, C, S), float32."""
        scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
        rows: Tensor = scores.softmax(dim=-1, dtype=torch.float32)
        return rows

    def forward(
        self, x: Tensor, num_rows: int = 0, gated: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: Tokens (B, S, D).
            num_rows: How many of the first tokens' attention rows to return.
            gated: Weight the heads of the returned rows by their gates.

        Returns:
            Tokens (B, S, D), and the softmax rows averaged over heads
            (B, num_rows, S) float32, or None without rows.
        """
        batch, length, _ = x.shape
        if not self.num_heads:
            # every head was removed: what is left of attention is the bias
            rows = x.new_zeros(batch, num_rows, length, dtype=torch.float32)
            return self.proj(x[..., :0]), rows if num_rows else None
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        gate = self.gate() if self.gate is not None else None
        out = F.scaled_dot_product_attention(q, k, v)
        if gate is not None:
            # a scalar per head commutes with the sum over values
            out = out * gate.to(out.dtype)[:, None, None]
        out = self.proj(out.transpose(1, 2).flatten(2))
        if not num_rows:
            return out, None
        weight = gate if gated else None
        return out, self._class_rows(q[:, :, :num_rows], k, weight)

    def _class_rows(self, q: Tensor, k: Tensor, gate: Tensor | None) -> Tensor:
        """Return softmax rows (B, C, S), averaged over heads (weighted by gates)."""
        rows = self._rows(q, k)
        if gate is None:
            return rows.mean(dim=1)
        # a block with every gate closed contributes nothing
        weight = gate.float() / gate.float().sum().clamp(min=1)
        weighted: Tensor = (rows * weight[:, None, None]).sum(dim=1)
        return weighted

    def remove_closed_heads(self) -> None:
        """Take the heads whose gates are closed out of qkv and proj; drop the gates."""
        if self.gate is None:
            return
        kept = (self.gate.hard() > 0).nonzero().flatten()
        rows = kept[:, None] * self.head_dim + torch.arange(
            self.head_dim, device=kept.device
        )
        columns = rows.flatten()
        width = self.num_heads * self.head_dim
        parts = torch.cat([columns + part * width for part in range(3)])
        self.qkv = _select(self.qkv, parts, dim=0)
        self.proj = _select(self.proj, columns, dim=1)
        self.num_heads = len(kept)
        self.gate = None


def _select(linear: nn.Linear, index: Tensor, dim: int) -> nn.Linear:
    """Return a linear layer with some of the outputs (dim 0) or inputs (dim 1)."""
    weight = linear.weight.detach().index_select(dim, index)
    bias = linear.bias is not None
    with warnings.catch_warnings():
        # a layer without any weights is what a block without heads is left with
        warnings.filterwarnings('ignore', message='Initializing zero-element')
        chosen = nn.Linear(weight.shape[1], weight.shape[0], bias, weight.device)
    chosen.weight = nn.Parameter(weight)
    if bias:
        old = linear.bias.detach()
        chosen.bias = nn.Parameter(old[index] if dim == 0 else old.clone())
    return chosen


class ClassTokenBlock(nn.Module):
    """Pre-LN transformer block around :class:`ClassTokenAttention`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_eps: float,
        head_gates: bool,
    ) -> None:
        """Create the block; parameter names are timm's."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = ClassTokenAttention(dim, num_heads, head_dim, qkv_bias, head_gates)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, x: Tensor, num_rows: int = 0, gated: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, S, D) and class rows (B, num_rows, S) or None."""
        attended, rows = self.attn(self.norm1(x), num_rows, gated)
        x = x + attended
        return x + self.mlp(self.norm2(x)), rows


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
