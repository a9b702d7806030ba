"""How fast the recommended setting maps a scene, and where the time goes.

    python benchmarks/tile.py --json benchmarks/results/tile.json
    python benchmarks/tile.py --full --json benchmarks/results/tile.json

Each side is timed in turns, in one run; the median of the rounds counts:

* ``megapixels_per_second``: pixels of the scene a second, from opening it to the finished
  files, with all products;
* ``pipeline_efficiency``: the bare forward pass over the same windows (random numbers in
  memory, local evidence and softmax, no refinement) over the whole pipeline;
* ``refinement_share``: refinement's share of what the network and refinement take;
* ``pipeline_over_unet``: our rate over that of TorchGeo's ``SemanticSegmentation``
  (U-Net, ResNet-18, 13 bands) in a plain loop over blended windows of 256 px at stride
  192, which writes one GeoTIFF;
* ``peak_rss_mb`` by side of the scene, one process each (``--full``: 10,980 px, too).

The scene is drawn (13 bands, 8 classes). Its network has the recommended setting, trained
for a minute: masks of random weights are noise, whose polygons never end.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor, nn
from torch.utils.data import Dataset

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.inference import make_scene, peak_rss
from benchmarks.real_scene_tokens import fit_task
from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.datasets.dfc2020 import DFC2020, SOURCE_TO_CLASS
from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task, save_task
from torchgeo_ctm.windows import WindowPlan

#: Classes of drawn scenes.
CLASS_NAMES = DFC2020.classes
#: Side of a Sentinel-2 tile in pixels.
TILE = 10_980
#: Windows of the plain loop of a U-Net, their distance, and how many at a time.
UNET_WINDOW, UNET_STRIDE, UNET_BATCH = 256, 192, 8


class Chips(Dataset[dict[str, Tensor]]):
    """Drawn chips and their image-level labels."""

    def __init__(self, count: int, side: int = 64) -> None:
        """Set number and side of the chips."""
        self.count, self.side = count, side

    def __len__(self) -> int:
        """Return the number of chips."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, side, side) and ``label`` (C,)."""
        image, mask = render(self.side, self.side, (1, 0, index))
        drawn = np.asarray(SOURCE_TO_CLASS)[mask]
        shares = np.bincount(drawn.ravel(), minlength=len(CLASS_NAMES)) / drawn.size
        label = torch.from_numpy((shares >= 0.1).astype(np.float32))
        return {'image': torch.from_numpy(image.astype(np.float32)), 'label': label}


def recommended_arguments(side: int = 64, **size: Any) -> dict[str, Any]:
    """Return arguments of a task with the recommended setting, which is its default.

    Args:
        side: Side of a training chip in pixels.
        **size: Options of the network in place of the recommended ones.
    """
    options = {'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'}
    return {
        'model': 'ctm_vit_tiny_patch8_224',
        'num_classes': len(CLASS_NAMES),
        'class_names': list(CLASS_NAMES),
        'img_size': side,
        'lr': 2e-3,
        'model_options': options | size,
    }


def make_checkpoint(path: Path, steps: int = 300) -> Path:
    """Train the recommended setting on drawn chips, unless the file is there."""
    if not path.exists():
        chips = Chips(16 * steps)
        save_task(fit_task(recommended_arguments(), chips, 16, 0, 'cpu'), path)
    return path


def window_plan(task: ClassTokenMaskingTask, side: int) -> WindowPlan:
    """Return the windows of a square scene, as ``torchgeo-ctm predict`` lays them."""
    chip = int(task.hparams['img_size'])
    window, overlap = task.prediction_window or (chip, chip // 2)
    return WindowPlan(side, side, window, window - overlap)


def timed(
    work: Callable[[], Any], least: float = 1.0, synchronize: bool = False
) -> float:
    """Return the seconds of one call, from calls of at least *least* seconds.

    Args:
        work: What to time, after one call that does not count.
        least: Seconds of all calls.
        synchronize: Wait for the GPU before the clock is read.
    """
    work()
    if synchronize:
        torch.cuda.synchronize()
    start, calls = time.perf_counter(), 0
    while True:
        work()
        calls += 1
        if synchronize:
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        if taken >= least:
            return taken / calls


@torch.inference_mode()
def bare_seconds(
    task: ClassTokenMaskingTask, side: int, batch: int, device: str = 'cpu'
) -> float:
    """Return the seconds that the forward pass of one window takes.

    Args:
        task: The network, on the device.
        side: Side of a window in pixels.
        batch: Windows at a time.
        device: 'cpu' or 'cuda'.
    """
    images = torch.rand(batch, len(task.bands), side, side, device=device) * 3000
    return (
        timed(lambda: task.maps(images, patches=False), synchronize=device != 'cpu')
        / batch
    )


@torch.inference_mode()
def refined_seconds(
    task: ClassTokenMaskingTask, side: int, batch: int, device: str = 'cpu'
) -> float:
    """Return the seconds of one window, refinement and copies included.

    Args:
        task: The network, on the device.
        side: Side of a window in pixels.
        batch: Windows at a time.
        device: 'cpu' or 'cuda'.
    """
    images = torch.rand(batch, len(task.bands), side, side) * 3000
    if device != 'cpu':
        images = images.pin_memory()

    def work() -> None:
        moved = images.to(device, non_blocking=True)
        task.predict_images({'image': moved})['scores'].cpu()

    return timed(work) / batch


def build_unet() -> nn.Module:
    """Return TorchGeo's U-Net on ResNet-18 for 13 bands."""
    torch.manual_seed(0)
    task = SemanticSegmentation(
        model='unet', backbone='resnet18', in_channels=13, num_classes=len(CLASS_NAMES)
    )
    network: nn.Module = task.model.eval()
    return network


@torch.inference_mode()
def unet_loop(network: nn.Module, scene: Path, mask: Path, device: str = 'cpu') -> None:
    """Map a scene as a user would: blended windows, the whole scene in memory.

    Args:
        network: The network, on the device.
        scene: Raster of 13 bands.
        mask: GeoTIFF to write.
        device: 'cpu' or 'cuda'.
    """
    ramp = torch.hann_window(UNET_WINDOW + 2, periodic=False)[1:-1]
    weight = ramp[:, None] * ramp
    with rasterio.open(scene) as raster:
        height, width = raster.height, raster.width
        total = torch.zeros(len(CLASS_NAMES), height, width)
        corners = [
            (min(row, height - UNET_WINDOW), min(col, width - UNET_WINDOW))
            for row in range(0, height - UNET_WINDOW + UNET_STRIDE, UNET_STRIDE)
            for col in range(0, width - UNET_WINDOW + UNET_STRIDE, UNET_STRIDE)
        ]
        for start in range(0, len(corners), UNET_BATCH):
            some = corners[start : start + UNET_BATCH]
            read = [
                raster.read(window=Window(col, row, UNET_WINDOW, UNET_WINDOW))
                for row, col in some
            ]
            images = torch.from_numpy(np.stack(read).astype(np.float32) / 10_000)
            shares = network(images.to(device)).softmax(dim=1).cpu()
            for (row, col), share in zip(some, shares, strict=True):
                part = total[:, row : row + UNET_WINDOW, col : col + UNET_WINDOW]
                part += share * weight
        profile = {'driver': 'GTiff', 'count': 1, 'dtype': 'uint8', 'crs': raster.crs}
        profile |= {'height': height, 'width': width, 'transform': raster.transform}
    with rasterio.open(mask, 'w', **profile, compress='deflate', tiled=True) as raster:
        raster.write(total.argmax(dim=0).to(torch.uint8).numpy(), 1)


def compare(folder: Path, side: int, rounds: int, batch: int) -> dict[str, Any]:
    """Time the pipeline, its forward pass and a U-Net's loop in turns.

    Args:
        folder: Folder for scene, checkpoint and products.
        side: Side of the scene in pixels.
        rounds: Timed rounds, after one that is not.
        batch: Windows at a time.
    """
    checkpoint = make_checkpoint(folder / 'recommended.ckpt')
    scene = make_scene(folder / f'scene_{side}.tif', side)
    task, network = load_task(checkpoint), build_unet()
    plan = window_plan(task, side)
    window = plan[0].height
    taken: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        bare = bare_seconds(task, window, batch) * len(plan)
        start = time.perf_counter()
        predict_scene(
            scene, checkpoint, folder / 'mask.tif', accelerator='cpu', overwrite=True,
            progress=False, batch_size=batch,
        )  # fmt: skip
        ours = time.perf_counter() - start
        refined = refined_seconds(task, window, batch) * len(plan)
        start = time.perf_counter()
        unet_loop(network, scene, folder / 'unet.tif')
        unet = time.perf_counter() - start
        if number:
            for name, value in (
                ('bare', bare), ('ours', ours), ('refined', refined), ('unet', unet)
            ):  # fmt: skip
                taken.setdefault(name, []).append(value)
    pairs = [dict(zip(taken, values, strict=True)) for values in zip(*taken.values())]
    ratios = {
        'pipeline_efficiency': [r['bare'] / r['ours'] for r in pairs],
        'network_and_refinement_share': [r['refined'] / r['ours'] for r in pairs],
        'refinement_share': [1 - r['bare'] / r['refined'] for r in pairs],
        'pipeline_over_unet': [r['unet'] / r['ours'] for r in pairs],
    }
    pixels = side**2 / 1e6
    median = {name: statistics.median(values) for name, values in taken.items()}
    return {
        **{name: statistics.median(values) for name, values in ratios.items()},
        'ranges': {name: [min(v), max(v)] for name, v in ratios.items()},
        'megapixels_per_second': pixels / median['ours'],
        'seconds': median,
        'windows_per_pixel': len(plan) * window**2 / side**2,
        'scene_side': side,
    }


def run(folder: Path, side: int, full: bool, rounds: int, batch: int) -> dict[str, Any]:
    """Measure everything; see :func:`compare` for the arguments."""
    quiet_lightning()
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = compare(folder, side, rounds, batch)
    checkpoint = folder / 'recommended.ckpt'
    sides = (side, TILE) if full else (side,)
    memory: dict[str, float] = {}
    for length in sides:
        scene = make_scene(folder / f'scene_{length}.tif', length)
        start = time.perf_counter()
        memory[str(length)] = peak_rss(checkpoint, scene, folder / 'mask.tif')
        if length == TILE:
            report['seconds_per_tile'] = time.perf_counter() - start
    report['peak_rss_mb'] = memory
    report['machine'] = {
        'processor': platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'bands': len(SENTINEL2_BANDS),
    }
    return report


def main() -> None:
    """Read the arguments, measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, nargs='?', default=Path('output/tile'))
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--side', type=int, default=2745, help='pixels')
    parser.add_argument('--full', action='store_true', help='10,980 px, too')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch', type=int, default=10, help='windows at a time')
    given = parser.parse_args()
    report = run(given.folder, given.side, given.full, given.rounds, given.batch)
    text = json.dumps(report, indent=2) + '\n'
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text, encoding='utf-8')
    sys.stdout.write(text)


if __name__ == '__main__':
    main()
