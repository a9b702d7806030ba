"""What the masks of the TerraMesh tiles themselves would give: an upper bound."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.real_scene_data import SIDE
from benchmarks.real_scene_unet import (
    LocalNetwork,
    Training,
    fit_network,
    one_hot,
    probabilities,
)
from benchmarks.real_tiles_data import Target
from benchmarks.real_tiles_rows import BATCH, STEPS, TEN, TileRun
from torchgeo_ctm.scaling import GROUND_BANDS, BandScaling

#: Name of the row.
ORACLE: Final = 'oracle: masks of the left halves'


def oracle(
    run: TileRun, targets: Sequence[Target]
) -> tuple[list[Target], list[NDArray[np.uint8]]]:
    """Train the local network on true masks of the left halves, map the right ones.

    Args:
        run: Seed, steps and device; its tiles say how bands are scaled.
        targets: Tiles of one size.

    Returns:
        The right halves with their truth, and their maps (H, W), indexes of CLASSES.
    """
    scaling = BandScaling(bands=GROUND_BANDS, **run.scaling(TEN, 'log'))
    images = [scaling(torch.from_numpy(t.bands[TEN].copy())[None])[0] for t in targets]
    middle = images[0].shape[-1] // 2
    starts = range(0, middle * len(targets), middle)
    # windows lie inside one of the halves, which stand side by side
    corners = np.array(
        [
            (row, start + col)
            for row in range(0, images[0].shape[1] - SIDE + 1, 4)
            for start in starts
            for col in range(0, middle - SIDE + 1, 4)
        ]
    )
    torch.manual_seed(run.seed)
    training = Training(run.steps or STEPS, BATCH, lr=2e-3, jitter=0.05)
    network = fit_network(
        LocalNetwork(len(TEN)),
        torch.cat([image[..., :middle] for image in images], dim=-1),
        one_hot(np.concatenate([t.truth[:, :middle] for t in targets], axis=1)),
        corners,
        training,
        run.seed,
        run.device,
    )
    found = [
        probabilities(network, image, run.device).argmax(dim=0).numpy()
        for image in images
    ]
    halves = [Target(t.bands[..., middle:], t.truth[:, middle:]) for t in targets]
    return halves, [drawn[:, middle:].astype(np.uint8) for drawn in found]
