"""Try many bad inputs of every kind, and count them: ``python -m tests.fuzz 200``."""

import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.bad_inputs import KINDS, attempt


def main(rounds: int, first: int = 0) -> int:
    """Try inputs of every kind; print how many were tried and failed.

    Args:
        rounds: Number of inputs of each kind.
        first: Seed of the first.

    Returns:
        Number of faults.
    """
    total = 0
    print(f'{"kind":<22}  tried  failed  seconds')
    for name in KINDS:
        start, faults = time.perf_counter(), []
        for seed in range(first, first + rounds):
            with tempfile.TemporaryDirectory() as folder:
                fault = attempt(name, seed, Path(folder))
            if fault is not None:
                faults.append(fault)
        seconds = time.perf_counter() - start
        print(f'{name:<22}  {rounds:>5}  {len(faults):>6}  {seconds:>7.1f}', flush=True)
        for fault in faults[:5]:
            print(f'    {fault}', flush=True)
        total += len(faults)
    return total


if __name__ == '__main__':
    sys.exit(min(main(*map(int, sys.argv[1:] or ['200'])), 1))
