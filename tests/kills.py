"""Kill runs at random moments, resume them, compare: ``python -m tests.kills 40``."""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np

from tests.conftest import decisive, tiny_task
from tests.fakes.bad_inputs import write_raster
from tests.project.product_facts import item_facts, polygon_facts
from torchgeo_ctm.main import main as run_command
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import save_task

#: Exit status after each signal, as ``subprocess`` says it.
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
#: Seconds within which SIGTERM and Ctrl-C end a run.
SOON = 3.0
#: Seconds within which a process has no handlers yet: Python itself starts.
BEFORE, COLD = 0.2, 1.0
#: Kills after which a run is left to end.
IN_A_ROW = 3
SIDE = 320

Content = dict[str, object]


def write_inputs(folder: Path) -> list[str]:
    """Write a scene and a checkpoint; return the arguments of ``predict``."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(300, 4000, (13, SIDE // 8, SIDE // 8))
    pixels = (coarse.repeat(8, 1).repeat(8, 2) + rng.integers(0, 60)).astype('uint16')
    pixels[:, :40, :90] = 0
    scene = write_raster(
        folder / 's.tif', pixels, nodata=0, descriptions=SENTINEL2_BANDS
    )
    save_task(decisive(tiny_task()), folder / 'c.ckpt')
    options = ['--window', '64', '--stride', '32', '--batch_size', '2']
    products = ['--stac', '--probabilities', '--sieve', '4']
    return [str(scene), '--checkpoint', str(folder / 'c.ckpt'), *options, *products]


class Run:
    """``torchgeo-ctm predict`` in another process."""

    def __init__(self, arguments: list[str], output: Path, cold: bool) -> None:
        """Start it.

        Args:
            arguments: Those of ``predict`` but ``--output``.
            output: The class raster.
            cold: Start Python anew; otherwise fork this process, which has imported
                everything, so that more moments of the work itself are tried.
        """
        self._said = output.parent / 'said.txt'
        arguments = ['predict', *arguments, '--output', str(output)]
        self._process = None
        self.cold = cold
        self.status: int | None = None
        with self._said.open('w', encoding='utf-8') as file:
            if cold:
                command = [sys.executable, '-m', 'torchgeo_ctm.main', *arguments]
                self._process = subprocess.Popen(command, stdout=file, stderr=file)
                self.pid = self._process.pid
                return
            self.pid = os.fork()
            if self.pid:
                return
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 0
        try:
            sys.argv = ['torchgeo-ctm', *arguments]
            run_command()
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:  # noqa: BLE001  as the interpreter does
            traceback.print_exc()
            status = 1
        # what the interpreter waits for
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stderr.flush()
        os._exit(status)

    def ended(self) -> bool:
        """Return whether it has ended."""
        if self.status is None and self._process is not None:
            self.status = self._process.poll()
        elif self.status is None:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(code) if pid else None
        return self.status is not None

    def wait(self) -> str:
        """Wait for its end; return what it said."""
        while not self.ended():
            time.sleep(0.002)
        return self._said.read_text(encoding='utf-8').strip()


def content(output: Path) -> Content:
    """Return the products by name: bytes, or what a file with a date holds beside it."""
    found: Content = {}
    for path in output.parent.glob('m[._]*'):
        if path.suffix == '.gpkg':
            found[path.name] = polygon_facts(path)
        elif path.suffix == '.json':
            found[path.name] = item_facts(path)
        else:
            found[path.name] = path.read_bytes()
    return found


def finishing(output: Path) -> bool:
    """Return whether every window of a run is computed."""
    try:
        flags = (output.with_name(f'.{output.name}.part') / 'finished').read_bytes()
    except OSError:
        return False
    return len(flags) > 0 and 0 not in flags


def wait(run: Run, output: Path, seconds: float, late: bool) -> None:
    """Wait some seconds of a run, or of its finishing phase, at most until it ends."""
    if late:
        while not run.ended() and not finishing(output):
            time.sleep(0.002)
    # at the least until it has its handlers
    end = time.monotonic() + (COLD if run.cold else BEFORE) + seconds
    while not run.ended() and time.monotonic() < end:
        time.sleep(0.002)


def problems(
    run: Run,
    number: signal.Signals,
    seconds: float,
    said: str,
    there: Content,
    expected: Content,
) -> list[str]:
    """Return what is wrong after a signal."""
    found = []
    # the signal may come too late
    complete = run.status == 0 and there == expected
    if run.status != STATUS[number] and not complete:
        found.append(f'status {run.status}')
    if 'Traceback' in said:
        found.append(said[-300:])
    if number != signal.SIGKILL and seconds > SOON:
        found.append(f'{seconds:.1f} s')
    if number != signal.SIGKILL and there not in ({}, expected):
        found.append(f'only {sorted(there)}')
    found += [f'{n} differs' for n, value in there.items() if expected[n] != value]
    return found


def main(kills: int, seed: int = 0, cold: int = 8) -> int:
    """Kill runs; print a line for each kill, and the faults.

    Args:
        kills: Number of kills.
        seed: Seed of signals and moments.
        cold: One of so many runs starts Python anew.

    Returns:
        Number of faults.
    """
    rng, faults, done, slowest = random.Random(seed), 0, 0, 0.0
    with tempfile.TemporaryDirectory() as root:
        arguments = write_inputs(Path(root))
        whole = Path(root) / 'whole' / 'm.tif'
        whole.parent.mkdir()
        Run(arguments, whole, cold=False).wait()
        whole.unlink()
        expected, times = {}, {}
        for start in (False, True):
            output = Path(root) / f'whole{start}' / 'm.tif'
            output.parent.mkdir()
            begun = time.monotonic()
            run = Run(arguments, output, start)
            wait(run, output, 0, late=True)
            computed = time.monotonic() - begun
            run.wait()
            times[start] = computed, time.monotonic() - begun - computed
            expected = content(output)
        print(
            f'one run: {times[False][0]:.1f} s, then {times[False][1]:.1f} s to finish'
        )
        for scene in itertools.count():
            if done >= kills:
                break
            output = Path(root) / str(scene) / 'm.tif'
            output.parent.mkdir()
            for _ in range(rng.randint(1, IN_A_ROW)):
                late, start = rng.random() < 0.5, rng.randrange(cold) == 0
                number = rng.choice(list(STATUS))
                run = Run(arguments, output, start)
                wait(run, output, rng.uniform(0, times[start][late]), late)
                if run.ended():
                    break
                sent = time.monotonic()
                os.kill(run.pid, number)
                said, done = run.wait(), done + 1
                seconds, there = time.monotonic() - sent, content(output)
                slowest = max(slowest, seconds)
                wrong = problems(run, number, seconds, said, there, expected)
                faults += bool(wrong)
                phase = 'finishing' if late else 'starting' if start else 'computing'
                print(
                    f'{done:>3} {number.name:<7} {phase:<9} status {run.status:>4} '
                    f'after {seconds:4.1f} s, {len(there)} products {"; ".join(wrong)}',
                    flush=True,
                )
                if run.status == 0:
                    break
            if content(output) != expected:
                run = Run(arguments, output, cold=False)
                said = run.wait()
                left = [p.name for p in output.parent.iterdir() if p.name[0] == '.']
                if run.status or content(output) != expected or left:
                    faults += 1
                    print(f'    resumed: {run.status} {left} {said[-300:]}')
        print(f'{done} kills, {faults} faults; an end took at most {slowest:.1f} s')
    return faults


if __name__ == '__main__':
    sys.exit(min(main(*map(int, sys.argv[1:] or ['40'])), 1))
