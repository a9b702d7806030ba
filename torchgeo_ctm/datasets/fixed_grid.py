"""GeoDatasets that keep their own pixels: CRS and resolution do not change."""

from collections.abc import Sequence
from typing import Any

import pandas
from geopandas import GeoDataFrame
from pyproj import CRS
from torchgeo.datasets import GeoDataset

from ..errors import GridError

#: How far a query may lie off the pixels, in pixels: rounding, not resampling.
TOLERANCE = 0.01


class FixedGridDataset(GeoDataset):
    """A GeoDataset of rasters of one grid, of which nothing is ever resampled.

    TorchGeo brings the second data set of an intersection to the CRS and resolution
    of the first by setting them; that this one refuses.
    """

    def _set_index(
        self, numbers: Sequence[int], geometry: Sequence[Any], crs: CRS
    ) -> None:
        """Build TorchGeo's index of rasters that answer at any time.

        Args:
            numbers: What finds each raster again, column ``number``.
            geometry: Outline of each.
            crs: CRS of all.
        """
        ever = (pandas.Timestamp.min, pandas.Timestamp.max)
        self.index = GeoDataFrame(
            {'filepath': self.paths, 'number': list(numbers)},
            index=pandas.IntervalIndex.from_tuples(
                [ever] * len(numbers), closed='both', name='datetime'
            ),
            geometry=list(geometry),
            crs=crs,
        )

    @property
    def crs(self) -> CRS:
        """CRS of the rasters."""
        crs: CRS = self.index.crs
        return crs

    @crs.setter
    def crs(self, new_crs: Any) -> None:
        if CRS.from_user_input(new_crs) != self.crs:
            self._refuse(f'the CRS {CRS.from_user_input(new_crs).to_string()}')

    @property
    def res(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the CRS."""
        return self._res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        x, y = new_res if isinstance(new_res, tuple) else (new_res, new_res)
        if (x, y) != self.res:
            self._refuse(f'a resolution of {x:g} × {y:g}')

    def _refuse(self, asked: str) -> None:
        """Refuse another grid.

        Args:
            asked: What was asked for.

        Raises:
            GridError: Always.
        """
        raise GridError(
            f'{asked} would resample {self._what()}, with {self.crs.to_string()} and '
            f'{self.res[0]:g} × {self.res[1]:g}: put it first (this & other), so that '
            'the other data set is brought to its grid; a union (this | other) needs '
            'one grid'
        )

    def _what(self) -> str:
        """Return what the rasters are, for messages."""
        return str(self.index['filepath'].iloc[0])
