"""Split scenes with labels into training, validation and test."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import LabelError, LabelWarning, SettingError
from ..grids import Window, common_pixel_size
from ..labels import ImageLabel
from ..labels.checks import label_needs
from ..split import Split
from .blocks import (
    SPLITS,
    Block,
    BlockSplits,
    GroundBlocks,
    assign_blocks,
    check_shares,
    cover,
    split_of,
)
from .labeled_scene import LabeledScene, LabeledWindows
from .neighborhoods import WindowDraws

#: Block sizes that an error may suggest, as multiples of the window.
SUGGESTED = (1.5, 2, 2.5, 3, 4, 6, 8)


class LabeledWindow(NamedTuple):
    """A window that holds data and has a label."""

    scene: int
    window: Window
    label: ImageLabel


class SceneSplits:
    """Scenes with labels, split into training, validation and test.

    The Earth is divided into blocks (:mod:`~torchgeo_ctm.samplers.blocks`), and each
    block belongs to one split. A window belongs to a split if all blocks that it
    touches do, so windows of two splits never overlap on the ground, whatever scenes
    they come from. The shares hold for windows with labels, side by side in a scene.

    The same scenes, labels, window, block size and seed give the same splits.
    """

    def __init__(
        self,
        scenes: Sequence[LabeledScene],
        block_size: int | None = None,
        shares: Sequence[float] = (0.6, 0.2, 0.2),
        seed: int = 0,
        fixed: Mapping[int, Split] | None = None,
        small_scenes_whole: bool = False,
    ) -> None:
        """Split the scenes.

        Args:
            scenes: The scenes.
            block_size: Side of a block in pixels (of the coarsest scene), at least one
                window; None: four windows.
            shares: Shares of train, val and test, which sum to 1.
            seed: Seed of the split and of the draws.
            fixed: Scenes, by number, that serve one split alone; the other scenes do
                not show their ground for another one.
            small_scenes_whole: Do not cut scenes of less than two by two windows: each
                serves the split of the block of its center, whole.

        Raises:
            SettingError: If a number is out of range, or a split gets no window.
            LabelError: If no window has a label.
        """
        self.scenes = list(scenes)
        self.seed = seed
        self.fixed = dict(fixed or {})
        self.window = scenes[0].scene.window
        self._whole = 2 * self.window if small_scenes_whole else 0
        self.shares = self._shares(shares)
        size = 4 * self.window if block_size is None else block_size
        if size < self.window:
            raise SettingError(
                f'block_size={size} px is smaller than a window of {self.window} px. Did '
                f'you mean {2 * self.window}?'
            )
        self._known = self._find_labeled()
        self.blocks, self.owners = self._cut(size)
        self._by_split = self._sort(self.blocks, self.owners)
        self._check(size)

    def _shares(self, shares: Sequence[float]) -> list[float]:
        """Return the shares of the blocks that no scene is fixed for."""
        check_shares(shares)
        if self.fixed and set(self.fixed) == set(range(len(self.scenes))):
            raise SettingError(
                'val_scene and test_scene hold every scene, expected at least one to '
                'train on.'
            )
        taken = {SPLITS.index(split) for split in self.fixed.values()}
        left = [0 if i in taken else float(share) for i, share in enumerate(shares)]
        return [share / sum(left) for share in left]

    @property
    def pixel_size(self) -> float | None:
        """Side of the scenes' pixels in meters, if known and alike."""
        return common_pixel_size(each.scene.grid for each in self.scenes)

    def _find_labeled(self) -> list[LabeledWindow]:
        """Return the windows side by side that have labels; warn about the others."""
        known, counts = [], Counter[str]()
        for number, scene in enumerate(self.scenes):
            for window in scene.tiling():
                counts['all'] += 1
                if not scene.holds_data(window):
                    counts['empty'] += 1
                    continue
                label = scene.label(window)
                if label is None:
                    counts['unlabeled'] += 1
                    continue
                known.append(LabeledWindow(number, window, label))
        if not known:
            raise LabelError(
                f'None of {counts["all"]} windows of {len(self.scenes)} scenes has a '
                f'label ({counts["empty"]} have hardly any valid pixels). Check that '
                'labels and scenes cover the same area, and that '
                f'{label_needs(self.scenes[0].labels, self.window)}.'
            )
        if counts['unlabeled']:
            warnings.warn(
                f'{counts["unlabeled"]} of {counts["all"]} windows side by side have '
                f'no label, {counts["empty"]} hardly any valid pixels. Both are left out.',
                LabelWarning,
                stacklevel=4,
            )
        return known

    def _cut(self, size: int) -> tuple[GroundBlocks, BlockSplits]:
        """Return blocks of *size* px, and the split of each."""
        blocks = GroundBlocks([scene.grid for scene in self.scenes], size, self._whole)
        owners: dict[Block, Split | None] = {}
        tiles: Counter[Block] = Counter()
        for number, scene in enumerate(self.scenes):
            split = self.fixed.get(number)
            for touched in blocks.touched(number, cover(scene.grid, self.window)):
                for block in touched:
                    if split is None:
                        tiles[block] += 1
                    elif owners.setdefault(block, split) != split:
                        owners[block] = None
        inside = self._inside(blocks)
        # blocks with labels come first, so that each split gets its share of them
        for with_labels in (True, False):
            weights = {
                block: float(inside[block] or tiles[block])
                for block in tiles
                if block not in owners and (block in inside) is with_labels
            }
            owners |= assign_blocks(weights, self.shares, self.seed)
        return blocks, owners

    def _inside(self, blocks: GroundBlocks) -> Counter[Block]:
        """Count the windows with labels that lie in one block alone."""
        return Counter(
            next(iter(touched))
            for known, touched in self._touched(blocks)
            if len(touched) == 1 and known.scene not in self.fixed
        )

    def _touched(
        self, blocks: GroundBlocks
    ) -> list[tuple[LabeledWindow, frozenset[Block]]]:
        """Return the windows with labels, each with the blocks that it touches."""
        of_scene: defaultdict[int, list[LabeledWindow]] = defaultdict(list)
        for known in self._known:
            of_scene[known.scene].append(known)
        return [
            pair
            for number, windows in of_scene.items()
            for pair in zip(
                windows,
                blocks.touched(number, [known.window for known in windows]),
                strict=True,
            )
        ]

    def _sort(
        self, blocks: GroundBlocks, owners: BlockSplits
    ) -> dict[Split, list[LabeledWindow]]:
        """Return the windows with labels of each split."""
        sorted_: dict[Split, list[LabeledWindow]] = {split: [] for split in SPLITS}
        for known, touched in self._touched(blocks):
            split = split_of(touched, owners)
            if split is not None and self._serves(known.scene, split):
                sorted_[split].append(known)
        return sorted_

    def _serves(self, scene: int, split: Split) -> bool:
        """Return whether windows of a scene may be in a split."""
        if scene in self.fixed:
            return self.fixed[scene] == split
        return split not in self.fixed.values()

    def _required(self) -> list[Split]:
        """Return the splits that must have windows."""
        dealt = [s for s, share in zip(SPLITS, self.shares, strict=True) if share > 0]
        return dealt + [split for split in SPLITS if split in self.fixed.values()]

    def _check(self, size: int) -> None:
        """Check that no split is without windows."""
        empty = [split for split in self._required() if not self._by_split[split]]
        if not empty:
            return
        usable = len(self.labeled_blocks)
        raise SettingError(
            f'block_size={size} px leaves no labeled window to {", ".join(empty)}: '
            f'{usable} blocks have labeled windows, expected {len(self._required())} or '
            f'more.{self._suggestion(size)}'
        )

    def _suggestion(self, size: int) -> str:
        """Return the nearest block size that leaves no split empty, as a hint."""
        others = {round(factor * self.window) for factor in SUGGESTED} - {size}
        for other in sorted(others, key=lambda side: abs(side - size)):
            sorted_ = self._sort(*self._cut(other))
            if all(sorted_[split] for split in self._required()):
                return f' Did you mean block_size={other}?'
        return (
            ' No block size is small enough: pass more labels, or whole scenes as '
            'val_scene and test_scene.'
        )

    @property
    def labeled_blocks(self) -> set[Block]:
        """Blocks that hold a window with a label."""
        return set(self._inside(self.blocks))

    def allowed(self, split: Split, scene: int, window: Window) -> bool:
        """Return whether a window of a scene belongs to a split."""
        if not self._serves(scene, split):
            return False
        [touched] = self.blocks.touched(scene, [window])
        return split_of(touched, self.owners) == split

    def windows(self, split: Split) -> LabeledWindows:
        """Return the labeled windows of a split, side by side."""
        return LabeledWindows(
            self.scenes,
            [
                (known.scene, known.window, known.label)
                for known in self._by_split[split]
            ],
        )

    def draws(self, group: int = 8, alike: bool = False) -> WindowDraws:
        """Return the sampler of training windows.

        Args:
            group: Number of windows drawn from one neighborhood.
            alike: Draw labeled areas alike, of whatever size.
        """
        scenes = [
            scene for n, scene in enumerate(self.scenes) if self._serves(n, 'train')
        ]
        numbers = [n for n in range(len(self.scenes)) if self._serves(n, 'train')]
        return WindowDraws(
            scenes,
            lambda number, window: self.allowed('train', numbers[number], window),
            self.seed,
            group,
            alike,
        )
