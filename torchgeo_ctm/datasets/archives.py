"""Download and unpack the archives of a data set."""

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset
from torchgeo.datasets import DatasetNotFoundError
from torchvision.datasets.utils import check_md5, download_url

from ..errors import DataError


class Archive(NamedTuple):
    """One archive of a data set."""

    #: Address of its publisher; the file is named after its last part.
    url: str
    #: A file or folder in it, relative to the data set's root.
    contents: str
    md5: str | None = None


def fetch(
    dataset: Dataset[object], root: Path, archives: Sequence[Archive], download: bool
) -> None:
    """Unpack the archives whose contents are missing; download them if allowed.

    Args:
        dataset: The data set, with ``root`` and ``download``, for the message.
        root: Folder of the archives, to which they are unpacked.
        archives: The archives.
        download: Whether to download missing archives.

    Raises:
        DatasetNotFoundError: If contents and archive are missing, without *download*.
        DataError: If an archive is damaged, or lacks its contents.
    """
    for archive in archives:
        if (root / archive.contents).exists():
            continue
        file = root / archive.url.rpartition('/')[2]
        if not file.is_file():
            if not download:
                raise DatasetNotFoundError(dataset)
            try:
                download_url(archive.url, str(root), file.name, archive.md5)
            except (OSError, RuntimeError) as error:
                reason = ' '.join(str(error).split())
                raise DataError(f'Cannot download {archive.url}: {reason}') from error
        if archive.md5 is not None and not check_md5(str(file), archive.md5):
            raise DataError(
                f'{file} does not have the MD5 {archive.md5} of {archive.url}. Remove '
                'the file and fetch it again.'
            )
        _unpack(file, root, archive)


def _unpack(file: Path, root: Path, archive: Archive) -> None:
    """Unpack an archive into a hidden folder, then move what it holds.

    An interrupted unpacking leaves no folder that looks complete.

    Raises:
        DataError: If it is damaged, unsafe, or lacks its contents.
    """
    hidden = root / f'.{file.name}.{os.getpid()}.part'
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir()
        extract(file, hidden)
        if not (hidden / archive.contents).exists():
            raise DataError(
                f'{file} has no {archive.contents}, expected {archive.url}.'
            )
        _merge(hidden, root)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(
            f'Cannot unpack {file} ({error}), expected {archive.url} as published. '
            'Remove the file and fetch it again.'
        ) from error
    # RuntimeError: encrypted; NotImplementedError: an unknown compression
    except (OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise DataError(f'Cannot unpack {file}: {error}') from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _merge(source: Path, target: Path) -> None:
    """Move a folder's content into another one, keeping what is there."""
    for item in sorted(source.iterdir()):
        there = target / item.name
        if item.is_dir() and there.is_dir():
            _merge(item, there)
        elif not there.exists():
            item.rename(there)


def extract(file: Path, folder: Path) -> None:
    """Unpack a .zip or .tar into a folder, and nothing outside of it.

    Raises:
        DataError: If a member would lie outside of the folder, or the disk is too
            small.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            _check_room(file, folder, sum(i.file_size for i in packed.infolist()))
            packed.extractall(folder)
        return
    with tarfile.open(file) as packed_tar:
        _check_room(file, folder, sum(m.size for m in packed_tar if m.isreg()))
        try:
            packed_tar.extractall(folder, filter='data')
        except tarfile.FilterError as error:
            raise DataError(f'{file} is unsafe to unpack: {error}') from error


def _check_room(file: Path, folder: Path, size: int) -> None:
    """Check that a disk has room for what an archive holds."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f'{file} holds {size / 1e9:,.1f} GB, but {folder.parent} has only '
            f'{free / 1e9:,.1f} GB left.'
        )
