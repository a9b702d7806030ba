"""Images with masks or image-level labels, in folders of any layout."""

import contextlib
import hashlib
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import (
    DataError,
    LabelError,
    LabelWarning,
    SettingError,
    check_names,
    did_you_mean,
)
from ..files import expanded
from ..grids import IGNORED
from ..labels.source import class_indices
from ..rasters import open_raster
from ..split import Split, check_split

#: Placeholder of an image's name in a pattern.
NAME = '{name}'
#: Number of values that a mask can hold: 16 bits.
VALUES = 65_536
#: Key of an image's information: whether it has more than 8 bits per channel.
DEEP = 'more than 8 bits per channel'
#: Number of masks that are searched for values of 0 and 255 alone.
SEARCHED = 8

Sample = dict[str, Tensor]
Values = NDArray[np.int64]


class ImageFolder(NonGeoDataset):
    """RGB images and their masks or image-level labels, found by patterns.

    A sample holds ``image`` float32 (3, H, W) in 0…255 and, where the data set has
    them, ``mask`` int64 (H, W), classes 0…C−1 with 255 ignored, and ``label`` float32
    (C,), 1 where the class is present. The mask is for scoring, and for deriving
    image-level labels where there is no ``label``. No loss sees it.
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
        """Initialize a new ImageFolder instance.

        The images of a split are selected by ``{split}`` in *images*, by *list_file*, or
        by *shares*.

        Args:
            root: Folder of the data set; all patterns start there.
            split: 'train', 'val' or 'test'.
            classes: Names of the C classes, in the order of their values in the masks.
            class_colors: One ``#rrggbb`` per class; None: PASCAL VOC's.
            images: Pattern of the image files: ``{split}``, ``{name}``, and ``*`` for
                any part of a name.
            masks: Pattern of the masks; a mask has the ``{name}`` of its image. None:
                there are no masks.
            labels: CSV of image-level labels, in which ``{split}`` may occur; see
                :func:`~torchgeo_ctm.datasets.image_folder.read_image_labels`.
            list_file: File with one ``{name}`` a line, such as ``lists/{split}.txt``.
            shares: Shares of training, validation and test images, as (0.8, 0.1, 0.1).
                Each image is assigned by its name, so that it stays in its split when
                images are added or removed.
            splits: Value of ``{split}`` where that is not 'train', 'val' or 'test', as
                {'val': 'validation'}.
            mask_values: Name of the class, or None for ignored, of each value in the
                masks, as {0: 'background', 255: 'polyp'}; None: a value is the class
                index and 255 is ignored.
            transforms: Applied to each sample.

        Raises:
            SettingError: If the arguments contradict each other.
            DataError: If a folder or list is missing, or the split has no image.
            LabelError: If the table of labels cannot be used.
        """
        check_split(split)
        self.root = expanded(root)
        self.split = split
        self.transforms = transforms
        self._mask_classes = MaskClasses(classes, mask_values)
        self.classes = self._mask_classes.classes
        self.class_colors = tuple(class_colors or pascal_colors(len(classes)))
        if len(self.class_colors) != len(classes):
            raise SettingError(
                f'class_colors has {len(self.class_colors)} entries, expected '
                f'{len(classes)}: one per class.'
            )
        self._folders = dict(splits or {})
        self._folder = self._folders.get(split, split)
        self.images = self._find_images(images, list_file, shares)
        self.masks = self._find_masks(masks)
        self.labels = self._read_labels(labels)
        self.names = list(self.images)
        if not self.names:
            raise DataError(
                f'{self.root} has no image of split {split!r}, expected files like '
                f'{self._resolved(images)}.'
            )
        if mask_values is None and self.masks is not None:
            self._warn_about_255()

    def _resolved(self, pattern: str) -> str:
        """Return a pattern with this split's name in it."""
        return pattern.replace('{split}', self._folder)

    def _find_images(
        self, pattern: str, list_file: str | None, shares: Sequence[float] | None
    ) -> dict[str, Path]:
        """Find the split's images, in the order of the list or of their names."""
        found = find_images(self.root, self._resolved(pattern))
        listed = self._listed(list_file)
        if listed is not None:
            self._check_lists(list_file, listed[1], found)
            return _distinct(_select(found, *listed), self.root)
        found = _distinct(found, self.root)
        if shares is not None:
            names = [n for n in found if drawn_split(n, shares) == self.split]
            return {name: found[name] for name in names}
        if '{split}' not in pattern:
            raise SettingError(
                f'images={pattern!r} is the same for every split. Put {{split}} in it, '
                'or set list_file, or shares such as [0.8, 0.1, 0.1].'
            )
        if (other := self._other()) is not None:
            theirs: dict[str, Path] = {}
            with contextlib.suppress(DataError):  # there is no other split
                theirs = find_images(self.root, pattern.replace('{split}', other))
            self._check_links(found, theirs)
        return found

    def _other(self) -> str | None:
        """Return the split that must not share images with this one, None without.

        Validation and test may share images, as some data sets do.
        """
        pair = {'train': 'val', 'val': 'train', 'test': 'train'}
        other = self._folders.get(pair[self.split], pair[self.split])
        return None if other == self._folder else other

    def _check_links(
        self, ours: Mapping[str, Path], theirs: Mapping[str, Path]
    ) -> None:
        """Check that no file is linked into the other split as well."""
        known = {_identity(path): path for path in ours.values()}
        for path in theirs.values():
            one = known.get(_identity(path))
            if one is not None:
                raise DataError(
                    f'{one} and {path} are one file in two splits, expected each image '
                    'in one of them. Remove the link.'
                )

    def _check_lists(
        self, list_file: str | None, names: Sequence[str], found: Mapping[str, Path]
    ) -> None:
        """Check that no image of this split is listed for the other one as well."""
        other = self._other()
        if list_file is None or '{split}' not in list_file or other is None:
            return
        path = self.root / list_file.replace('{split}', other)
        if not path.is_file():
            return
        theirs = _lines(path)
        both = sorted(set(names) & set(theirs))
        if both:
            raise DataError(
                f'{path} and the list of split {self.split!r} both name '
                f'{", ".join(both[:3])} ({len(both)} images), expected each image in one '
                'of them.'
            )
        self._check_links(
            *({n: found[n] for n in each if n in found} for each in (names, theirs))
        )

    def _listed(self, list_file: str | None) -> tuple[Path, list[str]] | None:
        """Return the list of the split and the names in it, None without a list."""
        if list_file is None:
            return None
        path = self.root / self._resolved(list_file)
        return path, _lines(path)

    def _find_masks(self, pattern: str | None) -> dict[str, Path] | None:
        """Find the masks, and drop images without one."""
        if pattern is None:
            return None
        pattern = self._resolved(pattern)
        found = find_images(self.root, pattern)
        self._keep([name for name in self.images if name in found], 'mask', pattern)
        return {name: found[name] for name in self.images}

    def _read_labels(self, file: str | None) -> dict[str, Tensor] | None:
        """Read the image-level labels, and drop images without one."""
        if file is None:
            return None
        path = self.root / self._resolved(file)
        table = read_image_labels(path, self.classes)
        labels: dict[str, Tensor] = {}
        bases = Counter(PurePosixPath(name).name for name in self.images)
        for name, image in self.images.items():
            # a row names its image with or without folder and suffix
            base = PurePosixPath(name).name
            keys = {name: None, name + image.suffix: None}
            alone = {base: None, composed(image.name): None}
            rows = [key for key in keys if key in table]
            if not rows and bases[base] > 1 and alone.keys() & table.keys():
                raise LabelError(
                    f'{path} names {base!r}, which {bases[base]} images in different '
                    f'folders are called. Write the folder, as {name!r}.'
                )
            rows = rows or [key for key in alone if key in table]
            if rows and not all(table[rows[0]].equal(table[row]) for row in rows):
                raise LabelError(
                    f'{path} has different labels for image {name!r} in the rows '
                    f'{", ".join(map(repr, rows))}, expected one label.'
                )
            if rows:
                labels[name] = table[rows[0]]
        self._keep(list(labels), 'label', str(path))
        return labels

    def _keep(self, names: Sequence[str], what: str, where: str) -> None:
        """Keep these images, and warn about the others."""
        kept = set(names)
        lost = [name for name in self.images if name not in kept]
        if not lost:
            return
        first = ', '.join(lost[:3]) + (', …' if len(lost) > 3 else '')
        warnings.warn(
            f'{len(lost)} of {len(self.images)} images of split {self.split!r} in '
            f'{self.root} have no {what} ({where}) and are dropped: {first}',
            LabelWarning,
            stacklevel=4,
        )
        self.images = {name: self.images[name] for name in names}

    def _warn_about_255(self) -> None:
        """Warn if masks hold 0 and 255 alone, because 255 is ignored."""
        step = -(-len(self.names) // SEARCHED)
        held: set[int] = set()
        for index in range(0, len(self.names), step):
            values = self._mask_values(index)
            held |= set() if values is None else set(np.unique(values).tolist())
        if held == {0, IGNORED}:
            meant = {0: self.classes[0], IGNORED: self.classes[-1]}
            warnings.warn(
                f'The masks of {self.root} hold 0 and 255 alone, and 255 is ignored. If '
                f'it is the value of a class, set mask_values={meant}.',
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
                or a value in it belongs to no class.
        """
        sample = {'image': read_image(self.images[self.names[index]])}
        values = self._mask_values(index)
        if values is not None:
            height, width = sample['image'].shape[-2:]
            if values.shape != (height, width):
                raise DataError(
                    f'{self._mask_name(index)} has {values.shape[0]} × '
                    f'{values.shape[1]} px, its image {height} × {width} px. Both must '
                    'have the same size.'
                )
            sample['mask'] = self._mask_classes(values, self._mask_name(index))
        label = self.image_label(index)
        if label is not None:
            sample['label'] = label
        return sample if self.transforms is None else self.transforms(sample)

    def _mask_values(self, index: int) -> Values | None:
        """Return the values of a mask (H, W) as stored, None without masks."""
        return None if self.masks is None else read_mask(self.masks[self.names[index]])

    def _mask_name(self, index: int) -> str:
        """Return the name of a mask for a message."""
        name = self.names[index]
        return str(self.masks[name]) if self.masks is not None else f'mask of {name}'

    def image_label(self, index: int) -> Tensor | None:
        """Return the image-level label (C,), None without labels."""
        return None if self.labels is None else self.labels[self.names[index]].clone()

    def chip_name(self, index: int) -> str:
        """Return the name of an image; folders in it are joined by ``_``."""
        return self.names[index].replace('/', '_')


class MaskClasses:
    """Convert the values of a mask to classes 0…C−1 and 255, ignored."""

    def __init__(
        self, classes: Sequence[str], mask_values: Mapping[int, str | None] | None
    ) -> None:
        """Create the table of values.

        Args:
            classes: Names of the C classes.
            mask_values: Name of the class, or None for ignored, of each value; None: a
                value is the class index. 255 is ignored unless it is named.

        Raises:
            SettingError: If there are no classes, too many, or two of one name, or
                *mask_values* has an unknown class or an impossible value.
        """
        self.classes = names = tuple(classes)
        if isinstance(classes, str) or not 0 < len(names) <= IGNORED:
            raise SettingError(
                f'classes={classes!r}, expected a list of 1 to {IGNORED} names, in the '
                'order of their values in the masks.'
            )
        check_names(names, SettingError, 'classes')
        self._class_of = np.full(VALUES, -1, np.int64)
        self._class_of[IGNORED] = IGNORED
        if mask_values is None:
            self._class_of[: len(names)] = np.arange(len(names))
        for value, name in (mask_values or {}).items():
            if not isinstance(value, int) or not 0 <= value < VALUES:
                raise SettingError(
                    f'mask_values has the value {value!r}, expected an integer in '
                    f'0…{VALUES - 1}.'
                )
            if name is not None and name not in names:
                raise SettingError(
                    f'mask_values has an unknown class {name!r}, expected one of: '
                    f'{", ".join(names)}.' + did_you_mean(str(name), names)
                )
            self._class_of[value] = IGNORED if name is None else names.index(name)

    def __call__(self, values: Values, where: str) -> Tensor:
        """Return the classes (H, W) int64 of a mask's values (H, W).

        Args:
            values: Values as they are stored.
            where: Name of the mask, for the message.

        Raises:
            DataError: If a value belongs to no class.
        """
        inside = (values >= 0) & (values < VALUES)
        classes = np.where(inside, self._class_of[values.clip(0, VALUES - 1)], -1)
        if (classes < 0).any():
            raise DataError(self._unknown(np.unique(values[classes < 0]), where))
        return torch.from_numpy(classes)

    def _unknown(self, values: Values, where: str) -> str:
        """Return the message about values that belong to no class."""
        shown = ', '.join(map(str, values[:5])) + (', …' if len(values) > 5 else '')
        known = np.flatnonzero(self._class_of >= 0)
        parts = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
        ranges = [
            f'{part[0]}…{part[-1]}' if len(part) > 1 else str(part[0]) for part in parts
        ]
        closest = int(known[np.abs(known - values[0]).argmin()])
        index = int(self._class_of[closest])
        name = 'ignored' if index == IGNORED else self.classes[index]
        lossy = where.lower().endswith(('.jpg', '.jpeg'))
        return (
            f'{where} holds {shown}, expected values of classes: {", ".join(ranges)}. '
            f'The closest to {values[0]} is {closest} ({name}).'
            + (' JPEG changes values. Store masks as PNG.' if lossy else '')
        )


def composed(name: str) -> str:
    """Return a name with composed letters, which macOS stores in parts."""
    return unicodedata.normalize('NFC', name)


def _lines(path: Path) -> list[str]:
    """Return the names in a list of images.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'Cannot read {path} as a list of images: {error}') from error
    return [composed(line.strip()) for line in lines if line.strip()]


def pascal_colors(count: int) -> tuple[str, ...]:
    """Return PASCAL VOC's color map, ``#rrggbb``: up to 256 different colors.

    The bits of a class index go to red, green and blue in turn, from the highest bit of
    a channel to its lowest (Everingham et al., VOC2012 development kit).
    """
    colors = []
    for number in range(count):
        channels = [
            sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
            for channel in range(3)
        ]
        colors.append('#' + ''.join(f'{value:02x}' for value in channels))
    return tuple(colors)


def drawn_split(name: str, shares: Sequence[float]) -> Split:
    """Return the split of an image, drawn by its name alone.

    Args:
        name: Name of the image.
        shares: Shares of training, validation and test, which sum to 1.

    Raises:
        SettingError: If these are not three shares that sum to 1.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise SettingError(
            f'shares={list(shares)}, expected three that sum to 1, as [0.8, 0.1, 0.1].'
        )
    digest = hashlib.sha256(name.encode()).digest()
    position = int.from_bytes(digest[:4], 'big') / 2**32
    train, both, _ = accumulate(shares)
    if position < train:
        return 'train'
    return 'val' if position < both else 'test'


def _select(
    found: Mapping[str, Path], where: Path, names: Sequence[str]
) -> dict[str, Path]:
    """Return the images in a list, in its order.

    Raises:
        DataError: If an image is missing, or listed twice.
    """
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f'{where} lists {len(names)} images, {len(missing)} of them are missing: '
            f'{", ".join(missing[:3])}.' + did_you_mean(missing[0], found)
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f'{where} lists {twice} twice, expected it once.')
    return {name: found[name] for name in names}


def _distinct(images: Mapping[str, Path], root: Path) -> dict[str, Path]:
    """Return images without links to others of them, and warn about these.

    Args:
        images: Image files by name.
        root: Folder of the data set, for the message.
    """
    real: dict[tuple[int, int] | str, str] = {}
    repeated: set[str] = set()
    # a file itself comes before links to it
    for name in sorted(images, key=lambda name: (_is_linked(images[name], root), name)):
        if real.setdefault(_identity(images[name]), name) != name:
            repeated.add(name)
    if repeated:
        first = min(repeated)
        warnings.warn(
            f'{len(repeated)} images of {root} are links to others of them and are left '
            f'out (first: {images[first]}).',
            LabelWarning,
            stacklevel=5,
        )
    return {name: path for name, path in images.items() if name not in repeated}


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what all links to a file have in common.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(
            f'{path} is a link to a file that cannot be read: {error.strerror}. Remove '
            'the link, or restore the file.'
        ) from error
    return (state.st_dev, state.st_ino) if state.st_ino else str(path)


def _is_linked(path: Path, root: Path) -> bool:
    """Return whether a file below a folder, or one of its folders, is a link."""
    parts = path.relative_to(root).parts
    return any(
        (root.joinpath(*parts[:k])).is_symlink() for k in range(1, len(parts) + 1)
    )


def find_images(root: Path, pattern: str) -> dict[str, Path]:
    """Return the image files that match a pattern, ordered by name.

    Hidden files and folders, and files without the suffix of an image, are skipped. A
    suffix in the pattern stands for its upper-case form, too.

    Args:
        root: Folder that the pattern starts in.
        pattern: Path with ``{name}`` once, which may span folders, and ``*`` for any
            part of a file's or folder's name: ``train/images/{name}.*``.

    Raises:
        SettingError: If the pattern does not hold ``{name}`` once.
        DataError: If the folder is missing, or two files have the same name.
    """
    if pattern.count(NAME) != 1:
        raise SettingError(
            f"Pattern {pattern!r} needs {NAME} once, as in 'images/{NAME}.*'."
        )
    fixed = re.split(r'\*|\{name\}', pattern)[0].rpartition('/')[0]
    expression = re.escape(pattern).replace(r'\*', '[^/]*')
    suffix = re.search(r'(\\\.\w+)$', expression)
    if suffix:
        expression = f'{expression[: suffix.start()]}(?i:{suffix[1]})'
    matches = re.compile(expression.replace(re.escape(NAME), '(?P<name>.+)'))
    found: dict[str, Path] = {}
    for path in _walk(root / fixed):
        match = matches.fullmatch(path.relative_to(root).as_posix())
        if match is None:
            continue
        name = composed(match['name'])
        if name in found:
            raise DataError(
                f'{found[name]} and {path} are both named {name!r}, expected one file.'
            )
        found[name] = path
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, also through links.

    Raises:
        DataError: If the folder does not exist.
    """
    if not folder.is_dir():
        parent = next(path for path in folder.parents if path.is_dir())
        missing = folder.relative_to(parent).parts[0]
        folders = [entry.name for entry in parent.iterdir() if entry.is_dir()]
        raise DataError(
            f'{folder} does not exist: {parent} has no folder {missing!r}.'
            + did_you_mean(missing, folders)
        )
    above: dict[str, tuple[str, ...]] = {}
    for inside, folders, files in os.walk(folder, followlinks=True):
        real, before = os.path.realpath(inside), above.get(os.path.dirname(inside), ())
        above[inside] = (*before, real)
        if real in before:
            # a link that leads back
            folders.clear()
            continue
        folders[:] = [f for f in folders if not f.startswith(('.', '__MACOSX'))]
        for file in files:
            suffix = PurePosixPath(file).suffix.lower()
            if suffix in IMG_EXTENSIONS and not file.startswith('.'):
                yield Path(inside, file)


def open_image(path: Path) -> Image.Image:
    """Open an image file with Pillow.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        image: Image.Image = Image.open(path)
        deep = _is_deep(image, path)
        image.load()
        image.info[DEEP] = deep
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(f'Cannot read {path} as an image: {reason}') from error
    return image


def _is_deep(image: Image.Image, path: Path) -> bool:
    """Return whether an opened image stores more than 8 bits per channel.

    Pillow cuts most of them to 8 bits without a word.
    """
    how = ' '.join(str(tile[3]) for tile in getattr(image, 'tile', []))
    if image.format in ('PNG', 'JPEG', 'GIF', 'BMP', 'WEBP'):
        return ';16' in how
    if ';16' in how or image.mode.startswith('I;16'):
        return True
    try:
        with open_raster(path, DataError) as raster:
            return any(np.dtype(kind).itemsize > 1 for kind in raster.dtypes)
    except DataError:
        return False


def read_image(path: Path) -> Tensor:
    """Read an image of 8 bits per channel as float32 (3, H, W), RGB in 0…255.

    Transparency is dropped, and rotation tags are not applied, because masks were drawn
    on the pixels as they are stored.

    Raises:
        DataError: If the file cannot be read, or has more than 8 bits.
    """
    image = open_image(path)
    if image.mode.startswith(('I', 'F')) or image.info[DEEP]:
        raise DataError(
            f'{path} has more than 8 bits per channel (mode {image.mode}), expected 8. '
            'Convert it, or train on it as a scene.'
        )
    pixels = np.array(image.convert('RGB'))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def read_mask(path: Path) -> Values:
    """Read the values of a mask (H, W) as stored: indices if it has a palette.

    Raises:
        DataError: If the file cannot be read, or holds colors.
    """
    image = open_image(path)
    values = np.asarray(image)
    if values.ndim == 3 and image.mode in ('LA', 'RGB', 'RGBA'):
        colors = values[..., : 1 if image.mode == 'LA' else 3]
        if (colors == colors[..., :1]).all():
            values = colors[..., 0]
    if values.ndim != 2 or values.dtype.kind not in 'biu':
        raise DataError(
            f'{path} holds colors or fractions (mode {image.mode}), expected a mask '
            'with one integer per pixel, gray or with a palette.'
        )
    return values.astype(np.int64)


def read_image_labels(path: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Read a CSV of image-level labels.

    Its column ``image`` holds names with or without the file's suffix. Then comes
    either one column ``classes`` with the names of the present classes, separated by
    ``;``, or one column per class with 1 (present) or 0.

    Args:
        path: The CSV, in UTF-8.
        classes: Names of the C classes.

    Returns:
        Label (C,) float32, 1 where a class is present, by image name.

    Raises:
        LabelError: If the file is missing or malformed, has an unknown class, or an
            image twice.
    """
    try:
        table = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding='utf-8-sig',
            index_col=False,
        ).fillna('')
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (OSError, ValueError) as error:
        raise LabelError(f'Cannot read {path} as a CSV: {error}') from error
    columns = _class_columns(path, [str(name) for name in table.columns], classes)
    labels: dict[str, Tensor] = {}
    lines: dict[str, int] = {}
    for line, row in enumerate(table.to_dict('records'), start=2):
        where = f'{path}, line {line}'
        image = composed(row.pop('image').strip())
        if image in labels:
            raise LabelError(
                f'{where}: image {image!r} is repeated, as in line {lines[image]}, '
                'expected one row.'
            )
        lines[image] = line
        cells = {name: row[name].strip() for name in columns}
        wrong = [name for name in columns if cells[name] not in ('0', '1')]
        if columns == ['classes']:
            text = cells['classes']
            mark = ';' if ';' in text or text in classes else '|'
            present = [name for name in text.split(mark) if name.strip()]
        elif wrong:
            raise LabelError(
                f'{where}: {wrong[0]} is {row[wrong[0]]!r}, expected 0 or 1.'
            )
        else:
            present = [name for name in columns if cells[name] == '1']
        label = torch.zeros(len(classes))
        label[class_indices(present, classes, where)] = 1
        labels[image] = label
    return labels


def _class_columns(
    path: Path, header: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Return the columns of classes: ``['classes']``, or one per class.

    Raises:
        LabelError: If a column is missing.
    """
    if 'image' not in header:
        raise LabelError(
            f"{path} has no column 'image', found: {', '.join(header) or 'none'}."
            + did_you_mean('image', header)
        )
    columns = [name for name in header if name != 'image']
    if columns == ['classes']:
        return columns
    found = class_indices(columns, classes, f'{path}, first line')
    missing = [name for index, name in enumerate(classes) if index not in found]
    if missing:
        raise LabelError(
            f'{path} has no column for {", ".join(missing)}, expected one per class, or '
            "one named 'classes'."
        )
    return columns
