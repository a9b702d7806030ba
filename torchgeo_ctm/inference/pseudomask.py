"""Former place of :mod:`torchgeo_ctm.maps.class_maps`, kept for code that imports it."""

from ..maps.class_maps import *
