"""How much memory and disk a scene will need, told before it starts."""

from typing import Any

import numpy as np

from .mosaic import CHUNK

GIGABYTE = 1e9
#: Python, PyTorch, GDAL and Lightning themselves, in bytes; measured.
PROGRAM = 0.75e9
#: GDAL's cache of decoded blocks, in MiB, as the command sets it.
BLOCK_CACHE = 192


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
    cells = side // patch if task.hparams['map_rule'] == 'argmax' else side
    strip = 2 * bands * min(side, plan.height) * width * np.dtype(scene.dtype).itemsize
    tokens = (side // patch) ** 2 + task.model.num_prefix_tokens
    hidden = task.model.cls_token.shape[-1]
    batch = 4 * batch_size * (4 * bands * side**2 + 12 * tokens * hidden)
    overlapping = -(-side // plan.stride) + 1
    band = 4 * classes * width * (overlapping * cells + 3 * CHUNK)
    weights = 4 * sum(p.numel() for p in task.parameters())
    blocks = min(BLOCK_CACHE * 2**20, strip // (2 * side) * plan.height)
    memory = PROGRAM + strip + blocks + batch + band + weights
    size = 1 if task.hparams['map_rule'] == 'paint' else 4 * classes
    disk = len(plan) * (size * cells**2 + side**2 / 8) + 2 * plan.height * width
    return (
        f'{len(plan):,} windows of {side} px, stride {plan.stride} px; about '
        f'{memory / GIGABYTE:.1f} GB of memory, {disk / GIGABYTE:.1f} GB of temporary '
        'files'
    )
