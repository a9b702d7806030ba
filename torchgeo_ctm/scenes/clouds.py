"""Which pixels of a scene are cloud: its scene classification, or any mask."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window as RasterWindow

from ..errors import GridError, ReadError, SceneError, SettingError, did_you_mean
from ..grids import (
    Grid,
    Window,
    check_same_grid,
    corners,
    crs_agree_at,
    from_pixels,
    to_pixels,
)
from ..rasters import grid_of, open_raster, read_failure, without_tokens
from .detectors import DETECTORS, Booleans
from .inputs import input_files, pixel_checksum

#: Values of the scene classification of Sentinel-2 that are no ground: shadow, cloud of
#: medium and high probability, cirrus.
CLOUDS: Final = (3.0, 8.0, 9.0, 10.0)
#: Distance in pixels around clouds that is cloud too.
DILATION: Final = 6
#: Columns that are dilated at once, and pixels of the raster that are read at once.
COLUMNS: Final = 2048
PIXELS: Final = 1 << 22


@dataclass(frozen=True)
class CloudOptions:
    """Where the clouds of a scene are known from.

    Attributes:
        clouds: 'scl': by the scene classification; 'none': no pixel is cloud; None:
            'scl' where there is one; or a detector, which writes a mask first.
        mask: A raster, ``RASTER`` or ``RASTER:VALUES``; None: no such raster.
        dilation: Pixels of the scene around clouds that are cloud too.
    """

    clouds: str | None = None
    mask: str | None = None
    dilation: int = DILATION

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            SettingError: If one is unknown, or two contradict each other.
        """
        known = ('scl', 'none', *DETECTORS)
        if self.clouds is not None and self.clouds not in known:
            raise SettingError(
                f'Unknown clouds {self.clouds!r}, expected one of: {", ".join(known)}.'
                + did_you_mean(str(self.clouds), known)
            )
        if self.clouds is not None and self.mask is not None:
            raise SettingError(
                f'Got clouds={self.clouds!r} and cloud_mask={self.mask!r}, expected one '
                'of both.'
            )
        if self.dilation < 0:
            raise SettingError(
                f'cloud_dilation={self.dilation} px is negative. Did you mean 0?'
            )
        if self.mask is not None:
            split_values(self.mask)

    def find(
        self, scene: str, grid: Grid, classification: tuple[str, int] | None
    ) -> 'CloudMask | None':
        """Return the clouds of a scene, None if no pixel is taken as cloud.

        Args:
            scene: Name of the scene.
            grid: Its grid.
            classification: Dataset and band of its scene classification, if it has one.

        Raises:
            SceneError: If the raster of the clouds does not exist or cannot be read.
            GridError: If it does not lie on the scene.
            SettingError: If they come from a detector, whose mask is not known here.
        """
        if self.clouds in DETECTORS:
            raise SettingError(
                f'clouds={self.clouds!r} is for torchgeo-ctm predict and predict_scene, '
                'which write MASK_clouds.tif. Pass that as cloud_mask.'
            )
        if self.mask is not None:
            path, values = split_values(self.mask)
            name = Path(path).name + self.mask.removeprefix(path)
            _check_one_band(path)
            return CloudMask(scene, grid, path, name, 1, values, self.dilation)
        if classification is None and self.clouds == 'scl':
            raise SceneError(
                f"{scene} has no scene classification (SCL), which clouds='scl' reads. "
                'Pass a raster as cloud_mask=.'
            )
        if classification is None or self.clouds == 'none':
            return None
        dataset, band = classification
        return CloudMask(scene, grid, dataset, 'scl', band, CLOUDS, self.dilation)


class CloudMask:
    """The clouds of a scene, from a raster on any grid, by nearest neighbor.

    A pixel is cloud if one at most *dilation* pixels away has a value that says so.
    Nodata pixels of the raster, and those outside of it, are not cloud. What a pixel is
    does not depend on the window that is read.
    """

    def __init__(
        self,
        scene: str,
        grid: Grid,
        dataset: str,
        name: str,
        band: int = 1,
        values: Sequence[float] | None = None,
        dilation: int = DILATION,
    ) -> None:
        """Open the raster and check that it lies on the scene.

        Args:
            scene: Name of the scene, for messages.
            grid: Its grid.
            dataset: The raster, for rasterio.
            name: What tags of a mask call it.
            band: Its band, from 1.
            values: Values that are cloud; None: all but 0.
            dilation: Pixels of the scene around clouds that are cloud too.

        Raises:
            SceneError: If it cannot be read.
            GridError: If it does not lie on the scene.
            SettingError: If one of the values is its nodata value.
        """
        self.dataset, self.band = dataset, band
        self.values, self.dilation = values, dilation
        #: What tags of a mask say.
        self.tag = f'{name}, {dilation} px'
        self._grid = grid
        self._raster: DatasetReader | None = None
        with open_raster(dataset) as raster:
            self._check(raster, scene)

    def _check(self, raster: DatasetReader, scene: str) -> None:
        """Check that a raster lies on the scene, and its nodata value."""
        ours, theirs = self._grid, grid_of(raster)
        if ours.crs is None and theirs.crs is None:
            check_same_grid(scene, ours, self.dataset, theirs)
        elif ours.crs is None or theirs.crs is None:
            pair = (scene, self.dataset)
            bare, other = pair if ours.crs is None else pair[::-1]
            raise GridError(
                f'{bare} has no CRS, but {other} has one. Assign it with gdal_edit.py '
                '-a_srs …'
            )
        elif not _overlap(theirs, ours):
            raise GridError(
                f'The cloud mask {self.dataset} does not overlap {scene}, expected a '
                'raster of the same area.'
            )
        nodata = raster.nodatavals[self.band - 1]
        if self.values is not None and nodata in self.values:
            raise SettingError(
                f'{nodata:g} is nodata of {self.dataset}, which is never cloud. Remove '
                'the nodata value with gdal_edit.py -unsetnodata.'
            )

    def facts(self) -> dict[str, Any]:
        """Return what the clouds depend on beside local files, serializable as JSON."""
        found = {'read': [self.band, self.values, self.dilation]}
        if not self.input_files():
            with open_raster(self.dataset) as raster:
                found['pixels'] = [pixel_checksum(raster, self.band)]
        return found

    def input_files(self) -> list[Path]:
        """Return the local files that the clouds are read from."""
        with open_raster(self.dataset) as raster:
            return input_files(raster, self.dataset)

    def covers(self, window: Window) -> float:
        """Return the share of a window that the raster covers, 0 to 1, about."""
        with open_raster(self.dataset) as raster:
            theirs = grid_of(raster)
        parts = (np.arange(32) + 0.5) / 32
        across, down = np.meshgrid(
            window.col + parts * window.width, window.row + parts * window.height
        )
        places = np.stack([across.ravel(), down.ravel()], axis=1)
        xy = from_pixels(places, self._grid.transform)
        if self._grid.crs is not None:
            xy = np.transpose(transform(self._grid.crs, theirs.crs, *xy.T))
        pixels = to_pixels(xy, theirs.transform)
        inside = (pixels >= 0) & (pixels <= (theirs.width, theirs.height))
        return float(inside.all(axis=1).mean())

    def close(self) -> None:
        """Close the raster if it is open; reading opens it again."""
        if self._raster is not None:
            self._raster.close()
            self._raster = None

    def read(self, window: Window) -> Booleans:
        """Return which pixels (H, W) of a window of the scene are cloud.

        Raises:
            SceneError: If the raster cannot be read.
        """
        if self._raster is None:
            self._raster = open_raster(self.dataset)
        found = np.empty((window.height, window.width), bool)
        # some columns at a time: distances take many bytes a pixel
        for start in range(0, window.width, COLUMNS):
            part = window._replace(
                col=window.col + start, width=min(COLUMNS, window.width - start)
            )
            found[:, start : start + part.width] = self._part(self._raster, part)
        return found

    def _part(self, raster: DatasetReader, window: Window) -> Booleans:
        """Return which pixels of a window are cloud, by what is around it too."""
        row, col, height, width = window
        top, left = max(0, row - self.dilation), max(0, col - self.dilation)
        bottom = min(self._grid.height, row + height + self.dilation)
        right = min(self._grid.width, col + width + self.dilation)
        around = Window(top, left, bottom - top, right - left)
        wide = _dilated(self._cloudy(raster, around, around[2:]), self.dilation)
        return wide[row - top : row - top + height, col - left : col - left + width]

    def thumbnail(self, shape: tuple[int, int], window: Window) -> Booleans:
        """Return which pixels of a thumbnail (height, width) of a window are cloud.

        Raises:
            SceneError: If the raster cannot be read.
        """
        down, across = window.height / shape[0], window.width / shape[1]
        with open_raster(self.dataset) as raster:
            found = self._cloudy(raster, window, shape)
        # a coarse pixel that is cloud ends on average half a pixel after its center
        reach = self.dilation + (max(down, across) - 1) / 2 if self.dilation else 0
        return _dilated(found, reach, (down, across))

    def _cloudy(
        self, raster: DatasetReader, window: Window, shape: tuple[int, int]
    ) -> Booleans:
        """Return where a raster says cloud, at a window of the scene in some shape."""
        places = [
            start + (np.arange(size) + 0.5) * side / size
            for start, side, size in zip(window[:2], window[2:], shape, strict=True)
        ]
        inside = ~raster.transform @ self._grid.transform
        straight = not inside.b and not inside.d
        try:
            if straight and crs_agree_at(
                self._grid.crs, raster.crs, corners(self._grid)
            ):
                rows = np.floor(inside.e * places[0] + inside.f).astype(np.int64)
                cols = np.floor(inside.a * places[1] + inside.c).astype(np.int64)
                return self._picked(raster, rows, cols)
            transform = self._grid.transform @ Affine.translation(
                window.col, window.row
            )
            transform @= Affine.scale(window.width / shape[1], window.height / shape[0])
            with _on_grid(raster, Grid(*shape, self._grid.crs, transform)) as warped:
                return self._where(warped.read(self.band, masked=True))
        except RasterioError as error:
            reason = read_failure(error, self.dataset)
            name = without_tokens(self.dataset)
            raise ReadError(f'{name} cannot be read: {reason}') from error

    def _picked(
        self, raster: DatasetReader, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> Booleans:
        """Return where the raster says cloud, at its rows (h,) and columns (w,)."""
        found = np.zeros((len(rows), len(cols)), bool)
        here = np.flatnonzero((cols >= 0) & (cols < raster.width))
        if not len(here):
            return found
        left, right = int(cols[here].min()), int(cols[here].max()) + 1
        there = (rows >= 0) & (rows < raster.height)
        # blocks of rows, because a thumbnail shows all of the raster
        blocks = rows // max(1, PIXELS // (right - left))
        for block in np.unique(blocks[there]):
            some = np.flatnonzero(there & (blocks == block))
            top, bottom = int(rows[some].min()), int(rows[some].max()) + 1
            place = RasterWindow(left, top, right - left, bottom - top)
            values = self._where(raster.read(self.band, window=place, masked=True))
            picked = values[np.ix_(rows[some] - top, cols[here] - left)]
            found[np.ix_(some, here)] = picked
        return found

    def _where(self, pixels: Any) -> Booleans:
        """Return where masked values mean cloud."""
        values = pixels.data
        if self.values is None:
            cloudy = (values != 0) & ~np.isnan(values)
        else:
            cloudy = np.isin(values, self.values)
        return np.asarray(cloudy & ~np.ma.getmaskarray(pixels), bool)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open file before pickling or copying."""
        return self.__dict__ | {'_raster': None}


def split_values(text: str) -> tuple[str, tuple[float, ...] | None]:
    """Return raster and values of ``RASTER:VALUES``, None without values.

    Raises:
        SettingError: If the values are not numbers.
    """
    path, colon, values = text.rpartition(':')
    # the colons of C:\mask.tif and https://host/mask.tif have no values
    if len(path) < 2 or not colon or re.search(r'[/\\]', values) or Path(text).exists():
        return text, None
    try:
        return path, tuple(float(value) for value in values.split(','))
    except ValueError:
        raise SettingError(
            f'Invalid values {values!r} in cloud_mask={text!r}, expected numbers, as '
            f'{path}:3,8,9,10.'
        ) from None


def _check_one_band(dataset: str) -> None:
    """Check that a raster of clouds has one band beside alpha.

    Raises:
        SceneError: If it has several: any of them may be the clouds.
    """
    with open_raster(dataset) as raster:
        kinds = [kind for kind in raster.colorinterp if kind != ColorInterp.alpha]
    if len(kinds) != 1:
        raise SceneError(
            f'The cloud mask {dataset} has {len(kinds)} bands, expected one. Choose one '
            'with gdal_translate -b N.'
        )


def _overlap(one: Grid, other: Grid) -> bool:
    """Return whether two grids with a CRS have a part of the ground in common."""
    xy = corners(one)
    box = transform_bounds(one.crs, other.crs, *xy.min(axis=0), *xy.max(axis=0))
    left, bottom, right, top = box
    theirs = corners(other)
    (west, south), (east, north) = theirs.min(axis=0), theirs.max(axis=0)
    return bool(left < east and right > west and bottom < north and top > south)


def _on_grid(raster: DatasetReader, grid: Grid) -> Any:
    """Return a raster on the grid of another CRS, by nearest neighbor."""
    return WarpedVRT(
        raster,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        nodata=raster.nodata,
        # without nodata, an alpha band tells what is outside the raster
        add_alpha=raster.nodata is None,
        # in pixels: coarser positions would depend on the window that is read. rasterio
        # fails with 0
        tolerance=1e-6,
    )


def _dilated(
    cloudy: Booleans, distance: float, pixel: tuple[float, float] = (1, 1)
) -> Booleans:
    """Return which pixels (H, W) are cloud or at most a distance from one.

    Args:
        cloudy: Pixels (H, W) that are cloud.
        distance: The distance.
        pixel: Height and width of a pixel in units of the distance.
    """
    if not distance or not cloudy.any():
        return cloudy
    # takes a while to import
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~cloudy, pixel) <= distance, bool)
