"""Class-specific token masking for TorchGeo.

Image-level labels in, a georeferenced land-cover mask of the whole scene out.
The public names below are imported when they are first used, so that
``import torchgeo_ctm`` (and ``torchgeo-ctm --help``) stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .annotation import label_windows
    from .datamodules import DFC2020DataModule, SceneDataModule, SyntheticDataModule
    from .datasets import DFC2020, SceneWindows, SyntheticLandCover
    from .models import ClassTokenViT
    from .prediction import predict_scene
    from .trainers import ClassTokenMaskingTask

__all__ = [
    'DFC2020',
    'ClassTokenMaskingTask',
    'ClassTokenViT',
    'DFC2020DataModule',
    'SceneDataModule',
    'SceneWindows',
    'SyntheticDataModule',
    'SyntheticLandCover',
    '__version__',
    'label_windows',
    'predict_scene',
]

_ROOMS = {
    'ClassTokenMaskingTask': 'trainers',
    'ClassTokenViT': 'models',
    'DFC2020': 'datasets',
    'DFC2020DataModule': 'datamodules',
    'SceneDataModule': 'datamodules',
    'SceneWindows': 'datasets',
    'SyntheticDataModule': 'datamodules',
    'SyntheticLandCover': 'datasets',
    'label_windows': 'annotation',
    'predict_scene': 'prediction',
}


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use."""
    if name in _ROOMS:
        return getattr(import_module(f'.{_ROOMS[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
