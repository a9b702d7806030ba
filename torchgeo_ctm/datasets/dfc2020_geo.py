"""DFC2020 as a GeoDataset: one UTM zone, every chip on its tile's own pixels."""

import math
from typing import Any

import shapely
from pyproj import CRS
from rasterio import Affine

from ..errors import DataError, GridError, SettingError, nearest
from ..grids import Grid, Window
from .dfc2020 import DFC2020
from .fixed_grid import TOLERANCE, FixedGridDataset

#: Corners are kept to a millionth of a pixel, so that widths in metres are exact: a
#: sampler passes over a tile that a rounding error makes too narrow for its chips.
CORNER_BITS = 20


class DFC2020Geo(FixedGridDataset):
    """The tiles of one UTM zone, indexed by place; nothing is ever resampled.

    A TorchGeo index has one CRS and a sample has one pixel grid, but DFC2020's tiles
    lie in several UTM zones. An index over all of them, in longitude and latitude
    say, could only be answered by warping images and labels. So there is one
    GeoDataset per zone, in the zone's own CRS and resolution::

        tiles = DFC2020('data', 'train', protocol='C')
        for zone, dataset in DFC2020Geo.zones(tiles).items():
            sampler = RandomGeoSampler(dataset, size=224)

    A chip is cut from the one tile that contains the query, pixel for pixel. A query
    is refused where that cannot be: with IndexError where no tile contains it (as
    TorchGeo asks for, so that a union looks further), with GridError where it lies
    between pixels or asks for another resolution. TorchGeo's samplers draw whole
    pixels; GridGeoSampler needs a size and stride that end where a tile ends (256; or
    224 with stride 32), or it asks for chips beyond it.

    ``dfc & other`` brings *other* to this grid, which TorchGeo resamples as it does
    by default; ``other & dfc`` with another CRS or resolution is refused, because it
    would resample this one. ``dfc | other`` joins splits, or data sets, of one zone.
    The union of two zones is refused: draw from each, or tile by tile from
    :class:`DFC2020`.

    A sample holds ``image`` and ``mask`` as :class:`DFC2020` has them, ``crs`` and
    ``bounds``. The contest says no dates: a tile answers at any time.
    """

    def __init__(self, tiles: DFC2020, crs: Any = None) -> None:
        """Index the tiles of a zone, by the georeference of their label rasters.

        Args:
            tiles: The tiles; its *bands* and *transforms* are those of the chips.
            crs: The zone: 'EPSG:32633' or whatever pyproj takes; None where all tiles
                lie in one.

        Raises:
            DataError: If tiles have no georeference, or one that cannot be true.
            SettingError: If no tile lies in *crs*, or it is None and tiles lie in
                several.
        """
        zones = _zones(tiles)
        found = [zone for zone in zones if crs is None or CRS(zone) == CRS(crs)]
        if len(found) != 1:
            counts = ', '.join(
                f'{z} ({len(inside)} tiles)' for z, inside in zones.items()
            )
            given = 'none was given' if crs is None else f'{crs} was given'
            raise SettingError(
                f'crs has to be one zone of the tiles in {tiles.layout.folder}, {given}'
                f'; needed: one of {counts}{nearest(str(crs), zones)}'
            )
        self._index(tiles, found[0], zones[found[0]])

    @classmethod
    def zones(cls, tiles: DFC2020) -> dict[str, 'DFC2020Geo']:
        """Return one data set per UTM zone, by the zone's name ('EPSG:32633').

        Args:
            tiles: The tiles.

        Raises:
            DataError: If tiles have no georeference, or one that cannot be true.
        """
        found = {}
        for zone, inside in _zones(tiles).items():
            found[zone] = cls.__new__(cls)
            found[zone]._index(tiles, zone, inside)
        return found

    def _index(self, tiles: DFC2020, zone: str, inside: dict[int, Grid]) -> None:
        """Build TorchGeo's index of the tiles *inside* a zone."""
        self.tiles = tiles
        self.classes, self.bands = tiles.classes, tiles.bands
        names = [str(tiles.files[number]) for number in inside]
        self.paths = [str(tiles.layout.path(name, 'dfc')) for name in names]
        first = next(iter(inside.values())).transform
        self._res = (first.a, -first.e)
        for path, grid in zip(self.paths, inside.values(), strict=True):
            a, b, _, d, e, _ = tuple(grid.transform)[:6]
            if (b, d) != (0, 0) or (a, -e) != self._res or min(a, -e) <= 0:
                raise DataError(
                    f'{path} has pixels of {a:g} × {-e:g}, rotation {b:g} and {d:g}; '
                    f'{self.paths[0]} has {first.a:g} × {-first.e:g}: needed is one '
                    'resolution, north up; nearest: tile by tile with DFC2020'
                )
        outlines = [_box(grid) for grid in inside.values()]
        self._set_index([*inside], outlines, CRS(zone))

    def _what(self) -> str:
        """Return what the rasters are, for messages."""
        return 'one UTM zone of DFC2020'

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the chip at a query, from the first tile that contains it.

        Args:
            query: Slices of x and y in the CRS, as TorchGeo's samplers draw them.

        Returns:
            ``image`` float32 (bands, h, w), ``mask`` int64 (h, w), ``crs``, and
            ``bounds``: the slices.

        Raises:
            GridError: If it would have to be resampled.
            IndexError: If no tile contains it.
        """
        x, y, t = self._disambiguate_slice(query)
        if (x.step, y.step) != self.res:
            self._refuse(f'a query at {x.step:g} × {y.step:g}')
        asked = shapely.box(x.start, y.start, x.stop, y.stop)
        near = self.index.sindex.query(asked, predicate='intersects', sort=True)
        numbers = self.index['number'].iloc[near]
        windows = [(n, self._place(n, x, y)) for n in numbers]
        inside = [(n, place) for n, place in windows if self._contains(n, place)]
        if not inside:
            raise IndexError(self._outside(asked.bounds, [*numbers]))
        aligned = [(n, place) for n, place in inside if _is_whole(place)]
        if not aligned:
            raise GridError(self._between(*inside[0]))
        number, (left, top, right, bottom) = aligned[0]
        row, col = round(top), round(left)
        window = Window(row, col, round(bottom) - row, round(right) - col)
        sample: dict[str, Any] = dict(self.tiles.read(number, window))
        sample |= {'crs': self.crs, 'bounds': (x, y, t)}
        transforms = self.tiles.transforms
        return sample if transforms is None else transforms(sample)

    def _place(self, number: int, x: slice, y: slice) -> tuple[float, ...]:
        """Return left, top, right and bottom of a query in a tile's pixels."""
        inverse: Affine = ~self._grid(number).transform
        return *(inverse @ (x.start, y.stop)), *(inverse @ (x.stop, y.start))

    def _grid(self, number: int) -> Grid:
        """Return the grid of a tile, which has one."""
        grid = self.tiles.tile_grid(number)
        if grid is None:
            raise DataError(f'tile {self.tiles.files[number]} lost its georeference')
        return grid

    def _contains(self, number: int, place: tuple[float, ...]) -> bool:
        """Whether a place of at least one pixel lies in a tile."""
        left, top, right, bottom = place
        height, width = self._grid(number)[:2]
        return (
            min(left, top) >= -TOLERANCE
            and right <= width + TOLERANCE
            and bottom <= height + TOLERANCE
            and min(right - left, bottom - top) >= 1 - TOLERANCE
        )

    def _outside(self, asked: tuple[float, ...], numbers: list[int]) -> str:
        """Say that no tile contains a query."""
        said = f'query {asked} is in none of the {len(self)} tiles of {self.crs.name}'
        if not numbers:
            return f'{said}, which lie within {tuple(self.index.total_bounds)}'
        height, width = self._grid(numbers[0])[:2]
        return (
            f'{said}: it reaches beyond {self.tiles.files[numbers[0]]} of {height} × '
            f'{width} px; needed: a size, and a stride, that end where a tile ends'
        )

    def _between(self, number: int, place: tuple[float, ...]) -> str:
        """Say that a query lies between pixels, and where it would not."""
        transform = self._grid(number).transform
        corners = [transform @ (round(i), round(j)) for i, j in (place[:2], place[2:])]
        (left, top), (right, bottom) = corners
        off = max(abs(value - round(value)) for value in place)
        return (
            f'query lies {off:.2f} px off the pixels of {self.tiles.files[number]} and '
            f'would have to be resampled; nearest: x {left:.3f}…{right:.3f}, y '
            f'{bottom:.3f}…{top:.3f}'
        )


def _is_whole(place: tuple[float, ...]) -> bool:
    """Whether corners lie on pixels."""
    return all(abs(value - round(value)) <= TOLERANCE for value in place)


def _box(grid: Grid) -> Any:
    """Return a tile's outline, with widths that are exact numbers."""
    step = 2.0 ** (math.floor(math.log2(grid.transform.a)) - CORNER_BITS)
    left, top = (round(value / step) * step for value in grid.transform @ (0, 0))
    width = grid.width * grid.transform.a
    height = -grid.height * grid.transform.e
    return shapely.box(left, top - height, left + width, top)


def _zones(tiles: DFC2020) -> dict[str, dict[int, Grid]]:
    """Return the grids of the tiles in each zone, by number.

    Raises:
        DataError: If the georeference is missing or cannot be true.
    """
    grids = [tiles.tile_grid(number) for number in range(len(tiles))]
    without = [number for number, grid in enumerate(grids) if grid is None]
    what = 'all tiles state the same place' if tiles.same_place else ''
    if without:
        what = (
            f'{len(without)} of {len(grids)} tiles have no CRS or an identity '
            f'transform, first {tiles.files[without[0]]}'
        )
    if what:
        raise DataError(
            f'{tiles.layout.folder}: {what}; a GeoDataset needs to know where tiles '
            'lie; nearest: DFC2020, tile by tile, which does not'
        )
    zones: dict[str, dict[int, Grid]] = {}
    for number, grid in enumerate(grids):
        if grid is not None:
            zones.setdefault(grid.crs.to_string(), {})[number] = grid
    return dict(sorted(zones.items()))
