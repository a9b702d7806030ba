"""Static STAC catalogs of Sentinel-2 scenes as cloud-optimized GeoTIFFs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_geom

from tests.fakes.sentinel2 import CORNER, CRS
from torchgeo_ctm.scenes.items import COMMON_NAMES

COG = 'image/tiff; application=geotiff; profile=cloud-optimized'
#: Names of assets as Earth Search has them, by band.
KEYS = {band: key for key, band in reversed(COMMON_NAMES.items())}


def write_cog(
    path: Path, pixels: NDArray[Any], resolution: float, nodata: float | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        'w',
        driver='COG',
        dtype=pixels.dtype,
        count=1,
        height=pixels.shape[0],
        width=pixels.shape[1],
        crs=CRS,
        transform=Affine(resolution, 0, CORNER[0], 0, -resolution, CORNER[1]),
        nodata=nodata,
        blocksize=128,
    ) as raster:
        raster.write(pixels, 1)
    return path


def footprint(side: float, shift: float = 0.0) -> dict[str, Any]:
    """Return a square of some meters from the corner of the scenes, in degrees."""
    left, top = CORNER[0] + shift, CORNER[1]
    xy = [(0, 0), (side, 0), (side, -side), (0, -side), (0, 0)]
    ring = [(left + x, top + y) for x, y in xy]
    found: dict[str, Any] = transform_geom(
        CRS, 'EPSG:4326', {'type': 'Polygon', 'coordinates': [ring]}
    )
    return found


def make_item(
    name: str,
    bands: dict[str, str],
    properties: dict[str, Any],
    side: float = 1500,
    shift: float = 0.0,
    raster: dict[str, Any] | None = None,
    classification: str | None = None,
) -> dict[str, Any]:
    """Return an item with one asset for each band, by its address."""
    geometry = footprint(side, shift)
    ring = np.array(geometry['coordinates'][0])
    assets: dict[str, Any] = {
        KEYS[band]: {
            'href': href,
            'type': COG,
            'roles': ['data'],
            'eo:bands': [{'name': KEYS[band], 'common_name': 'rededge'}],
            'raster:bands': [raster or {}],
        }
        for band, href in bands.items()
    }
    picture = {'href': 'preview.jpg', 'type': 'image/jpeg', 'roles': ['thumbnail']}
    color = {'href': 'TCI.tif', 'type': COG, 'roles': ['visual']}
    if classification is not None:
        assets['scl'] = {'href': classification, 'type': COG, 'roles': ['data']}
    return {
        'type': 'Feature',
        'stac_version': '1.0.0',
        'stac_extensions': [],
        'id': name,
        'collection': 'sentinel-2-l2a',
        'geometry': geometry,
        'bbox': [*ring.min(axis=0), *ring.max(axis=0)],
        'properties': {'platform': 'sentinel-2a', **properties},
        'assets': {'thumbnail': picture, 'visual': color, **assets},
        'links': [
            {'rel': 'root', 'href': '../../catalog.json'},
            {'rel': 'collection', 'href': '../collection.json'},
            {'rel': 'parent', 'href': '../collection.json'},
        ],
    }


def write_catalog(folder: Path, items: list[dict[str, Any]]) -> Path:
    """Write a static catalog of one collection; return its catalog.json."""
    boxes = np.array([item['bbox'] for item in items])
    box = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
    links = [{'rel': 'item', 'href': f'./{i["id"]}/item.json'} for i in items]
    collection = {
        'type': 'Collection',
        'stac_version': '1.0.0',
        'id': 'sentinel-2-l2a',
        'description': 'Scenes',
        'license': 'proprietary',
        'extent': {
            'spatial': {'bbox': [box]},
            'temporal': {'interval': [[None, None]]},
        },
        'links': [{'rel': 'root', 'href': '../catalog.json'}, *links],
    }
    child = {'rel': 'child', 'href': './sentinel-2-l2a/collection.json'}
    catalog = {
        'type': 'Catalog',
        'stac_version': '1.0.0',
        'id': 'scenes',
        'description': 'Scenes',
        'links': [{'rel': 'root', 'href': './catalog.json'}, child],
    }
    inner = folder / 'sentinel-2-l2a'
    for path, content in (
        (folder / 'catalog.json', catalog),
        (inner / 'collection.json', collection),
        *((inner / item['id'] / 'item.json', item) for item in items),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder / 'catalog.json'
