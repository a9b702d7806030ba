"""Import the state dicts of the paper's released network (METHOD, section 7)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..network.class_token_vit import ClassTokenViT

#: Parts of the reference that exist and are never used, or never trained.
UNUSED = ('norm.', 'head.', 'classifier_head_test.')


def _tensors(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names of the bare network, without Lightning's prefix.

    Raises:
        CheckpointError: If they are not the reference's.
    """
    tensors = {name.removeprefix('model.'): value for name, value in state_dict.items()}
    needed = (
        'mct.cls_token',
        'mct.register_token',
        'mct.pos_embed',
        'mct.patch_embed.proj.weight',
        'mct.blocks.0.attn.qkv.weight',
        'classifier_head_test.weight',
    )
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(
            f"weights of the paper's network are missing: {', '.join(missing)}."
        )
    return tensors


def reference_options(
    state_dict: Mapping[str, Tensor],
    num_heads: int = 16,
    img_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Read every argument of :class:`ClassTokenViT` from the reference's tensors.

    Args:
        state_dict: The reference's tensors, with or without the prefix ``model.``.
        num_heads: Heads of a block; not visible in the tensors without gates.
        img_size: Height and width in pixels it was trained with; needed only where
            the position embedding does not belong to a square.

    Raises:
        CheckpointError: If the tensors are not the reference's, or contradict
            *num_heads* or *img_size*.
    """
    tensors = _tensors(state_dict)
    _, classes, width = tensors['mct.cls_token'].shape
    registers = tensors['mct.register_token'].shape[1]
    _, bands, patch, _ = tensors['mct.patch_embed.proj.weight'].shape
    patches = tensors['mct.pos_embed'].shape[1] - classes - registers
    gate = tensors.get('mct.blocks.0.attn.gate.log_a')
    if gate is not None and gate.numel() != num_heads:
        raise CheckpointError(
            f'Expected num_heads={gate.numel()}, the number of gates, got {num_heads}.'
        )
    if width % num_heads:
        raise CheckpointError(
            f'The width {width} is not a multiple of num_heads={num_heads}.'
        )
    if img_size is None:
        side = math.isqrt(patches) * patch
        img_size = (side, side)
    if (img_size[0] // patch) * (img_size[1] // patch) != patches:
        raise CheckpointError(
            f'{patches} patches of {patch} px do not make {img_size[0]} × '
            f'{img_size[1]} px. Pass the img_size that the network was trained with.'
        )
    depth = 1 + max(
        int(name.split('.')[2]) for name in tensors if name.startswith('mct.blocks.')
    )
    hidden = tensors['mct.blocks.0.mlp.fc1.weight'].shape[0]
    return {
        'img_size': img_size,
        'patch_size': patch,
        'in_chans': bands,
        'num_classes': classes,
        'embed_dim': width,
        'depth': depth,
        'num_heads': num_heads,
        'mlp_ratio': hidden / width,
        'qkv_bias': 'mct.blocks.0.attn.qkv.bias' in tensors,
        'norm_eps': 1e-5,
        'reg_tokens': registers,
        'head': 'joint',
        'final_norm': False,
        'patch_head': False,
        'head_gates': gate is not None,
    }


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reorder the reference's tensors into :class:`ClassTokenViT`'s.

    Raises:
        CheckpointError: If the tensors are not the reference's.
    """
    tensors = _tensors(state_dict)
    classes = tensors['mct.cls_token'].shape[1]
    registers = tensors['mct.register_token'].shape[1]
    ours = {}
    for name, value in tensors.items():
        short = name.removeprefix('mct.')
        if short == name or short.startswith(UNUSED):
            continue
        value = value.flatten() if short.endswith('log_a') else value
        ours[short.replace('register_token', 'reg_token')] = value
    # reference: class, patches, register; ours: class, register, patches
    first, middle, last = ours['pos_embed'].tensor_split(
        [classes, ours['pos_embed'].shape[1] - registers], dim=1
    )
    ours['pos_embed'] = torch.cat([first, last, middle], dim=1)
    for part in ('weight', 'bias'):
        ours[f'head.fc.{part}'] = tensors[f'classifier_head_test.{part}']
    return ours


def from_reference(
    state_dict: Mapping[str, Tensor],
    num_heads: int = 16,
    img_size: tuple[int, int] | None = None,
) -> ClassTokenViT:
    """Build the reference's network from its state dict, pruned or not.

    Args:
        state_dict: The reference's tensors, with or without the prefix ``model.``.
        num_heads: Heads of a block (the released models have 16).
        img_size: Height and width in pixels, for training images that were no square.

    Returns:
        A network with the reference's outputs, in evaluation mode.

    Raises:
        CheckpointError: If the tensors are not the reference's, or are incomplete.
    """
    model = ClassTokenViT(**reference_options(state_dict, num_heads, img_size))
    try:
        model.load_state_dict(convert_state_dict(state_dict))
    except (KeyError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(f'incomplete state dict: {reason}') from error
    return model.eval()
