"""Find the clouds of a scene by a detector, and write them as a raster.

The raster is computed once, before the first window is predicted, so that a map does not
depend on windows, processes and interruptions. The detectors are optional packages.
"""

import hashlib
import json
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import BandError, CTMError, CTMWarning, SceneError, SettingError, one_line
from ..files import check_file, check_not_read
from ..grids import IGNORED, Grid, Window
from ..rasters import open_raster
from ..scenes.clouds import CloudMask
from ..scenes.detectors import DETECTORS, Booleans, Floats
from ..scenes.items import Sign
from ..scenes.scene import SceneWindows, open_scene
from .areas import ground_scale
from .geotiff import RasterRows

#: Rows of a scene that are read at once, about.
ROWS = 64
#: Side of a pixel in meters where the scene does not tell it: that of Sentinel-2.
USUAL_PIXEL = 10.0
#: Tags of the raster: detector and version, and a hash of all that it depends on.
CLOUDS, CONTENT = 'CLOUDS', 'CLOUDS_SHA256'


def check_detector(name: str) -> None:
    """Check that a detector is installed.

    Raises:
        SettingError: If it is not.
    """
    if find_spec(name) is None:
        raise SettingError(
            f'clouds={name!r} requires {name}. Install it with pip install '
            f'"torchgeo-ctm[{DETECTORS[name].extra}]".'
        )


@dataclass(frozen=True)
class CloudDetection:
    """The clouds of a scene by a detector, in pixels of about the detector's size.

    Attributes:
        name: The detector, one of :data:`DETECTORS`.
        scene: The scene with the bands of the detector.
        window: The part of the scene in which clouds are found.
        side: Pixels of the scene along a pixel of the detector.
    """

    name: str
    scene: SceneWindows
    window: Window
    side: int

    @classmethod
    def open(
        cls,
        name: str,
        scene: SceneWindows,
        task: Any,
        scene_bands: Any = None,
        sign: Sign | None = None,
        offset: float | None = None,
    ) -> 'CloudDetection':
        """Open a scene with the bands of a detector.

        Args:
            name: The detector.
            scene: The scene, as the model reads it.
            task: The task or predictor.
            scene_bands: Names of the scene's bands in file order.
            sign: Changes the URL of each asset of a STAC item.
            offset: Offset of the scene's values; None: from the metadata, else that of
                the training data.

        Raises:
            BandError: If a band is missing.
        """
        detector, shift = DETECTORS[name], getattr(task.scaling, 'offset', 0.0)
        with open_scene(scene.source.dataset, name=scene.scene) as raster:
            scale = ground_scale(raster, raster.height / 2)
            named = scene.source.bands is not None or any(raster.descriptions)
            if not (scene_bands or named) and raster.count == len(task.bands):
                # as the model takes them
                scene_bands = task.bands
        pixel = USUAL_PIXEL if scale is None else float(np.sqrt(scale[0] * scale[1]))
        side = max(1, round(detector.pixel / pixel))
        try:
            with warnings.catch_warnings():
                # said when the scene was opened for the model
                warnings.simplefilter('ignore', CTMWarning)
                opened = SceneWindows(
                    scene.scene, detector.bands, side, side, scene_bands,
                    nodata=scene.nodata, offset=offset, model_offset=shift, sign=sign,
                    threads=scene.threads,
                )  # fmt: skip
        except BandError as error:
            raise BandError(
                f'{name} reads the bands {", ".join(detector.bands)}. {error}'
            ) from error
        # the model would add it
        opened.shifts = opened.shifts + np.float32(shift)
        return cls(name, opened, _around(scene, side), side)

    @property
    def grid(self) -> Grid:
        """Grid of the raster of clouds."""
        row, col, height, width = self.window
        transform = self.scene.grid.transform @ Affine.translation(col, row)
        transform @= Affine.scale(self.side)
        shape = -(-height // self.side), -(-width // self.side)
        return Grid(*shape, self.scene.grid.crs, transform)

    def write(self, path: Path, overwrite: bool, device: str, progress: bool) -> bool:
        """Write the raster: 0 clear, 1 cloud, 255 nodata; keep one that is there.

        Args:
            path: File to write (.tif).
            overwrite: Replace a raster of another scene.
            device: Type of the model's device, as PyTorch names it.
            progress: Show a progress bar.

        Returns:
            Whether it was written. A raster of this scene and detector is kept.

        Raises:
            OutputError: If another file is there, or the disk refuses it.
            SceneError: If the scene cannot be read, or the detector fails.
        """
        tags = {CLOUDS: f'{self.name} {version(self.name)}', CONTENT: self._content()}
        check_not_read([path], self.scene.input_files())
        with suppress(SceneError):
            if path.exists() and _tags(path).get(CONTENT) == tags[CONTENT]:
                return False
        check_file(path, overwrite)
        values = self._found(device, progress)
        classes = (('clear', DETECTORS[self.name].cloud), ('#7fbf7b', '#f0f0f0'))
        raster = RasterRows(path, self.grid, ['clouds'], tags, classes)
        try:
            raster.write(0, values)
            raster.finish('mode')
            raster.publish()
        finally:
            raster.abandon()
        return True

    def _content(self) -> str:
        """Return a hash of everything that the raster depends on."""
        facts = {
            'detector': [self.name, version(self.name)],
            'scene': self.scene.fingerprint(),
            'window': [*self.window, self.side],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _found(self, device: str, progress: bool) -> NDArray[np.uint8]:
        """Return the values (H, W) of the raster."""
        try:
            rows, clouds = DETECTORS[self.name].load(device)
            kept, valid = [], []
            step = self.side * max(1, ROWS // self.side)
            bar = tqdm(
                total=self.window.height * self.window.width,
                desc=self.name, unit='px', unit_scale=True, disable=not progress,
            )  # fmt: skip
            with bar:
                for start in range(0, self.window.height, step):
                    values, some = self._rows(start, step)
                    kept.append(rows(values))
                    valid.append(some)
                    bar.update(
                        self.window.width * min(step, self.window.height - start)
                    )
            seen = np.concatenate(valid)
            cloudy = clouds(np.concatenate(kept, axis=1), seen)
        except (CTMError, MemoryError):
            raise
        except Exception as error:
            # other packages raise what they like: without network, hubs do
            raise SceneError(
                f'{self.name} failed on {self.scene.scene}: {one_line(error)}'
            ) from error
        return np.where(seen, cloudy, IGNORED).astype(np.uint8)

    def _rows(self, start: int, step: int) -> tuple[Floats, Booleans]:
        """Return some rows of the window, as means over pixels of the detector."""
        window, scene = self.window, self.scene
        part = window._replace(
            row=window.row + start, height=min(step, window.height - start)
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', CTMWarning)
            pixels, valid = scene.read(part)
        values = pixels.astype(np.float32) * scene.factors + scene.shifts
        return block_means(values, valid, self.side)


def block_means(values: Floats, valid: Booleans, side: int) -> tuple[Floats, Booleans]:
    """Return the mean (B, h, w) of the valid pixels of blocks, and which have any.

    Args:
        values: Values (B, H, W).
        valid: Valid pixels (H, W).
        side: Side of a block in pixels; blocks at the last row or column may be smaller.
    """
    rows, cols = (np.arange(0, size, side) for size in valid.shape)

    def total(array: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(np.add.reduceat(array, rows, axis=-2), cols, axis=-1)

    count = total(valid.astype(np.float32))
    means: Floats = total(np.where(valid, values, 0)) / np.maximum(count, 1)
    return means, count > 0


def detected_clouds(scene: SceneWindows, path: Path, dilation: int) -> CloudMask:
    """Return the clouds of a scene from a raster that a detection wrote."""
    name = _tags(path)[CLOUDS]
    return CloudMask(scene.scene, scene.grid, str(path), name, 1, (1,), dilation)


def _tags(path: Path) -> dict[str, str]:
    """Return the tags of a raster."""
    with open_raster(path) as raster:
        found: dict[str, str] = raster.tags()
        return found


def _around(scene: SceneWindows, side: int) -> Window:
    """Return the pixels that windows of a scene's area may read, in whole blocks."""
    height, width = scene.grid[:2]
    if scene.area is None:
        return Window(0, 0, height, width)
    row, col, rows, cols = scene.area.window
    top, left = (max(0, x - scene.window) // side * side for x in (row, col))
    bottom = min(height, row + rows + scene.window)
    right = min(width, col + cols + scene.window)
    return Window(top, left, bottom - top, right - left)
