"""Stage d of :mod:`benchmarks.gpu`: whole scenes, right and fast."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch

from benchmarks.gpu_machine import (
    Job,
    Results,
    Utilization,
    exact_float32,
    peaks,
    reset_peaks,
    synchronize,
)
from benchmarks.gpu_right import recommended_task
from benchmarks.gpu_training import trained_checkpoint
from benchmarks.inference import make_scene
from benchmarks.tile import TILE, bare_seconds, refined_seconds, window_plan
from torchgeo_ctm import SceneDataModule, predict_scene
from torchgeo_ctm.datasets.synthetic import write_scene
from torchgeo_ctm.main import main
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task, save_task
from torchgeo_ctm.trainers.options import with_former_defaults

#: Windows at a time.
BATCH = 64


def _checkpoint(job: Job, kind: str) -> tuple[Path, str]:
    """Return a checkpoint of a kind, and how its weights came about."""
    trained = trained_checkpoint(job)
    if kind == 'recommended' and trained is not None:
        return trained, 'of the real run'
    path = job.folder / f'{kind}.ckpt'
    if not path.exists():
        torch.manual_seed(0)
        options = job.network
        task = (
            recommended_task(job)
            if kind == 'recommended'
            else ClassTokenMaskingTask(
                model='ctm_vit_base_patch16_224',
                img_size=options['img_size'],
                model_options=options['options'],
                **with_former_defaults({}),
            )
        )
        save_task(task, path)
    return path, 'random'


def _read(path: Path) -> Any:
    """Return the classes (H, W) of a mask."""
    with rasterio.open(path) as raster:
        return raster.read(1)


def equal_pixels(job: Job, _: Results) -> dict[str, Any]:
    """Map a synthetic scene on the CPU and on the device, recommended setting.

    Returns:
        The share of pixels with the CPU's class: ``fp32`` without TensorFloat-32,
        ``fp32_as_set`` as PyTorch is set by default, ``bf16``; ``classes`` in the
        CPU's mask; and where the weights come from.
    """
    side = 64 if job.tiny else 1024
    scene = job.folder / f'right_{side}.tif'
    write_scene(scene, job.folder / f'right_{side}_classes.tif', side, seed=1)
    checkpoint, weights = _checkpoint(job, 'recommended')

    def mapped(name: str, accelerator: str, precision: str) -> Any:
        mask = job.folder / f'right_{name}.tif'
        predict_scene(
            scene, checkpoint, mask, accelerator=accelerator, precision=precision,
            overwrite=True, progress=False, polygons=False, picture=False,
        )  # fmt: skip
        return _read(mask)

    exact_float32()
    expected = mapped('cpu', 'cpu', '32-true')
    given = {'fp32': mapped('fp32', job.accelerator, '32-true')}
    given['bf16'] = mapped('bf16', job.accelerator, 'bf16-mixed')
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    given['fp32_as_set'] = mapped('as_set', job.accelerator, '32-true')
    shares = {name: float((mask == expected).mean()) for name, mask in given.items()}
    classes = sorted(map(int, np.unique(expected)))
    return {**shares, 'classes': classes, 'scene_side': side, 'weights': weights}


def _batch(job: Job) -> int:
    """Return how many windows are mapped at a time."""
    return 4 if job.tiny else BATCH


def _autocast(job: Job) -> torch.autocast:
    """Return the context of the timed precision."""
    return torch.autocast(
        job.device, torch.bfloat16, enabled=job.precision != '32-true'
    )


def _bare(job: Job, task: ClassTokenMaskingTask, window: int) -> float:
    """Return the seconds that the bare network takes for a window, at its best batch."""
    sizes = (4,) if job.tiny else (32, BATCH, 128)
    with _autocast(job):
        return min(bare_seconds(task, window, size, job.device) for size in sizes)


def _read_seconds(task: ClassTokenMaskingTask, scene: Path) -> float:
    """Return the seconds that it takes to read all windows, without a network."""
    trainer = pl.Trainer(
        accelerator='cpu', logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(task)
    data = SceneDataModule(str(scene), BATCH, 2)
    data.trainer = trainer
    data.setup('predict')
    start = time.perf_counter()
    for batches in data.predict_dataloader():
        for _ in batches:
            pass
    return time.perf_counter() - start


def _pipeline(job: Job, scene: Path, checkpoint: Path, *options: str) -> float:
    """Run ``torchgeo-ctm predict`` in this process; return its seconds."""
    arguments = [
        'predict', scene, '--checkpoint', checkpoint,
        '--output', job.folder / 'mask.tif', '--overwrite',
        '--accelerator', job.accelerator, '--precision', job.precision,
        '--batch_size', _batch(job), *options,
    ]  # fmt: skip
    start = time.perf_counter()
    try:
        main(list(map(str, arguments)))
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f'torchgeo-ctm predict ended with {stop.code}') from stop
    synchronize(job.device)
    return time.perf_counter() - start


def _measure(job: Job, kind: str, side: int, parts: bool) -> dict[str, Any]:
    """Compare a whole prediction with the bare forward pass over its windows."""
    checkpoint, weights = _checkpoint(job, kind)
    start = time.perf_counter()
    scene = make_scene(job.folder / f'scene_{side}.tif', side)
    drawn = time.perf_counter() - start
    task = load_task(checkpoint).to(job.device)
    plan = window_plan(task, side)
    windows, window = len(plan), plan[0].height
    before = _bare(job, task, window) * windows
    reset_peaks(job.device)
    with Utilization(job.device) as utilization:
        seconds = _pipeline(job, scene, checkpoint)
    memory = peaks(job.device)
    bare = (before + _bare(job, task, window) * windows) / 2
    result: dict[str, Any] = {
        'pipeline_efficiency': bare / seconds,
        'pipeline_seconds': seconds,
        'bare_seconds': bare,
        'megapixels_per_second': side**2 / 1e6 / seconds,
        'windows': windows,
        'window': window,
        'scene_side': side,
        'weights': weights,
        'precision': job.precision,
        'drawing_seconds': drawn,
        **memory,
        **utilization.result(),
    }
    if side == TILE:
        result['seconds_per_tile'] = seconds
    if parts:
        with _autocast(job):
            refined = refined_seconds(task, window, _batch(job), job.device)
        result['parts'] = {
            'network_refinement_and_copies': refined * windows,
            'reading': _read_seconds(task, scene),
            'without_polygons_and_picture': _pipeline(
                job, scene, checkpoint, '--no_polygons', '--no_picture'
            ),
        }
    return result


def _small_side(job: Job) -> int:
    """Return the side of the small scene in pixels."""
    return 96 if job.tiny else min(2745, job.scene_side)


def _small(job: Job, kind: str) -> dict[str, Any]:
    """Map a small scene, after a still smaller one that warms up."""
    side = 64 if job.tiny else 512
    scene = make_scene(job.folder / f'scene_{side}.tif', side)
    _pipeline(job, scene, _checkpoint(job, kind)[0])
    return _measure(job, kind, _small_side(job), parts=True)


def _large(job: Job, kind: str, results: Results, seconds: float) -> dict[str, Any]:
    """Map the largest scene that fits in the time, as the small one tells.

    Args:
        job: What to measure, and where.
        kind: 'recommended' or 'base'.
        results: Those of earlier stages.
        seconds: What the stage may take.
    """
    small = results.get(f'scene_{kind}_small', {})
    if 'pipeline_seconds' not in small:
        return {'skipped': 'the small scene was not mapped, so the time is not known'}
    # the scene is drawn by whichever stage is first
    drawing = max(figures.get('drawing_seconds', 0) for figures in results.values())
    rate = small['pipeline_seconds'] + 2 * small['bare_seconds'] + drawing
    rate /= small['scene_side'] ** 2
    wanted = 128 if job.tiny else job.scene_side
    for side in (wanted, wanted // 2):
        if side > small['scene_side'] and rate * side**2 < seconds:
            result = _measure(job, kind, side, parts=False)
            if side < wanted:
                result['shortened'] = f'{side} px: {wanted} px would take too long'
            return result
    need = rate * (wanted // 2) ** 2
    return {'skipped': f'{wanted // 2} px would take {need:.0f} s of {seconds:.0f} s'}


def recommended_small(job: Job, _: Results) -> dict[str, Any]:
    """Map a small scene with the recommended setting."""
    return _small(job, 'recommended')


def base_small(job: Job, _: Results) -> dict[str, Any]:
    """Map a small scene with ViT-B/16."""
    return _small(job, 'base')


def recommended_large(job: Job, results: Results) -> dict[str, Any]:
    """Map a large scene with the recommended setting."""
    return _large(job, 'recommended', results, results['time']['left'] * 0.9)


def base_large(job: Job, results: Results) -> dict[str, Any]:
    """Map a large scene with ViT-B/16."""
    return _large(job, 'base', results, results['time']['left'] * 0.8)
