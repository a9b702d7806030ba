"""Start from a vision transformer that was pre-trained without class tokens."""

from collections.abc import Mapping, Sequence

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from ..errors import CheckpointError
from ..scaling import band_key
from .class_token_vit import ClassTokenViT

#: What a pre-trained transformer cannot have: it starts from its initial values.
NEW_PARTS = (
    'head.',
    'patch_head.',
    'local_head.',
    'reg_token',
    'cls_token',
    'pos_embed',
)


def load_pretrained(
    model: ClassTokenViT,
    state_dict: Mapping[str, Tensor],
    bands: Sequence[str],
    source_bands: Sequence[str] | None = None,
) -> list[str]:
    """Put the weights of a timm vision transformer into a class-token network.

    Every class token becomes the pre-trained CLS token plus its own initial offset;
    the position embedding is resampled to the network's grid; the patch embedding is
    resampled to its patch, and its bands are matched by name.

    Args:
        model: The network, with its initial values.
        state_dict: A timm ``vit_*`` state dict: one CLS token, no registers.
        bands: Names of the network's bands.
        source_bands: Names of the bands it was pre-trained with; None: the same bands,
            in the same order.

    Returns:
        Names of the network's parameters that keep their initial values.

    Raises:
        CheckpointError: If a tensor is missing, left over, or of another shape.
    """
    source = {
        name: value
        for name, value in state_dict.items()
        if not name.startswith(('head.', 'fc_norm.'))
    }
    for name in ('cls_token', 'pos_embed', 'patch_embed.proj.weight'):
        if name not in source:
            raise CheckpointError(f'not a vision transformer: {name} is missing')
    ours = model.state_dict()
    width = ours['cls_token'].shape[-1]
    if source['cls_token'].shape[-1] != width:
        raise CheckpointError(
            f'pre-trained width is {source["cls_token"].shape[-1]}, the network has '
            f'{width}: choose the model of the same size'
        )
    source['patch_embed.proj.weight'] = _patch_embedding(
        source['patch_embed.proj.weight'], model, bands, source_bands
    )
    source['pos_embed'] = _positions(source, model)
    source['cls_token'] = source['cls_token'] + ours['cls_token']
    unknown = sorted(set(source) - set(ours))
    missing = sorted(set(ours) - set(source))
    needed = [name for name in missing if not _is_new(name)]
    shapes = [n for n in source if n in ours and source[n].shape != ours[n].shape]
    for what, names in (
        ('not in the network', unknown),
        ('missing from the weights', needed),
        ('of another shape', shapes),
    ):
        if names:
            raise CheckpointError(
                f'{len(names)} tensors are {what}, first: {names[0]}; choose the model '
                'with the same depth, heads and biases'
            )
    model.load_state_dict(ours | source)
    return missing


def _is_new(name: str) -> bool:
    """Return whether a parameter cannot have been pre-trained."""
    return name.startswith(NEW_PARTS) or name.endswith('gate.log_a')


def _patch_embedding(
    weight: Tensor,
    model: ClassTokenViT,
    bands: Sequence[str],
    source_bands: Sequence[str] | None,
) -> Tensor:
    """Return the patch embedding for the network's bands and patch size.

    A band that was not there in pre-training takes the mean of those that were.
    """
    if source_bands is None:
        if weight.shape[1] != len(bands):
            raise CheckpointError(
                f'the weights take {weight.shape[1]} bands, the network {len(bands)}, '
                'and the names of the former are unknown'
            )
    else:
        keys = [band_key(band) for band in source_bands]
        if len(keys) != weight.shape[1]:
            raise CheckpointError(
                f'{len(keys)} band names for weights of {weight.shape[1]} bands'
            )
        mean = weight.mean(dim=1)
        columns = [
            weight[:, keys.index(band_key(b))] if band_key(b) in keys else mean
            for b in bands
        ]
        weight = torch.stack(columns, dim=1)
    size = [model.patch_size, model.patch_size]
    if list(weight.shape[-2:]) != size:
        resampled: Tensor = resample_patch_embed(weight, size)
        return resampled
    return weight


def _positions(source: Mapping[str, Tensor], model: ClassTokenViT) -> Tensor:
    """Return the position embedding in the network's slots and grid."""
    cls, patches = source['pos_embed'].tensor_split([1], dim=1)
    if patches.shape[1] != model.grid_size[0] * model.grid_size[1]:
        patches = resample_abs_pos_embed(
            patches, list(model.grid_size), num_prefix_tokens=0
        )
    classes = model.num_classes
    own = model.pos_embed.detach()[:, classes : model.num_prefix_tokens]
    return torch.cat([cls.expand(-1, classes, -1), own, patches], dim=1)
