"""Trainers. Importing this room registers the models."""

from .checkpoint import import_reference, load_predictor, load_task, save_task
from .class_token_masking import ClassTokenMaskingTask
from .segmentation import SegmentationPredictor

__all__ = [
    'ClassTokenMaskingTask',
    'SegmentationPredictor',
    'import_reference',
    'load_predictor',
    'load_task',
    'save_task',
]
