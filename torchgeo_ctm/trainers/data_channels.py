"""Fit the data of a training to a task: order of bands, and numbers as expected."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BandWarning, ReflectanceWarning, SettingError
from ..reflectance import scaling_complaint
from ..scaling import SENTINEL2_BANDS, BandScaling
from .batches import check_shapes, finite
from .channel_facts import (
    DataFacts,
    channel_order,
    check_same_bands,
    data_facts,
    negative_numbers,
    scaled_already,
)

#: Advice to set another offset of chips.
SET_OFFSET = 'Set offset: {:g} in model.init_args.scaling.'
#: Deviation after scaling below which images have other numbers than it expects.
NARROW = 0.08
#: Types that PyTorch stores, but does not compute with.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
#: Largest number of a byte.
BYTE = 255


@dataclass
class DataChannels:
    """What is known about the channels of the data that are open."""

    #: Name of the data set; empty if bands are read by the names of the task.
    source: str = ''
    #: Position of each band of the task in the data; None: the same order.
    order: list[int] | None = None
    #: Number of bands that the data set names.
    found: int = 0
    #: Names of the bands, for a task that was given none.
    names: tuple[str, ...] | None = None
    #: Mean and deviation of each band with which the data module normalizes.
    normalization: tuple[list[float], list[float]] | None = None
    #: Whether the data module has scaled the images as the task would.
    scaled: bool = False
    #: Whether the numbers of the first images were checked.
    checked: bool = False

    @property
    def unchecked(self) -> bool:
        """Whether numbers are still to be checked: those of scenes never are."""
        return bool(self.source) and not self.checked

    def arranged(self, batch: Mapping[str, Any], count: int) -> Mapping[str, Any]:
        """Return a batch with the task's bands in order and finite numbers.

        Args:
            batch: ``image`` (B, bands, H, W), and optionally ``label`` and ``mask``.
            count: Number of bands of the task.

        Raises:
            BandError: If the number of bands is not that of the data set.
            DataError: If images, masks or labels have impossible shapes or values.
        """
        check_shapes(batch, count if self.order is None else self.found, self.source)
        if 'valid' in batch and batch['valid'].dtype != torch.bool:
            batch = {**batch, 'valid': batch['valid'].bool()}
        if batch['image'].dtype in UNSIGNED:
            batch = {**batch, 'image': batch['image'].float()}
        if self.order is not None:
            batch = {**batch, 'image': batch['image'][:, self.order]}
        return finite(batch)

    def check_numbers(
        self, batch: Mapping[str, Any], scaling: nn.Module, bands: Sequence[str]
    ) -> None:
        """Check that the first images are in the numbers that the scaling expects.

        Args:
            batch: An arranged batch.
            scaling: The task's scaling.
            bands: Names of its bands.

        Raises:
            SettingError: If the numbers were scaled already, or many are negative.
        """
        image: Tensor = batch['image']
        # constant images tell nothing
        self.checked = bool((image != image.flatten()[0]).any())
        if not isinstance(scaling, BandScaling) or self.scaled:
            return
        given = (image, batch.get('valid'), bands, scaling)
        fault, negative = scaled_already(*given), negative_numbers(*given)
        spread = float(scaling(image.float()).std(dim=(0, 2, 3)).mean())
        if fault is not None:
            raise SettingError(
                f'The images of {self.source} hold {fault}, but model.init_args.scaling '
                'expects reflectance x 10,000 (deviation after scaling: '
                f'{spread:.2g}). Set scaling: null under model.init_args, or mean, std '
                'and clip: null of these numbers.'
            )
        if negative is not None:
            offset = f'offset {scaling.offset:g}' if scaling.offset else 'no offset'
            raise SettingError(
                f'The images of {self.source} hold {negative}, with {offset} added. '
                'Reflectance x 10,000 is not negative. Leave out an offset that the '
                'images have already (data.init_args.offset, or offset in '
                'model.init_args.scaling), or set scaling: null for normalized images.'
            )
        pixels = image.movedim(1, 0).flatten(1)
        if 'valid' in batch:
            pixels = pixels[:, batch['valid'].flatten().bool()]
        said = scaling_complaint(pixels.float(), bands, scaling, advice=SET_OFFSET)
        said = said or _unusual(image, scaling, spread)
        if self.checked and said is not None:
            text = f'The images of {self.source}: {said.rstrip(".")}.'
            warnings.warn(text, ReflectanceWarning, stacklevel=3)

    def warn_of_constant_images(self) -> None:
        """Warn if the numbers of all images so far were one and the same."""
        if self.unchecked:
            warnings.warn(
                f'Every image of {self.source} holds a single number. Nothing can be '
                'learned from it. Check how the data set reads its files.',
                ReflectanceWarning,
                stacklevel=2,
            )


def _unusual(image: Tensor, scaling: BandScaling, spread: float) -> str | None:
    """Return what is unusual about the numbers of images, or None.

    Args:
        image: Images (B, bands, H, W).
        scaling: The scaling that is applied to them.
        spread: Their deviation afterwards, mean over the bands.
    """
    top, mean = float(image.max()), float(scaling.mean.median())
    if top <= BYTE < mean / 2:
        return (
            f'numbers up to {top:.4g}, as in 8-bit pictures, have a mean of {mean:.4g} '
            'in the scaling. Set mean, std and clip: null under '
            'model.init_args.scaling to those of the pictures'
        )
    if scaling.method == 'standard' and spread < NARROW:
        return (
            f'numbers from {float(image.min()):.4g} to {top:.4g} have a deviation of '
            f'{spread:.2g} after scaling, expected about 1. Check '
            'model.init_args.scaling'
        )
    return None


def data_channels(
    trainer: Any, stage: str, bands: tuple[str, ...], named: bool
) -> DataChannels:
    """Return what the data of a trainer say about their channels.

    Args:
        trainer: The trainer, whose data module is set up; None: there is none.
        stage: 'fit', 'validate', 'test' or 'predict'.
        bands: Names of the task's bands.
        named: Whether the user gave these names.

    Raises:
        BandError: If bands of the task are missing in the data.
        SettingError: If the number of bands differs.
    """
    if trainer is None:
        return DataChannels()
    facts = data_facts(trainer, stage)
    if facts is None:
        module = trainer.datamodule
        # scenes to predict are checked when they are written
        known = module is not None and stage != 'predict'
        return DataChannels(type(module).__name__ if known else '')
    if stage == 'fit':
        check_same_bands(facts, data_facts(trainer, 'validate'))
    channels = DataChannels(facts.source, found=len(facts.bands or ()))
    if facts.bands is not None and not named:
        channels.names = _checked(facts.source, facts.bands, len(bands))
    elif facts.bands is not None:
        channels.order = channel_order(bands, facts.bands, facts.source)
    elif not named and bands == SENTINEL2_BANDS:
        warnings.warn(
            f'{facts.source} does not name its bands. They are taken for '
            f'{", ".join(bands)}. Set bands to the names in order.',
            BandWarning,
            stacklevel=3,
        )
    if channels.order is not None:
        warnings.warn(
            f'{facts.source} has the bands {", ".join(facts.bands or ())}. They are read '
            f'by name, as {", ".join(bands)}.',
            BandWarning,
            stacklevel=3,
        )
    channels.normalization = _normalization(facts, channels.order, len(bands))
    return channels


def _checked(source: str, found: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return the names of a data set's bands.

    Raises:
        SettingError: If they are not as many as the task's.
    """
    if len(found) != count:
        raise SettingError(
            f'in_channels={count}, but {source} has {len(found)} bands: '
            f'{", ".join(found)}. Set in_channels={len(found)}.'
        )
    return found


def _normalization(
    facts: DataFacts, order: list[int] | None, bands: int
) -> tuple[list[float], list[float]] | None:
    """Return mean and deviation of the task's bands in the data module's own steps."""
    if facts.normalization is None:
        return None
    count = len(facts.bands or range(bands))
    mean, std = (
        list(values) * count if len(values) == 1 else list(values)
        for values in facts.normalization
    )
    if not len(mean) == len(std) == count:
        return None
    picked = order or range(count)
    return [mean[i] for i in picked], [std[i] for i in picked]
