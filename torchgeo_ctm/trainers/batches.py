"""Batches as the network may learn from them: finite numbers, and labeled chips."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from ..errors import BandError, DataError, LabelWarning
from .presence import UNKNOWN

#: Keys of a batch that may name its chips, in order of preference.
NAMES = ('name', 'filename', 'file', 'path', 'key', 'id', 'index', 'bounds')
#: Size from which a scaled number cannot be one of an image.
HUGE = 1e6
#: Chips from which on a class that all of them show is warned about.
MANY = 20
#: Number of chips of a data set that are searched for the one that broke training.
SEARCHED = 10_000


def check_chips_of_batches(trainer: Any) -> None:
    """Let a trainer's loaders say which chips of a batch differ.

    Only loaders, or a data module, that stack chips as PyTorch does are changed.
    """
    loops = (
        *(trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop),
        *(trainer.validate_loop, trainer.test_loop, trainer.predict_loop),
    )
    sources = [loop._data_source.instance for loop in loops if loop._data_source]
    for loader in [trainer.datamodule, *tree_leaves(sources)]:
        if getattr(loader, 'collate_fn', None) is default_collate:
            loader.collate_fn = stacked


def stacked(samples: Sequence[Mapping[str, Any]]) -> Any:
    """Return samples as one batch.

    Raises:
        DataError: If they cannot be stacked, with the first that differs.
    """
    try:
        return default_collate(list(samples))
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        facts = [_facts(sample) for sample in samples]
        other = next((i for i, each in enumerate(facts) if each != facts[0]), None)
        if other is None:
            raise DataError(f'Chips cannot be stacked: {error}') from error
        key = next(
            key
            for key in {**facts[0], **facts[other]}
            if facts[0].get(key) != facts[other].get(key)
        )
        found, first = (
            f'{key} {facts[i][key]}' if key in facts[i] else f'no {key}'
            for i in (other, 0)
        )
        raise DataError(
            f'{_named(samples[other], other)} has {found}, but {_named(samples[0], 0)} '
            f'has {first}. All chips of a batch must have the same keys, sizes and '
            'types. Crop or resize them in the data set.'
        ) from error


def _facts(sample: Mapping[str, Any]) -> dict[str, str]:
    """Return shape and type of each entry of a sample."""
    return {
        key: f'{tuple(value.shape)} {value.dtype}'
        if hasattr(value, 'shape') and hasattr(value, 'dtype')
        else type(value).__name__
        for key, value in sample.items()
    }


def _named(sample: Mapping[str, Any], position: int) -> str:
    """Return the name of a sample of a batch."""
    name = next((sample[key] for key in NAMES if key in sample), None)
    return f'Chip {position} of the batch' if name is None else f'Chip {name}'


def check_shapes(batch: Mapping[str, Any], bands: int, source: str) -> None:
    """Check that a batch holds images, and masks of their size.

    Args:
        batch: The batch.
        bands: Number of bands.
        source: Name of the data set, for the message.

    Raises:
        BandError: If images have another number of bands.
        DataError: If there are no images, images or masks have impossible shapes, or
            images are complex.
    """
    source = source or 'the data set'
    if not isinstance(batch, Mapping) or 'image' not in batch:
        held = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise DataError(
            f"A batch of {source} is {held}, expected a mapping with 'image'."
        )
    image = batch['image']
    if image.ndim != 4 or 0 in image.shape[1:] or image.is_complex():
        kind = 'complex' if image.is_complex() else tuple(image.shape[1:])
        raise DataError(
            f'An image of {source} is {kind}, expected real numbers (bands, height, '
            'width).'
        )
    if image.shape[1] != bands:
        raise BandError(
            f'An image of {source} has {image.shape[1]} bands, expected {bands}.'
        )
    for key in ('mask', 'valid'):
        beside = batch.get(key)
        if beside is not None and beside.shape[-2:] != image.shape[-2:]:
            raise DataError(
                f"'{key}' of {source} has {tuple(beside.shape[-2:])} px, its image "
                f'{tuple(image.shape[-2:])} px. Both must have the same size.'
            )


def finite(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a batch in which pixels that are not finite are invalid.

    A pixel with NaN or infinity in any band is filled with the mean of the chip's
    other pixels, as in scenes, and left out of ``valid`` (B, H, W).

    Args:
        batch: ``image`` (B, bands, H, W), and ``valid`` where the data set has it.
    """
    image: Tensor = batch['image']
    if not image.is_floating_point() or bool(image.isfinite().all()):
        return batch
    valid = image.isfinite().all(dim=1)
    inside = valid[:, None]
    sums = image.masked_fill(~inside, 0).sum(dim=(-2, -1), keepdim=True)
    means = sums / inside.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    image = torch.where(inside, image, means)
    if 'valid' in batch:
        valid &= batch['valid'].reshape(valid.shape).bool()
    return {**batch, 'image': image, 'valid': valid}


def labeled(
    batch: Mapping[str, Any], presence: Tensor
) -> tuple[Mapping[str, Any], Tensor]:
    """Return the chips of a batch that teach something, and their labels.

    Args:
        batch: The batch.
        presence: Image-level labels (B, C), -1 unknown.

    Returns:
        The batch without chips that have no known label or no valid pixel.
    """
    kept = (presence != UNKNOWN).any(dim=1)
    if 'valid' in batch:
        kept &= batch['valid'].flatten(1).any(dim=1)
    if bool(kept.all()):
        return batch, presence
    count, chosen = len(kept), kept.tolist()
    rows: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.ndim and len(value) == count:
            rows[key] = value[kept]
        elif isinstance(value, list | tuple) and len(value) == count:
            rows[key] = [item for item, keep in zip(value, chosen, strict=True) if keep]
        else:
            rows[key] = value
    return rows, presence[kept]


class LabelTally:
    """Counts chips and classes of an epoch, and says what taught nothing."""

    def __init__(self, num_classes: int, said: Sequence[str] = ()) -> None:
        """Start with no chip.

        Args:
            num_classes: Number of classes C.
            said: Names of classes that were warned about before.
        """
        self._said = set(said)
        self.chips = self.kept = 0
        #: Whether any chip had a label.
        self.labeled = False
        # chips in which each class is present, and in which it is absent
        self._present: Tensor = torch.zeros(num_classes)
        self._absent: Tensor = torch.zeros(num_classes)

    def add(self, labels: Tensor, presence: Tensor) -> None:
        """Add a batch.

        Args:
            labels: Labels (B, C) of all its chips, -1 unknown.
            presence: Labels of those that are not left out.
        """
        self.chips += len(labels)
        self.kept += len(presence)
        self.labeled = self.labeled or bool((labels != UNKNOWN).any())
        self._present = self._present.to(presence.device) + (presence == 1).sum(dim=0)
        # a probability is not a certain presence
        below = (presence >= 0) & (presence < 1)
        self._absent = self._absent.to(presence.device) + below.sum(dim=0)

    def check(self) -> None:
        """Check that a chip was left to learn from.

        Raises:
            DataError: If there was none.
        """
        if self.kept or not self.chips:
            return
        if self.labeled:
            why = (
                'a valid pixel. NaN, infinity and nodata are not valid: check the '
                'numbers of the images'
            )
        else:
            why = (
                'a known label. NaN, 255 and -1 are unknown, and a mask of 255 has no '
                'label'
            )
        raise DataError(
            f'None of {self.chips:,} training chips has {why}. Nothing was learned.'
        )

    def warn(self, names: Sequence[str], compete: bool = False) -> None:
        """Warn about chips without a label, and about classes that teach nothing.

        Args:
            names: Names of the classes.
            compete: Whether a class can be learned from the absence of others.
        """
        left = self.chips - self.kept
        if left:
            warnings.warn(
                f'{left:,} of {self.chips:,} training chips have no labeled or no '
                'valid pixel. They are left out.',
                LabelWarning,
                stacklevel=2,
            )
        present = self._present.bool().tolist()
        absent = self._absent.bool().tolist()
        if not any(absent) and self.kept:
            warnings.warn(
                f'No class is absent in any of {self.kept:,} training chips, but '
                'training requires absent classes. A label is 1 for present, 0 for '
                'absent and -1 for unknown; points and polygons say that classes are '
                'absent with complete=True.',
                LabelWarning,
                stacklevel=2,
            )
            return
        never = [
            name
            for name, found in zip(names, present, strict=True)
            if not found and name not in self._said
        ]
        if never and self.kept:
            warnings.warn(
                f'No training chip of {self.kept:,} contains {", ".join(never)}. The '
                'network cannot learn classes that never occur.',
                LabelWarning,
                stacklevel=2,
            )
        always = [
            name
            for name, found, without in zip(names, present, absent, strict=True)
            if found and not without
        ]
        if always and self.kept >= MANY and not compete:
            warnings.warn(
                f'No training chip of {self.kept:,} lacks {", ".join(always)}. Such '
                'classes can only be learned from the absence of others. Set patches: '
                '{compete: true}.',
                LabelWarning,
                stacklevel=2,
            )


def diverged(
    batch: Mapping[str, Any], scaled: Tensor, logits: Tensor, where: str, dataset: Any
) -> DataError:
    """Return the error about a loss that is not finite, with the chip to blame.

    Args:
        batch: The batch.
        scaled: Its images as the network got them (B, bands, H, W).
        logits: Its logits (B, C).
        where: Epoch and batch, for the message.
        dataset: The training data set, to name the chip.
    """
    sizes = scaled.detach().abs().flatten(1).amax(dim=1).nan_to_num(math.inf)
    broken = ~logits.detach().isfinite().all(dim=1)
    if bool((sizes > HUGE).any()):
        position = int(sizes.argmax())
        return DataError(
            f'The loss is not finite in {where}: {_name(batch, position, dataset)} '
            f'holds numbers up to {float(sizes[position]):.3g} after scaling. Mark them '
            'as nodata, or leave the chip out.'
        )
    position = int(broken.float().argmax())
    return DataError(
        f'The loss is not finite in {where}, first for '
        f'{_name(batch, position, None)}: training has diverged. Use a lower lr.'
    )


def _name(batch: Mapping[str, Any], position: int, dataset: Any) -> str:
    """Return the name of a chip of a batch."""
    if 'window' in batch:
        row, col = batch['window'][position][:2].tolist()
        scene = f' of scene {int(batch["scene"][position])}' if 'scene' in batch else ''
        return f'the window at row {row}, column {col}{scene}'
    for key in NAMES:
        value = batch.get(key)
        if isinstance(value, Tensor | list | tuple) and len(value) > position:
            return f'chip {value[position]}'
    found = _search(dataset)
    return f'chip {position} of the batch' if found is None else found


def _search(dataset: Any) -> str | None:
    """Return the name of the chip with the largest number in a data set."""
    try:
        count = min(len(dataset), SEARCHED)
        largest = [
            float(dataset[index]['image'].float().abs().nan_to_num(math.inf).max())
            for index in range(count)
        ]
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError):
        return None
    index = max(range(count), key=largest.__getitem__, default=None)
    if index is None or largest[index] <= HUGE:
        return None
    name = getattr(dataset, 'chip_name', None)
    files: Any = getattr(dataset, 'files', None) or getattr(dataset, 'samples', None)
    known = name(index) if callable(name) else files[index] if files else ''
    return f'chip {index} {known}'.strip()
