"""Data modules: the same names as the data sets."""

from .chips import ChipDataModule
from .dfc2020 import DFC2020DataModule
from .eurosat import EuroSATDataModule
from .image_folder import (
    ADE20KDataModule,
    COCODataModule,
    EndoTectDataModule,
    ImageFolderDataModule,
    VOC2012DataModule,
)
from .pseudo_masks import PseudoMaskDataModule
from .scene import SceneDataModule
from .synthetic import SyntheticDataModule

__all__ = [
    'ADE20KDataModule',
    'COCODataModule',
    'ChipDataModule',
    'DFC2020DataModule',
    'EndoTectDataModule',
    'EuroSATDataModule',
    'ImageFolderDataModule',
    'PseudoMaskDataModule',
    'SceneDataModule',
    'SyntheticDataModule',
    'VOC2012DataModule',
]
