"""Compare coordinate reference systems, and transform points between them."""

from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from ..errors import LabelError

Floats = NDArray[np.float64]


@lru_cache(maxsize=256)
def pyproj_crs(crs: Any) -> pyproj.CRS:
    """Return pyproj's CRS for rasterio's, an authority code or a WKT.

    Raises:
        LabelError: If *crs* is None or cannot be understood.
    """
    if crs is None:
        raise LabelError(
            'A scene without a CRS cannot be matched with georeferenced labels. Use a '
            'georeferenced scene, or labels by file name (TableLabels).'
        )
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise LabelError(
            f'Cannot understand crs={crs}, expected a CRS such as EPSG:32633.'
        ) from error


@lru_cache(maxsize=256)
def same_crs(first: Any, second: Any) -> bool:
    """Return whether two CRSs are equal, ignoring the order of their axes."""
    return pyproj_crs(first).equals(pyproj_crs(second), ignore_axis_order=True)


@lru_cache(maxsize=64)
def _transformer(source: Any, target: Any) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(
        pyproj_crs(source), pyproj_crs(target), always_xy=True
    )


def transformed(xy: Floats, source: Any, target: Any) -> Floats:
    """Transform points to another CRS.

    Args:
        xy: Points (n, 2), x before y.
        source: Their CRS.
        target: The CRS to transform to.

    Returns:
        Points (n, 2), x before y; not finite where *target* is not defined.
    """
    if same_crs(source, target):
        return xy
    return np.stack(_transformer(source, target).transform(*xy.T), axis=1)
