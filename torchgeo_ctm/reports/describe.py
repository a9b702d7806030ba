"""Describe the data of a configuration: bands, CRS, chips and labels, and a plot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..configuration import check_rest
from ..datamodules.chips import ChipDataModule
from ..errors import CTMError
from ..lightning_messages import quiet_lightning
from ..plots import LabeledChip, label_figure
from ..split import Split
from ..trainers import ClassTokenMaskingTask
from .chips import Chip, ConfiguredSplit
from .counts import LabelCounts

#: Chips in the plot.
EXAMPLES = 10
#: Scenes that are named.
NAMED = 5


class Description(NamedTuple):
    """Description of the data of a configuration."""

    task: ClassTokenMaskingTask
    data_set: str
    #: Number of chips of each split, or the reason why it has none.
    splits: dict[str, int | str]
    #: The split that was read, and the number of chips read.
    split: Split
    read: int
    #: Number of chips of each CRS, and of each size (bands, height, width).
    crs: Counter[str | None]
    sizes: Counter[tuple[int, ...]]
    #: Chips without a valid pixel.
    without_data: int
    labels: LabelCounts
    examples: list[Chip]


def describe(
    config: str | Path,
    *,
    split: Split = 'train',
    limit: int | None = None,
    nodata: float | None = None,
    progress: bool = True,
) -> Description:
    """Read the chips of a split and describe them.

    Args:
        config: Configuration of ``torchgeo``.
        split: 'train', 'val' or 'test'.
        limit: Maximum number of chips to read, evenly spread over the split; None: all.
        nodata: Nodata value of the data set; pixels that have it in all bands are invalid.
        progress: Show a progress bar.

    Raises:
        CTMError: If the configuration, or the data, cannot be used.
    """
    quiet_lightning()
    check_rest(config)
    chips = ConfiguredSplit(config, split, limit, nodata)
    labels = LabelCounts(len(chips.task.class_names))
    crs: Counter[str | None] = Counter()
    sizes: Counter[tuple[int, ...]] = Counter()
    without_data = 0
    count = min(EXAMPLES, len(chips))
    wanted = {chips.chosen[index * len(chips) // count] for index in range(count)}
    each = -(-EXAMPLES // len(labels.present))
    candidates = []
    for chip in chips.chips(progress, with_crs=True):
        present = _present(chip, len(labels.present))
        rare = present & (labels.present < each)
        labels.update(chip.label, chip.known, chip.mask)
        crs[chip.crs] += 1
        sizes[chip.image.shape] += 1
        without_data += not chip.valid.any()
        if chip.number in wanted or rare.any():
            candidates.append(chip)
    if len(chips) == chips.total:
        # some chips alone do not tell what is missing
        labels.warn(chips.task.class_names)
    return Description(
        chips.task,
        _data_set(chips.data),
        _splits(chips),
        split,
        len(chips),
        crs,
        sizes,
        without_data,
        labels,
        _examples(
            sorted(candidates, key=lambda chip: chip.number not in wanted), count
        ),
    )


def _present(chip: Chip, classes: int) -> NDArray[np.bool_]:
    """Return which classes a chip is known to show, (C,)."""
    if chip.label is None:
        return np.zeros(classes, bool)
    return (chip.label > 0) & (True if chip.known is None else chip.known)


def _examples(candidates: Sequence[Chip], count: int) -> list[Chip]:
    """Return chips in order, so that each class occurs as often as possible.

    Each is the first candidate with the class that the chips before it show least.
    """
    classes = 0 if candidates[0].label is None else len(candidates[0].label)
    shown = np.zeros(classes, np.int64)
    rest = [*candidates]
    taken: list[Chip] = []
    while len(taken) < count:
        present = np.array([_present(chip, classes) for chip in rest])
        left = np.where(present.any(axis=0), shown, np.iinfo(np.int64).max)
        best = int(present[:, left.argmin()].argmax()) if classes else 0
        shown += present[best]
        taken.append(rest.pop(best))
    return sorted(taken, key=lambda chip: chip.number)


def _data_set(data: ChipDataModule) -> str:
    """Return the names of the scenes, or the name of the data set."""
    scenes = getattr(data.data, 'scenes', None)
    if not scenes:
        return data.dataset_name
    more = [f'and {len(scenes) - NAMED} more'] if len(scenes) > NAMED else []
    names = [PurePath(str(scene)).name for scene in scenes[:NAMED]]
    return f'{_counted(len(scenes), "scene")}: {", ".join([*names, *more])}'


def _counted(count: int, thing: str) -> str:
    """Format a number of things."""
    return f'{count} {thing}{"s" * (count != 1)}'


def _splits(chips: ConfiguredSplit) -> dict[str, int | str]:
    """Return the number of chips of each split, or why it cannot be opened."""
    found: dict[str, int | str] = {}
    splits: tuple[Split, ...] = ('train', 'val', 'test')
    for split in splits:
        try:
            found[split] = chips.count(split)
        except CTMError as error:
            found[split] = f'none: {error}'
    return found


def report(described: Description) -> list[str]:
    """Return a description as lines of text."""
    task = described.task
    lines = [
        ('data set', described.data_set),
        ('bands', f'{len(task.bands)}: {", ".join(task.bands)}'),
        *((f'{split} chips', str(count)) for split, count in described.splits.items()),
        ('read', f'{described.read} chips of the {described.split} split'),
    ]
    for size, count in described.sizes.most_common():
        shape = ' × '.join(map(str, size[1:]))
        lines.append(('size', f'{size[0]} bands, {shape} px: {count} chips'))
    for crs, count in described.crs.most_common():
        lines.append(('CRS', f'{crs or "unknown"}: {count} chips'))
    lines.append(('no data', f'{described.without_data} chips'))
    width = max(len(name) for name, _ in lines)
    words = [f'{name:<{width}}  {value}' for name, value in lines]
    if not described.labels.labeled:
        return [*words, 'no labels']
    return words + described.labels.report(task.class_names)


def picture(described: Description) -> Figure:
    """Plot the example chips with their labels."""
    chips = [
        LabeledChip(
            f'{described.split} {chip.number}',
            np.where(chip.valid, chip.image, np.float32(np.nan)),
            chip.label,
            chip.known,
            chip.mask,
        )
        for chip in described.examples
    ]
    task = described.task
    return label_figure(chips, task.class_names, task.class_colors, task.bands)
