"""From scenes and a checkpoint to maps: of one scene, of several dates, of many scenes."""

from .chips import pseudo_masks
from .scene import chosen_detector, predict_scene
from .trainer import ACCELERATORS, PRECISIONS, build_trainer, check_choices, running

__all__ = [
    'ACCELERATORS',
    'PRECISIONS',
    'build_trainer',
    'check_choices',
    'chosen_detector',
    'predict_scene',
    'pseudo_masks',
    'running',
]
