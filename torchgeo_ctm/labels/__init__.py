"""Image-level labels from what people have: masks, polygons, points, tables, maps."""

from .shares import class_shares, presence_from_mask
from .source import ImageLabel, LabelSource

__all__ = ['ImageLabel', 'LabelSource', 'class_shares', 'presence_from_mask']
