"""How fast windows of a scene are loaded to train on, beside the step that eats them.

Both sides of every ratio are measured in turns, in one run; the median counts:

* ``loader_over_step``: samples/s of the training loader of SceneDataModule over those
  of the task's training step on the CPU, for the tiny and the small model;
* ``over_torchgeo``: samples/s of that loader over those of TorchGeo's way to the same:
  RandomGeoSampler on the IntersectionDataset of an image and a mask RasterDataset, with
  0 or as many workers as there are cores, whichever is faster;
* ``by_group``: samples/s by how many windows are drawn from one neighbourhood.

The scene is a tiled, deflated GeoTIFF of 13 bands; labels come from a raster of
classes, which TorchGeo reads as masks. GDAL's block cache is held as small beside this
scene as its default is beside a whole Sentinel-2 tile (3.1 GB when decoded) in a
machine of 8 GB: an eighth. Else a second epoch would read from memory what in earnest
has to be decoded again; ``--cache_mb`` takes another size.

    python benchmarks/loading.py --json benchmarks/results/loading.json
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler

from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.datasets.dfc2020 import SOURCE_TO_CLASS
from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.labels import RasterLabels
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask

CHIP = 224
TILE = 1024
BATCH = 16
MODELS = ('tiny', 'small')
BYTES_A_PIXEL = 26


class Masks(RasterDataset):
    """Class rasters."""

    is_image = False


def make_scene(folder: Path, side: int) -> tuple[Path, Path]:
    """Write a scene and its classes, *side* × *side* px, unless they are there.

    Returns:
        The scene, 13 bands of uint16, and the classes 0…7, uint8; both deflated in
        tiles of 512 px, pixel-interleaved as GDAL does it by default.
    """
    scene, classes = folder / f'scene_{side}.tif', folder / f'classes_{side}.tif'
    if scene.exists() and classes.exists():
        return scene, classes
    image, source = render(TILE, TILE, (0, 0, 0))
    labels = np.array(SOURCE_TO_CLASS, np.uint8)[source][None]
    for path, pixels in ((scene, image), (classes, labels)):
        profile = {
            'driver': 'GTiff', 'dtype': pixels.dtype, 'count': len(pixels),
            'height': side, 'width': side, 'crs': 'EPSG:32632', 'tiled': True,
            'blockxsize': 512, 'blockysize': 512, 'compress': 'deflate',
            'num_threads': 'all_cpus',
            'transform': rasterio.Affine(10, 0, 600_000, 0, -10, 6_000_000),
        }  # fmt: skip
        part = path.with_name(f'.{path.name}')
        with rasterio.open(part, 'w', **profile) as raster:
            if len(pixels) > 1:
                raster.descriptions = SENTINEL2_BANDS
            for row, col in itertools.product(range(0, side, TILE), repeat=2):
                tall, wide = min(TILE, side - row), min(TILE, side - col)
                turned = np.rot90(pixels, (row // TILE + col // TILE) % 4, (1, 2))
                raster.write(
                    turned[:, :tall, :wide], window=Window(col, row, wide, tall)
                )
        part.rename(path)
    return scene, classes


def make_task(model: str) -> ClassTokenMaskingTask:
    """Return a task with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    return ClassTokenMaskingTask(
        model=f'ctm_vit_{model}_patch16_224', img_size=CHIP,
        class_names=list(DFC2020.classes),
    )  # fmt: skip


class Ours:
    """The training loader of SceneDataModule, epoch after epoch."""

    def __init__(
        self, scene: Path, classes: Path, windows: int, group: int, threads: int
    ) -> None:
        """Cut the scene's ground.

        Args:
            scene: The scene.
            classes: Raster of classes that labels come from.
            windows: Windows an epoch.
            group: Windows drawn from one neighbourhood.
            threads: Threads that read.
        """
        names = dict(enumerate(DFC2020.classes))
        self.data = SceneDataModule(
            str(scene), BATCH, threads, labels=RasterLabels(classes, names),
            length=windows, windows_per_read=group,
        )  # fmt: skip
        trainer = pl.Trainer(accelerator='cpu', logger=False)
        trainer.strategy.connect(make_task('tiny'))
        self.data.trainer = trainer
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.data.setup('fit')
        self.batches = self.data.train_dataloader()
        self.epoch = 0
        self.batches.epoch = lambda: self.epoch

    def __call__(self) -> float:
        """Return the samples per second of the next epoch."""
        self.epoch += 1
        return rate(iter(self.batches))


class TorchGeo:
    """TorchGeo's random windows of an image and a mask."""

    def __init__(self, scene: Path, classes: Path, windows: int, workers: int) -> None:
        """Combine the rasters; arguments as for :class:`Ours`."""
        dataset = RasterDataset(str(scene)) & Masks(str(classes))
        sampler = RandomGeoSampler(dataset, CHIP, windows)
        self.loader: Any = DataLoader(
            dataset, BATCH, sampler=sampler, num_workers=workers, drop_last=True,
            collate_fn=stack_samples, persistent_workers=workers > 0,
        )  # fmt: skip

    def __call__(self) -> float:
        """Return the samples per second of the next epoch."""
        return rate(iter(self.loader))


def rate(batches: Any) -> float:
    """Return the samples per second of an epoch, its start included."""
    start = time.perf_counter()
    count = sum(len(batch['image']) for batch in batches)
    return count / (time.perf_counter() - start)


def step_of(model: str, steps: int) -> Callable[[], float]:
    """Return what measures the samples per second of training steps on the CPU."""
    task = make_task(model)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    task._trainer = pl.Trainer(accelerator='cpu', logger=False)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4)
    batch = {
        'image': torch.rand(BATCH, 13, CHIP, CHIP) * 3000,
        'label': (torch.rand(BATCH, 8) > 0.5).float(),
        'label_known': torch.ones(BATCH, 8, dtype=torch.bool),
    }

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss: Any = task.training_step(batch, 0)
            loss.backward()
            optimizer.step()
        return steps * BATCH / (time.perf_counter() - start)

    return measure


def run(
    folder: Path,
    side: int = 4096,
    windows: int = 256,
    rounds: int = 5,
    groups: tuple[int, ...] = (1, 4, 8, 16),
    steps: int = 4,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        folder: Folder for scene and classes.
        side: Side of the scene in pixels.
        windows: Windows an epoch.
        rounds: Timed epochs of each side.
        groups: Windows drawn from one neighbourhood, to compare.
        steps: Training steps to time in a round.
    """
    quiet_lightning()
    warnings.simplefilter('ignore', PendingDeprecationWarning)
    folder.mkdir(parents=True, exist_ok=True)
    rasters = make_scene(folder, side)
    cores = os.cpu_count() or 1
    default = 8
    sides: dict[str, Callable[[], float]] = {
        f'ours_{group}': Ours(*rasters, windows, group, cores)
        for group in {*groups, default}
    }
    sides |= {
        f'torchgeo_{workers}': TorchGeo(*rasters, windows, workers)
        for workers in (0, cores)
    }
    sides |= {f'step_{model}': step_of(model, steps) for model in MODELS}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, measure in sides.items():
            speed = measure()
            if round_:  # the first one opens files and allocates
                taken[name].append(speed)
    speeds = {name: statistics.median(values) for name, values in taken.items()}
    ours = taken[f'ours_{default}']
    best = max((n for n in speeds if n.startswith('torchgeo')), key=speeds.__getitem__)

    def ratio(other: str) -> float:
        pairs = zip(ours, taken[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    return {
        'loader_over_step': {model: ratio(f'step_{model}') for model in MODELS},
        'over_torchgeo': ratio(best),
        'by_group': {str(group): speeds[f'ours_{group}'] for group in groups},
        'samples_per_second': speeds,
        'rounds': taken,
        'side': side,
        'cache_mb': int(os.environ['GDAL_CACHEMAX']),
        'machine': {
            'processor': platform.processor() or platform.machine(),
            'cores': cores,
            'threads': torch.get_num_threads(),
            'torch': torch.__version__,
        },
    }


def main() -> None:
    """Read the arguments, run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, nargs='?', default='output/loading')
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--side', type=int, default=4096)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--windows', type=int, default=256)
    parser.add_argument('--cache_mb', type=int, help="of GDAL's block cache")
    arguments = vars(parser.parse_args())
    target, cache = arguments.pop('json'), arguments.pop('cache_mb')
    eighth = arguments['side'] ** 2 * BYTES_A_PIXEL / 8e6
    # GDAL looks when the first block is read, in workers too
    os.environ['GDAL_CACHEMAX'] = str(cache or max(1, round(eighth)))
    arguments['folder'] = Path(arguments['folder'])
    report = json.dumps(run(**arguments), indent=2) + '\n'
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
