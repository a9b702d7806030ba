"""Image files: found by pattern, read as pixels."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import DataError, SettingError, nearest

NAME = '{name}'


def find_images(root: Path, pattern: str) -> dict[str, Path]:
    """Return the image files that fit a pattern, ordered by name.

    Hidden files, and files without the suffix of an image, are none.

    Args:
        root: Folder that the pattern starts in.
        pattern: Path with ``{name}`` once, which may reach over folders, and ``*`` for
            any part of a file's or folder's name: ``train/images/{name}.*``.

    Raises:
        SettingError: If the pattern does not hold ``{name}`` once.
        DataError: If the folder is missing, or two files have the same name.
    """
    if pattern.count(NAME) != 1:
        raise SettingError(
            f"pattern {pattern!r} needs {NAME} once, as in 'images/{NAME}.*'"
        )
    fixed = re.split(r'\*|\{name\}', pattern)[0].rpartition('/')[0]
    expression = re.escape(pattern).replace(r'\*', '[^/]*')
    fits = re.compile(expression.replace(re.escape(NAME), '(?P<name>.+)'))
    found: dict[str, Path] = {}
    for path in _walk(_folder(root / fixed)):
        match = fits.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        name = match['name']
        if name in found:
            raise DataError(
                f'{found[name]} and {path} are both named {name!r}; needed: one file'
            )
        found[name] = path
    return dict(sorted(found.items()))


def _folder(path: Path) -> Path:
    """Return a folder that is there.

    Raises:
        DataError: If it is not.
    """
    if path.is_dir():
        return path
    there = next(parent for parent in path.parents if parent.is_dir())
    missing = path.relative_to(there).parts[0]
    beside = [entry.name for entry in there.iterdir() if entry.is_dir()]
    raise DataError(
        f'{path} is no folder: {there} has no folder {missing!r}'
        + nearest(missing, beside)
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, through links too."""
    for place, _, files in os.walk(folder, followlinks=True):
        for file in files:
            suffix = PurePosixPath(file).suffix.lower()
            if suffix in IMG_EXTENSIONS and not file.startswith('.'):
                yield Path(place, file)


def open_image(path: Path) -> Image.Image:
    """Open an image file with Pillow.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        image: Image.Image = Image.open(path)
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(f'{path} cannot be read as an image: {reason}') from error
    return image


def read_image(path: Path) -> Tensor:
    """Read an image of any 8-bit mode as float32 (3, H, W), RGB in 0…255.

    Transparency is dropped, and rotation tags are not applied: masks were drawn on the
    pixels as they are stored.

    Raises:
        DataError: If the file cannot be read, or has more than 8 bits.
    """
    image = open_image(path)
    if image.mode.startswith(('I', 'F')):
        raise DataError(
            f'{path} has more than 8 bits a pixel (mode {image.mode}); needed: 8 bits'
        )
    pixels = np.array(image.convert('RGB'))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def read_mask(path: Path) -> NDArray[np.int64]:
    """Read the values of a mask (H, W) as they are stored: of a palette, the indices.

    Raises:
        DataError: If the file cannot be read, or holds colours.
    """
    image = open_image(path)
    values = np.asarray(image)
    if values.ndim == 3 and image.mode in ('LA', 'RGB', 'RGBA'):
        colors = values[..., : 1 if image.mode == 'LA' else 3]
        if (colors == colors[..., :1]).all():
            values = colors[..., 0]
    if values.ndim != 2 or values.dtype.kind not in 'biu':
        raise DataError(
            f'{path} is a picture in colours or fractions (mode {image.mode}); needed: '
            'a mask with one whole number a pixel, grey or with a palette'
        )
    return values.astype(np.int64)
