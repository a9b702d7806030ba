"""Which of several settings to take, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from ..trainers.held_out import HeldOut

#: How often the held-out blocks are drawn anew.
DRAWS: Final = 1000
#: A choice is sure if so many of the draws agree, of so many blocks.
SURE: Final = 0.8
BLOCKS: Final = 8
#: Held-out presences of a class that settings can be compared by.
FEW: Final = 5
#: The setting to take if labels are too few to choose by. It was the best on real
#: ground then, and the criterion often named another (benchmarks/real_scene_choose.py).
FEW_LABELS: Final = 'few labels'
#: The setting to take if a class is in every label. Nothing then says what the class is
#: not, neither to the loss nor to the criterion (benchmarks/real_chip.py).
ALWAYS_PRESENT: Final = 'class always present'
#: Held-out presences from which a class without an absence is taken for one of these.
ALWAYS: Final = 20


class Choice(NamedTuple):
    """Settings compared by held-out labels.

    Attributes:
        settings: The settings by name, in the order given.
        seeds: Seeds of training.
        found: For each setting one result a seed.
        class_names: Names of the classes.
    """

    settings: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    found: Mapping[str, Sequence[HeldOut]]
    class_names: Sequence[str]

    def mean(self, name: str) -> float:
        """Return ``val_balanced_bce`` of a setting, averaged over the seeds."""
        values = [each.balanced_bce for each in self.found[name]]
        return sum(values) / len(values)

    @property
    def best(self) -> str:
        """Name of the setting with the lowest ``val_balanced_bce``."""
        return min(self.settings, key=self.mean)

    @property
    def thin(self) -> list[str]:
        """Classes with too few held-out presences to compare settings by."""
        counted = zip(self.class_names, self._labels()[0], strict=True)
        return [name for name, count in counted if count < FEW]

    @property
    def always(self) -> list[str]:
        """Classes that are in every label: of many held-out ones, and of training."""
        present, absent = self._labels()
        for each in self.found[self.best]:
            absent = absent + (0 if each.absences is None else each.absences)
        counted = zip(self.class_names, present, absent, strict=True)
        return [name for name, yes, no in counted if yes >= ALWAYS and not no]

    @property
    def everywhere(self) -> list[str]:
        """Classes that are in every held-out label, of many."""
        counted = zip(self.class_names, *self._labels(), strict=True)
        return [name for name, yes, no in counted if yes >= ALWAYS and not no]

    def _labels(self) -> Tensor:
        """Return the numbers of held-out presences and absences, (2, C)."""
        # seeds that hold out the same labels count once
        splits = {s.counts.numpy().tobytes(): s for s in self.found[self.best]}
        return torch.stack([s.counts.sum(dim=0) for s in splits.values()]).sum(dim=0)

    @property
    def taken(self) -> str:
        """Name of the setting to take: the best, unless labels cannot tell."""
        if self.always and ALWAYS_PRESENT in self.settings:
            return ALWAYS_PRESENT
        if self.thin and FEW_LABELS in self.settings:
            return FEW_LABELS
        return self.best

    def agreement(self) -> dict[str, float]:
        """Return in which share of random draws each setting is the best, 0 to 1.

        Each draw takes as many blocks of ground as a seed has, with replacement, the
        same for all settings; and for each setting as many seeds as there are.
        """
        random = torch.Generator().manual_seed(0)
        seeds = len(self.seeds)
        weights = [_weights(len(each.counts)) for each in self.found[self.best]]
        scores = []
        for results in self.found.values():
            pairs = zip(results, weights, strict=True)
            by_seed = torch.stack([each.drawn(weight) for each, weight in pairs])
            taken = torch.randint(seeds, (seeds, DRAWS), generator=random)
            scores.append(by_seed.gather(0, taken).mean(dim=0))
        won = torch.stack(scores).argmin(dim=0).bincount(minlength=len(scores))
        return dict(zip(self.found, (won / DRAWS).tolist(), strict=True))

    def report(self) -> list[str]:
        """Return the comparison as lines of text: a table, and which to take."""
        names = [*self.settings]
        texts = _texts([*self.settings.values()])
        wide, wider = (max(map(len, column)) + 2 for column in (names, texts))
        heads = [*(f'seed {seed}' for seed in self.seeds), 'mean']
        lines = [
            'val_balanced_bce of each setting, lower is better:',
            ' ' * (wide + wider) + ''.join(f'{head:>9}' for head in heads),
        ]
        for name, text in zip(names, texts, strict=True):
            values = [each.balanced_bce for each in self.found[name]]
            numbers = ''.join(f'{value:9.3f}' for value in [*values, self.mean(name)])
            lines.append(f'{name:<{wide}}{text:<{wider}}{numbers}')
        return lines + self._verdict()

    def _verdict(self) -> list[str]:
        """Return which setting to take, and how sure that is."""
        best, agreement = self.best, self.agreement()
        chips = ' + '.join(str(each.chips) for each in self.found[best])
        blocks = [len(each.counts) for each in self.found[best]]
        line = (
            f'{best!r} is the best in {agreement[best]:.0%} of {DRAWS} random draws of '
            f'{chips} held-out chips ({" + ".join(map(str, blocks))} blocks of ground).'
        )
        lines, doubts = [line], []
        if self.thin:
            doubts.append(
                f'fewer than {FEW} held-out presences of {", ".join(self.thin)}'
            )
        if self.everywhere:
            doubts.append(f'{", ".join(self.everywhere)} in every held-out label')
        if sum(blocks) < BLOCKS:
            doubts.append(f'fewer than {BLOCKS} blocks')
        if agreement[best] < SURE:
            others = [name for name in self.settings if name != best]
            second = max(others, key=lambda name: agreement[name])
            doubts.append(f'{second!r} is the best in {agreement[second]:.0%}')
        if doubts:
            lines.append(
                f'That is not sure: {"; ".join(doubts)}. Hold out more labels, or '
                'compare more seeds.'
            )
        why = ''
        if self.taken == ALWAYS_PRESENT and self.always:
            why = ', in which classes compete: labels do not say what these are not'
        elif self.taken != best:
            why = ', which was the best on real ground with few labels'
        return [*lines, f'Take {self.taken!r}{why}.']


def _weights(blocks: int) -> Tensor:
    """Draw how often each block counts, (draws, blocks)."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(blocks, (DRAWS, blocks), generator=random)
    weights = torch.zeros(DRAWS, blocks, dtype=torch.float64)
    return weights.scatter_add_(1, drawn, torch.ones_like(weights))


def _options(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return a setting as options without groups, as ``share`` and ``balance``."""
    options: dict[str, Any] = {}
    for name, value in setting.items():
        options |= value if isinstance(value, Mapping) else {name: value}
    return options


def _texts(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options in which settings differ, as ``share=0.25 balance=0.5``."""
    every = [_options(setting) for setting in settings]
    return [
        ' '.join(
            f'{key}={value}'
            for key, value in options.items()
            if value and any(other.get(key) != value for other in every)
        )
        for options in every
    ]
