"""Classes in a table as one column of 0 and 1 for each."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning
from .class_names import check_classes
from .source import class_key
from .table_files import Table, missing_column

#: What a cell may hold, in lower case; a blank says nothing.
FLAGS = {'1': True, '1.0': True, 'true': True, '0': False, '0.0': False, 'false': False}
BLANK = ('', 'nan', 'none', '<na>')

Flags = tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_]]


def read_flags(
    table: Table, id_field: str, classes: Sequence[str] | None, ignore: Sequence[str]
) -> Flags:
    """Read one column for each class.

    Args:
        table: The table.
        id_field: Column that names the tiles.
        classes: Names of the classes; None: all columns but *id_field* and *ignore*.
        ignore: Columns that are skipped.

    Returns:
        Names of the C classes; which row has which class (n, C); what is known (n, C).

    Raises:
        LabelError: If a class has no column, or a cell holds something else.
    """
    skipped = {class_key(name) for name in (id_field, *ignore)}
    columns = {
        class_key(name): name
        for name in table.columns
        if class_key(name) not in skipped
    }
    if not columns:
        raise LabelError(
            f'{table.path} has no column besides {id_field!r}; needed: one for each '
            'class, or field= of a column that lists classes'
        )
    order = check_classes(list(columns.values()) if classes is None else classes)
    for name in order:
        if class_key(name) not in columns:
            raise LabelError(
                missing_column(table.path, name, table.columns)
                + ' (needed: one for each class, or field=)'
            )
    _tell_others(table, columns, {class_key(name) for name in order})
    present = np.zeros((len(table.rows), len(order)), bool)
    known = np.zeros_like(present)
    for index, name in enumerate(order):
        column = columns[class_key(name)]
        for position, cell in enumerate(table.columns[column]):
            flag = _flag(cell)
            if flag is None and str(cell).strip().lower() not in BLANK:
                raise LabelError(
                    f'{table.path}, row {table.rows[position]}: column {column!r} holds '
                    f'{cell!r}; needed: 0, 1 or a blank (or field= of the column that '
                    f'lists classes, or ignore=[{column!r}])'
                )
            present[position, index] = bool(flag)
            known[position, index] = flag is not None
    return order, present, known


def _flag(cell: Any) -> bool | None:
    return FLAGS.get(str(cell).strip().lower())


def _tell_others(table: Table, columns: dict[str, str], named: set[str]) -> None:
    """Say which columns look like classes but are not used."""
    others = [
        name
        for key, name in columns.items()
        if key not in named
        and all(_flag(cell) is not None for cell in table.columns[name])
    ]
    if others:
        warnings.warn(
            f'{table.path}: {len(others):,} columns of 0 and 1 are none of the classes '
            f'and were left out: {", ".join(others)}',
            LabelWarning,
            stacklevel=4,
        )
