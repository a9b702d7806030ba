"""COCO: 80 classes of objects, from its instances JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingError
from ..grids import IGNORED
from ..split import Split
from .archives import Archive, fetch
from .coco_instances import paint_instances, read_instances
from .image_folder import ImageFolder, Sample
from .image_splits import check_split

ADDRESS = 'http://images.cocodataset.org'


class COCO(ImageFolder):
    """COCO's 80 classes, and background as class 0.

    ``label`` says what the annotations name, and background; the mask is painted from
    their polygons and run lengths. Neither needs pycocotools, as torchvision's
    ``CocoDetection`` does: polygons are filled by GDAL's rule of pixel centres, so that
    outlines differ from pycocotools' by a pixel at most. Images without an object are
    background. No annotations of the test images were published: 'test' is 'val'.

    Lin et al.: *Microsoft COCO: Common Objects in Context*, ECCV 2014.
    """

    def __init__(
        self,
        root: str | Path = 'data',
        split: Split = 'train',
        year: Literal[2014, 2017] = 2017,
        background: bool = True,
        transforms: Callable[[Sample], Sample] | None = None,
        download: bool = False,
    ) -> None:
        """Open one split.

        Args:
            root: Folder that holds ``annotations``, ``train2017`` and ``val2017``, or
                their zips.
            split: 'train', 'val' or 'test'.
            year: Which of COCO's two splits.
            background: Whether what belongs to no object is class 0; otherwise it is
                ignored, and the classes are the 80.
            transforms: Applied to each sample.
            download: Download the zips that are not there (19 GB train).

        Raises:
            torchgeo.datasets.DatasetNotFoundError: If the data set is not there and
                *download* is False.
            SettingError: If *split* or *year* is unknown.
            DataError: If its files are not those of COCO.
        """
        check_split(split)
        if year not in (2014, 2017):
            raise SettingError(f'year={year!r} is unknown; needed: 2014 or 2017')
        self.root, self.download = Path(root), download
        part = f'{"train" if split == "train" else "val"}{year}'
        path = f'annotations/instances_{part}.json'
        archives = [
            Archive(f'{ADDRESS}/annotations/annotations_trainval{year}.zip', path),
            Archive(f'{ADDRESS}/zips/{part}.zip', part),
        ]
        fetch(self, self.root, archives, download)
        self._json = self.root / path
        classes, self._annotated = read_instances(self._json)
        self._first = int(background)
        super().__init__(
            self.root,
            split,
            classes=('background', *classes) if background else classes,
            images='{split}/{name}.jpg',
            masks=None,
            splits={split: part},
            transforms=transforms,
        )

    def _listed(self, list_file: str | None) -> tuple[Path, list[str]] | None:
        """Return the JSON and the names of its images."""
        return self._json, list(self._annotated)

    def _mask_values(self, index: int) -> NDArray[np.int64] | None:
        """Return the classes (H, W) of an image's objects."""
        annotated = self._annotated[self.names[index]]
        return paint_instances(annotated, self._first, 0 if self._first else IGNORED)

    def image_label(self, index: int) -> Tensor | None:
        """Return the classes (C,) that the annotations name, and background."""
        label = torch.zeros(len(self.classes))
        label[: self._first] = 1
        for instance in self._annotated[self.names[index]].instances:
            label[self._first + instance.category] = 1
        return label
