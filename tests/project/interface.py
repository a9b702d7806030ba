"""Flags of every command, and keys of every class that configurations name."""

import inspect
import json
from argparse import Action
from dataclasses import asdict
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

from tests.project.public_paths import resolve
from torchgeo_ctm.inference.options import ProductOptions
from torchgeo_ctm.main import build_parser

REQUIRED = '(required)'

#: Classes that configurations name, and what stands for their required keys.
CONFIGURED: dict[str, tuple[type, dict[str, str]]] = {
    'torchgeo_ctm.trainers.ClassTokenMaskingTask': (pl.LightningModule, {}),
    'torchgeo_ctm.datamodules.SceneDataModule': (
        pl.LightningDataModule,
        {'scene': 'scene.tif'},
    ),
    'torchgeo_ctm.datamodules.DFC2020DataModule': (pl.LightningDataModule, {}),
    'torchgeo_ctm.datamodules.PseudoMaskDataModule': (
        pl.LightningDataModule,
        {'images': 'scenes', 'masks': 'masks'},
    ),
    'torchgeo_ctm.inference.writer.PseudoMaskWriter': (
        Callback,
        {'output': 'mask.tif'},
    ),
}
CALLED = (*CONFIGURED, 'torchgeo_ctm.predict_scene')


def flags() -> dict[str, dict[str, Any]]:
    """Return defaults, choices and kind of every flag of every command."""
    parser: Any = build_parser()
    commands = parser._subcommands_action._name_parser_map
    content: dict[str, dict[str, Any]] = {'': dict.fromkeys(_names(parser._actions))}
    for name, command in commands.items():
        content[name] = {
            ' '.join(action.option_strings) or action.dest.upper(): _facts(action)
            for action in command._actions
            if '--help' not in action.option_strings
        }
    return content


def _names(actions: list[Action]) -> list[str]:
    """Return the options of the program itself."""
    return [' '.join(a.option_strings) for a in actions if a.option_strings]


def _facts(action: Action) -> dict[str, Any]:
    """Return what help says of an option, but its prose."""
    hint = getattr(action, '_typehint', action.type)
    parts = _parts(hint)
    switch = '--no_' in ' '.join(action.option_strings)
    numbers = {int: 'whole number', float: 'number'}
    kind = next((word for type_, word in numbers.items() if type_ in parts), 'text')
    choices = [part for part in parts if isinstance(part, str)]
    optional = bool(action.option_strings) or action.nargs == '?'
    facts = {
        'default': action.default,
        'required': action.required or not optional,
        'takes': 'nothing' if switch else 'choice' if choices else kind,
    }
    return facts | ({'choices': choices} if choices else {})


def _parts(hint: Any) -> list[Any]:
    """Return the types of a union and the values of its literals."""
    if get_origin(hint) in (Union, UnionType, Literal):
        return [part for each in get_args(hint) for part in _parts(each)]
    return [hint]


def keys() -> dict[str, dict[str, Any]]:
    """Return names and defaults of what the classes, and predict_scene, take."""
    return {path: defaults(path) for path in CALLED}


def defaults(path: str) -> dict[str, Any]:
    """Return names and defaults of the arguments of what a path names."""
    content = {}
    parameters = dict(inspect.signature(resolve(path)).parameters)
    if path.endswith('PseudoMaskWriter'):
        del parameters['products']
        parameters |= inspect.signature(ProductOptions).parameters
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            name = f'**{name}'
        required = parameter.default is inspect.Parameter.empty
        value = REQUIRED if required else parameter.default
        content[name] = json.loads(json.dumps(value, default=asdict))
    return content


def configured(path: str, given: dict[str, Any]) -> Any:
    """Return an object as ``torchgeo`` makes it of a configuration.

    Args:
        path: Its ``class_path``.
        given: Names and values of its ``init_args``.
    """
    base, samples = CONFIGURED[path]
    names = {key: value for key, value in given.items() if not key.startswith('**')}
    return _parsed(base, {'class_path': path, 'init_args': names | samples})


def from_hyperparameters(hparams: dict[str, Any]) -> Any:
    """Return a task as ``torchgeo --ckpt_path`` makes it of a checkpoint's."""
    names = {key: value for key, value in hparams.items() if not key.startswith('_')}
    section = {'class_path': hparams['_class_path'], 'dict_kwargs': names}
    return _parsed(pl.LightningModule, section)


def _parsed(base: type, section: dict[str, Any]) -> Any:
    """Parse a section with LightningCLI's own parser, and instantiate it."""
    parser: Any = LightningArgumentParser()
    if base is Callback:
        parser.add_subclass_arguments(base, 'section')
    else:
        parser.add_lightning_class_args(base, 'section', subclass_mode=True)
    config = parser.parse_object({'section': section})
    return parser.instantiate(config)['section']
