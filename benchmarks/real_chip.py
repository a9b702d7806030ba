"""Water on a real Sentinel-2 chip, from image labels of small chips alone.

Trains on the left half of the chip (labels: does this 64 px chip hold water, does it
hold land), predicts the whole chip with ``torchgeo-ctm predict`` and scores the right
half, which no training chip touches. Beside it stands TorchGeo's U-Net, trained with the
same chips, steps and batch on the true masks.

    python benchmarks/real_chip.py ../shared/real output/real_chip
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.labels import presence_from_mask
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling
from torchgeo_ctm.scoring import evaluate
from torchgeo_ctm.trainers import (
    AttentionOptions,
    ClassTokenMaskingTask,
    MapOptions,
    OptimizationOptions,
    PatchOptions,
)
from torchgeo_ctm.trainers.optimizers import build_optimizer, cosine_schedule

CHIP = 64
TRAINED_SHARE = 0.5
IGNORED = 255
COMMAND = Path(sys.executable).with_name('torchgeo-ctm')


class ImageLabels(Dataset[dict[str, Tensor]]):
    """Random chips of one scene, turned over at random; of each only its labels."""

    def __init__(self, folder: Path, length: int, seed: int) -> None:
        """Read the trained part of the scene.

        Args:
            folder: Folder with ``spain_s2.tif`` and ``spain_water.tif``.
            length: Number of chips.
            seed: Decides which chips.
        """
        with rasterio.open(folder / 'spain_s2.tif') as scene:
            last = int(scene.width * TRAINED_SHARE)
            self.image = scene.read()[:, :, :last].astype(np.float32)
        with rasterio.open(folder / 'spain_water.tif') as label:
            self.truth = label.read(1)[:, :last].astype(np.int64)
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of chips."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, 64, 64), ``label`` (2,): land, water; and ``mask``."""
        rng = np.random.default_rng((self.seed, index))
        height, width = self.truth.shape
        row = int(rng.integers(height - CHIP + 1))
        col = int(rng.integers(width - CHIP + 1))
        place = np.s_[row : row + CHIP, col : col + CHIP]
        image = torch.from_numpy(self.image[:, *place])
        truth = torch.from_numpy(self.truth[place])
        label = presence_from_mask(truth[None], 2, min_share=0.1)[0]
        both = torch.cat([image, truth[None].float()])
        both = torch.rot90(both, int(rng.integers(4)), (1, 2))
        both = both.flip(2) if rng.random() < 0.5 else both
        mask = both[-1].long()
        mask[mask < 0] = IGNORED
        return {'image': both[:-1].contiguous(), 'label': label, 'mask': mask}


class Segmenter(SemanticSegmentation):
    """TorchGeo's U-Net with our scaling, optimiser and schedule."""

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Scale images as our task does."""
        scaling = BandScaling(SENTINEL2_BANDS).to(batch['image'].device)
        return {'image': scaling(batch['image']), 'mask': batch['mask']}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with warm-up and cosine."""
        groups = [{'params': list(self.parameters()), 'weight_decay': 0.05, 'lr': 1e-3}]
        optimizer = build_optimizer('adamw', groups)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = cosine_schedule(optimizer, steps, 0.1)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }


def train(folder: Path, checkpoint: Path, steps: int, seed: int) -> None:
    """Train from image labels and save a checkpoint."""
    pl.seed_everything(seed, verbose=False)
    task = ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        num_classes=2,
        img_size=CHIP,
        # fields and canals are narrow here: patches of 4 px instead of 8;
        # every chip holds land: what it is, only chips without water tell
        model_options={
            'patch_size': 4,
            'embed_dim': 128,
            'depth': 3,
            'num_heads': 4,
            'stem': 'conv',
            'patch_activation': 'softmax',
        },
        patches=PatchOptions(
            head='tokens', pooling='share', share=None, balance=0, pooling_warmup=0.3
        ),
        maps=MapOptions(
            source='fused',
            presence='threshold',
            refinement='soft_assignment',
            refinement_weight=1,
        ),
        attention=AttentionOptions(distillation_weight=0),
        class_names=['Land', 'Water'],
        class_colors=['#d9c08c', '#1c0dff'],
        lr=1e-3,
        optimization=OptimizationOptions(schedule='cosine'),
    )
    fit(task, folder, steps, seed).save_checkpoint(checkpoint)


def fit(task: pl.LightningModule, folder: Path, steps: int, seed: int) -> pl.Trainer:
    """Train with the chips and the budget that both sides have."""
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    chips = ImageLabels(folder, 16 * steps, seed)
    trainer.fit(task, DataLoader(chips, batch_size=16))
    return trainer


def supervise(folder: Path, output: Path, steps: int, seed: int) -> None:
    """Train the U-Net on true masks, and write its mask of the whole chip."""
    pl.seed_everything(seed, verbose=False)
    task = Segmenter(
        model='unet',
        backbone='resnet18',
        in_channels=13,
        num_classes=2,
        ignore_index=IGNORED,
    )
    fit(task, folder, steps, seed)
    with rasterio.open(folder / 'spain_s2.tif') as scene:
        image = torch.from_numpy(scene.read().astype(np.float32))
        profile = scene.profile | {'count': 1, 'dtype': 'uint8', 'nodata': IGNORED}
    with torch.inference_mode():
        found = task.eval()(BandScaling(SENTINEL2_BANDS)(image[None])).argmax(dim=1)
    with rasterio.open(output, 'w', **profile) as mask:
        mask.write(found.numpy().astype(np.uint8))


def hold_out(folder: Path, output: Path) -> None:
    """Write the reference without its trained part."""
    with rasterio.open(folder / 'spain_water.tif') as label:
        profile, truth = label.profile, label.read(1)
    truth[:, : int(truth.shape[1] * TRAINED_SHARE)] = -1
    with rasterio.open(output, 'w', **profile) as held_out:
        held_out.write(truth, 1)


def water(mask: Path, held_out: Path) -> dict[str, float]:
    """Return how well a mask finds water, and what whole patches could reach at most.

    Args:
        mask: Mask of the whole chip.
        held_out: Reference, negative where the chip is not scored.

    Returns:
        ``precision`` and ``recall`` of the mask; by side of a patch in pixels, as
        ``oracle_iou_4`` and ``oracle_iou_8``, the IoU of the truth's own majority.
    """
    with rasterio.open(mask) as found, rasterio.open(held_out) as reference:
        drawn, truth = found.read(1) == 1, reference.read(1)
    known, true = truth >= 0, truth == 1
    hits = (drawn & true).sum()
    scores = {
        'precision': float(hits / (drawn & known).sum()),
        'recall': float(hits / true.sum()),
    }
    for patch in (4, 8):
        cells = torch.from_numpy(true)[None, None].float()
        majority = F.avg_pool2d(cells, patch)[0, 0].numpy() > 0.5
        whole = majority.repeat(patch, axis=0).repeat(patch, axis=1) & known
        iou = (whole & true).sum() / (whole | true).sum()
        scores[f'oracle_iou_{patch}'] = float(iou)
    return scores


def run(folder: Path, output: Path, steps: int = 400, seed: int = 0) -> dict[str, Any]:
    """Train, predict through the command, evaluate the held-out part.

    Args:
        folder: Folder with the chip and its label.
        output: Folder for checkpoint and products.
        steps: Training steps.
        seed: Seed of chips and weights.

    Returns:
        What :func:`torchgeo_ctm.scoring.evaluate` returns for the right half, and
        ``supervised_iou`` of the U-Net there, and ``water``, see :func:`water`.
    """
    quiet_lightning()
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, mask = output / 'spain.ckpt', output / 'spain_mask.tif'
    train(folder, checkpoint, steps, seed)
    command = [COMMAND, 'predict', folder / 'spain_s2.tif', '--checkpoint', checkpoint]
    command += ['--output', mask, '--stride', '16', '--overwrite']
    subprocess.run(list(map(str, command)), check=True)
    hold_out(folder, output / 'held_out.tif')
    scores = evaluate(mask, output / 'held_out.tif')
    supervise(folder, output / 'supervised.tif', steps, seed)
    supervised = evaluate(output / 'supervised.tif', output / 'held_out.tif')
    scores['supervised_iou'] = supervised['iou']
    scores['water'] = water(mask, output / 'held_out.tif')
    (output / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    return scores


def main() -> None:
    """Read the arguments and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    scores = run(**vars(arguments))
    shown = {key: scores[key] for key in ('iou', 'supervised_iou', 'water')}
    sys.stdout.write(json.dumps(shown) + '\n')


if __name__ == '__main__':
    main()
