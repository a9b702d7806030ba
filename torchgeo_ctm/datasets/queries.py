"""The pixel grid of a query of a GeoDataset."""

from typing import Any

import rasterio.crs
from affine import Affine
from pyproj import CRS
from torchgeo.datasets import GeoDataset
from torchgeo.datasets.utils import GeoSlice

from ..grids import Grid


def query_grid(dataset: GeoDataset, query: GeoSlice, crs: Any = None) -> Grid:
    """Return the pixel grid of a query's sample.

    Args:
        dataset: The data set.
        query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres].
        crs: The data set's CRS in rasterio's class, if known: it takes long to build.
    """
    x, y, _ = dataset._disambiguate_slice(query)
    width = max(1, round((x.stop - x.start) / x.step))
    height = max(1, round((y.stop - y.start) / y.step))
    transform = Affine(x.step, 0, x.start, 0, -y.step, y.stop)
    return Grid(height, width, crs or rasterio_crs(dataset.crs), transform)


def rasterio_crs(crs: CRS) -> rasterio.crs.CRS:
    """Return a CRS of pyproj in rasterio's class."""
    return rasterio.crs.CRS.from_wkt(crs.to_wkt())
