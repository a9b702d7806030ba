"""Rows of the real scene's benchmark: from a run to a map of the scored rows."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.real_scene_baselines import (
    constant_map,
    supervised_forest_map,
    tag_forest_map,
)
from benchmarks.real_scene_run import Run
from benchmarks.real_scene_unet import (
    UNET,
    LocalNetwork,
    Training,
    build_unet,
    fit_network,
    one_hot,
    probabilities,
)
from torchgeo_ctm.errors import SettingError

Map = NDArray[np.uint8]


def constant(run: Run) -> Map:
    """Return one class everywhere, the one that most windows show."""
    return constant_map(run.windows, run.scored)


def tag_forest(run: Run) -> Map:
    """Return what single pixels tell of their window's tags."""
    return tag_forest_map(run.windows, run.ground, run.scored, run.seed)


def supervised_forest(run: Run) -> Map:
    """Return what single pixels tell of the reference."""
    return supervised_forest_map(run.windows, run.ground, run.scored, run.seed)


def supervised_unet(sure: bool) -> Callable[[Run], Map]:
    """Return a row: a U-Net that learns the reference of the windows' pixels.

    Args:
        sure: Leave out the pixels at which the reference is not sure.
    """

    def build(run: Run) -> Map:
        truth = run.ground.sure if sure else run.ground.classes
        training = Training(run.count(400 if run.few else 800))
        return supervised(run, build_unet, truth, training)

    return build


def supervised(
    run: Run, build: Callable[[], nn.Module], truth: Map, training: Training
) -> Map:
    """Return the map of a network that learns masks of the windows."""
    torch.manual_seed(run.seed)
    image, scored = run.images
    shares, corners = one_hot(truth), run.windows.corners
    network = fit_network(
        build(), image, shares, corners, training, run.seed, run.device
    )
    return decided(probabilities(network, scored, run.device))


def oracle(run: Run) -> Map:
    """Return what our local network could express: it learns true masks."""
    # steps, batch and rate of our network
    training = Training(run.count(600 if run.few else 800), 32, lr=2e-3)
    return supervised(run, LocalNetwork, run.ground.classes, training)


def decided(shares: Tensor) -> Map:
    """Return the class of every pixel of shares (C, H, W)."""
    return shares.argmax(dim=0).numpy().astype(np.uint8)


def tokens(setting: str, **options: Any) -> Callable[[Run], Map]:
    """Return a row of a class-token network.

    Args:
        setting: Name of its settings, see :mod:`benchmarks.real_scene_tokens`.
        **options: How maps are made, in place of the setting's own.
    """

    def build(run: Run) -> Map:
        # TorchGeo is not needed for the other rows
        from benchmarks.real_scene_tokens import token_scores

        return decided(token_scores(run, setting, run.scored, **options))

    return build


def second_stage(run: Run) -> Map:
    """Return the map of a U-Net that learns our soft masks of all rows."""
    from benchmarks.real_scene_stage2 import second_stage_scores

    return decided(second_stage_scores(run, **REFINED))


REFINED: Final[dict[str, Any]] = {'refinement': 'soft_assignment'}
PLAIN: Final[dict[str, Any]] = {'refinement': None}

#: Rows by name.
ROWS: Final[dict[str, Callable[[Run], Map]]] = {
    'constant guess': constant,
    'per-pixel forest on tags': tag_forest,
    'supervised forest': supervised_forest,
    f'supervised {UNET} (every pixel)': supervised_unet(sure=False),
    f'supervised {UNET} (sure pixels)': supervised_unet(sure=True),
    'oracle: our local network on true masks': oracle,
    "paper's configuration": tokens('paper'),
    'attention, argmax': tokens('paper', rule='argmax'),
    "today's recommended": tokens('recommended'),
    'ours': tokens('ours', **PLAIN),
    'ours, refined': tokens('ours', **REFINED),
    'ours for incomplete labels, refined': tokens('incomplete labels', **REFINED),
    # as the supervised U-Nets are mapped, which are averaged over mirrorings
    'ours, refined, ensemble': tokens('ours', ensemble='dihedral', **REFINED),
    'ours, attention argmax': tokens(
        'ours', source='attention', presence='threshold', **PLAIN
    ),
    'stage 2 U-Net on soft maps': second_stage,
}


def chosen_rows(names: str | None) -> list[str]:
    """Return the rows of a comma-separated list of names; None: all.

    Names may contain commas themselves.

    Raises:
        SettingError: If there is no such row.
    """
    if names is None:
        return list(ROWS)
    found: list[str] = []
    parts = [part.strip() for part in names.split(',')]
    while parts:
        for length in range(len(parts), 0, -1):
            name = ', '.join(parts[:length])
            if name in ROWS:
                break
        else:
            raise SettingError(
                f'Unknown row {parts[0]!r}, expected some of: {"; ".join(ROWS)}.'
            )
        found.append(name)
        parts = parts[length:]
    return found
