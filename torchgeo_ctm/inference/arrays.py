"""Write a NumPy array row by row: complete, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import DataError, OutputError
from ..files import temporary_path


class ArrayRows:
    """A ``.npy`` file that grows along its first axis and is never held in memory.

    NumPy pads a header so that the first axis can grow in place; the header is
    written anew at the end (numpy.lib.format, version 1.0).
    """

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside *path*.

        Raises:
            OutputError: If it cannot be written.
        """
        self.path = path
        self._part = temporary_path(path)
        self._shape: tuple[int, ...] | None = None
        self._dtype = np.dtype('u1')
        self._length = 0
        try:
            self._file = self._part.open('wb')
        except OSError as error:
            raise OutputError(f'Cannot write {path}: {error}') from error

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows (N, …).

        Raises:
            DataError: If their shape differs from that of the rows before.
            OutputError: If the disk refuses them.
        """
        if self._shape is None:
            self._shape, self._dtype = rows.shape[1:], rows.dtype
            self._header()
        if rows.shape[1:] != self._shape:
            raise DataError(
                f'{self.path.name} holds chips of {self._shape}, the next one is '
                f'{rows.shape[1:]}; needed: chips of one size'
            )
        try:
            self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        except OSError as error:
            raise OutputError(f'Cannot write {self.path}: {error}') from error
        self._length += len(rows)

    def _header(self) -> None:
        """Write the header for the rows so far."""
        shape = (self._length, *(self._shape or ()))
        descr = npy.dtype_to_descr(self._dtype)
        content = {'descr': descr, 'fortran_order': False, 'shape': shape}
        self._file.seek(0)
        npy.write_array_header_1_0(self._file, content)

    def finish(self) -> None:
        """Give the file its final name.

        Raises:
            OutputError: If the disk refuses it.
        """
        try:
            self._header()
            self._file.close()
            self._part.replace(self.path)
        except OSError as error:
            raise OutputError(f'Cannot write {self.path}: {error}') from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the temporary file."""
        self._file.close()
        self._part.unlink(missing_ok=True)
