"""The mask of a scene, to open, measure and plot in a notebook."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rasterio.io import DatasetReader

from ..plots import mask_figure
from .areas import class_areas
from .masks import class_colors, class_names, open_mask


@dataclass(frozen=True)
class SceneMask:
    """The mask of a scene and its companion products.

    Attributes:
        products: Path by product: ``mask``, ``confidence``, ``probabilities``,
            ``polygons``, ``style``, ``picture``, ``stac``; those that were written.
    """

    products: dict[str, Path]

    @property
    def paths(self) -> list[Path]:
        """Paths of the products, the class raster first."""
        return list(self.products.values())

    def open(self) -> DatasetReader:
        """Open the class raster with rasterio."""
        return open_mask(self.products['mask'])

    def areas(self) -> dict[str, float]:
        """Return hectares by class name, on the WGS84 ellipsoid.

        Raises:
            GridError: If the scene has no CRS.
        """
        return class_areas(self.products['mask'])

    def plot(self) -> Figure:
        """Plot the mask with a legend, at no more than 1,024 px per side."""
        with self.open() as raster:
            shrink = max(1.0, max(raster.shape) / 1024)
            size = tuple(max(1, round(side / shrink)) for side in raster.shape)
            mask = raster.read(1, out_shape=size)
            names = class_names(raster)
            colors = class_colors(raster)
        return mask_figure(mask, names, colors)
