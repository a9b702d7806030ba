"""Data module of DFC2020."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchgeo.datamodules import NonGeoDataModule
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..datasets import DFC2020
from ..errors import SettingError, TileCountWarning
from ..grids import Grid
from ..split import Split


class CropAndFlip:
    """Crop a sample's image and mask alike; flip and turn them in training.

    Nadir imagery has no up, so all eight ways to lay a chip are as likely.
    """

    def __init__(self, size: int, train: bool) -> None:
        """Create the transform.

        Args:
            size: Side of the crop in pixels.
            train: Crop at random, flip and turn, instead of cropping the centre.
        """
        steps: list[nn.Module] = [v2.CenterCrop(size)]
        if train:
            steps = [
                v2.RandomCrop(size),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomApply([v2.RandomRotation((90, 90))], p=0.5),
            ]
        self.transform = v2.Compose(steps)

    def __call__(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sample with ``image`` and ``mask`` cropped."""
        image, mask = self.transform(
            tv_tensors.Image(sample['image']), tv_tensors.Mask(sample['mask'])
        )
        plain = torch.Tensor
        return sample | {
            'image': image.as_subclass(plain),
            'mask': mask.as_subclass(plain),
        }


class DFC2020DataModule(NonGeoDataModule):
    """DFC2020 tile by tile, of 256 px, in the splits of a protocol.

    Images keep their own numbers: scaling belongs to the model.
    """

    #: The data set that the splits are opened with.
    tiles: ClassVar[type[DFC2020]] = DFC2020

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        img_size: int = 224,
        protocol: Literal['A', 'B', 'C'] = 'A',
        bands: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialise the data module.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Side of a chip in pixels, at most the tile's 256: a random crop
                in training, the centre otherwise (paper: 224).
            protocol: Which tiles to train, validate and test on: 'A' Copernicus-Bench's
                3,156, 986 and 986; 'B' 789 and 197 of the contest's "validation" tiles
                and its 5,128 "test" tiles; 'C' the paper's: the 5,128 "test" tiles,
                the 986 "validation" tiles, and these again. See
                :func:`~torchgeo_ctm.datasets.dfc2020_layout.tile_names`.
            bands: Names of the bands to read, in the model's order; None: Sentinel-2's
                13. VV and VH are Sentinel-1's, in decibels.
            **kwargs: Arguments of :class:`~torchgeo_ctm.datasets.DFC2020`, such as
                ``root`` and ``download``.

        Raises:
            SettingError: If a protocol is asked for where there is none.
        """
        if self.tiles.tile_counts:
            kwargs['protocol'] = protocol
        elif protocol != 'A':
            raise SettingError(
                f'protocol={protocol!r} is of DFC2020, {self.tiles.__name__} has none'
            )
        super().__init__(self.tiles, batch_size, num_workers, bands=bands, **kwargs)
        self.img_size = img_size
        self.protocol = protocol
        # TorchGeo would normalise here; our scaling belongs to the model
        self.aug = nn.Identity()

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs, each with its crop.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.
        """
        splits: dict[str, tuple[Split, ...]] = {
            'fit': ('train', 'val'),
            'validate': ('val',),
            'test': ('test',),
        }
        for split in splits.get(stage, ()):
            setattr(self, f'{split}_dataset', self._open(split, split == 'train'))

    def chips(self, split: Split) -> DFC2020:
        """Open a split as evaluation sees it: the middle of every tile, in order."""
        return self._open(split, train=False)

    def _open(self, split: Split, train: bool) -> DFC2020:
        """Open a split; warn where it has not the tiles that its protocol has."""
        crop = CropAndFlip(self.img_size, train=train)
        dataset = self.tiles(split=split, transforms=crop, **self.kwargs)
        expected = self.tiles.tile_counts.get(self.protocol, {}).get(split)
        if expected not in (None, len(dataset)):
            warnings.warn(
                f'{dataset.root} has {len(dataset):,} tiles for split {split}, protocol '
                f'{self.protocol} has {expected:,}: scores are not those of the protocol',
                TileCountWarning,
                stacklevel=3,
            )
        return dataset

    def chip_place(self, split: DFC2020, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip of :meth:`chips`, and its grid if it has one."""
        return split.chip_name(index), split.chip_grid(index, self.img_size)
