"""Data sets: one file each."""

from torchgeo.datasets import NonGeoDataset

from ..scenes.batches import SceneBatches, Thumbnail
from ..scenes.scene import SceneWindows
from .ade20k import ADE20K
from .coco import COCO
from .dfc2020 import DFC2020
from .dfc2020_geo import DFC2020Geo
from .endotect import EndoTect
from .image_folder import ImageFolder
from .labeled import LabelledDataset, LabelledSampler
from .pseudo_masks import PseudoMasks
from .synthetic import SyntheticLandCover, write_scene
from .voc2012 import VOC2012

__all__ = [
    'ADE20K',
    'COCO',
    'DFC2020',
    'VOC2012',
    'DFC2020Geo',
    'EndoTect',
    'ImageFolder',
    'LabelledDataset',
    'LabelledSampler',
    'PseudoMasks',
    'SceneBatches',
    'SceneWindows',
    'SyntheticLandCover',
    'Thumbnail',
    'write_scene',
]

# not a base class: mapping a scene does not need the seconds that TorchGeo imports
NonGeoDataset.register(SceneWindows)
