"""The ``torchgeo`` command, run as its user runs it."""

import os
import subprocess
import sys
from pathlib import Path

TORCHGEO = Path(sys.executable).with_name('torchgeo')


def torchgeo(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``torchgeo`` as its user does."""
    return subprocess.run(
        [TORCHGEO, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'OMP_NUM_THREADS': '1'},
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
