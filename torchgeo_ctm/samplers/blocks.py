"""Blocks of the Earth, each of which belongs to one split."""

import hashlib
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely import STRtree

from ..errors import SettingError
from ..grids import Grid, Window, pixel_sides
from ..split import Split
from ..windows import window_starts

#: A block: (band, cell) on the ground, or (scene, row, column) without a CRS.
Block = tuple[int, ...]

#: The split of each block; None: no split may use it.
BlockSplits = Mapping[Block, Split | None]

SPLITS: tuple[Split, ...] = ('train', 'val', 'test')

#: Meters in a degree of latitude, on a sphere as large as the Earth.
METERS_PER_DEGREE = 2 * math.pi * 6_371_007.2 / 360

#: Points along each edge of a window: between them, curved edges deviate by far less
#: than a pixel.
EDGE_POINTS = 9


class GroundBlocks:
    """Blocks of about *side* × *side* meters, on one grid for all scenes.

    The Earth is divided into bands of latitude *side* high, and each band into as many
    equal cells at least *side* wide as fit around it. The grid depends on *side*
    alone, so that scenes of any CRS share their blocks. A scene without a CRS, or with
    a local one, has blocks of its own on its pixels.
    """

    def __init__(
        self, grids: Sequence[Grid], block_size: int, whole: float = 0
    ) -> None:
        """Initialize the grid of blocks.

        Args:
            grids: Pixel grids of all scenes.
            block_size: Side of a block in pixels, at least 1; of the coarsest scene's,
                where scenes differ.
            whole: Scenes whose sides are shorter than this, in pixels, are not cut:
                they lie in the block of their center, whole. Those that overlap each
                other share a block; those that overlap a larger scene are cut.
        """
        self.grids = list(grids)
        self.block_size = block_size
        self._transformers = [_to_degrees(grid) for grid in grids]
        #: For each scene that is not cut, the scene whose center decides.
        self._centers = self._uncut(whole) if whole else {}
        sizes = [
            _pixel_meters(grid)
            for grid, transformer in zip(grids, self._transformers, strict=True)
            if transformer is not None
        ]
        #: Side of a block in meters.
        self.side = block_size * max(sizes, default=1.0)
        self._bands = max(1, math.floor(180 * METERS_PER_DEGREE / self.side))

    def touched(self, scene: int, windows: Iterable[Window]) -> list[frozenset[Block]]:
        """Return the blocks that each window's ground may touch.

        The window is grown by a pixel on all sides, and replaced by its bounding box in
        longitude and latitude, so there may be too many blocks, never too few. There
        is no block for a window outside the domain of its CRS or around a pole.

        Args:
            scene: Which of the grids the windows lie on.
            windows: Windows in pixels of that grid.
        """
        if scene in self._centers:
            center = self._centers[scene]
            grid = self.grids[center]
            middle = Window(grid.height // 2, grid.width // 2, 1, 1)
            return [self._in_block(center, middle)] * len(list(windows))
        return self._cut(scene, windows)

    def _in_block(self, scene: int, window: Window) -> frozenset[Block]:
        """Return one of the blocks that a window touches."""
        [blocks] = self._cut(scene, [window])
        return frozenset(sorted(blocks)[:1])

    def _uncut(self, whole: float) -> dict[int, int]:
        """Return the scenes that are not cut, each with the first one it overlaps."""
        found: dict[int, int] = {}
        outlines = [
            _outline(grid, transformer)
            for grid, transformer in zip(self.grids, self._transformers, strict=True)
        ]
        small = [max(grid[:2]) < whole for grid in self.grids]
        tree = STRtree(outlines)
        for first, is_small in enumerate(small):
            if not is_small or first in found:
                continue
            group, waiting = {first}, [first]
            while waiting:
                near = tree.query(outlines[waiting.pop()], 'intersects').tolist()
                waiting += [number for number in near if number not in group]
                group |= set(near)
            if all(small[number] for number in group):
                found |= dict.fromkeys(group, first)
        return found

    def _cut(self, scene: int, windows: Iterable[Window]) -> list[frozenset[Block]]:
        """Return the blocks that each window touches."""
        places = np.array(list(windows), np.float64).reshape(-1, 4)
        transformer = self._transformers[scene]
        if transformer is None:
            return [self._own(scene, place) for place in places]
        boxes = _bounds(self.grids[scene], places, transformer)
        return [frozenset(self._on_ground(box)) for box in boxes]

    def _own(self, scene: int, place: NDArray[np.float64]) -> frozenset[Block]:
        """Return the blocks of a scene without a CRS."""
        row, col, height, width = (int(value) for value in place)
        size = self.block_size
        return frozenset(
            (scene, down, across)
            for down in range(row // size, (row + height - 1) // size + 1)
            for across in range(col // size, (col + width - 1) // size + 1)
        )

    def _on_ground(self, box: NDArray[np.float64]) -> Iterator[Block]:
        """Yield the blocks that a box in degrees touches."""
        if not np.isfinite(box).all():
            return
        west, south, east, north = (float(value) for value in box)
        tall = 180 / self._bands
        first, last = (math.floor((edge + 90) / tall) for edge in (south, north))
        for band in range(max(first, 0), min(last, self._bands - 1) + 1):
            cells = self._cells(band)
            wide = 360 / cells
            left, right = (math.floor((edge + 180) / wide) for edge in (west, east))
            for cell in range(left, right + 1):
                yield band, cell % cells

    def _cells(self, band: int) -> int:
        """Return how many cells at least *side* wide fit around a band."""
        tall = 180 / self._bands
        edges = (abs(band * tall - 90), abs((band + 1) * tall - 90))
        around = 360 * METERS_PER_DEGREE * math.cos(math.radians(min(max(edges), 90)))
        return max(1, math.floor(around / self.side))


def _to_degrees(grid: Grid) -> Transformer | None:
    """Return the transformer from a grid's CRS to degrees, None if there is none."""
    if grid.crs is None:
        return None
    return _transformer(CRS.from_user_input(grid.crs).to_wkt())


@cache
def _transformer(wkt: str) -> Transformer | None:
    """Return the transformer from a CRS to longitude and latitude, None if none."""
    try:
        return Transformer.from_crs(wkt, 'EPSG:4326', always_xy=True)
    except ProjError:
        # a local CRS says nothing about where other scenes lie
        return None


def _outline(grid: Grid, transformer: Transformer | None) -> Any:
    """Return a scene as a polygon in degrees, a pixel smaller than it is.

    So scenes side by side do not overlap. Empty without a CRS.
    """
    if transformer is None:
        return shapely.Polygon()
    inside = np.array([[2, 2, grid.height - 4, grid.width - 4]], np.float64)
    lon, lat = _edges(grid, inside, transformer)
    points = np.stack([lon[0], lat[0]], axis=1)
    return shapely.MultiPoint(points[np.isfinite(points).all(axis=1)]).convex_hull


def _pixel_meters(grid: Grid) -> float:
    """Return the longer side of the middle pixel in meters, to two digits.

    Scale factors of projections differ in the third digit, and would give scenes of
    one pixel size different grids.
    """
    sides = pixel_sides(grid)
    return 1.0 if sides is None else float(f'{max(sides):.1e}')


def _bounds(
    grid: Grid, places: NDArray[np.float64], transformer: Transformer
) -> NDArray[np.float64]:
    """Return west, south, east, north of windows grown by a pixel, (n, 4) degrees.

    East may be above 180, across the date line. A row of NaN: outside the domain of
    the CRS, or around a pole.
    """
    lon, lat = _edges(grid, places, transformer)
    lost = ~(np.isfinite(lon) & np.isfinite(lat)).all(axis=1)
    lon = np.where(np.isfinite(lon), (lon + 180) % 360 - 180, 0)
    crossing = np.ptp(lon, axis=1) > 180
    lon[crossing] %= 360
    lost |= np.ptp(lon, axis=1) > 180
    box = np.stack(
        [lon.min(axis=1), lat.min(axis=1), lon.max(axis=1), lat.max(axis=1)], axis=1
    )
    box[lost] = np.nan
    return box


def _edges(
    grid: Grid, places: NDArray[np.float64], transformer: Transformer
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude along the edges of windows grown by a pixel."""
    along = np.linspace(0, 1, EDGE_POINTS)
    none, all_ = np.zeros_like(along), np.ones_like(along)
    down = np.concatenate([none, all_, along, along])
    across = np.concatenate([along, along, none, all_])
    rows = places[:, 0:1] - 1 + down * (places[:, 2:3] + 2)
    cols = places[:, 1:2] - 1 + across * (places[:, 3:4] + 2)
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    lon, lat = transformer.transform(
        a * cols + b * rows + c, d * cols + e * rows + f, errcheck=False
    )
    return np.asarray(lon), np.asarray(lat)


def cover(grid: Grid, window: int) -> list[Window]:
    """Return windows that cover every pixel of a scene."""
    tall, wide = min(window, grid.height), min(window, grid.width)
    return [
        Window(row, col, tall, wide)
        for row in window_starts(grid.height, window, window)
        for col in window_starts(grid.width, window, window)
    ]


def assign_blocks(
    weights: Mapping[Block, float], shares: Sequence[float], seed: int
) -> dict[Block, Split]:
    """Assign blocks to splits.

    Blocks are sorted by a hash with *seed*. Each split with a share gets one; every
    further block goes to the split that is farthest below its share. The order of
    *weights* does not matter. Each split with a share gets a block if there are enough.
    Its part of the weight differs from its share by less than two of the heaviest
    blocks.

    Args:
        weights: Weight of each block, above 0.
        shares: Shares of train, val and test, which sum to 1.
        seed: Seed of the order.
    """
    order = sorted(weights, key=lambda block: _hash(seed, block))
    total = sum(weights.values())
    missing = [share * total for share in shares]
    waiting = [number for number, share in enumerate(shares) if share > 0]
    dealt: dict[Block, Split] = {}
    for block in order:
        number = waiting.pop(0) if waiting else int(np.argmax(missing))
        missing[number] -= weights[block]
        dealt[block] = SPLITS[number]
    return dealt


def _hash(seed: int, block: Hashable) -> bytes:
    """Return bytes that order blocks, the same on every machine."""
    return hashlib.blake2b(f'{seed}:{block}'.encode(), digest_size=8).digest()


def split_of(touched: frozenset[Block], dealt: BlockSplits) -> Split | None:
    """Return the split of all blocks that a window touches, None if they differ."""
    owners = {dealt.get(block) for block in touched}
    return owners.pop() if len(owners) == 1 else None


def check_shares(shares: Sequence[float]) -> None:
    """Check that shares are three numbers of at least 0 that sum to 1.

    Raises:
        SettingError: If they are not, or the first one is 0.
    """
    given = [float(share) for share in shares]
    if (
        len(given) == 3
        and min(given) >= 0 < given[0]
        and math.isclose(sum(given), 1, abs_tol=1e-6)
    ):
        return
    raise SettingError(
        f'Invalid shares={given} of train, val and test, expected three numbers of at '
        'least 0 that sum to 1, the first above 0. Did you mean [0.6, 0.2, 0.2]?'
    )
