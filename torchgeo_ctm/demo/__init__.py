"""Demo: from image-level labels to the map of a scene, with one command."""

from .data import CLASSES, CRS, TAGS, find_scene, scored_points

__all__ = ('CLASSES', 'CRS', 'TAGS', 'find_scene', 'scored_points')
