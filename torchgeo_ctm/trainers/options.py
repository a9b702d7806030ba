"""Options of the task: what they may be, alone and beside each other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from ..errors import SettingError
from ..losses import check_pooling_warmup
from ..maps.refine import check_refinement
from .self_training import check_self_training


class PruningOptions(TypedDict, total=False):
    """What a configuration may say about pruning (METHOD, section 3).

    Attributes:
        penalty: λ of the paper, the price of an open gate; 0.01 if not given.
        lr: Learning rate of the gates, which at the network's own barely move; the
            network's if not given.
        start_epoch: Gates stay open before it; 0 if not given.
        settle_epoch: From it on, which heads are closed is decided, and the network
            learns to do without them; never if not given.
        remove_at_predict: Take closed heads out before predicting; yes if not given.
    """

    penalty: float
    lr: float
    start_epoch: int
    settle_epoch: int
    remove_at_predict: bool


def check_options(hparams: Mapping[str, Any]) -> None:
    """Refuse options of a task that are out of range, or do not go together.

    Raises:
        SettingError: If there is one.
    """
    _check_masks(hparams)
    check_pooling_warmup(hparams['patch_pooling_warmup'], hparams['patch_pooling'])
    _check_self_training(hparams)
    values, count = hparams['class_values'], hparams['num_classes']
    if values is not None and not len(values) == len(set(values)) == count:
        raise SettingError(
            f'class_values={list(values)} are not {count} different values, one for '
            f'each of num_classes={count}'
        )


def _check_masks(hparams: Mapping[str, Any]) -> None:
    """Refuse options of how maps become masks."""
    if not 0 < hparams['threshold'] < 1:
        raise SettingError(f'threshold={hparams["threshold"]} is not in (0, 1)')
    if hparams['presence'] == 'probability' and hparams['map_rule'] == 'paint':
        raise SettingError(
            "presence='probability' is for map_rule='argmax'; nearest with 'paint': "
            "presence='threshold'"
        )
    if hparams['patch_loss_weight'] == 0 and hparams['map_source'] != 'attention':
        raise SettingError(
            f'map_source={hparams["map_source"]!r} needs the patch head that '
            "patch_loss_weight=0 removes; nearest: map_source='attention'"
        )
    check_refinement(hparams['refinement'], hparams['refinement_options'])
    if hparams['refinement'] is not None and hparams['map_rule'] != 'argmax':
        raise SettingError(
            f'refinement={hparams["refinement"]!r} refines scores, which rule '
            f"{hparams['map_rule']!r} does not use; nearest: map_rule='argmax'"
        )


def _check_self_training(hparams: Mapping[str, Any]) -> None:
    """Refuse self-training that has nothing to teach, or options it lacks."""
    check_self_training(hparams['self_training'])
    if hparams['self_training'] is None:
        return
    if hparams['patch_loss_weight'] == 0:
        raise SettingError(
            'self_training teaches the patch head that patch_loss_weight=0 removes; '
            'nearest: patch_loss_weight=1'
        )
    if hparams['task'] == 'multiclass':
        raise SettingError(
            "self_training with task='multiclass' would teach one class to every "
            'patch; nearest: self_training=None'
        )


def class_list(
    hparams: Mapping[str, Any], name: str, default: Callable[[int], str]
) -> list[str]:
    """Return an option that has one string per class, or defaults by index.

    Raises:
        SettingError: If there are more or fewer.
    """
    count, given = hparams['num_classes'], hparams[name]
    if given is None:
        return [default(index) for index in range(count)]
    if len(given) != count:
        raise SettingError(
            f'{name} has {len(given)} entries, num_classes={count} needs {count}'
        )
    return [str(entry) for entry in given]


def tab20(index: int) -> str:
    """Return a colour of matplotlib's tab20 as ``#rrggbb``."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps['tab20'](index % 20))


def mask_schedule(rate: float | Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Return the masking rates as (epoch, rate), ordered.

    Raises:
        SettingError: If a rate is not in [0, 1), or epochs are not ascending from 0.
    """
    steps = [(0, rate)] if isinstance(rate, int | float) else rate
    pairs = [(int(epoch), float(value)) for epoch, value in steps]
    epochs = [epoch for epoch, _ in pairs]
    if not pairs or epochs != sorted(set(epochs)) or epochs[0] < 0:
        raise SettingError(
            f'mask_rate={rate} is not a list of (epoch, rate) with ascending epochs'
        )
    for _, value in pairs:
        if not 0 <= value < 1:
            raise SettingError(
                f'mask_rate={value} is not in [0, 1); the paper uses 0.5'
            )
    return pairs
