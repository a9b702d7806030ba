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

from torchgeo_ctm.choose import SETTINGS, STEPS, Setting, choose
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.labels import presence_from_mask
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.scaling import SENTINEL2_BANDS, BandScaling
from torchgeo_ctm.scoring import evaluate
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.optimizers import build_optimizer, cosine_schedule
from torchgeo_ctm.trainers.options import with_setting

CHIP = 64
TRAINED_SHARE = 0.5
#: Parts of the rows that settings are compared by.
QUARTERS = 4
IGNORED = 255
COMMAND = Path(sys.executable).with_name('torchgeo-ctm')


class ImageLabels(Dataset[dict[str, Tensor]]):
    """Random chips of one scene, turned over at random; of each only its labels."""

    def __init__(
        self, folder: Path, length: int, seed: int, quarter: int | None = None
    ) -> None:
        """Read the trained part of the scene.

        Args:
            folder: Folder with ``spain_s2.tif`` and ``spain_water.tif``.
            length: Number of chips.
            seed: Decides which chips.
            quarter: Quarter of the rows that chips keep out of, 0 to 3; None: none.
        """
        with rasterio.open(folder / 'spain_s2.tif') as scene:
            last = int(scene.width * TRAINED_SHARE)
            self.image = scene.read()[:, :, :last].astype(np.float32)
        with rasterio.open(folder / 'spain_water.tif') as label:
            self.truth = label.read(1)[:, :last].astype(np.int64)
        self.length = length
        self.seed = seed
        rows = np.arange(self.truth.shape[0] - CHIP + 1)
        if quarter is not None:
            first, last = quarter_rows(self.truth.shape[0], quarter)
            rows = rows[(rows + CHIP <= first) | (rows >= last)]
        #: First rows that chips may have.
        self.rows = rows

    def __len__(self) -> int:
        """Return the number of chips."""
        return self.length

    def at(self, row: int, col: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (13, 64, 64), truth (64, 64) and label (2,) of a chip."""
        place = np.s_[row : row + CHIP, col : col + CHIP]
        image = torch.from_numpy(self.image[:, *place])
        truth = torch.from_numpy(self.truth[place])
        return image, truth, presence_from_mask(truth[None], 2, min_share=0.1)[0]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, 64, 64), ``label`` (2,): land, water; and ``mask``."""
        rng = np.random.default_rng((self.seed, index))
        row = int(self.rows[rng.integers(len(self.rows))])
        col = int(rng.integers(self.truth.shape[1] - CHIP + 1))
        image, truth, label = self.at(row, col)
        both = torch.cat([image, truth[None].float()])
        both = torch.rot90(both, int(rng.integers(4)), (1, 2))
        both = both.flip(2) if rng.random() < 0.5 else both
        mask = both[-1].long()
        mask[mask < 0] = IGNORED
        return {'image': both[:-1].contiguous(), 'label': label, 'mask': mask}


class HeldOutLabels(Dataset[dict[str, Tensor]]):
    """Chips of a quarter of the rows, each 32 px from the next, as they are."""

    def __init__(self, chips: ImageLabels, quarter: int) -> None:
        """Keep the scene, and where the chips lie."""
        self.chips = chips
        height, width = chips.truth.shape
        first, last = quarter_rows(height, quarter)
        self.places = [
            (row, col)
            for row in range(first, last - CHIP + 1, CHIP // 2)
            for col in range(0, width - CHIP + 1, CHIP // 2)
        ]

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, 64, 64), ``label`` (2,) and ``window`` (4,)."""
        row, col = self.places[index]
        image, _, label = self.chips.at(row, col)
        window = torch.tensor([row, col, CHIP, CHIP])
        return {'image': image, 'label': label, 'window': window}


def quarter_rows(height: int, quarter: int) -> tuple[int, int]:
    """Return the first row of a quarter, and that after its last."""
    return quarter * height // QUARTERS, (quarter + 1) * height // QUARTERS


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


def build_task(setting: Setting) -> ClassTokenMaskingTask:
    """Return the untrained network with a setting of ``torchgeo-ctm choose``."""
    arguments: dict[str, Any] = {
        'model': 'ctm_vit_tiny_patch8_224',
        'num_classes': 2,
        'img_size': CHIP,
        'bands': list(SENTINEL2_BANDS),
        'model_options': {'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
        'class_names': ['Land', 'Water'],
        'class_colors': ['#d9c08c', '#1c0dff'],
        'lr': 2e-3,
        'optimization': {'schedule': 'cosine'},
    }
    return ClassTokenMaskingTask(**with_setting(arguments, setting))


def train(
    folder: Path, checkpoint: Path, steps: int, seed: int, setting: Setting
) -> None:
    """Train from image labels and save a checkpoint."""
    pl.seed_everything(seed, verbose=False)
    fit(build_task(setting), folder, steps, seed).save_checkpoint(checkpoint)


def chosen(folder: Path) -> str:
    """Return the setting that ``torchgeo-ctm choose`` takes by labels of the left half.

    Each of four seeds holds out another quarter of its rows.
    """

    def build_data(seed: int) -> pl.LightningDataModule:
        chips = ImageLabels(folder, 16 * STEPS, seed, seed)
        held = HeldOutLabels(chips, seed)
        data = pl.LightningDataModule()
        data.train_dataloader = lambda: DataLoader(chips, 16)  # type: ignore[method-assign]
        data.val_dataloader = lambda: DataLoader(held, 16)  # type: ignore[method-assign]
        return data

    choice = choose(build_task, build_data, seeds=range(QUARTERS), accelerator='cpu')
    sys.stdout.write('\n'.join(choice.report()) + '\n')
    return choice.taken


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
        found = oriented(task.eval(), BandScaling(SENTINEL2_BANDS)(image[None]))
    with rasterio.open(output, 'w', **profile) as mask:
        mask.write(found.numpy().astype(np.uint8))


def oriented(network: torch.nn.Module, image: Tensor) -> Tensor:
    """Return the mask (1, H, W) of the mean over eight orientations, as ours."""
    total: Tensor = torch.zeros(())
    for turn in range(8):
        x = torch.rot90(image.flip(-1) if turn >= 4 else image, turn % 4, (-2, -1))
        shares = torch.rot90(network(x).softmax(dim=1), -turn % 4, (-2, -1))
        total = total + (shares.flip(-1) if turn >= 4 else shares)
    return total.argmax(dim=1)


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


def run(
    folder: Path,
    output: Path,
    steps: int = 800,
    seed: int = 0,
    setting: str = 'class always present',
) -> dict[str, Any]:
    """Train, predict through the command, evaluate the held-out part.

    Args:
        folder: Folder with the chip and its label.
        output: Folder for checkpoint and products.
        steps: Training steps.
        seed: Seed of chips and weights.
        setting: Name of a setting of ``torchgeo-ctm choose``, or 'choose' for the one
            that it takes.

    Returns:
        What :func:`torchgeo_ctm.scoring.evaluate` returns for the right half, and
        ``supervised_iou`` of the U-Net there, and ``water``, see :func:`water`.
    """
    quiet_lightning()
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, mask = output / 'spain.ckpt', output / 'spain_mask.tif'
    name = chosen(folder) if setting == 'choose' else setting
    train(folder, checkpoint, steps, seed, SETTINGS[name])
    command = [COMMAND, 'predict', folder / 'spain_s2.tif', '--checkpoint', checkpoint]
    command += ['--output', mask, '--ensemble', 'dihedral', '--overwrite']
    subprocess.run(list(map(str, command)), check=True)
    hold_out(folder, output / 'held_out.tif')
    scores = evaluate(mask, output / 'held_out.tif')
    supervise(folder, output / 'supervised.tif', steps, seed)
    supervised = evaluate(output / 'supervised.tif', output / 'held_out.tif')
    scores['supervised_iou'] = supervised['iou']
    scores['setting'] = name
    scores['water'] = water(mask, output / 'held_out.tif')
    (output / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    return scores


def main() -> None:
    """Read the arguments and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--steps', type=int, default=800)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--setting', choices=[*SETTINGS, 'choose'], default='class always present'
    )
    arguments = parser.parse_args()
    scores = run(**vars(arguments))
    shown = {key: scores[key] for key in ('setting', 'iou', 'supervised_iou', 'water')}
    sys.stdout.write(json.dumps(shown) + '\n')


if __name__ == '__main__':
    main()
