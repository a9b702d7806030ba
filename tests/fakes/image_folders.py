"""ADE20K, VOC 2012, COCO and EndoTect in their real layouts, and folders of one's own.

A pixel's color says its class (:func:`paint`), so that tests see which mask belongs to
which image.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchgeo_ctm.datasets import ImageFolder
from torchgeo_ctm.datasets.image_folder import Sample, pascal_colors

Labels = NDArray[np.uint8]


def blocks(seed: int, classes: int, height: int, width: int) -> Labels:
    """Return 4 × 4 blocks of random classes."""
    rng = np.random.default_rng(seed)
    rows, cols = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    few: Labels = rng.integers(0, classes, (4, 4)).astype(np.uint8)
    return few[rows][:, cols]


def paint(labels: Labels) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) that shows classes in PASCAL VOC's colors."""
    palette = np.array(
        [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in pascal_colors(256)]
    )
    painted: NDArray[np.uint8] = palette[labels].astype(np.uint8)
    return painted


def every(images: ImageFolder) -> list[Sample]:
    """Return all samples of a data set."""
    return [images[index] for index in range(len(images))]


def save(path: Path, values: NDArray[Any], palette: bool = False) -> None:
    """Write pixels as the file's suffix says, with VOC's palette if asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(paint(np.arange(256, dtype=np.uint8)[None]).tobytes())
    image.save(path)


def write_image_folder(
    root: Path, count: int = 3, classes: int = 2, size: tuple[int, int] = (40, 48)
) -> None:
    """Write ``{train,val,test}/{images,masks}/NAME.png``."""
    for position, split in enumerate(('train', 'val', 'test')):
        for number in range(count):
            labels = blocks(100 * position + number, classes, *size)
            name = f'{split}_{number}.png'
            save(root / split / 'images' / name, paint(labels))
            save(root / split / 'masks' / name, labels)


def write_ade20k(root: Path, size: tuple[int, int] = (52, 80)) -> None:
    """Write ``ADEChallengeData2016``: 4 images train, 2 validate."""
    folder = root / 'ADEChallengeData2016'
    for split, short, count in (('training', 'train', 4), ('validation', 'val', 2)):
        for number in range(1, count + 1):
            labels = blocks(number, 151, *size)
            name = f'ADE_{short}_{number:08d}'
            save(folder / 'images' / split / f'{name}.jpg', paint(labels))
            save(folder / 'annotations' / split / f'{name}.png', labels)
    rows = ['Idx\tRatio\tTrain\tVal\tName']
    for number in range(1, 151):
        # the published table has blanks after some numbers and names
        names = {1: 'wall', 2: 'building, edifice', 8: 'bed '}
        name = names.get(number, f'thing {number}, article {number}')
        rows.append(f'{number}{" " * (number == 22)}\t0.0100\t10\t2\t{name}')
    (folder / 'objectInfo150.txt').write_text('\n'.join(rows) + '\n')
    (folder / 'sceneCategories.txt').write_text('ADE_train_00000001 bathroom\n')


def write_voc2012(root: Path, size: tuple[int, int] = (60, 50)) -> None:
    """Write ``VOCdevkit/VOC2012``: 4 images train, 2 validate, 1 has no mask."""
    folder = root / 'VOCdevkit' / 'VOC2012'
    lists = folder / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    names = [f'2007_{number:06d}' for number in range(7)]
    for number, name in enumerate(names):
        labels = blocks(number, 21, *size)
        save(folder / 'JPEGImages' / f'{name}.jpg', paint(labels))
        if number < 6:
            labels[::15] = 255
            save(folder / 'SegmentationClass' / f'{name}.png', labels, palette=True)
    for split, part in (('train', names[:4]), ('val', names[4:6])):
        (lists / f'{split}.txt').write_text('\n'.join(part) + '\n')


def coco_categories() -> list[dict[str, Any]]:
    """Return 80 categories whose numbers have gaps, as COCO's have."""
    numbers = [number for number in range(1, 91) if number % 9]
    return [{'id': n, 'name': f'object {n}', 'supercategory': 'any'} for n in numbers]


def coco_annotations(image: int, height: int, width: int) -> list[dict[str, Any]]:
    """Return a small square on a large one of another class, two parts, and a crowd."""
    inside = np.zeros((height, width), bool)
    inside[height - 4 :, :10] = True
    flat = inside.ravel(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
    shapes: list[tuple[int, int, float, Any]] = [
        (2, 0, 16.0, [[4, 4, 8, 4, 8, 8, 4, 8]]),
        (1, 0, 256.0, [[2, 2, 18, 2, 18, 18, 2, 18]]),
        (89, 0, 64.0, [[20, 2, 28, 2, 28, 6, 20, 6], [20, 8, 28, 8, 28, 12, 20, 12]]),
        (10, 1, 40.0, {'counts': runs, 'size': [height, width]}),
    ]
    return [
        {
            'id': 10 * image + number,
            'image_id': image,
            'category_id': category,
            'iscrowd': crowd,
            'area': area,
            'bbox': [0, 0, 1, 1],
            'segmentation': shape,
        }
        for number, (category, crowd, area, shape) in enumerate(shapes)
    ]


def write_coco(root: Path, year: int = 2017, size: tuple[int, int] = (30, 40)) -> None:
    """Write the JSONs and images: 4 train, 2 validate; the last ones hold nothing."""
    (root / 'annotations').mkdir(parents=True)
    for split, count in (('train', 4), ('val', 2)):
        images, annotations = [], []
        for number in range(1, count + 1):
            name = f'{number:012d}.jpg'
            image = {'id': number, 'file_name': name, 'height': size[0]}
            images.append(image | {'width': size[1]})
            save(root / f'{split}{year}' / name, paint(blocks(number, 80, *size)))
            if number < count:
                annotations += coco_annotations(number, *size)
        content = {
            'images': images,
            'annotations': annotations,
            'categories': coco_categories(),
        }
        path = root / 'annotations' / f'instances_{split}{year}.json'
        path.write_text(json.dumps(content))


def write_endotect(
    root: Path, count: int = 40, size: tuple[int, int] = (48, 56)
) -> None:
    """Write ``segmented-images``: a bright polyp in each, masks as color JPEGs."""
    folder = root / 'segmented-images'
    for number in range(count):
        rows, cols = np.mgrid[: size[0], : size[1]]
        center = 16 + number % 16
        polyp = (rows - center) ** 2 + (cols - center) ** 2 < 100
        image = np.where(polyp[..., None], [230, 120, 110], [120, 40, 30])
        mask = np.repeat(np.where(polyp, 255, 0)[..., None], 3, axis=2)
        name = f'cju0qkwl35piu0993l0dewe{number:02d}.jpg'
        save(folder / 'images' / name, image.astype(np.uint8))
        save(folder / 'masks' / name, mask.astype(np.uint8))
    (folder / 'bounding-boxes.json').write_text('{}')
