"""EndoTect: polyps in the segmented images of Hyper-Kvasir."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import expanded
from ..split import Split
from .archives import Archive, fetch
from .image_folder import ImageFolder, Sample, open_image

FOLDER = 'segmented-images'
ARCHIVE = Archive(
    'https://datasets.simula.no/downloads/hyper-kvasir/'
    'hyper-kvasir-segmented-images.zip',
    FOLDER,
)


class EndoTect(ImageFolder):
    """The 1,000 segmented images of Hyper-Kvasir, EndoTect's training set; 2 classes.

    There is no official split: images are assigned by their names, 80 % to training and
    10 % each to validation and test. Masks are JPEGs, whose values compression has
    changed: a pixel of 128 or more is polyp. Every image shows a polyp, so image-level
    labels tell nothing; crops (``resize: null``) are with and without one.

    Borgli et al.: *HyperKvasir*, Scientific Data 2020; Hicks et al.: *The EndoTect 2020
    Challenge*, ICPR 2021.
    """

    def __init__(
        self,
        root: str | Path = 'data',
        split: Split = 'train',
        shares: Sequence[float] = (0.8, 0.1, 0.1),
        transforms: Callable[[Sample], Sample] | None = None,
        download: bool = False,
    ) -> None:
        """Initialize a new EndoTect instance.

        Args:
            root: Folder that holds ``segmented-images`` or its zip.
            split: 'train', 'val' or 'test'.
            shares: Shares of training, validation and test images.
            transforms: Applied to each sample.
            download: Download the zip if neither exists (46 MB).

        Raises:
            torchgeo.datasets.DatasetNotFoundError: If the data set is missing and
                *download* is False.
            DataError: If its files are not those of the data set.
        """
        self.root, self.download = expanded(root), download
        fetch(self, self.root, [ARCHIVE], download)
        super().__init__(
            self.root / FOLDER,
            split,
            classes=('background', 'polyp'),
            class_colors=('#000000', '#ffffff'),
            images='images/{name}.jpg',
            masks='masks/{name}.jpg',
            shares=shares,
            transforms=transforms,
        )

    def _mask_values(self, index: int) -> NDArray[np.int64] | None:
        """Return 1 where the mask (H, W) is closer to white than to black."""
        if self.masks is None:
            return None
        gray = open_image(self.masks[self.names[index]]).convert('L')
        return (np.asarray(gray) >= 128).astype(np.int64)
