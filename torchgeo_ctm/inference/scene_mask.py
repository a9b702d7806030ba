"""The mask of a scene in a notebook: open it, measure it, draw it."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rasterio.io import DatasetReader

from ..plots import mask_figure
from .areas import class_areas
from .masks import class_colors, class_names, open_mask


@dataclass(frozen=True)
class SceneMask:
    """The mask of a scene, and everything that was written beside it.

    Attributes:
        products: Path by product: ``mask``, ``confidence``, ``probabilities``,
            ``polygons``, ``style``, ``picture``, ``stac``; those that were written.
    """

    products: dict[str, Path]

    @property
    def paths(self) -> list[Path]:
        """The products' paths, the class raster first."""
        return list(self.products.values())

    def open(self) -> DatasetReader:
        """Open the class raster with rasterio."""
        return open_mask(self.products['mask'])

    def areas(self) -> dict[str, float]:
        """Return hectares by class name, equal-area whatever the CRS.

        Raises:
            GridError: If the scene has no CRS.
        """
        return class_areas(self.products['mask'])

    def plot(self) -> Figure:
        """Draw the mask with its legend, in its own colours.

        At most 1,024 pixels a side are drawn.
        """
        with self.open() as raster:
            shrink = max(1.0, max(raster.shape) / 1024)
            size = tuple(max(1, round(side / shrink)) for side in raster.shape)
            mask = raster.read(1, out_shape=size)
            names = class_names(raster)
            colors = class_colors(raster)
        return mask_figure(mask, names, colors)
