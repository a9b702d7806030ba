"""The commands ``torchgeo`` and ``torchgeo-ctm``, and checks of how they end."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

#: Run ``torchgeo-ctm`` in this process: the fixture ``run`` in conftest.
Run = Callable[..., tuple[int, str, str]]
#: Run ``torchgeo`` in this process: the fixture ``torchgeo_main`` in conftest.
TorchGeoMain = Callable[..., str]

TORCHGEO = Path(sys.executable).with_name('torchgeo')


def torchgeo(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``torchgeo`` as its user does: a process, and ten seconds of imports."""
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


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Check for one line on stderr that holds the words, and exit status 2."""
    status, _, err = result
    shown = ('warning:', 'px/s]', 'chip/s]', 'of temporary')
    lines = [line for line in err.splitlines() if line.strip()]
    lines = [line for line in lines if not any(word in line for word in shown)]
    assert status == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith('torchgeo-ctm')
    for word in words:
        assert word in lines[0]
