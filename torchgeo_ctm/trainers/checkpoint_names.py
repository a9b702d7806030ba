"""Compare classes and bands of a checkpoint with those of the task that loads it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BandWarning, CheckpointError, LabelWarning, name_key
from ..scaling import SENTINEL2_BANDS, band_key


def check_checkpoint_names(
    hparams: Mapping[str, Any], classes: Sequence[str] | None, bands: Sequence[str]
) -> None:
    """Check that weights mean the classes and bands that the task names.

    Args:
        hparams: Hyperparameters of the checkpoint.
        classes: Names of the classes of the task, or of its labels; None: unknown.
        bands: Names of the bands of the task.

    Raises:
        CheckpointError: If classes or bands have another order.
    """
    theirs, found = hparams.get('class_names'), _bands_of(hparams)
    if found is not None and _keys(found, band_key) != _keys(bands, band_key):
        raise CheckpointError(
            f'The checkpoint has the bands {", ".join(found)}, but the task '
            f'{", ".join(bands)}. Give the task those of the checkpoint, in their order.'
        )
    if theirs is None or classes is None or len(theirs) != len(classes):
        return
    if _moved(theirs, classes):
        raise CheckpointError(
            f'The checkpoint has the classes {", ".join(theirs)}, but the task or its '
            f'labels {", ".join(classes)}. Give them in the order of the checkpoint.'
        )
    _warn_of_classes('The checkpoint', theirs, classes)


def warn_of_start(
    source: str,
    hparams: Mapping[str, Any],
    classes: Sequence[str] | None,
    bands: Sequence[str],
) -> None:
    """Warn if initial weights are of other classes or bands, or of another order.

    Args:
        source: The checkpoint, for the message.
        hparams: Its hyperparameters.
        classes: Names of the classes of the task; None: unknown.
        bands: Names of its bands.
    """
    theirs, found = hparams.get('class_names'), _bands_of(hparams)
    if theirs is not None and classes is not None:
        _warn_of_classes(source, theirs, classes)
    if found is not None and _keys(found, band_key) != _keys(bands, band_key):
        warnings.warn(
            f'{source} has the bands {", ".join(found)}, the task {", ".join(bands)}. '
            'Weights are taken by position.',
            BandWarning,
            stacklevel=3,
        )


def _warn_of_classes(
    source: str, theirs: Sequence[str], classes: Sequence[str]
) -> None:
    """Warn if classes have other names."""
    if _keys(theirs, name_key) != _keys(classes, name_key):
        warnings.warn(
            f'{source} has the classes {", ".join(theirs)}, the task '
            f'{", ".join(classes)}. Weights are taken by position.',
            LabelWarning,
            stacklevel=4,
        )


def _moved(theirs: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether a name that both have is at another position."""
    place = {key: number for number, key in enumerate(_keys(theirs, name_key))}
    return any(
        place.get(key, number) != number
        for number, key in enumerate(_keys(classes, name_key))
    )


def _bands_of(hparams: Mapping[str, Any]) -> Sequence[str] | None:
    """Return the names of a checkpoint's bands, None if it has none."""
    bands: Sequence[str] | None = hparams.get('bands')
    if bands is None and hparams.get('in_channels') == len(SENTINEL2_BANDS):
        return SENTINEL2_BANDS
    return bands


def _keys(names: Sequence[str], key: Any) -> list[str]:
    """Return names without differences that mean nothing."""
    return [str(key(name)) for name in names]
