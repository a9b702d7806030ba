"""Products of an earlier map, which a new one must not be read with."""

import sqlite3
import warnings
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from ..errors import FormerProductWarning, OutputError
from .geotiff import remove_raster
from .paths import all_paths

#: Tag of the rasters of this package.
OURS = 'TORCHGEO_CTM_VERSION'
#: Columns of the polygons of this package, all of them.
COLUMNS = frozenset({'class', 'name', 'area_ha'})


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


def check_polygons(path: Path) -> None:
    """Check that a GeoPackage that gets the name of a map holds polygons of a map.

    Somebody may have drawn labels under this name, and nobody asked to replace them.

    Args:
        path: The file that polygons are to be written to, which may exist.

    Raises:
        OutputError: If it has other columns.
    """
    if not path.is_file():
        return
    try:
        with closing(
            sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True)
        ) as d:
            found = d.execute(
                'SELECT c.table_name, p.name FROM gpkg_contents c, '
                "pragma_table_info(c.table_name) p WHERE c.data_type = 'features'"
            ).fetchall()
    except sqlite3.Error:
        return
    layers: dict[str, set[str]] = {}
    for layer, column in found:
        layers.setdefault(layer, set()).add(column)
    if any(not COLUMNS <= columns for columns in layers.values()):
        raise OutputError(
            f'{path} holds something else than polygons of a map, which those of '
            f'{path.stem}.tif would replace. Choose another name for the map.'
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
