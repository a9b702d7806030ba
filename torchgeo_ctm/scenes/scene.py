"""One raster scene, cut into overlapping windows."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..errors import BandWarning, GeoreferenceWarning, SceneError
from ..grids import IGNORED, Window, check_same_grid
from ..rasters import grid_of, open_raster
from ..scaling import is_reflectance, match_bands
from ..windows import WindowPlan
from .sources import find_source

#: Columns that are read at once, about.
COLUMNS = 2048


def open_scene(
    path: str | Path, threads: int = 1, name: str | None = None
) -> DatasetReader:
    """Open a raster for reading.

    Args:
        path: What rasterio opens: a path, a URL, a text in GDAL's VRT format.
        threads: Threads that decode blocks, where the format can.
        name: What to call it in an error; None: *path*.

    Raises:
        SceneError: If it is missing, a folder, or nothing that GDAL opens.
    """
    virtual = str(path).lstrip().startswith('<VRTDataset')
    local = Path(path) if not virtual else Path()
    if local.is_dir() and not virtual:
        rasters = sorted(p.name for p in local.iterdir() if p.suffix.lower() == '.tif')
        holds = f'nearest: {local / rasters[0]}' if rasters else 'it holds no .tif'
        raise SceneError(f'{path} is a folder; needed: one raster; {holds}')
    remote = virtual or ':' in str(path)[2:] or str(path).startswith('/vsi')
    if not remote and not local.exists():
        raise SceneError(f'{path} does not exist; needed: a raster')
    return open_raster(path, name=name, threads=threads)


class Reference(Protocol):
    """Class indices of a scene, or of parts of it."""

    def read(self, window: Window) -> NDArray[Any]:
        """Return the class indices (height, width) of a window, 255 where unknown."""
        ...


class SceneWindows(NonGeoDataset):
    """Windows of one scene, in the order in which a mosaic takes them.

    A sample holds ``image`` float32 (bands, window, window) in the data set's numbers
    that the model was trained with, ``valid`` bool (window, window) and ``window``
    int64 (4,): row, column, height and width in the scene's grid. Invalid pixels are
    filled with the mean of the window's valid ones; a scene smaller than a window is
    padded by reflection.
    """

    def __init__(
        self,
        scene: str | Path,
        bands: Sequence[str],
        window: int,
        stride: int,
        scene_bands: Sequence[str] | None = None,
        reference: str | Path | Reference | None = None,
        nodata: float | None = None,
        offset: float | None = None,
        model_offset: float = 0.0,
        threads: int = 1,
    ) -> None:
        """Open a scene.

        Args:
            scene: Whatever :func:`~torchgeo_ctm.scenes.sources.find_source` takes:
                a raster that GDAL opens, a folder with one file a band, a ``.SAFE``.
            bands: Names of the bands the model needs, in its order.
            window: Side of a window in pixels.
            stride: Distance between windows in pixels, 1…window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the grid of the scene, or an object that reads
                the classes of a window; samples then hold them as ``mask`` int64
                (window, window), 255 outside.
            nodata: Value that means no data where all bands have it (NaN too); None:
                what the raster says (nodata value, mask or alpha band).
            offset: Added to the scene's numbers to make them reflectance × 10,000:
                −1000 from Sentinel-2 processing baseline 04.00 on; None: what the
                metadata says, else that of the training data.
            model_offset: The offset that the model adds itself (``scaling.offset``).
            threads: Threads that decode blocks.

        Raises:
            SceneError: If the scene cannot be opened.
            BandError: If bands are missing.
            GridError: If *reference* is on another grid.
            SettingError: If *stride* or *window* is out of range.
        """
        self.source = find_source(scene, bands)
        self.scene = self.source.name
        self.nodata = nodata
        self.threads = max(threads, 1)
        found = self.source.offset if offset is None else offset
        #: Offset of the scene's numbers, None where nothing is known.
        self.offset = found
        self.shift = 0.0 if found is None else found - model_offset
        optical = np.array([is_reflectance(band) for band in bands])
        #: What is added to each band's numbers, (bands, 1, 1).
        self.shifts = np.where(optical, self.shift, 0).astype(np.float32)[:, None, None]
        self.reference = str(reference) if isinstance(reference, Path) else reference
        self._raster: DatasetReader | None = None
        with open_scene(self.source.dataset, name=self.scene) as raster:
            self.grid = grid_of(raster)
            self.indexes = self._match(raster, bands, scene_bands)
            self._check_types(raster)
            self._how = _validity(raster, self.indexes, nodata)
            self.dtype = np.result_type(*(raster.dtypes[i - 1] for i in self.indexes))
            #: Height and width of the blocks in which the file holds its pixels.
            self.block: tuple[int, int] = raster.block_shapes[self.indexes[0] - 1]
        if isinstance(self.reference, str):
            self._check_reference(self.reference)
        self._warn_of_georeference()
        self.plan = WindowPlan(self.grid.height, self.grid.width, window, stride)

    @property
    def window(self) -> int:
        """Side of a window in pixels."""
        return self.plan.window

    @property
    def always_valid(self) -> bool:
        """Whether the file marks no pixel as missing."""
        return self._how == 'all'

    @property
    def stride(self) -> int:
        """Distance between windows in pixels."""
        return self.plan.stride

    def _check_reference(self, reference: str) -> None:
        """Check that a reference is on the grid of the scene."""
        with open_scene(reference) as raster:
            theirs = grid_of(raster)
        check_same_grid(self.scene, self.grid, reference, theirs)

    def _warn_of_georeference(self) -> None:
        """Say what is missing or unusual; the grid is kept as it is."""
        transform = self.grid.transform
        facts = {
            'has no CRS': self.grid.crs is None,
            'has no transform': transform.is_identity,
            'is rotated': not transform.is_identity
            and bool(transform.b or transform.d),
        }
        said = [fact for fact, true in facts.items() if true]
        if said:
            placed = self.grid.crs is not None and not transform.is_identity
            bare = '' if placed else ', without areas on the ground'
            warnings.warn(
                f'{self.scene} {" and ".join(said)}: the mask keeps its grid as it is'
                f'{bare}',
                GeoreferenceWarning,
                stacklevel=3,
            )

    def _match(
        self,
        raster: DatasetReader,
        bands: Sequence[str],
        scene_bands: Sequence[str] | None,
    ) -> list[int]:
        """Return the 1-based indexes of the bands; name those left out."""
        found: Sequence[str | None] = raster.descriptions
        if self.source.bands is not None:
            found = self.source.bands
        if scene_bands is not None:
            if len(scene_bands) != raster.count:
                raise SceneError(
                    f'{len(scene_bands)} band names were given, {self.scene} has '
                    f'{raster.count} bands'
                )
            found = scene_bands
        positions = match_bands(bands, found, self.scene)
        left_out = [
            found[i] or f'band {i + 1}'
            for i in range(raster.count)
            if i not in positions
        ]
        if left_out:
            warnings.warn(
                f'{self.scene}: left out {", ".join(left_out)}, which the model does '
                'not use',
                BandWarning,
                stacklevel=3,
            )
        return [position + 1 for position in positions]

    def _check_types(self, raster: DatasetReader) -> None:
        """Refuse complex numbers."""
        for index in self.indexes:
            dtype = raster.dtypes[index - 1]
            if dtype.startswith('complex'):
                raise SceneError(
                    f'{self.scene} band {index} is {dtype}; needed: real numbers'
                )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read one window.

        Raises:
            SceneError: If its pixels cannot be read.
        """
        window = self.plan[index]
        pixels, valid = self.read(window)
        return self.sample(window, pixels, valid)

    def sample(
        self,
        window: Window,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_],
        image: NDArray[np.float32] | None = None,
    ) -> dict[str, Tensor]:
        """Make a sample of a window's stored pixels (bands, height, width).

        Args:
            window: The window.
            pixels: Its stored pixels.
            valid: Which of them are (height, width).
            image: Where the sample's image goes, (bands, window, window), so that a
                batch need not be copied together; None: into an array of its own.
        """
        if image is None:
            shape = (len(pixels), self.window, self.window)
            image = np.empty(shape, np.float32)
        tall, wide = valid.shape
        inside = image[:, :tall, :wide]
        inside[...] = pixels
        if self.shift:
            inside += self.shifts
        if not valid.all():
            inside[:, ~valid] = _fill(inside, valid)[:, None]
        pad = [(0, self.window - size) for size in valid.shape]
        if any(after for _, after in pad):
            # 'symmetric' repeats as often as needed, for scenes of a few pixels too
            image[...] = np.pad(inside, [(0, 0), *pad], mode='symmetric')
            valid = np.pad(valid, pad)
        sample = {
            'image': torch.from_numpy(image),
            'valid': torch.from_numpy(np.ascontiguousarray(valid)),
            'window': torch.tensor(window),
        }
        if self.reference is not None:
            sample['mask'] = self._read_reference(self.reference, window)
        return sample

    def _read_reference(self, reference: str | Reference, window: Window) -> Tensor:
        """Return the reference's window, int64 (window, window)."""
        if isinstance(reference, str):
            part = RasterWindow(window.col, window.row, window.width, window.height)
            with open_scene(reference) as raster:
                mask = raster.read(1, window=part)
        else:
            mask = reference.read(window)
        pad = [(0, self.window - size) for size in mask.shape]
        padded = np.pad(mask.astype(np.int64), pad, constant_values=IGNORED)
        return torch.from_numpy(padded)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return stored pixels (bands, height, width), and which (height, width) are.

        Invalid are pixels without data, and those with NaN or infinity in any band.

        Raises:
            SceneError: If they cannot be read.
        """
        place = RasterWindow(window.col, window.row, window.width, window.height)
        try:
            raster = self.open()
            pixels = self._pixels(raster, window)
            valid = self._valid(raster, pixels, place)
        except RasterioIOError as error:
            reason = ' '.join(str(error.__cause__ or error).split())
            raise SceneError(
                f'{self.scene} cannot be read at row {window.row}, column '
                f'{window.col}: {reason}'
            ) from error
        if pixels.dtype.kind == 'f':
            valid &= np.isfinite(pixels).all(axis=0)
        return pixels, valid

    def _pixels(self, raster: DatasetReader, window: Window) -> NDArray[Any]:
        """Return stored pixels (bands, height, width), read column by column of tiles.

        GDAL holds every block of what is asked for at once.
        """
        step = raster.block_shapes[0][1]
        step *= max(1, COLUMNS // step)
        pixels = np.empty((len(self.indexes), window.height, window.width), self.dtype)
        # so that every piece but the first begins where a block does
        begins = range(window.col - window.col % step, window.col + window.width, step)
        for begin in begins:
            col = max(begin, window.col)
            end = min(begin + step, window.col + window.width)
            place = RasterWindow(col, window.row, end - col, window.height)
            out = pixels[:, :, col - window.col : end - window.col]
            raster.read(self.indexes, window=place, out=out)
        return pixels

    def open(self) -> DatasetReader:
        """Return the raster, opened once; a copy of this object opens its own."""
        if self._raster is None:
            self._raster = open_scene(self.source.dataset, self.threads, self.scene)
        return self._raster

    def _valid(
        self, raster: DatasetReader, pixels: NDArray[Any], place: RasterWindow
    ) -> NDArray[np.bool_]:
        """Return which pixels (height, width) hold data."""
        if self._how == 'mask':
            valid: NDArray[np.bool_] = raster.dataset_mask(window=place) > 0
            return valid
        valid = np.zeros(pixels.shape[1:], bool)
        if self._how == 'all':
            return ~valid
        for band, empty in zip(pixels, self._nodata_values(raster), strict=True):
            valid |= ~np.isnan(band) if np.isnan(empty) else band != empty
        return valid

    def _nodata_values(self, raster: DatasetReader) -> list[float]:
        """Return each band's nodata value."""
        if self.nodata is not None:
            return [self.nodata] * len(self.indexes)
        return [float(raster.nodatavals[index - 1]) for index in self.indexes]

    def overview(
        self, indexes: Sequence[int], longest: int = 1024
    ) -> NDArray[np.float32]:
        """Return a small picture (bands, h, w) of some bands, NaN where invalid.

        Args:
            indexes: Positions among the model's bands.
            longest: Longest side in pixels.
        """
        with open_scene(self.source.dataset, self.threads, self.scene) as raster:
            shrink = max(1.0, max(raster.height, raster.width) / longest)
            height = max(1, round(raster.height / shrink))
            width = max(1, round(raster.width / shrink))
            picture: NDArray[np.float32] = raster.read(
                [self.indexes[i] for i in indexes],
                out_shape=(len(indexes), height, width),
            ).astype(np.float32)
            valid = raster.dataset_mask(out_shape=(height, width)) > 0
        if self.nodata is not None:
            valid &= ~(picture == self.nodata).all(axis=0)
        picture[:, ~valid] = np.nan
        return picture

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: each worker opens its own."""
        return self.__dict__ | {'_raster': None}


def _validity(
    raster: DatasetReader, indexes: Sequence[int], nodata: float | None
) -> Literal['all', 'nodata', 'mask']:
    """Say where validity comes from: nowhere, nodata values, or masks."""
    if nodata is not None:
        return 'nodata'
    flags = [raster.mask_flag_enums[index - 1] for index in indexes]
    if all(MaskFlags.all_valid in flag for flag in flags):
        return 'all'
    if all(flag == [MaskFlags.nodata] for flag in flags):
        return 'nodata'
    return 'mask'


def _fill(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what to put into invalid pixels: each band's mean of the valid ones."""
    if not valid.any():
        return np.zeros(image.shape[0], np.float32)
    mean: NDArray[np.float32] = image[:, valid].mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)
