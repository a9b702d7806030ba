"""How much memory and disk a scene will need, told before it starts; and less of it."""

import ctypes
import sys
from typing import Any

import numpy as np

from ..maps.refine import COMPONENTS
from .mosaic import CHUNK

GIGABYTE = 1e9
#: Python, PyTorch, GDAL and Lightning themselves, in bytes; measured.
PROGRAM = 0.75e9
#: GDAL's cache of decoded blocks, in MiB, while products are finished: they are read and
#: written from top to bottom.
FINISHING_CACHE = 24

#: Numbers that a segmentation network holds of a pixel: a U-Net's, mostly its decoder's.
PIXELWISE = 100

#: ``M_ARENA_MAX`` and ``M_MMAP_THRESHOLD`` of glibc's ``mallopt``.
ARENA_MAX, MMAP_THRESHOLD = -8, -3
#: Bytes of arrays that lie outside the heap: batches, but not what a network holds,
#: which would be slower.
LARGE = 1 << 24


def block_cache(scene: str) -> int:
    """Return what GDAL's cache of decoded blocks should hold of a scene, in MiB.

    A GeoTIFF's blocks are decoded in no time, so those below a strip may be decoded
    once more. JPEG 2000 takes as long as a small model: a row of its tiles is kept,
    168 MB for the bands of a Sentinel-2 product.
    """
    return 48 if scene.lower().endswith(('.tif', '.tiff')) else 192


def keep_heap_small() -> None:
    """Have glibc give memory back that is free, for the rest of the process.

    It gives each thread a heap of its own, and blocks that GDAL frees in one are of no
    use in another: 250 MB at the end of a scene. And once it has seen large arrays
    freed, it keeps new ones in the heap, between small ones: 100 MB. Other systems have
    no such heaps.
    """
    if sys.platform == 'linux':
        set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
        if set_option is not None:
            set_option(ARENA_MAX, 1)
            set_option(MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """Give memory that is free back to the system, where glibc would keep it."""
    if sys.platform == 'linux':
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
        if trim is not None:
            trim(0)


def refined_values(bands: int, classes: int) -> int:
    """Return how many numbers refinement holds at once of a pixel."""
    kept = min(bands, COMPONENTS)
    # the products of bands twice, while they are made; a few copies of the rest
    return 2 * (kept * (kept + 1) // 2) + 5 * bands + 10 * classes


def network_values(model: Any, side: int) -> int:
    """Return about how many numbers a network holds at once of a window."""
    if not hasattr(model, 'cls_token'):
        return PIXELWISE * side**2
    tokens = (side // model.patch_size) ** 2 + model.num_prefix_tokens
    return int(12 * tokens * model.cls_token.shape[-1])


def estimate(scene: Any, task: Any, batch_size: int) -> str:
    """Return one line about windows, memory and temporary files.

    Memory is that of the program, the weights, a strip of the scene, GDAL's cache, a few
    batches, and the mosaic's band of rows. It does not depend on the scene's height.

    Args:
        scene: The :class:`~torchgeo_ctm.datasets.SceneWindows`.
        task: The task that predicts.
        batch_size: Windows per batch.
    """
    plan, bands = scene.plan, len(scene.indexes)
    side, width = plan.window, plan.width
    classes, patch = len(task.class_names), task.model.patch_size
    painted = task.decoder.options.rule == 'paint'
    cells = side if painted or task.refines else side // patch
    strip = 2 * bands * min(side, plan.height) * width * np.dtype(scene.dtype).itemsize
    held = network_values(task.model, side)
    batch = 4 * batch_size * (4 * bands * side**2 + held)
    if task.decoder.refines:
        batch += 4 * batch_size * side**2 * refined_values(bands, classes)
    overlapping = -(-side // plan.stride) + 1
    band = 4 * classes * (width * overlapping * cells + 3 * CHUNK)
    weights = 4 * sum(p.numel() for p in task.parameters())
    cache = block_cache(str(scene.scene)) * 2**20
    blocks = min(cache, strip // (2 * side) * plan.height)
    memory = PROGRAM + strip + blocks + batch + band + weights
    # bytes of a cell in the journal: a class, a byte a share, or shares
    size = 1 if painted else classes if task.refines else 4 * classes
    disk = len(plan) * (size * cells**2 + side**2 / 8) + 2 * plan.height * width
    return (
        f'{len(plan):,} window{"s" * (len(plan) != 1)} of {side} px, stride {plan.stride} px; about '
        f'{memory / GIGABYTE:.1f} GB of memory, {disk / GIGABYTE:.1f} GB of temporary '
        'files'
    )
