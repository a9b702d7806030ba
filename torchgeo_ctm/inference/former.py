"""Products of an earlier map, which a new one must not be read with."""

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from ..errors import FormerProductWarning
from .geotiff import remove_raster
from .paths import all_paths

#: Tag of the rasters of this package.
OURS = 'TORCHGEO_CTM_VERSION'


def former_products(output: Path) -> list[Path]:
    """Return what lies beside a map that is about to be replaced.

    Args:
        output: The class raster; without one there is nothing to return.
    """
    if not output.exists():
        return []
    paths = [*all_paths(output).values()][1:]
    return [path for path in paths if path.exists()]


def retire(former: Iterable[Path], written: Collection[Path]) -> None:
    """Remove what a map was replaced without, as far as it is ours, and tell the rest.

    Commands read the confidence beside a map: that of an earlier map would be wrong.

    Args:
        former: What :func:`former_products` returned before the map was replaced.
        written: What was written with the new map.
    """
    left = [path for path in former if path not in written]
    removed = [path for path in left if _is_ours(path)]
    for path in removed:
        remove_raster(path)
        path.with_suffix('.qml').unlink(missing_ok=True)
    kept = [path for path in left if path.exists()]
    if kept:
        warnings.warn(
            f'{", ".join(map(str, kept))}: not written anew, may still show the map that '
            'was replaced. Delete what you do not need.',
            FormerProductWarning,
            stacklevel=3,
        )


def _is_ours(path: Path) -> bool:
    """Return whether a file is a raster that this package wrote."""
    if path.suffix.lower() not in ('.tif', '.tiff'):
        return False
    try:
        with rasterio.open(path) as raster:
            return OURS in raster.tags()
    except RasterioError:
        return False
