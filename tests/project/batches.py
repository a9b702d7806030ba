"""What batches hold as a task gets them: names, types and shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from tests.fakes.dfc2020 import write_dfc2020
from tests.project.small_scene import BANDS, CHECKPOINT, NAMES
from torchgeo_ctm import ClassTokenMaskingTask, DFC2020DataModule, SceneDataModule
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datamodules import PseudoMaskDataModule
from torchgeo_ctm.labels import RasterLabels
from torchgeo_ctm.trainers import load_task

SMALL: dict[str, Any] = {
    'model': 'ctm_vit_tiny_patch8_224',
    'img_size': 32,
    'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 2},
    'schedule': 'cosine',
}


class Recorder(Callback):
    """Keeps the first batch, and what predicting it returned."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.seen.setdefault('train', facts(arguments[2]))

    def on_predict_batch_end(self, *arguments: Any) -> None:
        self.seen.setdefault('predicted', facts(arguments[2]))
        self.seen.setdefault('predict', facts(arguments[3]))


def facts(batch: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return type and shape, without the batch's, of each entry."""
    return {
        key: [str(value.dtype), list(value.shape[1:])]
        if isinstance(value, torch.Tensor)
        else [type(value).__name__, []]
        for key, value in sorted(batch.items())
    }


def batches(scene: Path, mask: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the first batches of each data module.

    Args:
        scene: The small scene.
        mask: A class raster of it, which labels and reference are made of.
        folder: Where to write tiles.
    """
    labels = RasterLabels(mask, dict(enumerate(NAMES)), list(NAMES))
    given = str(scene), 2, 0
    trained = SceneDataModule(*given, reference=str(mask), labels=labels, block_size=48)
    pairs = PseudoMaskDataModule(
        str(scene), str(mask), list(BANDS), patch_size=32, batch_size=2
    )
    network = SemanticSegmentation(
        'fcn', in_channels=4, num_classes=3, num_filters=4, ignore_index=255
    )
    write_dfc2020(folder)
    tiles = DFC2020DataModule(2, 0, 32, root=str(folder))
    task = load_task(CHECKPOINT).train()
    return {
        'SceneDataModule': _seen('fit', task, trained)
        | _seen('predict', load_task(CHECKPOINT), SceneDataModule(*given)),
        'PseudoMaskDataModule': _seen('fit', network, pairs),
        'DFC2020DataModule': _seen('fit', ClassTokenMaskingTask(**SMALL), tiles),
    }


def _seen(
    what: str, task: pl.LightningModule, data: pl.LightningDataModule
) -> dict[str, Any]:
    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator='cpu',
        max_steps=1,
        limit_val_batches=0,
        limit_predict_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
    )
    getattr(trainer, what)(task, datamodule=data)
    return recorder.seen
