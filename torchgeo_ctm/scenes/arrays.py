"""Scenes that are xarray arrays: a raster for as long as they are mapped."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError, SceneError, SettingError
from ..options import comma_separated
from .inputs import file_checksum

#: Names of the dimension with the bands, and other names of rows and columns.
BANDS = ('band', 'bands', 'variable')
PLACE = {'lat': 'y', 'latitude': 'y', 'lon': 'x', 'longitude': 'x'}
#: Part of a pixel by which the distances of rows and columns may differ.
UNEVEN = 0.1


@contextmanager
def array_raster(
    scene: Any, output: str | Path, names: Sequence[str] | None = None
) -> Iterator[Path]:
    """Write an array to a hidden raster beside the output, and remove it at the end.

    Args:
        scene: ``xarray.DataArray`` (bands, y, x) or (y, x), or a Dataset with a variable
            for each band. Names of bands are its coordinate or ``long_name``.
        output: Class raster that will be written.
        names: Names of the bands in their order, instead of those of the array.

    Yields:
        Path of the raster. The same values give the same file, so that runs resume.

    Raises:
        OutputError: If the raster cannot be written.
        SceneError: If the array has other dimensions, uneven coordinates, or bands in
            an order that its names do not follow.
        SettingError: If rioxarray is not installed, or *scene* is no array of xarray.
    """
    if not type(scene).__module__.startswith('xarray.'):
        raise SettingError(
            f'scene is of type {type(scene).__name__}, expected a path or an '
            'xarray.DataArray. For several, see prediction.shards.predict_scenes and '
            'prediction.dates.predict_dates.'
        )
    if find_spec('rioxarray') is None:
        raise SettingError(
            'Scenes of xarray require rioxarray. Install it with pip install '
            '"torchgeo-ctm[xarray]".'
        )
    array = _with_bands_first(scene, names)
    from rioxarray.exceptions import RioXarrayError

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
        except (RioXarrayError, TypeError, ValueError) as error:
            reason = ' '.join(str(error).split())
            raise SceneError(
                f'The scene cannot be written as a raster: {reason}'
            ) from error
        # a run is resumed if its scene has the time that it had, so of equal values
        checksum = file_checksum(path)
        os.utime(path, (checksum, checksum))
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_bands_first(scene: Any, names: Sequence[str] | None) -> Any:
    """Return an array (band, y, x) with the names of its bands."""
    import rioxarray  # noqa: F401  registers rio

    array = scene
    if hasattr(scene, 'data_vars'):
        # one variable with bands, or one of each band
        variables = [*scene.data_vars.values()]
        banded = len(variables) == 1 and {*variables[0].dims} & {*BANDS}
        array = variables[0] if banded else scene.to_array('band')
    array = array.squeeze(
        [d for d in array.dims if d == 'time' and array.sizes[d] == 1]
    )
    array = array.rename({d: PLACE[d] for d in array.dims if d in PLACE})
    bands = [name for name in array.dims if name in BANDS]
    if len(array.dims) != len(bands) + 2 or len(bands) > 1:
        raise SceneError(
            f'The scene has the dimensions {", ".join(map(str, array.dims))}, expected '
            'band, y, x. Choose one date with .isel(time=0).'
        )
    if {'y', 'x'} <= {*array.dims}:
        array = array.transpose(*bands, 'y', 'x')
        _check_even(array)
    array = _as_it_is(array)
    if names:
        given, count = comma_separated(names), array.sizes[bands[0]] if bands else 1
        if len(given) != count:
            raise SettingError(
                f'scene_bands has {len(given)} names, expected {count}, one for each '
                'band of the scene.'
            )
        return array.assign_attrs(long_name=tuple(given))
    # of one band, the coordinate stays without its dimension
    key = next((name for name in BANDS if name in {*array.dims, *array.coords}), None)
    if key is not None:
        own = [*map(str, np.atleast_1d(array[key].values))]
        array = array.assign_attrs(long_name=_names(own, array.attrs.get('long_name')))
    return array


def _as_it_is(array: Any) -> Any:
    """Return an array that is written with the type that it has, and its NaN.

    Its encoding is that of the file it comes from: 16-bit numbers, which have no NaN.

    Raises:
        SceneError: If it is empty, or does not hold numbers.
    """
    if not array.size:
        sizes = ' × '.join(map(str, array.shape))
        raise SceneError(f'The scene is empty: its size is {sizes}.')
    if array.dtype.kind not in 'iuf':
        raise SceneError(
            f'The scene holds values of type {array.dtype}, expected numbers. Convert '
            "them with .astype('float32')."
        )
    if array.dtype == np.float16:
        # GDAL has no such type
        array = array.astype(np.float32)
    kept = {'grid_mapping', 'scale_factor', 'add_offset', 'scales', 'offsets'}
    if array.dtype.kind != 'f':
        kept.add('_FillValue')
    plain = array.drop_encoding()
    plain.encoding = {k: v for k, v in array.encoding.items() if k in kept}
    return plain


def _check_even(array: Any) -> None:
    """Check that rows and columns have equal distances.

    Raises:
        SceneError: If they do not: a raster has no place for such pixels.
    """
    for name in ('y', 'x'):
        if name not in array.coords or array.sizes[name] < 3:
            continue
        steps = np.diff(array.coords[name].values.astype(float))
        if not (np.abs(steps - steps.mean()) <= UNEVEN * abs(steps.mean())).all():
            raise SceneError(
                f'The coordinates {name} of the scene are uneven, expected the same '
                'distance between all. Choose rows and columns by slices.'
            )


def _names(own: list[str], given: Any) -> Any:
    """Return the names of an array's bands.

    xarray does not change ``long_name`` when bands are selected: it may list more.

    Args:
        own: Coordinate of the bands.
        given: ``long_name``; None: missing.

    Raises:
        SceneError: If the bands are in another order than their names may be.
    """
    if not all(name.isdigit() for name in own):
        return tuple(own)
    numbers = [int(name) for name in own]
    named = isinstance(given, tuple | list)
    if (
        named
        and len(given) > len(own)
        and 0 < min(numbers) <= max(numbers) <= len(given)
    ):
        return tuple(given[number - 1] for number in numbers)
    twice = len({*numbers}) < len(numbers)
    moved = numbers != sorted(numbers) == [*range(1, len(own) + 1)]
    if twice or moved:
        raise SceneError(
            f'The bands of the scene are in the order {", ".join(own[:13])}, which '
            'long_name does not follow. Name them with .assign_coords(band=[…]), or pass '
            'scene_bands=.'
        )
    return given
