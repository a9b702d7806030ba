"""Trainers. Importing this room registers the models."""

from .checkpoint import load_task
from .class_token_masking import ClassTokenMaskingTask

__all__ = ['ClassTokenMaskingTask', 'load_task']
