"""Write class and confidence rasters: complete, or not at all."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from ..errors import OutputError
from ..windows import Grid

NODATA = 255
SUFFIXES = ('.tif', '.tiff')


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse an output that could not be written, before any work is done.

    Args:
        path: The GeoTIFF to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: If the suffix is wrong, the folder is missing or read-only, or
            the file exists and may not be replaced.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f'{path} is not a GeoTIFF name; nearest: {path.stem}.tif')
    if not path.parent.is_dir():
        raise OutputError(f'folder {path.parent} does not exist; create it first')
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f'folder {path.parent} cannot be written to')
    if path.is_dir():
        raise OutputError(f'{path} is a folder; needed: the name of a file')
    if path.exists() and not overwrite:
        raise OutputError(f'{path} exists; add --overwrite to replace it')
    return path


def check_not_input(path: str | Path, source: str | Path) -> None:
    """Refuse an output that is the input itself, whatever else is allowed.

    Raises:
        OutputError: If both names belong to one file.
    """
    path, source = Path(path), Path(source)
    if path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f'{path} is the input itself; give another name')


def product_path(mask: Path, product: str, suffix: str = '.tif') -> Path:
    """Return the name of a product beside the mask: ``OUT.tif`` → ``OUT_x.tif``."""
    name = f'{mask.stem}_{product}{suffix}' if product else f'{mask.stem}{suffix}'
    return mask.with_name(name)


def temporary_path(path: Path) -> Path:
    """Return the hidden name beside *path* under which it is made."""
    return path.with_name(f'.{path.name}.{os.getpid()}.part')


class RasterRows:
    """A single-band uint8 raster that is written row by row and becomes a COG.

    Rows go to a plain raster under a temporary name; :meth:`finish` turns it into a
    cloud-optimised GeoTIFF and gives it its final name.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        description: str,
        tags: Mapping[str, str],
        classes: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        """Create the raster.

        Args:
            path: Final name.
            grid: Grid of the scene, kept as it is.
            description: Description of the band.
            tags: Tags of the data set.
            classes: Class names and ``#rrggbb`` colours, for a class raster.

        Raises:
            OutputError: If the file cannot be created.
        """
        self.path = path
        self._rows = temporary_path(path.with_suffix('.rows'))
        self._cog = temporary_path(path)
        self._names = list(classes[0]) if classes else None
        profile = {
            'driver': 'GTiff',
            'dtype': 'uint8',
            'count': 1,
            'height': grid.height,
            'width': grid.width,
            'nodata': NODATA,
            'BIGTIFF': 'IF_SAFER',
        }
        if grid.crs is not None:
            profile['crs'] = grid.crs
        if not grid.transform.is_identity:
            profile['transform'] = grid.transform
        try:
            self._raster = rasterio.open(self._rows, 'w', **profile)
            self._raster.set_band_description(1, description)
            self._raster.update_tags(**tags)
            if classes is not None:
                self._raster.update_tags(CLASS_NAMES=json.dumps(self._names))
                self._raster.write_colormap(1, _palette(classes[1]))
        except (RasterioError, OSError) as error:
            self.abandon()
            raise OutputError(f'{path} cannot be written: {error}') from error

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Write rows (rows, width) from *row* downwards.

        Raises:
            OutputError: If the disk refuses them.
        """
        window = RasterWindow(0, row, values.shape[1], values.shape[0])
        try:
            self._raster.write(values, 1, window=window)
        except (RasterioError, OSError) as error:
            raise OutputError(f'{self.path} cannot be written: {error}') from error

    def finish(self, resampling: str) -> None:
        """Turn the rows into a COG under the final name.

        Args:
            resampling: How overviews are made: 'mode' for classes, 'average' for
                confidence.

        Raises:
            OutputError: If the disk refuses it.
        """
        try:
            self._raster.close()
            rasterio.shutil.copy(
                self._rows,
                self._cog,
                driver='COG',
                compress='DEFLATE',
                blocksize=512,
                overview_resampling=resampling,
            )
            sidecar = self.path.with_name(f'{self.path.name}.aux.xml')
            if self._names is not None:
                _write_category_names(sidecar, self._names)
            else:
                sidecar.unlink(missing_ok=True)
            self._cog.replace(self.path)
        except (RasterioError, OSError) as error:
            raise OutputError(f'{self.path} cannot be written: {error}') from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove whatever lies under temporary names."""
        raster = getattr(self, '_raster', None)
        if raster is not None and not raster.closed:
            raster.close()
        for path in (self._rows, self._cog):
            path.unlink(missing_ok=True)
            path.with_name(f'{path.name}.aux.xml').unlink(missing_ok=True)


def _palette(colors: Sequence[str]) -> dict[int, tuple[int, int, int, int]]:
    """Return GDAL's colour table; nodata is transparent."""
    palette = {NODATA: (0, 0, 0, 0)}
    for index, color in enumerate(colors):
        red, green, blue = (round(255 * part) for part in to_rgb(color))
        palette[index] = (red, green, blue, 255)
    return palette


def _write_category_names(path: Path, names: Sequence[str]) -> None:
    """Write the names where GDAL and QGIS read them: a PAM sidecar.

    GeoTIFF itself has no place for category names, and rasterio no call.
    """
    lines = ''.join(f'      <Category>{escape(name)}</Category>\n' for name in names)
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f'{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n'
    )
    temporary = temporary_path(path)
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)
