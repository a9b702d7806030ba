"""Water on a real Sentinel-2 chip, from image labels of small chips alone.

Trains on the left 60 % of the chip (labels: does this 64 px chip hold water, does it
hold land), predicts the whole chip with ``torchgeo-ctm predict`` and scores the right
40 %, which no training chip touches.

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
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchgeo_ctm.labels import presence_from_mask
from torchgeo_ctm.prediction import quiet_lightning
from torchgeo_ctm.scoring import evaluate
from torchgeo_ctm.trainers import ClassTokenMaskingTask

CHIP = 64
TRAINED_SHARE = 0.6
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
        """Return ``image`` (13, 64, 64) and ``label`` (2,): land, water."""
        rng = np.random.default_rng((self.seed, index))
        height, width = self.truth.shape
        row = int(rng.integers(height - CHIP + 1))
        col = int(rng.integers(width - CHIP + 1))
        place = np.s_[row : row + CHIP, col : col + CHIP]
        image = torch.from_numpy(self.image[:, *place])
        truth = torch.from_numpy(self.truth[place])
        image = torch.rot90(image, int(rng.integers(4)), (1, 2))
        image = image.flip(2) if rng.random() < 0.5 else image
        label = presence_from_mask(truth[None], 2, min_share=0.1)[0]
        return {'image': image.contiguous(), 'label': label}


def train(folder: Path, checkpoint: Path, steps: int, seed: int) -> None:
    """Train from image labels and save a checkpoint."""
    pl.seed_everything(seed, verbose=False)
    task = ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        num_classes=2,
        img_size=CHIP,
        # fields and canals are narrow here: patches of 4 px instead of 8
        model_options={'patch_size': 4, 'embed_dim': 128, 'depth': 3, 'num_heads': 4},
        patch_pooling='mean',
        class_names=['Land', 'Water'],
        class_colors=['#d9c08c', '#1c0dff'],
        lr=1e-3,
        schedule='cosine',
    )
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    chips = ImageLabels(folder, 16 * steps, seed)
    trainer.fit(task, DataLoader(chips, batch_size=16))
    trainer.save_checkpoint(checkpoint)


def hold_out(folder: Path, output: Path) -> None:
    """Write the reference without its trained part."""
    with rasterio.open(folder / 'spain_water.tif') as label:
        profile, truth = label.profile, label.read(1)
    truth[:, : int(truth.shape[1] * TRAINED_SHARE)] = -1
    with rasterio.open(output, 'w', **profile) as held_out:
        held_out.write(truth, 1)


def run(folder: Path, output: Path, steps: int = 400, seed: int = 0) -> dict[str, Any]:
    """Train, predict through the command, evaluate the held-out part.

    Args:
        folder: Folder with the chip and its label.
        output: Folder for checkpoint and products.
        steps: Training steps.
        seed: Seed of chips and weights.

    Returns:
        What :func:`torchgeo_ctm.scoring.evaluate` returns for the right 40 %.
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
    sys.stdout.write(json.dumps({k: scores[k] for k in ('iou', 'miou')}) + '\n')


if __name__ == '__main__':
    main()
