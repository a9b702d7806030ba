"""Generators of data that people train on: wrong, damaged or unusual, by kind.

Each kind draws one small data set, trains or opens it, and checks the law of its kind.
"""

import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from tests.conftest import tiny_task
from tests.fakes.bad_training import RGB, Chips, Sample, fit, loaders, trainer
from torchgeo_ctm.datasets import ImageFolder
from torchgeo_ctm.errors import BandError, DataError, LabelError, SettingError
from torchgeo_ctm.labels import TableLabels
from torchgeo_ctm.scaling import SENTINEL2_BANDS, band_key
from torchgeo_ctm.trainers.presence import MIN_COVERAGE, UNKNOWN

Random = np.random.Generator
COSINE: dict[str, Any] = {'schedule': 'cosine'}
#: Forms in which Unicode writes a letter with a sign.
FORMS: tuple[Literal['NFC', 'NFD'], ...] = ('NFC', 'NFD')
#: Letters, signs and forms that people put into names of files and classes.
WORDS = (
    'a',
    'Wald',
    'W\u00e4lder',
    'two words',
    'x.y',
    '\u68ee\u6797',
    'N_1',
    '#1',
    'b(2)',
)


def wrong_chips(rng: np.random.Generator, folder: Path) -> None:
    """Chips, labels and masks that hold what they should not: finite weights, or no."""
    value = float(rng.choice([np.nan, np.inf, -np.inf, 1e38, -9999, 0, 255]))
    image = torch.from_numpy(rng.random((3, 32, 32))).float()
    label = torch.from_numpy(rng.integers(0, 2, 3)).float()
    mask = torch.from_numpy(rng.integers(0, 3, (32, 32)))
    changes: list[Sample] = [
        {'image': torch.where(torch.rand(32, 32) < 0.2, value, image)},
        {'image': torch.full_like(image, value)},
        {'image': image[:, : rng.integers(33)]},
        {'image': image[: rng.integers(4)]},
        {
            'image': image.to(
                [torch.int16, torch.half, torch.complex64][rng.integers(3)]
            )
        },
        {'label': torch.where(label > 0, value, label)},
        {'label': label[: rng.integers(4)]},
        {'label': torch.tensor(int(rng.integers(-2, 5)))},
        {'mask': torch.where(mask > 1, value, mask.float())},
        {'mask': mask + int(rng.integers(-3, 4))},
        {'mask': mask[: rng.integers(33)]},
        {'mask': mask.expand(int(rng.integers(1, 3)), 32, 32)},
    ]
    change = changes[rng.integers(len(changes))]
    usual: Sample = {'image': image, 'label': label, 'mask': mask}
    same = all(value.shape == usual[key].shape for key, value in change.items())
    # loaders stack chips of one shape only
    count = int(rng.integers(1, 9)) if same else 8
    which = set(rng.permutation(8)[:count].tolist())

    def changed(index: int, sample: Sample) -> Sample:
        if 'mask' in change:
            sample = {'image': sample['image'], 'mask': mask}
        return sample | change if index in which else sample

    for weights in fit(Chips(change=changed), schedule='cosine').parameters():
        assert bool(weights.isfinite().all())


def channel_orders(rng: Random, folder: Path) -> None:
    """Bands in any order and spelling: the network gets each by its name, or none."""
    found = [str(band) for band in rng.permutation(SENTINEL2_BANDS)]
    found = found[: rng.integers(2, 14)]
    wanted = [str(band) for band in rng.permutation(found)[: rng.integers(1, 6)]]
    lost = rng.random() < 0.25
    held = [b for b in found if b != wanted[0]] if lost else found
    numbers = torch.tensor([1.0 + SENTINEL2_BANDS.index(band) for band in held])

    def coded(index: int, sample: Sample) -> Sample:
        return sample | {'image': numbers[:, None, None].expand(-1, 32, 32)}

    chips = Chips(change=coded)
    name = rng.choice(['bands', 'all_bands', 'all_band_names', 'band_names'])
    setattr(chips, str(name), [spelled(rng, band) for band in held])
    wrapped: list[Dataset[Sample]] = [
        chips, Subset(chips, range(8)), ConcatDataset([chips, chips])
    ]  # fmt: skip
    learns = not lost and rng.random() < 0.3
    bands, count = (None, len(held)) if learns else (wanted, len(wanted))
    options = {'in_channels': count, 'bands': bands, 'scaling': None} | COSINE
    task = tiny_task(**options)
    taught: list[torch.Tensor] = []
    task.model.patch_embed.proj.register_forward_pre_hook(
        lambda _, x: taught.append(x[0])
    )
    chosen = wrapped[rng.integers(3)]
    if lost and len(held):
        shared = {*held} & {*wanted}
        if not shared:
            # nothing to compare by: said, and taken in order
            return
        with pytest.raises(BandError):
            trainer().fit(task, *loaders(chosen))
        return
    trainer().fit(task, *loaders(chosen))
    names = held if learns else wanted
    assert [band_key(band) for band in task.bands] == [band_key(b) for b in names]
    expected = [1 + SENTINEL2_BANDS.index(band) for band in names]
    assert taught[0][0, :, 3, 4].tolist() == expected


def spelled(rng: Random, band: str) -> str:
    """Return another spelling of a Sentinel-2 band."""
    short = 'B' + band[1:].lstrip('0')
    ways = [band, short, band.lower(), short.lower(), f'{short}, central wavelength']
    return ways[rng.integers(len(ways))]


def scaled_numbers(rng: Random, folder: Path) -> None:
    """Reflectances x 10,000 train; the same numbers scaled once are refused."""
    means = torch.from_numpy(rng.uniform(400, 3000, (3, 1, 1))).float()
    stds = means * float(rng.uniform(0.15, 0.5))
    way, empty = int(rng.integers(7)), int(rng.integers(3))

    def change(index: int, sample: Sample) -> Sample:
        x = (means + stds * (3 * sample['image'] - 1.5)).clamp(min=1).round()
        if index < empty:
            return sample | {'image': torch.zeros_like(x)}
        missing = torch.zeros(32, 32).bool()
        missing[:4] = True
        image = [
            x,
            x + 1000,
            torch.where(missing, 0.0 if index % 2 else -9999.0, x),
            x / 10_000,
            (x - x.min()) / (x.max() - x.min()),
            (x - means) / stds,
            x / x.max(),
        ][way]
        return sample | {'image': image}

    own = {'mean': means.flatten().tolist(), 'std': stds.flatten().tolist()}
    scaling = {'method': 'standard'} | (own if rng.random() < 0.5 else {})
    options: dict[str, Any] = {'bands': ['B02', 'B03', 'B04'], 'scaling': scaling}
    if way < 3:
        fit(Chips(change=change), **options, **COSINE)
        return
    with pytest.raises(SettingError, match='scaling: null'):
        fit(Chips(change=change), **options, **COSINE)


def numbers_not_finite(rng: Random, folder: Path) -> None:
    """Pixels and labels that are not finite teach nothing, whichever they are."""
    where = torch.from_numpy(rng.random((8, 3, 32, 32)) < rng.choice([0.01, 0.3]))
    where[rng.random(8) < 0.3] = False
    where[rng.random(8) < 0.2] = True
    mask = torch.from_numpy(rng.integers(0, 3, (8, 32, 32))).float()
    kind = rng.choice(['image', 'mask', 'label'])
    first, second = rng.permutation([np.nan, np.inf, -np.inf])[:2]
    made = []
    # an entry of a label or mask that is unknown
    usual = {'image': second, 'mask': 255, 'label': -1}[str(kind)]
    for value in (first, second, usual):

        def damaged(index: int, sample: Sample, value: float = value) -> Sample:
            lost = where[index]
            if kind == 'label':
                label = sample['label'].masked_fill(lost[:, 0, 0], value)
                return sample | {'label': label}
            if kind == 'mask':
                taught = mask[index].masked_fill(lost[0], value)
                return {'image': sample['image'], 'mask': taught}
            return sample | {'image': sample['image'].masked_fill(lost, value)}

        task = fit(Chips(change=damaged), **COSINE)
        made.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    assert made[0].isfinite().all()
    assert made[0].equal(made[1])
    assert made[0].equal(made[2])


def unknown_classes(rng: Random, folder: Path) -> None:
    """Pixels of 255, nodata or an unknown class are unknown, not ground without it."""
    value, dtype = [
        (255, torch.uint8), (7, torch.uint8), (-9999, torch.int16), (3, torch.int64),
        (-1, torch.int32), (1e30, torch.float32), (65535, torch.int32),
    ][rng.integers(7)]  # fmt: skip
    share = float(rng.choice([0, 0.05, 0.4, 0.6, 0.95, 1]))
    truth = torch.from_numpy(rng.choice(3, (2, 32, 32), p=rng.dirichlet([0.3] * 3)))
    lost = torch.from_numpy(rng.random((2, 32, 32)) < share)
    mask = truth.to(dtype).masked_fill(lost, value)
    task = tiny_task(**RGB, task=str(rng.choice(['multilabel', 'multiclass'])))
    presence = task.presence({'mask': mask})
    assert presence.equal(task.presence({'mask': truth.masked_fill(lost, 255)}))
    for row, known, classes in zip(presence, ~lost, truth, strict=True):
        held = {int(c) for c in classes[known].unique()}
        assert {c for c in range(3) if row[c] == 1} <= held
        if not held:
            assert row.tolist() == [UNKNOWN] * 3
        elif (
            task.hparams['task'] == 'multilabel' and known.float().mean() < MIN_COVERAGE
        ):
            assert not (row == 0).any()
    labels = {'image': torch.rand(2, 3, 32, 32), 'mask': mask}
    nothing = pytest.raises(DataError, match='has a known label')
    with nullcontext() if (presence != UNKNOWN).any() else nothing:
        fit(
            Chips(change=lambda i, s: {k: v[i % 2] for k, v in labels.items()}),
            task=task.hparams['task'], **COSINE,
        )  # fmt: skip


def write_images(root: Path, names: Sequence[str], suffix: str = '.png') -> None:
    """Write an image of 8 px for each name, of its number in the red band."""
    for number, name in enumerate(names):
        path = root / 'images' / f'{name}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.tif': 'TIFF'}
        kind = kinds.get(suffix.lower(), 'PNG')
        Image.new('RGB', (8, 8), (20 * number, 0, 0)).save(path, kind)


def contradictory_rows(rng: Random, folder: Path) -> None:
    """A chip with two different labels is refused; the same label twice is no fault."""
    names = [f'{WORDS[i]}_{i}' for i in rng.permutation(len(WORDS))[:4]]
    write_images(folder, names)
    labels = [['x', 'y', 'x;y'][i] for i in rng.integers(0, 3, 4)]
    again, differs = int(rng.integers(4)), rng.random() < 0.5
    other = {'x': 'y', 'y': 'x;y', 'x;y': 'x'}[labels[again]]
    # one spelling twice is refused by ImageFolder whatever the labels are
    form = '{}' if differs and rng.random() < 0.5 else '{}.png'
    rows = [*zip(names, labels, strict=True)]
    second = (form.format(names[again]), other if differs else labels[again])
    rows.insert(int(rng.integers(5)), second)
    table = folder / 'labels.csv'
    lines = [f'"{name}","{label}"' for name, label in [('image', 'classes'), *rows]]
    table.write_text('\n'.join(lines), encoding='utf-8')
    if differs:
        with pytest.raises(LabelError, match=r'different labels|as in line'):
            open_images(folder, labels='labels.csv')
        with pytest.raises(LabelError, match=r'rows \d+ and \d+'):
            TableLabels(table, 'image', 'classes')
        return
    images = open_images(folder, labels='labels.csv')
    for index, name in enumerate(images.names):
        label = images.image_label(index)
        expected = labels[names.index(name)]
        assert label is not None
        assert label.tolist() == [float(c in expected) for c in 'xy']
    assert len(TableLabels(table, 'image', 'classes')) == 4


def open_images(root: Path, **options: Any) -> ImageFolder:
    """Open all images of a folder for training."""
    patterns: dict[str, Any] = {'images': 'images/{name}.*', 'masks': None}
    split = options.pop('split', 'train')
    if 'list_file' not in options:
        patterns['shares'] = [1, 0, 0]
    return ImageFolder(root, split, ['x', 'y'], **(patterns | options))


def classes_named_twice(rng: Random, folder: Path) -> None:
    """Names that differ by case, blanks or Unicode form alone are one class."""
    names = [f'{WORDS[i]}{i}' for i in rng.permutation(len(WORDS))[:4]]
    twice = rng.random() < 0.7
    if twice:
        name = names[rng.integers(4)]
        wide = ''.join(chr(ord(c) + 0xFEE0) if '!' <= c <= '~' else c for c in name)
        others = [
            name, name.upper(), f' {name}', f'{name}\t', name.replace(' ', '  '), wide,
            unicodedata.normalize('NFD', name),
        ]  # fmt: skip
        names.insert(int(rng.integers(5)), others[rng.integers(len(others))])
    (folder / 't.csv').write_text('tile,classes\na,' + f'"{names[0]}"\n', 'utf-8')
    write_images(folder, ['a'])

    def attempts() -> list[Any]:
        return [
            lambda: tiny_task(
                num_classes=len(names), class_names=names, class_colors=None
            ),
            lambda: ImageFolder(
                folder, 'train', names, images='images/{name}.*', masks=None,
                shares=[1, 0, 0],
            ),
            lambda: TableLabels(folder / 't.csv', 'tile', 'classes', names),
        ]  # fmt: skip

    for attempt in attempts():
        if twice:
            with pytest.raises(SettingError, match=r'twice|duplicates|printable'):
                attempt()
        else:
            attempt()


def chips_in_two_splits(rng: Random, folder: Path) -> None:
    """A chip in the lists of training and of another split is refused."""
    names = [f'{WORDS[i]}_{i}' for i in rng.permutation(len(WORDS))]
    write_images(folder, names)
    at = sorted(rng.choice(np.arange(1, 9), 2, replace=False).tolist())
    parts = dict(zip(('train', 'val', 'test'), np.split(names, at), strict=True))
    lists = {split: [str(name) for name in part] for split, part in parts.items()}
    other = str(rng.choice(['val', 'test']))
    both = rng.random() < 0.6
    if both:
        name = str(rng.choice(lists['train']))
        form = FORMS[int(rng.integers(2))]
        lists[other].append(unicodedata.normalize(form, name))
    for split, part in lists.items():
        end = '\r\n' if rng.random() < 0.5 else '\n'
        coding = 'utf-8-sig' if rng.random() < 0.5 else 'utf-8'
        (folder / f'{split}.txt').write_bytes(end.join(part).encode(coding))
    if both:
        with pytest.raises(DataError, match='both name'):
            open_images(folder, list_file='{split}.txt', split=other)
        return
    for split, part in lists.items():
        images = open_images(folder, list_file='{split}.txt', split=split)
        assert images.names == [unicodedata.normalize('NFC', name) for name in part]


def files_in_two_splits(rng: Random, folder: Path) -> None:
    """A file that is linked into the folders or lists of two splits is refused."""
    listed = rng.random() < 0.5
    lists: dict[str, list[str]] = {}
    for split in ('train', 'val', 'test'):
        lists[split] = [f'{split}/a_{split}', f'{split}/b_{split}']
        write_images(folder, lists[split])
    other = str(rng.choice(['val', 'test']))
    both = rng.random() < 0.6
    if both:
        pair = [str(split) for split in rng.permutation(['train', other])]
        there, link = (
            lists[pair[0]][0],
            f'{pair[1]}/{rng.choice(["a_" + pair[0], "z"])}',
        )
        path, target = (folder / 'images' / f'{n}.png' for n in (link, there))
        kind = rng.integers(3)
        if kind == 0:
            path.symlink_to(target)
        elif kind == 1:
            path.hardlink_to(target)
        else:
            path.with_suffix('').symlink_to(target.parent)
            link = f'{link}/{target.stem}'
        lists[pair[1]].append(link)
    options: dict[str, Any] = {'images': 'images/{split}/{name}.*', 'list_file': None}
    if listed:
        options = {'list_file': '{split}.txt'}
        for split, names in lists.items():
            (folder / f'{split}.txt').write_text('\n'.join(names))
    if both:
        with pytest.raises(DataError, match='one file in two splits'):
            open_images(folder, split=other, **options)
        return
    assert len(open_images(folder, split=other, **options)) == 2


def odd_file_names(rng: Random, folder: Path) -> None:
    """Files of any name and suffix are found, each with its own pixels; no others."""
    names = [f'{WORDS[i]}_{i}' for i in rng.permutation(len(WORDS))[:5]]
    if rng.random() < 0.5:
        names = [f'{"ab"[i % 2]}/{name}' for i, name in enumerate(names)]
    form = FORMS[int(rng.integers(2))]
    names = [unicodedata.normalize(form, name) for name in names]
    suffix = str(rng.choice(['.png', '.PNG', '.jpg', '.JPEG', '.Tif']))
    write_images(folder, names, suffix)
    for junk in ('._a.png', '.hidden/c.png', '__MACOSX/a.png', 'Thumbs.db', 'x.txt'):
        if rng.random() < 0.5:
            path = folder / 'images' / junk
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b'no image')
    if rng.random() < 0.4:
        (folder / 'images' / 'loop').symlink_to('.')
    if rng.random() < 0.4:
        link = folder / 'images' / f'z{suffix}'
        link.symlink_to(f'{names[0]}{suffix}')
    one = rng.random() < 0.5
    pattern = 'images/{name}' + (suffix.lower() if one else '.*')
    images = open_images(folder, images=pattern)
    expected = {unicodedata.normalize('NFC', n): i for i, n in enumerate(names)}
    assert sorted(images.names) == sorted(expected)
    for index, name in enumerate(images.names):
        red = float(images[index]['image'][0].float().mean())
        assert abs(red - 20 * expected[name]) < 4 or (
            red <= 1 and abs(255 * red - 20 * expected[name]) < 4
        )


KINDS = {
    kind.__name__: kind
    for kind in (
        wrong_chips,
        channel_orders,
        scaled_numbers,
        numbers_not_finite,
        unknown_classes,
        contradictory_rows,
        classes_named_twice,
        chips_in_two_splits,
        files_in_two_splits,
        odd_file_names,
    )
}
#: Kinds that know which of their inputs are to be refused: another refusal is a fault.
RIGHT = frozenset(KINDS) - {'wrong_chips'}
