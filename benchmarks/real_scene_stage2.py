"""Second stage of the real scene's benchmark, as a user trains it."""

from typing import Final

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.real_scene_data import Ground
from benchmarks.real_scene_run import Run
from benchmarks.real_scene_tokens import Budget, fit, map_scores, trained_task
from benchmarks.real_scene_unet import turned
from torchgeo_ctm.maps.decoder import MapDecoder
from torchgeo_ctm.trainers import SoftMaskSegmentationTask

#: Side in pixels of the windows that are drawn, and of those that are mapped.
WINDOW: Final = 128
MAPPED: Final = 256
BUDGET: Final = Budget(steps=600, batch=8)


class AnyWindows(Dataset[dict[str, Tensor]]):
    """Random windows from anywhere in some rows, in random orientation."""

    def __init__(self, grounds: list[Ground], count: int, seed: int) -> None:
        """Keep the bands.

        Args:
            grounds: The rows.
            count: Number of windows drawn.
            seed: Seed of the draws.
        """
        self.images = [torch.from_numpy(g.bands.astype(np.float32)) for g in grounds]
        self.side = min(WINDOW, *(n for i in self.images for n in i.shape[-2:]))
        self.side -= self.side % 32
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        """Return the number of windows of the run."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, side, side), reflectance x 10,000."""
        rng = np.random.default_rng((self.seed, index))
        areas = np.array([image[0].numel() for image in self.images])
        image = self.images[rng.choice(len(areas), p=areas / areas.sum())]
        row, col = (int(rng.integers(n - self.side + 1)) for n in image.shape[-2:])
        part = image[:, row : row + self.side, col : col + self.side]
        return {'image': turned(part, int(rng.integers(8))).contiguous()}


def second_stage_scores(run: Run, refinement: str | None) -> Tensor:
    """Return scores (C, H, W) of the scored rows by a second stage.

    It learns from windows of all rows, none of which needs a label. No labeled window
    is left that could validate it: its teacher has learned from all of them.

    Args:
        run: What the row is made from.
        refinement: Refinement of the teacher's masks.
    """
    teacher = trained_task(run, 'ours')
    options = teacher.options.maps
    teacher.decoder = MapDecoder(options).with_options(refinement=refinement)
    steps = run.count(BUDGET.steps)
    pl.seed_everything(100 + run.seed, verbose=False)
    task = SoftMaskSegmentationTask(teacher)
    chips = AnyWindows([run.ground, run.scored], steps * BUDGET.batch, run.seed)
    fit(task, DataLoader(chips, batch_size=BUDGET.batch), run.device)
    # the supervised U-Nets are averaged over mirrorings, too
    task.with_options(ensemble='dihedral')
    image = torch.from_numpy(run.scored.bands.astype(np.float32))
    window = min(MAPPED, *image.shape[-2:])
    window -= window % 32
    return map_scores(task, image, run.device, window, window - window // 4)
