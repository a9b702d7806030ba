from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from tests.fakes.masks import CLASSES, coded, place, write_image, write_mask
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.datasets.mask_reference import MaskReference, match_masks
from torchgeo_ctm.datasets.pseudo_masks import MaskFacts, mask_facts
from torchgeo_ctm.errors import DataError, GridError, LabelWarning
from torchgeo_ctm.grids import Grid, Window
from torchgeo_ctm.samplers.labeled_scene import LabeledScene
from torchgeo_ctm.scaling import SENTINEL2_BANDS

CHIP = 8
ZONES = ('EPSG:32632', 'EPSG:32633')


def scene(path: Path) -> SceneWindows:
    return SceneWindows(path, SENTINEL2_BANDS, CHIP, CHIP)


def facts(path: Path) -> MaskFacts:
    return mask_facts(str(path))


def names(matched: list[list[MaskFacts]]) -> list[list[str]]:
    return [[Path(mask.path).name for mask in masks] for masks in matched]


def test_zones_and_lattices_are_matched_apart(tmp_path: Path) -> None:
    """Two zones, and pixels that lie between those of others: none is resampled."""
    scenes, masks = [], []
    for number, (left, zone) in enumerate(
        ((600_000, ZONES[0]), (600_000, ZONES[1]), (700_003, ZONES[0]))
    ):
        pixels, classes = coded(24, 24, 1000 * number)
        image = tmp_path / f'x_{number}.tif'
        scenes.append(scene(write_image(image, pixels, place(left), zone)))
        mask = write_mask(tmp_path / f'y_{number}.tif', classes, place(left), zone)
        masks.append(facts(mask))
    matched = match_masks(scenes, masks)
    assert names(matched) == [['y_0.tif'], ['y_1.tif'], ['y_2.tif']]
    for number, (image_, own) in enumerate(zip(scenes, matched, strict=True)):
        image_.reference = MaskReference(image_, own, CLASSES)
        window = Window(3, 5, CHIP, CHIP)
        sample = image_.sample(window, *image_.read(window))
        assert (sample['image'][0].long() % 3).equal(sample['mask'])
        assert sample['image'][0, 0, 0] == 1000 * number + 3 * 24 + 5


def test_dates_over_one_ground_stay_apart(tmp_path: Path) -> None:
    """By the scene that a mask names, or that its file is named after."""
    scenes, masks = [], []
    for number, day in enumerate(('day_1', 'day_2', 'day_10')):
        pixels, classes = coded(16, 16, 1000 * number)
        scenes.append(scene(write_image(tmp_path / f'{day}.tif', pixels)))
        name = 'other' if number == 1 else f'{day}_0_0'
        tag = 'day_2.tif' if number == 1 else None
        path = tmp_path / 'masks' / f'{name}.tif'
        masks.append(facts(write_mask(path, classes, scene=tag)))
    matched = match_masks(scenes, masks)
    assert names(matched) == [['day_1_0_0.tif'], ['other.tif'], ['day_10_0_0.tif']]


def test_a_mask_over_several_scenes(tmp_path: Path) -> None:
    """Scenes side by side share it."""
    for number in range(2):
        pixels, _ = coded(16, 16)
        write_image(tmp_path / f'{number}.tif', pixels, place(600_000 + 160 * number))
    _, classes = coded(16, 32)
    mask = facts(write_mask(tmp_path / 'mask.tif', classes))
    scenes = [scene(tmp_path / f'{number}.tif') for number in range(2)]
    assert match_masks(scenes, [mask]) == [[mask], [mask]]
    reference = MaskReference(scenes[1], [mask], CLASSES)
    np.testing.assert_array_equal(
        reference.read(Window(2, 0, 5, 16)), classes[2:7, 16:]
    )


def test_what_cannot_be_matched_is_told(tmp_path: Path) -> None:
    pixels, classes = coded(16, 16)
    image = scene(write_image(tmp_path / 'image.tif', pixels))
    here = facts(write_mask(tmp_path / 'here.tif', classes))
    away = write_mask(tmp_path / 'away.tif', classes, place(700_000))
    between = write_mask(tmp_path / 'between.tif', classes, place(600_004))
    lost = [facts(path) for path in (away, between)]
    with pytest.warns(LabelWarning, match=r'2 masks .*first: .*away\.tif'):
        assert match_masks([image], [here, *lost]) == [[here]]
    with pytest.raises(DataError, match='None of 2 masks lies on the pixels'):
        match_masks([image], lost)
    again = scene(write_image(tmp_path / 'again.tif', pixels))
    with pytest.warns(LabelWarning, match='1 masks lie on several images'):
        assert match_masks([image, again], [here]) == [[here], []]
    turned = here._replace(grid=here.grid._replace(transform=Affine.rotation(10)))
    with pytest.raises(GridError, match='not north up'):
        match_masks([image], [turned])
    nowhere = here._replace(grid=here.grid._replace(crs=None))
    with pytest.raises(GridError, match='has no CRS'):
        match_masks([image], [nowhere])


def test_masks_of_parts_of_a_scene(tmp_path: Path) -> None:
    """Windows read across masks, beyond them, and where the first has no class."""
    pixels, classes = coded(40, 40)
    image = scene(write_image(tmp_path / 'image.tif', pixels))
    expected = np.full((40, 40), 255, np.uint8)
    masks = []
    for number, (row, col) in enumerate(((-4, 5), (6, 10), (30, 30))):
        part = np.full((16, 16), 255, np.uint8)
        rows, cols = slice(max(row, 0), row + 16), slice(col, col + 16)
        inner = classes[rows, cols].copy()
        inner[: 4 * (number == 0)] = 255
        part[max(-row, 0) :][: inner.shape[0], : inner.shape[1]] = inner
        corner = place(600_000 + 10 * col, 5_000_000 - 10 * row)
        masks.append(facts(write_mask(tmp_path / f'{number}.tif', part, corner)))
        here = expected[rows, cols]
        np.copyto(here, inner, where=here == 255)
    reference = MaskReference(image, masks, CLASSES)
    for window in (Window(0, 0, 40, 40), Window(3, 4, 20, 11), Window(33, 33, 7, 7)):
        row, col, height, width = window
        np.testing.assert_array_equal(
            reference.read(window), expected[row : row + height, col : col + width]
        )
    boxes = reference.extents(image.grid).tolist()
    assert boxes == [[-4, 5, 12, 21], [6, 10, 22, 26], [30, 30, 46, 46]]


def test_windows_without_a_class_have_no_label(tmp_path: Path) -> None:
    pixels, classes = coded(64, 64)
    classes[:, :48] = 255
    image = scene(write_image(tmp_path / 'image.tif', pixels))
    low = np.full((64, 64), 40, np.uint8)
    low[:, 56:] = 80
    path = write_mask(tmp_path / 'mask.tif', classes, confidence=low)
    for min_confidence, first in ((0, 48), (60, 56)):
        reference = MaskReference(image, [facts(path)], CLASSES, min_confidence)
        labeled = LabeledScene(image, reference)
        for col in range(57):
            window = Window(20, col, CHIP, CHIP)
            assert (labeled.label(window) is None) == (col + CHIP <= first)
        assert (reference.read(Window(0, 0, 64, 64))[:, :first] == 255).all()
    label = reference.label(Grid(CHIP, CHIP, image.grid.crs, place(600_000 + 560)))
    assert label is not None
    assert not label.known.any()
