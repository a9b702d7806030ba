"""On-disk window scores, so that an interrupted run can resume."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from ..errors import OutputError
from ..files import atomic_path, write_text


class ScoreJournal:
    """The scores of each window of a scene, in a hidden folder beside the output.

    ``scores.npy`` (N, …) holds the scores of the N windows at the size of their maps,
    ``valid.npy`` their valid pixels as bits, and ``finished.npy`` (N,) a flag for each
    complete window. Windows are written by number, so several processes can share a
    journal, and a run with another number of processes can resume it.

    Arrays are mapped for one read at a time: mapped pages count as memory of the
    process, which must not grow with the scene.
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
        if reason is not None or not self._path('finished').exists():
            self.remove()
        try:
            self.folder.mkdir(exist_ok=True)
            if not self._path('finished').exists():
                write_text(self.folder / 'settings.json', json.dumps(self.settings))
                self._create('finished', self.finished)
        except OSError as error:
            raise OutputError(f'Cannot write {self.output}: {error}') from error
        return reason

    def _mismatch(self) -> str | None:
        """Return why the records of an earlier run cannot be used, or None."""
        path = self.folder / 'settings.json'
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return 'its settings cannot be read'
        if not self._path('finished').exists():
            return 'its files have an older layout'
        wanted = json.loads(json.dumps(self.settings))
        keys = sorted(found.keys() | wanted.keys())
        different = [key for key in keys if found.get(key) != wanted.get(key)]
        return f'{", ".join(different)} changed' if different else None

    def _path(self, name: str) -> Path:
        """Return the file of an array."""
        return self.folder / f'{name}.npy'

    def _create(self, name: str, like: NDArray[Any]) -> None:
        """Create an array (N, …) of zeros, complete or not at all.

        Args:
            name: Name of the array.
            like: Array (B, …) of the same type and shape, but for its length.
        """
        with atomic_path(self._path(name)) as temporary:
            shape = (len(self.finished), *like.shape[1:])
            open_memmap(temporary, 'w+', like.dtype, shape)

    def _store(self, name: str, numbers: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Write rows (B, …) of an array by file, not by memory map.

        A full disk would end a process that writes to a map without an error, and
        machines that share a disk would overwrite each other's pages.
        """
        path = self._path(name)
        offset = open_memmap(path, 'r').offset
        with path.open('r+b') as file:
            for number, row in zip(numbers, rows, strict=True):
                file.seek(offset + int(number) * row.nbytes)
                file.write(row.tobytes())

    def write(
        self,
        numbers: NDArray[np.int64],
        scores: NDArray[Any],
        valid: NDArray[np.bool_],
        nothing: NDArray[np.bool_],
    ) -> None:
        """Write the records of a batch, then their flags.

        Args:
            numbers: Numbers of the windows (B,).
            scores: Scores (B, …).
            valid: Valid pixels (B, window, window).
            nothing: Windows in which no class reached the presence threshold (B,).

        Raises:
            OutputError: If the disk refuses them.
        """
        bits = np.packbits(valid.reshape(len(valid), -1), axis=1)
        flags = 1 + nothing.astype(np.uint8)
        records = {'scores': scores, 'valid': bits, 'finished': flags}
        try:
            if not self._path('valid').exists():
                # one process creates the arrays, the others wait for it
                with FileLock(self.folder / 'create.lock'):
                    for name in ('scores', 'valid'):
                        if not self._path(name).exists():
                            self._create(name, records[name])
            for name, rows in records.items():
                self._store(name, numbers, rows)
        except OSError as error:
            raise OutputError(
                f'Cannot write {self.output}: {error}. Windows computed so far are '
                'kept: run the same command again to resume.'
            ) from error
        self.finished[numbers] = flags

    def read(
        self, numbers: NDArray[np.int64], window: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return scores (B, …) and valid pixels (B, window, window) of windows."""
        scores, bits = (
            np.asarray(open_memmap(self._path(name), 'r')[numbers])
            for name in ('scores', 'valid')
        )
        valid = np.unpackbits(bits, axis=1, count=window**2).astype(bool)
        return scores, valid.reshape(-1, window, window)

    def reload(self) -> None:
        """Read the flags again, which other processes set too."""
        self.finished[:] = np.load(self._path('finished'))

    def close(self) -> None:
        """Let other runs in."""
        if self._lock.is_locked:
            self._lock.release()
            with contextlib.suppress(OSError):
                os.unlink(self._lock.lock_file)

    def remove(self) -> None:
        """Delete the journal."""
        shutil.rmtree(self.folder, ignore_errors=True)
