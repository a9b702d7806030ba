"""COCO: 80 classes of objects, from its instances JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, SettingError
from ..files import expanded
from ..grids import IGNORED
from ..split import Split, check_split
from .archives import Archive, fetch
from .image_folder import ImageFolder, Sample, Values

ADDRESS = 'http://images.cocodataset.org'
#: Keys of each entry in a part of the JSON.
KEYS = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'segmentation'),
}


class COCO(ImageFolder):
    """COCO's 80 classes, and background as class 0.

    ``label`` holds the classes of the annotations, and background; ``mask`` is painted
    from their polygons and run lengths by pycocotools. Images without an object are
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
        """Initialize a new COCO instance.

        Args:
            root: Folder that holds ``annotations``, ``train2017`` and ``val2017``, or
                their zips.
            split: 'train', 'val' or 'test'.
            year: Year of COCO's split.
            background: Whether pixels of no object are class 0; otherwise they are
                ignored, and the classes are the 80.
            transforms: Applied to each sample.
            download: Download missing zips (19 GB for training).

        Raises:
            torchgeo.datasets.DatasetNotFoundError: If the data set is missing and
                *download* is False.
            SettingError: If *split* or *year* is unknown, or pycocotools is missing.
            DataError: If its files are not those of COCO.
        """
        check_split(split)
        if year not in (2014, 2017):
            raise SettingError(f'Unknown year {year!r}, expected 2014 or 2017.')
        _pycocotools()
        self.root, self.download = expanded(root), download
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

    def _mask_values(self, index: int) -> Values | None:
        """Return the classes (H, W) of an image's objects."""
        annotated = self._annotated[self.names[index]]
        return paint_instances(annotated, self._first, 0 if self._first else IGNORED)

    def image_label(self, index: int) -> Tensor | None:
        """Return the classes (C,) of the annotations, and background."""
        label = torch.zeros(len(self.classes))
        label[: self._first] = 1
        for instance in self._annotated[self.names[index]].instances:
            label[self._first + instance.category] = 1
        return label


class Instance(NamedTuple):
    """One object of an image, or a crowd of them."""

    category: int
    crowd: bool
    area: float
    #: Polygons, each (2n,) float32: x, y in pixels from the image's corner. Or run
    #: lengths, outside and inside in turn, down the columns, int64. Arrays: lists of
    #: numbers would take eight times the memory.
    outline: list[NDArray[np.float32]] | NDArray[np.int64]


class Annotated(NamedTuple):
    """One image of the JSON."""

    file_name: str
    height: int
    width: int
    instances: list[Instance]


def read_instances(path: Path) -> tuple[tuple[str, ...], dict[str, Annotated]]:
    """Read an instances JSON (cocodataset.org, *Data format*, object detection).

    Categories are ordered by their ids, which have gaps. Polygons and uncompressed run
    lengths are read, which is what COCO publishes; compressed run lengths are not.

    Args:
        path: The JSON.

    Returns:
        Names of the classes, and the images by their names without suffix.

    Raises:
        DataError: If the file cannot be read, or an annotation is malformed.
    """
    content = _load(path)
    categories = sorted(content['categories'], key=lambda entry: int(entry['id']))
    index = {entry['id']: number for number, entry in enumerate(categories)}
    images = {
        entry['id']: Annotated(
            entry['file_name'], int(entry['height']), int(entry['width']), []
        )
        for entry in content['images']
    }
    for entry in content['annotations']:
        where = f'{path}, annotation {entry["id"]}'
        image = images.get(entry['image_id'])
        if image is None or entry['category_id'] not in index:
            raise DataError(
                f'{where}: its image {entry["image_id"]} or category '
                f'{entry["category_id"]} is not in the file.'
            )
        instance = Instance(
            index[entry['category_id']],
            bool(entry.get('iscrowd', 0)),
            float(entry.get('area', 0)),
            _outline(entry['segmentation'], image, where),
        )
        image.instances.append(instance)
    names = tuple(str(entry['name']) for entry in categories)
    return names, {i.file_name.rpartition('.')[0]: i for i in images.values()}


def _load(path: Path) -> dict[str, Any]:
    """Return the content of the JSON, in which every entry has the expected keys.

    Raises:
        DataError: If it cannot be read, or a key is missing.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'Cannot read {path} as JSON: {error}') from error
    for part, keys in KEYS.items():
        if not isinstance(content, dict) or part not in content:
            raise DataError(
                f'{path} is not an instances JSON of COCO: it has no {part}, expected '
                f'{", ".join(KEYS)}.'
            )
        for number, entry in enumerate(content[part]):
            missing = [key for key in keys if key not in entry]
            if missing:
                raise DataError(
                    f'{path} is not an instances JSON of COCO: entry {number} of {part} '
                    f'has no {", ".join(missing)}.'
                )
    return content


def _outline(
    shape: Any, image: Annotated, where: str
) -> list[NDArray[np.float32]] | NDArray[np.int64]:
    """Return the polygons or run lengths of an annotation, checked.

    pycocotools reads beyond its memory where they are malformed.
    """
    if isinstance(shape, dict) and isinstance(shape.get('counts'), list):
        runs = np.asarray(shape['counts'], np.int64)
        if runs.min(initial=0) < 0 or runs.sum() != image.height * image.width:
            raise DataError(
                f'{where}: its runs cover {runs.sum()} px, image {image.file_name} has '
                f'{image.height} × {image.width}.'
            )
        return runs
    if not isinstance(shape, list):
        raise DataError(
            f'{where}: its segmentation is neither polygons nor uncompressed runs.'
        )
    if any(len(part) < 6 or len(part) % 2 for part in shape):
        raise DataError(f'{where}: a polygon has fewer than three corners.')
    return [np.asarray(part, np.float32) for part in shape]


def paint_instances(image: Annotated, first_class: int, background: int) -> Values:
    """Paint the objects of an image as a mask of classes (H, W).

    Crowds come first, then objects from large to small, so that a small object stays
    visible on a large one.

    Args:
        image: The image with its objects.
        first_class: Class of the first category.
        background: Value of every other pixel.
    """
    tools = _pycocotools()
    size = image.height, image.width
    mask = np.full(size, background, np.int64)
    for one in sorted(image.instances, key=lambda one: (not one.crowd, -one.area)):
        if not len(one.outline):
            continue
        runs: Any = one.outline
        if isinstance(runs, np.ndarray):
            runs = {'counts': runs, 'size': size}
        encoded = tools.frPyObjects(runs, *size)
        encoded = tools.merge(encoded) if isinstance(encoded, list) else encoded
        mask[tools.decode(encoded) > 0] = first_class + one.category
    return mask


def _pycocotools() -> Any:
    """Return pycocotools' functions for masks.

    Raises:
        SettingError: If it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise SettingError(
            'COCO needs pycocotools. Install it: pip install "torchgeo-ctm[coco]"'
        ) from error
    return mask
