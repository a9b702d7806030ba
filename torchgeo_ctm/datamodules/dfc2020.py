"""Data module of DFC2020."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn
from torchgeo.datamodules import NonGeoDataModule

from ..datasets import DFC2020
from ..errors import SettingError, TileCountWarning
from ..grids import Grid
from ..split import Split
from .arguments import check_arguments, warn_of_unscaled
from .augment import FitChip, augmentation
from .chips import SPLITS_OF_STAGE


class DFC2020DataModule(NonGeoDataModule):
    """Chips of DFC2020's 256 px tiles, in the splits of a protocol.

    Images keep the data set's units: the model scales them.
    """

    dataset_class: type[DFC2020] = DFC2020
    #: Side of a pixel in meters.
    pixel_size = 10.0

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        img_size: int = 224,
        protocol: Literal['A', 'B', 'C'] = 'A',
        bands: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize a new DFC2020DataModule instance.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Side of a chip in pixels, at most the tile's 256: a random crop
                in training, the center otherwise (paper: 224).
            protocol: Which tiles to train, validate and test on: 'A' Copernicus-Bench's
                3,156, 986 and 986; 'B' 789 and 197 of the contest's "validation" tiles
                and its 5,128 "test" tiles; 'C' the paper's: the 5,128 "test" tiles,
                the 986 "validation" tiles, and these again. See
                :func:`~torchgeo_ctm.datasets.dfc2020.tile_names`.
            bands: Names of the bands to read, in the model's order; None: Sentinel-2's
                13. VV and VH are Sentinel-1's, in decibels.
            **kwargs: Arguments of :class:`~torchgeo_ctm.datasets.DFC2020`, such as
                ``root`` and ``download``.

        Raises:
            SettingError: If the data set has no such protocol.
        """
        if self.dataset_class.tile_counts:
            kwargs['protocol'] = protocol
        elif protocol != 'A':
            raise SettingError(
                f'protocol={protocol!r} applies to DFC2020 only, '
                f'{self.dataset_class.__name__} has no protocols.'
            )
        super().__init__(
            self.dataset_class, batch_size, num_workers, bands=bands, **kwargs
        )
        self.img_size = img_size
        self.protocol = protocol
        # TorchGeo would normalize here, but the model holds the scaling
        self.aug = nn.Identity()
        self.train_aug = augmentation()

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If the data set has no argument of this name.
        """
        check_arguments(self.dataset_class, self.kwargs)
        warn_of_unscaled(self.trainer, self)
        for split in SPLITS_OF_STAGE.get(stage, ()):
            setattr(self, f'{split}_dataset', self._open(split, split == 'train'))

    def chips(self, split: Split) -> DFC2020:
        """Open a split for evaluation: the center of every tile, in order."""
        return self._open(split, train=False)

    def _open(self, split: Split, train: bool) -> DFC2020:
        """Open a split, and warn if it has more or fewer tiles than its protocol."""
        fit = FitChip((self.img_size, self.img_size), train=train)
        dataset = self.dataset_class(split=split, transforms=fit, **self.kwargs)
        expected = self.dataset_class.tile_counts.get(self.protocol, {}).get(split)
        if expected not in (None, len(dataset)):
            warnings.warn(
                f'{dataset.root} has {len(dataset):,} tiles for split {split}, protocol '
                f'{self.protocol} has {expected:,}: scores are not comparable with '
                "the protocol's.",
                TileCountWarning,
                stacklevel=3,
            )
        return dataset

    def chip_place(self, split: DFC2020, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip of :meth:`chips`, and its grid if it has one."""
        return split.chip_name(index), split.chip_grid(index, self.img_size)
