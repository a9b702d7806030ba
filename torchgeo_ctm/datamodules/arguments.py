"""Check what the data set and the task of a data module expect."""

import warnings
from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

from ..errors import ReflectanceWarning, SettingError, did_you_mean

#: Arguments of a data set that its data module gives.
OURS = ('split', 'transforms')


def check_arguments(dataset: Callable[..., Any], given: Iterable[str]) -> None:
    """Check the names of the arguments that a data module hands to its data set.

    Args:
        dataset: Class of the data set.
        given: Names of the arguments.

    Raises:
        SettingError: If it has no such argument.
    """
    parameters = signature(dataset).parameters
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    known = [name for name in parameters if name not in OURS]
    for name in given:
        if name not in known:
            raise SettingError(
                f'{getattr(dataset, "__name__", dataset)} has no argument {name!r}, '
                f'expected some of: {", ".join(known)}.{did_you_mean(name, known)}'
            )


def warn_of_unscaled(trainer: Any, data: object) -> None:
    """Warn if the task is one of TorchGeo, which takes images that are scaled.

    Args:
        trainer: Lightning's trainer, or None.
        data: The data module, whose images keep their own numbers.
    """
    task = type(getattr(trainer, 'lightning_module', None))
    if task.__module__.startswith(('torchgeo.tasks.', 'torchgeo.trainers.')):
        warnings.warn(
            f'{type(data).__name__} leaves scaling to the model, but {task.__name__} of '
            'TorchGeo does not scale: it gets the numbers of the files. Give it the '
            'data that it was trained on, as PseudoMaskDataModule scales them, or use '
            'ClassTokenMaskingTask.',
            ReflectanceWarning,
            stacklevel=3,
        )
