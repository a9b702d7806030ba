"""The mask of a scene, to open, measure and plot in a notebook."""

import base64
import io
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from rasterio.io import DatasetReader

from ..errors import GridError, SceneError, SettingError, did_you_mean
from ..plots import mask_figure
from .areas import class_areas
from .masks import class_colors, class_names, open_mask
from .paths import all_paths

if TYPE_CHECKING:
    import geopandas as gpd

#: Products that are rasters.
RASTERS = ('mask', 'confidence', 'probabilities', 'looks')


@dataclass(frozen=True)
class SceneMask:
    """The mask of a scene and its companion products.

    Attributes:
        products: Path by product: ``mask``, ``confidence``, ``probabilities``,
            ``polygons``, ``style``, ``confidence_style``, ``probabilities_style``,
            ``picture``, ``stac``, and ``looks`` of several dates; those that were
            written.
    """

    products: dict[str, Path]

    @classmethod
    def beside(cls, mask: str | Path) -> 'SceneMask':
        """Return the products that an earlier run wrote.

        Args:
            mask: The class raster; the others lie beside it.

        Raises:
            SceneError: If it cannot be read or does not hold classes.
        """
        path = Path(mask)
        open_mask(path).close()
        found = all_paths(path).items()
        return cls({name: each for name, each in found if each.exists()})

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

    def polygons(self) -> 'gpd.GeoDataFrame':
        """Return the polygons with class, name, hectares and confidence.

        Raises:
            SceneError: If they were not written.
        """
        from .vector import read_vectorized

        return read_vectorized(self._path('polygons'))

    def to_xarray(self, product: str = 'mask') -> Any:
        """Return a raster as an ``xarray.DataArray``, which reads it when it is used.

        Args:
            product: ``mask``, ``confidence`` or ``probabilities``.

        Returns:
            Values (y, x), or (band, y, x), with coordinates, CRS and nodata in ``rio``.
            ``attrs['class_names']`` names the classes.

        Raises:
            SceneError: If the product was not written.
            SettingError: If it is no raster, or rioxarray is not installed.
        """
        if product not in RASTERS:
            raise SettingError(
                f'Unknown product {product!r}, expected one of: {", ".join(RASTERS)}.'
                + did_you_mean(product, RASTERS)
            )
        if find_spec('rioxarray') is None:
            raise SettingError(
                'to_xarray requires rioxarray. Install it with pip install '
                '"torchgeo-ctm[xarray]".'
            )
        import rioxarray

        with self.open() as raster:
            names = class_names(raster)
        array: Any = rioxarray.open_rasterio(self._path(product))
        if array.sizes['band'] == 1:
            array = array.squeeze('band', drop=True)
        array.attrs['class_names'] = names
        return array.rename(product)

    def _path(self, product: str) -> Path:
        """Return the path of a product.

        Raises:
            SceneError: If it was not written.
        """
        if product not in self.products:
            raise SceneError(
                f'{self.products["mask"]} was written without {product}. predict_scene '
                f'wrote: {", ".join(self.products)}.'
            )
        return self.products[product]

    def _repr_html_(self) -> str:
        """Return picture and hectares, as a notebook shows them."""
        file = io.BytesIO()
        self.plot().savefig(file, format='png', dpi=80)
        picture = base64.b64encode(file.getvalue()).decode()
        try:
            areas = self.areas()
        except GridError:
            areas = {}
        total = sum(areas.values()) or 1.0
        rows = ''.join(
            f'<tr><td style="text-align:left">{escape(name)}</td><td>{value:,.1f}</td>'
            f'<td>{value / total:.1%}</td></tr>'
            for name, value in areas.items()
        )
        head = '<tr><th>class</th><th>hectares</th><th>share</th></tr>'
        return (
            f'<p><code>{escape(str(self.products["mask"]))}</code></p>'
            f'<img src="data:image/png;base64,{picture}" alt="mask"/>'
            + (f'<table>{head}{rows}</table>' if areas else '')
        )
