"""What the rows of the real scene's benchmark are made from."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_scene_data import Ground, Windows, statistics


class Run:
    """What a row is made from: ground, labeled windows, seed and budget."""

    def __init__(
        self,
        ground: Ground,
        scored: Ground,
        windows: Windows,
        seed: int = 0,
        few: bool = False,
        sure: bool = False,
        device: str = 'cpu',
        steps: int | None = None,
    ) -> None:
        """Keep what the rows share.

        Args:
            ground: The training rows.
            scored: The rows that are mapped.
            windows: The labeled windows of the training rows.
            seed: Seed of weights and draws.
            few: Whether only some of the windows are labeled.
            sure: Whether tags count the sure pixels alone.
            device: Device to train and map on.
            steps: Training steps in place of each row's own.
        """
        self.ground, self.scored, self.windows = ground, scored, windows
        self.seed, self.few, self.sure = seed, few, sure
        self.device, self.steps = device, steps
        #: Trained class-token networks, by setting.
        self.tasks: dict[str, Any] = {}

    @cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """Bands of the training and the scored rows, standardized by the former."""
        mean, std = (
            torch.tensor(value)[:, None, None] for value in statistics(self.ground)
        )
        first, second = (
            (torch.from_numpy(part.bands.astype(np.float32)) - mean) / std
            for part in (self.ground, self.scored)
        )
        return first, second

    def count(self, steps: int) -> int:
        """Return a row's training steps, unless the run has its own."""
        return self.steps or steps
