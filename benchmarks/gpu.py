r"""What a GPU computes, and how fast, in stages that each leave their figures behind.

    python benchmarks/gpu.py --device cuda --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny --json gpu.json

The JSON is written after each stage. A stage that fails leaves one line in it, and the
next one runs; one that would begin after ``--budget`` seconds is skipped, and said.
Stages run in a process of their own, which is replaced when one fails or lasts too
long: an error on the device spoils its process. Every ratio has both sides in one run.

========================= ============================================================
stage                     what it measures
========================= ============================================================
equal_outputs             logits, maps, gradients, masking against the CPU's, float32
equal_refinement          refined scores against the CPU's
golden_vectors            outputs of the reference network (``--golden FOLDER``)
checkpoint_loads          a checkpoint of the device's, loaded where no GPU is visible
every_option              a step of every network, loss option and pooling, no warning
step_memory, step_speed   training step of ViT-B/16: see :mod:`benchmarks.training`
step_compiled             the same with ``compile_blocks``
real_run                  ``torchgeo fit`` on synthetic tiles, recommended setting
equal_pixels              a scene of 1,024 px against the CPU's mask, float32 and bf16
scene_recommended_small   2,745 px to all products, and where the time goes
scene_base_small          the same with ViT-B/16, windows of 224 px at stride 112
loader                    windows of a GeoTIFF scene, loaded to train, beside the step
scene_recommended_large   10,980 px, or half of that where the time left is short
scene_base_large          the same
========================= ============================================================

GPU machines are often bare. With Python 3.12, torch 2.11, torchvision, lightning, timm,
torchmetrics, einops, pandas, scipy, matplotlib and tensorboard installed, the rest fits
in 56 MiB of wheels (17 files). Where there is a network::

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 -d .whl affine==3.0.1 click-plugins==1.1.1.2 \
        cligj==0.7.2 docstring-parser==0.18.0 geopandas==1.2.0 jsonargparse==4.53.0 \
        kornia==0.9.0 kornia-rs==0.2.0 lightly==1.6.0 lightly-utils==0.0.2 \
        pyogrio==0.13.0 pyproj==3.8.0 rasterio==1.4.3 \
        segmentation-models-pytorch==0.6.0 shapely==2.2.0 torchgeo==0.8.1 \
        typeshed-client==2.15.0
    python benchmarks/gpu.py --shrink .whl

The second command compresses the wheels with LZMA, 78 MB to 58 MB; pip reads them. (The
wheel of rasterio 1.5 is 17 MB larger.) On the bare machine::

    python -m pip install --no-index --no-deps --target site .whl/*.whl
    PYTHONPATH=site python benchmarks/gpu.py --device cuda --json gpu.json
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(ROOT))
from benchmarks.gpu_machine import Job, describe


@dataclass(frozen=True)
class Stage:
    """A stage: a function of a job and of earlier results.

    Attributes:
        name: Its name in the JSON.
        function: Where it is, as 'module.function' in :mod:`benchmarks`.
        least: Seconds that must be left for it to begin.
        most: Seconds after which it is ended.
        fresh: Whether it has a process of its own, because it measures memory.
    """

    name: str
    function: str
    least: float
    most: float
    fresh: bool = False


STAGES = (
    Stage('equal_outputs', 'gpu_right.equal_outputs', 10, 60),
    Stage('equal_refinement', 'gpu_right.equal_refinement', 5, 30),
    Stage('golden_vectors', 'gpu_right.golden_vectors', 5, 30),
    Stage('checkpoint_loads', 'gpu_right.checkpoint_loads', 10, 60),
    Stage('step_memory', 'gpu_training.step_memory', 10, 60),
    Stage('step_speed', 'gpu_training.step_speed', 20, 90),
    Stage('every_option', 'gpu_right.every_option', 20, 90),
    Stage('real_run', 'gpu_training.real_run', 60, 120),
    Stage('equal_pixels', 'gpu_scene.equal_pixels', 20, 60),
    Stage('scene_recommended_small', 'gpu_scene.recommended_small', 20, 90, True),
    Stage('scene_base_small', 'gpu_scene.base_small', 20, 60, True),
    Stage('loader', 'gpu_training.loader', 20, 60),
    Stage('step_compiled', 'gpu_training.step_compiled', 40, 90),
    Stage('scene_recommended_large', 'gpu_scene.recommended_large', 30, 200, True),
    Stage('scene_base_large', 'gpu_scene.base_large', 30, 120, True),
)

#: Stage, figure, whether more is better, and the goal.
GOALS = (
    ('equal_outputs', 'within_tolerance', True, True),
    ('equal_outputs', 'same_masking', True, True),
    ('equal_refinement', 'within_tolerance', True, True),
    ('golden_vectors', 'within_tolerance', True, True),
    ('checkpoint_loads', 'within_tolerance', True, True),
    ('step_speed', 'ours_over_plain', True, 3.0),
    ('step_speed', 'ours_over_timm', True, 0.9),
    ('step_memory', 'memory_share_of_plain', False, 0.25),
    ('loader', 'loader_over_step', True, 1.0),
    ('real_run', 'loss_falls', True, True),
    ('equal_pixels', 'fp32', True, 0.999),
    ('equal_pixels', 'bf16', True, 0.99),
    ('scene_recommended_large', 'pipeline_efficiency', True, 0.85),
    ('scene_recommended_large', 'seconds_per_tile', False, 60.0),
    ('scene_base_large', 'pipeline_efficiency', True, 0.85),
    ('scene_base_large', 'seconds_per_tile', False, 60.0),
)


def _line(error: BaseException) -> str:
    """Return an error as one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'[:500]


def _call(function: str, job: Job, results: Mapping[str, Any]) -> dict[str, Any]:
    """Run a stage by its name; return its figures, or its error in one line."""
    try:
        module, _, name = function.rpartition('.')
        stage = getattr(import_module(f'benchmarks.{module}'), name)
        figures: dict[str, Any] = stage(job, results)
        return figures
    except Exception as error:  # noqa: BLE001 - every stage leaves a line
        return {'error': _line(error)}


def _serve(connection: Connection) -> None:
    """Run stages in this process until the connection closes."""
    os.dup2(2, 1)  # what libraries print is no result
    try:
        while True:
            connection.send(_call(*connection.recv()))
    except EOFError:
        return


class Worker:
    """A process that runs stages, replaced when it cannot be trusted any more."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: Any = None
        self._connection: Any = None

    def run(
        self, stage: Stage, job: Job, results: Mapping[str, Any], most: float
    ) -> dict[str, Any]:
        """Return the figures of a stage, or what went wrong in one line.

        Args:
            stage: The stage.
            job: What to measure, and where.
            results: Those of earlier stages.
            most: Seconds after which it is ended.
        """
        if self._process is None or (stage.fresh and not job.tiny):
            self.close()
            self._start()
        self._connection.send((stage.function, job, results))
        try:
            if not self._connection.poll(most):
                self.close()
                return {'error': f'ended after {most:.0f} s'}
            figures: dict[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(10)
            code = self._process.exitcode
            self.close()
            return {'error': f'the process ended with exit status {code}'}
        if 'error' in figures:
            self.close()
        return figures

    def _start(self) -> None:
        """Start a process."""
        context = multiprocessing.get_context('spawn')
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,))
        self._process.start()
        other.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None


def goals(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return each goal beside its figure, where that was measured."""
    told = {}
    for stage, key, more, goal in GOALS:
        figure = results.get(stage, {}).get(key)
        if figure is not None:
            met = figure >= goal if more else figure <= goal
            told[f'{stage}.{key}'] = {'figure': figure, 'goal': goal, 'met': met}
    if 'faults' in results.get('every_option', {}):
        faults = results['every_option']['faults']
        told['every_option.faults'] = {
            'figure': len(faults), 'goal': 0, 'met': not faults
        }  # fmt: skip
    return told


def _write(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the report, complete or not at all."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.{path.name}.part')
        part.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
        part.replace(path)


def run(
    job: Job,
    budget: float = 420,
    target: Path | None = None,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the stages.

    Args:
        job: What to measure, and where.
        budget: Seconds after which no stage begins, and the running one is ended.
        target: JSON file to write after each stage.
        only: Names of the stages to run; none named: all of them.

    Returns:
        ``machine``, ``goals`` and ``stages``: figures, ``error`` or ``skipped``, and
        ``stage_seconds``, by name.
    """
    start = time.perf_counter()
    # as torchgeo-ctm predict sets it for GeoTIFFs, and no more for the other stages
    os.environ.setdefault('GDAL_CACHEMAX', '48')
    job.folder.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Any] = {}
    report: dict[str, Any] = {'tiny': job.tiny, 'budget': budget, 'goals': {}}
    report |= {'stages': stages, 'machine': {}}
    worker = Worker()
    machine = Stage('machine', 'gpu.machine', 0, 60)
    try:
        for stage in (machine, *(s for s in STAGES if not only or s.name in only)):
            began = time.perf_counter()
            left = max(0.0, budget - (began - start))
            if left < (5 if job.tiny else stage.least):
                stages[stage.name] = {'skipped': f'{left:.0f} s of {budget:.0f} s left'}
                continue
            most = max(1.0, min(left, budget if job.tiny else stage.most))
            given = stages | {'time': {'left': most}}
            figures = worker.run(stage, job, given, most)
            if stage is machine:
                report['machine'] = figures
                sys.stderr.write(f'{json.dumps(figures)}\n')
            else:
                taken = time.perf_counter() - began
                stages[stage.name] = figures | {'stage_seconds': taken}
                said = figures.get('error', figures.get('skipped', 'done'))
                sys.stderr.write(f'{stage.name}: {said} ({taken:.1f} s)\n')
            report['goals'] = goals(stages)
            report['seconds'] = time.perf_counter() - start
            _write(target, report)
    finally:
        worker.close()
    _write(target, report)
    return report


def machine(job: Job, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return what hardware and software a stage runs on."""
    return describe(job.device)


def shrink(folder: Path) -> None:
    """Compress the wheels of a folder with LZMA."""
    for path in sorted(folder.glob('*.whl')):
        part = path.with_suffix('.part')
        with (
            zipfile.ZipFile(path) as wheel,
            zipfile.ZipFile(part, 'w', zipfile.ZIP_LZMA) as smaller,
        ):
            for entry in wheel.infolist():
                smaller.writestr(entry, wheel.read(entry), zipfile.ZIP_LZMA)
        part.replace(path)


def main() -> None:
    """Read the arguments, measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    golden = ROOT.parent / 'shared' / 'golden'
    names = [stage.name for stage in STAGES]
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda')
    parser.add_argument('--tiny', action='store_true', help='test the benchmark itself')
    parser.add_argument('--budget', type=float, default=420, help='seconds')
    parser.add_argument('--seconds', type=float, default=60, help='of the real run')
    parser.add_argument('--scene_side', type=int, default=10_980, help='pixels')
    parser.add_argument('--golden', type=Path, default=golden)
    parser.add_argument('--folder', type=Path, help='default: a temporary one')
    parser.add_argument('--only', nargs='+', choices=names, default=())
    parser.add_argument('--shrink', type=Path, help='compress wheels, measure nothing')
    given = parser.parse_args()
    if given.shrink is not None:
        shrink(given.shrink)
        return
    with tempfile.TemporaryDirectory(prefix='gpu-') as temporary:
        job = Job(
            given.device,
            given.tiny,
            (given.folder or Path(temporary)).resolve(),
            given.golden.resolve(),
            given.seconds,
            given.scene_side,
        )
        report = run(job, given.budget, given.json, tuple(given.only))
    sys.stdout.write(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
