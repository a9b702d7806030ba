"""How many chips hold each class, and how much of their area it covers."""

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelWarning


class LabelCounts:
    """Counts of labels and of classes in masks, streamed chip by chip.

    Law: merging the counts of two halves gives those of the whole.
    """

    def __init__(self, classes: int) -> None:
        """Create empty counts of so many classes C."""
        #: How many chips; how many with a label or a mask.
        self.chips = self.labelled = self.masked = 0
        #: How many chips whose label has no class.
        self.empty = 0
        #: How many chips say whether a class is present, and how many have it, (C,).
        self.known = np.zeros(classes, np.int64)
        self.present = np.zeros(classes, np.int64)
        #: Pixels of masks: of each class (C,), and those that are ignored.
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
            mask: Classes (H, W); what is outside 0…C−1 is ignored.
        """
        self.chips += 1
        if label is not None:
            known = np.ones(len(label), bool) if known is None else known
            present = (label > 0) & known
            self.labelled += 1
            self.known += known
            self.present += present
            self.empty += not present.any()
        if mask is not None:
            classes = len(self.pixels)
            inside = (mask >= 0) & (mask < classes)
            self.masked += 1
            self.pixels += np.bincount(mask[inside], minlength=classes)
            self.ignored += mask.size - int(inside.sum())

    def merge(self, other: Self) -> None:
        """Add the counts of other chips."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def report(self, names: Sequence[str]) -> list[str]:
        """Return the counts as lines to read; none where nothing was labelled."""
        if not self.labelled and not self.masked:
            return []
        width = max(len('class'), *map(len, names))
        # areas are those of masks, which labels come without
        heads = {'chip_share': 'of known'}
        heads |= {'area_share': 'of area'} if self.masked else {}
        titles = ''.join(f'{title:>10}' for title in ('chips', *heads.values()))
        lines = [f'{"class":<{width}}{titles}']
        for name, counts in self.content(names).items():
            shares = [_per_cent(counts[key]) for key in heads]
            lines.append(
                f'{name:<{width}}{counts["chips"]:>10}'
                + ''.join(f'{share:>10}' for share in shares)
            )
        lines.append(f'{self.empty} of {self.labelled} labelled chips have no class')
        if self.masked:
            area = max(1, int(self.pixels.sum()) + self.ignored)
            lines.append(f'{100 * self.ignored / area:.1f} % of the masks is ignored')
        return lines

    def content(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return each class's counts and shares, None for a share of nothing."""
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
        """Warn of classes that nothing can be learnt about from these labels."""
        if not self.labelled:
            return
        chips = f'of {self.labelled} labelled chips'
        never = (self.present == 0) & (self.known > 0)
        everywhere = (self.present == self.labelled) & (self.known > 0)
        always = (self.present == self.known) & (self.known > 0)
        alike = 'nothing tells them from the others'
        if (always == (self.known > 0)).all():
            alike += (
                '; no chip says that a class is absent, which training needs too: '
                'complete: true where labels name all classes of their ground, or '
                'labels of another kind'
            )
        elif ((self.present > 0) & ~always).any():
            alike = (
                "only the others' absence tells them apart, which model_options: "
                '{patch_activation: softmax} learns from'
            )
        for which, says, why in (
            (self.known == 0, f'known in none {chips}', 'nothing is known of them'),
            (never, f'present in none {chips}', 'there is nothing to learn them from'),
            (everywhere, f'present in all {chips}', alike),
            (always & ~everywhere, f'present wherever known, in some {chips}', alike),
        ):
            found = [name for name, each in zip(names, which, strict=True) if each]
            if found:
                warnings.warn(
                    f'{says}: {"; ".join(found)}: {why}', LabelWarning, stacklevel=2
                )


def _per_cent(share: float | None) -> str:
    """Return a share 0…1 in per cent, as text."""
    return '-' if share is None else f'{100 * share:.1f} %'
