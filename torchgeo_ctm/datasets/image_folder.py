"""Images with masks, or image-level labels: any folder of them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..errors import DataError, LabelWarning, SettingError
from ..grids import IGNORED
from ..split import Split
from .image_files import find_images, read_image, read_mask
from .image_labels import label_of, read_image_labels
from .image_splits import check_listed, check_split, drawn_split, read_list
from .mask_classes import MaskClasses, pascal_colors

#: How many masks are looked at for 0 and 255 where 0 and 1 are needed.
LOOKED_AT = 8

Sample = dict[str, Tensor]


class ImageFolder(NonGeoDataset):
    """RGB images and their masks, or image-level labels, found by patterns.

    A sample holds ``image`` float32 (3, H, W) in 0…255 and, where the data set has
    them, ``mask`` int64 (H, W), classes 0…C−1 with 255 ignored, and ``label`` float32
    (C,), 1 where the class is present. The mask is for scoring, and for deriving
    image-level labels where there is no ``label``; no loss sees it.
    """

    def __init__(
        self,
        root: str | Path = 'data',
        split: Split = 'train',
        classes: Sequence[str] = (),
        class_colors: Sequence[str] | None = None,
        images: str = '{split}/images/{name}.*',
        masks: str | None = '{split}/masks/{name}.*',
        labels: str | None = None,
        list_file: str | None = None,
        shares: Sequence[float] | None = None,
        splits: Mapping[str, str] | None = None,
        mask_values: Mapping[int, str | None] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        """Find the images of one split.

        Which images belong to it is said by ``{split}`` in *images*, by *list_file*, or
        by *shares*.

        Args:
            root: Folder of the data set; all patterns start there.
            split: 'train', 'val' or 'test'.
            classes: Names of the C classes; a mask holds their positions.
            class_colors: One ``#rrggbb`` per class; None: PASCAL VOC's.
            images: Pattern of the image files: ``{split}``, ``{name}``, and ``*`` for
                any part of a name.
            masks: Pattern of the masks; a mask has the ``{name}`` of its image. None:
                there are none.
            labels: CSV of image-level labels, in which ``{split}`` may occur; see
                :func:`~torchgeo_ctm.datasets.image_labels.read_image_labels`.
            list_file: File with one ``{name}`` a line, such as ``lists/{split}.txt``.
            shares: Shares of training, validation and test images, as (0.8, 0.1, 0.1):
                each image is drawn by its name, so that it stays in its split when
                others come or go.
            splits: What ``{split}`` becomes where that is not 'train', 'val' or 'test',
                as {'val': 'validation'}.
            mask_values: Name of the class, or None for ignored, of each value in the
                masks, as {0: 'background', 255: 'polyp'}; None: a value is the class's
                position and 255 is ignored.
            transforms: Applied to each sample.

        Raises:
            SettingError: If the arguments contradict each other.
            DataError: If a folder or list is missing, or no image is left.
            LabelError: If the table of labels cannot be used.
        """
        check_split(split)
        self.root = Path(root)
        self.split = split
        self.transforms = transforms
        self._mask_classes = MaskClasses(classes, mask_values)
        self.classes = self._mask_classes.classes
        self.class_colors = tuple(class_colors or pascal_colors(len(classes)))
        if len(self.class_colors) != len(classes):
            raise SettingError(
                f'class_colors has {len(self.class_colors)} entries, {len(classes)} '
                f'classes need {len(classes)}'
            )
        self._folder = (splits or {}).get(split, split)
        self.images = self._find_images(images, list_file, shares)
        self.masks = self._find_masks(masks)
        self.labels = self._read_labels(labels)
        self.names = list(self.images)
        if not self.names:
            raise DataError(
                f'no image of split {split!r} is in {self.root}; needed: files like '
                f'{self._here(images)}'
            )
        if mask_values is None and self.masks is not None:
            self._look_for_255()

    def _here(self, pattern: str) -> str:
        """Return a pattern with this split's name in it."""
        return pattern.replace('{split}', self._folder)

    def _find_images(
        self, pattern: str, list_file: str | None, shares: Sequence[float] | None
    ) -> dict[str, Path]:
        """Find the split's images, in the order of the list or of their names."""
        found = find_images(self.root, self._here(pattern))
        listed = self._listed(list_file)
        if listed is not None:
            where, names = listed
            check_listed(names, found, str(where))
            return {name: found[name] for name in names}
        if shares is not None:
            return {
                n: p for n, p in found.items() if drawn_split(n, shares) == self.split
            }
        if '{split}' not in pattern:
            raise SettingError(
                f'images={pattern!r} is the same for every split; needed: {{split}} in '
                'it, or list_file, or shares such as [0.8, 0.1, 0.1]'
            )
        return found

    def _listed(self, list_file: str | None) -> tuple[Path, list[str]] | None:
        """Return the list of the split and the names in it, None without a list."""
        if list_file is None:
            return None
        path = self.root / self._here(list_file)
        return path, read_list(path)

    def _find_masks(self, pattern: str | None) -> dict[str, Path] | None:
        """Find the masks; leave images without one out, and say how many."""
        if pattern is None:
            return None
        pattern = self._here(pattern)
        found = find_images(self.root, pattern)
        self._keep([name for name in self.images if name in found], 'mask', pattern)
        return {name: found[name] for name in self.images}

    def _read_labels(self, file: str | None) -> dict[str, Tensor] | None:
        """Read the image-level labels; leave images without one out."""
        if file is None:
            return None
        path = self.root / self._here(file)
        table = read_image_labels(path, self.classes)
        labels = {}
        for name, image in self.images.items():
            label = label_of(table, image, name)
            if label is not None:
                labels[name] = label
        self._keep(list(labels), 'label', str(path))
        return labels

    def _keep(self, names: Sequence[str], what: str, where: str) -> None:
        """Keep these images; count and name the others."""
        kept = set(names)
        lost = [name for name in self.images if name not in kept]
        if not lost:
            return
        first = ', '.join(lost[:3]) + (', …' if len(lost) > 3 else '')
        warnings.warn(
            f'{len(lost)} of {len(self.images)} images of split {self.split!r} in '
            f'{self.root} have no {what} ({where}) and are left out: {first}',
            LabelWarning,
            stacklevel=4,
        )
        self.images = {name: self.images[name] for name in names}

    def _look_for_255(self) -> None:
        """Warn where masks hold 0 and 255 alone: 255 would be ignored."""
        step = -(-len(self.names) // LOOKED_AT)
        held: set[int] = set()
        for index in range(0, len(self.names), step):
            values = self._mask_values(index)
            held |= set() if values is None else set(np.unique(values).tolist())
        if held == {0, IGNORED}:
            meant = {0: self.classes[0], IGNORED: self.classes[-1]}
            warnings.warn(
                f'the masks of {self.root} hold 0 and 255 alone, and 255 is ignored; '
                f'if it stands for a class: mask_values={meant}',
                LabelWarning,
                stacklevel=3,
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample of one image: ``image``, and ``mask`` and ``label``.

        Raises:
            DataError: If a file is damaged, the mask has another size than its image,
                or holds values that stand for no class.
        """
        sample = {'image': read_image(self.images[self.names[index]])}
        values = self._mask_values(index)
        if values is not None:
            height, width = sample['image'].shape[-2:]
            if values.shape != (height, width):
                raise DataError(
                    f'{self._mask_name(index)} has {values.shape[0]} × '
                    f'{values.shape[1]} px, its image {height} × {width} px; needed: '
                    'one size'
                )
            sample['mask'] = self._mask_classes(values, self._mask_name(index))
        label = self.image_label(index)
        if label is not None:
            sample['label'] = label
        return sample if self.transforms is None else self.transforms(sample)

    def _mask_values(self, index: int) -> NDArray[np.int64] | None:
        """Return the values of a mask (H, W) as stored, None without masks."""
        if self.masks is None:
            return None
        return read_mask(self.masks[self.names[index]])

    def _mask_name(self, index: int) -> str:
        """Return what to call a mask in a message."""
        name = self.names[index]
        return str(self.masks[name]) if self.masks is not None else f'mask of {name}'

    def image_label(self, index: int) -> Tensor | None:
        """Return the image-level label (C,), None without labels."""
        return None if self.labels is None else self.labels[self.names[index]].clone()

    def chip_name(self, index: int) -> str:
        """Return the name of an image; folders in it are joined by ``_``."""
        return self.names[index].replace('/', '_')
