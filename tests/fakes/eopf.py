"""Sentinel-2 products in EOPF Zarr, version 2, as ESA's sample service has them."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes.sentinel2 import CORNER, native

NAME = 'S2A_MSIL2A_20260603T101041_N0511_R022_T32TNR_20260603T121345.zarr'
SCL = 'conditions/mask/l2a_classification/r20m/scl'
#: Pixels of a side of a chunk.
CHUNK = 50


def path_of(band: str, resolution: int | None = None) -> str:
    """Return the path of a band in a product."""
    return f'measurements/reflectance/r{resolution or native(band)}m/{band.lower()}'


def compressed(values: NDArray[Any]) -> bytes:
    return zlib.compress(values.tobytes(), 1)


def write_array(
    root: Path,
    path: str,
    pixels: NDArray[Any],
    attributes: dict[str, Any],
    compressor: dict[str, Any] | None = None,
    compress: Callable[[NDArray[Any]], bytes] = compressed,
) -> dict[str, Any]:
    """Write the chunks of an array; return its consolidated metadata."""
    folder = root / path
    folder.mkdir(parents=True)
    for row in range(0, pixels.shape[0], CHUNK):
        for col in range(0, pixels.shape[1], CHUNK):
            part = pixels[row : row + CHUNK, col : col + CHUNK]
            whole = np.zeros((CHUNK, CHUNK), pixels.dtype)
            whole[: part.shape[0], : part.shape[1]] = part
            # chunks that hold fill values alone are not written
            if whole.any():
                chunk = folder / f'{row // CHUNK}.{col // CHUNK}'
                chunk.write_bytes(compress(whole))
    array = {
        'chunks': [CHUNK, CHUNK],
        'compressor': compressor or {'id': 'zlib', 'level': 1},
        'dtype': pixels.dtype.str,
        'fill_value': 0,
        'filters': None,
        'order': 'C',
        'shape': [*pixels.shape],
        'zarr_format': 2,
    }
    attributes = {'_ARRAY_DIMENSIONS': ['y', 'x'], **attributes}
    (folder / '.zarray').write_text(json.dumps(array))
    (folder / '.zattrs').write_text(json.dumps(attributes))
    return {f'{path}/.zarray': array, f'{path}/.zattrs': attributes}


def write_product(
    parent: Path,
    bands: dict[str, NDArray[Any]],
    classification: NDArray[np.uint8] | None = None,
    offset: float = -0.1,
    own_crs: bool = True,
    **options: Any,
) -> Path:
    """Write a product of bands in their own resolutions, and those of 10 m in 20 m too.

    Args:
        parent: Where the folder of the product is written.
        bands: Pixels of each band.
        classification: Scene classification of 20 m.
        offset: Added to the reflectance.
        own_crs: Whether arrays tell their CRS; else the product alone does.
        **options: Of :func:`write_array`.
    """
    root = parent / NAME
    other = {'horizontal_CRS_code': 'EPSG:32632'}
    found = {'properties': {'datetime': '2026-06-03T10:10:41.024Z'}}
    nodes: dict[str, Any] = {
        '.zattrs': {'other_metadata': other, 'stac_discovery': found},
        '.zgroup': {'zarr_format': 2},
    }
    scaled = {'scale_factor': 0.0001, 'add_offset': offset, 'units': 'digital_counts'}
    layers = [(path_of(b), native(b), pixels, scaled) for b, pixels in bands.items()]
    # products repeat bands of 10 m in 20 m
    for band, pixels in bands.items():
        if native(band) == 10 and band != 'B08':
            layers.append((path_of(band, 20), 20, pixels[::2, ::2] + 1, scaled))
    if classification is not None:
        layers.append((SCL, 20, classification, {}))
    for path, side, pixels, facts in layers:
        transform = [side, 0, CORNER[0], 0, -side, CORNER[1], 0, 0, 1]
        place = {'proj:transform': [float(number) for number in transform]}
        crs = {'proj:epsg': 32632} if own_crs else {}
        attributes = {**facts, **place, **crs}
        nodes |= write_array(root, path, pixels, attributes, **options)
    content = {'metadata': nodes, 'zarr_consolidated_format': 1}
    (root / '.zmetadata').write_text(json.dumps(content))
    for name in ('.zgroup', '.zattrs'):
        (root / name).write_text(json.dumps(nodes[name]))
    return root
