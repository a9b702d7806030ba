"""What a configuration of ``torchgeo`` names: the task, and the data."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from .configuration_faults import listen, one_line
from .errors import DataError, nearest_file
from .scaling import BandScaling
from .trainers import ClassTokenMaskingTask

YAML = ('.yaml', '.yml')


def read_task(config: str | Path) -> ClassTokenMaskingTask:
    """Build the task that a configuration of ``torchgeo`` names, untrained.

    Its scaling adds offsets and clips, but has means of 0 and deviations of 1: they may
    be what is looked for.

    Raises:
        DataError: If the file or its ``model`` section cannot be used.
    """
    section = read_section(config, 'model')
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ClassTokenMaskingTask, 'model', required=True)
    with one_line(config, 'model') as ours:
        listen(parser, ours)
        parsed = parser.parse_object({'model': section})
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
    """Return a task's options of scaling, but for means and deviations."""
    given = task.hparams['scaling']
    # what is not scaled is not clipped; else the default is BandScaling's own
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
    """Build the data module that a configuration of ``torchgeo`` names.

    Raises:
        DataError: If the file or its ``data`` section cannot be used.
    """
    section = read_section(config, 'data')
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, 'data', required=True)
    with one_line(config, 'data') as ours:
        listen(parser, ours)
        parsed = parser.parse_object({'data': section})
        datamodule: LightningDataModule = parser.instantiate_classes(parsed).data
    return datamodule


def read_section(config: str | Path, name: str) -> dict[str, Any]:
    """Return a section of a configuration as it stands.

    Raises:
        DataError: If the file cannot be read, or has no such section.
    """
    try:
        content = yaml.safe_load(Path(config).read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise DataError(
            f'{config} does not exist; needed: a configuration of torchgeo (.yaml)'
            + nearest_file(config, YAML)
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f'{config} cannot be read as YAML: {" ".join(str(error).split())}'
        ) from error
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise DataError(f'{config} has no {name} section; needed: one with class_path')
    return section
