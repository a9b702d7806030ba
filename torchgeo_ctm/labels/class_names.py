"""Read class names from attributes, cells and columns of files."""

import ast
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import LabelError, LabelWarning, SettingError, did_you_mean, name_key
from .source import class_indices

#: A quoted text, as Python and NumPy print it.
QUOTED = re.compile(r""" '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" """, re.VERBOSE)
#: What may stand between quoted texts in a printed list or array.
PRINTED = re.compile(r'(?:[\s,\[\]()]|array|dtype=object)*')
DELIMITERS = '|;,'


class Memberships(NamedTuple):
    """The classes that each of n rows names."""

    #: Names of the C classes.
    classes: tuple[str, ...]
    #: Whether a row names a class, (n, C).
    members: NDArray[np.bool_]
    #: Whether a row is not blank, (n,). An empty list is not blank.
    stated: NDArray[np.bool_]
    #: Whether a row names ignored classes only, (n,).
    ignored: NDArray[np.bool_]


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names as a tuple.

    Raises:
        SettingError: If there is none, a name has hidden characters, or two differ only
            in case and blanks.
    """
    if isinstance(classes, str):
        raise SettingError(
            f'classes={classes!r} is a text, expected a list. Did you mean [{classes}]?'
        )
    if isinstance(classes, AbstractSet):
        raise SettingError(
            'classes is a set, which has no order, expected a list. Did you mean '
            f'{sorted(map(str, classes))}?'
        )
    classes = tuple(classes)
    for name in classes:
        if not str(name).isprintable():
            raise SettingError(f'classes has {name!r}, expected printable characters.')
    keys = [name_key(name) for name in classes]
    twice = [
        name for name, key in zip(classes, keys, strict=True) if keys.count(key) > 1
    ]
    if twice:
        raise SettingError(
            f'classes={list(classes)} has duplicates, expected different names: '
            f'{", ".join(twice)}.'
        )
    if not keys:
        raise SettingError('classes=[] is empty, expected at least one name.')
    return classes


def found_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in order, without those that differ only in case and blanks."""
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(name_key(name), name)
    return tuple(spelled.values())


def memberships(
    values: Iterable[Any],
    rows: Iterable[int],
    classes: Sequence[str] | None,
    ignore: Sequence[str],
    where: str,
) -> Memberships:
    """Read the classes that each row of a file names.

    Args:
        values: Value of each row: a name, a delimited or printed list, a list, or
            nothing.
        rows: Number of each row, for messages.
        classes: Names of the classes; None: those found, in alphabetical order.
        ignore: Names to skip.
        where: File and field, for messages.

    Raises:
        LabelError: If a name is not one of *classes* or a list cannot be read.
    """
    classes = None if classes is None else check_classes(classes)
    skipped = {name_key(name) for name in ignore}
    known = skipped | {name_key(name) for name in classes or ()}
    # millions of features have few different values: each is read once
    numbers: dict[Hashable, int] = {}
    first: list[str] = []
    different: list[Any] = []
    which = []
    for value, row in zip(values, rows, strict=True):
        key = _hashable(value)
        if key not in numbers:
            numbers[key] = len(different)
            first.append(f'{where}, row {row}')
            different.append(value)
        which.append(numbers[key])
    found = Counter(part for value in different for part in _parts(value))
    named = [
        names_in(value, known, found, at)
        for value, at in zip(different, first, strict=True)
    ]
    kept = [[n for n in names or () if name_key(n) not in skipped] for names in named]
    if classes is None:
        spelled = sorted({name for names in kept for name in names})
        classes = found_classes(spelled)
        keys = {name_key(name): name for name in classes}
        if also := [name for name in spelled if name not in classes]:
            pairs = [f'{name!r} as {keys[name_key(name)]!r}' for name in also]
            warnings.warn(
                f'{where}: names that differ in case and blanks alone are one class: '
                f'{", ".join(pairs)}.',
                LabelWarning,
                stacklevel=4,
            )
        if not classes:
            raise LabelError(f'{where}: no row names a class, expected at least one.')
    order = check_classes(classes)
    table = np.zeros((len(kept), len(order)), bool)
    for index, names in enumerate(kept):
        table[index, class_indices(names, order, first[index])] = True
    shorter = [len(a or ()) > len(b) for a, b in zip(named, kept, strict=True)]
    some = np.array(shorter, bool)[which]
    if some.any():
        warnings.warn(
            f'{where}: names in ignore={list(ignore)} were skipped in '
            f'{some.sum():,} of {len(some):,} rows.',
            LabelWarning,
            stacklevel=4,
        )
    told = {name_key(name) for names in named for name in names or ()}
    if unknown := [name for name in ignore if name_key(name) not in told]:
        warnings.warn(
            f'{where}: no row names {", ".join(map(repr, unknown))} of ignore.'
            f'{did_you_mean(unknown[0], order)}',
            LabelWarning,
            stacklevel=4,
        )
    stated = np.array([names is not None for names in named], bool)[which]
    empty = np.array([not names for names in kept], bool)[which]
    return Memberships(order, table[which], stated, some & empty)


def _hashable(value: Any) -> Hashable:
    """Return a value or list as a hashable key that equal values share."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_hashable(item) for item in value)
    return None if isinstance(value, float) and math.isnan(value) else str(value)


def names_in(
    value: Any, known: set[str], found: Mapping[str, int], where: str
) -> list[str] | None:
    """Return the class names in one cell or attribute.

    Args:
        value: A name; a list; a JSON list; a list as Python or NumPy prints it; or
            names separated by '|', ';' or ',' (the first of these that occurs).
        known: Keys of valid names: a text that is one of them is never split.
        found: Number of different cells with each name or part of a name, by key. It
            tells a comma in a name from one between names.
        where: File, field and row, for the message.

    Returns:
        Names; ``[]`` for an empty list; None for a blank.

    Raises:
        LabelError: If a printed list cannot be read.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [name for item in value for name in _single(item)]
    single = _single(value)
    if not single or name_key(single[0]) in known:
        return single or None
    text = single[0]
    if _is_printed(text):
        return _printed(text, where)
    parts = _delimited(text)
    if text.count(',') and not any(sign in text for sign in DELIMITERS[:-1]):
        return _at_commas(text, parts, known, found, where)
    return parts


def _parts(value: Any) -> set[str]:
    """Return the keys of the names that a cell may have, and of their parts."""
    if isinstance(value, list | tuple | np.ndarray):
        return {name_key(name) for item in value for name in _single(item)}
    whole = [text for text in _single(value) if not _is_printed(text)]
    names = [name for text in whole for name in _delimited(text)]
    return {name_key(name) for name in whole + names}


def _at_commas(
    text: str, parts: list[str], known: set[str], found: Mapping[str, int], where: str
) -> list[str]:
    """Return the names in a text with commas, which a name may contain."""
    if known:
        return _joined(parts, known)
    if found[name_key(text)] > 1:
        return [text]
    if re.search(r',\s', text) and all(found[name_key(part)] < 2 for part in parts):
        warnings.warn(
            f'{where}: {text!r} is taken as one class name, not as a list of '
            f'{len(parts)}. Separate classes by ; or |, or pass classes=.',
            LabelWarning,
            stacklevel=5,
        )
        return [text]
    return parts


def _joined(parts: list[str], known: set[str]) -> list[str]:
    """Return parts, those joined again that make a known name."""
    names: list[str] = []
    while parts:
        for count in range(len(parts), 0, -1):
            name = ', '.join(parts[:count])
            if (
                count == 1
                or {name_key(name), name_key(name.replace(', ', ','))} & known
            ):
                break
        names.append(name)
        parts = parts[count:]
    return names


def _is_printed(text: str) -> bool:
    """Return whether a text is a list as JSON, Python or NumPy print it."""
    return text[0] + text[-1] in ('[]', '()') or text.startswith('array(')


def _single(value: Any) -> list[str]:
    """Return a value as a list of one name, or ``[]`` for a blank."""
    if pd.isna(value):
        return []
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a column of integers with blanks is read as floats
    text = str(value).strip()
    return [text] if text else []


def _delimited(text: str) -> list[str]:
    delimiter = next((sign for sign in DELIMITERS if sign in text), None)
    parts = text.split(delimiter) if delimiter else [text]
    return [part.strip() for part in parts if part.strip()]


def _printed(text: str, where: str) -> list[str]:
    """Return the names in a list as JSON, Python or NumPy print it."""
    try:
        return [name for item in json.loads(text) for name in _single(item)]
    except ValueError:
        pass
    quoted = QUOTED.findall(text)
    if not quoted:
        return _delimited(text.strip('[]() \n'))
    if not PRINTED.fullmatch(QUOTED.sub('', text)):
        short = text if len(text) < 80 else f'{text[:77]}…'
        raise LabelError(
            f'{where}: {short} cannot be read as a list, expected all names in quotes, '
            'such as ["Forest", "Water"].'
        )
    return [str(ast.literal_eval(name)).strip() for name in quoted]
