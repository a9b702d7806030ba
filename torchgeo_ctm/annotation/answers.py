"""What a person said about windows, in the GeoPackage that training reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import pandas as pd

from ..errors import LabelError, OutputError, gdal_reason, name_key
from ..files import temporary_path
from ..inference.vector import check_vector_output, layer_name, publish_vector
from ..labels.class_names import DELIMITERS, names_in
from ..labels.detect import ONLY_THESE
from ..labels.source import class_indices

#: Columns of the file: classes of a window; whether they are all; whether the person
#: looked and could not tell.
COLUMNS = ('class', ONLY_THESE, 'not_sure')


class Answer(NamedTuple):
    """What a person said about one window."""

    #: Indices of the classes.
    classes: tuple[int, ...] = ()
    #: No other class is in the window.
    only_these: bool = False
    #: The person looked, and could not tell.
    not_sure: bool = False

    @property
    def given(self) -> bool:
        """Whether anything was said."""
        return bool(self.classes or self.only_these or self.not_sure)


class Answers:
    """Windows in the CRS of a scene, each with an answer, and their file."""

    def __init__(self, path: Path, names: Sequence[str], crs: Any) -> None:
        """Start without a window.

        Args:
            path: GeoPackage.
            names: Names of the classes.
            crs: CRS of the scene.
        """
        self.path, self.names = path, tuple(names)
        self.geometry = gpd.GeoSeries([], crs=crs)
        self.answers: list[Answer] = []
        #: When the file was last written here, nanoseconds; None: not yet.
        self._written: int | None = None

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.answers)

    def add(
        self, windows: gpd.GeoSeries, answers: Sequence[Answer] | None = None
    ) -> None:
        """Add windows, except those that are there.

        Args:
            windows: Polygons (n,), in any CRS.
            answers: What was said about them; None: nothing.
        """
        moved = windows.to_crs(self.geometry.crs)
        # a millimeter is rounding
        near = 1e-8 if moved.crs.is_geographic else 1e-3
        known = [shape.bounds for shape in self.geometry]
        for shape, answer in zip(
            moved, answers or [Answer()] * len(moved), strict=True
        ):
            if not any(
                all(abs(a - b) < near for a, b in zip(shape.bounds, box, strict=True))
                for box in known
            ):
                known.append(shape.bounds)
                self.geometry = gpd.GeoSeries(
                    [*self.geometry, shape], crs=self.geometry.crs
                )
                self.answers.append(answer)

    def frame(self) -> gpd.GeoDataFrame:
        """Return windows and answers as they are in the file."""
        rows = [
            (self._cell(answer), answer.only_these, answer.not_sure)
            for answer in self.answers
        ]
        table = pd.DataFrame(rows, columns=COLUMNS).astype({'class': object})
        return gpd.GeoDataFrame(table, geometry=self.geometry, crs=self.geometry.crs)

    def _cell(self, answer: Answer) -> str | None:
        """Return the classes of a window as a text."""
        names = [self.names[index] for index in sorted(answer.classes)]
        if not names and not answer.only_these:
            return None
        plain = names and not any(sign in name for name in names for sign in DELIMITERS)
        return '|'.join(names) if plain else json.dumps(names, ensure_ascii=False)

    def save(self) -> None:
        """Write the file, complete or not at all.

        Raises:
            OutputError: If it cannot be written, or another program edits it.
        """
        if None not in (self._written, now := self._changed()) and now != self._written:
            raise OutputError(
                f'{self.path} was changed by another grid or program. Run the cell again.'
            )
        check_vector_output(self.path, overwrite=True)
        temporary = temporary_path(self.path).with_suffix('.gpkg')
        try:
            self.frame().to_file(
                temporary, driver='GPKG', layer=layer_name(self.path), index=False
            )
            publish_vector(temporary, self.path)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f'Cannot write {self.path}: {reason}') from error
        finally:
            temporary.unlink(missing_ok=True)
        self._written = self._changed()

    def _changed(self) -> int | None:
        """Return when the file was last written; None without a file."""
        return self.path.stat().st_mtime_ns if self.path.is_file() else None


def read_answers(path: Path, names: Sequence[str], crs: Any) -> Answers:
    """Return the answers of a file, none if there is no file.

    Raises:
        LabelError: If the file is another one, or has an unknown class.
    """
    answers = Answers(path, names, crs)
    if not path.exists():
        return answers
    try:
        frame = gpd.read_file(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise LabelError(f'{path} cannot be read: {gdal_reason(error)}.') from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise LabelError(
            f'{path} was not written by label_windows: it has no column {missing[0]!r}. '
            'Choose another output.'
        )
    known = {name_key(name) for name in names}
    found = []
    for row, (cell, only, unsure) in enumerate(
        zip(*(frame[name] for name in COLUMNS), strict=True), 1
    ):
        where = f'{path}, row {row}'
        indices = class_indices(names_in(cell, known, {}, where) or [], names, where)
        found.append(Answer(tuple(sorted(indices)), bool(only), bool(unsure)))
    answers.add(frame.geometry, found)
    return answers
