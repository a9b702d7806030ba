"""Write class and confidence rasters: complete, or not at all."""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from ..errors import OutputError
from ..files import check_file, temporary_path, write_text
from ..grids import IGNORED, Grid
from ..rasters import quiet
from .checksums import Checksums

SUFFIXES = ('.tif', '.tiff')
#: Name, type and usage of the columns of GDAL's attribute table (0: integer, 2: text).
TABLE = (
    ('Value', 0, 5),
    ('Class', 2, 2),
    ('Red', 0, 6),
    ('Green', 0, 7),
    ('Blue', 0, 8),
)


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """Check that a GeoTIFF can be written, before any work is done.

    Args:
        path: The GeoTIFF to write.
        overwrite: Whether an existing file may be replaced.

    Returns:
        *path*.

    Raises:
        OutputError: If the suffix is wrong, the folder is missing or read-only, or
            the file exists and may not be replaced.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f'{path} is not the name of a GeoTIFF. Did you mean {path.stem + ".tif"!r}?'
        )
    return check_file(path, overwrite)


class RasterRows:
    """A uint8 raster, written row by row and then converted to a COG.

    Rows go to a plain raster under a temporary name. :meth:`finish` converts it to a
    cloud-optimized GeoTIFF, and :meth:`publish` gives that its final name.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        descriptions: Sequence[str],
        tags: Mapping[str, str],
        classes: tuple[Sequence[str], Sequence[str]] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Create the raster.

        Args:
            path: Final path.
            grid: Grid of the scene.
            descriptions: Description of each band.
            tags: Tags of the raster.
            classes: Class names and ``#rrggbb`` colors, for a class raster.
            folder: Folder for temporary files; None: hidden, beside *path*.

        Raises:
            OutputError: If the file cannot be created.
        """
        self.path = path
        if folder is None:
            self.rows = temporary_path(path.with_suffix('.rows'))
            self.cog = temporary_path(path)
        else:
            self.rows, self.cog = folder / f'{path.name}.rows', folder / path.name
        self._names = list(classes[0]) if classes else None
        self._colors = list(classes[1]) if classes else []
        self._checksums = Checksums(len(descriptions))
        # what a crash left may be damaged, and GDAL reads a file before it replaces it
        self.abandon()
        profile = {
            'driver': 'GTiff',
            'dtype': 'uint8',
            'count': len(descriptions),
            'height': grid.height,
            'width': grid.width,
            'nodata': IGNORED,
            'interleave': 'band',
            'BIGTIFF': 'IF_SAFER',
        }
        if grid.crs is not None:
            profile['crs'] = grid.crs
        if not grid.transform.is_identity:
            profile['transform'] = grid.transform
        try:
            with quiet():
                self._raster = rasterio.open(self.rows, 'w', **profile)
            self._raster.descriptions = tuple(descriptions)
            self._raster.update_tags(**tags)
            if classes is not None:
                self._raster.update_tags(CLASS_NAMES=json.dumps(self._names))
                self._raster.write_colormap(1, _palette(classes[1]))
        except (RasterioError, OSError) as error:
            self.abandon()
            raise _refused(path, error) from error

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Write the next rows (rows, width), or (bands, rows, width), at *row*.

        Raises:
            OutputError: If the disk refuses them.
        """
        values = values[None] if values.ndim == 2 else values
        self._checksums.add(values)
        window = RasterWindow(0, row, values.shape[2], values.shape[1])
        try:
            self._raster.write(values, window=window)
        except (RasterioError, OSError) as error:
            raise _refused(self.path, error) from error

    def close(self, scale: float | None = None) -> None:
        """Close the plain raster, which can be read from then on.

        Args:
            scale: Scale to record in the raster; None: 1.

        Raises:
            OutputError: If the disk refuses them.
        """
        if self._raster.closed:
            return
        try:
            if scale is not None:
                self._raster.scales = (scale,) * self._raster.count
            self._raster.close()
            self._checksums.check(self.rows, self.path)
        except (RasterioError, OSError) as error:
            self.abandon()
            raise _refused(self.path, error) from error

    def finish(self, resampling: str) -> None:
        """Convert the rows to a COG, still under a temporary name.

        Args:
            resampling: Resampling of overviews: 'mode' for classes, 'average' for
                confidence.

        Raises:
            OutputError: If the disk refuses it.
        """
        self.close()
        try:
            with quiet():
                rasterio.shutil.copy(
                    self.rows,
                    self.cog,
                    driver='COG',
                    compress='DEFLATE',
                    blocksize=512,
                    overview_resampling=resampling,
                    num_threads=max(1, (os.cpu_count() or 1) - 1),
                )
            self._checksums.check(self.cog, self.path)
        except (RasterioError, OSError) as error:
            self.abandon()
            raise _refused(self.path, error) from error

    def publish(self) -> None:
        """Give the COG its final name.

        Raises:
            OutputError: If the disk refuses it.
        """
        sidecar = self.path.with_name(f'{self.path.name}.aux.xml')
        try:
            if self._names is not None:
                _write_class_table(sidecar, self._names, self._colors)
            else:
                sidecar.unlink(missing_ok=True)
            self.cog.replace(self.path)
        except OSError as error:
            raise _refused(self.path, error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove temporary files."""
        raster = getattr(self, '_raster', None)
        if raster is not None and not raster.closed:
            # errors do not matter: the file is deleted
            with contextlib.suppress(RasterioError):
                raster.close()
        for path in (self.rows, self.cog):
            remove_raster(path)


def remove_raster(path: Path) -> None:
    """Remove a raster and what lies beside it."""
    for each in (path, path.with_name(f'{path.name}.aux.xml')):
        each.unlink(missing_ok=True)


def _refused(path: Path, error: BaseException) -> OutputError:
    """Return the error for a file that the disk refused."""
    # rasterio's own says no more than to look at its cause
    reason = ' '.join(str(error.__cause__ or error).split())
    return OutputError(f'Cannot write {path}: {reason}')


def _palette(colors: Sequence[str]) -> dict[int, tuple[int, int, int, int]]:
    """Return GDAL's color table; nodata is transparent."""
    palette = {IGNORED: (0, 0, 0, 0)}
    for index, color in enumerate(colors):
        palette[index] = (*rgb_of(color), 255)
    return palette


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return red, green and blue 0…255 of a color, as matplotlib reads it."""
    if re.fullmatch('#[0-9a-fA-F]{6}', color):
        red, green, blue = bytes.fromhex(color[1:])
        return red, green, blue
    # takes a second to import, for colors with names alone
    from matplotlib.colors import to_rgb

    red, green, blue = (round(255 * part) for part in to_rgb(color))
    return red, green, blue


def _write_class_table(path: Path, names: Sequence[str], colors: Sequence[str]) -> None:
    """Write a PAM sidecar with category names and an attribute table of the classes.

    GeoTIFF itself cannot hold them, and rasterio cannot write them. Its color table
    always has 256 entries. QGIS takes its legend from the attribute table instead.
    """
    lines = ''.join(f'      <Category>{escape(name)}</Category>\n' for name in names)
    fields = ''.join(
        f'      <FieldDefn index="{index}"><Name>{name}</Name><Type>{kind}</Type>'
        f'<Usage>{usage}</Usage></FieldDefn>\n'
        for index, (name, kind, usage) in enumerate(TABLE)
    )
    rows = ''
    for value, (name, color) in enumerate(zip(names, colors, strict=True)):
        cells = ''.join(
            f'<F>{cell}</F>' for cell in (value, escape(name), *rgb_of(color))
        )
        rows += f'      <Row index="{value}">{cells}</Row>\n'
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f'{lines}    </CategoryNames>\n'
        '    <GDALRasterAttributeTable tableType="thematic">\n'
        f'{fields}{rows}    </GDALRasterAttributeTable>\n'
        '  </PAMRasterBand>\n</PAMDataset>\n'
    )
    write_text(path, text)
