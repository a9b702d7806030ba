import itertools
from collections import defaultdict

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from tests.fakes.labeled_scenes import footprint, grid_at
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.grids import Grid, Window
from torchgeo_ctm.samplers.blocks import (
    SPLITS,
    Block,
    GroundBlocks,
    assign_blocks,
    check_shares,
    cover,
    split_of,
)
from torchgeo_ctm.split import Split

WINDOW = 40

#: Scenes that lie upon each other, and a CRS in metres to compare them in.
OVERLAPPING = {
    'two UTM zones': (
        [grid_at(11.96, 48.02, 'EPSG:32632'), grid_at(11.99, 48.0, 'EPSG:32633')],
        '+proj=laea +lat_0=48 +lon_0=12',
    ),
    'far north, turned, and in degrees': (
        [
            grid_at(17.96, 71.02, 'EPSG:32633'),
            grid_at(18.0, 71.03, 'EPSG:32634', turn=20),
            grid_at(17.99, 71.01, 'EPSG:4326', pixel=0.0002),
        ],
        '+proj=laea +lat_0=71 +lon_0=18',
    ),
    'across the date line': (
        [grid_at(179.97, -17.0, 'EPSG:32760'), grid_at(-179.99, -17.02, 'EPSG:32701')],
        '+proj=laea +lat_0=-17 +lon_0=180',
    ),
    'polar and Mercator, two resolutions': (
        [
            grid_at(-44.0, 80.03, 'EPSG:3413'),
            grid_at(-44.1, 80.03, 'EPSG:3857', pixel=120),
        ],
        '+proj=laea +lat_0=80 +lon_0=-44',
    ),
}


def deal(
    grids: list[Grid], size: int = 3 * WINDOW, seed: int = 0
) -> tuple[GroundBlocks, dict[Block, Split]]:
    """Deal all blocks that scenes touch, each of weight 1."""
    blocks = GroundBlocks(grids, size)
    found = {
        block
        for number, grid in enumerate(grids)
        for touched in blocks.touched(number, cover(grid, WINDOW))
        for block in touched
    }
    return blocks, assign_blocks(dict.fromkeys(found, 1.0), (0.4, 0.3, 0.3), seed)


@pytest.mark.parametrize('name', OVERLAPPING)
def test_windows_of_two_splits_never_share_ground(name: str) -> None:
    grids, metres = OVERLAPPING[name]
    blocks, dealt = deal(grids)
    rng = np.random.default_rng(0)
    ground: dict[Split | None, list[shapely.Polygon]] = {}
    for number, grid in enumerate(grids):
        starts = rng.integers(0, [grid.height - WINDOW, grid.width - WINDOW], (400, 2))
        windows = [Window(row, col, WINDOW, WINDOW) for row, col in starts.tolist()]
        for window, touched in zip(
            windows, blocks.touched(number, windows), strict=True
        ):
            polygon = footprint(grid, window, metres)
            ground.setdefault(split_of(touched, dealt), []).append(polygon)
    assert set(SPLITS) <= ground.keys()
    for one, other in itertools.combinations(SPLITS, 2):
        shared = shapely.union_all(ground[one]) & shapely.union_all(ground[other])
        assert shared.area == 0
    # the scenes do share ground, or this would show nothing
    outlines = [footprint(g, Window(0, 0, g.height, g.width), metres) for g in grids]
    assert all((a & b).area > 1e6 for a, b in itertools.pairwise(outlines))


@pytest.mark.parametrize('name', OVERLAPPING)
def test_blocks_are_as_large_as_asked(name: str) -> None:
    """A window fits into blocks of its own: of three windows' side, most do."""
    grids, metres = OVERLAPPING[name]
    blocks, _ = deal(grids)
    for number, grid in enumerate(grids):
        tiles = cover(grid, WINDOW)
        touched = blocks.touched(number, tiles)
        ground: dict[Block, list[shapely.Polygon]] = {}
        for tile, here in zip(tiles, touched, strict=True):
            assert here
            if len(here) == 1:
                polygon = footprint(grid, tile, metres)
                ground.setdefault(next(iter(here)), []).append(polygon)
        assert ground or blocks.side > 3 * WINDOW * 20
        for inside in ground.values():
            west, south, east, north = shapely.union_all(inside).bounds
            assert max(east - west, north - south) < 1.6 * blocks.side


def test_a_pole_belongs_to_nobody() -> None:
    grid = grid_at(-45, 89.97, 'EPSG:3413')
    blocks = GroundBlocks([grid], 120)
    around = ~grid.transform @ (0.0, 0.0)
    window = Window(int(around[1]) - 20, int(around[0]) - 20, 40, 40)
    assert blocks.touched(0, [window]) == [frozenset()]
    assert split_of(frozenset(), {}) is None
    assert blocks.touched(0, [Window(0, 0, 40, 40)])[0]


def test_scenes_without_a_crs_have_blocks_of_their_own() -> None:
    located = grid_at(11, 48, 'EPSG:32632')
    grids = [located._replace(crs=None), located._replace(crs=None), located]
    blocks = GroundBlocks(grids, 100)
    window = [Window(90, 0, 10, 101), Window(0, 100, 101, 100)]
    assert blocks.touched(0, window) == [{(0, 0, 0), (0, 0, 1)}, {(0, 0, 1), (0, 1, 1)}]
    pixel = [Window(50, 50, 1, 1)]
    [[own], [other], [ground]] = (blocks.touched(number, pixel) for number in range(3))
    assert own == {(0, 0, 0)}
    assert other == {(1, 0, 0)}
    # band and cell: two numbers, so no block of a scene is ever taken for one
    assert {len(block) for block in ground} == {2}


@pytest.mark.parametrize('shares', [(0.6, 0.2, 0.2), (0.9, 0.05, 0.05), (0.5, 0.5, 0)])
def test_shares_are_met(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 10, 200):
        weights: dict[Block, float] = {
            (0, n): float(w) for n, w in enumerate(rng.uniform(1, 9, count))
        }
        dealt = assign_blocks(weights, shares, 7)
        assert dealt.keys() == weights.keys()
        parts: defaultdict[Split, float] = defaultdict(float)
        for block, split in dealt.items():
            parts[split] += weights[block]
        for split, share in zip(SPLITS, shares, strict=True):
            assert (parts[split] > 0) == (share > 0)
            assert abs(parts[split] - share * sum(weights.values())) < 18


def test_dealing_repeats_and_depends_on_the_seed_alone() -> None:
    weights: dict[Block, float] = {(n, 0): 1.0 for n in range(50)}
    shuffled = dict(reversed(weights.items()))
    shares = (0.6, 0.2, 0.2)
    assert assign_blocks(weights, shares, 1) == assign_blocks(shuffled, shares, 1)
    assert assign_blocks(weights, shares, 1) != assign_blocks(weights, shares, 2)


@pytest.mark.parametrize(
    'shares', [(1, 1, 1), (0.5, 0.5), (0, 0.5, 0.5), (1.5, -0.25, -0.25)]
)
def test_shares_that_are_none(shares: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match='three numbers of at least 0 that sum to 1'):
        check_shares(shares)
    check_shares((0.7, 0.3, 0))


def test_small_scenes_are_not_cut_unless_they_overlap_a_large_one() -> None:
    crs = rasterio.CRS.from_epsg(32632)
    grids = [
        Grid(size, size, crs, Affine(10, 0, left, 0, -10, 5_000_000))
        for left, size in ((600_000, 60), (600_300, 60), (700_000, 60), (699_000, 200))
    ]
    blocks = GroundBlocks(grids, WINDOW, whole=2 * WINDOW)
    windows = [Window(row, col, 10, 10) for row in (0, 50) for col in (0, 50)]
    touched = [blocks.touched(number, windows) for number in range(4)]
    # two that overlap each other share one block, whole
    assert len({*touched[0], *touched[1]}) == 1
    assert len(touched[0][0]) == 1
    # the third one overlaps the large one
    assert touched[2] == GroundBlocks(grids, WINDOW).touched(2, windows)
    assert len({*touched[2]}) > 1
    assert len({*touched[3]}) > 1
