"""Class-token networks of the real scene's benchmark, as a user trains and maps."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.real_scene_data import (
    CLASSES,
    COLORS,
    SIDE,
    Ground,
    Windows,
    statistics,
)
from benchmarks.real_scene_run import Run
from benchmarks.real_scene_unet import jittered, turned
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.maps.class_maps import resize
from torchgeo_ctm.maps.decoder import MapDecoder
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, SoftMaskSegmentationTask
from torchgeo_ctm.windows import WindowPlan

#: Windows that are mapped at a time.
BATCH: Final = 32
#: Side in pixels of the windows of a network that sees no more than its field of view.
#: Refinement describes the classes of a window, and a wider one shows more of them.
WIDE: Final = 128

#: Arguments of the task by setting. None names the scene.
COMMON: Final[dict[str, Any]] = {
    'model': 'ctm_vit_tiny_patch8_224',
    'in_channels': len(BANDS),
    'bands': list(BANDS),
    'num_classes': len(CLASSES),
    'class_names': list(CLASSES),
    'class_colors': list(COLORS),
    'img_size': SIDE,
    'mask_rate': 0.5,
    'lr': 2e-3,
}
#: METHOD, sections 1 to 4, on a network of our size.
PAPER: Final[dict[str, Any]] = {
    'model_options': {
        'embed_dim': 128,
        'depth': 3,
        'num_heads': 4,
        'qkv_bias': False,
        'norm_eps': 1e-5,
        'final_norm': False,
        'head': 'joint',
        'stem': 'patch',
    },
    'scaling': {'method': 'per_chip_maximum', 'clip': [0, 10_000]},
    'patches': {'loss_weight': 0, 'balance': 0},
    'attention': {'pruning': {'penalty': 0.01, 'lr': 0.01}, 'distillation_weight': 0},
    'maps': {
        'source': 'attention',
        'rule': 'paint',
        'presence': 'threshold',
        'refinement': None,
    },
}
#: What configs/synthetic.yaml recommended in commit 40be07f.
RECOMMENDED: Final[dict[str, Any]] = {
    'model_options': {'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
    'patches': {
        'head': 'tokens',
        'pooling': 'share',
        'share': None,
        'balance': 0,
        'self_training': {'weight': 24.0, 'start': 0.5},
    },
    'attention': {'distillation_weight': 0},
    'maps': {
        'source': 'fused',
        'presence': 'probability',
        'refinement': 'soft_assignment',
        'refinement_weight': 1,
    },
}


class Budget(NamedTuple):
    """Steps, windows a step, and jitter of the training windows."""

    steps: int
    batch: int = 16
    jitter: float = 0.0


def local(share: float, balance: float = 0, compete: bool = False) -> dict[str, Any]:
    """Return arguments of a network with local evidence, which teaches its attention.

    Args:
        share: Share of the patches that a present class is expected to cover.
        balance: How much presences and absences of a class count alike.
        compete: Whether classes compete for patches.
    """
    pooling = {'pooling': 'share', 'share': share}
    return {
        'model_options': RECOMMENDED['model_options'],
        'patches': {'head': 'local', **pooling, 'balance': balance, 'compete': compete},
        'attention': {'distillation_weight': 1.0},
        'maps': {'source': 'patches', 'presence': 'all', 'refinement_weight': 0.5},
    }


#: The defaults of the task, for any number and kind of labels.
OURS: Final = local(0.25, balance=0.5)
#: Arguments and budget by setting. Few labels take fewer steps.
SETTINGS: Final[dict[str, tuple[dict[str, Any], Budget]]] = {
    'paper': (PAPER, Budget(600)),
    'recommended': (RECOMMENDED, Budget(600)),
    'ours': (OURS, Budget(800, batch=32, jitter=0.03)),
    'ours, few': (OURS, Budget(600, jitter=0.03)),
    # a setting that torchgeo-ctm choose tries, too
    'incomplete labels': (local(0.5, balance=0.5), Budget(800, batch=32, jitter=0.03)),
}


class TaggedWindows(Dataset[dict[str, Tensor]]):
    """Random training windows and their tags, in random orientation."""

    def __init__(
        self, ground: Ground, windows: Windows, budget: Budget, seed: int
    ) -> None:
        """Keep the training rows.

        Args:
            ground: The training rows.
            windows: The labeled windows.
            budget: Number of windows drawn, and their jitter.
            seed: Seed of the draws.
        """
        self.image = torch.from_numpy(ground.bands.astype(np.float32))
        self.mean, self.std = (
            value[:, None, None] for value in map(torch.tensor, statistics(ground))
        )
        self.tags = torch.from_numpy(windows.tags).float()
        self.corners = windows.corners.tolist()
        self.budget, self.seed = budget, seed

    def __len__(self) -> int:
        """Return the number of windows of the run."""
        return self.budget.steps * self.budget.batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, 64, 64), reflectance x 10,000, and ``label`` (5,)."""
        rng = np.random.default_rng((self.seed, index))
        number = int(rng.integers(len(self.corners)))
        row, col = self.corners[number]
        image = self.image[:, row : row + SIDE, col : col + SIDE]
        image = turned(image, int(rng.integers(8)))
        if self.budget.jitter:
            scaled = (image - self.mean) / self.std
            scaled = jittered(scaled[None], self.budget.jitter)[0]
            image = scaled * self.std + self.mean
        return {'image': image.contiguous(), 'label': self.tags[number]}


def fit_task(
    arguments: Mapping[str, Any],
    chips: Dataset[dict[str, Tensor]],
    batch: int,
    seed: int,
    device: str,
    augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> ClassTokenMaskingTask:
    """Train a task on chips and their image-level labels, once through.

    Args:
        arguments: Of the task.
        chips: ``image`` and ``label``, in the order of training.
        batch: Chips a step.
        seed: Seed of weights and masking.
        device: 'cpu' or 'cuda'.
        augment: Augmentation of a batch; None: none.
    """

    def collate(samples: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Return an augmented batch."""
        stacked = default_collate(samples)
        return stacked if augment is None else augment(stacked)

    pl.seed_everything(seed, verbose=False)
    optimization = {'schedule': 'cosine', 'mask_seed': seed}
    given = copy.deepcopy({**arguments, 'optimization': optimization})
    task = ClassTokenMaskingTask(**given)
    fit(task, DataLoader(chips, batch_size=batch, collate_fn=collate), device)
    return task.eval()


def fit(task: pl.LightningModule, chips: Any, device: str) -> None:
    """Train a task, once through its chips, and write nothing.

    Args:
        task: The task.
        chips: Training batches.
        device: 'cpu' or 'cuda'.
    """
    quiet_lightning()
    for message in ('.*no `val_dataloader`.*', '.*module.s. in eval mode.*'):
        warnings.filterwarnings('ignore', message=message)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator='cpu' if device == 'cpu' else 'gpu',
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, chips)


def trained_task(run: Run, setting: str) -> ClassTokenMaskingTask:
    """Return the network of a setting; rows that share it train it once.

    Args:
        run: What the row is made from.
        setting: Name in SETTINGS.
    """
    if setting == 'ours':
        setting = 'ours, few' if run.few else setting
    arguments, budget = SETTINGS[setting]
    if setting not in run.tasks:
        budget = budget._replace(steps=run.count(budget.steps))
        if setting not in ('paper', 'recommended'):
            mean, std = statistics(run.ground)
            scaling = {'method': 'standard', 'mean': mean, 'std': std}
            arguments = arguments | {'scaling': scaling}
        chips = TaggedWindows(run.ground, run.windows, budget, run.seed)
        run.tasks[setting] = fit_task(
            COMMON | arguments, chips, budget.batch, run.seed, run.device
        )
    task: ClassTokenMaskingTask = run.tasks[setting]
    return task


def token_scores(run: Run, setting: str, ground: Ground, **options: Any) -> Tensor:
    """Return scores (C, H, W) of some rows.

    Args:
        run: What the row is made from.
        setting: Name in SETTINGS.
        ground: The rows to map.
        **options: Of :class:`~torchgeo_ctm.maps.decoder.MapOptions`, in place of the
            setting's own.
    """
    task = trained_task(run, setting)
    task.decoder = MapDecoder(task.options.maps).with_options(**options)
    image = torch.from_numpy(ground.bands.astype(np.float32))
    window = min(WIDE if task.is_local else SIDE, *image.shape[-2:])
    return map_scores(task, image, run.device, window, window // 2)


@torch.inference_mode()
def map_scores(
    task: ClassTokenMaskingTask | SoftMaskSegmentationTask,
    image: Tensor,
    device: str,
    window: int = SIDE,
    stride: int = SIDE // 2,
) -> Tensor:
    """Return scores of the classes at every pixel (C, H, W).

    Windows overlap and are blended as ``torchgeo-ctm predict`` does.

    Args:
        task: A trained task.
        image: Bands (bands, H, W), reflectance x 10,000.
        device: Device to compute on.
        window: Side of a window in pixels.
        stride: Distance between windows in pixels.
    """
    task = task.to(device).eval()
    height, width = image.shape[-2:]
    plan = WindowPlan(height, width, window, stride)
    total = torch.zeros(len(task.class_names), height, width)
    for start in range(0, len(plan), BATCH):
        numbers = range(start, min(start + BATCH, len(plan)))
        at = [plan[number] for number in numbers]
        x = torch.stack(
            [image[:, w.row : w.row + w.height, w.col : w.col + w.width] for w in at]
        )
        found = task.predict_images({'image': x.to(device)})['scores']
        found = resize(found.float(), (x.shape[-2], x.shape[-1])).cpu()
        for number, w, scores in zip(numbers, at, found, strict=True):
            row, col = divmod(number, len(plan.cols))
            tall = torch.from_numpy(plan.rows[row][1])[:, None]
            wide = torch.from_numpy(plan.cols[col][1])
            inside = (slice(None), slice(w.row, w.row + w.height))
            total[*inside, w.col : w.col + w.width] += scores * tall * wide
    if not math.isfinite(float(total.sum())):
        raise FloatingPointError('The map holds scores that are not finite.')
    return total
