"""Names of classes as they stand in attributes, cells and columns of files."""

import ast
import json
import math
import re
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning, SettingError
from .source import class_indices, class_key

#: A quoted text, as Python and NumPy print it.
QUOTED = re.compile(r""" '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" """, re.VERBOSE)
#: What may stand between quoted texts in a printed list or array.
PRINTED = re.compile(r'(?:[\s,\[\]()]|array|dtype=object)*')
DELIMITERS = '|;,'


class Memberships(NamedTuple):
    """Which of n rows name which of C classes."""

    #: Names of the classes.
    classes: tuple[str, ...]
    #: Which row names which class, (n, C) bool.
    members: NDArray[np.bool_]
    #: Rows that say anything at all, (n,) bool: an empty list does, a blank does not.
    stated: NDArray[np.bool_]
    #: Rows whose every name is ignored, (n,) bool.
    ignored: NDArray[np.bool_]


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names as a tuple.

    Raises:
        SettingError: If there is none, or two differ in case and blanks only.
    """
    if isinstance(classes, str):
        raise SettingError(f'classes={classes!r}; needed: a list; nearest: [{classes}]')
    keys = [class_key(name) for name in classes]
    twice = [
        name for name, key in zip(classes, keys, strict=True) if keys.count(key) > 1
    ]
    if not keys or twice:
        raise SettingError(
            f'classes={list(classes)}; needed: at least one name, and none twice'
            + (f'; twice: {", ".join(twice)}' if twice else '')
        )
    return tuple(classes)


def found_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in their order, those that differ in case and blanks only once."""
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(class_key(name), name)
    return tuple(spelled.values())


def memberships(
    values: Sequence[Any],
    rows: Sequence[int],
    classes: Sequence[str] | None,
    ignore: Sequence[str],
    where: str,
) -> Memberships:
    """Read the classes that each row of a file names.

    Args:
        values: What stands in each row: a name, a delimited or printed list, a list,
            or nothing.
        rows: Number of each row, for messages.
        classes: Names of the classes; None: those found, in alphabetical order.
        ignore: Names that are skipped.
        where: File and field, for messages.

    Returns:
        Who names what.

    Raises:
        LabelError: If a name is none of *classes* or a list cannot be read.
    """
    known = {class_key(name) for name in [*(classes or ()), *ignore]}
    skipped = {class_key(name) for name in ignore}
    distinct: dict[Hashable, int] = {}
    kind = np.empty(len(values), np.intp)
    firsts: list[tuple[Any, int]] = []
    for position, (value, row) in enumerate(zip(values, rows, strict=True)):
        key = _hashable(value)
        if key not in distinct:
            distinct[key] = len(firsts)
            firsts.append((value, row))
        kind[position] = distinct[key]
    named = [names_in(value, known, f'{where}, row {row}') for value, row in firsts]
    kept = [[n for n in names or () if class_key(n) not in skipped] for names in named]
    if classes is None:
        classes = found_classes(sorted({name for names in kept for name in names}))
        if not classes:
            raise LabelError(f'{where}: no row names a class; needed: at least one')
    order = check_classes(classes)
    table = np.zeros((len(firsts), len(order)), bool)
    for index, (names, (_, row)) in enumerate(zip(kept, firsts, strict=True)):
        table[index, class_indices(names, order, f'{where}, row {row}')] = True
    pairs = list(zip(named, kept, strict=True))
    some = np.array([len(found or ()) > len(left) for found, left in pairs], bool)
    if some.any():
        warnings.warn(
            f'{where}: names in ignore={list(ignore)} were skipped in '
            f'{some[kind].sum():,} of {len(values):,} rows',
            LabelWarning,
            stacklevel=4,
        )
    none_left = np.array([not left for left in kept], bool)
    stated = np.array([found is not None for found in named], bool)
    return Memberships(order, table[kind], stated[kind], (some & none_left)[kind])


def _hashable(value: Any) -> Hashable:
    """Return a value, or the list it is, as something that finds its equals."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_hashable(item) for item in value)
    return None if isinstance(value, float) and math.isnan(value) else str(value)


def names_in(value: Any, known: set[str], where: str) -> list[str] | None:
    """Return the class names in one cell or attribute.

    Args:
        value: A name; a list; a JSON list; a list as Python or NumPy prints it; or
            names with '|', ';' or ',' between them (the first of these that occurs).
        known: Keys of valid names: a text that is one of them is never split.
        where: File, field and row, for the message.

    Returns:
        Names; ``[]`` for an empty list; None for a blank.

    Raises:
        LabelError: If a printed list cannot be read.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [name for item in value for name in _single(item)]
    single = _single(value)
    if not single or class_key(single[0]) in known:
        return single or None
    text = single[0]
    if text[0] + text[-1] in ('[]', '()') or text.startswith('array('):
        return _printed(text, where)
    return _delimited(text)


def _single(value: Any) -> list[str]:
    """Return a value as a list of one name, or of none where it is blank."""
    if pd.isna(value):
        return []
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # whole numbers beside blanks come as floats
    text = str(value).strip()
    return [text] if text else []


def _delimited(text: str) -> list[str]:
    delimiter = next((sign for sign in DELIMITERS if sign in text), None)
    parts = text.split(delimiter) if delimiter else [text]
    return [part.strip() for part in parts if part.strip()]


def _printed(text: str, where: str) -> list[str]:
    """Return the names in a printed list: JSON's, Python's or NumPy's."""
    try:
        found = json.loads(text)
    except ValueError:
        pass
    else:
        return [name for item in found for name in _single(item)]
    quoted = QUOTED.findall(text)
    if not quoted:
        return _delimited(text.strip('[]() \n'))
    if not PRINTED.fullmatch(QUOTED.sub('', text)):
        short = text if len(text) < 80 else f'{text[:77]}…'
        raise LabelError(
            f'{where}: {short} cannot be read as a list; needed: all its names in '
            'quotes, such as ["Forest", "Water"]'
        )
    return [str(ast.literal_eval(name)).strip() for name in quoted]
