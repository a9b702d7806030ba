"""How fast whole scenes are mapped, in how much memory, and what a crash costs.

Every ratio has both sides in one run:

* ``pipeline_efficiency``: pixels per second from opening the scene to the finished
  files, over those of the bare model's best batched forward pass (ViT-B/16, 13 bands,
  stride = window, all products; ``…_rasters_only`` without polygons and quick look);
* ``model_vs_timm``, ``attention_only_vs_timm``, ``half_heads_vs_timm``: see
  :mod:`benchmarks.model_speed`;
* ``peak_rss_mb``: peak memory by side of the scene (tiny model), one process each;
* ``windows_computed_twice``: share of the windows that were computed twice when the
  process was killed half-way and started again, at most.

    python benchmarks/inference.py --json benchmarks/results/inference.json
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task, save_task
from torchgeo_ctm.trainers.options import with_former_defaults

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.model_speed import model_ratios

CHIP = 224
#: What loads a checkpoint for predict_scene.
LOADER = 'torchgeo_ctm.trainers.any_checkpoint.load_scene_predictor'
TILE = 512


def make_scene(path: Path, side: int) -> Path:
    """Write a scene of *side* × *side* px, 13 bands of uint16, unless it is there."""
    if path.exists():
        return path
    image, _ = render(TILE, TILE, (0, 0, 0))
    profile = {
        'driver': 'GTiff', 'dtype': 'uint16', 'count': 13, 'height': side,
        'width': side, 'crs': 'EPSG:32632', 'tiled': True, 'blockxsize': 256,
        'blockysize': 256, 'compress': 'deflate', 'zlevel': 1, 'num_threads': 'all_cpus',
        'transform': rasterio.Affine(10, 0, 600_000, 0, -10, 6_000_000),
        'BIGTIFF': 'IF_SAFER',
    }  # fmt: skip
    part = path.with_name(f'.{path.name}')
    with rasterio.open(part, 'w', **profile) as raster:
        raster.descriptions = SENTINEL2_BANDS
        for row in range(0, side, TILE):
            for col in range(0, side, TILE):
                tall, wide = min(TILE, side - row), min(TILE, side - col)
                turned = np.rot90(image, (row // TILE + col // TILE) % 4, (1, 2))
                raster.write(
                    turned[:, :tall, :wide], window=Window(col, row, wide, tall)
                )
    part.rename(path)
    return path


def make_checkpoint(path: Path, model: str) -> Path:
    """Save a network with random weights: speed does not depend on them.

    Its maps are those of version 0.1, which need the transformer.
    """
    torch.manual_seed(0)
    if not path.exists():
        options = with_former_defaults({})
        save_task(ClassTokenMaskingTask(model=model, img_size=CHIP, **options), path)
    return path


def bare_seconds(task: ClassTokenMaskingTask, batch: int, windows: int) -> float:
    """Return the seconds that the bare forward pass with maps takes for windows."""
    images = torch.randn(batch, 13, CHIP, CHIP)
    batches = max(1, windows // batch)
    with torch.inference_mode():
        task.model.forward_attention(images)
        start = time.perf_counter()
        for _ in range(batches):
            task.model.forward_attention(images)
        taken = time.perf_counter() - start
    return taken / (batches * batch) * windows


def pipeline(
    folder: Path,
    side: int,
    batches: tuple[int, ...] = (4, 8, 10, 16),
    rounds: int = 4,
    **products: Any,
) -> dict[str, Any]:
    """Compare whole predictions with the bare model, in turns; the median counts.

    Args:
        folder: Folder for scene, checkpoint and products.
        side: Side of the scene in pixels.
        batches: Batch sizes, of which the bare model's best is taken.
        rounds: Timed predictions.
        **products: What to leave out, as predict_scene takes it.
    """
    checkpoint = make_checkpoint(folder / 'base.ckpt', 'ctm_vit_base_patch16_224')
    scene = make_scene(folder / f'scene_{side}.tif', side)
    task = load_task(checkpoint)
    windows = (side // CHIP) ** 2
    trials = {batch: bare_seconds(task, batch, 48) for batch in batches}
    best = min(trials, key=lambda batch: trials[batch])
    ratios, taken, bare = [], [], []
    # the checkpoint is read before the scene is opened, and does not count
    with unittest.mock.patch(LOADER, lambda _: task):
        for round_ in range(rounds + 1):
            before = bare_seconds(task, best, windows)
            start = time.perf_counter()
            predict_scene(
                scene, checkpoint, folder / 'mask.tif', stride=CHIP, accelerator='cpu',
                overwrite=True, progress=False, **products,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            after = bare_seconds(task, best, windows)
            if round_:  # the first one imports and allocates
                bare.append((before + after) / 2)
                taken.append(seconds)
                ratios.append(bare[-1] / seconds)
    return {
        'pipeline_efficiency': statistics.median(ratios),
        'pipeline_efficiency_rounds': ratios,
        'pipeline_seconds': statistics.median(taken),
        'bare_seconds': statistics.median(bare),
        'bare_batch_size': best,
        'windows': windows,
    }


def peak_rss(checkpoint: Path, scene: Path, mask: Path, *options: Any) -> float:
    """Return the peak memory in MB of predicting a scene in a process of its own.

    Linux tells it (``VmHWM`` in ``/proc/self/status``).

    Args:
        checkpoint: The network.
        scene: The scene.
        mask: File to write.
        *options: More of ``torchgeo-ctm predict``.
    """
    # ru_maxrss would hold the peak of this process, from before the other one began
    code = (
        'import re, sys; from torchgeo_ctm.main import main\n'
        'try: main(sys.argv[1:])\n'
        'except SystemExit as stop: assert not stop.code, stop.code\n'
        'status = open("/proc/self/status").read()\n'
        'print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])'
    )
    command = [sys.executable, '-c', code, 'predict', scene, '--checkpoint', checkpoint]
    command += ['--output', mask, '--accelerator', 'cpu', '--overwrite', *options]
    done = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.splitlines()[-1]) * 1024 / 1e6


def computed_twice(folder: Path, side: int, batch: int = 10) -> float:
    """Kill a prediction half-way, start it again; return the share computed twice."""
    checkpoint = make_checkpoint(folder / 'tiny.ckpt', 'ctm_vit_tiny_patch16_224')
    scene = make_scene(folder / f'scene_{side}.tif', side)
    output = folder / 'killed.tif'
    command = [Path(sys.executable).with_name('torchgeo-ctm'), 'predict', scene]
    command += ['--checkpoint', checkpoint, '--output', output, '--accelerator', 'cpu']
    command += ['--overwrite', '--batch_size', batch]
    flags = folder / '.killed.tif.part' / 'finished'
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if flags.exists() and (np.fromfile(flags, np.uint8) > 0).mean() > 0.5:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.05)
    done = np.fromfile(flags, np.uint8) > 0
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    # what was in flight when the process died: two batches at most
    return min(2 * batch, int((~done).sum())) / len(done)


def run(
    folder: Path, side: int = 2240, sides: tuple[int, ...] = (2745, 10980)
) -> dict[str, Any]:
    """Measure everything.

    Args:
        folder: Folder for scenes, checkpoints and masks (4 GB at the default sizes).
        side: Side of the scene that speed is measured on, in pixels.
        sides: Sides of the scenes that memory is measured on.
    """
    quiet_lightning()
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = pipeline(folder, side)
    rasters = pipeline(folder, side, polygons=False, picture=False)
    report['pipeline_efficiency_rasters_only'] = rasters['pipeline_efficiency']
    report |= model_ratios()
    report['windows_computed_twice'] = computed_twice(folder, side)
    tiny = make_checkpoint(folder / 'tiny.ckpt', 'ctm_vit_tiny_patch16_224')
    report['peak_rss_mb'] = {
        str(size): peak_rss(
            tiny,
            make_scene(folder / f'scene_{size}.tif', size),
            folder / f'mask_{size}.tif',
            *('--stride', CHIP),
        )
        for size in sides
    }
    report['machine'] = {
        'processor': platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
    }
    return report


def main() -> None:
    """Read the arguments, run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, nargs='?', default='output/inference')
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--side', type=int, default=2240)
    parser.add_argument('--sides', type=int, nargs='*', default=(2745, 10980))
    arguments = vars(parser.parse_args())
    target = arguments.pop('json')
    arguments['folder'] = Path(arguments['folder'])
    report = json.dumps(run(**arguments), indent=2) + '\n'
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
