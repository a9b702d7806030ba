"""Demo without the real scene: synthetic chips, image labels, a synthetic scene."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import TQDMProgressBar

from .. import scoring
from ..datamodules import SceneDataModule, SyntheticDataModule
from ..datasets import DFC2020
from ..datasets.synthetic import write_scene
from ..inference.writer import PseudoMaskWriter
from ..maps.decoder import MapOptions
from ..prediction import build_trainer, predict_scene
from ..trainers import AttentionOptions, ClassTokenMaskingTask, PatchOptions, load_task
from .data import open_folder, write_metrics

CHIP = 128
SCENE = 1024
STEPS = 800
BATCH = 8


def run_synthetic_demo(
    output: Path, compare: bool = False, seed: int = 0, steps: int = STEPS
) -> dict[str, float]:
    """Generate data, train on image labels, map a scene and score the mask.

    Args:
        output: Folder for all files, created if missing. Products of an earlier run
            are replaced, its synthetic chips are reused.
        compare: Also train without masking, and score attention alone with and without.
        seed: Seed of data and training.
        steps: Training steps.

    Returns:
        The content of ``metrics.json``. IoU is 0 to 1: that of the scene's mask
        (``pseudo_mask_miou``), of the best single class (``constant_guess_miou``) and
        of the mask from the true image labels of each window
        (``label_oracle_miou``). ``seconds`` is wall time.

    Raises:
        OutputError: If *output* cannot be a folder, or holds other files.
    """
    start = time.perf_counter()
    open_folder(output)
    scene, reference = output / 'scene.tif', output / 'reference.tif'
    write_scene(scene, reference, SCENE, seed + 1)
    task, datamodule = _train(output, seed, steps, mask_rate=0.5)
    checkpoint = output / 'checkpoint.ckpt'
    trainer = datamodule.trainer
    if trainer is None:
        raise RuntimeError('The data module has no trainer.')
    trainer.save_checkpoint(checkpoint)
    mask = output / 'mask.tif'
    predict_scene(scene, checkpoint, mask, overwrite=True)
    oracle = output / 'mask_true_labels.tif'
    _predict_with_true_labels(scene, reference, checkpoint, oracle)
    scores = scoring.evaluate(mask, reference, DFC2020.classes)
    bound = scoring.evaluate(oracle, reference, DFC2020.classes)
    metrics = {
        'pseudo_mask_miou': scores['miou'],
        'constant_guess_miou': constant_guess_miou(np.array(scores['confusion'])),
        'label_oracle_miou': bound['miou'],
        'seconds': time.perf_counter() - start,
    }
    if compare:
        without, _ = _train(output, seed, steps, mask_rate=0.0)
        metrics['attention_miou_with_masking'] = _attention_miou(task, datamodule)
        metrics['attention_miou_without_masking'] = _attention_miou(without, datamodule)
        metrics['seconds'] = time.perf_counter() - start
    write_metrics(output, metrics)
    return metrics


def demo_task(mask_rate: float) -> ClassTokenMaskingTask:
    """Return the small model that the synthetic demo trains."""
    return ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        img_size=CHIP,
        model_options={'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
        class_names=list(DFC2020.classes),
        class_colors=list(DFC2020.class_colors),
        mask_rate=mask_rate,
        lr=2e-3,
        # what the comparison of attention with and without masking is about: maps that
        # use the class tokens
        patches=PatchOptions(head='tokens', pooling='logsumexp', balance=0),
        attention=AttentionOptions(distillation_weight=0),
        maps=MapOptions(source='fused', presence='probability', refinement_weight=1),
    )


def _train(
    output: Path, seed: int, steps: int, mask_rate: float
) -> tuple[ClassTokenMaskingTask, SyntheticDataModule]:
    """Train on synthetic chips and their image-level labels."""
    pl.seed_everything(seed, verbose=False)
    datamodule = SyntheticDataModule(
        batch_size=BATCH, img_size=CHIP, root=str(output / 'data'), seed=seed
    )
    task = demo_task(mask_rate)
    trainer = build_trainer(
        'auto',
        max_steps=steps,
        limit_val_batches=0,
        callbacks=[TQDMProgressBar(refresh_rate=10)],
    )
    trainer.fit(task, datamodule=datamodule)
    return task, datamodule


def _predict_with_true_labels(
    scene: Path, reference: Path, checkpoint: Path, output: Path
) -> None:
    """Map the scene again, with the true image-level labels of each window."""
    task = load_task(checkpoint).with_options(labels='true')
    writer = PseudoMaskWriter(str(output), overwrite=True, confidence=False)
    trainer = build_trainer('auto', callbacks=[writer])
    datamodule = SceneDataModule(str(scene), reference=str(reference))
    trainer.predict(task, datamodule=datamodule, return_predictions=False)


def report(metrics: dict[str, float]) -> list[str]:
    """Return what the command prints."""
    width = max(map(len, metrics))
    return [
        'Synthetic chips and a synthetic scene: they are easier than real ones.',
        *(f'{name:<{width}}  {value:.3f}' for name, value in metrics.items()),
    ]


def constant_guess_miou(confusion: np.ndarray[Any, Any]) -> float:
    """Return the mean IoU of the best single class, from a confusion matrix (C, C)."""
    pixels = confusion.sum(axis=1)
    classes = int((pixels > 0).sum())
    return float(pixels.max() / pixels.sum() / max(classes, 1))


def _attention_miou(
    task: ClassTokenMaskingTask, datamodule: SyntheticDataModule
) -> float:
    """Return the mean IoU of the test chips from class-token attention alone."""
    task.with_options(source='attention')
    trainer = build_trainer('auto')
    [scores] = trainer.test(task, datamodule=datamodule, verbose=False)
    return scores['test_miou']
