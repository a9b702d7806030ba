"""Stages b and c of :mod:`benchmarks.gpu`: steps, their data, and a real run."""

import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from benchmarks.gpu_machine import (
    ROOT,
    Job,
    Results,
    Utilization,
    peaks,
    reset_peaks,
    synchronize,
)
from benchmarks.training import (
    Setting,
    make_batch,
    make_step,
    memory,
    peak_memory,
    speed,
)
from torchgeo_ctm.trainers.options import GROUPS


def _setting(job: Job) -> Setting:
    """Return what is trained: ViT-B/16 in batches of 64."""
    return Setting(4 if job.tiny else 64, device=job.device, **job.network)


def step_memory(job: Job, _: Results) -> dict[str, Any]:
    """Measure the peak memory of a training step of every side.

    Returns:
        See :func:`benchmarks.training.memory`.
    """
    setting = _setting(job)
    if job.device == 'cpu':  # each side in a process of its own
        return memory(setting, ('plain', 'ours'))
    taken = {}
    for side in setting.sides:
        reset_peaks(job.device)
        taken[side] = peak_memory(side, setting, torch.get_num_threads())
    return {
        'peak_memory_mb': taken,
        'memory_share_of_plain': taken['ours'] / taken['plain'],
        'memory_share_of_plain_bf16': taken['ours'] / taken['plain_bf16'],
        'memory_share_of_timm': taken['ours'] / taken['timm'],
    }


def step_speed(job: Job, _: Results) -> dict[str, Any]:
    """Time the training step of every side in turns.

    Returns:
        See :func:`benchmarks.training.speed`.
    """
    reset_peaks(job.device)
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    rounds, steps = (2, 1) if job.tiny else (8, 4)
    return {**speed(_setting(job), rounds, steps), 'batch': _setting(job).batch}


def step_compiled(job: Job, _: Results) -> dict[str, Any]:
    """Time the step with and without ``compile_blocks``, and timm's, in turns.

    Returns:
        ``compiled_over_ours``, the median of rounds; what
        :func:`benchmarks.training.speed` returns; ``start_seconds``: the time of
        the whole stage less that of the timed rounds, mostly of compilation.
    """
    reset_peaks(job.device)
    start = time.perf_counter()
    rounds, steps = (2, 1) if job.tiny else (8, 4)
    setting = _setting(job)
    if job.tiny:  # compilation takes longer than everything else
        setting = replace(setting, options={**setting.options, 'depth': 1})
    result = speed(setting, rounds, steps, ('ours', 'compiled', 'timm'))
    taken = time.perf_counter() - start
    seconds = result['seconds']
    pairs = zip(seconds['ours'], seconds['compiled'], strict=True)
    result['compiled_over_ours'] = statistics.median(ours / c for ours, c in pairs)
    result['start_seconds'] = taken - sum(map(sum, seconds.values()))
    return result


def loader(job: Job, _: Results) -> dict[str, Any]:
    """Time the loading of training windows from a GeoTIFF scene beside the step.

    Returns:
        ``loader_over_step``: samples/s of the loader over those of the step, median
        of rounds in turns; ``samples_per_second`` of both.
    """
    from benchmarks.loading import Ours, make_scene

    reset_peaks(job.device)
    side, windows = (1344, 16) if job.tiny else (4096, 512)
    rasters = make_scene(job.folder, side)
    load = Ours(*rasters, windows, 8, os.cpu_count() or 1)
    setting = _setting(job)
    step = make_step('timm' if job.tiny else 'ours', setting, make_batch(setting))

    def step_rate() -> float:
        steps = 1 if job.tiny else 8
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(job.device)
        return steps * setting.batch / (time.perf_counter() - start)

    rates: dict[str, list[float]] = {'loader': [], 'step': []}
    rounds = 1 if job.tiny else 3
    for number in range(rounds + 1):
        for name, measure in (('loader', load), ('step', step_rate)):
            taken = measure()
            if number:  # the first one opens files and allocates
                rates[name].append(taken)
    pairs = zip(rates['loader'], rates['step'], strict=True)
    return {
        'loader_over_step': statistics.median(a / b for a, b in pairs),
        'samples_per_second': {k: statistics.median(v) for k, v in rates.items()},
        'scene_side': side,
        'windows': windows,
        'threads': os.cpu_count(),
    }


class Watch(Callback):
    """Write what a run did into a JSON file: losses and times of batches."""

    def __init__(self, path: str) -> None:
        """Set the file to write."""
        self.path = path
        self.losses: list[Tensor] = []
        self.images = 0
        self.seconds = 0.0
        self.validation: list[Tensor] = []
        self._start: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Start the clock of an epoch."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss on its device, so that nothing waits for it."""
        self.losses.append(outputs['loss'].detach())
        self.images += len(batch['image'])

    def _stop_clock(self, module: Any) -> None:
        """Add the seconds of the epoch, if one is under way."""
        synchronize(module.device.type)
        if self._start is not None:
            self.seconds += time.perf_counter() - self._start
        self._start = None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Stop the clock; Lightning has validated within the epoch."""
        self._stop_clock(module)
        if 'val_loss' in trainer.callback_metrics:
            self.validation.append(trainer.callback_metrics['val_loss'].detach().cpu())

    def on_fit_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Write the file."""
        self._stop_clock(module)
        losses = [float(loss) for loss in torch.stack(self.losses).float().cpu()]
        told = {
            'images_per_second': self.images / self.seconds,
            'epoch_seconds': self.seconds,
            'epochs': trainer.current_epoch,
            'steps': len(losses),
            'train_loss': losses[:: max(1, len(losses) // 50)],
            'val_loss': [float(loss) for loss in self.validation],
        }
        Path(self.path).write_text(json.dumps(told), encoding='utf-8')


def _recommended_configuration(job: Job) -> Path:
    """Write the configuration of synthetic tiles, with the recommended setting."""
    text = (ROOT / 'configs' / 'synthetic.yaml').read_text(encoding='utf-8')
    config = yaml.safe_load(text)
    for group in GROUPS:
        config['model']['init_args'].pop(group, None)
    path = job.folder / 'recommended.yaml'
    path.write_text(yaml.safe_dump(config), encoding='utf-8')
    return path


def real_run(job: Job, _: Results) -> dict[str, Any]:
    """Run ``torchgeo fit`` with the recommended setting on synthetic tiles.

    All its epochs, unless the time is over before; the tiles are drawn before.

    Returns:
        ``images_per_second`` of epochs with their validation, ``steps``,
        ``val_loss`` by epoch, ``train_loss`` at 50 steps, ``loss_falls`` (the last
        validation loss is below the first), utilization and memory.
    """
    from torchgeo.main import main

    from torchgeo_ctm.datasets import SyntheticLandCover

    data = {'num_tiles': (16, 8, 8), 'size': 32} if job.tiny else {}
    start = time.perf_counter()
    SyntheticLandCover(job.folder / 'tiles', **data)  # type: ignore[arg-type]
    drawn = time.perf_counter() - start
    told = job.folder / 'watch.json'
    workers = 0 if job.tiny else min(8, os.cpu_count() or 1)
    arguments = [
        '--config', _recommended_configuration(job),
        f'--data.dict_kwargs.root={job.folder / "tiles"}',
        f'--data.init_args.num_workers={workers}',
        f'--trainer.accelerator={job.accelerator}', '--trainer.devices=1',
        f'--trainer.precision={job.precision}',
        f'--trainer.max_time=00:00:{job.seconds // 60:02.0f}:{job.seconds % 60:02.0f}',
        f'--trainer.logger.init_args.save_dir={job.folder / "run"}',
        '--trainer.callbacks+=benchmarks.gpu_training.Watch',
        f'--trainer.callbacks.path={told}',
        '--trainer.enable_progress_bar=false',
    ]  # fmt: skip
    if job.tiny:
        arguments += [
            '--data.dict_kwargs.num_tiles=[16,8,8]', '--data.dict_kwargs.size=32',
            '--data.init_args.img_size=32', '--model.init_args.img_size=32',
            '--trainer.max_epochs=2',
            (
                '--model.init_args.model_options='
                '{embed_dim: 32, depth: 1, num_heads: 4, stem: conv}'
            ),
        ]  # fmt: skip
    reset_peaks(job.device)
    start = time.perf_counter()
    with Utilization(job.device) as utilization:
        main(['fit', *map(str, arguments)])
    seconds = time.perf_counter() - start
    result: dict[str, Any] = json.loads(told.read_text(encoding='utf-8'))
    losses = result['val_loss']
    return {
        **result,
        'loss_falls': len(losses) > 1 and losses[-1] < losses[0],
        **utilization.result(),
        **peaks(job.device),
        'fit_seconds': seconds,
        'tiles_seconds': drawn,
        'workers': workers,
        'precision': job.precision,
    }


def trained_checkpoint(job: Job) -> Path | None:
    """Return the last checkpoint of the real run, or None if there was none."""
    found = sorted((job.folder / 'run').rglob('last.ckpt'))
    return found[-1] if found else None
