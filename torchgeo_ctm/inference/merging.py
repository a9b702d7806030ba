"""Merge classes, when a scene is mapped or afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import SettingError, did_you_mean
from ..legends import rejoined

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Merging:
    """The classes of a map, made from those of the model.

    Attributes:
        names: Name of each class of the map.
        colors: Color of each class of the map: that of its first member.
        members: Indexes of the model's classes that each of them consists of.
    """

    names: list[str]
    colors: list[str]
    members: list[list[int]]

    @property
    def count(self) -> int:
        """Number of classes of the model."""
        return sum(map(len, self.members))

    def scores(self, scores: 'Tensor') -> 'Tensor':
        """Return the scores (N, …) of the map's classes from the model's (C, …).

        The score of a merged class is the largest of its members, so that a class that
        the labels divide into many is not drawn larger than the others.
        """
        if len(self.members) == len(scores):
            return scores
        import torch

        return torch.stack([scores[group].amax(dim=0) for group in self.members])


def merging(
    merge: Sequence[str] | None, names: Sequence[str], colors: Sequence[str]
) -> Merging:
    """Return the classes of a map.

    Args:
        merge: Merged classes as ``'A+B=NAME'``; each takes the place and the color of
            the first of A and B in the order of the model.
        names: Names of the model's classes.
        colors: Their colors.

    Raises:
        SettingError: If an entry has another form, names an unknown class, or a class
            appears twice.
    """
    groups: dict[int, tuple[str, list[int]]] = {}
    used: set[int] = set()
    for entry in rejoined([merge] if isinstance(merge, str) else merge or ()):
        left, _, name = entry.rpartition('=')
        parts = [part.strip() for part in left.split('+')]
        if not name.strip() or not all(parts):
            raise SettingError(
                f"Cannot read merge {entry!r}, expected 'A+B=NAME', where A and B are "
                f'classes of: {", ".join(names)}.'
            )
        members = sorted(_index(part, names) for part in parts)
        for index in members:
            if index in used or members.count(index) > 1:
                raise SettingError(
                    f'Class {names[index]!r} appears twice in merge, expected once.'
                )
        used |= set(members)
        groups[members[0]] = (name.strip(), members)
    whole = [
        groups.get(index, (name, [index]))
        for index, name in enumerate(names)
        if index in groups or index not in used
    ]
    found = [name for name, _ in whole]
    for name in found:
        if merge and found.count(name) > 1:
            raise SettingError(
                f'Two classes would be named {name!r} by merge. Choose another name, or '
                f'merge {name!r} too.'
            )
    return Merging(
        found, [colors[group[0]] for _, group in whole], [g for _, g in whole]
    )


def _index(name: str, names: Sequence[str]) -> int:
    """Return the index of a class."""
    if name not in names:
        raise SettingError(
            f'Unknown class {name!r} in merge, expected some of: {", ".join(names)}.'
            + did_you_mean(name, names)
        )
    return list(names).index(name)
