"""The named networks, registered with timm and with TorchGeo."""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torchgeo.models import api as torchgeo_api

from .class_token_vit import ClassTokenViT

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

__all__ = ['BUILDERS']  # a list: timm's register_model appends to it


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
BUILDERS: dict[str, Callable[..., ClassTokenViT]] = {
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
