"""What every window scored, on disk: a run that was killed goes on from it."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..errors import OutputError

#: Why a journal that was found is of no use, or None where it is.
Reason = str | None


class ScoreJournal:
    """A record for each window of a scene, in a hidden folder beside the output.

    A record holds the window's scores at the size of its maps, and which of its pixels
    are valid; a flag says that it is complete. Windows are written by number, so
    that many processes can share a journal, and a run with another number of
    processes can go on with it.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], windows: int) -> None:
        """Name a journal; nothing is read or written yet.

        Args:
            folder: Where it lies.
            settings: Everything that the scores depend on, as JSON can hold it.
            windows: Number of windows.
        """
        self.folder = folder
        self.settings = settings
        #: 0: not computed; 1: complete; 2: complete, no class reached the threshold.
        self.finished = np.zeros(windows, np.uint8)
        self._lock = FileLock(folder.with_name(f'{folder.name}.lock'))
        self._layout: tuple[tuple[int, ...], np.dtype[Any], int] | None = None
        self._files: dict[str, Any] = {}

    def lock(self) -> None:
        """Keep other runs out until :meth:`close`; the system frees it after a crash.

        Raises:
            OutputError: If another run holds it, or nothing can be written here.
        """
        try:
            # a lock that cannot be made looks like one that is held
            self.folder.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f'another run is writing {self.output}; wait for it, or give another '
                'name'
            ) from None
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error

    @property
    def output(self) -> str:
        """The product that the journal belongs to."""
        return str(self.folder.with_name(self.folder.name[1:].removesuffix('.part')))

    def start(self) -> Reason:
        """Take up what an earlier run left, or start afresh.

        Returns:
            Why an earlier run's records were thrown away, or None.

        Raises:
            OutputError: If nothing can be written.
        """
        reason = self._mismatch()
        if reason is not None or not self.folder.is_dir():
            self.remove()
        try:
            self.folder.mkdir(exist_ok=True)
            path = self.folder / 'settings.json'
            if not path.exists():
                (self.folder / 'finished').write_bytes(bytes(len(self.finished)))
                _replace(path, json.dumps(self.settings, indent=1))
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error
        return reason

    def _mismatch(self) -> Reason:
        """Say how the records that were found differ from those that are needed."""
        path = self.folder / 'settings.json'
        if not self.folder.is_dir() or not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return 'its settings cannot be read'
        wanted = json.loads(json.dumps(self.settings))
        keys = sorted(found.keys() | wanted.keys())
        different = [key for key in keys if found.get(key) != wanted.get(key)]
        return f'it had other {", ".join(different)}' if different else None

    def open(self) -> None:
        """Open the records, after one process has called :meth:`start`."""
        self.reload()
        if (self.folder / 'layout.json').exists():
            self._read_layout()
        self._files['finished'] = (self.folder / 'finished').open('r+b', 0)

    def _read_layout(self) -> None:
        """Learn what a record looks like."""
        path = self.folder / 'layout.json'
        found = json.loads(path.read_text(encoding='utf-8'))
        dtype = np.dtype(found['dtype'])
        self._layout = (tuple(found['shape']), dtype, found['window'])
        path = self.folder / 'records'
        path.touch()
        # no buffer: other processes write to the same file
        self._files['records'] = path.open('r+b', 0)

    @property
    def record_bytes(self) -> int:
        """Size of a record in bytes."""
        if self._layout is None:
            raise RuntimeError('no record was written yet')
        shape, dtype, window = self._layout
        return int(np.prod(shape)) * dtype.itemsize + -(-window * window // 8)

    def write(
        self,
        numbers: NDArray[np.int64],
        scores: NDArray[Any],
        valid: NDArray[np.bool_],
        nothing: NDArray[np.bool_],
    ) -> None:
        """Write the records of a batch, then their flags.

        Args:
            numbers: The windows' numbers (B,).
            scores: Their scores (B, …).
            valid: Their valid pixels (B, window, window).
            nothing: In which of them no class reached the presence threshold (B,).

        Raises:
            OutputError: If the disk refuses them.
        """
        try:
            if self._layout is None:
                layout = {
                    'shape': scores.shape[1:],
                    'dtype': scores.dtype.str,
                    'window': valid.shape[-1],
                }
                _replace(self.folder / 'layout.json', json.dumps(layout))
                self._read_layout()
            records, flags = self._files['records'], self._files['finished']
            for number, values, mask in zip(numbers, scores, valid, strict=True):
                records.seek(int(number) * self.record_bytes)
                records.write(values.tobytes() + np.packbits(mask).tobytes())
            for number, flag in zip(numbers, 1 + nothing.astype(np.uint8), strict=True):
                flags.seek(int(number))
                flags.write(bytes([flag]))
        except OSError as error:
            raise OutputError(
                f'Cannot write {self.output}: {error}; what has been computed '
                'is kept, the same command goes on from there'
            ) from error
        self.finished[numbers] = 1 + nothing

    def read(
        self, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return scores (B, …) and valid pixels (B, window, window) of windows."""
        if self._layout is None:
            self._read_layout()
        if self._layout is None:
            raise RuntimeError('the journal has no layout')
        shape, dtype, window = self._layout
        size = int(np.prod(shape)) * dtype.itemsize
        scores, valid = [], []
        for number in numbers:
            self._files['records'].seek(int(number) * self.record_bytes)
            record = self._files['records'].read(self.record_bytes)
            scores.append(np.frombuffer(record[:size], dtype).reshape(shape))
            bits = np.frombuffer(record[size:], np.uint8)
            mask = np.unpackbits(bits, count=window * window).astype(bool)
            valid.append(mask.reshape(window, window))
        return np.stack(scores), np.stack(valid)

    def reload(self) -> None:
        """Read the flags again, which other processes have set too."""
        flags = np.fromfile(self.folder / 'finished', np.uint8)
        self.finished[:] = flags[: len(self.finished)]

    def close(self) -> None:
        """Close the files and let other runs in."""
        for file in self._files.values():
            # what could not be flushed has been said where it was written
            with contextlib.suppress(OSError):
                file.close()
        self._files = {}
        if self._lock.is_locked:
            self._lock.release()
            with contextlib.suppress(OSError):
                os.unlink(self._lock.lock_file)

    def remove(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _replace(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}')
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)
