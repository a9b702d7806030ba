"""What this package changes in the output of the ``torchgeo`` command.

TorchGeo's command has no place for errors of a user. Python then prints some 40 to 100
lines of traceback, and the message is among them. In that command alone, our errors and
warnings are one line each, and advertisements of Lightning are left out.
"""

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .errors import CTMError, CTMWarning, one_line

PROGRAM = 'torchgeo'
#: Loggers of Lightning.
NOISY = (
    'lightning.pytorch.utilities.rank_zero',
    'lightning.pytorch.trainer.connectors.checkpoint_connector',
)
#: How the reasons of jsonargparse begin.
REASONS = ('Import path', 'Expected a', 'Does not validate', 'Problem with', 'Not a')
#: How messages begin that no user can act on.
NOISE = ('💡 Tip', '`weights_only` was not set')


def is_torchgeo(argv: Sequence[str]) -> bool:
    """Return whether a process is the ``torchgeo`` command, or ``python -m torchgeo``."""
    program = Path(argv[0] if argv else '')
    return program.stem == PROGRAM or (
        program.name == '__main__.py' and program.parent.name == PROGRAM
    )


def shorten_output() -> None:
    """Print our errors and warnings in one line each, and leave out some others."""
    sys.excepthook = print_error
    default = warnings.formatwarning

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if issubclass(category, CTMWarning):
            return f'{PROGRAM}: warning: {message}\n'
        return default(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    warnings.filterwarnings('ignore', message='.*treespec, LeafSpec.*')
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')
    for name in NOISY:
        logging.getLogger(name).addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    """Return whether a message of Lightning is not noise."""
    return not record.getMessage().startswith(NOISE)


def print_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print a user's mistake in one line, and any other error as Python does."""
    line = find_mistake(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f'\n{PROGRAM}: {in_configuration(line)}\n')


def find_mistake(error: BaseException) -> str | None:
    """Return the message of a user's mistake among an error and its causes, or None."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        if (
            isinstance(cause, CTMError)
            or type(cause).__name__ == 'DatasetNotFoundError'
        ):
            return one_line(cause)
        chain.append(cause)
        # jsonargparse wraps the errors of constructors
        cause = cause.__cause__ or cause.__context__
    return _in_union(str(error))


def _in_union(message: str) -> str | None:
    """Return the error of a constructor that jsonargparse holds as text, or None.

    For a value of several types it lists why each of them was refused, and keeps the
    first error only.
    """
    if 'Union subtypes' not in message:
        return None
    lines = [line.strip() for line in message.splitlines()]
    reasons = [line[2:] for line in lines if line.startswith('- ')]
    own = [reason for reason in reasons if not reason.startswith(REASONS)]
    return own[0] if own else None


def in_configuration(message: str) -> str:
    """Return a message with the options of a callback as ``torchgeo`` takes them."""
    return re.sub(
        r'Pass (\w+)=True',
        r'Pass --trainer.callbacks.\1 true (\1: true in the configuration)',
        message,
    )
