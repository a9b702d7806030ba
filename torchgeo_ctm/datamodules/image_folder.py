"""Data modules of images in folders."""

import warnings
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchgeo.datamodules import NonGeoDataModule
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ..datasets import ADE20K, COCO, VOC2012, EndoTect, ImageFolder
from ..errors import LabelWarning, SettingError, nearest
from ..grids import Grid
from ..split import Split

Resize = Literal['stretch', 'cover']

STAGES: dict[str, tuple[Split, ...]] = {
    'fit': ('train', 'val'),
    'validate': ('val',),
    'test': ('test',),
}


class FitChip:
    """Bring a sample's image and mask to the size of a chip; flip them in training.

    Images are resized bilinearly, masks by the nearest pixel.
    """

    def __init__(
        self,
        size: tuple[int, int],
        resize: Resize | None,
        train: bool,
        vertical_flip: bool = False,
    ) -> None:
        """Create the transform.

        Args:
            size: Height and width of the chip in pixels.
            resize: 'stretch' the whole image to the chip; let it 'cover' the chip, its
                proportions kept, and crop; or None, crop without resizing. What is
                smaller than the chip is padded: black, and 255 in the mask.
            train: Crop at random and flip, instead of cropping the centre.
            vertical_flip: Flip upside down too, for imagery that has no up.
        """
        self.size = size
        self.resize = resize
        crop = v2.RandomCrop(size) if train else v2.CenterCrop(size)
        steps: list[nn.Module] = [crop]
        if train:
            steps.append(v2.RandomHorizontalFlip())
        if train and vertical_flip:
            steps.append(v2.RandomVerticalFlip())
        self.transform = v2.Compose(steps)

    def __call__(self, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sample with ``image``, and ``mask`` if it has one, fitted."""
        parts: dict[str, Tensor] = {'image': tv_tensors.Image(sample['image'])}
        if 'mask' in sample:
            parts['mask'] = tv_tensors.Mask(sample['mask'])
        height, width = sample['image'].shape[-2:]
        size = self._resized(height, width)
        if size != (height, width):
            parts = {
                k: F.resize(v, list(size), antialias=True) for k, v in parts.items()
            }
        parts = {
            k: self._padded(v, 255 if k == 'mask' else 0) for k, v in parts.items()
        }
        fitted = self.transform(parts)
        plain = torch.Tensor
        return sample | {key: part.as_subclass(plain) for key, part in fitted.items()}

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to resize an image to before the crop."""
        if self.resize is None:
            return height, width
        if self.resize == 'stretch':
            return self.size
        scale = max(self.size[0] / height, self.size[1] / width)
        return (
            max(self.size[0], round(height * scale)),
            max(self.size[1], round(width * scale)),
        )

    def _padded(self, part: Tensor, fill: int) -> Tensor:
        """Pad what is smaller than the chip, alike on opposite sides."""
        missing = [
            max(0, s - p) for s, p in zip(self.size, part.shape[-2:], strict=True)
        ]
        if not any(missing):
            return part
        top, left = missing[0] // 2, missing[1] // 2
        sides = [left, top, missing[1] - left, missing[0] - top]
        padded: Tensor = F.pad(part, sides, fill=fill)
        return padded


class ImageFolderDataModule(NonGeoDataModule):
    """Images in folders, brought to chips of one size.

    Images keep their own numbers, 0…255: scaling belongs to the model. A task that has
    no names or colours of its classes gets those of the data set, so that its
    checkpoint holds them.
    """

    #: The data set that the splits are opened with.
    tiles: ClassVar[type[ImageFolder]] = ImageFolder

    def __init__(
        self,
        batch_size: int = 16,
        num_workers: int = 0,
        img_size: int | tuple[int, int] = 224,
        resize: Resize | None = 'stretch',
        vertical_flip: bool = False,
        **kwargs: Any,
    ) -> None:
        """Initialise the data module.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Chip size in pixels, side or (height, width).
            resize: 'stretch' brings the whole image to the chip, so that labels of
                images stay true; 'cover' keeps its proportions and crops what stands
                out; None crops without resizing. Crops are drawn at random in
                training, and are the centre otherwise.
            vertical_flip: Flip upside down in training too; for imagery that has no up.
            **kwargs: Arguments of the data set, such as ``root`` and ``classes``.

        Raises:
            SettingError: If *resize* is unknown.
        """
        super().__init__(self.tiles, batch_size, num_workers, **kwargs)
        if resize not in ('stretch', 'cover', None):
            raise SettingError(
                f"resize={resize!r} is unknown; needed: 'stretch', 'cover' or null"
                + nearest(str(resize), ('stretch', 'cover'))
            )
        side = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.img_size: tuple[int, int] = (side[0], side[1])
        self.resize: Resize | None = resize
        self.vertical_flip = vertical_flip
        # TorchGeo would normalise here; our scaling belongs to the model
        self.aug = nn.Identity()

    def prepare_data(self) -> None:
        """Download every split if asked to, in one process."""
        if self.kwargs.get('download', False):
            for split in ('train', 'val', 'test'):
                self.tiles(split=split, **self.kwargs)

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs, each with its transform.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If the task has another number or order of classes, or a batch
                is larger than the training split.
        """
        for split in STAGES.get(stage, ()):
            images = self._open(split, train=split == 'train')
            setattr(self, f'{split}_dataset', images)
            self._introduce(images)
            if self.resize != 'stretch' and images.image_label(0) is not None:
                warnings.warn(
                    f'resize={self.resize!r} crops images whose labels are for the '
                    "whole image; labels stay true with resize='stretch'",
                    LabelWarning,
                    stacklevel=2,
                )
            if split == 'train' and len(images) < self.batch_size:
                raise SettingError(
                    f'batch_size={self.batch_size} is more than the {len(images)} '
                    f'training images; nearest: {len(images)}'
                )

    def _open(self, split: Split, train: bool) -> ImageFolder:
        """Open a split with its transform."""
        fit = FitChip(self.img_size, self.resize, train, train and self.vertical_flip)
        images = self.tiles(split=split, transforms=fit, **self.kwargs)
        return images

    def _introduce(self, images: ImageFolder) -> None:
        """Hold the task's classes against the data set's; name them if it has none."""
        task = getattr(self.trainer, 'lightning_module', None)
        hparams = getattr(task, 'hparams', {})
        count = hparams.get('num_classes', len(images.classes))
        if count != len(images.classes):
            raise SettingError(
                f'num_classes={count}, but {images.root} has {len(images.classes)} '
                f'classes; nearest: num_classes={len(images.classes)}'
            )
        names = list(hparams.get('class_names') or images.classes)
        if names != list(images.classes) and set(names) == set(images.classes):
            raise SettingError(
                'class_names has the classes of the data set in another order; needed: '
                + ', '.join(images.classes)
            )
        if task is not None and hasattr(task, 'name_classes'):
            task.name_classes(images.classes, images.class_colors)

    def chips(self, split: Split) -> ImageFolder:
        """Open a split as evaluation sees it, in order."""
        images = self._open(split, train=False)
        self._introduce(images)
        return images

    def chip_place(self, split: ImageFolder, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip of :meth:`chips`, and that it has no grid."""
        return split.chip_name(index), None


class ADE20KDataModule(ImageFolderDataModule):
    """ADE20K: 20,210 images train, 2,000 validate and test."""

    tiles = ADE20K


class VOC2012DataModule(ImageFolderDataModule):
    """PASCAL VOC 2012: 1,464 images train, 1,449 validate and test."""

    tiles = VOC2012


class COCODataModule(ImageFolderDataModule):
    """COCO: 118,287 images train, 5,000 validate and test (2017)."""

    tiles = COCO


class EndoTectDataModule(ImageFolderDataModule):
    """Polyps of Hyper-Kvasir: about 800, 100 and 100 images."""

    tiles = EndoTect
