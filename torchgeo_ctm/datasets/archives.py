"""Download and unpack the archives of a data set."""

import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset
from torchgeo.datasets import DatasetNotFoundError
from torchvision.datasets.utils import download_and_extract_archive, extract_archive

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
        if not file.is_file() and not download:
            raise DatasetNotFoundError(dataset)
        try:
            if file.is_file():
                extract_archive(str(file), str(root))
            else:
                download_and_extract_archive(archive.url, str(root), md5=archive.md5)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise DataError(
                f'Cannot unpack {file} ({error}), expected {archive.url} as published. '
                'Remove the file and fetch it again.'
            ) from error
        if not (root / archive.contents).exists():
            raise DataError(
                f'{file} has no {archive.contents}, expected {archive.url}.'
            )
