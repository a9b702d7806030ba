"""DFC2020 as a GeoDataset: one UTM zone, on its own pixels."""

import math
from typing import Any, NoReturn

import shapely
from pyproj import CRS
from torchgeo.datasets import RasterDataset

from ..compat import entries
from ..errors import DataError, GridError, SettingError, did_you_mean
from ..grids import Grid, Window
from .dfc2020 import DFC2020

#: Corners are kept to a millionth of a pixel, so that widths in meters are exact: a
#: sampler skips a tile that a rounding error makes too narrow for its chips.
CORNER_BITS = 20


class DFC2020Geo(RasterDataset):
    """The tiles of one UTM zone, by place.

    A TorchGeo index has one CRS, and DFC2020's tiles lie in several UTM zones. To warp
    them to one CRS would resample images and labels, so there is one data set per
    zone, in the CRS and resolution of the zone::

        tiles = DFC2020('data', 'train', protocol='C')
        for zone, dataset in DFC2020Geo.zones(tiles).items():
            sampler = RandomGeoSampler(dataset, size=224)

    CRS and resolution cannot be changed: ``dfc & other`` brings *other* to this grid,
    ``other & dfc`` on another grid is an error, and so is the union of two zones.
    ``dfc | other`` joins splits of one zone. A chip comes from the one tile that
    contains the query, at the nearest pixels; where there is none, an IndexError lets
    a union look further. Use samplers that follow tiles, RandomGeoSampler or
    GridGeoSampler, with a size and stride that end where a tile ends (256; or 224 with
    stride 32). The samplers that replace them in TorchGeo 0.10 do not know tiles. A
    sample holds ``image`` and ``mask`` as in :class:`DFC2020`, and TorchGeo's
    ``bounds``. The contest has no dates: a tile is valid at any time.
    """

    is_image = False

    def __init__(self, tiles: DFC2020, crs: Any = None) -> None:
        """Index the tiles of a zone, by the georeference of their label rasters.

        Args:
            tiles: The tiles; its *bands* and *transforms* are those of the chips.
            crs: The zone, such as 'EPSG:32633'; None: the only one.

        Raises:
            DataError: If tiles have no georeference, one that cannot be true, or
                several resolutions.
            SettingError: If no tile lies in *crs*, or it is None and tiles lie in
                several.
        """
        zones = _zones(tiles)
        found = [zone for zone in zones if crs is None or CRS(zone) == CRS(crs)]
        if len(found) != 1:
            counts = [f'{zone} ({len(inside)} tiles)' for zone, inside in zones.items()]
            raise SettingError(
                f'crs={crs!r} is not the zone of tiles in {tiles.layout.folder}, '
                f'expected one of: {", ".join(counts)}.{did_you_mean(str(crs), zones)}'
            )
        self.tiles = tiles
        self._grids = inside = zones[found[0]]
        names = {self._path(number, 'dfc'): number for number in inside}
        super().__init__(list(names), transforms=tiles.transforms)
        self.classes, self.bands = tiles.classes, tiles.bands
        self.index['number'] = [names[path] for path in self.index['filepath']]
        self._check_grids(inside)
        first = next(iter(inside.values())).transform
        # TorchGeo 0.9 takes it from a warped raster, with rounding errors
        self._res = (first.a, -first.e)
        self.index = self.index.set_geometry(
            [_box(inside[number]) for number in self.index['number']], crs=CRS(found[0])
        )

    @classmethod
    def zones(cls, tiles: DFC2020) -> dict[str, 'DFC2020Geo']:
        """Return one data set per UTM zone, by the zone's name ('EPSG:32633').

        Args:
            tiles: The tiles.

        Raises:
            DataError: If tiles have no georeference, or one that cannot be true.
        """
        return {zone: cls(tiles, zone) for zone in _zones(tiles)}

    def _path(self, number: int, sensor: Any) -> str:
        """Return the path of a raster of a tile."""
        return str(self.tiles.layout.path(str(self.tiles.files[number]), sensor))

    def _check_grids(self, inside: dict[int, Grid]) -> None:
        """Check that all tiles are north up, with pixels of one size."""
        first = next(iter(inside.values())).transform
        for number, grid in inside.items():
            a, b, _, d, e, _ = tuple(grid.transform)[:6]
            if (b, d) != (0, 0) or (a, e) != (first.a, first.e) or min(a, -e) <= 0:
                raise DataError(
                    f'{self._path(number, "dfc")} has pixels of {a:g} × {-e:g} (rotation '
                    f'{b:g}, {d:g}), expected {first.a:g} × {-first.e:g}, north up. '
                    'Use DFC2020, tile by tile.'
                )

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the chip at a query, from the first tile that contains it.

        Args:
            query: Slices of x and y in the CRS, as TorchGeo's samplers draw them.

        Returns:
            ``image`` float32 (bands, h, w), ``mask`` int64 (h, w), and what TorchGeo's
            samples say about their place.

        Raises:
            GridError: If another resolution is asked for.
            IndexError: If no tile contains it.
        """
        x, y, t = self._disambiguate_slice(query)
        if (x.step, y.step) != self.res:
            self._refuse(f'a query at {x.step:g} × {y.step:g}')
        near = self.index.cx[x.start : x.stop, y.start : y.stop]
        for number in near['number']:
            window = self._window(number, x, y)
            if window is not None:
                sample: dict[str, Any] = dict(self.tiles.read(number, window))
                sample |= entries(self, (x, y, t))
                return sample if self.transforms is None else self.transforms(sample)
        raise IndexError(
            f'query: {query} is in none of {len(self)} tiles, with bounds: '
            f'{self.bounds}. Use a size and a stride that end where a tile ends.'
        )

    def _window(self, number: int, x: slice, y: slice) -> Window | None:
        """Return a query's window of a tile, None if it is empty or reaches beyond."""
        grid = self._grids[number]
        left, top = (round(value) for value in ~grid.transform @ (x.start, y.stop))
        right, bottom = (round(value) for value in ~grid.transform @ (x.stop, y.start))
        inside = 0 <= left < right <= grid.width and 0 <= top < bottom <= grid.height
        return Window(top, left, bottom - top, right - left) if inside else None

    @property
    def crs(self) -> CRS:
        """CRS of the zone."""
        crs: CRS = self.index.crs
        return crs

    @crs.setter
    def crs(self, new_crs: Any) -> None:
        if CRS.from_user_input(new_crs) != self.crs:
            self._refuse(f'the CRS {CRS.from_user_input(new_crs).to_string()}')

    @property
    def res(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the CRS."""
        return self._res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        x, y = new_res if isinstance(new_res, tuple) else (new_res, new_res)
        if (x, y) != self.res:
            self._refuse(f'a resolution of {x:g} × {y:g}')

    def _refuse(self, asked: str) -> NoReturn:
        """Raise a GridError: what was asked for would resample the tiles."""
        raise GridError(
            f'{asked} would resample one UTM zone of DFC2020, with '
            f'{self.crs.to_string()} and {self.res[0]:g} × {self.res[1]:g}. Put it '
            'first (this & other), so that the other data set is brought to its grid. '
            'A union (this | other) needs one grid.'
        )


def _box(grid: Grid) -> Any:
    """Return the outline of a tile, with widths that are exact numbers."""
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
    fault = 'all tiles have the same georeference' if tiles.same_place else ''
    if without:
        fault = (
            f'{len(without)} of {len(grids)} tiles have no CRS or an identity '
            f'transform, first {tiles.files[without[0]]}'
        )
    if fault:
        raise DataError(
            f'{tiles.layout.folder}: {fault}, but a GeoDataset needs a georeference. '
            'Use DFC2020, tile by tile.'
        )
    zones: dict[str, dict[int, Grid]] = {}
    for number, grid in enumerate(grids):
        if grid is not None:
            zones.setdefault(grid.crs.to_string(), {})[number] = grid
    return dict(sorted(zones.items()))
