"""Warn about classes that hardly any training chip shows."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchgeo.datasets import GeoDataset

from ..errors import LabelWarning
from .presence import numbers

#: Labeled chips of a class below which a warning is given.
FEWEST = 5
#: Chips that are read at most where a data set does not hold its labels in memory.
READ = 500


def training_set(trainer: Any) -> Any:
    """Return the data set that a trainer trains on, None if it cannot be indexed."""
    data = getattr(trainer, 'datamodule', None)
    chips = getattr(data, 'train_dataset', None) or getattr(data, 'dataset', None)
    if chips is None:
        chips = getattr(trainer.train_dataloader, 'dataset', None)
    # a GeoDataset has queries, which a sampler draws
    indexed = hasattr(chips, '__len__') and not isinstance(chips, GeoDataset)
    return chips if indexed else None


def warn_about_rare_classes(
    chips: Any, presence: Callable[[Mapping[str, Tensor]], Tensor], names: Sequence[str]
) -> list[str]:
    """Warn about classes that fewer than five labeled training chips show.

    Args:
        chips: The training set. If it has ``image_label``, labels come from there,
            without reading a chip; else chips are read until every class has enough.
        presence: Returns the labels (1, C) of a batch of one chip.
        names: One name per class.

    Returns:
        Names of these classes.
    """
    counts = torch.zeros(len(names))
    # reading may crop at random, and must not change the draws of training
    with torch.random.fork_rng(devices=[]):
        for index in range(len(chips)):
            label = chips.image_label(index) if hasattr(chips, 'image_label') else None
            if label is None:
                if index >= READ:
                    return []
                sample = chips[index]
                if not isinstance(sample, Mapping):
                    # the first batch is refused with what it is
                    return []
                kept = ('label', 'label_known', 'mask')
                given = {k: numbers(sample[k])[None] for k in kept if k in sample}
                # without a label, the error names the keys that there are
                label = presence(given or sample)[0]
            counts += label == 1
            if (counts >= FEWEST).all():
                return []
    rare = {
        name: f'{name} ({int(count)})'
        for name, count in zip(names, counts, strict=True)
        if count < FEWEST
    }
    warnings.warn(
        f'Fewer than {FEWEST} of {len(chips)} labeled training chips show '
        f'{", ".join(rare.values())}. So few labels do not teach a class. Label more '
        'chips of it, or leave it out.',
        LabelWarning,
        stacklevel=2,
    )
    return list(rare)
