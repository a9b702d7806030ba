"""Call the command torchgeo-ctm in its own environment, without QGIS's Python."""

import os
import queue
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

#: Name of the command.
COMMAND = 'torchgeo-ctm'
#: Variables by which QGIS tells its own Python where to look.
QGIS_PYTHON = ('PYTHONHOME', 'PYTHONPATH', 'QT_PLUGIN_PATH')
#: A progress bar, with a percentage unless its length is unknown.
BAR = re.compile(r'(?:(\d+)%)?\|.*\|.*\[.*\]')
#: On Windows, a flag that keeps a console window from opening.
NO_WINDOW = int(getattr(subprocess, 'CREATE_NO_WINDOW', 0))
#: Seconds between two looks at the Cancel button.
POLL = 0.2


class CommandError(Exception):
    """The command is missing, was canceled, or reported an error."""


def find_command(given: str) -> str:
    """Return the command to call.

    Args:
        given: Path that the user has set, or its folder; empty: the one on the PATH.

    Raises:
        CommandError: If there is no such program.
    """
    path = os.path.expanduser(given.strip())
    if os.path.isdir(path):
        path = os.path.join(path, COMMAND)
    found = shutil.which(path or COMMAND)
    if found is None:
        raise CommandError(
            f'{given.strip() or COMMAND} was not found. Install {COMMAND} in an '
            'environment of its own, and enter the path of the command under Settings, '
            'Options, Processing, Providers, Class-token masking.'
        )
    return found


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without those of QGIS's own Python."""
    kept = {key: value for key, value in own.items() if key not in QGIS_PYTHON}
    return {**kept, 'PYTHONIOENCODING': 'utf-8'}


def arguments(
    name: str, *inputs: str, options: Mapping[str, Any], more: str = ''
) -> list[str]:
    """Return the arguments of a call.

    Args:
        name: Name of the subcommand.
        *inputs: Its positional arguments.
        options: Its options; None, '' and False leave one out, True is a flag.
        more: Further options, as in a shell.

    Raises:
        CommandError: If *more* has an open quotation.
    """
    found = [name, *inputs]
    for key, value in options.items():
        if value is True:
            found.append(f'--{key}')
        elif value is not None and value is not False and value != '':
            # in one word, because a value may begin with a minus
            found.append(f'--{key}={value}')
    try:
        # a backslash is part of a path on Windows
        return found + shlex.split(more, posix=os.name != 'nt')
    except ValueError as error:
        raise CommandError(f'Further options {more!r}: {error}.') from error


def run(
    call: Sequence[str],
    say: Callable[[str], None],
    progress: Callable[[float], None],
    canceled: Callable[[], bool],
) -> list[str]:
    """Run a command, and pass on what it prints while it runs.

    Args:
        call: Program and arguments.
        say: Gets each line.
        progress: Gets the percentage of the progress bar.
        canceled: Whether to stop, which ``predict`` resumes from.

    Returns:
        The lines of standard output.

    Raises:
        CommandError: If the command fails, with its last line, or was canceled.
    """
    process = subprocess.Popen(
        list(call),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(os.environ),
        creationflags=NO_WINDOW,
    )
    lines: queue.Queue[tuple[bool, str] | None] = queue.Queue()
    for stream in (process.stdout, process.stderr):
        given = (stream, stream is process.stdout, lines)
        threading.Thread(target=_read, args=given, daemon=True).start()
    output: list[str] = []
    errors: list[str] = []
    open_streams = 2
    while open_streams:
        if canceled():
            process.terminate()
        try:
            line = lines.get(timeout=POLL)
        except queue.Empty:
            continue
        if line is None:
            open_streams -= 1
            continue
        is_output, text = line
        bar = BAR.search(text)
        if bar is not None:
            if bar[1]:
                progress(float(bar[1]))
            continue
        (output if is_output else errors).append(text)
        say(text)
    status = process.wait()
    if canceled():
        raise CommandError('Canceled. Run it again to resume a map.')
    if status:
        raise CommandError(errors[-1] if errors else f'Exit status {status}.')
    return output


def _read(
    stream: IO[bytes], is_output: bool, lines: queue.Queue[tuple[bool, str] | None]
) -> None:
    """Put the lines of a stream into a queue, then None; a progress bar ends in CR."""
    part = b''
    while read := os.read(stream.fileno(), 4096):
        *whole, part = (part + read).replace(b'\r', b'\n').split(b'\n')
        for line in whole:
            if text := line.decode('utf-8', 'replace').strip():
                lines.put((is_output, text))
    if text := part.decode('utf-8', 'replace').strip():
        lines.put((is_output, text))
    stream.close()
    lines.put(None)
