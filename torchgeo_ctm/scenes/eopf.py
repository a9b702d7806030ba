"""Read the metadata of Sentinel-2 products in ESA's EOPF Zarr format.

Everything about an array is in the consolidated metadata of the product. GDAL reads the
pixels alone: below 3.12 it does not see the CRS, and opening an array over HTTP takes 30
requests.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from ..errors import SceneError
from .sentinel2 import CLASSIFICATION, Facts
from .stack import Layer

#: The file with the metadata of all arrays of Zarr version 2, and that of version 3.
METADATA, METADATA_3 = '.zmetadata', 'zarr.json'
#: Paths of the bands, and of the scene classification.
_BAND = re.compile(r'measurements/reflectance/r(\d+)m/(b\d{2}|b8a)', re.IGNORECASE)
_CLASSES = re.compile(r'conditions/mask/l2a_classification/r(\d+)m/scl')


class Product(NamedTuple):
    """The arrays of a product."""

    #: Name, resolution in meters and description of each band.
    bands: list[tuple[str, float, Layer]]
    #: The same of the scene classification, in each resolution.
    classification: list[tuple[str, float, Layer]]
    facts: Facts


def read_product(name: str, text: bytes, dataset: Callable[[str], str]) -> Product:
    """Read the metadata of a product.

    Args:
        name: Name of the scene in an error.
        text: Content of ``.zmetadata``.
        dataset: Returns GDAL's name of a path below the product.

    Raises:
        SceneError: If it is not that of a product, or an array has no place on Earth.
    """
    try:
        nodes = json.loads(text)['metadata']
        arrays = {path.removesuffix('/.zarray') for path in nodes if '/.zarray' in path}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SceneError(
            f'{name} has no consolidated Zarr metadata, expected the .zmetadata of an '
            'EOPF product.'
        ) from error
    root = nodes.get('.zattrs') or {}
    found: list[list[tuple[str, float, Layer]]] = []
    for pattern in (_BAND, _CLASSES):
        matches = [pattern.fullmatch(path) for path in sorted(arrays)]
        found.append(
            [
                _array(name, match[0], float(match[1]), nodes, root, dataset)
                for match in matches
                if match
            ]
        )
    if not found[0]:
        raise SceneError(
            f'{name} has no array measurements/reflectance/r10m/b02, expected a '
            'Sentinel-2 product in EOPF Zarr.'
        )
    offsets = {layer.offset for *_, layer in found[0]}
    properties = (root.get('stac_discovery') or {}).get('properties') or {}
    time = properties.get('datetime') or properties.get('start_datetime')
    offset = 0.0 if offsets == {0.0} else None
    return Product(found[0], found[1], Facts(offset, time))


def _array(
    name: str,
    path: str,
    resolution: float,
    nodes: Mapping[str, Any],
    root: Mapping[str, Any],
    dataset: Callable[[str], str],
) -> tuple[str, float, Layer]:
    """Return name, resolution and description of an array."""
    attributes = nodes.get(f'{path}/.zattrs') or {}
    band = path.rpartition('/')[2].upper()
    try:
        array = nodes[f'{path}/.zarray']
        a, b, c, d, e, f = (float(x) for x in attributes['proj:transform'][:6])
        layer = Layer(
            band=band,
            file=path,
            dataset=dataset(path),
            size=(int(array['shape'][0]), int(array['shape'][1])),
            crs=CRS.from_user_input(_crs(attributes, root)),
            transform=Affine(a, b, c, d, e, f),
            dtype=np.dtype(array['dtype']).name,
            nodata=_fill(array['fill_value']),
            masked=False,
            block=(int(array['chunks'][0]), int(array['chunks'][1])),
            facts=Facts(),
            scale=float(attributes.get('scale_factor', 1)),
            offset=float(attributes.get('add_offset', 0)),
        )
    except (KeyError, IndexError, ValueError, TypeError, CRSError) as error:
        raise SceneError(
            f'{name}: {path} is incomplete, expected shape, chunks, dtype, '
            f'proj:transform and proj:epsg: {" ".join(str(error).split())}'
        ) from error
    return CLASSIFICATION if band == CLASSIFICATION else band, resolution, layer


def _fill(value: Any) -> float | None:
    """Return the value of pixels that were never written; JSON has NaN as text."""
    return None if value is None else float(value)


def _crs(attributes: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return the CRS of an array: its own, or that of the product."""
    other = root.get('other_metadata') or {}
    found = (root.get('stac_discovery') or {}).get('properties') or {}
    for source, key in (
        (attributes, 'proj:epsg'),
        (attributes, 'proj:code'),
        (attributes, 'proj:wkt2'),
        (other, 'horizontal_CRS_code'),
        (other, 'horizontal_crs_code'),
        (found, 'proj:epsg'),
        (found, 'proj:code'),
    ):
        if source.get(key):
            return source[key]
    raise KeyError('proj:epsg')
