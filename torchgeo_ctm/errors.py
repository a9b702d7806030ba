"""Errors and warnings, one class per cause that a caller may want to catch.

Every message is one line: what went wrong with which input, what was expected, and
what to do about it.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class CTMError(Exception):
    """Base class: a mistake in what was given, not in the program."""


class SceneError(CTMError):
    """A scene or raster that cannot be read, or cannot be used as it is."""


class ReadError(SceneError):
    """Pixels of a scene that cannot be read now, but maybe later: a run resumes."""


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


class CloudWarning(CTMWarning):
    """Pixels that were taken as cloud, and how many."""


class ReflectanceWarning(CTMWarning):
    """A scene whose numbers lie far outside those the model was trained on."""


class AtmosphereWarning(CTMWarning):
    """A scene whose aerosol, vapor or cirrus band is outside the training range."""


class PresenceWarning(CTMWarning):
    """Images in which no class reached the presence threshold."""


class SecondStageWarning(CTMWarning):
    """A second stage that is not better than its teacher, which is kept."""


class TileCountWarning(CTMWarning):
    """A copy of a data set with more or fewer tiles than its protocol has."""


class LabelWarning(CTMWarning):
    """Labels that were left out, and how many; or that look wrong, and why."""


class DeviceMemoryWarning(CTMWarning):
    """A batch does not fit into the memory of the device."""


class ExportWarning(CTMWarning):
    """A step that the checkpoint asks for was left out of an exported model."""


class UntrainedWarning(CTMWarning):
    """A network that is scored, or maps, with its random initial weights."""


class OptionWarning(CTMWarning, FutureWarning):
    """An option under its former name. It still works; the message has the new name."""


class ResumeWarning(CTMWarning):
    """An unfinished run was found: it goes on, or is thrown away, and why."""


class KeptMapWarning(CTMWarning):
    """A map that was there is kept, though the run would make another one."""


class FormerProductWarning(CTMWarning):
    """Files beside a new map that may be of the map that it replaced."""


class PixelSizeWarning(CTMWarning):
    """A scene whose pixels are larger or smaller than those of the training data."""


class Note(CTMWarning):
    """What a run says of itself; commands print it without the word warning."""


class UniformMapNote(Note):
    """A map that is nearly all of one class."""


class ResumeNote(ResumeWarning, Note):
    """An unfinished run goes on."""


class DateNote(Note):
    """A STAC item of a scene whose date is not known."""


class AreaNote(Note):
    """A part of the area that is asked for lies outside of a scene."""


class FailureNote(Note):
    """One of many scenes cannot be mapped, and why."""


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line.

    TorchGeo's message about a missing data set advises arguments of Python. It gets the
    keys of a configuration, which are the same words.
    """
    text = ' '.join(str(error).split()) or type(error).__name__
    found = re.match(r'Dataset not found in `(\w+)=(?:\w+\()?(.+?)\)?` and ', text)
    if found is None:
        return text
    key, place = found.groups()
    download = ', or download to true' if 'use `download=True`' in text else ''
    return f'No data set found in {place}. Set {key} to its folder{download}.'


def gdal_reason(error: BaseException) -> str:
    """Return why GDAL cannot read a file, without its advice for programmers."""
    return str(error).splitlines()[0].split('; It might help')[0].rstrip('.')


def name_key(name: str) -> str:
    """Return a name without case, blanks and spellings that make no difference."""
    return ' '.join(unicodedata.normalize('NFKC', str(name)).casefold().split())


def check_names(names: Sequence[str], error: type[CTMError], where: str) -> None:
    """Check that names of classes differ in more than case, blanks and spelling.

    Args:
        names: The names.
        error: Class of the error to raise.
        where: What holds the names, for the message.

    Raises:
        CTMError: An *error* if a name is empty, or two are the same.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name_key(name):
            raise error(f'{where} has an empty name at position {number}.')
        other = first.setdefault(name_key(name), number)
        if other != number:
            also = '' if names[other] == name else f', also as {name!r}'
            raise error(
                f'{where} has {names[other]!r} twice{also}, expected unique names.'
            )


def closest(given: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that a misspelled one most likely stands for.

    Args:
        given: A name that is not valid.
        valid: The valid names.

    Returns:
        The name that looks most alike; else the only one that contains *given* or is
        contained in it, ignoring case; else None.
    """
    names = list(valid)
    close = get_close_matches(given, names, n=1, cutoff=0.55)
    if not close:
        short = given.casefold().strip()
        pairs = [(name, name.casefold()) for name in names]
        close = [
            name
            for name, key in pairs
            if _contains(key, short) or _contains(short, key)
        ]
    return close[0] if len(close) == 1 else None


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'X'?"`` for the closest valid name, or ``''``."""
    name = closest(given, valid)
    return '' if name is None else f' Did you mean {name!r}?'


def similar_file(path: str | Path, suffixes: Iterable[str]) -> str:
    """Return ``" Did you mean 'FOLDER/X'?"`` for the closest file, or ``''``.

    Args:
        path: A file that does not exist.
        suffixes: Suffixes of the files that may be meant.
    """
    path, kinds = Path(path), tuple(suffixes)
    if not path.parent.is_dir():
        return ''
    files = sorted(found for found in path.parent.iterdir() if found.suffix in kinds)
    stems = {found.stem: found for found in files}
    stem = closest(path.stem, stems)
    return '' if stem is None else f' Did you mean {str(stems[stem])!r}?'


def _contains(whole: str, part: str) -> bool:
    """Return whether a text of three letters or more is part of another."""
    return len(part) > 2 and part in whole
