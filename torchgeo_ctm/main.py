"""The ``torchgeo-ctm`` command line, made of its commands' signatures."""

import inspect
import re
import sys
import warnings
from argparse import Action
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from docstring_parser import parse as parse_docstring
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from .commands import COMMANDS
from .errors import CTMError, CTMWarning, nearest
from .version import __version__


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line on stderr, and exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Report a mistake with the nearest valid option, and exit."""
        line = ' '.join(message.split())
        if match := re.search(r'unrecognized arguments?: (--[\w-]+)', line):
            options = [
                option
                for action in self._actions
                for option in action.option_strings
                if option.startswith('--')
            ]
            line = f'unknown option {match[1]}{nearest(match[1], options)}'
        elif match := re.search(r"invalid choice: '(.+?)'", line):
            line = f'unknown command {match[1]!r}; needed: one of {", ".join(COMMANDS)}'
            line += nearest(match[1], COMMANDS)
        elif 'arguments are required' in line:
            line = re.sub(r'\b([\w-]+)\.(\w+)', _as_typed, line)
        elif match := re.search(r'unrecognized arguments: (.*)', line):
            line = f'{match[1]!r} is one argument too many; switches are --x or --no_x'
        elif match := re.match(r'Parser key "(\w+)":.*?(\S*)$', line):
            option = match[1]
            function = COMMANDS[self.prog.split()[-1]]
            parameter = inspect.signature(function).parameters[option]
            line = f'--{option} {match[2]}; needed: {_needed(parameter)}'
        elif 'expected "command"' in line:
            line = f'no command given; needed: one of {", ".join(COMMANDS)}'
        prog = self.prog.replace(' [options]', '')
        sys.stderr.write(f'{prog}: {line}\n')
        raise SystemExit(2)


def _as_typed(match: re.Match[str]) -> str:
    """Turn jsonargparse's ``predict.output`` into what a user types."""
    parameter = inspect.signature(COMMANDS[match[1]]).parameters[match[2]]
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return match[2].upper()
    return f'--{match[2]}'


class PlainHelp(DefaultHelpFormatter):
    """Help that says what an option takes in words, where its text does."""

    def _get_help_string(self, action: Action) -> str:
        """Return an option's text; jsonargparse would add Python's types."""
        function = COMMANDS.get(self._prog.split()[-1])
        if function is None or action.dest == 'help':
            return str(super()._get_help_string(action))
        parameter = inspect.signature(function).parameters[action.dest]
        return f'{action.help}{_facts(parameter)}'


def _is_list(annotation: Any) -> bool:
    """Tell whether an option is a list of names, written ``A,B,C``."""
    return annotation in (list[str], list[str] | None)


def _names(text: str) -> list[str]:
    """Split ``A,B,C``, with or without brackets, into names."""
    return [name.strip() for name in text.strip('[]').split(',') if name.strip()]


def _needed(parameter: inspect.Parameter) -> str:
    """Say which values an option takes, in words."""
    kinds = [kind for kind in _parts(parameter.annotation) if kind is not type(None)]
    if all(isinstance(kind, str) for kind in kinds):
        return f'{"one of " * (len(kinds) > 1)}{", ".join(kinds)}'
    words = {int: 'a whole number', float: 'a number', str: 'text'}
    return words.get(kinds[0], 'A,B,…')


def _parts(annotation: Any) -> list[Any]:
    """Return the types in a union, and the values of literals in it."""
    if get_origin(annotation) in (Union, UnionType, Literal):
        return [part for each in get_args(annotation) for part in _parts(each)]
    return [annotation]


def _facts(parameter: inspect.Parameter) -> str:
    """Return what an option takes, and its default, in brackets."""
    facts = []
    if parameter.default is inspect.Parameter.empty:
        facts.append('required')
    if {int, float} & set(_parts(parameter.annotation)):
        facts.append(_needed(parameter))
    if isinstance(parameter.default, bool):
        facts.append(f'default: {"yes" if parameter.default else "no"}')
    elif parameter.default not in (None, inspect.Parameter.empty):
        facts.append(f'default: {parameter.default}')
    return f' ({"; ".join(facts)})' if facts else ''


def _command_parser(function: Callable[..., None], prog: str) -> OneLineParser:
    """Build a command's parser from its signature and docstring."""
    doc = parse_docstring(function.__doc__ or '')
    help_of = {param.arg_name: param.description for param in doc.params}
    parser = OneLineParser(
        prog=prog,
        description=doc.short_description,
        formatter_class=PlainHelp,
        allow_abbrev=False,
    )
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        options: dict[str, Any] = {'help': help_of[name]}
        if not required:
            options['default'] = parameter.default
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            if not required:
                options['nargs'] = '?'
            parser.add_argument(name, type=parameter.annotation, **options)
        elif parameter.annotation is bool:
            parser.add_argument(f'--{name}', action=ActionYesNo, **options)
        else:
            listed = _is_list(parameter.annotation)
            options['type'] = str if listed else parameter.annotation
            parser.add_argument(f'--{name}', required=required, **options)
    return parser


def build_parser() -> OneLineParser:
    """Build the parser of the whole command."""
    parser = OneLineParser(
        prog='torchgeo-ctm',
        description='Land-cover masks of whole scenes from image-level labels.',
        version=__version__,
        formatter_class=PlainHelp,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(dest='command', required=True)
    for name, function in COMMANDS.items():
        command = _command_parser(function, f'torchgeo-ctm {name}')
        summary = (function.__doc__ or '').splitlines()[0]
        commands.add_subcommand(name, command, help=summary)
    return parser


def _with_underscores(argument: str) -> str:
    """Let ``--batch-size`` be ``--batch_size``; values stay as they are."""
    if not argument.startswith('--'):
        return argument
    name, equals, value = argument[2:].partition('=')
    return f'--{name.replace("-", "_")}{equals}{value}'


def _run(argv: Sequence[str]) -> None:
    """Parse the arguments and call the command."""
    config = build_parser().parse_args([_with_underscores(item) for item in argv])
    function = COMMANDS[config.command]
    values = config[config.command]
    positional, named = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(values[name])
        elif _is_list(parameter.annotation) and values[name] is not None:
            named[name] = _names(values[name])
        else:
            named[name] = values[name]
    function(*positional, **named)


class Warned:
    """Shows our own warnings as one line each, once, and leaves libraries' to the log."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._said: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        """Show a warning (:func:`warnings.showwarning`)."""
        text = str(message)
        if issubclass(category, CTMWarning) and text not in self._said:
            self._said.add(text)
            sys.stderr.write(f'torchgeo-ctm: warning: {text}\n')


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``torchgeo-ctm``.

    Exits 0 on success, 2 with one line on stderr after a mistake in what was given,
    130 after Ctrl-C.

    Args:
        argv: Arguments after the program's name; the process's own if None.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('default', CTMWarning)
        warnings.showwarning = Warned()
        given = sys.argv[1:] if argv is None else argv
        try:
            _run(given)
        except CTMError as error:
            line = ' '.join(str(error).split())
            if given[0] == 'predict':  # in a configuration it has no dashes
                line = line.replace('with scene_bands', 'with --scene_bands')
            sys.stderr.write(f'torchgeo-ctm: {line}\n')
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            sys.stderr.write(
                'torchgeo-ctm: interrupted; no product was written; the same command '
                'goes on with what has been computed\n'
            )
            raise SystemExit(130) from None


if __name__ == '__main__':
    main()
