"""Data sets: one file each."""

from .batches import SceneBatches, Thumbnail
from .dfc2020 import DFC2020
from .scene import SceneWindows
from .synthetic import SyntheticLandCover

__all__ = ['DFC2020', 'SceneBatches', 'SceneWindows', 'SyntheticLandCover', 'Thumbnail']
