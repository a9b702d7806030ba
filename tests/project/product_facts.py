"""What is compared of a scene's products: all but versions, dates and fonts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image

#: Tags that say when and with which version, and nothing of the result.
PASSING = ('TORCHGEO_CTM_VERSION', 'SCENE')
#: Parts of a STAC item that do too.
DATES = ('datetime', 'created', 'updated', 'ctm:torchgeo_ctm_version')


def raster_facts(path: Path) -> dict[str, Any]:
    """Return everything of a raster but its pixels."""
    with rasterio.open(path) as raster:
        tags = {k: v for k, v in raster.tags().items() if k not in PASSING}
        colors = {}
        if raster.colorinterp[0].name == 'palette':
            table = raster.colormap(1)
            colors = {str(k): list(v) for k, v in table.items() if k in (0, 1, 2, 255)}
        return {
            'size': [raster.count, raster.height, raster.width],
            'dtype': raster.dtypes[0],
            'crs': raster.crs.to_string(),
            'transform': list(raster.transform)[:6],
            'nodata': raster.nodata,
            'descriptions': list(raster.descriptions),
            'scales': list(raster.scales),
            'offsets': list(raster.offsets),
            'colors': colors,
            'overviews': raster.overviews(1),
            'blocks': list(raster.block_shapes[0]),
            'compression': raster.compression.value if raster.compression else None,
            'layout': raster.tags(ns='IMAGE_STRUCTURE').get('LAYOUT'),
            'tags': tags,
            'band_tags': [raster.tags(index) for index in raster.indexes],
        }


def read(path: Path) -> NDArray[np.uint8]:
    """Return the pixels (bands, height, width) of a raster."""
    with rasterio.open(path) as raster:
        values: NDArray[np.uint8] = raster.read()
        return values


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def polygon_facts(path: Path) -> list[dict[str, Any]]:
    """Return attributes, and a hash of the shape, of each polygon in a fixed order.

    Mean confidences are left as numbers: they may differ a little between processors.
    """
    table = gpd.read_file(path)
    rounded = [
        shapely.normalize(shapely.set_precision(shape, 1e-6))
        for shape in table.geometry
    ]
    shapes = [
        shapely.to_wkb(shape, byte_order=1, output_dimension=2) for shape in rounded
    ]
    attributes = table.drop(columns='geometry').to_dict('records')
    facts = [
        {**{key: _plain(value) for key, value in record.items()}, 'wkb': sha256(wkb)}
        for record, wkb in zip(attributes, shapes, strict=True)
    ]
    return sorted(facts, key=lambda fact: str(fact['wkb']))


def _plain(value: Any) -> Any:
    """Return a number or text as JSON has it."""
    plain = value.item() if isinstance(value, np.generic) else value
    return round(plain, 6) if isinstance(plain, float) else plain


def item_facts(path: Path) -> Any:
    """Return a STAC item without dates and versions."""
    return _without(json.loads(path.read_text('utf-8')), DATES)


def _without(content: Any, names: tuple[str, ...]) -> Any:
    if isinstance(content, dict):
        kept = {k: v for k, v in content.items() if k not in names}
        return {key: _without(value, names) for key, value in kept.items()}
    if isinstance(content, list):
        return [_without(value, names) for value in content]
    return content


def picture_facts(path: Path) -> dict[str, Any]:
    """Return size and coarse colors of a picture, to which fonts matter little."""
    with Image.open(path) as image:
        coarse = np.asarray(image.convert('RGB').resize((12, 6), Image.Resampling.BOX))
        return {'size': list(image.size), 'mode': image.mode, 'rgb': coarse.tolist()}


def facts(found: dict[str, Path]) -> dict[str, Any]:
    """Return what is stored of a run's products, by product."""
    readers = {
        '.tif': raster_facts,
        '.gpkg': polygon_facts,
        '.json': item_facts,
        '.png': picture_facts,
        '.qml': _lines,
        '.xml': _lines,
    }
    content: dict[str, Any] = {'names': list(found)}
    return content | {name: readers[path.suffix](path) for name, path in found.items()}


def _lines(path: Path) -> list[str]:
    return path.read_text('utf-8').splitlines()


def rasters(found: dict[str, Path]) -> dict[str, NDArray[np.uint8]]:
    """Return the pixels of a run's rasters, by product."""
    return {name: read(path) for name, path in found.items() if path.suffix == '.tif'}
