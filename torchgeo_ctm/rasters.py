"""Open rasters for reading, with or without a georeference."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from .errors import CTMError, GeoreferenceWarning, NodataWarning, SceneError, name_key
from .grids import Grid

#: Settings of GDAL for scenes over HTTP and in buckets.
RETRIES = {'GDAL_HTTP_MAX_RETRY': '5', 'GDAL_HTTP_RETRY_DELAY': '1'}
#: Name of the band of a confidence raster.
CONFIDENCE = 'confidence, per cent'
#: Names of a value that is no class.
NO_CLASS = ('no data', 'nodata', 'none', 'background', 'unlabeled', 'unknown')


@contextmanager
def quiet() -> Iterator[None]:
    """Silence rasterio's warning about rasters without a georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        yield


def open_raster(
    path: str | Path,
    error: type[CTMError] = SceneError,
    name: str | None = None,
    threads: int = 1,
) -> DatasetReader:
    """Open a raster for reading.

    Args:
        path: A path, a URL, or a virtual raster as text.
        error: Class of the error to raise.
        name: What an error calls the raster; None: *path*.
        threads: Threads that decode blocks, where the format can.

    Raises:
        CTMError: An *error* if GDAL cannot open the raster.
    """
    try:
        with quiet(), rasterio.Env(GDAL_NUM_THREADS=threads, **_retries()):
            raster: DatasetReader = rasterio.open(path)
            # texts in another encoding raise wherever they are read
            _ = raster.descriptions, raster.tags(), [*map(raster.tags, raster.indexes)]
    except UnicodeDecodeError as cause:
        raise error(
            f'{name or path} has names or tags that are not UTF-8. Remove them with '
            'gdal_translate -co PROFILE=BASELINE, or write them again.'
        ) from cause
    except (RasterioError, OSError) as cause:
        reason = without_tokens(str(cause).splitlines()[0])
        raise error(f'Cannot open {name or path} as a raster: {reason}') from cause
    return raster


def _retries() -> dict[str, str]:
    """Return how GDAL repeats failed requests, where the user has not set it.

    A raster keeps the settings that it was opened with.
    """
    own = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    return {
        key: value
        for key, value in RETRIES.items()
        if key not in os.environ and key not in own
    }


def read_failure(error: Exception, dataset: str) -> str:
    """Return why pixels cannot be read, and what to do about it.

    Args:
        error: What rasterio raised.
        dataset: Argument for rasterio.
    """
    reason = without_tokens(' '.join(str(error.__cause__ or error).split()))
    if not re.search('/vsi(curl|s3|gs|az|oss)|[a-z0-9]://', dataset):
        return reason
    return (
        f'{reason.rstrip(".")}. Run the same command again to resume. URLs with a token '
        'may have expired.'
    )


def without_tokens(reason: str) -> str:
    """Return a reason of GDAL's without settings and tokens in the URLs it names."""
    plain = re.sub(r'/vsicurl\?\S*?url=(?=http)', '', reason)
    return re.sub(r'(?<=\w)\?\w+=[^\s\'",]+', '', plain)


def grid_of(raster: DatasetReader) -> Grid:
    """Return the grid of an open raster."""
    return Grid(raster.height, raster.width, raster.crs, raster.transform)


def warn_of_control_points(raster: DatasetReader, name: str) -> bool:
    """Warn about a raster that has a place on the ground, but no grid there.

    Args:
        raster: The open raster.
        name: Its name, for the message.

    Returns:
        Whether it is such a raster.
    """
    points = bool(raster.gcps[0])
    gridded = raster.crs is not None and not raster.transform.is_identity
    if gridded or not (points or raster.rpcs is not None):
        return False
    warnings.warn(
        f'{name} is georeferenced by '
        f'{"ground control points (GCPs)" if points else "RPCs"}, which the mask does '
        'not keep: its pixels have no place on the ground. Warp the scene first '
        f'with gdalwarp{"" if points else " -rpc"}.',
        GeoreferenceWarning,
        stacklevel=4,
    )
    return True


def tagged_class_names(raster: DatasetReader) -> list[str] | None:
    """Return the class names in the tags of a raster, None without them.

    Raises:
        SceneError: If the tag is not a list of names.
    """
    tag = raster.tags().get('CLASS_NAMES')
    if tag is None:
        return None
    try:
        names = json.loads(tag)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name.strip() and name.isprintable() for name in names
    ):
        short = tag if len(tag) < 60 else f'{tag[:57]}…'
        raise SceneError(
            f'{raster.name} has the tag CLASS_NAMES={short}, expected a JSON list of '
            'printable names. Remove it with gdal_edit.py -mo CLASS_NAMES=.'
        )
    return names or None


def warn_of_nodata_class(raster: DatasetReader) -> None:
    """Warn if the nodata value of a class raster is one of its classes."""
    if raster.nodata is None or not raster.nodata.is_integer():
        return
    name = (value_names(raster) or {}).get(int(raster.nodata))
    if name is None or name_key(name) in NO_CLASS:
        return
    warnings.warn(
        f'{raster.name} has the nodata value {raster.nodata:g}, which is its class '
        f'{name!r}: these pixels do not count. Remove it with gdal_edit.py '
        '-unsetnodata.',
        NodataWarning,
        stacklevel=4,
    )


def value_names(raster: DatasetReader) -> dict[int, str] | None:
    """Return the name of each value of a class raster, None without names.

    They are those of the tags, or the category names that GDAL keeps beside the file.

    Raises:
        SceneError: If the tag is not a list of names.
    """
    names = tagged_class_names(raster)
    if names is None:
        beside = Path(f'{raster.name}.aux.xml')
        try:
            root = ElementTree.parse(beside).getroot()
        except (OSError, ElementTree.ParseError):
            return None
        band = root.find('PAMRasterBand[@band="1"]/CategoryNames')
        names = [] if band is None else [each.text or '' for each in band]
    return {value: name for value, name in enumerate(names) if name.strip()} or None
