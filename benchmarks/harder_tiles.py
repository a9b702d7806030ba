"""SyntheticLandCover as it is harder to learn from: one condition at a time.

Training tiles and, for clouds, all others are changed by what their number alone
decides, so every row of a table sees the same ones.
"""

from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from torchgeo_ctm.datamodules import SyntheticDataModule
from torchgeo_ctm.datasets import DFC2020, SyntheticLandCover
from torchgeo_ctm.grids import Window
from torchgeo_ctm.labels import presence_from_mask

Condition = Literal[
    'plain', 'wrong labels', 'unbalanced', 'together', 'clouds', 'real traits'
]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

CLASSES = len(DFC2020.classes)
MIN_SHARE = 0.1
#: Of the image labels' classes, how many are taken for another one.
WRONG = 0.2
#: Of the training tiles with a rare class, how many are kept.
KEPT = 0.15
RARE = ('Wetlands', 'Urban/Built-up')
#: Training tiles hold both of these, or neither.
COUPLE = ('Water', 'Wetlands')
#: Share of a tile under clouds, on average, and how far they blur, in pixels.
CLOUDED, SOFTNESS = 0.25, 8.0
#: Reflectance × 10,000 of a cloud, in bands B01 … B12.
CLOUD = (
    5200, 5000, 4900, 5000, 5100, 5200, 5300, 5200, 5300, 2400, 300, 3600, 2900,
)  # fmt: skip
IGNORED = 255


class HarderTiles(SyntheticLandCover):
    """Tiles under one condition, with ``label`` (C,) as it would be given.

    * wrong labels: a fifth of the classes in training labels are other ones;
    * unbalanced: few training tiles hold Wetlands or Urban;
    * together: no training tile holds Water without Wetlands, nor the other way;
    * clouds: a quarter of the pixels of every split are clouds; they count for image
      labels, but not for scores;
    * real traits: tiles drawn with ``traits='real'``.
    """

    def __init__(self, *arguments: Any, condition: Condition, **options: Any) -> None:
        """Open a split; see :class:`~torchgeo_ctm.datasets.SyntheticLandCover`."""
        super().__init__(*arguments, **options, **drawn(condition))
        self.condition = condition
        self.kept = list(range(super().__len__()))
        if self.split == 'train':
            self.kept = [index for index in self.kept if self._keeps(index)]

    def __len__(self) -> int:
        """Return the number of tiles."""
        # asked for before tiles are chosen, too
        return len(self.kept) if hasattr(self, 'kept') else super().__len__()

    def _random(self, index: int) -> np.random.Generator:
        """Return what decides how a tile is changed."""
        split = ('train', 'val', 'test').index(self.split)
        return np.random.default_rng(
            (CONDITIONS.index(self.condition) + 1, split, index)
        )

    def _present(self, index: int) -> NDArray[np.bool_]:
        """Return which classes a tile holds (C,)."""
        mask = super().read(index)['mask']
        present: NDArray[np.bool_] = (
            presence_from_mask(mask[None], CLASSES, MIN_SHARE)[0].bool().numpy()
        )
        return present

    def _keeps(self, index: int) -> bool:
        """Say whether a training tile is kept."""
        if self.condition == 'unbalanced':
            rare = [DFC2020.classes.index(name) for name in RARE]
            spared = self._random(index).random() < KEPT
            return bool(spared or not self._present(index)[rare].any())
        if self.condition == 'together':
            both = [DFC2020.classes.index(name) for name in COUPLE]
            first, second = self._present(index)[both].tolist()
            return bool(first == second)
        return True

    def read(self, index: int, window: Window | None = None) -> dict[str, Tensor]:
        """Return ``image``, ``mask`` and ``label`` of a tile."""
        index = self.kept[index]
        sample: dict[str, Tensor] = super().read(index, window)
        label = self._present(index)
        if self.condition == 'wrong labels' and self.split == 'train':
            label = mistaken(label, self._random(index))
        if self.condition == 'clouds':
            cover = clouds(sample['mask'].shape, self._random(index))
            sample = sample | clouded(sample['image'], sample['mask'], cover)
        return sample | {'label': torch.from_numpy(label.astype(np.float32))}


def drawn(condition: Condition) -> dict[str, Any]:
    """Return the arguments of the tiles of a condition."""
    return {'traits': 'real'} if condition == 'real traits' else {}


def mistaken(present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Take present classes (C,) for absent ones, each with probability 0.2."""
    label = present.copy()
    for index in np.flatnonzero(present):
        absent = np.flatnonzero(~label & ~present)
        if rng.random() < WRONG and len(absent):
            label[index] = False
            label[rng.choice(absent)] = True
    return label


def clouds(shape: Any, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw how much of each pixel (H, W) a cloud hides, 0…1."""
    field = gaussian_filter(rng.standard_normal(shape), SOFTNESS, mode='wrap')
    # from a threshold on, and quickly: clouds have edges
    low = np.quantile(field, 1 - CLOUDED)
    hidden: NDArray[np.float32] = ((field - low) / (0.3 * field.std())).clip(0, 1)
    return hidden.astype(np.float32)


def clouded(
    image: Tensor, mask: Tensor, cover: NDArray[np.float32]
) -> dict[str, Tensor]:
    """Return an image under clouds, and its mask without what they hide."""
    hidden = torch.from_numpy(cover)
    white = torch.tensor(CLOUD, dtype=image.dtype)[:, None, None]
    seen = mask.masked_fill(hidden > 0, IGNORED)
    return {'image': image * (1 - hidden) + white * hidden, 'mask': seen}


class HarderDataModule(SyntheticDataModule):
    """Synthetic tiles under a condition; ``condition`` is one of the arguments."""

    dataset_class: type[Any] = HarderTiles

    def prepare_data(self) -> None:
        """Make the tiles, once."""
        kept = {k: v for k, v in self.kwargs.items() if k != 'condition'}
        SyntheticLandCover(split='train', **kept, **drawn(self.kwargs['condition']))
