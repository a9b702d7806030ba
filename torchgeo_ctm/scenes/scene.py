"""Windows of a raster scene."""

import re
import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import (
    BandWarning,
    CloudWarning,
    GeoreferenceWarning,
    NodataWarning,
    ReadError,
    ReflectanceWarning,
    SceneError,
)
from ..grids import IGNORED, Grid, Window, check_same_grid
from ..options import comma_separated
from ..rasters import (
    grid_of,
    open_raster,
    read_failure,
    value_names,
    warn_of_control_points,
)
from ..scaling import SENTINEL2_BANDS, Resample, band_key, match_bands
from ..windows import WindowPlan
from .adaptation import Adaptation
from .area import Area
from .band_scales import BandScales
from .clouds import CloudOptions
from .inputs import fingerprint, input_files, pixel_checksum
from .items import Sign
from .named_classes import as_classes, match_values
from .sentinel2 import CLASSIFICATION
from .sources import find_source
from .validity import Validity, check_number, warn_of_nodata

#: Number of columns that are read at once, about.
COLUMNS = 2048
#: No pixel is taken as cloud.
NO_CLOUDS = CloudOptions('none')
#: Longest side of the thumbnail that the share of clouds is measured in.
OVERVIEW = 1024


def open_scene(
    path: str | Path, threads: int = 1, name: str | None = None
) -> DatasetReader:
    """Open a raster for reading.

    Args:
        path: A path, a URL, or a VRT as text.
        threads: Threads that decode blocks, where the format can.
        name: Name of the raster in an error; None: *path*.

    Raises:
        SceneError: If it does not exist, is a folder, or GDAL cannot open it.
    """
    virtual = str(path).lstrip().startswith('<VRTDataset')
    local = Path(path) if not virtual else Path()
    if local.is_dir() and not virtual:
        rasters = sorted(p.name for p in local.iterdir() if p.suffix.lower() == '.tif')
        hint = f' Did you mean {str(local / rasters[0])!r}?' if rasters else ''
        raise SceneError(f'{path} is a folder, expected a raster.{hint}')
    remote = virtual or ':' in str(path)[2:] or str(path).startswith('/vsi')
    if not remote and not local.exists():
        raise SceneError(f'{path} does not exist, expected a raster.')
    return open_raster(path, name=name, threads=threads)


class Reference(Protocol):
    """Class indices of a scene, or of parts of it."""

    def read(self, window: Window) -> NDArray[Any]:
        """Return the class indices (height, width) of a window, 255 where unknown."""
        ...


class SceneWindows(Dataset[dict[str, Tensor]]):
    """Windows of one scene, row by row: one of TorchGeo's ``NonGeoDataset``.

    A sample holds ``image`` float32 (bands, window, window) in the units of the
    training data, ``valid`` bool (window, window) and ``window`` int64 (4,): row,
    column, height and width in pixels of the scene. Invalid pixels are filled with the
    mean of the valid ones in the window. A scene smaller than a window is padded by
    reflection.
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
        clouds: CloudOptions = NO_CLOUDS,
        sign: Sign | None = None,
        resample: Resample = 'nearest',
        classes: Sequence[str] | None = None,
    ) -> None:
        """Open a scene.

        Args:
            scene: A raster that GDAL opens, a folder with one file per band, or a
                ``.SAFE``; see :func:`~torchgeo_ctm.scenes.sources.find_source`.
            bands: Names of the bands that the model uses, in its order.
            window: Side of a window in pixels.
            stride: Distance between windows in pixels, 1…window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the grid of the scene, or an object that reads
                the classes of a window; samples then hold them as ``mask`` int64
                (window, window), 255 outside.
            nodata: Value of invalid pixels, in all bands (may be NaN); None: as the
                raster declares them (nodata value, mask or alpha band).
            offset: Added to the values of the scene to get reflectance × 10,000: −1000
                since Sentinel-2 processing baseline 04.00; None: from the metadata,
                else that of the training data.
            model_offset: Offset that the model adds itself (``scaling.offset``).
            threads: Threads that decode blocks.
            clouds: Where its clouds are known from. Pixels that are cloud are invalid.
            sign: Changes the URL of each asset of a STAC item, as to add a token.
            resample: How pixels of coarse bands come to the grid of the finest, where
                bands are separate files: 'nearest' or 'bilinear'.
            classes: Names of the model's classes. A reference that names its classes is
                matched by name, others by number.

        Raises:
            SceneError: If the scene cannot be opened.
            BandError: If a band is missing.
            GridError: If *reference* is on another grid.
            SettingError: If *stride* or *window* is out of range, or *nodata* or
                *offset* is not finite.
        """
        check_number('nodata', nodata)
        check_number('offset', offset)
        self.source = find_source(scene, bands, sign, resample, nodata)
        self.scene = self.source.name
        self.nodata = nodata
        self.threads = max(threads, 1)
        found = self.source.offset if offset is None else offset
        #: Offset of the values of the scene, None if unknown.
        self.offset = found
        #: Moves the values towards the training data, after the offset.
        self.adaptation: Adaptation | None = None
        #: The part of the scene that is mapped; None: all of it.
        self.area: Area | None = None
        self.reference = str(reference) if isinstance(reference, Path) else reference
        self._raster: DatasetReader | None = None
        self._fills: list[float] = []
        #: Class of each value of the reference; None: the values are classes.
        self._reference_classes: NDArray[np.int64] | None = None
        with open_scene(self.source.dataset, name=self.scene) as raster:
            self.grid = grid_of(raster)
            self._check_transform()
            self.indexes = self._match(raster, bands, scene_bands)
            self._check_types(raster)
            warn_of_nodata(raster, self.scene, nodata)
            self._validity = Validity(raster, self.indexes, nodata)
            self._scale(raster, bands, model_offset)
            self._warn_of_georeference(raster)
            #: Pixels that are cloud, None if no pixel is.
            self.clouds = clouds.find(
                self.scene, self.grid, self._classification(raster, scene_bands)
            )
            self.dtype = np.result_type(*(raster.dtypes[i - 1] for i in self.indexes))
            #: Height and width of a block of the file.
            self.block: tuple[int, int] = raster.block_shapes[self.indexes[0] - 1]
        if isinstance(self.reference, str):
            self._check_reference(self.reference, classes)
        self.plan = WindowPlan(self.grid.height, self.grid.width, window, stride)
        self.warn_of_clouds(asked=clouds != CloudOptions(None, None, clouds.dilation))

    @property
    def window(self) -> int:
        """Side of a window in pixels."""
        return self.plan.window

    @property
    def always_valid(self) -> bool:
        """Whether no pixel is marked as missing or as cloud."""
        return self._validity.always and self.clouds is None

    @property
    def extent(self) -> Grid:
        """Grid of the part of the scene that is mapped."""
        return self.grid if self.area is None else self.area.grid(self.grid)

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """Which windows (n,) share ground with the part of the scene that is mapped."""
        whole = np.ones(len(self), bool)
        return whole if self.area is None else self.area.touches(self.plan)

    @property
    def stride(self) -> int:
        """Distance between windows in pixels."""
        return self.plan.stride

    def input_files(self) -> list[Path]:
        """Return the local files that the scene and its reference are read from."""
        with open_scene(self.source.dataset, name=self.scene) as raster:
            found = input_files(raster, self.scene)
        if isinstance(self.reference, str):
            with open_scene(self.reference) as raster:
                found += input_files(raster, self.reference)
        if self.clouds is not None:
            found += self.clouds.input_files()
        return found

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that windows depend on: files, bands, scaling, nodata.

        Equal fingerprints mean equal windows, as far as sizes, times and samples of
        the files tell.
        """
        files = self.input_files()
        clouds = {} if self.clouds is None else {'clouds': self.clouds.facts()}
        found: dict[str, Any] = {
            'size': [self.grid.height, self.grid.width],
            'georeference': [str(self.grid.crs), list(self.grid.transform)[:6]],
            'bands read': self.indexes,
            'scale and offset': [
                self.factors.ravel().tolist(),
                self.shifts.ravel().tolist(),
            ],
            'nodata': repr(
                [self._validity.masked, self._validity.alpha, *self._validity.nodata]
            ),
            'files': fingerprint(files),
            **clouds,
        }
        if self.source.resample != 'nearest':
            found['resample'] = self.source.resample
        if not files:
            with open_scene(self.source.dataset, name=self.scene) as raster:
                found['pixels'] = pixel_checksum(raster, self.indexes[0])
        return found

    def _classification(
        self, raster: DatasetReader, scene_bands: Sequence[str] | None
    ) -> tuple[str, int] | None:
        """Return dataset and band of the scene classification, None without one."""
        if self.source.classification is not None:
            return self.source.classification, 1
        given = comma_separated(scene_bands or ())
        keys = [band_key(name or '') for name in given or raster.descriptions]
        key = band_key(CLASSIFICATION)
        return (self.source.dataset, keys.index(key) + 1) if key in keys else None

    def warn_of_clouds(self, asked: bool = True) -> None:
        """Tell how much of the scene is taken as cloud, and how to change that.

        Args:
            asked: Whether the user has chosen how clouds are found.
        """
        if self.clouds is None:
            return
        part = Window(0, 0, *self.grid[:2]) if self.area is None else self.area.window
        share = self.clouds.thumbnail(shrunk(part[2:], OVERVIEW), part).mean()
        hint = '' if asked else ' Set clouds to none to keep these pixels.'
        seen = self.clouds.covers(part)
        if seen < 0.99:
            hint = (
                f' The mask covers {100 * seen:.0f} % of the scene; the rest counts as '
                f'clear.{hint}'
            )
        warnings.warn(
            f'{self.scene}: about {100 * share:.0f} % is cloud or shadow and '
            f'becomes nodata ({self.clouds.tag}).{hint}',
            CloudWarning,
            stacklevel=3,
        )

    def _check_reference(self, reference: str, classes: Sequence[str] | None) -> None:
        """Check that a reference is on the grid of the scene, and match its classes."""
        with open_scene(reference) as raster:
            theirs, named = grid_of(raster), value_names(raster)
        check_same_grid(self.scene, self.grid, reference, theirs)
        self._reference_classes = match_values(named, classes, reference)

    def _scale(
        self, raster: DatasetReader, bands: Sequence[str], model_offset: float
    ) -> None:
        """Set factor and shift of each band, from metadata and from GDAL's tags."""
        tags = BandScales.read(raster, self.indexes, bands)
        shifts = tags.offsets
        if self.offset is not None:
            shifts = np.full(len(bands), self.offset)
        elif len({*shifts[tags.optical]}) == 1 and tags.stated:
            self.offset = float(shifts[tags.optical][0])
        if self.offset is not None or tags.stated:
            shifts = shifts - model_offset
        #: Values are multiplied by factors, then shifts are added, (bands, 1, 1).
        self.factors = tags.factors.astype(np.float32)[:, None, None]
        self.shifts = np.where(tags.optical, shifts, 0).astype(np.float32)[
            :, None, None
        ]
        if tags.message is not None:
            text = f'{self.scene}: {tags.message}'
            warnings.warn(text, ReflectanceWarning, stacklevel=3)

    def _warn_of_georeference(self, raster: DatasetReader) -> None:
        """Warn about a missing or unusual georeference; the grid is kept as it is."""
        transform = self.grid.transform
        if warn_of_control_points(raster, self.scene):
            return
        facts = {
            'has no CRS': self.grid.crs is None,
            'has no transform': transform.is_identity,
            'is rotated': not transform.is_identity
            and bool(transform.b or transform.d),
        }
        said = [fact for fact, true in facts.items() if true]
        if said:
            placed = self.grid.crs is not None and not transform.is_identity
            bare = '' if placed else ', and areas in square meters are left out'
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
        """Return the 1-based indexes of the bands; warn about unused ones."""
        found: Sequence[str | None] = raster.descriptions
        if self.source.bands is not None:
            found = self.source.bands
        if scene_bands is not None:
            scene_bands = comma_separated(scene_bands)
            if len(scene_bands) != raster.count:
                raise SceneError(
                    f'{self.scene} has {raster.count} bands, but scene_bands= names '
                    f'{len(scene_bands)}. Name all bands in file order.'
                )
            found = scene_bands
        #: Whether the bands have names.
        self.named = any(found)
        positions = match_bands(bands, found, self.scene)
        self._warn_of_order(bands, found, positions)
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

    def _warn_of_order(
        self, bands: Sequence[str], found: Sequence[str | None], positions: list[int]
    ) -> None:
        """Tell which bands are taken as which, where the scene does not name them."""
        usual = [*map(band_key, bands)] == [*map(band_key, SENTINEL2_BANDS)]
        numbered = all(re.fullmatch(r'(band )?\d+', name) for name in bands)
        if any(found) or numbered or (usual and len(found) == len(bands)):
            return
        taken = ', '.join(
            f'{position + 1} as {name}'
            for position, name in zip(positions, bands, strict=True)
        )
        warnings.warn(
            f'{self.scene} has no band names, its bands are taken in order: {taken}. '
            'Pass scene_bands= if they are others.',
            BandWarning,
            stacklevel=4,
        )

    def _check_transform(self) -> None:
        """Check that pixels have a size."""
        numbers = tuple(self.grid.transform)[:6]
        if not np.isfinite(numbers).all() or not self.grid.transform.determinant:
            raise SceneError(
                f'{self.scene} has the transform {numbers}, expected pixels with a '
                'size. Set one with gdal_edit.py -a_ullr …'
            )

    def _check_types(self, raster: DatasetReader) -> None:
        """Check that no band is complex."""
        for index in self.indexes:
            dtype = raster.dtypes[index - 1]
            if dtype.startswith('complex'):
                raise SceneError(
                    f'Band {index} of {self.scene} is {dtype}, expected real numbers.'
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
        """Return the sample of a window.

        Args:
            window: The window.
            pixels: Its pixel values (bands, height, width), as stored.
            valid: Its validity mask (height, width).
            image: Array (bands, window, window) to write the image to, so that a batch
                is made without a copy; None: a new array.
        """
        if image is None:
            shape = (len(pixels), self.window, self.window)
            image = np.empty(shape, np.float32)
        height, width = valid.shape
        inside = image[:, :height, :width]
        with np.errstate(over='ignore'):
            # beyond float32 they are invalid
            inside[...] = pixels
        if (self.factors != 1).any():
            inside *= self.factors
        if self.shifts.any():
            inside += self.shifts
        if self.adaptation is not None:
            self.adaptation.apply(inside)
        if not valid.all():
            inside[:, ~valid] = _fill_values(inside, valid)[:, None]
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
            mask = self._read_reference(self.reference, window)
            sample['mask'] = mask.masked_fill(~sample['valid'], IGNORED)
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
        if self._reference_classes is not None:
            padded = as_classes(padded, self._reference_classes)
        return torch.from_numpy(padded)

    def read(
        self, window: Window, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return pixel values (bands, H, W) as stored, and a validity mask (H, W).

        Nodata pixels are invalid, and pixels with NaN or infinity in any band.

        Args:
            window: The window.
            out: Array of this shape to read the values into; None: a new one.

        Raises:
            SceneError: If the pixels cannot be read.
        """
        place = RasterWindow(window.col, window.row, window.width, window.height)
        try:
            raster = self.open()
            pixels = self._pixels(raster, window, out)
            valid = self._validity.valid(raster, pixels, place)
            if self.clouds is not None:
                valid &= ~self.clouds.read(window)
        except RasterioIOError as error:
            reason = read_failure(error, self.source.dataset)
            raise ReadError(
                f'{self.scene} cannot be read at row {window.row}, column '
                f'{window.col}: {reason}'
            ) from error
        self._warn_of_fill(pixels, valid)
        return pixels, valid

    @property
    def fills(self) -> tuple[float, ...]:
        """Values that look like fill values, but count as data, as found so far."""
        return tuple(self._fills)

    def _warn_of_fill(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Warn once about a fill value that is not declared as nodata."""
        if self._fills:
            return
        value = self._validity.fill(pixels, valid)
        if value is not None:
            # a list, which copies of this object share
            self._fills.append(value)
            warnings.warn(
                f'{self.scene}: pixels with {value:g} in every band look like a fill '
                f'value, but count as data. Pass nodata={value:g} if they are no data.',
                NodataWarning,
                stacklevel=3,
            )

    def _pixels(
        self, raster: DatasetReader, window: Window, pixels: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Return pixel values (bands, height, width) as stored.

        Some columns of blocks are read at a time, because GDAL keeps every block of a
        read in memory.
        """
        step = raster.block_shapes[0][1]
        step *= max(1, COLUMNS // step)
        if pixels is None:
            shape = (len(self.indexes), window.height, window.width)
            pixels = np.empty(shape, self.dtype)
        # every read but the first starts at a block
        begins = range(window.col - window.col % step, window.col + window.width, step)
        for begin in begins:
            col = max(begin, window.col)
            end = min(begin + step, window.col + window.width)
            place = RasterWindow(col, window.row, end - col, window.height)
            out = pixels[:, :, col - window.col : end - window.col]
            raster.read(self.indexes, window=place, out=out)
        return pixels

    def open(self) -> DatasetReader:
        """Return the raster, opened once; a copy of this object opens it again."""
        if self._raster is None:
            self._raster = open_scene(self.source.dataset, self.threads, self.scene)
        return self._raster

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        if self._raster is not None:
            self._raster.close()
            self._raster = None
        if self.clouds is not None:
            self.clouds.close()

    def overview(
        self, indexes: Sequence[int], longest: int = 1024, area: Window | None = None
    ) -> NDArray[np.float32]:
        """Return a thumbnail (bands, h, w) of some bands, NaN where invalid.

        Args:
            indexes: Positions among the model's bands.
            longest: Longest side in pixels.
            area: The window to show; None: the whole scene.
        """
        shown = area or Window(0, 0, *self.grid[:2])
        place = RasterWindow(shown.col, shown.row, shown.width, shown.height)
        with open_scene(self.source.dataset, self.threads, self.scene) as raster:
            height, width = shrunk(shown[2:], longest)
            # whether a pixel is valid depends on every band
            every = not self._validity.always
            chosen = range(len(self.indexes)) if every else indexes
            pixels = raster.read(
                [self.indexes[i] for i in chosen],
                window=place,
                out_shape=(len(chosen), height, width),
            )
            valid: NDArray[np.bool_] = np.isfinite(pixels).all(axis=0)
            if every:
                valid = self._validity.valid(raster, pixels, place)
                pixels = pixels[list(indexes)]
            if self.clouds is not None:
                valid &= ~self.clouds.thumbnail((height, width), shown)
        picture: NDArray[np.float32] = pixels.astype(np.float32)
        picture[:, ~valid] = np.nan
        return picture

    def __getstate__(self) -> dict[str, Any]:
        """Drop the open files before pickling: each worker opens its own."""
        return self.__dict__ | {'_raster': None, 'clouds': copy(self.clouds)}


def shrunk(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return height and width of a thumbnail of a scene of some size."""
    shrink = max(1.0, max(size) / longest)
    height, width = (max(1, round(side / shrink)) for side in size)
    return height, width


def _fill_values(
    image: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the fill value of each band: the mean of its valid pixels."""
    if not valid.any():
        return np.zeros(image.shape[0], np.float32)
    mean: NDArray[np.float32] = image[:, valid].mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)
