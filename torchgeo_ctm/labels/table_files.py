"""Read tables: CSV with any usual delimiter, and Parquet."""

import csv
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..errors import LabelError, nearest

PARQUET = ('.parquet', '.pq', '.geoparquet')
TEXT = ('.csv', '.tsv', '.txt')


class Table(NamedTuple):
    """Columns of a file, and the number of each row as people count."""

    path: str
    columns: dict[str, list[Any]]
    #: The line of a text file, the header being line 1; else 1, 2, 3, …
    rows: list[int]

    def column(self, name: str) -> list[Any]:
        """Return a column.

        Raises:
            LabelError: If there is none of this name.
        """
        if name not in self.columns:
            raise LabelError(missing_column(self.path, name, self.columns))
        return self.columns[name]


def missing_column(path: str | Path, name: str, columns: Iterable[Any]) -> str:
    """Return the message that a column or field is not there."""
    found = [str(column) for column in columns]
    hint = nearest(name, found)
    return f'{path} has no column {name!r}; found: {", ".join(found) or "none"}{hint}'


def check_file(path: str | Path, what: str) -> Path:
    """Refuse a file that is not there, or whose library is missing.

    Raises:
        LabelError: If so.
    """
    path = Path(path)
    if not path.exists():
        raise LabelError(f'{path} does not exist; needed: a file of {what}')
    if path.suffix.lower() in PARQUET and importlib.util.find_spec('pyarrow') is None:
        raise LabelError(f'{path} needs pyarrow: pip install "torchgeo-ctm[parquet]"')
    return path


def read_table(path: str | Path) -> Table:
    """Read a CSV file (comma, semicolon or tab; with or without BOM) or Parquet.

    Raises:
        LabelError: If it is missing, empty or damaged.
    """
    path = check_file(path, 'a table')
    if path.suffix.lower() in PARQUET:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise LabelError(f'{path} cannot be read as Parquet: {reason}') from error
        columns = {str(name): frame[name].tolist() for name in frame.columns}
        table = Table(str(path), columns, list(range(1, len(frame) + 1)))
    elif path.suffix.lower() in TEXT:
        table = _read_text(path)
    else:
        raise LabelError(
            f'{path} is no table; needed: {", ".join((*TEXT, *PARQUET))}'
            f'{nearest(path.suffix.lower(), (*TEXT, *PARQUET))}'
        )
    if not table.rows:
        raise LabelError(f'{path} has no rows; needed: at least one label')
    return table


def _read_text(path: Path) -> Table:
    """Read a text table as it stands: names such as NA stay names, 007 stays 007."""
    rows: list[int] = []
    records: list[list[str]] = []
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for record in reader:
                if not any(cell.strip() for cell in record):
                    continue
                if len(record) != len(header):
                    raise LabelError(
                        f'{path}, row {reader.line_num}: {len(record)} cells under '
                        f'{len(header)} columns ({", ".join(header)}); needed: quotes '
                        f'around a cell with {delimiter!r} in it'
                    )
                records.append(record)
                rows.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise LabelError(f'{path} is not UTF-8; needed: "CSV UTF-8"') from error
    except (OSError, csv.Error) as error:
        raise LabelError(f'{path} cannot be read as a table: {error}') from error
    cells = zip(*records, strict=True) if records else ([] for _ in header)
    columns = {name: list(column) for name, column in zip(header, cells, strict=True)}
    return Table(str(path), columns, rows)


def _check_header(path: Path, header: list[str]) -> None:
    """Refuse two columns of one name."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise LabelError(
            f'{path} has several columns {", ".join(map(repr, twice))}; needed: one'
        )


def _delimiter(header: str) -> str:
    """Return what separates the names of columns."""
    return max(',;\t', key=lambda sign: len(next(csv.reader([header], delimiter=sign))))
