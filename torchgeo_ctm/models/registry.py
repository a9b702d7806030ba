"""The named networks, registered with timm and with TorchGeo."""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torchgeo.models import api as torchgeo_api

from ..network.class_token_vit import ClassTokenViT
from ..network.variants import VARIANTS

default_cfgs = generate_default_cfgs(
    {
        name: {
            'url': '',
            'num_classes': 8,
            'input_size': (13, 224, 224),
            'pool_size': None,
            'first_conv': 'patch_embed.proj',
            'classifier': 'head',
        }
        for name in VARIANTS
    }
)

__all__ = ['BUILDERS']  # a list: timm's register_model appends to it


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ClassTokenViT:
    """Build one registered variant through timm's own builder."""
    model: ClassTokenViT = build_model_with_cfg(
        ClassTokenViT, variant, pretrained, **(VARIANTS[variant] | kwargs)
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


@register_model
def ctm_vit_small_patch14_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Small (384 wide, 12 blocks, 6 heads), patches of 14 px."""
    return _create('ctm_vit_small_patch14_224', pretrained, **kwargs)


@register_model
def ctm_vit_base_patch14_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Base (768 wide, 12 blocks, 12 heads), patches of 14 px."""
    return _create('ctm_vit_base_patch14_224', pretrained, **kwargs)


@register_model
def ctm_vit_large_patch16_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Large (1024 wide, 24 blocks, 16 heads), patches of 16 px."""
    return _create('ctm_vit_large_patch16_224', pretrained, **kwargs)


@register_model
def ctm_vit_huge_patch14_224(pretrained: bool = False, **kwargs: Any) -> ClassTokenViT:
    """Class-token ViT-Huge (1280 wide, 32 blocks, 16 heads), patches of 14 px."""
    return _create('ctm_vit_huge_patch14_224', pretrained, **kwargs)


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
        ctm_vit_small_patch14_224,
        ctm_vit_base_patch14_224,
        ctm_vit_large_patch16_224,
        ctm_vit_huge_patch14_224,
    )
}
# TorchGeo has no public registration; its get_model reads this dictionary.
torchgeo_api._model.update(BUILDERS)
