"""What can go wrong, one class per cause that a caller may want to catch.

Every message is one line: what was given, what is needed, the nearest valid value.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class CTMError(Exception):
    """Base class: a mistake in what was given, not in the program."""


class SceneError(CTMError):
    """A scene or raster that cannot be read, or cannot be used as it is."""


class BandError(CTMError):
    """The bands that were found are not the bands that are needed."""


class CheckpointError(CTMError):
    """A checkpoint that is missing, foreign, damaged or unsafe to load."""


class OutputError(CTMError):
    """A product that cannot be written where it was asked for."""


class GridError(CTMError):
    """Two rasters that should share one grid do not."""


class DataError(CTMError):
    """A data set whose files are missing or not in the expected layout."""


class LabelError(CTMError):
    """Image labels that are missing, contradict each other, or name unknown classes."""


class SettingError(CTMError, ValueError):
    """An argument outside its valid values."""


class CTMWarning(UserWarning):
    """Base class of the warnings below."""


class GeoreferenceWarning(CTMWarning):
    """A raster without, or with an unusual, georeference: its grid is kept as it is."""


class BandWarning(CTMWarning):
    """Bands of the scene that the model does not use were left out."""


class NodataWarning(CTMWarning):
    """A scene without a single valid pixel, or pixels that had to be filled."""


class ReflectanceWarning(CTMWarning):
    """A scene whose numbers lie far outside those the model was trained on."""


class PresenceWarning(CTMWarning):
    """Images in which no class reached the presence threshold."""


class TileCountWarning(CTMWarning):
    """A copy of a data set with more or fewer tiles than its protocol has."""


class LabelWarning(CTMWarning):
    """Labels that were left out, and how many; or that look wrong, and why."""


class ExportWarning(CTMWarning):
    """A step that the checkpoint asks for was left out of an exported model."""


class ResumeWarning(CTMWarning):
    """An unfinished run was found: it goes on, or is thrown away, and why."""


def nearest(given: str, valid: Iterable[str]) -> str:
    """Return ``'; nearest: X'`` for the valid name closest to *given*, or ``''``.

    Names that look alike come first; else the only one that holds *given*, or that
    *given* holds, whatever their case.
    """
    names = list(valid)
    close = get_close_matches(given, names, n=1, cutoff=0.55)
    if not close:
        short = given.casefold().strip()
        pairs = [(name, name.casefold()) for name in names]
        close = [
            name for name, key in pairs if _holds(short, key) or _holds(key, short)
        ]
    return f'; nearest: {close[0]}' if len(close) == 1 else ''


def nearest_file(path: str | Path, suffixes: Iterable[str]) -> str:
    """Return ``'; nearest: FOLDER/X'`` for the file there closest to a name, or ``''``.

    Args:
        path: A file that is not there.
        suffixes: Endings of the files that may be meant.
    """
    path, kinds = Path(path), tuple(suffixes)
    if not path.parent.is_dir():
        return ''
    there = sorted(found for found in path.parent.iterdir() if found.suffix in kinds)
    stems = {found.stem: found for found in there}
    close = nearest(path.stem, stems)
    return f'; nearest: {stems[close[11:]]}' if close else ''


def _holds(part: str, whole: str) -> bool:
    """Tell whether a text of three letters or more stands in another."""
    return len(part) > 2 and part in whole
