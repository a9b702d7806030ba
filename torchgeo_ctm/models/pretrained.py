"""Start from a vision transformer that was pre-trained without class tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from ..errors import CheckpointError
from ..network.class_token_vit import ClassTokenViT
from ..network.variants import VARIANTS
from .patch_kernels import COPERNICUS, DOFA, PatchKernel, patch_kernel

#: What a pre-trained transformer cannot have: it starts from its initial values.
NEW_PARTS = (
    'head.',
    'patch_head.',
    'local_head.',
    'reg_token',
    'cls_token',
    'pos_embed',
)
#: Parts of pre-trained networks that the class-token network has no use for.
LEFT_OUT = ('head.', 'fc_norm.', 'mask_token', 'patch_embed_variable.')
#: Tensors that every one of them has, beside its patch embedding.
ESSENTIAL = {'cls_token', 'pos_embed', 'blocks.0.attn.qkv.weight'}
#: Copernicus-FM's tokens for an unknown place, scale and date, added to all positions.
UNKNOWN_PLACE = ('coord', 'scale', 'time')
#: Heads of the public networks by width, where a head is not 64 wide.
HEADS = {1280: 16, 1408: 16, 1664: 16}


@dataclass(frozen=True)
class PlainViT:
    """The weights of a vision transformer in one layout, whatever trained it."""

    #: Blocks and, where it has one, the last norm, by timm's names.
    state: dict[str, Tensor]
    #: CLS token (1, 1, D).
    cls_token: Tensor
    #: Register tokens (1, R, D).
    reg_token: Tensor
    #: Positions of CLS and registers (1, 1 + R, D).
    prefix: Tensor
    #: Positions of the patches (1, N, D).
    positions: Tensor
    kernel: PatchKernel
    #: Epsilon of its norms, if it is not timm's 1e-6.
    norm_eps: float | None = None

    @property
    def width(self) -> int:
        """Token width D."""
        return int(self.cls_token.shape[-1])

    def details(self, patch_size: int) -> dict[str, Any]:
        """Return the arguments of the network that the weights require, beside sizes.

        Args:
            patch_size: Side of the network's patches in pixels.
        """
        found: dict[str, Any] = {}
        if self.reg_token.shape[1]:
            found['reg_tokens'] = int(self.reg_token.shape[1])
        if self.norm_eps is not None:
            found['norm_eps'] = self.norm_eps
        if self.kernel.padding and patch_size == self.kernel.patch_size:
            found['patch_padding'] = self.kernel.padding
        return found

    def sizes(self) -> tuple[str, dict[str, Any]]:
        """Return the named network that is as large, and what differs from it."""
        depth = 1 + max(
            int(name.split('.')[1]) for name in self.state if 'blocks' in name
        )
        hidden = self.state['blocks.0.mlp.fc1.weight'].shape[0]
        sizes = {
            'embed_dim': self.width,
            'depth': depth,
            'num_heads': HEADS.get(self.width, max(1, self.width // 64)),
            'patch_size': self.kernel.patch_size,
        }
        name = next(
            (name for name, known in VARIANTS.items() if known == sizes),
            'ctm_vit_small_patch16_224',
        )
        changes: dict[str, Any] = {
            key: value for key, value in sizes.items() if VARIANTS[name][key] != value
        }
        if hidden != 4 * self.width:
            changes['mlp_ratio'] = hidden / self.width
        if 'blocks.0.attn.qkv.bias' not in self.state:
            changes['qkv_bias'] = False
        return name, changes


def plain_vit(
    state_dict: Mapping[str, Tensor],
    bands: Sequence[str] | None = None,
    wavelengths: Mapping[str, float] | None = None,
) -> PlainViT:
    """Read the state dict of a vision transformer of timm or TorchGeo.

    LayerScale becomes part of the layers before it.

    Args:
        state_dict: The state dict of timm's ``VisionTransformer``, with or without
            registers, of TorchGeo's ``DOFA`` or of its ``CopernicusFM``.
        bands: Names of the bands that it was pre-trained with; None: unknown.
        wavelengths: Centers in micrometers of bands whose names are unknown, for DOFA
            and Copernicus-FM.

    Raises:
        CheckpointError: If it is the state dict of another architecture.
    """
    state = {
        name: value
        for name, value in state_dict.items()
        if isinstance(value, Tensor) and not name.startswith(LEFT_OUT)
    }
    kernel = patch_kernel(state, bands, wavelengths)
    if kernel is None or not ESSENTIAL <= state.keys() or state['cls_token'].ndim != 3:
        raise _other_architecture(state, kernel)
    generated = COPERNICUS + 'weight_generator.fc_weight.weight' in state
    positions = state.pop('pos_embed')
    if generated:
        for part in UNKNOWN_PLACE:
            token = state.pop(f'{part}_token')
            layer = state.pop(f'{part}_fc.weight'), state.pop(f'{part}_fc.bias')
            positions = positions + F.linear(token, *layer)
    cls_token = state.pop('cls_token')
    registers = state.pop('reg_token', None)
    if registers is None:
        # DINOv2's own name
        registers = state.pop('register_tokens', cls_token[:, :0])
    prefix, patches = _split_positions(positions, registers.shape[1])
    blocks = {
        name: value
        for name, value in state.items()
        if not name.startswith((DOFA, COPERNICUS))
    }
    return PlainViT(
        _without_layer_scale(blocks),
        cls_token,
        registers,
        prefix,
        patches,
        kernel,
        1e-5 if generated else None,
    )


def _other_architecture(
    state: Mapping[str, Tensor], kernel: PatchKernel | None
) -> CheckpointError:
    """Return the error for a state dict that is not one of a plain ViT."""
    if 'pos_embed' not in state and any('gamma_1' in n or 'rope' in n for n in state):
        return CheckpointError(
            'the weights are those of a network with rotary position embedding (such as '
            'DINOv3), which class tokens cannot start from. Use weights with a pos_embed.'
        )
    missing = sorted(ESSENTIAL - state.keys())
    missing += [] if kernel else ['patch_embed.proj.weight']
    parts = sorted({name.split('.')[0] for name in state})[:5]
    return CheckpointError(
        f'not a vision transformer: {", ".join(missing) or "cls_token"} is missing. '
        f'The state dict has {", ".join(parts) or "no tensors"}.'
    )


def _split_positions(positions: Tensor, registers: int) -> tuple[Tensor, Tensor]:
    """Return the positions of CLS and registers, 0 if it has none, and of a square grid.

    Raises:
        CheckpointError: If no prefix leaves a square.
    """
    length = positions.shape[1]
    for count in (1, 0, 1 + registers):
        if math.isqrt(max(length - count, 0)) ** 2 == length - count > 0:
            prefix = positions.new_zeros(1, 1 + registers, positions.shape[-1])
            prefix[:, :count] = positions[:, :count]
            return prefix, positions[:, count:]
    raise CheckpointError(
        f'{length} position embeddings are not those of a square grid'
    )


def _without_layer_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return blocks whose last layers hold the LayerScale that follows them."""
    plain = dict(state)
    for scale, layer in (('ls1', 'attn.proj'), ('ls2', 'mlp.fc2')):
        for name in state:
            if name.endswith(f'.{scale}.gamma'):
                gamma = plain.pop(name)
                block = name.removesuffix(f'{scale}.gamma') + layer
                plain[f'{block}.weight'] = plain[f'{block}.weight'] * gamma[:, None]
                plain[f'{block}.bias'] = plain[f'{block}.bias'] * gamma
    return plain


def start_from(model: ClassTokenViT, vit: PlainViT, bands: Sequence[str]) -> list[str]:
    """Put the weights of a vision transformer into a class-token network.

    Every class token becomes the pre-trained CLS token plus its own initial offset;
    the position embedding is resampled to the network's grid; the patch embedding is
    resampled to its patch, and its bands are matched by name.

    Args:
        model: The network, with its initial values.
        vit: The weights.
        bands: Names of the network's bands.

    Returns:
        Names of the network's parameters that keep their initial values.

    Raises:
        CheckpointError: If a tensor is missing, left over, or of another shape.
    """
    ours = model.state_dict()
    width = ours['cls_token'].shape[-1]
    if vit.width != width:
        raise CheckpointError(
            f'pre-trained width is {vit.width}, the network has '
            f'{width}: choose the model of the same size'
        )
    source = dict(vit.state)
    source['pos_embed'] = _positions(vit, model)
    source['cls_token'] = vit.cls_token + ours['cls_token']
    if vit.reg_token.shape[1]:
        source['reg_token'] = vit.reg_token
    source |= _patch_embedding(vit.kernel, model, bands)
    missing = sorted(set(ours) - set(source))
    # encoders that average their patches have no last norm, and a network may have none
    norm = {'norm.weight', 'norm.bias'}
    absent = set() if norm & set(source) else norm
    needed = [name for name in missing if not _is_new(name) and name not in absent]
    unused = set() if norm & set(ours) else norm
    unknown = sorted(set(source) - set(ours) - unused)
    source = {name: value for name, value in source.items() if name in ours}
    shapes = [n for n in source if source[n].shape != ours[n].shape]
    for what, names in (
        ('not in the network', unknown),
        ('missing from the weights', needed),
        ('of another shape', shapes),
    ):
        if names:
            raise CheckpointError(
                f'{len(names)} tensors are {what}, first: {names[0]}; choose the model '
                'with the same depth, heads, registers and biases'
            )
    model.load_state_dict(ours | source)
    return missing


def load_patch_embedding(
    model: ClassTokenViT, kernel: PatchKernel, bands: Sequence[str]
) -> None:
    """Match the patch embedding of a network that has started to other band names.

    Args:
        model: The network.
        kernel: Patch embedding of the weights that it started from.
        bands: Names of its bands.
    """
    model.load_state_dict(_patch_embedding(kernel, model, bands), strict=False)


def _is_new(name: str) -> bool:
    """Return whether a parameter cannot have been pre-trained."""
    return name.startswith(NEW_PARTS) or name.endswith('gate.log_a')


def _patch_embedding(
    kernel: PatchKernel, model: ClassTokenViT, bands: Sequence[str]
) -> dict[str, Tensor]:
    """Return the patch embedding for the network's bands and patch size.

    Raises:
        CheckpointError: If the network has convolutions in its place.
    """
    if not isinstance(model.patch_embed.proj, torch.nn.Conv2d):
        raise CheckpointError(
            "the weights have a linear patch embedding. Set stem='patch' instead of "
            "'conv'."
        )
    weight, bias = kernel.for_bands(bands)
    size = [model.patch_size, model.patch_size]
    if list(weight.shape[-2:]) != size:
        weight = resample_patch_embed(weight, size)
    return {'patch_embed.proj.weight': weight, 'patch_embed.proj.bias': bias}


def _positions(vit: PlainViT, model: ClassTokenViT) -> Tensor:
    """Return the position embedding in the network's slots and grid."""
    patches = vit.positions
    if patches.shape[1] != model.grid_size[0] * model.grid_size[1]:
        patches = resample_abs_pos_embed(
            patches, list(model.grid_size), num_prefix_tokens=0
        )
    classes = model.num_classes
    registers = vit.prefix[:, 1:]
    if not registers.shape[1]:
        registers = model.pos_embed.detach()[:, classes : model.num_prefix_tokens]
    cls = vit.prefix[:, :1].expand(-1, classes, -1)
    return torch.cat([cls, registers, patches], dim=1)
