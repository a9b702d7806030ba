"""Image-level labels from a table that names tiles."""

import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning, name_key
from ..grids import Grid
from .class_names import check_classes, memberships
from .source import ImageLabel
from .table_files import BLANK, column, missing_column, read_table

#: Valid cells of a column of 0 and 1, in lower case.
PRESENT, ABSENT = ('1', '1.0', 'true'), ('0', '0.0', 'false')
#: Suffixes that are not part of a tile's name.
SUFFIXES = ('.tif', '.tiff', '.jp2', '.png', '.jpg', '.jpeg', '.vrt', '.safe', '.zip')
#: Metadata of a Sentinel-2 product, whose folder is the tile.
METADATA = re.compile(r'MTD_MSIL(1C|2A)\.xml', re.IGNORECASE)


class LabelTable(NamedTuple):
    """Image-level labels of n rows, over C classes."""

    path: str
    classes: tuple[str, ...]
    #: Name of each row's tile, as it is in the file.
    ids: list[Any]
    #: Number of each row: its line in a text file, or 1, 2, 3, ….
    rows: list[int]
    #: Whether a class is present, (n, C).
    present: NDArray[np.bool_]
    #: Whether presence or absence is known, (n, C).
    known: NDArray[np.bool_]


class TableLabels:
    """Labels of tiles from a table with one row for each tile.

    The classes are in one column (*field*), as a list or separated by '|', ';' or ',',
    or in one column of 0 and 1 for each class (no *field*). A list names all classes of
    its tile; a blank cell means unknown. Every window of a tile gets the tile's label,
    so windows should be about as large as the labeled tiles.
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
            id_field: Column with the names of the tiles or of their files. Suffixes
                such as .tif are ignored. Where a row names folders, they must be the
                last ones of the tile's path, or the tile's path the last part of the
                row's, if that is unique.
            field: Column with the classes of each tile: a name, a delimited list, a
                list as JSON, Python or NumPy prints it, or a Parquet list. None: one
                column for each class.
            classes: Names of the classes; None: those found, in alphabetical order or,
                without *field*, in the order of the columns.
            ignore: Names, or columns, to skip.
            complete: Whether classes that a tile does not name are absent; if not, they
                are unknown.

        Raises:
            LabelError: If the file or a column is missing, a cell cannot be read, a
                class is unknown or a tile has two different labels. The message names
                the rows.
        """
        table = read_label_table(path, id_field, field, classes, ignore)
        self.path, self.classes, self.complete = table.path, table.classes, complete
        self._present, self._known = table.present, table.known
        self._row = _rows_of_tiles(table, id_field)
        #: Keys of the rows by the name of the file alone.
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        for key in self._row:
            self._named[PurePosixPath(key).name].append(key)

    def __len__(self) -> int:
        """Return the number of labeled tiles."""
        return len(self._row)

    def label(
        self,
        grid: Grid,
        tile: str | None = None,
        clear: NDArray[np.bool_] | None = None,
    ) -> ImageLabel | None:
        """Return the label of a tile, or None if nothing is known about it.

        Args:
            grid: Unused.
            tile: Name of the tile.
            clear: Unused: a tag says nothing of where in a tile its classes are.

        Raises:
            LabelError: If *tile* is None.
        """
        if tile is None:
            raise LabelError(
                f'{self.path} has labels by name, expected the name of the tile that '
                'the window belongs to.'
            )
        row = self._find(tile_key(tile))
        if row is None:
            return None
        present, known = self._present[row], self._known[row]
        known = known & (present | self.complete)
        return ImageLabel(present.astype(np.float32), known) if known.any() else None

    def lost(self, tiles: Sequence[str]) -> list[str]:
        """Return the names of labeled tiles that are none of the given ones."""
        found = {self._find(tile_key(tile)) for tile in tiles}
        return [key for key, row in self._row.items() if row not in found]

    def _find(self, key: str) -> int | None:
        """Return the row of a tile: the one that names most of its path.

        Raises:
            LabelError: If the name alone belongs to rows of several folders.
        """
        parts = key.split('/')
        for start in range(len(parts)):
            row = self._row.get('/'.join(parts[start:]))
            if row is not None:
                return row
        rows = [
            row
            for row in self._named.get(parts[-1], [])
            if f'/{row}'.endswith(f'/{key}')
        ]
        if len(rows) > 1:
            raise LabelError(
                f'{self.path} has {len(rows)} tiles named {parts[-1]!r} in different '
                f'folders: {", ".join(rows[:3])}. Pass scenes with their folders.'
            )
        return self._row[rows[0]] if rows else None

    def extents(self, grid: Grid) -> NDArray[np.float64] | None:
        """Return None: a table does not say where labels are."""
        return None


def tile_key(name: Any) -> str:
    """Return the name of a tile: its path without suffix, ``.`` and drive."""
    if pd.isna(name):
        return ''
    text = unicodedata.normalize('NFC', str(name)).strip().replace('\\', '/')
    path = PurePosixPath(text)
    if METADATA.fullmatch(path.name):
        path = path.parent
    base = path.name
    # X.SAFE.zip has two suffixes
    while (suffix := PurePosixPath(base).suffix).lower() in SUFFIXES:
        base = base[: -len(suffix)]
    parts = [part for part in path.parts if part not in ('/', '.')]
    return '/'.join([*parts[:-1], base]) if base else ''


def _rows_of_tiles(table: LabelTable, id_field: str) -> dict[str, int]:
    """Return the position of each tile's row, and warn about rows that are left out.

    Raises:
        LabelError: If two rows of a tile differ.
    """
    found: dict[str, int] = {}
    unnamed, unknown, repeated = [], [], []
    labels = np.concatenate([table.present, table.known], axis=1)
    for position, key in enumerate(map(tile_key, table.ids)):
        if not key:
            unnamed.append(position)
        elif not table.known[position].any():
            unknown.append(position)
        elif found.setdefault(key, position) != position:
            repeated.append(position)
            if (labels[found[key]] != labels[position]).any():
                raise LabelError(
                    f'{table.path}: tile {key!r} has different labels in rows '
                    f'{table.rows[found[key]]} and {table.rows[position]}, expected '
                    'one label for each tile.'
                )
    for left, why in (
        (unnamed, f'have a blank {id_field!r}'),
        (unknown, 'say nothing about any class'),
        (repeated, 'repeat a tile with the same label'),
    ):
        if left:
            warnings.warn(
                f'{table.path}: {len(left):,} of {len(table.ids):,} rows were left '
                f'out: they {why} (first: row {table.rows[left[0]]}).',
                LabelWarning,
                stacklevel=3,
            )
    if not found:
        raise LabelError(f'{table.path} labels no tile, expected at least one.')
    return found


def read_label_table(
    path: str | Path,
    id_field: str,
    field: str | None = None,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
) -> LabelTable:
    """Read a table of image-level labels; arguments as for :class:`TableLabels`.

    Raises:
        LabelError: If the file or a column is missing, a cell cannot be read or a class
            is unknown.
    """
    frame = read_table(path)
    ids = column(frame, id_field, path, 'id_field')
    rows = frame.index.tolist()
    if field is None:
        order, present, known = _flags(frame, id_field, classes, ignore, path)
    else:
        values = column(frame, field, path)
        where = f'{path}, column {field!r}'
        order, present, stated, _ = memberships(values, rows, classes, ignore, where)
        known = np.repeat(stated[:, None], len(order), axis=1)
    return LabelTable(str(path), order, ids.tolist(), rows, present, known)


def _flags(
    frame: pd.DataFrame,
    id_field: str,
    classes: Sequence[str] | None,
    ignore: Sequence[str],
    path: str | Path,
) -> tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_]]:
    """Read one column of 0 and 1 for each class.

    Returns:
        Names of the C classes; whether a row has a class (n, C); whether that is known
        (n, C).

    Raises:
        LabelError: If a class has no column, or a cell is neither 0, 1 nor blank.
    """
    skipped = {name_key(name) for name in (id_field, *ignore)}
    columns = {name_key(n): n for n in frame.columns if name_key(n) not in skipped}
    if not columns:
        raise LabelError(
            f'{path} has no column besides {id_field!r}, expected one for each class. '
            'Pass field= if one column lists the classes.'
        )
    order = check_classes(list(columns.values()) if classes is None else classes)
    for name in order:
        if name_key(name) not in columns:
            raise missing_column(path, name, frame.columns)
    words = frame.map(lambda cell: str(cell).strip().lower())
    chosen = [columns.pop(name_key(name)) for name in order]
    others = [n for n in columns.values() if words[n].isin(PRESENT + ABSENT).all()]
    if others:
        warnings.warn(
            f'{path}: {len(others):,} columns of 0 and 1 are not among the classes and '
            f'were left out: {", ".join(others)}.',
            LabelWarning,
            stacklevel=4,
        )
    words = words[chosen]
    present, absent = words.isin(PRESENT).to_numpy(), words.isin(ABSENT).to_numpy()
    wrong = ~(present | absent | words.isin(BLANK).to_numpy())
    if wrong.any():
        name = chosen[int(wrong.any(axis=0).argmax())]
        row = frame.index[int(wrong[:, chosen.index(name)].argmax())]
        raise LabelError(
            f'{path}, row {row}: column {name!r} has {frame.at[row, name]!r}, expected '
            f'0, 1 or a blank. Pass field= if one column lists the classes, or '
            f'ignore=[{name!r}] to skip this one.'
        )
    return order, present, present | absent
