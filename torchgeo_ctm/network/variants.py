"""The named networks: ``ctm_vit_{tiny,small,base,large,huge}_patch{8,14,16}_224``."""

from typing import Any

from ..errors import SettingError, did_you_mean
from .class_token_vit import ClassTokenViT

_SIZES = {
    'tiny': {'embed_dim': 192, 'depth': 12, 'num_heads': 3},
    'small': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'base': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'large': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
    'huge': {'embed_dim': 1280, 'depth': 32, 'num_heads': 16},
}
#: Patch sides in pixels of each size: those from scratch, and those of public weights.
_PATCHES = {
    'tiny': (8, 16),
    'small': (8, 14, 16),
    'base': (8, 14, 16),
    'large': (16,),
    'huge': (14,),
}
#: Arguments of each network by its name.
VARIANTS: dict[str, dict[str, int]] = {
    f'ctm_vit_{size}_patch{patch}_224': arguments | {'patch_size': patch}
    for size, arguments in _SIZES.items()
    for patch in _PATCHES[size]
}


def build_network(name: str, **arguments: Any) -> ClassTokenViT:
    """Return a named network.

    Args:
        name: One of :data:`VARIANTS`.
        **arguments: More arguments of
            :class:`~torchgeo_ctm.network.class_token_vit.ClassTokenViT`.

    Raises:
        SettingError: If there is no such network.
    """
    if name not in VARIANTS:
        raise SettingError(
            f'Unknown model {name!r}, expected one of: {", ".join(VARIANTS)}.'
            + did_you_mean(name, VARIANTS)
        )
    return ClassTokenViT(**(VARIANTS[name] | arguments))
