"""A page for each command, from the parsers that read it."""

from argparse import Action
from collections.abc import Iterable
from typing import Any

from docstring_parser import parse as parse_docstring

from torchgeo_ctm.commands import COMMANDS
from torchgeo_ctm.main import command_parser
from torchgeo_ctm.options import comma_separated

from .files import indented, title
from .keys import type_text, value_text

INTRODUCTION = """
Every command of ``torchgeo-ctm``. The words of an option may be joined by ``_`` or ``-``.
An error is one line on standard error with exit status 2, and no file is written. After
Ctrl-C the exit status is 130.

To train, test and predict from a configuration use TorchGeo's own command, ``torchgeo``,
with :doc:`/reference/yaml/index`.
"""


def command_pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    pages = {f'{name}.rst': _page(name, command_parser(name)) for name in COMMANDS}
    summaries = [f'- :doc:`{name}`: {_summary(name)}' for name in COMMANDS]
    tree = '\n'.join(['.. toctree::', '   :hidden:', '', *_entries(COMMANDS)])
    parts = (title('Commands'), INTRODUCTION, '\n'.join(summaries), '', tree, '')
    pages['index.rst'] = '\n'.join(parts)
    return pages


def _entries(names: Iterable[str]) -> list[str]:
    return [f'   {name}' for name in names]


def _summary(name: str) -> str:
    """Return the first line of a command's docstring."""
    return (COMMANDS[name].__doc__ or '').splitlines()[0]


def _page(name: str, parser: Any) -> str:
    """Return the page of one command."""
    parsed = parse_docstring(COMMANDS[name].__doc__ or '')
    command = f'torchgeo-ctm {name}'
    actions = [a for a in parser._actions if a.dest not in ('help', 'version')]
    options = '\n'.join(_option(action) for action in actions)
    more = parsed.long_description or ''
    return '\n'.join(
        [
            title(command),
            parsed.short_description or '',
            '',
            more,
            '',
            '.. code-block:: text',
            '',
            indented(parser.usage),
            '',
            f'.. program:: {command}',
            '',
            options,
        ]
    )


def _option(action: Action) -> str:
    """Return the entry of an argument or option."""
    names = ', '.join(action.option_strings) or action.dest.upper()
    hint = getattr(action, '_typehint', action.type) or str
    if isinstance(action.default, bool):
        kind = 'switch'
    elif hint is comma_separated:
        kind = 'names, with commas between them'
    else:
        kind = type_text(hint)
    if action.required:
        kind += ', required'
    elif action.default is not None:
        default = action.default
        text = ('off', 'on')[default] if kind == 'switch' else value_text(default)
        kind += f'; default: ``{text}``'
    kind = kind.replace(' or ``null``', '')
    body = f'.. rst-class:: ctm-type\n\n{kind}\n\n{action.help}\n'
    return f'.. option:: {names}\n\n{indented(body)}'
