"""Data module of DFC2020."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchgeo.datamodules import NonGeoDataModule
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..datasets import DFC2020
from ..windows import Grid


class CropAndFlip:
    """Crop a sample's image and mask alike; turn them over in training.

    Nadir imagery has no up, so both flips are as likely as none.
    """

    def __init__(self, size: int, train: bool) -> None:
        """Create the transform.

        Args:
            size: Side of the crop in pixels.
            train: Crop at random and flip, instead of cropping the centre.
        """
        steps: list[nn.Module] = [v2.CenterCrop(size)]
        if train:
            steps = [
                v2.RandomCrop(size),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
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
    """DFC2020 in Copernicus-Bench's split (3,156 / 986 / 986 tiles of 256 px).

    Images keep their own numbers: scaling belongs to the model.
    """

    #: The data set that the splits are opened with.
    tiles: ClassVar[type[DFC2020]] = DFC2020

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        img_size: int = 224,
        **kwargs: Any,
    ) -> None:
        """Initialise the data module.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Side of a chip in pixels, at most the tile's 256: a random crop
                in training, the centre otherwise (paper: 224).
            **kwargs: Arguments of :class:`~torchgeo_ctm.datasets.DFC2020`, such as
                ``root`` and ``download``.
        """
        super().__init__(self.tiles, batch_size, num_workers, **kwargs)
        self.img_size = img_size
        # TorchGeo would normalise here; our scaling belongs to the model
        self.aug = nn.Identity()

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs, each with its crop.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.
        """
        splits = {'fit': ('train', 'val'), 'validate': ('val',), 'test': ('test',)}
        for split in splits.get(stage, ()):
            crop = CropAndFlip(self.img_size, train=split == 'train')
            dataset = self.tiles(split=split, transforms=crop, **self.kwargs)
            setattr(self, f'{split}_dataset', dataset)

    def chips(self, split: Literal['train', 'val', 'test']) -> DFC2020:
        """Open a split as evaluation sees it: the middle of every tile, in order."""
        crop = CropAndFlip(self.img_size, train=False)
        return self.tiles(split=split, transforms=crop, **self.kwargs)

    def chip_place(self, split: DFC2020, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip of :meth:`chips`, and its grid if it has one."""
        return split.chip_name(index), split.chip_grid(index, self.img_size)
