from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from tests.fakes.masks import coded, place, write_image, write_mask
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.datasets.ground_chips import GroundSampler, query_of, side_by_side
from torchgeo_ctm.datasets.ground_pieces import Piece, split_ground
from torchgeo_ctm.datasets.paired import PairedDatasets, Pairing, pair
from torchgeo_ctm.datasets.pseudo_masks import mask_facts
from torchgeo_ctm.errors import (
    DataError,
    GridError,
    LabelError,
    LabelWarning,
    SettingError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS

CHIP = 8
ZONES = ('EPSG:32632', 'EPSG:32633')


def scene(path: Path) -> SceneWindows:
    return SceneWindows(path, SENTINEL2_BANDS, CHIP, CHIP)


def ground(
    folder: Path, size: int = 64, left: float = 600_000, crs: str = ZONES[0]
) -> list[Pairing]:
    """One image and its mask."""
    pixels, classes = coded(size, size)
    image = write_image(folder / 'image.tif', pixels, place(left), crs)
    mask = write_mask(folder / 'masks' / 'mask.tif', classes, place(left), crs)
    return pair([scene(image)], [mask_facts(str(mask))])


def fit(sample: dict[str, torch.Tensor]) -> bool:
    """Whether mask and image show the same pixels."""
    return torch.equal(sample['image'][0].long() % 3, sample['mask'])


def test_zones_and_lattices_are_paired_apart(tmp_path: Path) -> None:
    """Two zones, and pixels that lie between those of others: none is resampled."""
    scenes, masks = [], []
    for number, (left, zone) in enumerate(
        ((600_000, ZONES[0]), (600_000, ZONES[1]), (700_003, ZONES[0]))
    ):
        pixels, classes = coded(24, 24, 1000 * number)
        image = tmp_path / f'x_{number}.tif'
        scenes.append(scene(write_image(image, pixels, place(left), zone)))
        mask = write_mask(tmp_path / f'y_{number}.tif', classes, place(left), zone)
        masks.append(mask_facts(str(mask)))
    pairings = pair(scenes, masks)
    assert [pairing.lattice for pairing in pairings] == [0, 1, 2]
    dataset = PairedDatasets(pairings)
    assert len(dataset) == 3
    firsts = []
    for number, pairing in enumerate(pairings):
        sample = dataset[query_of(pairing, Piece(number, 3, 5, CHIP, CHIP))]
        assert sample['image'].shape == (13, CHIP, CHIP)
        assert fit(sample)
        firsts.append(int(sample['image'][0, 0, 0]))
    assert firsts == [n + 3 * 24 + 5 for n in (0, 1000, 2000)]


def test_dates_over_one_ground_stay_apart(tmp_path: Path) -> None:
    """By the scene that a mask names, or that its file is named after."""
    scenes, masks = [], []
    for number, day in enumerate(('day_1', 'day_2', 'day_10')):
        pixels, classes = coded(16, 16, 1000 * number)
        scenes.append(scene(write_image(tmp_path / f'{day}.tif', pixels)))
        name = 'other' if number == 1 else f'{day}_0_0'
        tag = 'day_2.tif' if number == 1 else None
        path = tmp_path / 'masks' / f'{name}.tif'
        masks.append(mask_facts(str(write_mask(path, classes, scene=tag))))
    pairings = pair(scenes, masks)
    assert len(pairings) == 3
    for number, pairing in enumerate(pairings):
        sample = pairing.dataset[query_of(pairing, Piece(number, 0, 0, CHIP, CHIP))[1]]
        assert fit(sample)
        assert sample['image'][0, 0, 0] == 1000 * number


def test_what_cannot_be_paired_is_told(tmp_path: Path) -> None:
    pixels, classes = coded(16, 16)
    image = scene(write_image(tmp_path / 'image.tif', pixels))
    here = mask_facts(str(write_mask(tmp_path / 'here.tif', classes)))
    away = write_mask(tmp_path / 'away.tif', classes, place(700_000))
    between = write_mask(tmp_path / 'between.tif', classes, place(600_004))
    lost = [mask_facts(str(path)) for path in (away, between)]
    with pytest.warns(LabelWarning, match=r'2 masks .* first .*away\.tif'):
        assert len(pair([image], [here, *lost])[0].dataset) == 1
    with pytest.raises(DataError, match='none of 2 masks lies on the pixels'):
        pair([image], lost)
    again = scene(write_image(tmp_path / 'again.tif', pixels))
    with pytest.warns(LabelWarning, match='1 masks lie on several images'):
        pair([image, again], [here])
    turned = here._replace(grid=here.grid._replace(transform=Affine.rotation(10)))
    with pytest.raises(GridError, match='not north up'):
        pair([image], [turned])


@pytest.mark.parametrize(('size', 'chip'), [(64, 8), (70, 8), (40, 16), (33, 16)])
def test_no_ground_serves_both(tmp_path: Path, size: int, chip: int) -> None:
    pairings = ground(tmp_path, size)
    seen = np.zeros((size, size), int)
    for seed in range(3):
        train, val = split_ground(pairings, chip, 0.25, seed)
        for pieces in (train, val):
            assert pieces
            for _, row, col, height, width in pieces:
                assert min(height, width) >= chip
                seen[row : row + height, col : col + width] += 1
    # three seeds: each pixel belongs to one side each time, none is lost
    assert (seen == 3).all()
    assert split_ground(pairings, chip, 0.25, 1) == split_ground(
        pairings, chip, 0.25, 1
    )


def test_small_chips_and_dates_go_with_their_ground(tmp_path: Path) -> None:
    scenes, masks = [], []
    for day in range(2):
        for number in range(12):
            pixels, classes = coded(CHIP, CHIP)
            corner = place(600_000 + 160 * number)
            name = f'd{day}_n{number}'
            image = tmp_path / f'{name}.tif'
            scenes.append(scene(write_image(image, pixels, corner)))
            mask = tmp_path / 'masks' / f'{name}_mask.tif'
            masks.append(mask_facts(str(write_mask(mask, classes, corner))))
    pairings = pair(scenes, masks)
    train, val = split_ground(pairings, CHIP, 0.3)
    assert len(train) + len(val) == 24
    assert not {p.col for p in train} & {p.col for p in val}


def test_validation_covers_its_ground_and_no_other(tmp_path: Path) -> None:
    pairings = ground(tmp_path, 70)
    _, val = split_ground(pairings, CHIP, 0.3)
    dataset = PairedDatasets(pairings)
    wanted = np.zeros((70, 70), bool)
    for _, row, col, height, width in val:
        wanted[row : row + height, col : col + width] = True
    found = np.zeros_like(wanted)
    for place_ in side_by_side(pairings, val, CHIP):
        sample = dataset[place_]
        assert sample['mask'].shape == (CHIP, CHIP)
        assert fit(sample)
        row, col = divmod(int(sample['image'][0, 0, 0]), 70)
        found[row : row + CHIP, col : col + CHIP] = True
    assert np.array_equal(found, wanted)


def test_draws_stay_inside_and_repeat(tmp_path: Path) -> None:
    pairings = ground(tmp_path, 40)
    pieces = [Piece(0, 0, 0, 8, 8), Piece(0, 16, 16, 24, 24)]
    sampler = GroundSampler(pairings, pieces, CHIP)
    assert len(sampler) == 1 + 9
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        draws.append([repr(place) for place in sampler])
    assert draws[0] == draws[1]
    dataset = PairedDatasets(pairings)
    corners = set()
    for place_ in GroundSampler(pairings, pieces, CHIP, length=200):
        sample = dataset[place_]
        assert fit(sample)
        corners.add(divmod(int(sample['image'][0, 0, 0]), 40))
    rows = {row for row, _ in corners}
    # both pieces, from the first to the last place where a chip fits
    assert {0, 16, 32} <= rows
    assert rows <= {0, *range(16, 33)}


def test_ground_without_a_class_is_not_drawn(tmp_path: Path) -> None:
    pixels, classes = coded(64, 64)
    classes[:, :48] = 255
    image = scene(write_image(tmp_path / 'image.tif', pixels))
    mask = mask_facts(str(write_mask(tmp_path / 'masks' / 'mask.tif', classes)))
    pairings = pair([image], [mask])
    pieces = [Piece(0, 0, 0, 64, 64)]
    dataset = PairedDatasets(pairings)
    for place_ in GroundSampler(pairings, pieces, CHIP, length=50):
        assert (dataset[place_]['mask'] != 255).any()
    assert len(side_by_side(pairings, pieces, CHIP)) == 2 * 8
    empty = [Piece(0, 0, 0, 64, 40)]
    with pytest.raises(LabelError, match='lower min_confidence'):
        side_by_side(pairings, empty, CHIP)
    with pytest.raises(LabelError, match='lower min_confidence'):
        next(iter(GroundSampler(pairings, empty, CHIP)))


def test_places_too_small_for_a_chip_are_counted(tmp_path: Path) -> None:
    pairings = ground(tmp_path, 32)
    small = ground(tmp_path / 'small', 7, 700_000)
    with pytest.warns(LabelWarning, match='1 of 2 places .* smaller than a chip of 8'):
        train, val = split_ground([*pairings, *small], CHIP, 0.3)
    assert {piece.pairing for piece in (*train, *val)} == {0}


def test_ground_that_cannot_be_split(tmp_path: Path) -> None:
    pairings = ground(tmp_path, 15)
    with pytest.raises(SettingError, match='holds 1 chips of 8 px'):
        split_ground(pairings, CHIP, 0.1)
    for share in (0, 1, -0.1):
        with pytest.raises(SettingError, match=r'nearest: 0\.1'):
            split_ground(pairings, CHIP, share)
