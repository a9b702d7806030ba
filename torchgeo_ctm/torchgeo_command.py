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
#: Loggers of Lightning, and how messages begin that no user can act on.
NOISY = (
    'lightning.pytorch.utilities.rank_zero',
    'lightning.pytorch.trainer.connectors.checkpoint_connector',
)
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
    mistake = find_mistake(error)
    if mistake is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f'\n{PROGRAM}: {in_configuration(one_line(mistake))}\n')


def find_mistake(error: BaseException | None) -> BaseException | None:
    """Return a user's mistake among an error and its causes, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if (
            isinstance(error, CTMError)
            or type(error).__name__ == 'DatasetNotFoundError'
        ):
            return error
        seen.add(id(error))
        # jsonargparse wraps the errors of constructors
        error = error.__cause__ or error.__context__
    return None


def in_configuration(message: str) -> str:
    """Return a message with the options of a callback as ``torchgeo`` takes them."""
    return re.sub(
        r'Pass (\w+)=True',
        r'Pass --trainer.callbacks.\1 true (\1: true in the configuration)',
        message,
    )
