"""On-disk window scores, so that an interrupted run can resume."""

import contextlib
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..errors import OutputError
from ..files import write_text

#: Layout of the files; another one starts over.
LAYOUT = 3
#: Names of the files, also those of former layouts.
FILES = (
    'settings.json',
    'layout.json',
    'records',
    'finished',
    'publishing.json',
    'create.lock',
)
FORMER = ('scores.npy', 'valid.npy', 'finished.npy')
#: Records that are checked at a time.
CHECKED = 16
#: Flags of a window: complete; complete, but no class reached the threshold.
COMPLETE, NOTHING = 1, 2


class ScoreJournal:
    """The scores of each window of a scene, in a hidden folder beside the output.

    ``records`` holds a record for each of the N windows: a checksum, the scores at the
    size of their maps, and the valid pixels as bits. ``finished`` holds N bytes, above
    0 for a complete window, and ``layout.json`` type and shape of the records. Windows
    are written by number, so several processes can share a journal, and a run with
    another number of processes can resume it.

    After a power loss any byte may be missing. A window counts as complete only if its
    checksum fits its scores, its number and its flag; any other one is computed again.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], windows: int) -> None:
        """Describe a journal. Nothing is read or written yet.

        Args:
            folder: Folder of the journal.
            settings: Everything that the scores depend on, serializable as JSON.
            windows: Number of windows N.
        """
        self.folder = folder
        self.settings = settings
        #: 0: not computed; 1: complete; 2: complete, no class reached the threshold.
        self.finished = np.zeros(windows, np.uint8)
        self._record: np.dtype[Any] | None = None
        self._lock = FileLock(folder.with_name(f'{folder.name}.lock'))

    def lock(self) -> None:
        """Keep other runs out until :meth:`close`; the system frees it after a crash.

        Raises:
            OutputError: If another run holds the lock, or the folder is not writable.
        """
        try:
            # a lock that cannot be created looks like one that is held
            self.folder.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f'Another run is writing {self.output}. Wait for it, or choose another '
                'output name.'
            ) from None
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error

    @property
    def output(self) -> str:
        """The class raster that the journal belongs to."""
        return str(self.folder.with_name(self.folder.name[1:].removesuffix('.part')))

    def start(self) -> str | None:
        """Keep the records of an earlier run if they fit, else start over.

        Returns:
            Why the records of an earlier run were deleted, or None.

        Raises:
            OutputError: If nothing can be written.
        """
        reason = self._mismatch()
        begun = (self.folder / 'settings.json').is_file() and reason is None
        try:
            if not begun:
                self.remove()
                self.folder.mkdir(exist_ok=True)
                write_text(self.folder / 'settings.json', json.dumps(self.settings))
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error
        return reason

    def _mismatch(self) -> str | None:
        """Return why the records of an earlier run cannot be used, or None."""
        path = self.folder / 'settings.json'
        if not path.exists():
            left = [name for name in (*FILES, *FORMER) if (self.folder / name).exists()]
            return 'its settings are missing' if left else None
        try:
            found = json.loads(path.read_text(encoding='utf-8'))
            keys = sorted(found.keys() | self.settings.keys())
        except (OSError, ValueError, AttributeError, TypeError):
            return 'its settings cannot be read'
        wanted = json.loads(json.dumps(self.settings))
        different = [key for key in keys if found.get(key) != wanted.get(key)]
        if different:
            return f'{", ".join(different)} changed'
        parts = ('records', 'finished', 'layout.json')
        there = [(self.folder / name).exists() for name in parts]
        former = any((self.folder / name).exists() for name in FORMER)
        if former or (any(there) and not (all(there) and self._layout())):
            return 'its files are damaged or have an older layout'
        return None

    def _layout(self) -> 'np.dtype[Any] | None':
        """Return the type of a record as ``layout.json`` says, None if it does not."""
        try:
            found = json.loads((self.folder / 'layout.json').read_text('utf-8'))
            checksum = found.pop('checksum')
            if checksum != _text_checksum(found) or found['layout'] != LAYOUT:
                return None
            return _record(np.dtype(found['dtype']), found['scores'], found['valid'])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _create(self, scores: NDArray[Any], bits: NDArray[np.uint8]) -> None:
        """Describe the records, once; one process does, the others wait for it."""
        if self._record is None:
            with FileLock(self.folder / 'create.lock'):
                self._record = self._layout()
                if self._record is None:
                    layout = {
                        'layout': LAYOUT,
                        'dtype': scores.dtype.str,
                        'scores': list(scores.shape[1:]),
                        'valid': bits.shape[1],
                    }
                    layout['checksum'] = _text_checksum(layout)
                    (self.folder / 'records').touch()
                    with (self.folder / 'finished').open('ab') as file:
                        file.truncate(len(self.finished))
                    write_text(self.folder / 'layout.json', json.dumps(layout))
                    self._record = self._layout()

    def write(
        self,
        numbers: NDArray[np.int64],
        scores: NDArray[Any],
        valid: NDArray[np.bool_],
        nothing: NDArray[np.bool_],
    ) -> None:
        """Write the records of a batch, then their flags.

        Written by file, not by memory map: a full disk would end a process that writes
        to a map without an error, and machines that share a disk would overwrite each
        other's pages.

        Args:
            numbers: Numbers of the windows (B,).
            scores: Scores (B, …).
            valid: Valid pixels (B, window, window).
            nothing: Windows in which no class reached the presence threshold (B,).

        Raises:
            OutputError: If the disk refuses them.
        """
        bits = np.packbits(valid.reshape(len(valid), -1), axis=1)
        flags = np.where(nothing, NOTHING, COMPLETE).astype(np.uint8)
        try:
            self._create(scores, bits)
            records = np.zeros(len(numbers), self._record)
            records['scores'], records['valid'] = scores, bits
            for position, (number, flag) in enumerate(zip(numbers, flags, strict=True)):
                checksum = _checksum(records[position], int(number), int(flag))
                records['checksum'][position] = checksum
            self._store('records', numbers, records)
            self._store('finished', numbers, flags)
        except OSError as error:
            raise OutputError(
                f'Cannot write {self.output}: {error}. Windows computed so far are '
                'kept: run the same command again to resume.'
            ) from error
        self.finished[numbers] = flags

    def _store(self, name: str, numbers: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Write rows (B,) of a file by number."""
        with (self.folder / name).open('r+b') as file:
            for number, row in zip(numbers, rows, strict=True):
                file.seek(int(number) * rows.itemsize)
                file.write(row.tobytes())

    def read(
        self, numbers: NDArray[np.int64], window: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return scores (B, …) and valid pixels (B, window, window) of windows.

        Raises:
            OutputError: If a record changed since it was written.
        """
        try:
            records = self._read(numbers)
        except OSError as error:
            raise OutputError(f'Cannot read {self.folder}: {error}') from error
        if records is None or not self._intact(numbers, records).all():
            raise OutputError(
                f'Scores in {self.folder} were damaged while the run went on. Run the '
                'same command again to compute them again.'
            )
        count = window**2
        valid = np.unpackbits(records['valid'], axis=1, count=count).astype(bool)
        return records['scores'], valid.reshape(-1, window, window)

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[Any] | None:
        """Return the records (B,) of windows, zeros where the file is too short."""
        record = self._record = self._record or self._layout()
        if record is None:
            return None
        records = bytearray(len(numbers) * record.itemsize)
        with (self.folder / 'records').open('rb') as file:
            for position, number in enumerate(numbers):
                file.seek(int(number) * record.itemsize)
                content = file.read(record.itemsize)
                start = position * record.itemsize
                records[start : start + len(content)] = content
        return np.frombuffer(records, record)

    def _intact(
        self, numbers: NDArray[np.int64], records: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return which records (B,) have the checksum of their content."""
        return np.array(
            [
                _checksum(record, int(number), int(self.finished[number]))
                == record['checksum']
                for number, record in zip(numbers, records, strict=True)
            ],
            bool,
        )

    def reload(self) -> None:
        """Read the flags again, which other processes set too, and check the records.

        Raises:
            OutputError: If the files cannot be read.
        """
        self.finished[:] = 0
        path = self.folder / 'finished'
        try:
            flags = np.frombuffer(path.read_bytes() if path.exists() else b'', np.uint8)
            flags = flags[: len(self.finished)]
            self.finished[: len(flags)] = np.where(flags <= NOTHING, flags, 0)
            begun = np.flatnonzero(self.finished)
            for start in range(0, len(begun), CHECKED):
                numbers = begun[start : start + CHECKED]
                records = self._read(numbers)
                intact = records is not None and self._intact(numbers, records)
                self.finished[numbers] *= np.asarray(intact, np.uint8)
        except FileNotFoundError:
            self.finished[:] = 0
        except OSError as error:
            raise OutputError(f'Cannot read {self.folder}: {error}') from error

    def close(self) -> None:
        """Let other runs in."""
        if self._lock.is_locked:
            self._lock.release()
            with contextlib.suppress(OSError):
                os.unlink(self._lock.lock_file)

    def remove(self) -> None:
        """Delete the journal, but no file of other programs in its folder."""
        self._record = None
        for name in (*FILES, *FORMER):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob('.*.part'):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _record(dtype: 'np.dtype[Any]', shape: list[int], valid: int) -> 'np.dtype[Any]':
    """Return the type of a record: checksum, scores, bits of valid pixels."""
    fields = [
        ('checksum', '<u4'),
        ('scores', dtype, tuple(shape)),
        ('valid', 'u1', (valid,)),
    ]
    return np.dtype(fields)


def _checksum(record: Any, number: int, flag: int) -> int:
    """Return the CRC-32 of a record's content, its window's number and its flag."""
    start = zlib.crc32(struct.pack('<qB', number, flag))
    start = zlib.crc32(record['scores'].tobytes(), start)
    return zlib.crc32(record['valid'].tobytes(), start)


def _text_checksum(content: dict[str, Any]) -> int:
    """Return the CRC-32 of a mapping as JSON."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
