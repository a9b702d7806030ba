"""Compare the classes of a data set with those of the task."""

from collections.abc import Sequence
from typing import Any

from ..errors import SettingError


def match_task(
    trainer: Any,
    root: object,
    classes: Sequence[str],
    colors: Sequence[str] | None = None,
    mixes: bool = False,
) -> None:
    """Check the classes of the trainer's task, and name them if they have no names.

    Args:
        trainer: Lightning's trainer, or None.
        root: Folder of the data set, for errors.
        classes: Names of its classes.
        colors: Their colors; None leaves those of the task.
        mixes: Whether training chips are mixed, which gives them several labels.

    Raises:
        SettingError: If the task has another number or order of classes, or takes one
            label a chip and chips are mixed.
    """
    task: Any = getattr(trainer, 'lightning_module', None)
    hparams = getattr(task, 'hparams', {})
    count = hparams.get('num_classes', len(classes))
    if count != len(classes):
        raise SettingError(
            f'num_classes={count}, but {root} has {len(classes)} classes. Set '
            f'num_classes={len(classes)}.'
        )
    names = list(hparams.get('class_names') or classes)
    if names != list(classes) and set(names) == set(classes):
        raise SettingError(
            'class_names has the classes of the data set in another order, expected '
            f'{", ".join(classes)}.'
        )
    if mixes and hparams.get('task') == 'multiclass':
        raise SettingError(
            "mix_tiles gives chips several labels and requires task='multilabel', got "
            "'multiclass'."
        )
    if colors is not None and hasattr(task, 'name_classes'):
        task.name_classes(classes, colors)
