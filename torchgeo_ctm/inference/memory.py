"""Estimate memory and temporary disk of a run, and size GDAL's block cache."""

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from torch import nn

from ..errors import SettingError
from ..maps.refine import COMPONENTS
from ..scenes.scene import SceneWindows
from .mosaic import CHUNK
from .protocols import ScenePredictor

GIGABYTE = 1e9
#: Bytes that Python, PyTorch and GDAL take themselves, and Lightning if it is used.
PROGRAM = 0.75e9
#: Option of glibc's mallopt: the number of heaps.
M_ARENA_MAX = -8
#: GDAL's cache of decoded blocks while products are written from top to bottom, in MiB.
FINISHING_CACHE = 24
#: Numbers that a segmentation network holds per pixel: mostly a U-Net's decoder.
PIXELWISE = 100


def block_cache(scene: str) -> int:
    """Return the size of GDAL's cache of decoded blocks for a scene, in MiB.

    Blocks of a GeoTIFF are decoded fast, so the few that two rows of windows share may
    be decoded twice. JPEG 2000 decodes as slowly as a small model predicts: one row of
    its tiles is kept, 168 MB for the bands of a Sentinel-2 product. So is a row of the
    chunks of an EOPF product, 225 MB.
    """
    if '.zarr' in scene.lower():
        return 256
    return 48 if scene.lower().endswith(('.tif', '.tiff')) else 192


def limit_memory(scenes: Iterable[str]) -> None:
    """Limit what GDAL and the C library keep, for the whole process of a command.

    GDAL's own cache, 5 % of the machine's memory, is more than a row band needs; what
    the user has set stays. glibc gives each thread a heap, which keeps what was freed:
    with one heap for all, a run over a whole tile takes a quarter less memory.
    """
    size = max(map(block_cache, scenes))
    os.environ.setdefault('GDAL_CACHEMAX', str(size))
    with suppress(AttributeError, OSError, TypeError):
        # other C libraries do not have it
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def refined_values(bands: int, classes: int) -> int:
    """Return how many numbers refinement holds per pixel."""
    kept = min(bands, COMPONENTS)
    # the products of bands twice, while they are computed; a few copies of the rest
    return 2 * (kept * (kept + 1) // 2) + 5 * bands + 10 * classes


def network_values(model: nn.Module, side: int) -> int:
    """Return about how many numbers a network holds per window."""
    token = getattr(model, 'cls_token', None)
    if token is None:
        return PIXELWISE * side**2
    patch, prefix = int(model.patch_size), int(model.num_prefix_tokens)  # type: ignore[arg-type]
    return int(12 * ((side // patch) ** 2 + prefix) * token.shape[-1])


def required_memory(
    scene: SceneWindows, task: ScenePredictor, batch_size: int
) -> float:
    """Return about how many bytes of memory a run takes.

    Memory is that of the program, the weights, a row of windows of the scene, GDAL's
    cache, a few batches, and the rows being blended. It does not depend on the scene's
    height.

    Args:
        scene: The scene.
        task: The task that predicts.
        batch_size: Windows per batch.
    """
    plan, bands = scene.plan, len(scene.indexes)
    side, width, classes = plan.window, plan.width, len(task.class_names)
    cells = side // task.map_stride
    row = 2 * bands * min(side, plan.height) * width * np.dtype(scene.dtype).itemsize
    batch = min(batch_size, len(plan)) * _window_values(scene, task)
    overlapping = -(-side // plan.stride) + 1
    blended = classes * (width * overlapping * cells + 3 * CHUNK)
    weights = sum(p.numel() for p in task.parameters())
    cache = block_cache(str(scene.scene)) * 2**20
    blocks = min(cache, row // (2 * side) * plan.height)
    return PROGRAM + row + blocks + 4 * (batch + blended + weights)


def _window_values(scene: SceneWindows, task: ScenePredictor) -> float:
    """Return about how many numbers a window takes in a batch."""
    side, bands, classes = scene.plan.window, len(scene.indexes), len(task.class_names)
    values = 4 * bands * side**2 + network_values(task.model, side)
    if task.decoder.refines:
        values += side**2 * refined_values(bands, classes)
    return values


def required_disk(scene: SceneWindows, task: ScenePredictor) -> float:
    """Return about how many bytes of temporary files a run takes.

    Args:
        scene: The scene.
        task: The task that predicts.
    """
    plan, classes = scene.plan, len(task.class_names)
    painted = task.decoder.options.rule == 'paint'
    # bytes of a cell in the journal: a class, a byte per class, or a float per class
    size = 1 if painted else classes if task.refines else 4 * classes
    cells = plan.window // task.map_stride
    return int(scene.wanted.sum()) * (size * cells**2 + plan.window**2 / 8) + (
        2 * scene.extent.height * scene.extent.width
    )


def check_memory(scene: SceneWindows, task: ScenePredictor, batch_size: int) -> None:
    """Check that a run can fit into the memory of the machine.

    Raises:
        SettingError: If it cannot.
    """
    try:
        memory = float(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    except (AttributeError, OSError, ValueError):
        # Windows has no sysconf
        return
    required = required_memory(scene, task, batch_size)
    if required > memory:
        raise SettingError(
            f'window={scene.plan.window} px and batch_size={batch_size} require about '
            f'{required / GIGABYTE:,.0f} GB of memory, but the machine has '
            f'{memory / GIGABYTE:.0f} GB. Choose smaller ones.'
        )


def estimate(scene: SceneWindows, task: ScenePredictor, batch_size: int) -> str:
    """Return one line about windows, memory and temporary files.

    Args:
        scene: The scene.
        task: The task that predicts.
        batch_size: Windows per batch.
    """
    plan, count = scene.plan, int(scene.wanted.sum())
    memory = required_memory(scene, task, batch_size)
    return (
        f'{count:,} window{"s" * (count != 1)} of {plan.window} px, stride '
        f'{plan.stride} px; about {memory / GIGABYTE:.1f} GB of memory, '
        f'{required_disk(scene, task) / GIGABYTE:.1f} GB of temporary files'
    )
