"""Keys of a configuration, from signatures and docstrings."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from .files import indented

if TYPE_CHECKING:
    from sphinx.addnodes import desc_signature
    from sphinx.environment import BuildEnvironment

#: The role and the directive of a key.
KEY = 'yamlkey'
#: What a reader of YAML calls Python's types.
WORDS = {
    bool: '``true`` or ``false``',
    float: 'number',
    int: 'integer',
    str: 'text',
    Path: 'path',
    type(None): '``null``',
    Any: 'anything',
}


class Key(NamedTuple):
    """One key of a configuration; type and description in reStructuredText."""

    name: str
    type: str
    #: As YAML would write it; None: the key is required.
    default: str | None
    description: str

    def directive(self, owner: str) -> str:
        """Return the entry of the key.

        Args:
            owner: Name of the class, so that a key's full name is ``owner.name``.
        """
        default = 'required' if self.default is None else f'= {self.default}'
        body = f'.. rst-class:: ctm-type\n\n{self.type}\n\n{self.description}\n'
        return f'.. {KEY}:: {owner}.{self.name} {default}\n\n{indented(body)}\n'


def parse_key(env: 'BuildEnvironment', sig: str, node: 'desc_signature') -> str:
    """Draw ``owner.name default`` as the name and its default; return the full name."""
    from sphinx import addnodes

    full, _, default = sig.partition(' ')
    name = full.rpartition('.')[2]
    node += addnodes.desc_name(name, name)
    node += addnodes.desc_annotation(default, f' {default}')
    return full


def keys_of(
    owner: type, leave_out: Sequence[str] = (), group: type | None = None
) -> list[Key]:
    """Return the keys that a configuration may give a class under ``init_args``.

    jsonargparse, and so ``torchgeo``, finds which there are. A class that passes
    ``**kwargs`` to its parent has the parent's as well.

    Args:
        owner: The class.
        leave_out: Names that a configuration cannot give.
        group: Dataclass of the options that the class takes as keyword arguments.
    """
    grouped = {} if group is None else {key.name: key for key in keys_of_options(group)}
    parser = ArgumentParser()
    parser.add_class_arguments(owner, 'owner')
    names = parser.get_defaults()['owner'].as_dict()
    found = _parameters(owner)
    return [
        grouped[name] if name in grouped else _key(name, *found[name])
        for name in names
        if name not in leave_out
    ]


def keys_of_function(function: Callable[..., Any], names: Sequence[str]) -> list[Key]:
    """Return the keys that stand for some of a function's arguments."""
    found = _arguments(function)
    return [_key(name, *found[name]) for name in names]


def keys_of_options(
    options: type, explained: Mapping[str, Key] | None = None
) -> list[Key]:
    """Return the keys of a ``TypedDict``, or of a dataclass of options.

    Args:
        options: The class; its docstring says what the keys are.
        explained: Keys whose description and default hold where it does not.
    """
    described = _descriptions(options)
    given = (
        {field.name: value_text(field.default) for field in dataclasses.fields(options)}
        if dataclasses.is_dataclass(options)
        else {}
    )
    keys = []
    for name, hint in typing.get_type_hints(options).items():
        other = (explained or {}).get(name)
        default = other.default if other else given.get(name, '(left out)')
        text = described.get(name) or (other.description if other else '')
        keys.append(Key(name, type_text(hint), default, text))
    return keys


def _key(name: str, parameter: inspect.Parameter, hint: Any, description: str) -> Key:
    """Return the key that stands for an argument."""
    required = parameter.default is inspect.Parameter.empty
    default = None if required else value_text(parameter.default)
    return Key(name, type_text(hint), default, description)


_Argument = tuple[inspect.Parameter, Any, str]


def _parameters(owner: type) -> dict[str, _Argument]:
    """Return the arguments of a class; those of its parents where it has ``**kwargs``.

    The nearest class that has an argument explains it.
    """
    found: dict[str, _Argument] = {}
    for parent in owner.__mro__:
        if '__init__' in vars(parent) and parent is not object:
            arguments = _arguments(parent.__init__)  # type: ignore[misc]
            found = arguments | found
            if 'kwargs' not in arguments:
                break
    return found


def _arguments(function: Callable[..., Any]) -> dict[str, _Argument]:
    """Return parameter, type and description of each argument of a function."""
    described = _descriptions(function)
    hints = typing.get_type_hints(function)
    return {
        name: (parameter, hints.get(name, Any), described.get(name, ''))
        for name, parameter in inspect.signature(function).parameters.items()
        if name != 'self'
    }


def _descriptions(documented: Any) -> dict[str, str]:
    """Return what a Google docstring says of each argument or attribute."""
    parsed = parse_docstring(inspect.getdoc(documented) or '')
    return {param.arg_name: _text(param.description) for param in parsed.params}


def _text(description: str | None) -> str:
    """Return a description with one indentation, as reStructuredText needs it."""
    return inspect.cleandoc(description or '')


def value_text(value: Any) -> str:
    """Return a value in one line of YAML."""
    if isinstance(value, tuple):
        value = list(value)
    if dataclasses.is_dataclass(value):
        # its keys have a section of their own
        value = {}
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return re.sub(r'\n\.\.\.$', '', text)


def type_text(hint: Any) -> str:
    """Return a type in words, for readers of YAML who know no Python."""
    group = typing.is_typeddict(hint) or dataclasses.is_dataclass(hint)
    if group or hint in (dict, Mapping):
        return 'mapping'
    if hint in WORDS:
        return WORDS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ' or '.join(f'``{value_text(value)}``' for value in inner)
    if origin in (Union, types.UnionType):
        return _choice(inner)
    if origin is tuple:
        parts = inner[:1] if Ellipsis in inner else inner
        numbers = f'[{", ".join(type_text(part) for part in parts)}]'
        return f'list {numbers}'
    if origin in (list, Sequence):
        return f'list of {_several(type_text(inner[0]))}'
    if origin in (dict, Mapping):
        return f'mapping of {type_text(inner[0])} to {type_text(inner[1])}'
    return f':py:class:`~{hint.__module__}.{hint.__qualname__}`'


def _several(word: str) -> str:
    """Return the plural of a word; ``text`` has none here."""
    return word + 's' if word.endswith('number') else word


def _choice(members: Sequence[Any]) -> str:
    """Return alternatives, ``null`` last and text once for text and paths."""
    texts = [type_text(member) for member in members if member is not type(None)]
    if WORDS[str] in texts and WORDS[Path] in texts:
        texts.remove(WORDS[str])
    if type(None) in members:
        texts.append(WORDS[type(None)])
    return ' or '.join(dict.fromkeys(texts))
