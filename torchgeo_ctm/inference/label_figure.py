"""A picture of chips with their image-level labels."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..plots import add_legend, draw_mask, rgb_indices, stretch

COLUMNS = 5

#: Classes that are named below a chip, and letters of each name.
NAMED, LETTERS = 5, 26


class LabelledChip(NamedTuple):
    """A chip to draw."""

    title: str
    #: (bands, H, W), NaN where there is no data.
    image: NDArray[np.float32]
    #: (C,), 1 where the class is present; None: no label.
    label: NDArray[Any] | None
    #: Where presence or absence is known, (C,); None: everywhere.
    known: NDArray[np.bool_] | None
    #: Classes (H, W), 255 ignored; None: no mask.
    mask: NDArray[np.int64] | None


def label_figure(
    chips: Sequence[LabelledChip],
    class_names: Sequence[str],
    class_colors: Sequence[str],
    bands: Sequence[str],
) -> Figure:
    """Draw chips five a row, their classes in words; where there are masks, below.

    Args:
        chips: The chips.
        class_names: One name per class.
        class_colors: One colour per class.
        bands: Names of the bands; see :func:`~.figures.rgb_indices`.
    """
    masks = [chip.mask for chip in chips if chip.mask is not None]
    each = 2 if masks else 1
    rows = -(-len(chips) // COLUMNS) * each
    figure = Figure(figsize=(2.6 * COLUMNS, 3.2 * rows), layout='constrained')
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for number, chip in enumerate(chips):
        row, column = number // COLUMNS * each, number % COLUMNS
        axis = axes[row, column]
        rgb = chip.image[rgb_indices(bands)]
        seen = np.isfinite(rgb).all(axis=0)
        axis.imshow(np.dstack([stretch(rgb), seen]).astype(np.float32))
        axis.set_title(chip.title)
        axis.set_xlabel(_words(chip, class_names), fontsize='small')
        if chip.mask is not None:
            shown = chip.mask.astype(np.uint8)
            draw_mask(axes[row + 1, column], shown, class_names, class_colors)
    if masks:
        drawn = np.concatenate([mask.ravel() for mask in masks]).astype(np.uint8)
        add_legend(figure, drawn, class_names, class_colors)
    return figure


def _words(chip: LabelledChip, class_names: Sequence[str]) -> str:
    """Return the classes of a chip, one a line."""
    if chip.label is None:
        return 'no label'
    known = np.ones(len(class_names), bool) if chip.known is None else chip.known
    names = [
        shorten(name, LETTERS, placeholder=' …')
        for name, present in zip(class_names, (chip.label > 0) & known, strict=True)
        if present
    ]
    more = [f'and {len(names) - NAMED} more'] if len(names) > NAMED else []
    unknown = int((~known).sum())
    more += [f'{unknown} unknown'] if unknown else []
    return '\n'.join([*names[:NAMED], *more]) or 'no class'
