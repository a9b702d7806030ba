"""Scenes that are xarray arrays: a raster for as long as they are mapped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import OutputError, SceneError, SettingError

#: Names of the dimension with the bands, and of rows and columns.
BANDS = ('band', 'bands', 'variable')
PLACE = {'y', 'x', 'lat', 'lon', 'latitude', 'longitude'}


@contextmanager
def array_raster(scene: Any, output: str | Path) -> Iterator[Path]:
    """Write an array to a hidden raster beside the output, and remove it at the end.

    Args:
        scene: ``xarray.DataArray`` (bands, y, x) or (y, x), or a Dataset with a variable
            for each band. Names of bands are its coordinate or ``long_name``.
        output: Class raster that will be written.

    Yields:
        Path of the raster. The same values give the same file, so that runs resume.

    Raises:
        OutputError: If the raster cannot be written.
        SceneError: If the array has other dimensions.
        SettingError: If rioxarray is not installed, or *scene* is no array of xarray.
    """
    if not type(scene).__module__.startswith('xarray.'):
        raise SettingError(
            f'scene is of type {type(scene).__name__}, expected a path or an '
            'xarray.DataArray.'
        )
    if find_spec('rioxarray') is None:
        raise SettingError(
            'Scenes of xarray require rioxarray. Install it with pip install '
            '"torchgeo-ctm[xarray]".'
        )
    array = _with_bands_first(scene)
    output = Path(output)
    folder = output.with_name(f'.{output.name}.scene')
    path = folder / f'{array.name or "array"}.tif'
    try:
        try:
            folder.mkdir(exist_ok=True)
            array.rio.to_raster(path, driver='GTiff', tiled=True, BIGTIFF='IF_SAFER')
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f'Cannot write {path}: {reason}') from error
        # a run is resumed if its scene has the time that it had
        os.utime(path, (0, 0))
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_bands_first(scene: Any) -> Any:
    """Return an array (bands, y, x) with the names of its bands."""
    import rioxarray  # noqa: F401  registers rio

    array = scene.to_array('band') if hasattr(scene, 'data_vars') else scene
    array = array.squeeze(
        [d for d in array.dims if d == 'time' and array.sizes[d] == 1]
    )
    bands = [name for name in array.dims if name in BANDS]
    if len(array.dims) != len(bands) + 2 or len(bands) > 1:
        raise SceneError(
            f'The scene has the dimensions {", ".join(map(str, array.dims))}, expected '
            'band, y, x. Choose one date with .isel(time=0).'
        )
    if bands:
        array = array.transpose(bands[0], ...)
        names = [
            str(name) for name in array.coords.get(bands[0], array[bands[0]]).values
        ]
        if not all(name.isdigit() for name in names):
            array = array.assign_attrs(long_name=tuple(names))
    return array
