"""The ``torchgeo-ctm`` command line: parsers made from the commands' signatures."""

import inspect
import re
import sys
import warnings
from argparse import Action
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin

from docstring_parser import parse as parse_docstring
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from .commands import COMMANDS
from .errors import CTMError, CTMWarning, Note, did_you_mean, one_line
from .options import comma_separated
from .streams import Terminated, leave, lenient_streams, terminable
from .version import __version__

PROGRAM = 'torchgeo-ctm'
#: Commands that go on where they were interrupted.
RESUMED = {'predict'}
#: Keys of a configuration that a command may override, as ``torchgeo`` does.
OVERRIDE = re.compile(r'--(data|model)[.=]')
#: Numbers, or several with commas.
NUMBERS = re.compile(r'[-+.,\de]+')


class PlainHelp(DefaultHelpFormatter):
    """Help that states types and defaults in words."""

    def _get_help_string(self, action: Action) -> str:
        """Return the text of an option with its type and default."""
        if action.dest == 'command':
            return ''
        if action.dest in ('help', 'version'):
            return str(super()._get_help_string(action))
        facts = ['required'] if action.required else []
        kind = _kind(action)
        if kind in ('an integer', 'a number'):
            facts.append(kind)
        if isinstance(action.default, bool):
            facts.append(f'default: {"yes" if action.default else "no"}')
        elif action.default is not None:
            facts.append(f'default: {action.default}')
        # docstrings mark code
        text = (action.help or '').replace('``', '')
        return f'{text} ({"; ".join(facts)})'.strip() if facts else text


class CommandParser(ArgumentParser):
    """A parser of one command. Its errors are one line on stderr and exit status 2."""

    def __init__(self, **options: Any) -> None:
        """Create the parser; *options* are those of ``ArgumentParser``."""
        super().__init__(formatter_class=PlainHelp, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> Action:
        """Add an argument: a boolean as ``--x`` and ``--no_x``, a list as ``A,B,C``."""
        if options.get('type') is bool:
            options = options | {'action': ActionYesNo}
            del options['type']
        elif names[-1].endswith('+'):
            # jsonargparse's own form of a list, --x+ A --x+ B
            options = options | {'type': comma_separated}
            names = names[:-1]
            del options['action']
        action: Action = super().add_argument(*names, **options)
        return action

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Report a wrong option in one line, and exit."""
        line = ' '.join(message.split())
        if match := re.search(r'unrecognized arguments?: (\S+)', line):
            line = self._unknown(match[1])
        elif match := re.search(r'arguments are required: (.*)', line):
            missing = [self._as_typed(name) for name in match[1].split(', ')]
            several = 's' if len(missing) > 1 else ''
            line = f'Missing required argument{several}: {", ".join(missing)}.'
        elif match := re.match(r'Parser key "(\w+)":.* (\S*)$', line):
            kind = _kind(self._action(match[1]))
            line = f'Invalid --{match[1]} {match[2]!r}, expected {kind}.'
        sys.stderr.write(f'{self.prog}: {line}\n')
        raise SystemExit(2)

    def _unknown(self, argument: str) -> str:
        """Return the error for an argument that the command does not have."""
        if not argument.startswith('--'):
            return (
                f'Unexpected argument {argument!r}. Quote names with spaces. '
                'Options with yes or no take no value: --x or --no_x.'
            )
        options = [name for each in self._actions for name in each.option_strings]
        return f'Unknown option {argument!r}.{did_you_mean(argument, options)}'

    def _action(self, name: str) -> Action:
        """Return the argument of a name."""
        return next(action for action in self._actions if action.dest == name)

    def _as_typed(self, name: str) -> str:
        """Return an argument's name as a user types it: ``--output`` or ``SCENE``."""
        return f'--{name}' if self._action(name).option_strings else name.upper()


def _kind(action: Action) -> str:
    """Return in words what an option takes."""
    hint = getattr(action, '_typehint', action.type)
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if get_origin(kinds[0]) is Callable:
        return 'a function, as package.function'
    choices = [value for kind in kinds for value in get_args(kind)] or kinds
    if all(isinstance(value, str) for value in choices):
        return ('one of: ' if len(choices) > 1 else '') + ', '.join(choices)
    words = {int: 'an integer', float: 'a number', comma_separated: 'A,B,...'}
    return words.get(choices[0], 'text')


def command_parser(name: str) -> CommandParser:
    """Return the parser of a command, made from its signature and docstring."""
    function = COMMANDS[name]
    doc = parse_docstring(function.__doc__ or '')
    parser = CommandParser(
        prog=f'{PROGRAM} {name}',
        description=f'{doc.short_description}\n\n{doc.long_description or ""}'.strip(),
    )
    parameters = inspect.signature(function).parameters
    # jsonargparse requires every positional, and one word for a list
    special = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        and (
            parameter.default is not inspect.Parameter.empty
            or parameter.annotation == list[str]
        )
    }
    # python -OO leaves no docstrings, hence no help
    texts = {each.arg_name: each.description for each in doc.params}
    for argument, parameter in special.items():
        words = {'nargs': '?', 'default': parameter.default}
        if parameter.annotation == list[str]:
            words = {'nargs': '+'}
        parser.add_argument(argument, help=texts.get(argument, ''), **words)
    parser.add_function_arguments(
        function, as_group=False, as_positional=True, skip={'overrides', *special}
    )
    parser.usage = ' '.join([parser.prog, *_required(parser), '[options]'])
    return parser


def _required(parser: CommandParser) -> list[str]:
    """Return the arguments of the shortest call of a command."""
    words = []
    for action in parser._actions:
        upper = action.dest.upper()
        if not action.option_strings:
            several = '...' * (action.nargs == '+')
            words.append(f'[{upper}]' if action.nargs == '?' else upper + several)
        elif action.required:
            words.append(f'--{action.dest} {upper}')
    return words


def build_parser() -> CommandParser:
    """Return the parser of the whole program, with a subcommand for each command."""
    parser = CommandParser(
        prog=PROGRAM,
        usage=f'{PROGRAM} [--help] [--version] COMMAND [options]',
        description='Land-cover masks of whole scenes from image-level labels.',
        version=__version__,
    )
    commands = parser.add_subcommands(
        dest='command',
        required=True,
        title='commands',
        description=f'Explained by {PROGRAM} COMMAND --help.',
        metavar='',
    )
    for name, function in COMMANDS.items():
        summary = next(iter((function.__doc__ or '').splitlines()), None)
        commands.add_subcommand(name, command_parser(name), help=summary)
    return parser


def _with_underscores(argument: str) -> str:
    """Return ``--batch_size`` for ``--batch-size``; values stay as they are."""
    if not argument.startswith('--'):
        return argument
    name, equals, value = argument[2:].partition('=')
    return f'--{name.replace("-", "_")}{equals}{value}'


def _with_box(argv: Sequence[str]) -> list[str]:
    """Return ``--bbox=W,S,E,N`` for ``--bbox W S E N``, whose numbers may be negative."""
    words = list(argv)
    if '--bbox' in words:
        first = words.index('--bbox') + 1
        if first < len(words):
            # quoted, with blanks
            words[first : first + 1] = words[first].replace(', ', ',').split()
        end = first + 1
        while end < min(first + 4, len(words)) and NUMBERS.fullmatch(words[end]):
            end += 1
        words[first - 1 : end] = [f'--bbox={",".join(words[first:end])}']
    return words


def _without_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the command's own arguments, and those that override a configuration."""
    own: list[str] = []
    overrides: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if not OVERRIDE.match(argument):
            own.append(_with_underscores(argument))
        elif '=' in argument:
            overrides.append(argument)
        else:
            overrides.append(f'{argument}={next(rest, "")}')
    return own, overrides


def _run(argv: Sequence[str]) -> None:
    """Parse the arguments and call the command."""
    name = argv[0] if argv else ''
    if name.startswith('-'):
        build_parser().parse_args(argv)
    if name not in COMMANDS:
        problem = f'Unknown command {name!r}' if name else 'Missing command'
        sys.stderr.write(
            f'{PROGRAM}: {problem}, expected one of: {", ".join(COMMANDS)}.'
            f'{did_you_mean(name, COMMANDS)}\n'
        )
        raise SystemExit(2)
    function = COMMANDS[name]
    parameters = inspect.signature(function).parameters
    own, overrides = _without_overrides(_with_box(argv[1:]))
    if 'overrides' not in parameters:
        own += overrides  # an error, with its nearest option
    parser = command_parser(name)
    if sum(word.partition('=')[0] == '--config' for word in own) > 1:
        parser.error('--config is given twice. Write both files into one.')
    values = parser.parse_args(own).as_dict()
    if 'overrides' in parameters:
        values['overrides'] = overrides
    positional = [
        values.pop(key)
        for key, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    function(*positional, **values)


def as_options(text: str, command: str) -> str:
    """Return a message with arguments of Python as options: ``crs=`` as ``--crs``.

    Args:
        text: Message of the library.
        command: Command whose options are meant.
    """
    if command not in COMMANDS:
        return text
    names = '|'.join(action.dest for action in command_parser(command)._actions)
    text = re.sub(rf'(?<![\w.\'"-])({names})=True\b', r'--\1', text)
    text = re.sub(rf'(?<![\w.\'"-])({names})=(?=[.,;:)]?(?:\s|$))', r'--\1', text)
    return re.sub(rf'(?<![\w.\'"-])({names})=', r'--\1 ', text)


class OncePrinted:
    """Print each of our own warnings once, in one line; drop those of libraries."""

    def __init__(self, command: str = '') -> None:
        """Start with no warning printed, of a command."""
        self._command = command
        self._printed: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        """Print a warning (:func:`warnings.showwarning`)."""
        text = as_options(str(message), self._command)
        if issubclass(category, CTMWarning) and text not in self._printed:
            self._printed.add(text)
            kind = '' if issubclass(category, Note) else 'warning: '
            line = f'{PROGRAM}: {kind}{text}\n'
            if 'tqdm' in sys.modules:
                # on a line of its own, not at the end of a progress bar
                sys.modules['tqdm'].tqdm.write(line, file=sys.stderr, end='')
            else:
                sys.stderr.write(line)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``torchgeo-ctm``.

    Exits with 0 on success, 2 and one line on stderr if an input is wrong, 130 after
    Ctrl-C, 143 after SIGTERM.

    Args:
        argv: Arguments after the program's name; None: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    command = next(iter(words), '')
    with lenient_streams():
        try:
            with terminable(last=argv is None), warnings.catch_warnings():
                warnings.simplefilter('default', CTMWarning)
                warnings.showwarning = OncePrinted(command)
                _run(words)
        except CTMError as error:
            line = as_options(one_line(error), command)
            sys.stderr.write(f'{PROGRAM}: {line}\n')
            raise SystemExit(2) from None
        except (OSError, MemoryError) as error:
            # of the machine, wherever it occurs: a full disk, names that are too long
            text = ' '.join(str(error).split()) or 'There is not enough memory.'
            sys.stderr.write(f'{PROGRAM}: {text}\n')
            raise SystemExit(2) from None
        except TypeError as error:
            if sys.flags.optimize < 2 or "+=: 'NoneType' and 'str'" not in str(error):
                raise
            # segmentation_models_pytorch, which TorchGeo imports, adds to docstrings
            sys.stderr.write(
                f'{PROGRAM}: TorchGeo requires docstrings, which python -OO '
                'and PYTHONOPTIMIZE=2 remove. Set PYTHONOPTIMIZE=1.\n'
            )
            raise SystemExit(2) from None
        except (KeyboardInterrupt, Terminated) as stop:
            again = ' to resume' if command in RESUMED else ': it starts over'
            text = f'no product is half-written. Run the same command again{again}.'
            if getattr(stop, '__notes__', None):
                text = 'when the map was complete.'
            sys.stderr.write(f'{PROGRAM}: Interrupted, {text}\n')
            status = 143 if isinstance(stop, Terminated) else 130
            if argv is None or status == 143:
                leave(status)
            raise SystemExit(status) from None


if __name__ == '__main__':
    main()
