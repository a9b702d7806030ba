"""Models. Importing this room registers them with timm and with TorchGeo."""

from .class_token_vit import (
    ClassTokenViT,
    ctm_vit_base_patch8_224,
    ctm_vit_base_patch16_224,
    ctm_vit_small_patch8_224,
    ctm_vit_small_patch16_224,
    ctm_vit_tiny_patch8_224,
    ctm_vit_tiny_patch16_224,
)
from .hard_concrete import HardConcreteGate

__all__ = [
    'ClassTokenViT',
    'HardConcreteGate',
    'ctm_vit_base_patch8_224',
    'ctm_vit_base_patch16_224',
    'ctm_vit_small_patch8_224',
    'ctm_vit_small_patch16_224',
    'ctm_vit_tiny_patch8_224',
    'ctm_vit_tiny_patch16_224',
]
