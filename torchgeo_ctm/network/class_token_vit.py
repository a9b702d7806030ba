"""A vision transformer with one token per class (paper, section 3)."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import SettingError
from .blocks import ClassTokenAttention, ClassTokenBlock
from .hard_concrete import HardConcreteGate
from .heads import JointHead, PatchHead, TokenHead
from .layers import PatchEmbed, resample_positions, trunc_normal_
from .local import LocalHead
from .stem import ConvStem


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
        patch_head: bool | Literal['tokens', 'local'] = True,
        head_gates: bool = False,
        kept_heads: Sequence[int] | None = None,
        stem: Literal['patch', 'conv'] = 'patch',
        patch_activation: Literal['sigmoid', 'softmax'] = 'sigmoid',
        local_width: int = 64,
        local_depth: int = 2,
        patch_padding: int = 0,
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
            patch_head: Where patch logits come from: 'tokens' (or True), a linear layer
                on the patch tokens; 'local', a small convolutional network on the
                image, :class:`~torchgeo_ctm.network.local.LocalHead`; False: there are
                none.
            head_gates: Add a hard-concrete gate to every head.
            kept_heads: How many of *num_heads* each block still has after pruning.
            stem: How patches become tokens: 'patch', one linear layer (reference), or
                'conv', overlapping convolutions (Xiao et al. 2021), which learn texture
                from far fewer chips.
            patch_activation: 'sigmoid': patches are asked for each class by itself;
                'softmax': classes compete for a patch, as land cover does. A class that
                every image holds, which has no image without it to learn from, then
                still learns where it is not.
            local_width: Channels of the local head.
            local_depth: Residual convolutions of the local head.
            patch_padding: Zeros around the image in pixels, which shift the patches up
                and left: 1 for the weights of DOFA and Copernicus-FM.

        Raises:
            SettingError: If a number is too small, *embed_dim*, *img_size* or, with a
                'conv' stem, *patch_size* cannot be divided as needed, or an option is
                unknown.
        """
        super().__init__()
        for name, count, least in (
            ('num_classes', num_classes, 1),
            ('depth', depth, 1),
            ('num_heads', num_heads, 1),
            ('reg_tokens', reg_tokens, 0),
        ):
            if count < least:
                raise SettingError(f'{name}={count}, expected {least} or more.')
        if embed_dim % num_heads:
            raise SettingError(
                f'embed_dim={embed_dim} is not a multiple of num_heads={num_heads}. Did '
                f'you mean {max(1, round(embed_dim / num_heads)) * num_heads}?'
            )
        if head not in ('joint', 'token'):
            raise SettingError(f"Unknown head {head!r}, expected 'joint' or 'token'.")
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
        if not 0 <= 2 * patch_padding < patch_size:
            raise SettingError(
                f'patch_padding must be 0 to less than half of patch_size={patch_size}, '
                f'got {patch_padding}.'
            )
        self.patch_embed = PatchEmbed(
            img_size, patch_size, in_chans, embed_dim, patch_padding
        )
        if stem not in ('patch', 'conv'):
            raise SettingError(f"Unknown stem {stem!r}, expected 'patch' or 'conv'.")
        if stem == 'conv':
            self.patch_embed.proj = ConvStem(in_chans, embed_dim, patch_size)
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
        self.patch_head: PatchHead | None = None
        self.local_head: LocalHead | None = None
        if patch_head == 'local':
            if patch_activation != 'sigmoid':
                raise SettingError(
                    f"patch_activation={patch_activation!r} requires patch_head='tokens',"
                    " got 'local'. Use patches: {compete: true} of the task."
                )
            self.local_head = LocalHead(in_chans, num_classes, local_width, local_depth)
            self.local_head.check_size(*self.patch_embed.img_size)
        elif patch_head in (True, 'tokens'):
            self.patch_head = PatchHead(embed_dim, num_classes, patch_activation)
        elif patch_head:
            raise SettingError(
                f"Unknown patch_head {patch_head!r}, expected 'tokens' or 'local'."
            )
        self._initialize()

    def _initialize(self) -> None:
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
            fault = 'not a multiple of' if height and width else 'smaller than'
            raise SettingError(
                f'An image of {height} × {width} px is {fault} patch_size={patch}. Did you '
                f'mean {fits[0]} × {fits[1]}?'
            )
        return height // patch, width // patch

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn an image (B, bands, H, W) into tokens (B, S, D) and its grid."""
        grid = self._grid(x.shape[-2], x.shape[-1])
        if x.device.type == 'cpu':
            # the processor's convolution is faster, and leaves tokens in their order
            x = x.contiguous(memory_format=torch.channels_last)
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1)
        tokens = torch.cat([prefix.expand(x.shape[0], -1, -1), patches], dim=1)
        positions: Tensor = self.pos_embed
        if grid != self.grid_size:
            positions = resample_positions(
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
        self, x: Tensor, maps: bool = False, gated: bool = True, patches: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Run the blocks.

        Args:
            x: Scaled image (B, bands, H, W).
            maps: Also return the class-to-patch attention of every block.
            gated: Weight heads by their gates in those maps.
            patches: Return every token; otherwise the last block computes the class
                tokens alone.

        Returns:
            Final tokens (B, S, D) or (B, C, D), and attention (B, L, C, h, w) or None.
        """
        tokens, grid = self._embed(x)
        rows = []
        count = self.num_classes if maps else 0
        for index, block in enumerate(self.blocks, start=1):
            last = index == len(self.blocks)
            options = (count, gated, None if patches or not last else self.num_classes)
            if self.grad_checkpointing and self.training:
                tokens, row = checkpoint(block, tokens, *options, use_reentrant=False)
            else:
                tokens, row = block(tokens, *options)
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
            For each block (B, heads, C, h, w), float32, rows normalized over the whole
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
        self, tokens: Tensor, grid: tuple[int, int] | None, drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Turn final tokens into image and patch logits.

        Args:
            tokens: Final tokens (B, S, D); without *grid* (B, C, D) will do.
            grid: Patch grid (h, w), or None where patch logits are not needed.
            drop: Class tokens to set to zero (B, C) bool (masking), or None.

        Returns:
            Logits (B, C), and patch logits (B, C, h, w) or None without a patch head.
        """
        class_tokens = tokens[:, : self.num_classes]
        if drop is not None:
            class_tokens = class_tokens.masked_fill(drop.unsqueeze(-1), 0)
        patch_logits = None
        if self.patch_head is not None and grid is not None:
            patches = self.patch_head(tokens[:, self.num_prefix_tokens :])
            patch_logits = patches.transpose(1, 2).unflatten(-1, grid)
        return self.head(class_tokens), patch_logits

    @property
    def field_of_view(self) -> int | None:
        """Side in pixels of what a patch logit depends on; None: the whole image."""
        return None if self.local_head is None else self.local_head.field_of_view

    def local_logits(self, x: Tensor) -> Tensor:
        """Return the patch logits of the local head alone, without the transformer.

        Args:
            x: Scaled image (B, bands, H, W).

        Returns:
            Patch logits (B, C, H/4, W/4).

        Raises:
            SettingError: If the network has no local head, or height or width is not a
                multiple of 4 px.
        """
        if self.local_head is None:
            raise SettingError("local_logits requires patch_head='local'.")
        logits: Tensor = self.local_head(x)
        return logits

    def _grid_for_logits(self, x: Tensor, patches: bool) -> tuple[int, int] | None:
        """Return the grid of patch logits from tokens, or None where there are none."""
        if not patches or self.patch_head is None:
            return None
        return self._grid(x.shape[-2], x.shape[-1])

    def forward_logits(
        self, x: Tensor, drop: Tensor | None = None, patches: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C) and patch logits (B, C, h, w) or None, without maps.

        Args:
            x: Scaled image (B, bands, H, W).
            drop: Class tokens to set to zero before the head, (B, C) bool.
            patches: Whether patch logits are asked for.
        """
        grid = self._grid_for_logits(x, patches)
        tokens, _ = self.forward_features(x, patches=grid is not None)
        logits, patch_logits = self.forward_head(tokens, grid, drop)
        if patches and self.local_head is not None:
            patch_logits = self.local_head(x)
        return logits, patch_logits

    def forward(self, x: Tensor, drop: Tensor | None = None) -> Tensor:
        """Return class logits (B, C) of scaled images (B, bands, H, W).

        Args:
            x: Scaled image.
            drop: Class tokens to set to zero before the head, (B, C) bool.
        """
        return self.forward_logits(x, drop, patches=False)[0]

    def forward_attention(
        self,
        x: Tensor,
        gated: bool = True,
        drop: Tensor | None = None,
        patches: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits, the attention of every block, and patch logits.

        Args:
            x: Scaled image (B, bands, H, W).
            gated: Weight heads by their gates (no effect without gates).
            drop: Class tokens to set to zero before the head, (B, C) bool.
            patches: Whether patch logits are asked for; without them the last block
                computes the class tokens alone.

        Returns:
            Logits (B, C); class-to-patch attention, averaged over heads
            (B, L, C, h, w), float32, rows normalized over the whole sequence; patch
            logits (B, C, h, w), or None if not asked for or without a patch head. With
            a local head their grid has 4 px, whatever the patches of the transformer.
        """
        grid = self._grid_for_logits(x, patches)
        tokens, attention = self.forward_features(x, True, gated, grid is not None)
        logits, patch_logits = self.forward_head(tokens, grid, drop)
        if patches and self.local_head is not None:
            patch_logits = self.local_head(x)
        if attention is None:
            raise RuntimeError('forward_features returned no maps')
        return logits, attention, patch_logits
