"""What commands print and write."""

import json
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

from ..files import atomic_path, write_text


def print_loading() -> None:
    """Tell a terminal at once that libraries are being loaded, which takes seconds."""
    if sys.stderr.isatty():
        sys.stderr.write('torchgeo-ctm: loading PyTorch and TorchGeo ...\n')


def bars_on_stderr() -> AbstractContextManager[Any]:
    """Return a context in which progress bars of Lightning go to standard error.

    It draws them on standard output, which is for results.
    """
    return redirect_stdout(sys.stderr)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under a temporary name, then rename it."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure as PNG, complete or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png', dpi=120)


def print_line(line: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(f'{line}\n')
