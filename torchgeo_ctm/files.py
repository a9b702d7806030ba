"""Output files: checked before work begins, written complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


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
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f'Folder {path.parent} is not writable.')
    if path.is_dir():
        raise OutputError(f'{path} is a folder, expected the name of a file.')
    if path.exists() and not overwrite:
        raise OutputError(f'{path} already exists. Pass --overwrite to replace it.')
    return path


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of a leading ``~``."""
    path = Path(path)
    return path if path.exists() else path.expanduser()


def make_folder(path: Path) -> None:
    """Create a folder, unless it is there.

    Raises:
        OutputError: If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'Cannot create folder {path}: {error}') from error


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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file, complete or not at all.

    Raises:
        OutputError: If the disk or the folder refuses the file.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
