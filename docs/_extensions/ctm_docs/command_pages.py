"""A page for each command, from the parsers that read it."""

import inspect
from argparse import Action
from collections.abc import Iterable
from typing import Any

from docstring_parser import parse as parse_docstring

from torchgeo_ctm.commands import COMMANDS
from torchgeo_ctm.main import build_parser

from .files import indented, title
from .keys import type_text, value_text

INTRODUCTION = """
Every command of ``torchgeo-ctm``, from the parsers that read them. Words of options may
be joined by ``_`` or ``-``. A mistake is one line on standard error that says what was
given and what is needed, exit status 2, and no file; Ctrl-C is status 130.

Training, testing and configured prediction are TorchGeo's own command, ``torchgeo``;
its keys are :doc:`/reference/yaml/index`.
"""


def command_pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    parsers = _parsers()
    pages = {f'{name}.rst': _page(name, parsers[name]) for name in COMMANDS}
    summaries = [f'- :doc:`{name}`: {_summary(name)}' for name in COMMANDS]
    tree = '\n'.join(['.. toctree::', '   :hidden:', '', *_entries(COMMANDS)])
    parts = (title('Commands'), INTRODUCTION, '\n'.join(summaries), '', tree, '')
    pages['index.rst'] = '\n'.join(parts)
    return pages


def _entries(names: Iterable[str]) -> list[str]:
    return [f'   {name}' for name in names]


def _parsers() -> dict[str, Any]:
    """Return the parser of each command."""
    # argparse keeps subcommands as choices of an action
    [choices] = [
        action.choices for action in build_parser()._actions if action.dest == 'command'
    ]
    return dict(choices or {})


def _summary(name: str) -> str:
    """Return the first line of a command's docstring."""
    return (COMMANDS[name].__doc__ or '').splitlines()[0]


def _page(name: str, parser: Any) -> str:
    """Return the page of one command."""
    parsed = parse_docstring(COMMANDS[name].__doc__ or '')
    command = f'torchgeo-ctm {name}'
    actions = [a for a in parser._actions if a.dest not in ('help', 'version')]
    options = '\n'.join(_option(name, action) for action in actions)
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
            indented(_usage(command, actions)),
            '',
            f'.. program:: {command}',
            '',
            options,
        ]
    )


def _usage(command: str, actions: Iterable[Action]) -> str:
    """Return the shortest call: what is required."""
    words = [command]
    for action in actions:
        if not action.option_strings:
            word = action.dest.upper()
            words.append(word if action.required else f'[{word}]')
        elif action.required:
            words.append(f'{action.option_strings[0]} {action.dest.upper()}')
    return ' '.join([*words, '[options]'])


def _option(command: str, action: Action) -> str:
    """Return the entry of an argument or option."""
    parameter = inspect.signature(COMMANDS[command]).parameters[action.dest]
    names, kind = action.dest.upper(), type_text(parameter.annotation)
    if action.option_strings:
        names = ', '.join(action.option_strings)
    if parameter.annotation is bool:
        names, kind = f'--{action.dest}, --no_{action.dest}', 'switch'
    elif parameter.annotation in (list[str], list[str] | None):
        kind = 'names, with commas between them'
    if parameter.default is inspect.Parameter.empty:
        kind += ', required'
    elif parameter.default is not None:
        default = parameter.default
        said = ('off', 'on')[default] if kind == 'switch' else value_text(default)
        kind += f'; default: ``{said}``'
    kind = kind.replace(' or ``null``', '')
    body = f'.. rst-class:: ctm-type\n\n{kind}\n\n{action.help}\n'
    return f'.. option:: {names}\n\n{indented(body)}'
