import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fakes.image_folders import blocks, every, paint, save, write_image_folder
from torchgeo_ctm.datasets import ImageFolder
from torchgeo_ctm.datasets.image_folder import drawn_split, pascal_colors
from torchgeo_ctm.errors import DataError, LabelError, LabelWarning, SettingError
from torchgeo_ctm.split import SPLITS

TWO = ['land', 'water']


def images_of(root: Path, **more: Any) -> ImageFolder:
    return ImageFolder(root, **({'classes': TWO} | more))


def test_a_sample_is_an_image_and_its_own_mask(tmp_path: Path) -> None:
    write_image_folder(tmp_path, classes=2)
    for split in ('train', 'val', 'test'):
        images = images_of(tmp_path, split=split)
        assert len(images) == 3
        for sample in every(images):
            assert sorted(sample) == ['image', 'mask']
            assert sample['image'].dtype == torch.float32
            assert sample['mask'].dtype == torch.int64
            colors = paint(sample['mask'].numpy().astype(np.uint8))
            assert np.array_equal(sample['image'].permute(1, 2, 0), colors)
    assert images.chip_name(0) == 'test_0'


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', 'CMYK', '1'])
def test_every_8_bit_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'images' / 'train_0.png'
    picture = Image.open(path).convert(mode)
    path.unlink()
    picture.save(path.with_suffix('.tif'))
    image = images_of(tmp_path)[0]['image']
    assert image.shape == (3, 40, 48)
    if mode in ('L', 'LA', '1'):
        assert (image == image[:1]).all()
    if mode == 'RGBA':
        original = images_of(tmp_path)[0]
        colors = paint(original['mask'].numpy().astype(np.uint8))
        assert np.array_equal(image.permute(1, 2, 0), colors)


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'images' / 'train_0.png'
    save(path, np.full((40, 48), 900, np.uint16))
    with pytest.raises(DataError, match=r'train_0\.png has more than 8 bits'):
        images_of(tmp_path)[0]


@pytest.mark.parametrize('kind', ['grey', 'palette', 'rgb', 'rgba', 'sixteen', 'bit'])
def test_masks_keep_their_numbers(tmp_path: Path, kind: str) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'masks' / 'train_0.png'
    labels = np.asarray(Image.open(path))
    if kind == 'palette':
        save(path, labels, palette=True)
    elif kind in ('rgb', 'rgba'):
        three = np.repeat(labels[..., None], 3, axis=2)
        full = np.full((40, 48, 1), 255, np.uint8)
        save(path, three if kind == 'rgb' else np.dstack([three, full]))
    elif kind == 'sixteen':
        save(path, labels.astype(np.uint16))
    elif kind == 'bit':
        save(path, labels == 1)
    assert np.array_equal(images_of(tmp_path)[0]['mask'], labels)


def test_a_mask_in_colours_is_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'masks' / 'train_0.png'
    save(path, paint(blocks(0, 21, 40, 48)))
    with pytest.raises(DataError, match='one integer per pixel'):
        images_of(tmp_path)[0]


def test_values_outside_the_class_list(tmp_path: Path) -> None:
    write_image_folder(tmp_path, classes=9)
    path = tmp_path / 'train' / 'masks' / 'train_0.png'
    labels = np.zeros((40, 48), np.uint8)
    labels[:5], labels[5:9], labels[9:12] = 255, 4, 7
    save(path, labels)
    with pytest.raises(
        DataError,
        match=re.escape(
            'masks/train_0.png holds 4, 7, expected values of classes: 0…1, 255. '
            'The closest to 4 is 1 (water).'
        ),
    ):
        images_of(tmp_path)[0]


def test_jpeg_masks_are_explained(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'masks' / 'train_0.png'
    path.unlink()
    noise = np.random.default_rng(0).integers(0, 9, (40, 48)).astype(np.uint8)
    save(path.with_suffix('.jpg'), noise)
    with pytest.raises(DataError, match=r'JPEG changes values\. Store masks as PNG'):
        images_of(tmp_path)[0]


def test_values_can_stand_for_classes_by_name(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=1)
    path = tmp_path / 'train' / 'masks' / 'train_0.png'
    labels = np.asarray(Image.open(path)).copy()
    labels[labels == 1] = 255
    labels[:3] = 9
    save(path, labels)
    values = {0: 'land', 255: 'water', 9: None}
    mask = images_of(tmp_path, mask_values=values)[0]['mask']
    assert torch.equal(mask[3:], torch.from_numpy((labels[3:] == 255) * 1))
    assert (mask[:3] == 255).all()
    with pytest.raises(
        SettingError, match=r"unknown class 'watr', .* Did you mean 'water'"
    ):
        images_of(tmp_path, mask_values={0: 'watr'})
    with pytest.raises(SettingError, match='has the value -1, expected an integer'):
        images_of(tmp_path, mask_values={-1: 'water'})


def test_masks_of_0_and_255_alone_are_asked_about(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for path in (tmp_path / 'train' / 'masks').iterdir():
        save(path, (np.asarray(Image.open(path)) * 255).astype(np.uint8))
    with pytest.warns(LabelWarning, match=r"mask_values=\{0: 'land', 255: 'water'\}"):
        images_of(tmp_path)
    # whoever has said what 255 is, is not asked
    assert len(images_of(tmp_path, mask_values={0: 'land', 255: 'water'})) == 3


def test_images_without_masks_are_counted(tmp_path: Path) -> None:
    write_image_folder(tmp_path, count=6)
    for number in range(4):
        (tmp_path / 'train' / 'masks' / f'train_{number}.png').unlink()
    with pytest.warns(
        LabelWarning,
        match=r'^4 of 6 images .* have no mask .*: train_0, train_1, train_2, …$',
    ):
        images = images_of(tmp_path)
    assert images.names == ['train_4', 'train_5']
    for number in (4, 5):
        (tmp_path / 'train' / 'masks' / f'train_{number}.png').unlink()
    with (
        pytest.warns(LabelWarning, match='6 of 6'),
        pytest.raises(DataError, match="has no image of split 'train'"),
    ):
        images_of(tmp_path)


def test_sizes_that_differ(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    save(tmp_path / 'train' / 'masks' / 'train_0.png', np.zeros((48, 40), np.uint8))
    with pytest.raises(DataError, match='has 48 × 40 px, its image 40 × 48 px'):
        images_of(tmp_path)[0]


def test_a_missing_folder_and_what_is_nearest(tmp_path: Path) -> None:
    write_image_folder(tmp_path / 'mydata')
    with pytest.raises(DataError, match=r"no folder 'my_data'. Did you mean 'mydata'"):
        images_of(tmp_path / 'my_data')
    (tmp_path / 'mydata' / 'val').rename(tmp_path / 'mydata' / 'valid')
    with pytest.raises(DataError, match=r"no folder 'val'. Did you mean 'valid'"):
        images_of(tmp_path / 'mydata', split='val')
    assert (
        len(images_of(tmp_path / 'mydata', split='val', splits={'val': 'valid'})) == 3
    )


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    path = tmp_path / 'train' / 'images' / 'train_1.png'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r'Cannot read .*train_1\.png as an image'):
        images_of(tmp_path)[1]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    save(tmp_path / 'train' / 'images' / 'train_1.jpg', paint(blocks(0, 2, 40, 48)))
    with pytest.raises(DataError, match="are both named 'train_1'"):
        images_of(tmp_path)


def test_other_files_are_no_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    folder = tmp_path / 'train' / 'images'
    for name in ('._train_0.png', 'Thumbs.db', 'train_9.txt'):
        (folder / name).write_bytes(b'0')
    assert images_of(tmp_path).names == ['train_0', 'train_1', 'train_2']


def test_names_may_reach_over_folders(tmp_path: Path) -> None:
    """Cityscapes' layout: split, city, and a suffix of the name for each kind."""
    labels = blocks(0, 2, 20, 20)
    save(tmp_path / 'images' / 'train' / 'ulm' / 'ulm_0_photo.png', paint(labels))
    save(tmp_path / 'truth' / 'train' / 'ulm' / 'ulm_0_ids.png', labels)
    save(tmp_path / 'truth' / 'train' / 'ulm' / 'ulm_0_color.png', paint(labels))
    images = images_of(
        tmp_path,
        images='images/{split}/{name}_photo.png',
        masks='truth/{split}/{name}_ids.png',
    )
    assert images.names == ['ulm/ulm_0']
    assert images.chip_name(0) == 'ulm_ulm_0'
    assert np.array_equal(images[0]['mask'], labels)


def flat(root: Path, count: int = 6) -> dict[str, Any]:
    """Write all images into one folder; return the patterns."""
    for number in range(count):
        labels = blocks(number, 2, 20, 20)
        save(root / 'images' / f'tile.{number}.png', paint(labels))
        save(root / 'masks' / f'tile.{number}.png', labels)
    return {'images': 'images/{name}.png', 'masks': 'masks/{name}.png'}


def test_lists_say_which_images(tmp_path: Path) -> None:
    patterns = flat(tmp_path) | {'list_file': '{split}.txt'}
    (tmp_path / 'train.txt').write_text('tile.4\ntile.1\n\n')
    assert images_of(tmp_path, **patterns).names == ['tile.4', 'tile.1']
    (tmp_path / 'train.txt').write_text('tile.4\ntile.7\n')
    with pytest.raises(
        DataError,
        match=r'lists 2 images, 1 of them are missing: tile\.7\. Did you mean',
    ):
        images_of(tmp_path, **patterns)
    (tmp_path / 'train.txt').write_text('tile.4\ntile.4\n')
    with pytest.raises(DataError, match=r'lists tile\.4 twice'):
        images_of(tmp_path, **patterns)
    with pytest.raises(DataError, match=r'Cannot read .*val\.txt as a list'):
        images_of(tmp_path, split='val', **patterns)


def test_one_folder_for_all_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='is the same for every split'):
        images_of(tmp_path, **flat(tmp_path))


def test_shares_draw_by_name_alone(tmp_path: Path) -> None:
    shares = (0.6, 0.2, 0.2)
    patterns = flat(tmp_path, 40) | {'shares': shares}
    splits = [images_of(tmp_path, split=s, **patterns) for s in SPLITS]
    names = [name for split in splits for name in split.names]
    assert sorted(names) == sorted({f'tile.{number}' for number in range(40)})
    # others come, and nobody moves
    flat(tmp_path, 60)
    later = images_of(tmp_path, split='val', **patterns).names
    assert set(splits[1].names) <= set(later)
    drawn = [drawn_split(f'image {number}', shares) for number in range(4000)]
    for split, share in zip(SPLITS, shares, strict=True):
        assert drawn.count(split) / 4000 == pytest.approx(share, abs=0.03)
    with pytest.raises(SettingError, match='three that sum to 1'):
        images_of(tmp_path, **(patterns | {'shares': (0.8, 0.1)}))


@pytest.mark.parametrize(
    'table',
    [
        'image,classes\ntrain_0,water\ntrain_1.png,Land;water\ntrain_2,\n',
        'image,water,land\ntrain_0,1,0\ntrain_1.png,1,1\ntrain_2,0,0\n',
    ],
)
def test_image_level_labels_instead_of_masks(tmp_path: Path, table: str) -> None:
    write_image_folder(tmp_path)
    (tmp_path / 'labels.csv').write_text(table)
    images = images_of(tmp_path, masks=None, labels='labels.csv')
    assert [sorted(sample) for sample in every(images)] == [['image', 'label']] * 3
    labels = [sample['label'].tolist() for sample in every(images)]
    assert labels == [[0, 1], [1, 1], [0, 0]]
    both = images_of(tmp_path, labels='labels.csv')[1]
    assert sorted(both) == ['image', 'label', 'mask']


def test_images_without_a_label_are_counted(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / 'train.csv').write_text('image,classes\ntrain_1,water\n')
    with pytest.warns(LabelWarning, match='2 of 3 images .* have no label'):
        images = images_of(tmp_path, masks=None, labels='{split}.csv')
    assert images.names == ['train_1']


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ('image,classes\ntrain_0,watr\n', r"line 2: .*'watr'.*water"),
        ('imge,classes\ntrain_0,water\n', r"no column 'image', .* Did you mean 'imge'"),
        ('image,classes\na,water\na,land\n', r"line 3: image 'a' is repeated"),
        ('image,water\na,1\n', r'has no column for land'),
        ('image,water,land\na,1,yes\n', r"line 2: land is 'yes', expected 0 or 1"),
        ('', r"no column 'image', found: none"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, table: str, message: str) -> None:
    write_image_folder(tmp_path)
    (tmp_path / 'labels.csv').write_text(table)
    with pytest.raises(LabelError, match=message):
        images_of(tmp_path, masks=None, labels='labels.csv')


def test_a_missing_table(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    with pytest.raises(LabelError, match=r'Cannot read .*labels\.csv as a CSV'):
        images_of(tmp_path, masks=None, labels='labels.csv')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'split': 'vali'}, r"Unknown split 'vali', .* Did you mean 'val'"),
        ({'classes': []}, 'a list of 1 to 255 names'),
        ({'classes': 'land'}, 'a list of 1 to 255 names'),
        ({'classes': ['land', 'land']}, "classes has 'land' twice"),
        ({'class_colors': ['#000000']}, 'class_colors has 1 entries, expected 2'),
        ({'images': '{split}/*.png'}, r'needs \{name\} once'),
    ],
)
def test_settings_that_contradict(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    write_image_folder(tmp_path)
    with pytest.raises(SettingError, match=message):
        images_of(tmp_path, **options)


def test_default_colours_are_vocs_and_differ() -> None:
    colors = pascal_colors(256)
    assert len(set(colors)) == 256
    # those that its masks carry: background, aeroplane, person, tvmonitor, void
    assert [colors[i] for i in (0, 1, 15, 20, 255)] == [
        '#000000', '#800000', '#c08080', '#004080', '#e0e0c0',
    ]  # fmt: skip
