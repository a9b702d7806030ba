"""DFC2020: Sentinel-2 tiles with land-cover masks, in Copernicus-Bench's layout."""

from pathlib import Path
from typing import Any

import pandas
import rasterio
import torch
from rasterio import Affine
from torch import Tensor
from torchgeo.datasets import CopernicusBenchDFC2020S2

from ..errors import DataError
from ..windows import Grid

#: Index of a class of the source in the eight classes used here; 255 is ignored.
#: Savanna (3) and Snow/Ice (8) are dropped (METHOD, section 6; paper, section 4).
SOURCE_TO_CLASS = (255, 0, 1, 255, 2, 3, 4, 5, 255, 6, 7)


class DFC2020(CopernicusBenchDFC2020S2):
    """DFC2020 with the paper's eight classes, through TorchGeo's own reader.

    TorchGeo's :class:`~torchgeo.datasets.CopernicusBenchDFC2020S2` downloads, lists
    and reads the tiles; this class maps labels 1…10 to 0…7 = Forest, Shrubland,
    Grassland, Wetlands, Croplands, Urban/Built-up, Barren, Water. Every other value
    becomes 255 and is ignored.

    A sample holds ``image`` float32 (bands, 256, 256), reflectance × 10,000, and
    ``mask`` int64 (256, 256). The mask is for scoring, and for deriving image-level
    labels (:func:`torchgeo_ctm.labels.presence_from_mask`); no loss sees it.
    """

    # TorchGeo types this as a tuple of exactly its eleven entries
    classes: tuple[str, ...] = (  # type: ignore[assignment]
        'Forest',
        'Shrubland',
        'Grassland',
        'Wetlands',
        'Croplands',
        'Urban/Built-up',
        'Barren',
        'Water',
    )
    #: One colour per class: the contest's own legend.
    class_colors = (
        '#009900',
        '#c6b044',
        '#b6ff05',
        '#27ff87',
        '#c24f44',
        '#a5a5a5',
        '#f9ffa4',
        '#1c0dff',
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open one split; the arguments are those of TorchGeo's class.

        Raises:
            DataError: If the split lists no tile, or its first tile is missing.
            torchgeo.datasets.DatasetNotFoundError: If the data set is not there
                and *download* is False.
        """
        try:
            super().__init__(*args, **kwargs)
        except pandas.errors.EmptyDataError:
            self.files = pandas.Series(dtype=str)
        folder = Path(self.root) / self.directory
        first = folder / 'dfc' / str(self.files[0]) if len(self.files) else None
        if first is None or not first.is_file():
            listing = folder / self.filename.format(self.split)
            raise DataError(
                f'{listing} lists {len(self.files)} tiles, but {first or "no tile"} is '
                f'not there: needed are GeoTIFF tiles in {folder}/s2 and {folder}/dfc'
            )

    def _load_mask(self, path: str) -> dict[str, Tensor]:
        """Read a mask and map the source's labels to classes 0…7 and 255."""
        mask = super()._load_mask(path)['mask']
        source_to_class = torch.full((256,), 255, dtype=torch.long)
        source_to_class[: len(SOURCE_TO_CLASS)] = torch.tensor(SOURCE_TO_CLASS)
        return {'mask': source_to_class[mask.clamp(0, 255)]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the sample of one tile: ``image`` and ``mask``.

        Latitude and longitude are left out: tiles without a georeference have none,
        and a batch needs the same keys in every sample.
        """
        sample = super().__getitem__(index)
        return {key: sample[key] for key in ('image', 'mask')}

    def chip_name(self, index: int) -> str:
        """Return the name of a tile: its file's, without the suffix."""
        return Path(str(self.files[index])).stem

    def chip_grid(self, index: int, size: int) -> Grid | None:
        """Return the grid of the *size* × *size* px in the middle of a tile.

        None for a tile without CRS or transform, as some copies have them. The middle
        is torchvision's, which the images are cropped with.
        """
        path = Path(self.root) / self.directory / 'dfc' / str(self.files[index])
        with rasterio.open(path) as raster:
            if raster.crs is None or raster.transform.is_identity:
                return None
            row, col = (round((side - size) / 2) for side in raster.shape)
            transform = raster.transform @ Affine.translation(col, row)
            return Grid(size, size, raster.crs, transform)
