"""What inference expects of the task that predicts and of the data that it predicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import SettingError
from ..grids import Grid
from ..maps.decoder import MapDecoder
from ..windows import WindowPlan


class ScenePredictor(Protocol):
    """A task that predicts windows of scenes.

    Its ``predict_step`` takes a batch with ``image`` (B, bands, H, W) and ``valid``
    (B, H, W), and returns ``probs`` (B, C), ``maps`` (B, C, h, w) and ``scores``
    (B, C, h, w), comparable between windows.
    """

    class_names: list[str]
    class_colors: list[str]
    decoder: MapDecoder

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def scaling(self) -> nn.Module:
        """The scaling of bands."""

    @property
    def bands(self) -> Sequence[str]:
        """Names of the model's bands."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    def refines(self) -> bool:
        """Whether scores are per pixel, not per patch."""

    @property
    def map_stride(self) -> int:
        """Pixels from one position of the scores to the next."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the trained weights."""

    def provenance(self) -> dict[str, str]:
        """Return the tags of products: bands, scaling, options of the decoder."""


class ChipPredictor(ScenePredictor, Protocol):
    """A task that predicts chips and decides their masks."""

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> Any:
        """Return ``probs``, ``maps`` and ``scores`` of a batch."""

    def pseudo_masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        batch: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return masks (B, H, W) int64 of class maps and class probabilities."""

    def reference_mask(self, mask: Tensor) -> Tensor:
        """Return a batch's ``mask`` as classes (B, H, W), 255 ignored."""


class Origin(Protocol):
    """Metadata of a scene."""

    @property
    def acquired(self) -> str | None:
        """Acquisition time, ISO 8601, if known."""


class Change(Protocol):
    """A change of a scene's values towards the training data."""

    @property
    def name(self) -> str:
        """Name for the tags of products."""

    def undone(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return changed pixels (bands, n) as they were."""


class Scene(Protocol):
    """A scene, cut into overlapping windows."""

    scene: str
    adaptation: Change | None
    grid: Grid
    plan: WindowPlan
    offset: float | None
    nodata: float | None
    dtype: Any

    @property
    def indexes(self) -> Sequence[int]:
        """Bands of the raster that the model uses."""

    @property
    def source(self) -> Origin:
        """Metadata of the scene."""

    @property
    def window(self) -> int:
        """Side of a window in pixels."""

    @property
    def stride(self) -> int:
        """Distance between windows in pixels."""

    def __len__(self) -> int:
        """Return the number of windows."""


class Thumbnail(Protocol):
    """A small copy of a scene, taken while the scene is read."""

    def picture(self) -> NDArray[np.float32]:
        """Return bands (3, h, w), NaN where invalid."""


class Batches(Protocol):
    """The windows of one scene in batches, with ``index`` (B,), their numbers."""

    batch_size: int
    #: Windows that need not be computed, by number: above 0.
    finished: NDArray[np.uint8]

    @property
    def thumbnail(self) -> Thumbnail | None:
        """The thumbnail, if one is taken."""

    def missing(self, finished: NDArray[np.uint8]) -> int:
        """Return how many windows with data are not finished."""


class SceneSource(Protocol):
    """A data module of scenes."""

    @property
    def scenes(self) -> Sequence[str]:
        """Paths of the scenes."""

    @property
    def predict_datasets(self) -> Sequence[Scene]:
        """The scenes, after setup."""

    @property
    def batches(self) -> Sequence[Batches]:
        """The batches of each scene, after setup."""

    def on_start(self, callback: Callable[[], None]) -> None:
        """Register what is called once, before the first window is read."""

    def take_thumbnails(self, bands: Sequence[int], longest: int) -> None:
        """Take a thumbnail of each scene while it is read."""


class ChipSource(Protocol):
    """A data module of chips in order."""

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip and, where it is known, its grid."""


#: Members that tell a data module of scenes, and a task that predicts them.
SOURCE = ('scenes', 'predict_datasets', 'batches', 'on_start', 'take_thumbnails')
PREDICTOR = ('class_names', 'class_colors', 'bands', 'decoder', 'model', 'provenance')


def _has_members(value: object, names: tuple[str, ...]) -> bool:
    """Return whether a value has all members.

    Not isinstance: since Python 3.12 it does not see the modules and buffers of a
    ``torch.nn.Module``, which only its ``__getattr__`` knows.
    """
    return all(hasattr(value, name) for name in names)


def scene_source(datamodule: object) -> SceneSource:
    """Return a data module, checked to be one of scenes.

    Raises:
        SettingError: If it is not.
    """
    if not _has_members(datamodule, SOURCE):
        raise SettingError(
            f'PseudoMaskWriter expected a SceneDataModule, got '
            f'{type(datamodule).__name__}.'
        )
    return cast(SceneSource, datamodule)


def scene_predictor(task: object) -> ScenePredictor:
    """Return a task, checked to be one that predicts scenes.

    Raises:
        SettingError: If it is not.
    """
    if not _has_members(task, PREDICTOR):
        raise SettingError(
            f'PseudoMaskWriter expected a ClassTokenMaskingTask or a segmentation '
            f'network, got {type(task).__name__}.'
        )
    return cast(ScenePredictor, task)
