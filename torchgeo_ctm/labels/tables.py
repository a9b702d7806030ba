"""Image labels from a table: the classes of each tile by its name."""

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning
from ..grids import Grid
from .class_names import memberships
from .flag_columns import read_flags
from .source import ImageLabel
from .table_files import Table, read_table

#: Endings that are no part of a tile's name.
SUFFIXES = ('.tif', '.tiff', '.jp2', '.png', '.jpg', '.jpeg', '.vrt', '.safe', '.zip')


class TableLabels:
    """Labels of tiles from a table with one row a tile.

    Classes stand in one column (*field*) as a list or with '|', ';' or ',' between
    them, or in one column for each class as 0 and 1 (no *field*). A list names all the
    classes of its tile; a blank cell says nothing. Every window of a tile gets the
    tile's label, so windows should be as large as the tiles that were labelled.
    """

    def __init__(
        self,
        path: str | Path,
        id_field: str,
        field: str | None = None,
        classes: Sequence[str] | None = None,
        *,
        ignore: Sequence[str] = (),
        complete: bool = True,
    ) -> None:
        """Read the table.

        Args:
            path: Table: .csv, .tsv, .txt or .parquet (needs pyarrow).
            id_field: Column with the names of the tiles, or their files'; folders and
                suffixes such as .tif make no difference.
            field: Column with the classes of each tile: a name, a delimited list, a
                list as JSON, Python or NumPy prints it, or Parquet's own. None: one
                column for each class.
            classes: Names of the classes; None: those found, in alphabetical order or,
                without *field*, in the order of the columns.
            ignore: Names, or columns, that are skipped.
            complete: Whether classes that a tile does not have are absent; if not,
                they are unknown.

        Raises:
            LabelError: If the file or a column is missing, a cell cannot be read, a
                class is unknown or a tile has two different labels; the message says
                which rows.
        """
        table = read_table(path)
        ids = table.column(id_field)
        if field is None:
            flags = read_flags(table, id_field, classes, ignore)
            self.classes, self._present, self._known = flags
        else:
            where = f'{table.path}, column {field!r}'
            named = memberships(table.column(field), table.rows, classes, ignore, where)
            self.classes, self._present = named.classes, named.members
            self._known = np.repeat(named.stated[:, None], len(self.classes), axis=1)
        self.path, self.complete = table.path, complete
        self._row = self._index(table, id_field, ids)

    def __len__(self) -> int:
        """Return the number of tiles with a label."""
        return len(self._row)

    def label(self, grid: Grid, tile: str | None = None) -> ImageLabel | None:
        """Return the label of a tile, None where nothing is known of it.

        Raises:
            LabelError: If no *tile* is named.
        """
        if tile is None:
            raise LabelError(
                f'{self.path} names tiles; needed: the name of the tile that a window '
                'was cut from'
            )
        row = self._row.get(tile_key(tile))
        if row is None:
            return None
        present, known = self._present[row], self._known[row]
        known = known & (present | self.complete)
        return ImageLabel(present.astype(np.float32), known) if known.any() else None

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        """Return None: a table does not tell where."""
        return None

    def _same(self, first: int, second: int) -> bool:
        """Return whether two rows have the same label."""
        pairs = (self._present, self._known)
        return all(bool((values[first] == values[second]).all()) for values in pairs)

    def _index(self, table: Table, id_field: str, ids: Sequence[Any]) -> dict[str, int]:
        """Return the position of each tile's row, and say what was left out.

        Raises:
            LabelError: If two rows of a tile differ.
        """
        rows: dict[str, int] = {}
        unnamed, unknown, repeated = [], [], []
        for position, name in enumerate(ids):
            key = tile_key(name)
            if not key:
                unnamed.append(position)
            elif not self._known[position].any():
                unknown.append(position)
            elif key not in rows:
                rows[key] = position
            elif self._same(rows[key], position):
                repeated.append(position)
            else:
                raise LabelError(
                    f'{table.path}: tile {key!r} has different labels in rows '
                    f'{table.rows[rows[key]]} and {table.rows[position]}; needed: one'
                )
        for left, why in (
            (unnamed, f'have a blank {id_field!r}'),
            (unknown, 'say nothing of any class'),
            (repeated, 'repeat a tile with the same label'),
        ):
            if left:
                warnings.warn(
                    f'{table.path}: {len(left):,} of {len(ids):,} rows were left out: '
                    f'they {why} (first: row {table.rows[left[0]]})',
                    LabelWarning,
                    stacklevel=4,
                )
        if not rows:
            raise LabelError(f'{table.path} labels no tile; needed: at least one')
        return rows


def tile_key(name: Any) -> str:
    """Return what names a tile: its file's name without folder and suffix."""
    if pd.isna(name):
        return ''
    base = PurePath(str(name).strip().replace('\\', '/')).name
    suffix = PurePath(base).suffix
    return base[: -len(suffix)] if suffix.lower() in SUFFIXES else base
