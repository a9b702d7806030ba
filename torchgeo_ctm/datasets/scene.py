"""One raster scene, cut into overlapping windows."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..errors import BandWarning, GeoreferenceWarning, GridError, SceneError
from ..scaling import match_bands
from ..windows import Grid, Window, plan_windows


def open_scene(path: str | Path) -> DatasetReader:
    """Open a raster for reading.

    Raises:
        SceneError: If it is missing, a folder, or nothing that GDAL opens.
    """
    local = Path(path)
    if local.is_dir():
        rasters = sorted(p.name for p in local.iterdir() if p.suffix.lower() == '.tif')
        holds = f'nearest: {local / rasters[0]}' if rasters else 'it holds no .tif'
        raise SceneError(f'{path} is a folder; needed: one raster; {holds}')
    remote = '://' in str(path) or str(path).startswith('/vsi')
    if not remote and not local.exists():
        raise SceneError(f'{path} does not exist; needed: a raster')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            return rasterio.open(path)
    except RasterioIOError as error:
        raise SceneError(
            f'{path} is not a raster that GDAL opens: {str(error).splitlines()[0]}'
        ) from error


class SceneWindows(NonGeoDataset):
    """Windows of one scene, in the order in which a mosaic takes them.

    A sample holds ``image`` float32 (bands, window, window) in the scene's own
    numbers, ``valid`` bool (window, window) and ``window`` int64 (4,): row, column,
    height and width in the scene's grid. Invalid pixels are filled with the mean of
    the window's valid ones; a scene smaller than a window is padded by reflection.
    """

    def __init__(
        self,
        scene: str | Path,
        bands: Sequence[str],
        window: int,
        stride: int,
        scene_bands: Sequence[str] | None = None,
        reference: str | Path | None = None,
    ) -> None:
        """Open a scene.

        Args:
            scene: Any raster that GDAL opens.
            bands: Names of the bands the model needs, in its order.
            window: Side of a window in pixels.
            stride: Distance between windows in pixels, 1…window.
            scene_bands: Names of the scene's bands in file order, for a scene whose
                own descriptions are missing or wrong.
            reference: Class raster on the scene's grid; samples then hold its window
                as ``mask`` int64 (window, window), 255 outside.

        Raises:
            SceneError: If the scene cannot be opened.
            BandError: If bands are missing.
            GridError: If *reference* is on another grid.
            SettingError: If *stride* or *window* is out of range.
        """
        self.scene = str(scene)
        self.window = window
        self.stride = stride
        self.reference = str(reference) if reference is not None else None
        self._raster: DatasetReader | None = None
        with open_scene(scene) as raster:
            self.grid = Grid(raster.height, raster.width, raster.crs, raster.transform)
            self.indexes = self._match(raster, bands, scene_bands)
            self._check_types(raster)
        if self.reference is not None:
            with open_scene(self.reference) as raster:
                if (raster.height, raster.width) != self.grid[:2]:
                    raise GridError(
                        f'{self.reference} has {raster.height} × {raster.width} px, '
                        f'{self.scene} has {self.grid.height} × {self.grid.width}'
                    )
        missing = [
            name
            for name, absent in (
                ('CRS', self.grid.crs is None),
                ('transform', self.grid.transform.is_identity),
            )
            if absent
        ]
        if missing:
            warnings.warn(
                f'{self.scene} has no {" and no ".join(missing)}: none is invented for '
                'the mask',
                GeoreferenceWarning,
                stacklevel=2,
            )
        self.windows = plan_windows(self.grid.height, self.grid.width, window, stride)

    def _match(
        self,
        raster: DatasetReader,
        bands: Sequence[str],
        scene_bands: Sequence[str] | None,
    ) -> list[int]:
        """Return the 1-based indexes of the bands; name those left out."""
        found: Sequence[str | None] = raster.descriptions
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
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read one window.

        Raises:
            SceneError: If its pixels cannot be read.
        """
        window = self.windows[index]
        image, valid = self.read(window)
        image[:, ~valid] = _fill(image, valid)[:, None]
        pad = [(0, self.window - size) for size in image.shape[1:]]
        if any(after for _, after in pad):
            # 'symmetric' repeats as often as needed, for scenes of a few pixels too
            image = np.pad(image, [(0, 0), *pad], mode='symmetric')
            valid = np.pad(valid, pad)
        sample = {
            'image': torch.from_numpy(image),
            'valid': torch.from_numpy(valid),
            'window': torch.tensor(window),
        }
        if self.reference is not None:
            sample['mask'] = self._read_reference(window)
        return sample

    def _read_reference(self, window: Window) -> Tensor:
        """Return the reference's window, int64 (window, window)."""
        if self.reference is None:
            raise RuntimeError('no reference was given')
        place = RasterWindow(window.col, window.row, window.width, window.height)
        with open_scene(self.reference) as raster:
            mask = raster.read(1, window=place).astype(np.int64)
        pad = [(0, self.window - size) for size in mask.shape]
        return torch.from_numpy(np.pad(mask, pad, constant_values=255))

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return pixels (bands, height, width) float32 and their validity."""
        if self._raster is None:
            self._raster = open_scene(self.scene)
        place = RasterWindow(window.col, window.row, window.width, window.height)
        try:
            image = self._raster.read(self.indexes, window=place).astype(np.float32)
            valid = self._raster.dataset_mask(window=place) > 0
        except RasterioIOError as error:
            raise SceneError(
                f'{self.scene} cannot be read at row {window.row}, column '
                f'{window.col}: {str(error).splitlines()[0]}'
            ) from error
        return image, valid & np.isfinite(image).all(axis=0)

    def overview(
        self, indexes: Sequence[int], longest: int = 1024
    ) -> NDArray[np.float32]:
        """Return a small picture (bands, h, w) of some bands, NaN where invalid.

        Args:
            indexes: Positions among the model's bands.
            longest: Longest side in pixels.
        """
        with open_scene(self.scene) as raster:
            shrink = max(1.0, max(raster.height, raster.width) / longest)
            height = max(1, round(raster.height / shrink))
            width = max(1, round(raster.width / shrink))
            picture: NDArray[np.float32] = raster.read(
                [self.indexes[i] for i in indexes],
                out_shape=(len(indexes), height, width),
            ).astype(np.float32)
            valid = raster.dataset_mask(out_shape=(height, width)) > 0
        picture[:, ~valid] = np.nan
        return picture

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: each worker opens its own."""
        return self.__dict__ | {'_raster': None}


def _fill(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what to put into invalid pixels: each band's mean of the valid ones."""
    if not valid.any():
        return np.zeros(image.shape[0], np.float32)
    mean: NDArray[np.float32] = image[:, valid].mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)
