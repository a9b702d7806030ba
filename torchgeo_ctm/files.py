"""Output files: checked before work begins, written complete or not at all."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import OutputError, SettingError

#: Longest name of a file on common file systems, in bytes.
LONGEST_NAME = 255
#: Signals that ask a program to stop.
STOPS = (signal.SIGINT, signal.SIGTERM)


def check_file(path: Path, overwrite: bool) -> Path:
    """Check that a file can be written.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.

    Returns:
        *path*.

    Raises:
        OutputError: If the folder is missing or read-only, or the file exists and may
            not be replaced.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise OutputError(f'{path.parent} is a file, expected a folder.')
    if not path.parent.is_dir():
        raise OutputError(f'Folder {path.parent} does not exist. Create it first.')
    try:
        # permissions do not tell: root may write anywhere, shared disks differ
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f'Folder {path.parent} is not writable: {error.strerror}.'
        ) from error
    if path.is_dir():
        raise OutputError(f'{path} is a folder, expected the name of a file.')
    if path.exists() and not overwrite:
        raise OutputError(f'{path} already exists. Pass overwrite=True to replace it.')
    return path


def make_folder(path: Path) -> None:
    """Create a folder, unless it is there.

    Raises:
        OutputError: If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f'{path} is a file, expected a folder.') from error
    except OSError as error:
        raise OutputError(f'Cannot create folder {path}: {error}') from error


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of a leading ``~``."""
    path = Path(path)
    return path if path.exists() else path.expanduser()


def given_paths(name: str, value: Any) -> list[str]:
    """Return the paths of one file, or of several.

    Args:
        name: What they are, for messages.
        value: A path, or an iterable of paths.

    Raises:
        SettingError: If there is none, or something else than a path among them.
    """
    paths = [value] if isinstance(value, str | os.PathLike) else value
    # arrays and tables can be iterated over too
    if not isinstance(paths, Iterable) or hasattr(paths, '__array__'):
        raise SettingError(
            f'{name} is of type {type(value).__name__}, expected a path, or a list of '
            'paths. Write data to a file first.'
        )
    # a set has another order in every process
    paths = sorted(paths, key=str) if isinstance(paths, set | frozenset) else [*paths]
    for number, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            raise SettingError(
                f'{name}[{number}] is of type {type(path).__name__}, expected a path. '
                'Write data to a file first.'
            )
    if not paths:
        raise SettingError(f'{name} is empty, expected at least one path.')
    return [str(path) for path in paths]


def check_not_input(path: str | Path, source: str | Path) -> None:
    """Check that an output is not the input itself.

    Args:
        path: The file to write.
        source: A file that is read.

    Raises:
        OutputError: If both names belong to one file.
    """
    path, source = Path(path), Path(source)
    if path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f'{path} is the input itself. Choose another output name.')


def check_not_read(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Check that no output is a file that is read.

    Args:
        outputs: Files to write.
        inputs: Files that are read.

    Raises:
        OutputError: If one is both.
    """
    found = {}
    for path in outputs:
        with contextlib.suppress(OSError):
            stat = path.stat()
            found[stat.st_dev, stat.st_ino] = path
    for source in inputs:
        with contextlib.suppress(OSError):
            stat = source.stat()
            if stat.st_ino and (stat.st_dev, stat.st_ino) in found:
                path = found[stat.st_dev, stat.st_ino]
                raise OutputError(
                    f'{path} is read as a part of the scene. Choose another output '
                    'name.'
                )


def check_name(path: Path, longest: str) -> None:
    """Check that the system takes the names of a file and of what lies beside it.

    Args:
        path: The file to write.
        longest: The longest name that is written beside it.

    Raises:
        OutputError: If a name is too long, or is not Unicode.
    """
    try:
        length = len(longest.encode())
        str(path).encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            f'{str(path)!r} is not valid Unicode. Choose another output name.'
        ) from error
    if any(ord(sign) < 32 for sign in path.name):
        raise OutputError(
            f'{path.name!r} has a line break or another control character, which other '
            'programs cannot read. Choose another output name.'
        )
    if length > LONGEST_NAME:
        over = length - LONGEST_NAME
        raise OutputError(
            f'{path.name} is too long by {over} bytes: names beside it, such as '
            f'{longest[:20]}…{longest[-20:]}, have at most {LONGEST_NAME}.'
        )


def check_space(folder: Path, required: float) -> None:
    """Check that a disk has room.

    Args:
        folder: A folder on the disk.
        required: Bytes to write.

    Raises:
        OutputError: If the disk has fewer.
    """
    free = shutil.disk_usage(folder).free
    if free < required:
        raise OutputError(
            f'The disk of {folder} has {free / 1e9:.1f} GB left, expected at least '
            f'{required / 1e9:.1f} GB. Delete files, or choose another folder.'
        )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, lambda got, frame: received.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if received:
        signal.raise_signal(received[0])


def temporary_path(path: Path) -> Path:
    """Return the hidden name beside *path* under which it is written first."""
    return path.with_name(f'.{path.name}.{os.getpid()}.part')


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a hidden name, and rename it when it is complete.

    Args:
        path: Final name.

    Yields:
        The hidden name to write to. If the block raises, the hidden file is removed
        and *path* is left as it was.

    Raises:
        OutputError: If the disk or the folder refuses the file.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f'Cannot write {path}: {error}') from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Make a hidden folder beside a file, for products that appear together.

    Args:
        output: The file.

    Yields:
        The folder, which is removed with all that is left in it. Errors raised in the
        block name the files as they will be called.

    Raises:
        OutputError: If the folder cannot be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix='.staged', dir=output.parent)
    except OSError as error:
        raise OutputError(f'Cannot write {output}: {error}') from error
    with folder as name:
        try:
            yield Path(name)
        except OutputError as error:
            raise OutputError(str(error).replace(name, str(output.parent))) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file, complete or not at all.

    Raises:
        OutputError: If the disk or the folder refuses the file.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
