"""Groups of options: dataclasses that a configuration may give as mappings."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .errors import SettingError, did_you_mean

Options = TypeVar('Options')


def options_from(
    kind: type[Options], given: Options | Mapping[str, Any] | None, name: str
) -> Options:
    """Return a group of options, from a mapping if necessary.

    Args:
        kind: The dataclass of the group.
        given: The group, a mapping with some of its options, or None for the defaults.
        name: Name of the group, for errors.

    Raises:
        SettingError: If an option is unknown, or is not one of its choices.
    """
    if given is None:
        given = {}
    if isinstance(given, Mapping):
        known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        for key in given:
            if key not in known:
                raise SettingError(
                    f'Unknown option {key!r} of {name}, expected one of: '
                    f'{", ".join(known)}.{did_you_mean(key, known)}'
                )
        given = kind(**given)
    _check_choices(given, name)
    return given


def options_of(kind: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some options that a dataclass has."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in options.items() if name in names}


def _check_choices(options: Any, name: str) -> None:
    """Check that every option with a closed list of values has one of them."""
    for key, hint in get_type_hints(type(options)).items():
        hints = get_args(hint) if get_origin(hint) is not Literal else (hint,)
        choices = [
            value for h in hints if get_origin(h) is Literal for value in get_args(h)
        ]
        value = getattr(options, key)
        if not choices or value in choices:
            continue
        if value is None and type(None) in hints:
            continue
        raise SettingError(
            f'Unknown {name}.{key} {value!r}, expected one of: '
            f'{", ".join(map(str, choices))}.{did_you_mean(str(value), choices)}'
        )


def comma_separated(text: str | Sequence[str]) -> list[str]:
    """Return the names in ``A,B,C``, with or without brackets; a list as it is."""
    if not isinstance(text, str):
        return [*text]
    return [name.strip() for name in text.strip('[]').split(',') if name.strip()]
