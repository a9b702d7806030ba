"""What inference expects of the task that predicts and of the data that it predicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..grids import Grid
from ..maps.decoder import MapDecoder
from ..scenes.batches import SceneBatches


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

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules, compiled ones among them."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the trained weights."""

    def provenance(self) -> dict[str, str]:
        """Return the tags of products: bands, scaling, options of the decoder."""

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> Any:
        """Return ``probs``, ``maps`` and ``scores`` of a batch."""


class ChipPredictor(ScenePredictor, Protocol):
    """A task that predicts chips and decides their masks."""

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


class SceneData(Protocol):
    """A data module of scenes."""

    @property
    def scenes(self) -> Sequence[str]:
        """Paths of the scenes."""

    @property
    def batches(self) -> Sequence[SceneBatches]:
        """The batches of each scene, after setup."""


class ChipData(Protocol):
    """A data module of chips in order."""

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip and, where it is known, its grid."""


#: Members that tell a data module of scenes, and a task that predicts them.
SOURCE = ('scenes', 'batches')
PREDICTOR = ('class_names', 'class_colors', 'bands', 'decoder', 'model', 'provenance')


def _has_members(value: object, names: tuple[str, ...]) -> bool:
    """Return whether a value has all members.

    Not isinstance: since Python 3.12 it does not see the modules and buffers of a
    ``torch.nn.Module``, which only its ``__getattr__`` knows.
    """
    return all(hasattr(value, name) for name in names)


def scene_data(datamodule: object) -> SceneData:
    """Return a data module, checked to be one of scenes.

    Raises:
        SettingError: If it is not.
    """
    if not _has_members(datamodule, SOURCE):
        raise SettingError(
            f'PseudoMaskWriter expected a SceneDataModule, got '
            f'{type(datamodule).__name__}.'
        )
    return cast(SceneData, datamodule)


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
