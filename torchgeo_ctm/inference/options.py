"""Options of the products, for the command line, Python and configurations alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingError


@dataclass(frozen=True)
class ProductOptions:
    """Which products are written beside the class raster, MASK.tif.

    A new product needs its path in ``inference/paths.py``, and its place in
    ``prediction.dates.OF_A_DATE``, which says what is written of each of several dates.

    Attributes:
        confidence: Write MASK_confidence.tif, in percent.
        probabilities: Write MASK_probabilities.tif, the share of each class.
        polygons: Write MASK.gpkg, polygons.
        style: Write MASK.qml, colors and names for QGIS.
        hectares: Put the hectares of each class into the names of the QGIS legend.
        picture: Write MASK.png, scene and mask side by side.
        stac: Write MASK.json, a STAC item (extra "stac").
        sieve: Merge regions of fewer pixels into their largest neighbor in polygons.
        min_area: Leave out polygons of fewer hectares.
        merge: Merge classes of the model, as 'Grassland+Cropland=Open land'. The
            probability of the merged class is the largest of its members, its color
            that of the first.
    """

    confidence: bool = True
    probabilities: bool = False
    polygons: bool = True
    style: bool = True
    hectares: bool = False
    picture: bool = True
    stac: bool = False
    sieve: int = 0
    min_area: float = 0.0
    merge: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            SettingError: If *sieve* or *min_area* is negative.
        """
        for name in ('sieve', 'min_area'):
            if getattr(self, name) < 0:
                raise SettingError(
                    f'Expected {name} of 0 or more, got {getattr(self, name)}.'
                )
