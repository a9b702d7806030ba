"""Find what a disk lost of a raster: GDAL reports no error of its last writes."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from ..errors import OutputError
from ..rasters import open_raster

#: Number of rows that are read at once at most: blocks of a COG are as high.
ROWS = 512
#: Number of bytes that are read at once at most, about.
BYTES = 1 << 26


class Checksums:
    """Checksums of the rows of a raster, one per band.

    GDAL writes what it has buffered when a raster is closed, and a full disk fails
    then without an error: blocks are missing, which are read as nodata.
    """

    def __init__(self, bands: int) -> None:
        """Start without a row."""
        self._sums = [0] * bands

    def add(self, values: NDArray[Any]) -> None:
        """Add the next rows (bands, rows, width)."""
        for band, rows in enumerate(values):
            self._sums[band] = zlib.crc32(
                np.ascontiguousarray(rows).data, self._sums[band]
            )

    def check(self, raster: Path, output: Path) -> None:
        """Read a raster, and compare it with the rows that were added.

        Args:
            raster: The raster.
            output: Name of the product, for the message.

        Raises:
            OutputError: If the raster is not complete.
        """
        found = Checksums(len(self._sums))
        try:
            with open_raster(raster, OutputError) as opened:
                step = max(1, min(ROWS, BYTES // (opened.width * opened.count)))
                for row in range(0, opened.height, step):
                    rows = min(step, opened.height - row)
                    place = RasterWindow(0, row, opened.width, rows)
                    found.add(opened.read(window=place))
        except (RasterioError, OutputError):
            found = Checksums(0)
        if found._sums != self._sums:
            raise OutputError(
                f'Cannot write {output}: the disk did not keep all of it, as when it is '
                'full. Delete other files, and run the same command again.'
            )
