"""Names and colors of a task's classes."""

import re
from collections.abc import Callable, Sequence

from ..errors import SettingError

#: Classes of a mask of bytes; 255 is nodata.
MOST_CLASSES = 255


def class_list(
    given: Sequence[str] | None, name: str, count: int, default: Callable[[int], str]
) -> list[str]:
    """Return an option that has one string per class, or defaults by index.

    Args:
        given: The option.
        name: Name of the option, for errors.
        count: Number of classes.
        default: Returns the default of a class index.

    Raises:
        SettingError: If the number of strings is not the number of classes.
    """
    if given is None:
        return [default(index) for index in range(count)]
    if isinstance(given, str) or len(given) != count:
        raise SettingError(
            f'{name} must have num_classes={count} entries, got {len(given)}.'
        )
    return [str(entry) for entry in given]


def check_classes(names: Sequence[str], colors: Sequence[str]) -> None:
    """Check names and colors of classes, which products need.

    Raises:
        SettingError: If there are too many, a name is repeated or not Unicode, or a
            color is none.
    """
    if len(names) > MOST_CLASSES:
        raise SettingError(
            f'num_classes={len(names)} is too large: a mask holds at most '
            f'{MOST_CLASSES} classes.'
        )
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise SettingError(f'class_names has {twice[0]!r} twice, expected each once.')
    for name in names:
        if not name.isprintable():
            raise SettingError(
                f'class_names has {name!r}, expected printable characters.'
            )
    for index, color in enumerate(colors):
        if not _is_color(color):
            raise SettingError(
                f'class_colors[{index}]={color!r} is no color, expected #rrggbb.'
            )


def _is_color(color: str) -> bool:
    """Return True for a color that matplotlib knows."""
    # its import takes longer than a small scene, so that the usual form goes without
    if re.fullmatch('#[0-9a-fA-F]{6}', color):
        return True
    from matplotlib.colors import is_color_like

    return bool(is_color_like(color))
