"""Attention that shows its class rows, and the block around it."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hard_concrete import HardConcreteGate
from .layers import Mlp
from .linear import Projection


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
        self.qkv = _projection(dim, 3 * num_heads * head_dim, qkv_bias)
        self.proj = _projection(num_heads * head_dim, dim)
        self.gate = HardConcreteGate(num_heads) if head_gates else None

    def rows_by_head(self, x: Tensor, num_rows: int) -> Tensor:
        """Return the first tokens' softmax rows of every head, (B, heads, rows, S)."""
        q, k, _ = self._queries_keys_values(x)
        return self._rows(q[:, :, :num_rows], k)

    def _queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens (B, S, D), (B, heads, S, d)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _rows(self, q: Tensor, k: Tensor) -> Tensor:
        """Return softmax rows (B, heads, C, S), float32."""
        q = q * self.head_dim**-0.5
        # a batched product over heads would first copy every key
        pairs = zip(q.unbind(1), k.unbind(1), strict=True)
        scores = torch.stack([a @ b.transpose(-2, -1) for a, b in pairs], dim=1)
        rows: Tensor = scores.softmax(dim=-1, dtype=torch.float32)
        return rows

    def forward(
        self,
        x: Tensor,
        num_rows: int = 0,
        gated: bool = True,
        only_first: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: Tokens (B, S, D).
            num_rows: How many of the first tokens' attention rows to return.
            gated: Weight the heads of the returned rows by their gates.
            only_first: How many of the first tokens attend to all the others and are
                returned (at least *num_rows*); None: every token.

        Returns:
            Tokens (B, S, D) or (B, only_first, D), and the softmax rows averaged over
            heads (B, num_rows, S) float32, or None without rows.
        """
        rows: Tensor | None
        if not self.num_heads:
            # every head was removed: what is left of attention is the bias
            rows = x.new_zeros(x.shape[0], num_rows, x.shape[1], dtype=torch.float32)
            return self.proj(x[:, :only_first, :0]), rows if num_rows else None
        gate = self.gate() if self.gate is not None else None
        if only_first is None:
            q, k, v = self._queries_keys_values(x)
            out = F.scaled_dot_product_attention(q, k, v)
            rows = self._rows(q[:, :, :num_rows], k) if num_rows else None
        else:
            out, rows = self._first_tokens(x, only_first)
            rows = rows[:, :, :num_rows]
        if gate is not None:
            # a scalar per head commutes with the sum over values
            out = out * gate.to(out.dtype)[:, None, None]
        out = self.proj(out.transpose(1, 2).flatten(2))
        if not num_rows or rows is None:
            return out, None
        return out, _mean_over_heads(rows, gate if gated else None)

    def _first_tokens(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Attend for the first tokens only, without keys and values of all tokens.

        A query meets a key in ``q·(W x)``, which is ``(q W)·x``: a few queries are
        projected back instead of every token forth, and values alike. The bias of the
        keys shifts a whole row, which softmax ignores.

        Returns:
            Values (B, heads, count, d), and softmax rows (B, heads, count, S) float32.
        """
        if type(self.qkv) is not Projection:
            # quantised or adapted: its weight is not all that it does
            q, k, v = self._queries_keys_values(x)
            rows = self._rows(q[:, :, :count], k)
            return rows.to(v.dtype) @ v, rows
        heads = (self.num_heads, self.head_dim)
        to_q, to_k, to_v = self.qkv.weight.view(3, *heads, -1).unbind(0)
        q = torch.einsum('bce,hde->bhcd', x[:, :count], to_q)
        bias = None if self.qkv.bias is None else self.qkv.bias.view(3, -1, 1, heads[1])
        if bias is not None:
            q = q + bias[0]
        back = torch.einsum('bhcd,hde->bhce', q * self.head_dim**-0.5, to_k)
        # flat over heads and tokens, so that one product per image reads x once
        scores = (back.flatten(1, 2) @ x.transpose(-2, -1)).view(*back.shape[:3], -1)
        rows = scores.softmax(dim=-1, dtype=torch.float32)
        mixed = (rows.to(scores.dtype).flatten(1, 2) @ x).view(back.shape)
        out = torch.einsum('bhce,hde->bhcd', mixed, to_v)
        return (out if bias is None else out + bias[2]), rows

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


def _mean_over_heads(rows: Tensor, gate: Tensor | None) -> Tensor:
    """Return rows (B, heads, C, S) averaged over heads, weighted by their gates."""
    if gate is None:
        return rows.mean(dim=1)
    # a block with every gate closed contributes nothing
    weight = gate.float() / gate.float().sum().clamp(min=1)
    weighted: Tensor = (rows * weight[:, None, None]).sum(dim=1)
    return weighted


def _projection(
    inputs: int, outputs: int, bias: bool = True, device: torch.device | None = None
) -> Projection:
    """Return a linear layer, which a block without heads leaves without weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Initializing zero-element')
        return Projection(inputs, outputs, bias, device)


def _select(linear: nn.Linear, index: Tensor, dim: int) -> Projection:
    """Return a linear layer with some of the outputs (dim 0) or inputs (dim 1)."""
    weight = linear.weight.detach().index_select(dim, index)
    bias = linear.bias is not None
    outputs, inputs = weight.shape
    chosen = _projection(inputs, outputs, bias, weight.device)
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
        hidden = int(dim * mlp_ratio)
        self.mlp = Mlp(dim, hidden)
        self.mlp.fc1 = Projection(dim, hidden)
        self.mlp.fc2 = Projection(hidden, dim)

    def forward(
        self,
        x: Tensor,
        num_rows: int = 0,
        gated: bool = True,
        only_first: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, S or only_first, D) and class rows (B, num_rows, S)."""
        attended, rows = self.attn(self.norm1(x), num_rows, gated, only_first)
        x = x[:, :only_first] + attended
        return x + self.mlp(self.norm2(x)), rows
