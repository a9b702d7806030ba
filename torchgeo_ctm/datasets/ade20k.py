"""ADE20K: scenes of 150 classes, in the layout of the 2016 challenge."""

from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from ..files import expanded
from ..split import Split
from .archives import Archive, fetch
from .image_folder import ImageFolder, Sample

FOLDER = 'ADEChallengeData2016'
ARCHIVE = Archive(
    'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip', FOLDER
)


class ADE20K(ImageFolder):
    """ADE20K with 151 labels: 0 is "other", 1…150 are the challenge's classes.

    Their names are the first ones that the data set's own ``objectInfo150.txt`` gives
    each class. No masks were published for the challenge's test images: 'test' is the
    2,000 validation images, as 'val' is; 20,210 train.

    Zhou et al.: *Scene Parsing through ADE20K Dataset*, CVPR 2017.
    """

    def __init__(
        self,
        root: str | Path = 'data',
        split: Split = 'train',
        transforms: Callable[[Sample], Sample] | None = None,
        download: bool = False,
    ) -> None:
        """Initialize a new ADE20K instance.

        Args:
            root: Folder that holds ``ADEChallengeData2016`` or its zip.
            split: 'train', 'val' or 'test'.
            transforms: Applied to each sample.
            download: Download the zip if neither exists (0.9 GB).

        Raises:
            torchgeo.datasets.DatasetNotFoundError: If the data set is missing and
                *download* is False.
            DataError: If its files are not those of the challenge.
        """
        self.root, self.download = expanded(root), download
        fetch(self, self.root, [ARCHIVE], download)
        folder = self.root / FOLDER
        super().__init__(
            folder,
            split,
            classes=('other', *read_class_names(folder / 'objectInfo150.txt')),
            images='images/{split}/{name}.jpg',
            masks='annotations/{split}/{name}.png',
            splits={'train': 'training', 'val': 'validation', 'test': 'validation'},
            transforms=transforms,
        )


def read_class_names(path: Path) -> list[str]:
    """Return the first name of each class in ``objectInfo150.txt``.

    The file is a table with tabs, its header ends in ``Name``, and its rows are ordered
    by class; names are separated by commas (CSAILVision/sceneparsing).

    Raises:
        DataError: If the file is missing or not of that form.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'Cannot read {path}: {error}') from error
    rows = [line.split('\t') for line in lines if line.strip()]
    numbers = [row[0].strip() for row in rows[1:]]
    wanted = [str(number) for number in range(1, 151)]
    if not rows or rows[0][-1].strip() != 'Name' or numbers != wanted:
        raise DataError(
            f'{path} has {max(len(rows) - 1, 0)} rows, expected a header that ends in '
            'Name and 150 rows numbered from 1.'
        )
    return [row[-1].split(',')[0].strip() for row in rows[1:]]
