"""Trainers. A task registers the models when it is imported.

The public names are imported when they are first used: Lightning takes longer to import
than a small scene takes to map.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..maps.decoder import MapOptions
    from .any_checkpoint import load_predictor
    from .checkpoint import import_reference, load_task, save_task
    from .class_token_masking import ClassTokenMaskingTask
    from .options import (
        AttentionOptions,
        LabelOptions,
        OptimizationOptions,
        PatchOptions,
    )
    from .segmentation import SegmentationPredictor
    from .soft_masks import SoftMaskSegmentationTask

__all__ = [
    'AttentionOptions',
    'ClassTokenMaskingTask',
    'LabelOptions',
    'MapOptions',
    'OptimizationOptions',
    'PatchOptions',
    'SegmentationPredictor',
    'SoftMaskSegmentationTask',
    'import_reference',
    'load_predictor',
    'load_task',
    'save_task',
]

_FILES = {
    'ClassTokenMaskingTask': 'class_token_masking',
    'MapOptions': 'options',
    'SegmentationPredictor': 'segmentation',
    'SoftMaskSegmentationTask': 'soft_masks',
    'import_reference': 'checkpoint',
    'load_predictor': 'any_checkpoint',
    'load_task': 'checkpoint',
    'save_task': 'checkpoint',
}


def __getattr__(name: str) -> Any:
    """Import a public name from its file on first use."""
    if name in __all__:
        module = import_module(f'.{_FILES.get(name, "options")}', __name__)
        return getattr(module, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    """Return the public names, those that are not imported yet, too."""
    return sorted({*globals(), *__all__})
