"""The task and the data that a configuration of ``torchgeo`` names."""

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule

from .errors import CTMError, DataError, similar_file
from .scaling import BandScaling
from .trainers import ClassTokenMaskingTask

YAML = ('.yaml', '.yml')
#: Levels and aliases that a configuration has at most.
DEEPEST, MOST_ALIASES = 40, 100
#: Longest message of jsonargparse that is shown, in characters.
LONGEST = 300


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
    with _section(config, 'model', ClassTokenMaskingTask) as (parser, parsed):
        # starting weights take a download, and change no chip
        parsed['model.init_args.weights'] = None
        scaling = parsed['model.init_args.scaling']
        parsed['model.init_args.scaling'] = None
        task: ClassTokenMaskingTask = parser.instantiate_classes(parsed).model
        task.save_hyperparameters({'scaling': scaling})
        count = len(task.bands)
        numbers = {'mean': [0.0] * count, 'std': [1.0] * count}
        task.scaling = BandScaling(task.bands, **(ranges(task) | numbers))
    return task.eval()


def ranges(task: ClassTokenMaskingTask) -> dict[str, Any]:
    """Return a task's scaling options without means and standard deviations."""
    given = task.hparams['scaling']
    # unscaled bands are not clipped; otherwise the default is BandScaling's own
    options: dict[str, Any] = {'clip': None} if given is None else dict(given)
    options.pop('mean', None)
    options.pop('std', None)
    if options.get('per_band'):
        options['per_band'] = {
            band: {key: own[key] for key in ('offset', 'clip') if key in own}
            for band, own in options['per_band'].items()
        }
    return options | {'method': 'standard'}


def read_data(config: str | Path) -> LightningDataModule:
    """Return the data module of a configuration of ``torchgeo``.

    Raises:
        DataError: If the file or its ``data`` section cannot be used.
    """
    with _section(config, 'data', LightningDataModule) as (parser, parsed):
        datamodule: LightningDataModule = parser.instantiate_classes(parsed).data
    return datamodule


def read_section(config: str | Path, name: str) -> dict[str, Any]:
    """Return a section of a configuration as it is written.

    Raises:
        DataError: If the file cannot be read, or has no such section.
    """
    try:
        text = Path(config).read_text(encoding='utf-8')
        _check_nesting(config, text)
        content = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise DataError(
            f'{config} does not exist, expected a configuration of torchgeo (.yaml).'
            + similar_file(config, YAML)
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(f'Cannot read {config} as YAML: {reason}') from error
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise DataError(f'{config} has no {name} section with a class_path.')
    return section


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


@contextmanager
def _section(
    config: str | Path, name: str, base: type
) -> Iterator[tuple[ArgumentParser, Namespace]]:
    """Yield the parser of a section and the parsed section, to instantiate it.

    Args:
        config: The configuration.
        name: Name of the section.
        base: Base class of what the section names.

    Raises:
        DataError: If anything in the block fails, in one line.
    """
    section = read_section(config, name)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, name, required=True)
    ours = _remember_errors(parser)
    overrides = getattr(config, 'overrides', ())
    own = [argument for argument in overrides if argument.startswith(f'--{name}')]
    try:
        if own:
            parsed = parser.parse_args([f'--{name}={json.dumps(section)}', *own])
        else:
            parsed = parser.parse_object({name: section})
        yield parser, parsed
    except (ArgumentError, CTMError, TypeError, ValueError) as error:
        if ours or isinstance(error, CTMError):
            reason = ' '.join(str(ours[0] if ours else error).split())
            raise DataError(f'{config}: {reason}') from error
        raise DataError(
            f'Cannot use the {name} section of {config}: {first_cause(str(error))}'
        ) from error


def _remember_errors(parser: ArgumentParser) -> list[CTMError]:
    """Return a list that fills with our own errors, which jsonargparse would wrap."""
    errors: list[CTMError] = []

    def instantiate(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return kind(*args, **kwargs)
        except CTMError as error:
            errors.append(error)
            raise

    parser.add_instantiator(instantiate, object, subclasses=True, prepend=True)
    return errors


def first_cause(message: str) -> str:
    """Return the first cause in a message of jsonargparse, with its class or key.

    jsonargparse lists every type that a value might have had. The cause of an error is
    its most indented line.
    """
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
