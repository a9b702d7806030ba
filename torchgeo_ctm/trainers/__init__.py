"""Trainers. Importing this room registers the models."""

from ..maps.decoder import MapOptions
from .checkpoint import import_reference, load_predictor, load_task, save_task
from .class_token_masking import ClassTokenMaskingTask
from .options import AttentionOptions, LabelOptions, OptimizationOptions, PatchOptions
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
