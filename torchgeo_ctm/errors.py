"""What can go wrong, one class per cause that a caller may want to catch.

Every message is one line: what was given, what is needed, the nearest valid value.
"""

from collections.abc import Iterable
from difflib import get_close_matches


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
    """Return ``'; nearest: X'`` for the valid name closest to *given*, or ``''``."""
    close = get_close_matches(given, list(valid), n=1, cutoff=0.55)
    return f'; nearest: {close[0]}' if close else ''
