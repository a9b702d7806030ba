"""DFC2020: tiles of Sentinel-1 and Sentinel-2 with land-cover masks."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas
import torch
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow
from torch import Tensor
from torchgeo.datasets import CopernicusBenchDFC2020S2

from ..errors import (
    BandError,
    DataError,
    GeoreferenceWarning,
    GridError,
    NodataWarning,
    SceneError,
    SettingError,
    did_you_mean,
)
from ..files import expanded
from ..grids import IGNORED, Grid, Window
from ..rasters import grid_of, open_raster
from ..scaling import SENTINEL2_BANDS, band_key
from ..split import Split, check_split

Sensor = Literal['s1', 's2', 'dfc']
Group = Literal['validation', 'test']

#: Our class index of each class of the source. Savanna (3) and Snow/Ice (8) are ignored
#: (METHOD, section 6; paper, section 4).
SOURCE_TO_CLASS = (IGNORED, 0, 1, IGNORED, 2, 3, 4, 5, IGNORED, 6, 7)
#: Sentinel-1 backscatter in decibels, in the order of its rasters.
SENTINEL1_BANDS = ('VV', 'VH')
#: Tiles in each split of a protocol.
PROTOCOLS = {
    'A': {'train': 3156, 'val': 986, 'test': 986},
    'B': {'train': 789, 'val': 197, 'test': 5128},
    'C': {'train': 5128, 'val': 986, 'test': 986},
}
#: Protocol B validates on every fifth of the contest's "validation" tiles.
FOLD = 5

_NAME = re.compile(r'ROIs\d+_(?P<group>[^_]+)_dfc_(?P<scene>\w+)_p(?P<patch>\d+)\.tif')


class Layout(NamedTuple):
    """A copy of DFC2020 on disk, in which the label raster names a tile.

    ``copernicus-bench``: ``{s1,s2,dfc}/ROIs0000_{group}_{sensor}_K_pN.tif`` and a list
    ``dfc-{split}-new.csv`` per split in one folder. ``contest``:
    ``ROIs0000_{group}/{sensor}_K/ROIs0000_{group}_{sensor}_K_pN.tif`` for scene K, or
    ``{sensor}_{group}`` in some copies, without lists.
    """

    folder: Path
    kind: Literal['copernicus-bench', 'contest']

    def path(self, name: str, sensor: Sensor) -> Path:
        """Return a raster of a tile.

        Args:
            name: Name of the tile's label raster.
            sensor: 's1', 's2', or 'dfc' for the labels.
        """
        file = name.replace('_dfc_', f'_{sensor}_')
        if self.kind == 'copernicus-bench':
            return self.folder / sensor / file
        found = _NAME.fullmatch(name)
        group, scene = (found['group'], found['scene']) if found else ('', '')
        folder = self.folder / f'ROIs0000_{group}'
        by_scene = folder / f'{sensor}_{scene}'
        by_group = folder / f'{sensor}_{group}'
        return (
            by_group if by_group.is_dir() and not by_scene.is_dir() else by_scene
        ) / file

    def names(self, group: Group) -> list[str]:
        """Return the tiles of a group, by scene and number (p2 before p10)."""
        inside = f'ROIs0000_{group}/dfc_*' if self.kind == 'contest' else 'dfc'
        paths = self.folder.glob(f'{inside}/ROIs0000_{group}_dfc_*.tif')
        return sorted((path.name for path in paths), key=_order)

    def listed(self, split: str) -> list[str]:
        """Return the tiles of a list of Copernicus-Bench.

        Raises:
            DataError: If the list is missing.
        """
        path = self.folder / f'dfc-{split}-new.csv'
        if not path.is_file():
            raise DataError(
                f'{path} does not exist. Protocol A needs the lists of '
                "Copernicus-Bench, use protocol 'B' or 'C' without them."
            )
        lines = path.read_text(encoding='utf-8').splitlines()
        return [line.split(',')[0].strip() for line in lines if line.strip(' ,')]


def _order(name: str) -> tuple[int, str, int]:
    """Return the sort key of a tile: scene, as a number if possible, then number."""
    found = _NAME.fullmatch(name)
    if found is None:
        return (0, name, 0)
    scene = found['scene']
    return (int(scene) if scene.isdigit() else 0, scene, int(found['patch']))


def find_layout(root: str | os.PathLike[str], directory: str) -> Layout | None:
    """Return the copy of DFC2020 in a folder, or None.

    Args:
        root: The folder; the contest's layout has ``ROIs0000_validation`` or ``_test``.
        directory: Folder of Copernicus-Bench in it.
    """
    if (Path(root) / directory).is_dir():
        return Layout(Path(root) / directory, 'copernicus-bench')
    groups = (Path(root) / f'ROIs0000_{group}' for group in ('validation', 'test'))
    return Layout(Path(root), 'contest') if any(g.is_dir() for g in groups) else None


def tile_names(layout: Layout, protocol: str, split: str) -> list[str]:
    """Return the tiles of a split.

    Protocol ``A`` is Copernicus-Bench's: the tiles of its lists, in their order. ``B``
    trains on the contest's "validation" tiles and tests on its "test" tiles; the
    contest has no lists, so the "validation" tiles are sorted by scene and number, and
    every fifth is for validation: 789 and 197 of 986. ``C`` is the paper's: it trains
    on the "test" tiles, and validates and tests on the "validation" tiles (METHOD,
    section 6).

    Args:
        layout: The copy.
        protocol: 'A', 'B' or 'C'.
        split: 'train', 'val' or 'test'.

    Returns:
        Names of label rasters.

    Raises:
        DataError: If this copy lacks tiles of the protocol.
        SettingError: If there is no such protocol or split.
    """
    check_split(split)
    if protocol not in PROTOCOLS:
        raise SettingError(
            f'Unknown protocol {protocol!r}, expected one of: {", ".join(PROTOCOLS)}.'
        )
    if protocol == 'A':
        return layout.listed(split)
    on_test = split == ('test' if protocol == 'B' else 'train')
    group: Group = 'test' if on_test else 'validation'
    names = layout.names(group)
    if not names:
        raise DataError(
            f'{layout.folder} has no label raster ROIs0000_{group}_dfc_*.tif for '
            f'protocol {protocol}. The contest has both groups, Copernicus-Bench only '
            "the tiles of its lists: use protocol 'A'."
        )
    if protocol == 'B' and split != 'test':
        held_out = names[FOLD - 1 :: FOLD]
        return (
            held_out if split == 'val' else sorted({*names} - {*held_out}, key=_order)
        )
    return names


class DFC2020(CopernicusBenchDFC2020S2):
    """DFC2020 tiles with the eight classes of the paper.

    TorchGeo's :class:`~torchgeo.datasets.CopernicusBenchDFC2020S2` downloads and
    unpacks the copy of Copernicus-Bench; the contest's own layout is read too
    (:class:`~torchgeo_ctm.datasets.dfc2020.Layout`). Labels 1…10 become 0…7 = Forest,
    Shrubland, Grassland, Wetlands, Croplands, Urban/Built-up, Barren, Water, and every
    other value 255, which is ignored.

    A sample holds ``image`` float32 (bands, 256, 256), Sentinel-2 as reflectance ×
    10,000 and Sentinel-1 in decibels, and ``mask`` int64 (256, 256). The mask is for
    scoring, and for deriving image-level labels
    (:func:`torchgeo_ctm.labels.presence_from_mask`). No loss sees it.

    Tiles need no georeference, and those of Copernicus-Bench have none. As a GeoDataset
    they are :class:`~torchgeo_ctm.datasets.DFC2020Geo`.
    """

    #: Bands of Sentinel-2, the default of *bands*.
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
    #: One color per class, from the contest's legend.
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
        """Initialize a new DFC2020 instance.

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
                :func:`~torchgeo_ctm.datasets.dfc2020.tile_names`.

        Raises:
            BandError: If a band is unknown.
            DataError: If the split has no tiles, or files of its tiles are missing.
            SettingError: If the split or protocol is unknown.
            torchgeo.datasets.DatasetNotFoundError: If the data set is missing and
                *download* is False.
        """
        # not super().__init__: it knows no Sentinel-1, no protocol and one layout
        self.root, self.split, self.protocol = expanded(root), split, protocol
        self.bands = _known_bands(bands or self.all_bands)
        self.transforms = transforms
        self.download, self.checksum = download, checksum
        self.layout = self._find()
        self.files = pandas.Series(tile_names(self.layout, protocol, split), dtype=str)
        self._check_files()
        self._grids: dict[int, Grid | None] = {}
        self._same_place: bool | None = None
        self._warned = False

    def _find(self) -> Layout:
        """Return the copy below *root*; unpack or download Copernicus-Bench's first."""
        layout = find_layout(self.root, self.directory)
        if layout is None or layout.kind == 'copernicus-bench':
            self._verify()
            layout = find_layout(self.root, self.directory)
        if layout is None:
            raise DataError(f'The archive in {self.root} has no {self.directory}.')
        return layout

    def _positions(self) -> dict[Sensor, tuple[list[int], list[int]]]:
        """Return each sensor's 1-based band numbers, and their positions in the image."""
        sensors: dict[Sensor, tuple[str, ...]] = {
            's2': SENTINEL2_BANDS,
            's1': SENTINEL1_BANDS,
        }
        found: dict[Sensor, tuple[list[int], list[int]]] = {}
        for sensor, names in sensors.items():
            positions = [i for i, band in enumerate(self.bands) if band in names]
            numbers = [names.index(self.bands[i]) + 1 for i in positions]
            if positions:
                found[sensor] = numbers, positions
        return found

    def _check_files(self) -> None:
        """Check that the split has tiles, and that their files exist."""
        names = [str(name) for name in self.files]
        sensors: list[Sensor] = ['dfc', *self._positions()]
        paths = [self.layout.path(name, sensor) for sensor in sensors for name in names]
        folders = {path.parent for path in paths}
        # one listing of each folder is much faster than a query of each file
        found = {f: set(os.listdir(f)) if f.is_dir() else set() for f in folders}
        missing = [path for path in paths if path.name not in found[path.parent]]
        if names and not missing:
            return
        what = ''
        if missing:
            what = (
                f', and {len(missing)} of their files are missing, first {missing[0]}'
            )
        raise DataError(
            f'{self.layout.folder} has {len(names)} tiles in split {self.split} of '
            f'protocol {self.protocol}{what}. Expected GeoTIFF tiles in folders '
            f'{", ".join(sorted(sensors))}.'
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

        Values that are not finite are replaced by the mean of their band, with a
        warning.

        Args:
            index: Index of the tile.
            window: Window in pixels of the tile; None: all of it.

        Raises:
            GridError: If the tile's rasters differ in size.
            SceneError: If a raster cannot be read.
        """
        name = str(self.files[index])
        path = self.layout.path(name, 'dfc')
        labels = _read(path, [1], window)[0]
        image = np.empty((len(self.bands), *labels.shape), np.float32)
        for sensor, (numbers, positions) in self._positions().items():
            other = self.layout.path(name, sensor)
            pixels = _read(other, numbers, window)
            if pixels.shape[1:] != labels.shape:
                sizes = [f'{h} × {w} px' for h, w in (pixels.shape[1:], labels.shape)]
                raise GridError(
                    f'{other} has {sizes[0]}, {path} has {sizes[1]}. All rasters of a '
                    'tile must have one size.'
                )
            image[positions] = _filled(pixels.astype(np.float32), other)
        source_to_class = np.full(256, IGNORED, np.int64)
        source_to_class[: len(SOURCE_TO_CLASS)] = SOURCE_TO_CLASS
        mask = source_to_class[labels.astype(np.int64).clip(0, 255)]
        return {'image': torch.from_numpy(image), 'mask': torch.from_numpy(mask)}

    def chip_name(self, index: int) -> str:
        """Return the name of a tile: its file's, without the suffix."""
        return Path(str(self.files[index])).stem

    def tile_grid(self, index: int) -> Grid | None:
        """Return the grid in a tile's header, None without CRS or transform.

        An identity transform counts as none: rasterio reports it for files without a
        transform, and Copernicus-Bench's copy has it beside a CRS.
        """
        if index not in self._grids:
            path = self.layout.path(str(self.files[index]), 'dfc')
            with open_raster(path) as raster:
                located = raster.crs is not None and not raster.transform.is_identity
                self._grids[index] = grid_of(raster) if located else None
        return self._grids[index]

    @property
    def same_place(self) -> bool:
        """Whether all tiles of a CRS have one transform, so that none can be true."""
        if self._same_place is None:
            self._same_place = self._find_same_place()
        return self._same_place

    def _find_same_place(self) -> bool:
        """Return whether two tiles of a CRS have one transform and no two differ.

        Reading stops at the first two tiles that differ, which are the first two of a
        CRS in a sound copy.
        """
        transforms: dict[str, Any] = {}
        repeated = False
        for grid in (self.tile_grid(index) for index in range(len(self))):
            if grid is None:
                continue
            crs = grid.crs.to_wkt()
            if crs in transforms and transforms[crs] != grid.transform:
                return False
            repeated |= crs in transforms
            transforms[crs] = grid.transform
        return repeated

    def chip_grid(self, index: int, size: int) -> Grid | None:
        """Return the grid of the *size* × *size* px in the center of a tile.

        Returns:
            The grid, or None, with one warning, if the tile has no CRS or transform, or
            if all tiles have the same transform. The center is torchvision's, which the
            images are cropped with.
        """
        grid = self.tile_grid(index)
        if grid is None or self.same_place:
            self._warn_about_georeference(index, grid is None)
            return None
        row, col = (round((side - size) / 2) for side in grid[:2])
        transform = grid.transform @ Affine.translation(col, row)
        return Grid(size, size, grid.crs, transform)

    def _warn_about_georeference(self, index: int, missing: bool) -> None:
        """Warn once why masks of these tiles get no georeference."""
        if self._warned:
            return
        self._warned = True
        reason = f'All tiles in {self.layout.folder} have the same transform'
        if missing:
            path = self.layout.path(str(self.files[index]), 'dfc')
            reason = f'{path} has no CRS, or an identity transform'
        warnings.warn(
            f'{reason}. Masks of these tiles are written as arrays only, without a '
            'georeference.',
            GeoreferenceWarning,
            stacklevel=3,
        )


def _known_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the contest's names of bands in any spelling, such as B2 or b02."""
    known = {band_key(band): band for band in (*SENTINEL2_BANDS, *SENTINEL1_BANDS)}
    for band in bands:
        if band_key(band) not in known:
            raise BandError(
                f'DFC2020 has no band {band!r}, expected some of: '
                f'{", ".join(known.values())}.' + did_you_mean(band, known.values())
            )
    return tuple(known[band_key(band)] for band in bands)


def _read(path: Path, bands: list[int], window: Window | None) -> NDArray[Any]:
    """Read pixels (bands, height, width) as stored.

    Args:
        path: A raster.
        bands: Band numbers, from 1.
        window: Window in pixels of the raster; None: all of it.

    Raises:
        SceneError: If the raster has fewer bands, or cannot be read.
    """
    area = None
    if window is not None:
        area = RasterWindow(window.col, window.row, window.width, window.height)
    with open_raster(path) as raster:
        if raster.count < max(bands):
            raise SceneError(
                f'{path} has {raster.count} bands, expected at least {max(bands)}.'
            )
        try:
            pixels: NDArray[Any] = raster.read(bands, window=area)
        except RasterioIOError as error:
            reason = ' '.join(str(error.__cause__ or error).split())
            raise SceneError(f'Cannot read {path}: {reason}') from error
    return pixels


def _filled(image: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Replace values that are not finite by the mean of their band (0 without any).

    Args:
        image: Pixels (bands, height, width).
        path: Their raster, for the warning.
    """
    valid = np.isfinite(image)
    if valid.all():
        return image
    count = np.maximum(valid.sum(axis=(1, 2)), 1)
    mean = np.where(valid, image, 0).sum(axis=(1, 2), dtype=np.float64) / count
    warnings.warn(
        f'{path}: {(~valid).sum()} of {valid.size} values are not finite and are '
        'replaced by the mean of their band.',
        NodataWarning,
        stacklevel=4,
    )
    return np.where(valid, image, mean[:, None, None]).astype(np.float32)
