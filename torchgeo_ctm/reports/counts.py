"""Count the chips with each class, and the area that it covers."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelWarning

#: Chips from which on labels of a class are compared with masks, the share of a mask
#: that must have a class, and the share below which a class counts as missing there.
CLEAR, CLASSIFIED, LITTLE = 5, 0.9, 0.01


class LabelCounts:
    """Counts of image-level labels and of pixels in masks, updated chip by chip."""

    def __init__(self, classes: int) -> None:
        """Create empty counts.

        Args:
            classes: Number of classes C.
        """
        #: Chips; chips with a label; chips with a mask.
        self.chips = self.labeled = self.masked = 0
        #: Chips whose label has no class.
        self.empty = 0
        #: Chips in which presence is known, and in which a class is present, (C,).
        self.known = np.zeros(classes, np.int64)
        self.present = np.zeros(classes, np.int64)
        #: Masks of chips with a label of a class, and those that show none of it, (C,).
        self.compared = np.zeros(classes, np.int64)
        self.without = np.zeros(classes, np.int64)
        #: Pixels of masks: of each class (C,), and ignored ones.
        self.pixels = np.zeros(classes, np.int64)
        self.ignored = 0

    def update(
        self,
        label: NDArray[Any] | None = None,
        known: NDArray[np.bool_] | None = None,
        mask: NDArray[np.int64] | None = None,
    ) -> None:
        """Count a chip.

        Args:
            label: (C,), 1 where the class is present.
            known: Where presence or absence is known, (C,); None: everywhere.
            mask: Classes (H, W); values outside 0…C−1 are ignored.
        """
        self.chips += 1
        if label is not None:
            known = np.ones(len(label), bool) if known is None else known
            present = (label > 0) & known
            self.labeled += 1
            self.known += known
            self.present += present
            self.empty += not present.any()
        if mask is not None:
            classes = len(self.pixels)
            inside = (mask >= 0) & (mask < classes)
            self.masked += 1
            pixels = np.bincount(mask[inside], minlength=classes)
            self.pixels += pixels
            if label is not None and inside.mean() > CLASSIFIED:
                self.compared += present
                self.without += present & (pixels < LITTLE * mask.size)
            self.ignored += mask.size - int(inside.sum())

    def report(self, names: Sequence[str]) -> list[str]:
        """Return the counts as lines of text; none if no chip has a label or mask."""
        if not self.labeled and not self.masked:
            return []
        width = max(len('class'), *map(len, names))
        # only masks have an area
        heads = {'chip_share': 'of known'}
        heads |= {'area_share': 'of area'} if self.masked else {}
        titles = ''.join(f'{title:>10}' for title in ('chips', *heads.values()))
        lines = [f'{"class":<{width}}{titles}']
        for name, counts in self.content(names).items():
            shares = [_percent(counts[key]) for key in heads]
            lines.append(
                f'{name:<{width}}{counts["chips"]:>10}'
                + ''.join(f'{share:>10}' for share in shares)
            )
        lines.append(f'{self.empty} of {self.labeled} labeled chips have no class')
        if self.masked:
            area = max(1, int(self.pixels.sum()) + self.ignored)
            lines.append(f'{100 * self.ignored / area:.1f} % of the masks is ignored')
        return lines

    def content(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return counts and shares of each class; a share of nothing is None."""
        area = int(self.pixels.sum())
        return {
            name: {
                'chips': int(present),
                'chips_known': int(known),
                'chip_share': float(present / known) if known else None,
                'pixels': int(pixels),
                'area_share': float(pixels / area) if area else None,
            }
            for name, present, known, pixels in zip(
                names, self.present, self.known, self.pixels, strict=True
            )
        }

    def warn(self, names: Sequence[str]) -> None:
        """Warn about classes that cannot be learned from these labels."""
        if not self.labeled:
            return
        apart = (self.compared >= CLEAR) & (self.without > self.compared / 2)
        if apart.any():
            index = int(apart.argmax())
            warnings.warn(
                f'Labels and masks contradict each other: {names[index]} is in the labels '
                f'of {self.compared[index]} chips, but {self.without[index]} of their '
                'masks show hardly any. Values of masks are taken for the classes in order, '
                'unless labels.values says others.',
                LabelWarning,
                stacklevel=2,
            )
        chips = f'of {self.labeled} labeled chips'
        never = (self.present == 0) & (self.known > 0)
        everywhere = (self.present == self.labeled) & (self.known > 0)
        always = (self.present == self.known) & (self.known > 0)
        alike = 'They cannot be told from the others'
        if (always == (self.known > 0)).all():
            alike += (
                '. No class is absent in any chip, but training requires absent classes. '
                'Set complete: true if the labels name all classes in their area, or '
                'use labels of another kind'
            )
        elif ((self.present > 0) & ~always).any():
            alike = (
                'They can only be learned from the absence of other classes. Set '
                'patches: {compete: true}'
            )
        for which, says, why in (
            (self.known == 0, f'Known in none {chips}', 'Their labels are unknown'),
            (never, f'Present in none {chips}', 'They cannot be learned'),
            (everywhere, f'Present in all {chips}', alike),
            (always & ~everywhere, f'Present wherever known, in some {chips}', alike),
        ):
            found = [name for name, each in zip(names, which, strict=True) if each]
            if found:
                warnings.warn(
                    f'{says}: {"; ".join(found)}. {why}.', LabelWarning, stacklevel=2
                )


def _percent(share: float | None) -> str:
    """Format a share 0…1 as a percentage."""
    return '-' if share is None else f'{100 * share:.1f} %'
