"""PASCAL VOC 2012: 20 classes and background, through torchvision's reader."""

from collections.abc import Callable
from pathlib import Path

from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ..errors import DataError
from ..files import expanded
from ..split import Split, check_split
from .archives import Archive, fetch
from .image_folder import ImageFolder, Sample

CLASSES = (
    'background',
    'aeroplane',
    'bicycle',
    'bird',
    'boat',
    'bottle',
    'bus',
    'car',
    'cat',
    'chair',
    'cow',
    'diningtable',
    'dog',
    'horse',
    'motorbike',
    'person',
    'pottedplant',
    'sheep',
    'sofa',
    'train',
    'tvmonitor',
)
#: The devkit's name of a split: masks of its own test set were never published.
IMAGE_SETS = {'train': 'train', 'val': 'val', 'test': 'val'}


class VOC2012(ImageFolder):
    """PASCAL VOC 2012's segmentation: 1,464 images train, 1,449 validate.

    :class:`torchvision.datasets.VOCSegmentation` provides the address, layout and
    lists. A mask's palette indices are the classes, and 255, the outline of objects, is
    ignored. No masks of the test images were published: 'test' is 'val'.
    """

    def __init__(
        self,
        root: str | Path = 'data',
        split: Split = 'train',
        transforms: Callable[[Sample], Sample] | None = None,
        download: bool = False,
    ) -> None:
        """Initialize a new VOC2012 instance.

        Args:
            root: Folder that holds ``VOCdevkit/VOC2012`` or its tar.
            split: 'train', 'val' or 'test'.
            transforms: Applied to each sample.
            download: Download the tar if neither exists (2 GB).

        Raises:
            torchgeo.datasets.DatasetNotFoundError: If the data set is missing and
                *download* is False.
            DataError: If its files are not those of the devkit.
        """
        check_split(split)
        self.root, self.download = expanded(root), download
        published = DATASET_YEAR_DICT['2012']
        folder = Path(published['base_dir'])
        archive = Archive(published['url'], folder.as_posix(), published['md5'])
        fetch(self, self.root, [archive], download)
        try:
            self._reader = VOCSegmentation(self.root, '2012', IMAGE_SETS[split])
        except OSError as error:
            raise DataError(
                f'{self.root / folder} is not the devkit of VOC 2012: {error}. Remove '
                'it and unpack the published archive again.'
            ) from error
        super().__init__(
            self.root,
            split,
            classes=CLASSES,
            images=f'{folder.as_posix()}/JPEGImages/{{name}}.jpg',
            masks=f'{folder.as_posix()}/SegmentationClass/{{name}}.png',
            transforms=transforms,
        )

    def _listed(self, list_file: str | None) -> tuple[Path, list[str]] | None:
        """Return the devkit's list of the split, as read by torchvision."""
        names = [Path(image).stem for image in self._reader.images]
        return Path('ImageSets/Segmentation', f'{IMAGE_SETS[self.split]}.txt'), names
