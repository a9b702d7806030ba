"""Read what a data set says of its channels: names, order, normalization."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BandError, BandWarning, CTMError, LabelWarning, name_key
from ..rasters import open_raster
from ..scaling import BandScaling, band_key, is_reflectance

#: Order in which TorchGeo's BigEarthNet reads its files, by its argument *bands*.
BIGEARTHNET_S2 = (
    *('B01', 'B02', 'B03', 'B04', 'B05', 'B06'),
    *('B07', 'B08', 'B8A', 'B09', 'B11', 'B12'),
)
BIGEARTHNET = {
    's1': ('VH', 'VV'),
    's2': BIGEARTHNET_S2,
    'all': ('VH', 'VV', *BIGEARTHNET_S2),
}
#: Means from which a band's numbers are those of a sensor, not scaled ones.
UNSCALED = 100.0
#: Share of negative numbers that reflectance x 10,000 cannot have.
NEGATIVE = 0.25
#: Numbers below it are fill values.
FILL = -5000.0
#: Attributes that name a data set's bands, in order of preference.
ATTRIBUTES = ('bands', 'all_bands', 'all_band_names', 'band_names')
#: Data set that a data module opens for a stage, in order of preference.
OPENED = {
    'fit': ('train_dataset', 'dataset'),
    'validate': ('val_dataset', 'dataset'),
    'test': ('test_dataset', 'dataset'),
    'predict': ('chips', 'predict_dataset', 'dataset'),
}


class DataFacts(NamedTuple):
    """What a data set says about its channels."""

    #: Name of the data set, for messages.
    source: str
    #: Names of the bands in order; None: unknown.
    bands: tuple[str, ...] | None
    #: Mean and deviation with which the data module normalizes; None: it does not.
    normalization: tuple[list[float], list[float]] | None


def data_facts(trainer: Any, stage: str) -> DataFacts | None:
    """Return what the data of a trainer say about their channels.

    Args:
        trainer: The trainer, whose data module is set up.
        stage: 'fit', 'validate', 'test' or 'predict'.

    Returns:
        The facts; None if bands are read by the names of the task, as those of scenes.
    """
    module = getattr(trainer.datamodule, 'data', trainer.datamodule)
    if getattr(module, 'reads_bands_by_name', False):
        return None
    dataset = opened_dataset(trainer, stage)
    if dataset is None:
        return None
    return DataFacts(
        type(_innermost(dataset)).__name__, channel_names(dataset), _norm(module)
    )


def opened_dataset(trainer: Any, stage: str) -> Any:
    """Return the data set that a stage reads, None if there is none yet."""
    module = trainer.datamodule
    if module is None:
        return _loader_dataset(trainer, stage)
    found = (getattr(module, name, None) for name in OPENED[stage])
    return next((dataset for dataset in found if dataset is not None), None)


def warn_of_other_classes(trainer: Any, stage: str, names: Sequence[str]) -> None:
    """Warn if a data set has the classes of a task under other numbers.

    Args:
        trainer: The trainer, whose data module is set up.
        stage: 'fit', 'validate', 'test' or 'predict'.
        names: Names of the task's classes.
    """
    dataset = _innermost(opened_dataset(trainer, stage))
    theirs = getattr(dataset, 'classes', None)
    if not isinstance(theirs, list | tuple):
        return
    index = {name_key(str(name)): number for number, name in enumerate(theirs)}
    shared = [(number, index.get(name_key(n))) for number, n in enumerate(names)]
    if any(other not in (None, number) for number, other in shared):
        warnings.warn(
            f'{type(dataset).__name__} has the classes {", ".join(map(str, theirs))}, the '
            f'model {", ".join(names)}. Classes are compared by number. Give the model '
            'those of the data, in their order.',
            LabelWarning,
            stacklevel=3,
        )


def _loader_dataset(trainer: Any, stage: str) -> Any:
    """Return the data set of a loader that was passed to the trainer."""
    loops = {'fit': 'fit_loop', 'validate': 'validate_loop', 'test': 'test_loop'}
    loop = getattr(trainer, loops.get(stage, 'predict_loop'), None)
    if stage == 'validate' and trainer.state.fn == 'fit':
        loop = trainer.fit_loop.epoch_loop.val_loop
    loader = getattr(getattr(loop, '_data_source', None), 'instance', None)
    if isinstance(loader, Mapping):
        loader = next(iter(loader.values()), None)
    if isinstance(loader, list | tuple):
        loader = next(iter(loader), None)
    return getattr(loader, 'dataset', None)


def check_same_bands(train: DataFacts, val: DataFacts | None) -> None:
    """Check that training and validation data have the same bands, in one order.

    Raises:
        BandError: If they differ.
    """
    if train.bands is None or val is None or val.bands is None:
        return
    if [band_key(b) for b in train.bands] != [band_key(b) for b in val.bands]:
        raise BandError(
            f'Training data have the bands {", ".join(train.bands)}, validation data '
            f'{", ".join(val.bands)}. Give them the same bands in the same order.'
        )


def _innermost(dataset: Any) -> Any:
    """Return the data set that reads files, below subsets and other wrappers."""
    while True:
        inner = getattr(dataset, 'dataset', None)
        several = getattr(dataset, 'datasets', None)
        if inner is None and several and len(several) == 1:
            inner = several[0]
        if inner is None or getattr(dataset, 'bands', None):
            return dataset
        dataset = inner


def channel_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of a data set's channels in order, None if it does not say.

    Args:
        dataset: A data set of TorchGeo or of this package, or a subset, union,
            concatenation or intersection of some.

    Raises:
        BandError: If joined data sets have different bands.
    """
    dataset = _innermost(dataset)
    parts: Any = getattr(dataset, 'datasets', None)
    if parts and not getattr(dataset, 'bands', None):
        images = [part for part in parts if getattr(part, 'is_image', True)]
        names = [channel_names(part) for part in images]
        stacked = 'IntersectionDataset' in _kinds(dataset)
        if not stacked or None in names:
            # unions and sequences of data sets have the channels of each
            return None if stacked else _common_names(names)
        return tuple(name for each in names if each for name in each)
    return _seasons(dataset, _own_names(dataset))


def _common_names(names: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Return the names of the bands of data sets that are joined.

    Raises:
        BandError: If they differ.
    """
    known = [each for each in names if each is not None]
    for other in known[1:]:
        if [band_key(b) for b in other] != [band_key(b) for b in known[0]]:
            raise BandError(
                'Data sets with different bands are joined: '
                f'{", ".join(known[0])}, and {", ".join(other)}. Give them the same '
                'bands in the same order.'
            )
    return known[0] if known and len(known) == len(names) else None


def _kinds(dataset: Any) -> list[str]:
    """Return the names of a data set's class and its base classes."""
    return [kind.__name__ for kind in type(dataset).__mro__]


def _own_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names that a data set's attributes or files give its channels."""
    facts: Any = getattr(dataset, 'metadata', None)
    if isinstance(facts, Mapping) and isinstance(facts.get(dataset.split), Mapping):
        facts = facts[dataset.split]
        for key in ('bands', 'all_bands'):
            if facts.get(key):
                return tuple(facts[key])
    for name in ATTRIBUTES:
        value = getattr(dataset, name, None)
        if isinstance(value, str):
            sets: Any = getattr(dataset, 'BAND_SETS', {})
            if 'BigEarthNet' in _kinds(dataset):
                sets = BIGEARTHNET
            value = sets.get(value)
        if (
            isinstance(value, Sequence)
            and value
            and all(isinstance(v, str) for v in value)
        ):
            return tuple(value)
    return _descriptions(dataset)


def _descriptions(dataset: Any) -> tuple[str, ...] | None:
    """Return the band descriptions of a raster data set's first file."""
    files = getattr(dataset, 'files', None)
    if not isinstance(files, Sequence) or not files or not isinstance(files[0], str):
        return None
    try:
        with open_raster(files[0]) as raster:
            names = raster.descriptions
    except CTMError:
        return None
    return tuple(names) if all(names) else None


def _seasons(dataset: Any, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return different names for the bands of data sets that stack seasons."""
    count = getattr(dataset, 'seasons', 1)
    if names is None or not isinstance(count, int) or count < 2:
        return names
    later = [f'{name} season {k}' for k in range(2, count + 1) for name in names]
    return (*names, *later)


def _norm(module: Any) -> tuple[list[float], list[float]] | None:
    """Return mean and deviation of the Normalize step of a data module."""
    for name in ('aug', 'val_aug', 'test_aug', 'train_aug'):
        steps = getattr(module, name, None)
        for step in steps.modules() if isinstance(steps, nn.Module) else ():
            flags = getattr(step, 'flags', {})
            if type(step).__name__ == 'Normalize' and flags.keys() >= {'mean', 'std'}:
                mean, std = (
                    torch.as_tensor(flags[key]).flatten().double().tolist()
                    for key in ('mean', 'std')
                )
                return mean, std
    return None


def channel_order(
    wanted: Sequence[str], found: Sequence[str], source: str
) -> list[int] | None:
    """Return the position of each wanted band in a data set.

    Args:
        wanted: Names of the network's bands, in order.
        found: Names of the data set's bands, in order.
        source: Name of the data set.

    Returns:
        For each wanted band its 0-based position; None if they agree already, or if
        the names have nothing in common and cannot be compared.

    Raises:
        BandError: If some of the bands are missing or named twice.
    """
    ours, theirs = [band_key(b) for b in wanted], [band_key(b) for b in found]
    if ours == theirs:
        return None
    if not set(ours) & set(theirs):
        warnings.warn(
            f'{source} has the bands {", ".join(found)}. They are taken for '
            f'{", ".join(wanted)} in that order, because no name is the same.',
            BandWarning,
            stacklevel=4,
        )
        return None
    missing = [
        name for name, key in zip(wanted, ours, strict=True) if key not in theirs
    ]
    twice = [
        name for name, key in zip(wanted, ours, strict=True) if theirs.count(key) > 1
    ]
    if missing or twice:
        fault = f'missing: {", ".join(missing)}' if missing else f'twice: {twice[0]}'
        raise BandError(
            f'{source} has the bands {", ".join(found)}, expected {", ".join(wanted)} '
            f'({fault}). Set bands and in_channels to those of the data set.'
        )
    return [theirs.index(key) for key in ours]


def _reflectances(
    image: Tensor, valid: Tensor | None, bands: Sequence[str], scaling: BandScaling
) -> tuple[list[int], Tensor]:
    """Return the bands that hold numbers of a sensor, and their pixels (bands, n)."""
    standard = scaling.method == 'standard'
    means, tops = scaling.mean.flatten().tolist(), scaling.highest.flatten().tolist()
    looked = [
        index
        for index, band in enumerate(bands)
        if is_reflectance(band)
        and (
            means[index] >= UNSCALED if standard else 10 * UNSCALED < tops[index] < 1e9
        )
    ]
    if image.shape[1] != len(bands):
        return [], image.new_empty(0)
    numbers = image[:, looked].detach().float().movedim(1, 0)
    return looked, numbers.flatten(1) if valid is None else numbers[:, valid]


def scaled_already(
    image: Tensor, valid: Tensor | None, bands: Sequence[str], scaling: BandScaling
) -> str | None:
    """Return why numbers were scaled before, or None.

    Args:
        image: Images (B, bands, H, W), finite.
        valid: Valid pixels (B, H, W) bool; None: all.
        bands: Names of the bands.
        scaling: The scaling that expects the numbers of a sensor.
    """
    looked, numbers = _reflectances(image, valid, bands, scaling)
    if not numbers.numel():
        return None
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return None
    lows, highs = numbers.amin(dim=1), numbers.amax(dim=1)
    small = (lows < highs) & (torch.maximum(lows.abs(), highs.abs()) <= 1.5)
    if bool(small.any()) and not bool(small.all()):
        one = int(small.float().argmax())
        return (
            f'numbers from {float(lows[one]):.3g} to {float(highs[one]):.3g} in '
            f'{bands[looked[one]]}, scaled already, and up to {high:.4g} in others'
        )
    if max(abs(low), abs(high)) > UNSCALED:
        return None
    kind = (
        'standardized' if low < 0 else 'scaled to 0 to 1' if high <= 1.5 else 'scaled'
    )
    return f'numbers from {low:.3g} to {high:.3g}, {kind} already'


def negative_numbers(
    image: Tensor, valid: Tensor | None, bands: Sequence[str], scaling: BandScaling
) -> str | None:
    """Return which numbers are negative after the offset, or None for a few.

    Args:
        image: Images (B, bands, H, W), finite.
        valid: Valid pixels (B, H, W) bool; None: all.
        bands: Names of the bands.
        scaling: The scaling that expects the numbers of a sensor.
    """
    looked, numbers = _reflectances(image, valid, bands, scaling)
    if not numbers.numel() or float(scaling.lowest.flatten()[looked].min()) < 0:
        return None
    shifted = numbers + scaling.offset
    low, high = float(shifted.min()), float(shifted.max())
    # fill values such as -9999 are no measurements
    below = ((shifted < -UNSCALED) & (numbers > FILL)).float().mean()
    # constant images tell nothing: they may be fill values
    if low == high or max(abs(low), abs(high)) <= UNSCALED or float(below) < NEGATIVE:
        return None
    return f'numbers from {low:.4g} to {high:.4g}, {below:.0%} of them negative'
