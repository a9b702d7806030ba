"""Trainers. Importing this room registers the models."""

from .checkpoint import import_reference, load_task, save_task
from .class_token_masking import ClassTokenMaskingTask

__all__ = ['ClassTokenMaskingTask', 'import_reference', 'load_task', 'save_task']
