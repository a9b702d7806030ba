"""Archives of a data set: unpacked where they lie, or downloaded first."""

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

    #: Where its publisher offers it; the file keeps the last part of the address.
    url: str
    #: What it holds, a file or folder below the data set's root.
    contents: str
    md5: str | None = None


def fetch(
    dataset: Dataset[object], root: Path, archives: Sequence[Archive], download: bool
) -> None:
    """Unpack the archives whose contents are not there; download them if allowed.

    Args:
        dataset: Whom it is for, with ``root`` and ``download``, for the message.
        root: Folder that the archives lie in and are unpacked to.
        archives: The archives.
        download: Whether to download what is not there.

    Raises:
        DatasetNotFoundError: If contents and archive are missing, without *download*.
        DataError: If an archive is damaged, or does not hold its contents.
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
                f'{file} cannot be unpacked ({error}): needed is {archive.url} as '
                'published; remove the file and fetch it again'
            ) from error
        if not (root / archive.contents).exists():
            raise DataError(f'{file} holds no {archive.contents}, which is needed')
