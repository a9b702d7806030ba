"""What is wrong in a section of a configuration: jsonargparse's pages in one line."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from .errors import CTMError, DataError, nearest

#: What jsonargparse says of every other type that a value might have had, and of how
#: it looked for one.
NOISE = re.compile(
    r'(- )?(Does not validate against|Subtypes:|Errors:|Given value|Import path .* does '
    r"not (implement|correspond)|Expected a <class 'NoneType'>|Validation failed:?$)"
)
CLASS = re.compile(r"(?:- )?Problem with given class_path '([\w.]+)':")
KEY = re.compile(r'(?:- )?Parser key "([\w.]+)":')
UNKNOWN = re.compile(r"""(?:Option|Key|Group) ['"]([\w.]+)['"] (?:is|does) not """)
REQUIRED = re.compile(r'the following arguments are required: (.*)')
ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
EXPECTED = re.compile(
    r"Expected an? (?:<class '(?:\w+\.)*)?(.+?)(?:'>)?\. Got value: (.*)"
)
UNEXPECTED = re.compile(r"""Unexpected keys: \{['"](\w+)['"]""")
CHOICES = re.compile(r'typing\.Literal\[(.*)\]')
FOREIGN = re.compile(
    r'Import path (\S+) does not (?:implement|correspond).* (\w+)$', re.MULTILINE
)
LONGEST = 300


@contextmanager
def one_line(config: str | Path, section: str) -> Iterator[list[CTMError]]:
    """Raise what goes wrong while a section is read as one line.

    Args:
        config: The configuration, for the message.
        section: Name of the section, for the message.

    Yields:
        A list for our own errors that jsonargparse gets to see: the first of them is
        what went wrong; it wraps and joins them.

    Raises:
        DataError: If anything goes wrong.
    """
    ours: list[CTMError] = []
    try:
        yield ours
    except (ArgumentError, CTMError, TypeError, ValueError) as error:
        cause: BaseException | None = ours[0] if ours else error
        while cause is not None and not isinstance(cause, CTMError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise DataError(f'{config}: {_joined(str(cause))}') from error
        raise DataError(
            f'the {section} section of {config}: {fault(str(error))}'
        ) from error


def listen(parser: ArgumentParser, ours: list[CTMError]) -> None:
    """Let a parser note our own errors when it makes objects."""

    def make(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return kind(*args, **kwargs)
        except CTMError as error:
            ours.append(error)
            raise

    parser.add_instantiator(make, object, subclasses=True, prepend=True)


def fault(message: str) -> str:
    """Return the one fault in a message of jsonargparse's, with the nearest name.

    Args:
        message: Its message, of many lines where it tried several types.
    """
    lines = [line.strip() for line in message.splitlines()]
    kind, key = '', ''
    for line in lines:
        if not line or NOISE.match(line):
            continue
        if found := CLASS.match(line):
            kind = found[1]
        elif found := KEY.match(line):
            key = found[1]
        else:
            return _shortened(_said(line.removeprefix('- '), kind, key))
    if found := FOREIGN.search(message):
        return _shortened(f'{key}: {found[1]} is no {found[2]}')
    return _shortened(f'{key}: {message}' if key else message)


def _said(line: str, kind: str, key: str) -> str:
    """Say a fault of a class's key in our own words."""
    name = kind.rpartition('.')[2]
    if found := UNKNOWN.search(line):
        given = found[1].split('.')[0]
        return f'{name} has no option {given!r}{nearest(given, _options(kind))}'
    if found := REQUIRED.search(line):
        return f'{name} needs {found[1]}'
    if found := ATTRIBUTE.search(line):
        public = dir(importlib.import_module(found[1]))
        return f'{found[1]} has no {found[2]}{nearest(found[2], public)}'
    if found := UNEXPECTED.search(line):
        close = nearest(found[1], _keys(kind, key))
        return f'{key} has no option {found[1]!r}{close}'
    if found := EXPECTED.search(line):
        if choices := CHOICES.fullmatch(found[1]):
            known = [choice.strip(' \'"') for choice in choices[1].split(',')]
            close = nearest(found[2], known)
            return f'{key}: {found[2]!r} was given; needed: {", ".join(known)}{close}'
        return f'{key}: {found[2]!r} was given; needed: {found[1]}'
    return f'{key}: {line}' if key else line


def _options(kind: str) -> list[str]:
    """Return the names of a class's options, those of its base classes too."""
    module, _, name = kind.rpartition('.')
    parser = ArgumentParser(exit_on_error=False)
    found = getattr(importlib.import_module(module), name)
    names = ['class_path', 'init_args', 'dict_kwargs']
    names += inspect.signature(found).parameters
    return names + list(parser.add_class_arguments(found, fail_untyped=False))


def _keys(kind: str, key: str) -> list[str]:
    """Return the keys of a class's option that is a dictionary of known keys."""
    module, _, name = kind.rpartition('.')
    found = getattr(importlib.import_module(module), name)
    hints = get_type_hints(found.__init__)
    kinds = get_args(hints.get(key.rpartition('.')[2])) or ()
    return [name for kind in kinds for name in getattr(kind, '__annotations__', ())]


def _joined(text: str) -> str:
    """Return a text on one line."""
    return ' '.join(text.split())


def _shortened(text: str) -> str:
    """Return a text on one line, as long as one can read."""
    line = _joined(text)
    return line if len(line) <= LONGEST else f'{line[: LONGEST - 1]}…'
