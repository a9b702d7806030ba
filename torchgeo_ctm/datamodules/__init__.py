"""Data modules: the same names as the data sets."""

from .chips import ChipDataModule
from .dfc2020 import DFC2020DataModule
from .scene import SceneDataModule
from .synthetic import SyntheticDataModule

__all__ = [
    'ChipDataModule',
    'DFC2020DataModule',
    'SceneDataModule',
    'SyntheticDataModule',
]
