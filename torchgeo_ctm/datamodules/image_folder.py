"""Data modules of images in folders."""

import warnings
from typing import Any

from torch import nn
from torchgeo.datamodules import NonGeoDataModule

from ..datasets import ADE20K, COCO, VOC2012, EndoTect, ImageFolder
from ..errors import LabelWarning, SettingError, did_you_mean
from ..grids import Grid
from ..split import Split
from .arguments import check_arguments, warn_of_unscaled
from .augment import FitChip, Resize, augmentation
from .chips import SPLITS_OF_STAGE
from .classes import match_task


class ImageFolderDataModule(NonGeoDataModule):
    """Images in folders, brought to chips of one size.

    Images keep their values of 0 to 255: the model scales them. A task without class
    names or colors takes those of the data set, so that its checkpoint holds them.
    """

    dataset_class: type[ImageFolder] = ImageFolder

    def __init__(
        self,
        batch_size: int = 16,
        num_workers: int = 0,
        img_size: int | tuple[int, int] = 224,
        resize: Resize | None = 'stretch',
        vertical_flip: bool = False,
        mix_tiles: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Initialize a new ImageFolderDataModule instance.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Chip size in pixels, side or (height, width).
            resize: 'stretch' resizes the whole image to the chip, so that image-level
                labels stay true; 'cover' keeps its proportions and crops what stands
                out; None crops without resizing. Crops are random in training and
                central otherwise.
            vertical_flip: Train on all orientations of a chip instead of flipping it
                left-right only: for images that have no up.
            mix_tiles: Probability, 0 to 1, that a training chip is mixed from several,
                see :class:`~torchgeo_ctm.datamodules.augment.MixTiles`: for data sets
                with one label an image.
            **kwargs: Arguments of the data set, such as ``root`` and ``classes``.

        Raises:
            SettingError: If *resize* is unknown, or *mix_tiles* is not 0 to 1.
        """
        super().__init__(self.dataset_class, batch_size, num_workers, **kwargs)
        if resize not in ('stretch', 'cover', None):
            raise SettingError(
                f"Unknown resize {resize!r}, expected 'stretch', 'cover' or null."
                + did_you_mean(str(resize), ('stretch', 'cover'))
            )
        side = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.img_size: tuple[int, int] = (side[0], side[1])
        self.resize: Resize | None = resize
        # TorchGeo would normalize here, but the model holds the scaling
        self.aug = nn.Identity()
        self.mix_tiles, self.upright = mix_tiles, not vertical_flip
        self.train_aug = augmentation(self.upright, mix_tiles)

    def prepare_data(self) -> None:
        """Download every split if asked to, in one process."""
        check_arguments(self.dataset_class, self.kwargs)
        if self.kwargs.get('download', False):
            for split in ('train', 'val', 'test'):
                self.dataset_class(split=split, **self.kwargs)

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If the task has another number or order of classes, a batch
                is larger than the training split, or the data set has no argument of
                this name.
        """
        check_arguments(self.dataset_class, self.kwargs)
        warn_of_unscaled(self.trainer, self)
        for split in SPLITS_OF_STAGE.get(stage, ()):
            images = self._open(split, train=split == 'train')
            setattr(self, f'{split}_dataset', images)
            self._match_task(images)
            if split == 'train':
                self.train_aug = augmentation(
                    self.upright, self.mix_tiles, len(images.classes)
                )
            if self.resize != 'stretch' and images.image_label(0) is not None:
                warnings.warn(
                    f'resize={self.resize!r} crops images whose labels describe the '
                    "whole image. Labels stay true with resize='stretch'.",
                    LabelWarning,
                    stacklevel=2,
                )
            if split == 'train' and len(images) < self.batch_size:
                raise SettingError(
                    f'batch_size={self.batch_size} is larger than the {len(images)} '
                    f'training images. Use batch_size={len(images)} or less.'
                )

    def _open(self, split: Split, train: bool) -> ImageFolder:
        """Open a split with its transform."""
        fit = FitChip(self.img_size, self.resize, train)
        return self.dataset_class(split=split, transforms=fit, **self.kwargs)

    def _match_task(self, images: ImageFolder) -> None:
        """Check the task's classes, and name them if they have no names."""
        match_task(
            self.trainer,
            images.root,
            images.classes,
            images.class_colors,
            self.mix_tiles > 0,
        )

    def chips(self, split: Split) -> ImageFolder:
        """Open a split for evaluation, in order."""
        images = self._open(split, train=False)
        self._match_task(images)
        return images

    def chip_place(self, split: ImageFolder, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip of :meth:`chips`; images have no grid."""
        return split.chip_name(index), None


class ADE20KDataModule(ImageFolderDataModule):
    """ADE20K: 20,210 images train, 2,000 validate and test."""

    dataset_class = ADE20K


class VOC2012DataModule(ImageFolderDataModule):
    """PASCAL VOC 2012: 1,464 images train, 1,449 validate and test."""

    dataset_class = VOC2012


class COCODataModule(ImageFolderDataModule):
    """COCO: 118,287 images train, 5,000 validate and test (2017)."""

    dataset_class = COCO


class EndoTectDataModule(ImageFolderDataModule):
    """Polyps of Hyper-Kvasir: about 800, 100 and 100 images."""

    dataset_class = EndoTect
