"""Find the files that a scene is read from, and tell whether they changed."""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rasterio.io import DatasetReader

from ..errors import SceneError
from ..rasters import open_raster

#: Bytes of a file above which samples are read instead of the whole.
WHOLE = 2**23
#: Number and size of the samples, evenly spread.
SAMPLES, SAMPLE = 128, 2**16
#: What may lie beside a raster and change what it says.
BESIDE = ('.msk', '.aux.xml')
#: Virtual rasters within virtual rasters.
DEEPEST = 8


def input_files(raster: DatasetReader, name: str) -> list[Path]:
    """Return the local files that a raster is read from, sorted.

    Files beside it (masks, statistics, world files) and the sources of virtual rasters
    are among them, overviews are not.

    Args:
        raster: The open raster.
        name: The scene, as the user names it: its metadata are read too.
    """
    found = {path.resolve() for path in _files(raster, 0)}
    path = Path(name.removeprefix('zip://').partition('!')[0])
    try:
        if path.is_dir():
            found |= {item.resolve() for item in path.glob('*.xml') if item.is_file()}
        elif path.is_file():
            found.add(path.resolve())
    except OSError:
        # a virtual raster as text is no path
        pass
    return sorted(found)


def _files(raster: DatasetReader, depth: int) -> Iterator[Path]:
    """Yield the files of a raster, and those of the virtual rasters in it."""
    for name in raster.files:
        # a virtual raster in another one may be text
        text = name.startswith('<')
        path = None if text else _local(name)
        if path is not None and path.suffix.lower() != '.ovr':
            yield path
            for beside in (*_sidecars(path), path.with_suffix('.aux.xml')):
                if beside.is_file():
                    yield beside
        virtual = text or (path is not None and path.suffix.lower() == '.vrt')
        if virtual and name != raster.name and depth < DEEPEST:
            try:
                with open_raster(name) as source:
                    yield from _files(source, depth + 1)
            except SceneError:
                # said when its pixels are read
                continue


def _sidecars(path: Path) -> list[Path]:
    """Return where a raster's mask and statistics would lie."""
    return [path.with_name(path.name + suffix) for suffix in BESIDE]


def _local(name: str) -> Path | None:
    """Return the file on disk of a name of GDAL's, an archive for its members."""
    virtual = re.match(
        r'/vsi(?:zip|tar|gzip)/(?:\{(?P<braced>[^}]*)\}|(?P<plain>.*))', name
    )
    if virtual is None:
        path = Path(name)
        return path if not name.startswith('/vsi') and path.is_file() else None
    plain = Path(virtual['braced'] or virtual['plain'] or '')
    return next((path for path in (plain, *plain.parents) if path.is_file()), None)


def fingerprint(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Return size, time of change in ns, and a checksum of samples of each file.

    Raises:
        SceneError: If a file cannot be read.
    """
    found = {}
    for path in paths:
        try:
            stat = path.stat()
            checksum = _checksum(path, stat.st_size)
        except OSError as error:
            raise SceneError(f'Cannot read {path}: {error}') from error
        found[str(path)] = [stat.st_size, stat.st_mtime_ns, checksum]
    return found


def check_unchanged(before: Mapping[str, list[int]], name: str) -> None:
    """Check that files that were read are what they were.

    Files that are gone had been opened, or their reader has failed. Statistics that
    other programs write beside a raster change no pixel.

    Args:
        before: What :func:`fingerprint` returned.
        name: What was mapped, for the message.

    Raises:
        SceneError: If one changed: the map may be of both contents.
    """
    there = (path for path in map(Path, before) if path.is_file())
    now = fingerprint(path for path in there if path.suffix != '.xml')
    changed = next((path for path in now if now[path] != before[path]), None)
    if changed is not None:
        raise SceneError(
            f'{changed} changed while {name} was mapped, expected the same content '
            'until the end. Run the same command again.'
        )


def file_checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    checksum = 0
    with path.open('rb') as file:
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _checksum(path: Path, size: int) -> int:
    """Return the CRC-32 of a file; of samples if it is large."""
    checksum = 0
    with path.open('rb') as file:
        if size <= WHOLE:
            return zlib.crc32(file.read())
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            checksum = zlib.crc32(file.read(SAMPLE), checksum)
    return checksum


def pixel_checksum(raster: DatasetReader, index: int) -> int:
    """Return a CRC-32 of some pixels of a band, for rasters that are no local file.

    Raises:
        RasterioIOError: If they cannot be read.
    """
    checksum = 0
    for part in range(3):
        row, col = (part * (side - 1) // 2 for side in raster.shape)
        window: Any = (
            (row, min(row + 16, raster.height)),
            (col, min(col + 16, raster.width)),
        )
        checksum = zlib.crc32(raster.read(index, window=window).tobytes(), checksum)
    return checksum
