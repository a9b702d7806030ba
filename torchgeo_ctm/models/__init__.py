"""Models. Importing this room registers them with timm and with TorchGeo."""

from ..network.class_token_vit import ClassTokenViT
from ..network.hard_concrete import HardConcreteGate
from ..network.linear import count_operations
from .registry import (
    ctm_vit_base_patch8_224,
    ctm_vit_base_patch14_224,
    ctm_vit_base_patch16_224,
    ctm_vit_huge_patch14_224,
    ctm_vit_large_patch16_224,
    ctm_vit_small_patch8_224,
    ctm_vit_small_patch14_224,
    ctm_vit_small_patch16_224,
    ctm_vit_tiny_patch8_224,
    ctm_vit_tiny_patch16_224,
)

__all__ = [
    'ClassTokenViT',
    'HardConcreteGate',
    'ctm_vit_base_patch8_224',
    'ctm_vit_base_patch14_224',
    'ctm_vit_base_patch16_224',
    'ctm_vit_huge_patch14_224',
    'ctm_vit_large_patch16_224',
    'ctm_vit_small_patch8_224',
    'ctm_vit_small_patch14_224',
    'ctm_vit_small_patch16_224',
    'ctm_vit_tiny_patch8_224',
    'ctm_vit_tiny_patch16_224',
]

count_operations()
