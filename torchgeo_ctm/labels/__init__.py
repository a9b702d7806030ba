"""Image-level labels of windows from masks, polygons, points, tables and rasters."""

from ..legends import IGBP, IGBP_SIMPLIFIED, WORLDCOVER
from .checks import check_overlap, check_sizes
from .points import PointLabels
from .polygons import PolygonLabels
from .rasters import RasterLabels
from .shares import class_shares, presence_from_mask
from .source import ImageLabel, LabelSource, Unlabeled
from .tables import TableLabels

__all__ = [
    'IGBP',
    'IGBP_SIMPLIFIED',
    'WORLDCOVER',
    'ImageLabel',
    'LabelSource',
    'PointLabels',
    'PolygonLabels',
    'RasterLabels',
    'TableLabels',
    'Unlabeled',
    'check_overlap',
    'check_sizes',
    'class_shares',
    'presence_from_mask',
]
