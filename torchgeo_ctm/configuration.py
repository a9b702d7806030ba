"""The task and the data that a configuration of ``torchgeo`` names."""

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Self

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, Trainer

from .errors import CTMError, DataError, SettingError, did_you_mean, similar_file
from .files import write_text
from .scaling import BandScaling
from .trainers import ClassTokenMaskingTask
from .trainers.options import MOVED, with_setting
from .trainers.weights import check_weights

YAML = ('.yaml', '.yml')
#: Levels and aliases that a configuration has at most.
DEEPEST, MOST_ALIASES = 40, 100
#: Keys that ``torchgeo fit``, ``test`` and ``predict`` read.
KEYS = (
    'seed_everything', 'trainer', 'model', 'data', 'optimizer', 'lr_scheduler',
    'ckpt_path', 'weights_only', 'verbose', 'return_predictions',
)  # fmt: skip
#: Longest message of jsonargparse that is shown, in characters.
LONGEST = 300
#: Types of Python in words.
TYPES = {
    'int': 'an integer',
    'float': 'a number',
    'bool': 'true or false',
    'str': 'text',
    'NoneType': 'null',
    'Sequence': 'a list',
    'list': 'a list',
    'Mapping': 'a mapping',
    'dict': 'a mapping',
}


class Overridden(str):
    """Path of a configuration, with arguments that override its keys."""

    overrides: tuple[str, ...]

    def __new__(cls, path: str, overrides: Sequence[str] = ()) -> Self:
        """Create the path.

        Args:
            path: The configuration (.yaml).
            overrides: Arguments as ``--data.init_args.batch_size=4``.
        """
        self = super().__new__(cls, path)
        self.overrides = tuple(overrides)
        return self


def read_task(config: str | Path) -> ClassTokenMaskingTask:
    """Return the untrained task of a configuration of ``torchgeo``.

    Its scaling adds offsets and clips, but has means of 0 and standard deviations of 1,
    because these may be what the caller measures.

    Raises:
        DataError: If the file or its ``model`` section cannot be used.
    """
    _check_kind(config)
    with _section(config, 'model', ClassTokenMaskingTask) as (parser, parsed):
        # starting weights take a download, and change no chip
        check_weights(parsed['model.init_args.weights'])
        parsed['model.init_args.weights'] = None
        scaling = parsed['model.init_args.scaling']
        parsed['model.init_args.scaling'] = None
        task: ClassTokenMaskingTask = parser.build(parsed).model
        task.save_hyperparameters({'scaling': scaling})
        count = len(task.bands)
        numbers = {'mean': [0.0] * count, 'std': [1.0] * count}
        task.scaling = BandScaling(task.bands, **(ranges(task) | numbers))
    return task.eval()


def _check_kind(config: str | Path) -> None:
    """Check that a model learns from the labels of windows.

    Raises:
        DataError: If it is another task of this package or of TorchGeo.
    """
    path = str(read_section(config, 'model').get('class_path'))
    room, _, name = path.rpartition('.')
    try:
        kind = getattr(import_module(room), name)
    except (ImportError, AttributeError, ValueError):
        # said when the section is read
        return
    if isinstance(kind, type) and not issubclass(kind, ClassTokenMaskingTask):
        raise DataError(
            f'{config}: the model is a {name}, expected a ClassTokenMaskingTask, which '
            'learns from the labels of windows. To check this one, run torchgeo fit with '
            '--trainer.fast_dev_run true.'
        )


def build_task(
    config: str | Path, setting: Mapping[str, Any] | None = None
) -> ClassTokenMaskingTask:
    """Return the untrained task of a configuration, ready for training.

    Args:
        config: The configuration.
        setting: Arguments of the task in place of the configuration's.

    Raises:
        DataError: If the file or its ``model`` section cannot be used.
        SettingError: If the setting has an unknown argument or option.
    """
    known = (*signature(ClassTokenMaskingTask).parameters, *MOVED)
    for name in setting or {}:
        if name not in known:
            raise SettingError(
                f'Unknown argument {name!r} of ClassTokenMaskingTask.'
                + did_you_mean(name, known)
            )
    section = overridden_section(config, 'model', ClassTokenMaskingTask)
    given = section.get('init_args') or {}
    section = section | {'init_args': with_setting(given, setting or {})}
    with _section(config, 'model', ClassTokenMaskingTask, section) as parts:
        parser, parsed = parts
        task: ClassTokenMaskingTask = parser.build(parsed).model
    return task


def write_config(
    config: str | Path, setting: Mapping[str, Any], path: Path, comments: Sequence[str]
) -> None:
    """Write a configuration with a setting and the overrides applied.

    Args:
        config: The configuration.
        setting: Arguments of the task in place of the configuration's.
        path: File to write (.yaml).
        comments: Lines at its top.

    Raises:
        CTMError: If the configuration cannot be used, or the file not written.
    """
    content = read_yaml(config, 'a configuration of torchgeo')
    content['data'] = overridden_section(config, 'data', LightningDataModule)
    model = overridden_section(config, 'model', ClassTokenMaskingTask)
    arguments = with_setting(model.get('init_args') or {}, setting)
    content['model'] = model | {'init_args': arguments}
    write_content(content, path, comments)


def write_content(
    content: Mapping[str, Any], path: Path, comments: Sequence[str] = ()
) -> None:
    """Write the content of a configuration.

    Args:
        content: Its sections.
        path: File to write (.yaml).
        comments: Lines at its top.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = yaml.dump(
        content, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=88
    )
    write_text(path, ''.join(f'# {line}'.rstrip() + '\n' for line in comments) + text)


class _Plain(yaml.SafeDumper):
    """Writes lists that occur twice in full, not as aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return true."""
        return True


def overridden_section(config: str | Path, name: str, base: type) -> dict[str, Any]:
    """Return a section of a configuration as mappings, with its overrides applied.

    Args:
        config: The configuration.
        name: Name of the section.
        base: Base class of what the section names.

    Raises:
        DataError: If it cannot be used.
    """
    if not _overrides(config, name):
        return read_section(config, name)
    written = read_section(config, name)
    before: dict[str, Any] = {}
    # the file may lack what only the overrides give
    with suppress(DataError), _section(config, name, base, written) as (_, parsed):
        before = parsed[name].as_dict()
    with _section(config, name, base) as (parser, parsed):
        after = parsed[name].as_dict()
        text = parser.dump(parsed, skip_default=True, skip_validation=True)
    return _changed(written, before, after, yaml.safe_load(text)[name])


def _changed(
    written: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    dumped: Any,
) -> dict[str, Any]:
    """Return a mapping as a user would write it after overrides.

    Args:
        written: The mapping in the file.
        before: The same parsed, with the defaults of keys that it lacks.
        after: The same with the overrides.
        dumped: That as jsonargparse writes it, for values that YAML has no form for.
            Not for others: it writes a list as text where a text would do as well.
    """
    if before and before.get('class_path') != after.get('class_path'):
        return dict(dumped)
    gone = before.keys() - after.keys()
    changed = {key: value for key, value in written.items() if key not in gone}
    for key, value in after.items():
        old, given = before.get(key), written.get(key)
        form = dumped.get(key) if isinstance(dumped, Mapping) else None
        if key in before and value == old:
            continue
        if isinstance(value, Mapping) and isinstance(old, Mapping | None):
            if given is None or isinstance(given, Mapping):
                changed[key] = _changed(given or {}, old or {}, value, form)
            else:
                changed[key] = form
        elif _is_plain(value):
            changed[key] = value
        else:
            changed[key] = form
    return changed


def _is_plain(value: Any) -> bool:
    """Return whether YAML has a form for a value."""
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    return value is None or type(value) in (bool, int, float, str)


def ranges(task: ClassTokenMaskingTask) -> dict[str, Any]:
    """Return a task's scaling options, without statistics and options that require them."""
    given = task.hparams['scaling']
    # unscaled bands are not clipped; otherwise the default is BandScaling's own
    options: dict[str, Any] = {'clip': None} if given is None else dict(given)
    for name in ('mean', 'std', 'low', 'high', 'adapt'):
        options.pop(name, None)
    if options.get('per_band'):
        options['per_band'] = {
            band: {key: own[key] for key in ('offset', 'clip') if key in own}
            for band, own in options['per_band'].items()
        }
    return options | {'method': 'standard'}


def read_data(config: str | Path, seed: int = 0) -> LightningDataModule:
    """Return the data module of a configuration of ``torchgeo``.

    Args:
        config: The configuration.
        seed: Added to the data module's own seed, if it has one.

    Raises:
        DataError: If the file or its ``data`` section cannot be used.
    """
    with _section(config, 'data', LightningDataModule) as (parser, parsed):
        if seed and 'seed' in parsed.data.init_args:
            parsed.data.init_args.seed += seed
        datamodule: LightningDataModule = parser.build(parsed).data
    return datamodule


def read_section(config: str | Path, name: str) -> dict[str, Any]:
    """Return a section of a configuration as it is written.

    Raises:
        DataError: If the file cannot be read, or has no such section.
    """
    content = read_yaml(config, 'a configuration of torchgeo')
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise DataError(f'{config} has no {name} section with a class_path.')
    return section


def check_rest(config: str | Path) -> None:
    """Check what a configuration has beside the sections of model and data.

    Raises:
        DataError: If a key is unknown, or a value of the trainer has another type.
    """
    content = read_yaml(config, 'a configuration of torchgeo')
    if not isinstance(content, dict):
        # the sections say what is missing
        return
    for key in content:
        if key not in KEYS:
            raise DataError(
                f'{config} has an unknown key {key!r}, expected some of: '
                f'{", ".join(KEYS)}.{did_you_mean(str(key), KEYS)}'
            )
    section = content.get('trainer') or {}
    known = signature(Trainer).parameters
    for key in section if isinstance(section, dict) else ():
        if key not in known:
            raise DataError(
                f'{config}: trainer has no key {key!r}.{did_you_mean(str(key), known)}'
            )
    parser = _Parser(exit_on_error=False)
    parser.add_class_arguments(Trainer, 'trainer')
    try:
        parser.parse_object({'trainer': section})
    except (ArgumentError, TypeError, ValueError) as error:
        raise DataError(
            f'Cannot use the trainer section of {config}: '
            f'{in_words(first_cause(str(error)))}'
        ) from error


def _check_nesting(config: str | Path, text: str) -> None:
    """Check that a YAML text is not too deep, and does not grow by aliases.

    Raises:
        DataError: If it is.
    """
    depth = aliases = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST or aliases > MOST_ALIASES:
            raise DataError(
                f'{config} is nested too deeply, expected at most {DEEPEST} levels and '
                f'{MOST_ALIASES} aliases.'
            )


def read_yaml(path: str | Path, expected: str) -> Any:
    """Return the content of a YAML file.

    Args:
        path: The file.
        expected: What it is, for errors.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
        _check_nesting(path, text)
        return yaml.safe_load(text)
    except FileNotFoundError as error:
        raise DataError(
            f'{path} does not exist, expected {expected} (.yaml).'
            + similar_file(path, YAML)
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f'{path} is not a text file, expected {expected} (.yaml).'
        ) from error
    except (OSError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(f'Cannot read {path} as YAML: {reason}') from error


class _Parser(ArgumentParser):
    """A parser that keeps our own errors, which jsonargparse would wrap."""

    def __init__(self, **options: Any) -> None:
        """Create the parser; *options* are those of ``ArgumentParser``."""
        super().__init__(**options)
        self.errors: list[CTMError] = []

    def build(self, parsed: Namespace) -> Any:
        """Return the sections with the objects that they describe."""
        return self.instantiate(parsed, instantiators=[(self._create, object, True)])

    def _create(self, kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return an object of a class."""
        try:
            return kind(*args, **kwargs)
        except CTMError as error:
            self.errors.append(error)
            raise


@contextmanager
def _section(
    config: str | Path, name: str, base: type, content: dict[str, Any] | None = None
) -> Iterator[tuple['_Parser', Namespace]]:
    """Yield the parser of a section and the parsed section, to build it.

    Args:
        config: The configuration.
        name: Name of the section.
        base: Base class of what the section names.
        content: The section; None: as the file has it, with the overrides.

    Raises:
        DataError: If anything in the block fails, in one line.
    """
    section = read_section(config, name) if content is None else content
    parser = _Parser(exit_on_error=False)
    parser.add_subclass_arguments(base, name, required=True)
    own = _overrides(config, name) if content is None else []
    try:
        if own:
            parsed = parser.parse_args([f'--{name}={json.dumps(section)}', *own])
        else:
            parsed = parser.parse_object({name: section})
        yield parser, parsed
    except (ArgumentError, CTMError, TypeError, ValueError) as error:
        if parser.errors or isinstance(error, CTMError):
            first = parser.errors[0] if parser.errors else error
            reason = ' '.join(str(first).split())
            raise DataError(f'{config}: {reason}') from error
        raise DataError(
            f'Cannot use the {name} section of {config}: {in_words(first_cause(str(error)))}'
        ) from error


def _overrides(config: str | Path, name: str) -> list[str]:
    """Return the arguments that override a section."""
    overrides = getattr(config, 'overrides', ())
    return [argument for argument in overrides if argument.startswith(f'--{name}')]


def first_cause(message: str) -> str:
    """Return the first cause in a message of jsonargparse, with its class or key.

    jsonargparse lists every type that a value might have had. The cause of an error is
    its most indented line, or follows the type of a function that returns the class.
    """
    factory = re.search(
        r'Callable\[\[\], ([\w.]+)\] expects a function or a callable class: '
        r'(?!Expected .+ to be a subclass)([\s\S]+?)'
        r'(?:\.? Got value: Namespace|\n +- |$)',
        message,
    )
    if factory is not None:
        cause = ' '.join(factory[2].split())
        return f"Problem with given class_path '{factory[1]}': {cause}"
    lines = [line for line in message.splitlines() if line.strip()]
    depths = [len(line) - len(line.lstrip(' -')) for line in lines]
    deepest = depths.index(max(depths))
    owners = [
        line
        for line, depth in zip(lines[:deepest], depths, strict=False)
        if depth < depths[deepest] and line.endswith(("':", '":'))
    ]
    cause = ' '.join(line.strip(' -') for line in [*owners[-1:], lines[deepest]])
    return textwrap.shorten(cause, LONGEST, placeholder=' ...')


def in_words(cause: str) -> str:
    """Return a cause of jsonargparse as a user reads it; others stay as they are."""
    option = re.search(r"class_path '([\w.]+)': Option '(.+?)' is not accepted", cause)
    if option is not None:
        module, _, name = option[1].rpartition('.')
        known = signature(getattr(import_module(module), name)).parameters
        return f'{name} has no key {option[2]!r}.{did_you_mean(option[2], known)}'
    unknown = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", cause)
    if unknown is not None:
        owner = import_module(unknown[1])
        named = getattr(owner, '__all__', None) or dir(owner)
        return f'{unknown[1]} has no {unknown[2]!r}.{did_you_mean(unknown[2], named)}'
    expected = re.fullmatch(
        r'(?:Problem with given class_path .+?: )?(?:Parser key "(.+?)": )?Expected a (.+?)(?:\. Got value: (.*))?',
        cause,
    )
    if expected is None:
        return cause
    key, kind, value = expected.groups()
    choices = re.findall("'(.+?)'", kind) if 'Literal' in kind else []
    [name] = re.findall(r"(\w+)'>$", kind) or [kind]
    words = f'one of: {", ".join(choices)}' if choices else TYPES.get(name, name)
    got = '' if value is None else f', got {value!r}'
    hint = did_you_mean(value or '', choices)
    return f'{"" if key is None else f"{key}: "}expected {words}{got}.{hint}'
