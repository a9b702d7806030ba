"""How the checkpoints of version 0.1 were made: once, and not again."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from tests.project.small_scene import (
    BANDS,
    CHECKPOINT,
    COLORS,
    NAMES,
    SEGMENTATION,
    ground,
    pixels,
)
from torchgeo_ctm import ClassTokenMaskingTask
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datamodules import PseudoMaskDataModule


def write_class_token_checkpoint(path: Path = CHECKPOINT) -> None:
    """Train a tiny task, and let Lightning save it."""
    pl.seed_everything(0)
    task = ClassTokenMaskingTask(
        'ctm_vit_tiny_patch8_224',
        in_channels=len(BANDS),
        num_classes=len(NAMES),
        img_size=32,
        model_options={'embed_dim': 16, 'depth': 2, 'num_heads': 2},
        class_names=list(NAMES),
        class_colors=list(COLORS),
        bands=list(BANDS),
        patch_pooling='share',
        presence='probability',
        refinement='soft_assignment',
        lr=4e-3,
        schedule='cosine',
    )
    chips: Any = []
    for seed in range(200):
        classes = ground(32, 32, seed=100 + seed)
        image = torch.from_numpy(pixels(classes, seed).astype(np.float32))
        chips.append({'image': image, 'mask': torch.from_numpy(classes)})
    _train(task, path, 25, DataLoader(chips, 10, shuffle=True))


def write_segmentation_checkpoint(scene: Path, masks: Path) -> None:
    """Train a tiny segmentation network on a mask of ours, and let Lightning save it."""
    pl.seed_everything(0)
    task = SemanticSegmentation(
        'fcn',
        in_channels=len(BANDS),
        num_classes=len(NAMES),
        num_filters=8,
        ignore_index=255,
        lr=2e-2,
    )
    data = PseudoMaskDataModule(
        str(scene), str(masks), list(BANDS), patch_size=32, batch_size=4, val_share=0.2
    )
    _train(task, SEGMENTATION, 15, data)


def _train(task: pl.LightningModule, path: Path, epochs: int, data: Any) -> None:
    trainer = pl.Trainer(
        accelerator='cpu',
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if isinstance(data, pl.LightningDataModule) else 0,
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(path)
