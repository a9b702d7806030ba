"""Image-level labels from what people have: masks, polygons, points, tables, maps."""

from .legends import IGBP, IGBP_SIMPLIFIED, WORLDCOVER
from .overlap import check_overlap
from .points import PointLabels
from .polygons import PolygonLabels
from .rasters import RasterLabels
from .shares import class_shares, presence_from_mask
from .sizes import check_sizes
from .source import ImageLabel, LabelSource
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
    'check_overlap',
    'check_sizes',
    'class_shares',
    'presence_from_mask',
]
