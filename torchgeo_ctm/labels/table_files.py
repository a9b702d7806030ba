"""Read tables: CSV with any usual delimiter, and Parquet."""

import codecs
import csv
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import LabelError, did_you_mean, similar_file

PARQUET = ('.parquet', '.pq', '.geoparquet')
TEXT = ('.csv', '.tsv', '.txt')
#: First line that Excel writes and reads: ``sep=;``.
SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
#: Cells that say nothing, in lower case.
BLANK = ('', 'nan', 'none', '<na>')


def column(
    frame: pd.DataFrame, name: str, path: str | Path, argument: str = 'field'
) -> Any:
    """Return a column of a table, whose name an argument has.

    Raises:
        LabelError: If there is no column of this name.
    """
    if name not in frame.columns:
        raise missing_column(path, name, frame.columns, argument)
    return frame[name]


def missing_column(
    path: str | Path, name: str, columns: Iterable[Any], argument: str = ''
) -> LabelError:
    """Return the error that a column or field is missing, which an argument names."""
    found = [str(column) for column in columns]
    advice = f' Pass its name as {argument}=.' if argument and found else ''
    return LabelError(
        f'{path} has no column {name!r}, expected one of: {", ".join(found) or "none"}.'
        f'{did_you_mean(name, found) or advice}'
    )


def check_file(path: str | Path, what: str) -> Path:
    """Check that a file exists, and that the library that reads it is installed.

    Raises:
        LabelError: If not.
    """
    path = Path(path)
    path = path if path.exists() else path.expanduser()
    if not path.exists():
        kinds = (*TEXT, *PARQUET, '.gpkg', '.geojson', '.shp', '.fgb')
        raise LabelError(
            f'{path} does not exist, expected {what}.{similar_file(path, kinds)}'
        )
    if path.suffix.lower() in PARQUET and importlib.util.find_spec('pyarrow') is None:
        raise LabelError(
            f'{path} needs pyarrow. Run: pip install "torchgeo-ctm[parquet]"'
        )
    return path


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file (comma, semicolon or tab; with or without BOM) or Parquet.

    Cells of text files stay as they are: NA remains a name, and 007 is not 7.

    Returns:
        The table. Its index numbers the rows as people do: by line in a text file,
        whose header is line 1; else 1, 2, 3, ….

    Raises:
        LabelError: If the file is missing, empty or damaged.
    """
    path = check_file(path, 'a table')
    if path.suffix.lower() in PARQUET:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise LabelError(f'{path} cannot be read as Parquet: {reason}') from error
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        frame.index = pd.RangeIndex(1, len(frame) + 1)
    elif path.suffix.lower() in TEXT:
        frame = _read_text(path)
    else:
        kinds = (*TEXT, *PARQUET)
        raise LabelError(
            f'{path} is not a table, expected one of: {", ".join(kinds)}.'
            f'{did_you_mean(path.suffix.lower(), kinds)}'
        )
    if not len(frame):
        raise LabelError(f'{path} has no rows, expected at least one label.')
    return frame


def _read_text(path: Path) -> pd.DataFrame:
    # pandas' reader fills short rows up, and does not tell the line of a wrong one
    try:
        with open(path, encoding=_encoding(path), newline='') as file:
            first = next((s for s in iter(file.readline, '') if s.strip()), '')
            # Excel's own line, which names the delimiter
            stated = SEPARATOR.fullmatch(first.strip('\r\n'))
            if stated is None:
                file.seek(0)
            delimiter = _delimiter(first) if stated is None else stated[1]
            reader = csv.reader(file, delimiter=delimiter)
            lines = (line for line in reader if any(cell.strip() for cell in line))
            header = [name.strip() for name in next(lines, [])]
            records = [
                (reader.line_num + (stated is not None), record) for record in lines
            ]
    except UnicodeError as error:
        raise LabelError(f'{path} is not UTF-8. Save it as "CSV UTF-8".') from error
    except (OSError, csv.Error) as error:
        raise LabelError(f'{path} cannot be read as a table: {error}') from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise LabelError(
            f'{path} has several columns {", ".join(map(repr, twice))}, expected one.'
        )
    for row, record in records:
        if len(record) != len(header):
            raise LabelError(
                f'{path}, row {row}: {len(record)} cells under {len(header)} columns '
                f'({", ".join(header)}). Put quotes around cells with {delimiter!r} in '
                'them.'
            )
    rows = [row for row, _ in records]
    cells = [record for _, record in records]
    return pd.DataFrame(cells, rows, header, dtype=object)


def _encoding(path: Path) -> str:
    """Return the encoding of a text file: UTF-16 with its mark, else UTF-8."""
    with open(path, 'rb') as file:
        begin = file.read(2)
    return (
        'utf-16' if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else 'utf-8-sig'
    )


def _delimiter(header: str) -> str:
    """Return the delimiter that gives the most columns."""
    return max(',;\t', key=lambda sign: len(next(csv.reader([header], delimiter=sign))))
