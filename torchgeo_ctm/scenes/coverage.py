"""Cover scenes with the windows that a model predicts."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import (
    AtmosphereWarning,
    PixelSizeWarning,
    ReflectanceWarning,
    SettingError,
    did_you_mean,
)
from ..grids import SAME_SIZE, pixel_size
from ..reflectance import offset_complaint, scaling_complaint
from ..scaling import ADAPTATIONS, Resample, check_adaptation
from .adaptation import atmosphere_complaint, dark_adaptation, knows_range
from .batches import SceneBatches
from .clouds import DILATION, CloudOptions
from .items import Sign, scene_stem
from .pixel_sample import sample_pixels
from .scene import SceneWindows

#: Windows may be larger than a scene by this factor, or have this side.
LARGER, SMALL = 2, 512


@dataclass(frozen=True)
class Coverage:
    """How scenes are cut into windows and read.

    Attributes:
        batch_size: Windows per batch.
        num_workers: Threads that read ahead and decode; None: 1 for local scenes and a
            model on a CPU, else 2.
        window: Side of a window in pixels; None: that of the training chips, or 256 px
            if masks come from the local head alone.
        stride: Distance between windows in pixels; None: half a window, or an overlap
            of 32 px if masks come from the local head alone.
        scene_bands: Names of a scene's bands in file order.
        nodata: Value of invalid pixels; None: as the raster declares them.
        offset: Added to the values to get reflectance × 10,000; None: from the metadata.
        shifted_grids: Move *stride* to the nearest odd multiple of half a patch.
        adapt: 'dark' or 'none', see
            :func:`~torchgeo_ctm.scenes.adaptation.dark_adaptation`; None: as the
            model's ``scaling.adapt`` says.
        clouds: 'scl' or 'none', see :class:`~torchgeo_ctm.scenes.clouds.CloudOptions`.
        cloud_mask: Raster of clouds; '{scene}' in it stands for the name of the scene,
            and a list has one for each.
        cloud_dilation: Pixels around clouds that are cloud too.
        sign: Changes the URL of each asset of a STAC item, as to add a token.
        resample: How coarse bands in separate files come to the grid of the finest,
            'nearest' or 'bilinear'; None: as the model's ``scaling.resample`` says.
    """

    batch_size: int = 10
    num_workers: int | None = None
    window: int | None = None
    stride: int | None = None
    scene_bands: Sequence[str] | None = None
    nodata: float | None = None
    offset: float | None = None
    shifted_grids: bool = False
    adapt: str | None = None
    clouds: str | None = None
    cloud_mask: str | Sequence[str] | None = None
    cloud_dilation: int = DILATION
    sign: Sign | None = None
    resample: Resample | None = None

    def open(
        self,
        scenes: Sequence[str],
        references: Sequence[str | None],
        task: Any,
        window: int,
        stride: int,
        threads: int = 1,
    ) -> list[SceneWindows]:
        """Open scenes with the bands and the offset of the model.

        Args:
            scenes: Paths of the scenes.
            references: Class raster of each scene, or None.
            task: The task or predictor.
            window: Side of a window in pixels.
            stride: Distance between windows in pixels.
            threads: Threads that decode.
        """
        resample: Any = self.resample
        if resample is None:
            resample = getattr(task.scaling, 'resample', 'nearest')
        opened = [
            SceneWindows(
                scene,
                task.bands,
                window,
                stride,
                self.scene_bands,
                reference,
                self.nodata,
                self.offset,
                getattr(task.scaling, 'offset', 0.0),
                threads,
                CloudOptions(self.clouds, mask, self.cloud_dilation),
                self.sign,
                resample,
                getattr(task, 'class_names', None),
            )
            for scene, reference, mask in zip(
                scenes, references, self._cloud_masks(scenes), strict=True
            )
        ]
        for scene in opened if self.window is not None else ():
            side = max(scene.grid.height, scene.grid.width)
            if window > max(LARGER * side, SMALL):
                raise SettingError(
                    f'window={window} px is far larger than {scene.scene}, which has '
                    f'{scene.grid.height} × {scene.grid.width} px. Leave window out.'
                )
        return opened

    def _cloud_masks(self, scenes: Sequence[str]) -> Sequence[str | None]:
        """Return the raster of clouds of each scene.

        Raises:
            SettingError: If there are several, but not one for each scene.
        """
        given, count = self.cloud_mask, len(scenes)
        if given is None:
            return [None] * count
        if not isinstance(given, str | os.PathLike | list | tuple):
            raise SettingError(
                f'cloud_mask is of type {type(given).__name__}, expected a raster, or a '
                'list of them.'
            )
        if isinstance(given, str | os.PathLike):
            return [
                str(given).replace('{scene}', scene_stem(scene)) for scene in scenes
            ]
        if len(given) < count:
            raise SettingError(
                f'Got {len(given)} cloud masks for {count} scenes, expected one for each.'
            )
        return given[:count]

    def batches(
        self,
        scenes: Sequence[str],
        task: Any,
        device: str,
        references: Sequence[str | None] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> list[SceneBatches]:
        """Return the batches of each scene, in windows that overlap.

        Args:
            scenes: Paths of the scenes.
            task: The task or predictor, whose windows they are.
            device: Type of the model's device, as PyTorch names it.
            references: Class raster of each scene, or None.
            part: Number of this process, and how many share the scenes.

        Raises:
            SettingError: If a number does not fit the model.
        """
        check_least(
            [('batch_size', self.batch_size, 1), ('num_workers', self.num_workers, 0)]
        )
        window, stride = self._prediction_windows(task)
        ahead = self.num_workers
        if ahead is None:
            local = all(Path(scene).exists() for scene in scenes)
            ahead = 1 if local and device == 'cpu' else 2
        decoders = ahead or os.cpu_count() or 1
        references = references or [None] * len(scenes)
        self.adaptation(task)  # a wrong option is refused before weights are loaded
        return [
            # more waiting batches would only use memory
            SceneBatches(scene, self.batch_size, min(ahead, 2), part)
            for scene in self.open(scenes, references, task, window, stride, decoders)
        ]

    def adaptation(self, task: Any) -> str:
        """Return how scenes are moved towards the training data.

        Raises:
            SettingError: If the value is unknown, or the model does not know enough.
        """
        if self.adapt is None:
            return str(getattr(task.scaling, 'adapt', 'none'))
        if self.adapt not in ADAPTATIONS:
            raise SettingError(
                f"Unknown adapt {self.adapt!r}, expected 'dark' or 'none'."
                + did_you_mean(str(self.adapt), ADAPTATIONS)
            )
        check_adaptation(task.scaling, self.adapt)
        return self.adapt

    def adapt_scenes(self, batches: Iterable[SceneBatches], task: Any) -> None:
        """Compare scenes with the training data, and adapt them if asked to.

        Args:
            batches: The batches of each scene.
            task: The task or predictor, with its weights.
        """
        name = self.adaptation(task)
        for scene in (each.scene for each in batches):
            _compare_pixel_sizes(scene, getattr(task.scaling, 'pixel_size', None))
            if name == 'none' and not knows_range(task.scaling):
                continue
            pixels = sample_pixels(scene)
            complaint = offset_complaint(pixels, task.scaling, scene.offset)
            if complaint is not None:
                warnings.warn(
                    f'{scene.scene}: {complaint}', ReflectanceWarning, stacklevel=2
                )
            elif scaling_complaint(pixels, task.bands, task.scaling) is not None:
                # of all bands, told by the first window
                pass
            elif complaint := atmosphere_complaint(pixels, task.scaling):
                order = (
                    ''
                    if scene.named
                    else ' Or its bands, unnamed, are in another order.'
                )
                warnings.warn(
                    f'{scene.scene}: {complaint}{order}',
                    AtmosphereWarning,
                    stacklevel=2,
                )
            # an empty scene gets a warning of its own, once it is mapped
            if name == 'dark' and pixels.shape[1]:
                scene.adaptation = dark_adaptation(pixels, task.scaling)

    def chip_window(self, task: Any) -> int:
        """Return the side of a window in pixels, a multiple of the patch size.

        Raises:
            SettingError: If :attr:`window` is not.
        """
        chip = task.hparams['img_size']
        window = self.window
        if window is None:
            window = chip if isinstance(chip, int) else max(chip)
        patch: int = task.model.patch_size
        if window < patch or window % patch:
            fits = max(1, round(window / patch)) * patch
            fault = 'does not fit' if window >= 1 else 'is not positive'
            raise SettingError(
                f'window={window} px {fault}, expected a multiple of the patch size '
                f'{patch} px. Did you mean {fits}?'
            )
        return int(window)

    def _prediction_windows(self, task: Any) -> tuple[int, int]:
        """Return side of and distance between windows to predict, in pixels."""
        if task.prediction_window is None:
            window = self.chip_window(task)
            return window, self._stride(task, window, max(1, window // 2))
        side, overlap = task.prediction_window
        window = side if self.window is None else self.window
        check_window(task, window, side)
        return window, self._stride(task, window, window - min(overlap, window // 2))

    def _stride(self, task: Any, window: int, usual: int) -> int:
        """Return the distance between windows in pixels, *usual* unless another is set."""
        stride = usual if self.stride is None else self.stride
        half = _patch(task) // 2
        if self.shifted_grids and half:
            odd = 2 * (stride // (2 * half)) + 1
            stride = odd * half if odd * half <= window else (odd - 2) * half
        return stride


def _patch(task: Any) -> int:
    """Return the pixels of which the sides of a network's windows are multiples."""
    model = task.model
    return int(model.local_head.stride if task.is_local else model.patch_size)


def _compare_pixel_sizes(scene: SceneWindows, trained: float | None) -> None:
    """Warn if a scene has larger or smaller pixels than the training data, in meters."""
    size = pixel_size(scene.grid)
    if trained is None or size is None:
        return
    if max(size, trained) <= SAME_SIZE * min(size, trained):
        return
    warnings.warn(
        f'{scene.scene}: its pixels are {size:g} m wide, those of the training data '
        f'{trained:g} m, so its map may be worse. Resample the scene to {trained:g} m '
        'first, for example with gdalwarp -tr.',
        PixelSizeWarning,
        stacklevel=3,
    )


def check_least(numbers: Iterable[tuple[str, int | None, int]]) -> None:
    """Check that numbers, given as (name, value or None, least), are large enough.

    Raises:
        SettingError: If one is not.
    """
    for name, value, least in numbers:
        if value is not None and value < least:
            raise SettingError(
                f'{name}={value} is too small, expected at least {least}.'
            )


def check_window(task: Any, window: int, usual: int) -> None:
    """Check that a network can map windows of a size.

    Raises:
        SettingError: If they are too small, or not a multiple of its stride.
    """
    is_local = task.is_local
    least: int = task.model.field_of_view if is_local else task.model.patch_size
    step = _patch(task)
    if window < least:
        what = 'field of view of' if is_local else 'smallest window,'
        raise SettingError(
            f'window={window} px is smaller than the {what} {least} px. Did you mean '
            f'{max(usual, -(-least // step) * step)}?'
        )
    if window % step:
        raise SettingError(
            f'window={window} px is not a multiple of {step} px, the stride of the '
            f'network. Did you mean {round(window / step) * step}?'
        )
