"""Image-level labels of an image folder, from a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ..errors import LabelError, nearest
from ..labels.source import class_indices


def read_image_labels(path: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Read a CSV of image-level labels.

    Its first column is ``image``, a name with or without the file's suffix. Then comes
    either one column ``classes`` with the names of the present classes, separated by
    ``;``, or one column for each class with 1 (present) or 0.

    Args:
        path: The CSV, in UTF-8.
        classes: Names of the classes.

    Returns:
        Label (C,) float32, 1 where a class is present, by image name.

    Raises:
        LabelError: If the file is missing or not of that form, names an unknown class,
            or an image twice.
    """
    labels: dict[str, Tensor] = {}
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            columns = _check_header(path, reader.fieldnames or [], classes)
            for row in reader:
                where = f'{path}, line {reader.line_num}'
                image = (row['image'] or '').strip()
                if image in labels:
                    raise LabelError(f'{where}: image {image!r} is there twice')
                present = _present(row, columns, where)
                label = torch.zeros(len(classes))
                label[class_indices(present, classes, where)] = 1
                labels[image] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f'{path} cannot be read as a CSV: {error}') from error
    return labels


def _check_header(
    path: Path, header: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Return the columns of classes: ``['classes']``, or one a class.

    Raises:
        LabelError: If they are not there.
    """
    if 'image' not in header:
        raise LabelError(
            f'{path} has the columns {", ".join(header) or "none"}; needed: image'
            + nearest('image', header)
        )
    columns = [name for name in header if name != 'image']
    if columns == ['classes']:
        return columns
    found = class_indices(columns, classes, f'{path}, first line')
    missing = [name for index, name in enumerate(classes) if index not in found]
    if missing:
        raise LabelError(
            f'{path} has no column for {", ".join(missing)}; needed: one for each '
            "class, or one named 'classes'"
        )
    return columns


def _present(
    row: Mapping[str, str | None], columns: Sequence[str], where: str
) -> list[str]:
    """Return the names of the classes that a row says are present."""
    if list(columns) == ['classes']:
        names = (row['classes'] or '').split(';')
        return [name for name in names if name.strip()]
    for name in columns:
        if (row[name] or '').strip() not in ('0', '1'):
            raise LabelError(f'{where}: {name} is {row[name]!r}; needed: 0 or 1')
    return [name for name in columns if (row[name] or '').strip() == '1']


def label_of(labels: Mapping[str, Tensor], file: Path, name: str) -> Tensor | None:
    """Return the label of an image, whose row may name it with or without suffix."""
    for key in (name, name + file.suffix, PurePosixPath(name).name, file.name):
        if key in labels:
            return labels[key]
    return None
