"""Small networks with weights that are always the same."""

import zlib
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor

from torchgeo_ctm.models import ClassTokenViT

SMALL: dict[str, Any] = {
    'img_size': 32,
    'patch_size': 8,
    'in_chans': 4,
    'num_classes': 3,
    'embed_dim': 16,
    'depth': 2,
    'num_heads': 2,
}


def small(**kwargs: Any) -> ClassTokenViT:
    """Return a network of a few thousand weights, for 4 bands and 3 classes."""
    torch.manual_seed(0)
    return ClassTokenViT(**(SMALL | kwargs)).eval()


def reference_state(names: list[str], log_a_scale: float = 40) -> dict[str, Tensor]:
    """Weights of the golden files, by the recipe of METHOD.md, section 7."""
    state = {}
    for entry in names:
        name, _, shape = entry.partition(' ')
        size = tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
        rng = Generator(Philox(key=zlib.crc32(f'0:{name}'.encode())))
        values = (rng.standard_normal(size) * 0.05).astype(np.float32)
        if 'norm' in name and name.endswith('weight'):
            values = 1 + values
        if name.endswith('log_a'):
            values = values * log_a_scale
        state[name] = torch.from_numpy(values)
    return state
