"""DFC2020 tile by tile: Sentinel-1 and 2 with land-cover masks."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas
import torch
from matplotlib.colors import ListedColormap
from rasterio import Affine
from torch import Tensor
from torchgeo.datasets import CopernicusBenchDFC2020S2

from ..errors import BandError, DataError, GeoreferenceWarning, GridError, nearest
from ..grids import Grid, Window
from ..scaling import SENTINEL2_BANDS, band_key
from ..split import Split
from .dfc2020_layout import PROTOCOLS, Layout, Sensor, find_layout, tile_names
from .dfc2020_raster import filled, one_place, read_pixels, stated_grid

#: Index of a class of the source in the eight classes used here; 255 is ignored.
#: Savanna (3) and Snow/Ice (8) are dropped (METHOD, section 6; paper, section 4).
SOURCE_TO_CLASS = (255, 0, 1, 255, 2, 3, 4, 5, 255, 6, 7)
#: Backscatter of Sentinel-1 in decibels, in the order of its rasters.
SENTINEL1_BANDS = ('VV', 'VH')


class DFC2020(CopernicusBenchDFC2020S2):
    """DFC2020 with the paper's eight classes, tile by tile.

    TorchGeo's :class:`~torchgeo.datasets.CopernicusBenchDFC2020S2` downloads and
    unpacks Copernicus-Bench's copy; the contest's own layout is read too
    (:class:`~torchgeo_ctm.datasets.dfc2020_layout.Layout`). This class maps labels
    1…10 to 0…7 = Forest, Shrubland, Grassland, Wetlands, Croplands, Urban/Built-up,
    Barren, Water. Every other value becomes 255 and is ignored.

    A sample holds ``image`` float32 (bands, 256, 256), Sentinel-2 as reflectance ×
    10,000 and Sentinel-1 in decibels, and ``mask`` int64 (256, 256). The mask is for
    scoring, and for deriving image-level labels
    (:func:`torchgeo_ctm.labels.presence_from_mask`); no loss sees it.

    Tiles need no georeference, and Copernicus-Bench's have none; as a GeoDataset they
    are :class:`~torchgeo_ctm.datasets.DFC2020Geo`.
    """

    #: Sentinel-2's, which are read when no *bands* are named.
    all_bands = SENTINEL2_BANDS
    #: Tiles in each split of each protocol; empty for data without protocols.
    tile_counts: ClassVar[dict[str, dict[str, int]]] = PROTOCOLS
    # TorchGeo types this as a tuple of exactly its eleven entries
    classes: tuple[str, ...] = (  # type: ignore[assignment]
        'Forest',
        'Shrubland',
        'Grassland',
        'Wetlands',
        'Croplands',
        'Urban/Built-up',
        'Barren',
        'Water',
    )
    #: One colour per class: the contest's own legend.
    class_colors = (
        '#009900',
        '#c6b044',
        '#b6ff05',
        '#27ff87',
        '#c24f44',
        '#a5a5a5',
        '#f9ffa4',
        '#1c0dff',
    )

    cmap = ListedColormap(class_colors).with_extremes(over='#000000')  # type: ignore[assignment]

    def __init__(
        self,
        root: str | os.PathLike[str] = 'data',
        split: Split = 'train',
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        download: bool = False,
        checksum: bool = False,
        *,
        protocol: Literal['A', 'B', 'C'] = 'A',
    ) -> None:
        """Open one split.

        Args:
            root: Folder with ``dfc2020_s1s2`` (or ``dfc2020.zip``), or with the
                contest's ``ROIs0000_validation`` and ``ROIs0000_test``.
            split: 'train', 'val' or 'test'.
            bands: Names of the bands to read, in this order: Sentinel-2's B01 … B12,
                and VV and VH; all 13 of Sentinel-2 if None.
            transforms: Applied to each sample.
            download: Download Copernicus-Bench's copy if *root* has none.
            checksum: Check the download's MD5.
            protocol: Which tiles a split has; see
                :func:`~torchgeo_ctm.datasets.dfc2020_layout.tile_names`.

        Raises:
            BandError: If there is no such band.
            DataError: If the split lists no tile, or files of its tiles are missing.
            SettingError: If there is no such split or protocol.
            torchgeo.datasets.DatasetNotFoundError: If the data set is not there
                and *download* is False.
        """
        # not super().__init__: it knows no Sentinel-1, no protocol and one layout
        self.root, self.split, self.protocol = root, split, protocol
        self.bands = _known_bands(bands or self.all_bands)
        self.transforms = transforms
        self.download, self.checksum = download, checksum
        self.layout = self._find()
        self.files = pandas.Series(tile_names(self.layout, protocol, split), dtype=str)
        self._check_files()
        self._grids: dict[int, Grid | None] = {}
        self._one_place: bool | None = None
        self._warned = False

    def _find(self) -> Layout:
        """Return the copy below *root*; unpack or download Copernicus-Bench's first."""
        layout = find_layout(self.root, self.directory)
        if layout is None or layout.kind == 'copernicus-bench':
            self._verify()
            layout = find_layout(self.root, self.directory)
        if layout is None:
            raise DataError(f'{self.root} has no {self.directory} in its archive')
        return layout

    def _positions(self) -> dict[Sensor, tuple[list[int], list[int]]]:
        """Return each sensor's 1-based band numbers, and their places in the image."""
        known: dict[Sensor, tuple[str, ...]] = {
            's2': SENTINEL2_BANDS,
            's1': SENTINEL1_BANDS,
        }
        found: dict[Sensor, tuple[list[int], list[int]]] = {}
        for sensor, names in known.items():
            places = [i for i, band in enumerate(self.bands) if band in names]
            numbers = [names.index(self.bands[i]) + 1 for i in places]
            if places:
                found[sensor] = numbers, places
        return found

    def _check_files(self) -> None:
        """Refuse a split without tiles, or with tiles whose files are missing."""
        names = [str(name) for name in self.files]
        sensors: list[Sensor] = ['dfc', *self._positions()]
        paths = [self.layout.path(name, sensor) for sensor in sensors for name in names]
        there = {
            folder: set(os.listdir(folder)) if folder.is_dir() else set()
            for folder in {path.parent for path in paths}
        }
        missing = [path for path in paths if path.name not in there[path.parent]]
        if names and not missing:
            return
        what = ''
        if missing:
            what = f'; {len(missing)} of their files are not there, first {missing[0]}'
        raise DataError(
            f'{self.layout.folder} has {len(names)} tiles in split {self.split} of '
            f'protocol {self.protocol}{what}; needed are GeoTIFF tiles in folders '
            f'{", ".join(sorted(sensors))}'
        )

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the sample of one tile: ``image`` and ``mask``.

        Latitude and longitude are left out: tiles without a georeference have none,
        and a batch needs the same keys in every sample.

        Raises:
            GridError: If a tile's rasters differ in size.
            SceneError: If a raster cannot be read.
        """
        sample = self.read(index)
        return sample if self.transforms is None else self.transforms(sample)

    def read(self, index: int, window: Window | None = None) -> dict[str, Tensor]:
        """Read a tile, or a window of it, without transforms.

        Values that are no numbers (NaN, infinity) are replaced by their band's mean,
        with a warning.

        Args:
            index: Number of the tile.
            window: The window in pixels of the tile; None: all of it.

        Raises:
            GridError: If the tile's rasters differ in size.
            SceneError: If a raster cannot be read.
        """
        name = str(self.files[index])
        path = self.layout.path(name, 'dfc')
        labels = read_pixels(path, [1], window)[0]
        image = np.empty((len(self.bands), *labels.shape), np.float32)
        for sensor, (numbers, places) in self._positions().items():
            other = self.layout.path(name, sensor)
            pixels = read_pixels(other, numbers, window)
            if pixels.shape[1:] != labels.shape:
                sizes = [f'{h} × {w} px' for h, w in (pixels.shape[1:], labels.shape)]
                raise GridError(f'{other} has {sizes[0]}, {path} has {sizes[1]}')
            image[places] = filled(pixels.astype(np.float32), other)
        source_to_class = np.full(256, 255, np.int64)
        source_to_class[: len(SOURCE_TO_CLASS)] = SOURCE_TO_CLASS
        mask = source_to_class[labels.astype(np.int64).clip(0, 255)]
        return {'image': torch.from_numpy(image), 'mask': torch.from_numpy(mask)}

    def chip_name(self, index: int) -> str:
        """Return the name of a tile: its file's, without the suffix."""
        return Path(str(self.files[index])).stem

    def tile_grid(self, index: int) -> Grid | None:
        """Return the grid that a tile states, None without CRS or transform."""
        if index not in self._grids:
            path = self.layout.path(str(self.files[index]), 'dfc')
            self._grids[index] = stated_grid(path)
        return self._grids[index]

    @property
    def same_place(self) -> bool:
        """Whether tiles state one and the same place, so that none is believed."""
        if self._one_place is None:
            grids = (self.tile_grid(index) for index in range(len(self)))
            self._one_place = one_place(grids)
        return self._one_place

    def chip_grid(self, index: int, size: int) -> Grid | None:
        """Return the grid of the *size* × *size* px in the middle of a tile.

        None for a tile without CRS or transform, and for every tile where all state
        the same place: no georeference is invented, and a warning says so, once. The
        middle is torchvision's, which the images are cropped with.
        """
        grid = self.tile_grid(index)
        if grid is None or self.same_place:
            self._warn_of_georeference(index, grid is None)
            return None
        row, col = (round((side - size) / 2) for side in grid[:2])
        transform = grid.transform @ Affine.translation(col, row)
        return Grid(size, size, grid.crs, transform)

    def _warn_of_georeference(self, index: int, nothing: bool) -> None:
        """Say once why masks of these tiles get no georeference."""
        if self._warned:
            return
        self._warned = True
        reason = f'all tiles in {self.layout.folder} state the same place'
        if nothing:
            path = self.layout.path(str(self.files[index]), 'dfc')
            reason = f'{path} has no CRS, or an identity transform'
        warnings.warn(
            f'{reason}: masks of such tiles are written as arrays only, without a '
            'georeference',
            GeoreferenceWarning,
            stacklevel=3,
        )


def _known_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the contest's own names of bands, whatever the spelling (B2, b02)."""
    known = {band_key(band): band for band in (*SENTINEL2_BANDS, *SENTINEL1_BANDS)}
    for band in bands:
        if band_key(band) not in known:
            names = ', '.join(known.values())
            raise BandError(
                f'DFC2020 has no band {band!r}; needed: some of {names}'
                + nearest(band, known.values())
            )
    return tuple(known[band_key(band)] for band in bands)
