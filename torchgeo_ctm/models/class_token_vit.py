"""A vision transformer with one token per class (paper, section 3)."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from timm.layers import Mlp, PatchEmbed, resample_abs_pos_embed, trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchgeo.models import api as torchgeo_api

from ..errors import SettingError
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


class ClassTokenViT(nn.Module):
    """Vision transformer with C class tokens, registers and N patch tokens.

    Sequence: class tokens, register tokens, patch tokens (timm's order: prefix
    first), with one learned position embedding for every slot. Parameter names are
    timm's wherever timm has the same part.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 13,
        num_classes: int = 8,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        reg_tokens: int = 1,
        head: Literal['joint', 'token'] = 'joint',
        final_norm: bool = True,
        patch_head: bool = True,
        head_gates: bool = False,
        kept_heads: Sequence[int] | None = None,
    ) -> None:
        """Create the network.

        Args:
            img_size: Chip size in pixels, side or (height, width); other multiples of
                *patch_size* are accepted later, the position embedding is resampled.
            patch_size: Side of a patch in pixels.
            in_chans: Number of bands.
            num_classes: Number of classes C, hence of class tokens.
            embed_dim: Token width D.
            depth: Number of blocks L.
            num_heads: Heads of each block.
            mlp_ratio: Hidden width of the MLP over *embed_dim*.
            qkv_bias: Whether queries, keys and values have a bias (reference: no).
            norm_eps: Epsilon of every LayerNorm (reference: 1e-5).
            reg_tokens: Number of register tokens.
            head: 'joint' (reference) or 'token'.
            final_norm: Apply the last LayerNorm (reference: never applied).
            patch_head: Add a linear layer from patch tokens to patch logits.
            head_gates: Add a hard-concrete gate to every head.
            kept_heads: How many of *num_heads* each block still has after pruning.

        Raises:
            SettingError: If *embed_dim* or *img_size* cannot be divided as needed.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise SettingError(
                f'embed_dim={embed_dim} is not a multiple of num_heads={num_heads}; '
                f'nearest: {max(1, round(embed_dim / num_heads)) * num_heads}'
            )
        if head not in ('joint', 'token'):
            raise SettingError(f"head={head!r} is unknown; needed: 'joint' or 'token'")
        heads = [num_heads] * depth if kept_heads is None else list(kept_heads)
        if len(heads) != depth or not all(0 <= kept <= num_heads for kept in heads):
            raise SettingError(
                f'kept_heads={heads} must name 0 to {num_heads} heads for each of '
                f'{depth} blocks'
            )
        self.grad_checkpointing = False
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.patch_size = patch_size
        self.num_prefix_tokens = num_classes + reg_tokens
        self.patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, strict_img_size=False
        )
        self.grid_size: tuple[int, int] = self._grid(*self.patch_embed.img_size)
        self.cls_token = nn.Parameter(torch.empty(1, num_classes, embed_dim))
        self.reg_token = nn.Parameter(torch.zeros(1, reg_tokens, embed_dim))
        slots = self.num_prefix_tokens + self.grid_size[0] * self.grid_size[1]
        self.pos_embed = nn.Parameter(torch.empty(1, slots, embed_dim))
        self.blocks = nn.ModuleList(
            ClassTokenBlock(
                embed_dim,
                kept,
                embed_dim // num_heads,
                mlp_ratio,
                qkv_bias,
                norm_eps,
                head_gates,
            )
            for kept in heads
        )
        self.norm = (
            nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm else nn.Identity()
        )
        head_class = JointHead if head == 'joint' else TokenHead
        self.head = head_class(embed_dim, num_classes)
        self.patch_head = nn.Linear(embed_dim, num_classes) if patch_head else None
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal 0.02 for tokens, positions and linear layers."""
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid (h, w) of an image, or say which sizes would do."""
        patch = self.patch_size
        if height % patch or width % patch or not height or not width:
            fits = [max(1, round(side / patch)) * patch for side in (height, width)]
            raise SettingError(
                f'image of {height} × {width} px is not a multiple of '
                f'patch_size={patch}; nearest: {fits[0]} × {fits[1]}'
            )
        return height // patch, width // patch

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn an image (B, bands, H, W) into tokens (B, S, D) and its grid."""
        grid = self._grid(x.shape[-2], x.shape[-1])
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1)
        tokens = torch.cat([prefix.expand(x.shape[0], -1, -1), patches], dim=1)
        positions = self.pos_embed
        if grid != self.grid_size:
            positions = resample_abs_pos_embed(
                positions, grid, self.grid_size, self.num_prefix_tokens
            )
        return tokens + positions, grid

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that never decay (timm's convention)."""
        return {'cls_token', 'reg_token', 'pos_embed'}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, in timm's convention."""
        return {
            'stem': r'^cls_token|^reg_token|^pos_embed|^patch_embed',
            'blocks': [(r'^blocks\.(\d+)', None), (r'^norm', (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: recompute each block in the backward pass."""
        self.grad_checkpointing = enable

    @property
    def attentions(self) -> list[ClassTokenAttention]:
        """The attention of every block."""
        return [cast(ClassTokenBlock, block).attn for block in self.blocks]

    @property
    def gates(self) -> list[HardConcreteGate]:
        """The gates of every block; empty without gates."""
        return [attn.gate for attn in self.attentions if attn.gate is not None]

    def remove_pruned_heads(self) -> list[int]:
        """Take closed heads out of the network: same outputs, fewer operations.

        Returns:
            How many heads each block still has, the argument *kept_heads* of a
            network that loads the state dict.
        """
        for attn in self.attentions:
            attn.remove_closed_heads()
        return [attn.num_heads for attn in self.attentions]

    def forward_features(
        self, x: Tensor, maps: bool = False, gated: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Run the blocks.

        Args:
            x: Scaled image (B, bands, H, W).
            maps: Also return the class-to-patch attention of every block.
            gated: Weight heads by their gates in those maps.

        Returns:
            Final tokens (B, S, D), and attention (B, L, C, h, w) or None.
        """
        tokens, grid = self._embed(x)
        rows = []
        for block in self.blocks:
            count = self.num_classes if maps else 0
            if self.grad_checkpointing and self.training:
                tokens, row = checkpoint(
                    block, tokens, count, gated, use_reentrant=False
                )
            else:
                tokens, row = block(tokens, count, gated)
            rows.append(row)
        attention = None
        if maps:
            attention = torch.stack(rows, dim=1)[..., self.num_prefix_tokens :]
            attention = attention.reshape(*attention.shape[:-1], *grid)
        return self.norm(tokens), attention

    def attention_by_head(self, x: Tensor) -> list[Tensor]:
        """Return the class-to-patch attention of every head of every block.

        Args:
            x: Scaled image (B, bands, H, W).

        Returns:
            For each block (B, heads, C, h, w), float32, rows normalised over the whole
            sequence; blocks may have different numbers of heads after pruning.
        """
        tokens, grid = self._embed(x)
        maps = []
        for module in self.blocks:
            block = cast(ClassTokenBlock, module)
            rows = block.attn.rows_by_head(block.norm1(tokens), self.num_classes)
            rows = rows[..., self.num_prefix_tokens :]
            maps.append(rows.reshape(*rows.shape[:-1], *grid))
            tokens, _ = block(tokens)
        return maps

    def forward_head(
        self, tokens: Tensor, grid: tuple[int, int], drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Turn final tokens into image and patch logits.

        Args:
            tokens: Final tokens (B, S, D).
            grid: Patch grid (h, w).
            drop: Class tokens to set to zero (B, C) bool (masking), or None.

        Returns:
            Logits (B, C), and patch logits (B, C, h, w) or None without a patch head.
        """
        class_tokens = tokens[:, : self.num_classes]
        if drop is not None:
            class_tokens = class_tokens.masked_fill(drop.unsqueeze(-1), 0)
        patch_logits = None
        if self.patch_head is not None:
            patches = self.patch_head(tokens[:, self.num_prefix_tokens :])
            patch_logits = patches.transpose(1, 2).unflatten(-1, grid)
        return self.head(class_tokens), patch_logits

    def forward_logits(
        self, x: Tensor, drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C) and patch logits (B, C, h, w) or None, without maps."""
        tokens, _ = self.forward_features(x)
        return self.forward_head(tokens, self._grid(x.shape[-2], x.shape[-1]), drop)

    def forward(self, x: Tensor, drop: Tensor | None = None) -> Tensor:
        """Return class logits (B, C) of scaled images (B, bands, H, W).

        Args:
            x: Scaled image.
            drop: Class tokens to set to zero before the head, (B, C) bool.
        """
        return self.forward_logits(x, drop)[0]

    def forward_attention(
        self, x: Tensor, gated: bool = True, drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits, the attention of every block, and patch logits.

        Args:
            x: Scaled image (B, bands, H, W).
            gated: Weight heads by their gates (no effect without gates).
            drop: Class tokens to set to zero before the head, (B, C) bool.

        Returns:
            Logits (B, C); class-to-patch attention, averaged over heads
            (B, L, C, h, w), float32, rows normalised over the whole sequence; patch
            logits (B, C, h, w) or None.
        """
        tokens, attention = self.forward_features(x, maps=True, gated=gated)
        grid = self._grid(x.shape[-2], x.shape[-1])
        logits, patch_logits = self.forward_head(tokens, grid, drop)
        if attention is None:
            raise RuntimeError('forward_features returned no maps')
        return logits, attention, patch_logits


_SIZES = {
    'tiny': {'embed_dim': 192, 'depth': 12, 'num_heads': 3},
    'small': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'base': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
}

default_cfgs = generate_default_cfgs(
    {
        f'ctm_vit_{size}_patch{patch}_224': {
            'url': '',
            'num_classes': 8,
            'input_size': (13, 224, 224),
            'pool_size': None,
            'first_conv': 'patch_embed.proj',
            'classifier': 'head',
        }
        for size in _SIZES
        for patch in (8, 16)
    }
)

__all__ = ['ClassTokenViT']  # a list: timm's register_model appends to it


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ClassTokenViT:
    """Build one registered variant through timm's own builder."""
    _, _, size, patch, _ = variant.split('_')
    sizes = _SIZES[size] | {'patch_size': int(patch.removeprefix('patch'))}
    model: ClassTokenViT = build_model_with_cfg(
        ClassTokenViT, variant, pretrained, **(sizes | kwargs)
    )
    return model


@register_model
def ctm_vit_tiny_patch8_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Tiny (192 wide, 12 blocks, 3 heads), patches of 8 px."""
    return _create('ctm_vit_tiny_patch8_224', pretrained, **kwargs)


@register_model
def ctm_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Tiny (192 wide, 12 blocks, 3 heads), patches of 16 px."""
    return _create('ctm_vit_tiny_patch16_224', pretrained, **kwargs)


@register_model
def ctm_vit_small_patch8_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Small (384 wide, 12 blocks, 6 heads), patches of 8 px."""
    return _create('ctm_vit_small_patch8_224', pretrained, **kwargs)


@register_model
def ctm_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Small (384 wide, 12 blocks, 6 heads), patches of 16 px."""
    return _create('ctm_vit_small_patch16_224', pretrained, **kwargs)


@register_model
def ctm_vit_base_patch8_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Base (768 wide, 12 blocks, 12 heads), patches of 8 px."""
    return _create('ctm_vit_base_patch8_224', pretrained, **kwargs)


@register_model
def ctm_vit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Base (768 wide, 12 blocks, 12 heads), patches of 16 px."""
    return _create('ctm_vit_base_patch16_224', pretrained, **kwargs)


#: Every registered name and its builder.
BUILDERS = {
    builder.__name__: builder
    for builder in (
        ctm_vit_tiny_patch8_224,
        ctm_vit_tiny_patch16_224,
        ctm_vit_small_patch8_224,
        ctm_vit_small_patch16_224,
        ctm_vit_base_patch8_224,
        ctm_vit_base_patch16_224,
    )
}
# TorchGeo has no public registration; its get_model reads this dictionary.
torchgeo_api._model.update(BUILDERS)
