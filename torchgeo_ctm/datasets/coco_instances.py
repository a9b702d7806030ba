"""The instances JSON of COCO: read, and painted as a mask of classes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from ..errors import DataError

#: What each entry of a part of the JSON must say.
NEEDED = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'segmentation'),
}
#: Fewest coordinates of a polygon: three corners.
CORNERS = 6


class Instance(NamedTuple):
    """One object of an image, or a crowd of them."""

    category: int
    crowd: bool
    area: float
    #: Its parts, each (corners, 2) float32: x, y in pixels from the image's corner.
    polygons: list[NDArray[np.float32]]
    #: Lengths of runs, outside and inside in turn, down the columns; None: polygons.
    runs: NDArray[np.int64] | None


class Annotated(NamedTuple):
    """One image of the JSON."""

    file_name: str
    height: int
    width: int
    instances: list[Instance]


class Instances(NamedTuple):
    """An instances JSON: class names, and images by their names without suffix."""

    classes: tuple[str, ...]
    images: dict[str, Annotated]


def read_instances(path: Path) -> Instances:
    """Read an instances JSON (cocodataset.org, *Data format*, object detection).

    Categories are ordered by their numbers, which have gaps. Polygons and uncompressed
    run lengths are read, which is what COCO publishes; compressed run lengths, which
    only tools write, are refused.

    Raises:
        DataError: If the file cannot be read, or an annotation is not of that form.
    """
    content = _load(path)
    categories = sorted(content['categories'], key=lambda entry: int(entry['id']))
    position = {entry['id']: index for index, entry in enumerate(categories)}
    by_id = {
        entry['id']: Annotated(
            entry['file_name'], int(entry['height']), int(entry['width']), []
        )
        for entry in content['images']
    }
    for entry in content['annotations']:
        image = by_id.get(entry['image_id'])
        where = f'{path}, annotation {entry["id"]}'
        if image is None or entry['category_id'] not in position:
            raise DataError(
                f'{where}: its image {entry["image_id"]} or category '
                f'{entry["category_id"]} is not in the file'
            )
        category = position[entry['category_id']]
        image.instances.append(_instance(entry, category, image, where))
    images = {image.file_name.rpartition('.')[0]: image for image in by_id.values()}
    return Instances(tuple(str(entry['name']) for entry in categories), images)


def _load(path: Path) -> dict[str, Any]:
    """Return the content of the JSON, every entry with the keys that are needed.

    Raises:
        DataError: If it cannot be read, or a key is missing.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read as JSON: {error}') from error
    for part, keys in NEEDED.items():
        if not isinstance(content, dict) or part not in content:
            raise DataError(
                f'{path} is no instances JSON of COCO: it has no {part}; needed: '
                + ', '.join(NEEDED)
            )
        for number, entry in enumerate(content[part]):
            missing = [key for key in keys if key not in entry]
            if missing:
                raise DataError(
                    f'{path} is no instances JSON of COCO: entry {number} of {part} '
                    f'has no {", ".join(missing)}'
                )
    return content


def _instance(
    entry: dict[str, Any], category: int, image: Annotated, where: str
) -> Instance:
    """Return one annotation, checked."""
    shape = entry['segmentation']
    polygons: list[NDArray[np.float32]] = []
    runs = None
    if isinstance(shape, dict) and isinstance(shape.get('counts'), list):
        runs = np.asarray(shape['counts'], np.int64)
        if runs.min(initial=0) < 0 or runs.sum() != image.height * image.width:
            raise DataError(
                f'{where}: its runs cover {runs.sum()} px, image {image.file_name} has '
                f'{image.height} × {image.width}'
            )
    elif isinstance(shape, list):
        if any(len(part) < CORNERS or len(part) % 2 for part in shape):
            raise DataError(f'{where}: a polygon has fewer than three corners')
        polygons = [np.asarray(part, np.float32).reshape(-1, 2) for part in shape]
    else:
        raise DataError(
            f'{where}: its segmentation is neither polygons nor uncompressed runs; '
            'needed: one of these'
        )
    area = float(entry.get('area', 0))
    return Instance(category, bool(entry.get('iscrowd', 0)), area, polygons, runs)


def paint_instances(
    image: Annotated, first_class: int, background: int
) -> NDArray[np.int64]:
    """Paint the objects of an image as a mask of classes (H, W).

    Crowds come first, then objects from large to small, so that a small one stays
    visible before a large one. A pixel belongs to a polygon that its centre lies in.

    Args:
        image: The image with its objects.
        first_class: Class of the first category.
        background: Value of every other pixel.
    """
    mask = np.full((image.height, image.width), background, np.uint8)
    ordered = sorted(image.instances, key=lambda one: (not one.crowd, -one.area))
    for instance in ordered:
        value = first_class + instance.category
        if instance.runs is not None:
            mask[_inside(instance.runs, image)] = value
        elif instance.polygons:
            shapes = [(_ring(polygon), value) for polygon in instance.polygons]
            rasterize(shapes, out=mask)
    return mask.astype(np.int64)


def _inside(runs: NDArray[np.int64], image: Annotated) -> NDArray[np.bool_]:
    """Return where (H, W) runs, which start outside and go down columns, are inside."""
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape((image.height, image.width), order='F')


def _ring(polygon: NDArray[np.float32]) -> dict[str, Any]:
    """Return a polygon (corners, 2) as GeoJSON, closed."""
    corners = polygon.astype(float).tolist()
    return {'type': 'Polygon', 'coordinates': [[*corners, corners[0]]]}
