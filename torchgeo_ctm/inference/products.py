"""The products of a scene: their names, and the order in which they are written.

What writes polygons, picture, style and STAC item is imported when it is their turn, so
that the first window is read at once.
"""

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..files import atomic_path, check_file
from ..grids import Grid
from .geotiff import RasterRows, product_path
from .masks import open_mask
from .memory import FINISHING_CACHE
from .options import ProductOptions

#: Scale of the raster of probabilities.
PERCENT = 0.01


@dataclass
class Products:
    """The products of one scene, from the first row to their final names.

    Attributes:
        output: The class raster.
        options: Products to write.
        class_names: Name of each class.
        class_colors: Color of each class, as matplotlib reads it.
        grid: Grid of the scene.
        folder: Folder for temporary files.
        tags: Tags of the rasters.
        rasters: Open rasters by product.
    """

    output: Path
    options: ProductOptions
    class_names: list[str]
    class_colors: list[str]
    grid: Grid
    folder: Path
    tags: Mapping[str, str]
    rasters: dict[str, RasterRows] = field(default_factory=dict)

    @property
    def paths(self) -> dict[str, Path]:
        """Final paths by product, the class raster first."""
        return product_paths(self.output, self.options)

    def open(self) -> None:
        """Create the rasters under temporary names."""
        folder, names = self.folder, self.class_names
        bands = {'mask': ['land cover class']}
        if self.options.confidence:
            bands['confidence'] = ['confidence, per cent']
        if self.options.probabilities:
            bands['probabilities'] = [f'share of {name}' for name in names]
        classes = (names, self.class_colors)
        for product, descriptions in bands.items():
            self.rasters[product] = RasterRows(
                self.paths[product],
                self.grid,
                descriptions,
                self.tags,
                classes if product == 'mask' else None,
                folder,
            )

    def write(self, row: int, values: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write finished rows of every raster product."""
        for product, raster in self.rasters.items():
            raster.write(row, values[product])

    def finish(
        self, picture: Callable[[], NDArray[np.float32]] | None, acquired: str | None
    ) -> None:
        """Write the other products, and give every product its final name.

        The class raster comes last, so that it exists only with its companions; only
        the STAC item, which describes it, follows.

        Args:
            picture: Returns a thumbnail of the scene (3, h, w) for the quick look, NaN
                where invalid; None: no quick look.
            acquired: Acquisition time of the scene, ISO 8601, if known.
        """
        # libraries change warning filters in threads: restore them after all ended
        with (
            warnings.catch_warnings(),
            rasterio.Env(GDAL_CACHEMAX=FINISHING_CACHE * 2**20),
            ThreadPoolExecutor(2) as pool,
        ):
            for product, raster in self.rasters.items():
                raster.close(PERCENT if product == 'probabilities' else None)
            # polygons take longest, and are made from rows before these are a COG
            tasks = [pool.submit(self._vectorize)] if self.options.polygons else []
            tasks += [pool.submit(self._finish_raster, name) for name in self.rasters]
            if picture is not None:
                tasks.append(pool.submit(self._draw, picture))
            for task in tasks:
                task.result()
        if self.options.style:
            from .style import write_style

            write_style(self.paths['style'], self.class_names, self.class_colors)
        for raster in reversed(self.rasters.values()):
            raster.publish()
        if self.options.stac:
            from .stac import write_item

            assets = {k: v for k, v in self.paths.items() if k not in ('mask', 'stac')}
            properties: dict[str, Any] = {
                f'ctm:{key.lower()}': value for key, value in self.tags.items()
            }
            if acquired is not None:
                properties['datetime'] = acquired
            write_item(
                self.paths['stac'],
                self.output,
                assets,
                self.class_names,
                self.class_colors,
                properties,
            )

    def _finish_raster(self, product: str) -> None:
        """Convert the rows of a raster product to a COG."""
        self.rasters[product].finish('mode' if product == 'mask' else 'average')

    def _vectorize(self) -> None:
        """Write the polygons of the class raster."""
        from .vector import vectorize

        confidence = self.rasters.get('confidence')
        vectorize(
            self.rasters['mask'].rows,
            self.paths['polygons'],
            confidence=confidence.rows if confidence is not None else None,
            sieve=self.options.sieve,
            min_area=self.options.min_area,
            overwrite=True,
        )

    def _draw(self, picture: Callable[[], NDArray[np.float32]]) -> None:
        """Write the quick look."""
        from ..plots import quick_look

        rgb = picture()
        with open_mask(self.rasters['mask'].rows) as raster:
            mask = raster.read(1, out_shape=rgb.shape[1:])
        figure = quick_look(rgb, mask, self.class_names, self.class_colors)
        with atomic_path(self.paths['picture']) as temporary:
            figure.savefig(
                temporary, format='png', dpi=100, pil_kwargs={'compress_level': 3}
            )

    def abandon(self) -> None:
        """Remove temporary files."""
        for raster in self.rasters.values():
            raster.abandon()
        self.rasters = {}


def product_paths(output: Path, options: ProductOptions) -> dict[str, Path]:
    """Return the paths of the products to write, the mask first."""
    names = {
        'mask': output,
        'confidence': product_path(output, 'confidence'),
        'probabilities': product_path(output, 'probabilities'),
        'polygons': product_path(output, '', '.gpkg'),
        'style': product_path(output, '', '.qml'),
        'picture': product_path(output, '', '.png'),
        'stac': product_path(output, '', '.json'),
    }
    return {
        name: path
        for name, path in names.items()
        if name == 'mask' or getattr(options, name)
    }


def check_companions(output: Path, options: ProductOptions, overwrite: bool) -> None:
    """Check that the products beside the class raster can be written.

    Raises:
        OutputError: If one cannot be written.
    """
    for name, path in product_paths(output, options).items():
        if name != 'mask':
            check_file(path, overwrite)
