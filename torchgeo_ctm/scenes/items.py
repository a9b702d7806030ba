"""Read STAC items, and find the assets that are the bands of a scene.

Items are read as JSON, without pystac: nothing heavy is imported to open a scene.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from ..errors import SceneError, did_you_mean
from ..scaling import band_key
from .remote import failure, read_text
from .sentinel2 import CLASSIFICATION, Facts, baseline_offset

#: Changes the URL of an asset, as to add a token.
Sign = Callable[[str], str]

#: A file of items, and the id of one of them.
_NAME = re.compile(
    r'(.+\.(?:geo)?(?:json|parquet)(?:\?[^#]*)?)(?:#(.+))?', re.IGNORECASE
)
#: How GDAL reads over HTTP: five retries, no listing of folders, no HEAD requests, which
#: signed URLs refuse, and an end to connections that say nothing for half a minute.
HTTP = (
    'max_retry=5&retry_delay=1&list_dir=no&empty_dir=yes&use_head=no'
    '&connecttimeout=30&low_speed_time=30&low_speed_limit=1'
)
#: GDAL's names for buckets.
BUCKETS = {'s3': '/vsis3/', 'gs': '/vsigs/', 'az': '/vsiaz/', 'oss': '/vsioss/'}
#: The bands of Sentinel-2 by the common names of STAC, and those that Earth Search uses.
COMMON_NAMES = {
    'coastal': 'B01',
    'blue': 'B02',
    'green': 'B03',
    'red': 'B04',
    'rededge1': 'B05',
    'rededge071': 'B05',
    'rededge2': 'B06',
    'rededge075': 'B06',
    'rededge3': 'B07',
    'rededge078': 'B07',
    'nir': 'B08',
    'nir08': 'B8A',
    'nir09': 'B09',
    'cirrus': 'B10',
    'swir16': 'B11',
    'swir22': 'B12',
}


class Asset(NamedTuple):
    """A raster of an item."""

    #: Names of its bands, at least one.
    bands: tuple[str, ...]
    #: Argument for rasterio.
    dataset: str
    #: Its file, for messages.
    file: str
    #: Side of a pixel in meters, if the item tells.
    resolution: float | None
    #: Factor of the stored values, None as the file says.
    scale: float | None
    #: Added to the scaled values, None as the file says.
    offset: float | None
    #: Value of invalid pixels.
    nodata: float | None


class Item(NamedTuple):
    """The rasters of an item, and what its properties say about all of them."""

    assets: list[Asset]
    facts: Facts
    #: Address of a product in EOPF Zarr that holds everything, None without one.
    product: str | None


def split_name(name: str) -> tuple[str, str | None] | None:
    """Split ``FILE.json#ID`` into file and id, which may be None; None for other names."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def scene_stem(scene: str) -> str:
    """Return the name of the map of a scene: the id of an item, or that of its file."""
    split = split_name(scene)
    if split is None or split[1] is None:
        return Path(scene).stem
    return re.sub(r'[^\w.+-]', '_', split[1])


def item_names(scenes: Iterable[str]) -> list[str]:
    """Return scenes with ``FILE#ID`` for each item in place of a file of items.

    Raises:
        SceneError: If a file cannot be read, or holds no items.
    """
    found = []
    for name in scenes:
        path, item = split_name(name) or (name, name)
        if item is None:
            found += [f'{name}#{each["id"]}' for each in read_items(path)]
        else:
            found.append(name)
    return found


def read_item(
    name: str, bands: Sequence[str] | None = None, sign: Sign | None = None
) -> Item:
    """Read one item.

    Args:
        name: File or URL of an item, an ItemCollection or GeoParquet; of several items
            ``FILE#ID``.
        bands: Names of bands to prefer where an asset has several names.
        sign: Changes the URL of an asset.

    Raises:
        SceneError: If the file cannot be read, or holds no or several items.
    """
    path, wanted = split_name(name) or (name, None)
    items = read_items(path)
    ids = [str(item['id']) for item in items]
    if wanted is None and len(items) > 1:
        raise SceneError(
            f'{path} holds {len(items)} scenes, expected one. Choose one by its id, as '
            f"'{path}#{ids[0]}'."
        )
    if wanted is not None and wanted not in ids:
        hint = did_you_mean(wanted, ids) or f' Its first is {ids[0]}.'
        raise SceneError(f'{path} has no item {wanted!r}.{hint}')
    item = items[0 if wanted is None else ids.index(wanted)]
    properties = item.get('properties') or {}
    common = _is_sentinel2(properties)
    keys = {band_key(band) for band in bands or ()}
    assets = [
        _asset(key, asset, path, item, keys, common, sign)
        for key, asset in item['assets'].items()
        if asset.get('href') and _is_raster(asset)
    ]
    hrefs = [
        str(asset.get('href') or '').rstrip('/') for asset in item['assets'].values()
    ]
    product = next((href for href in hrefs if href.lower().endswith('.zarr')), None)
    address = None if product is None else _absolute(product, path, item)
    return Item(assets, _facts(properties, assets), address)


def read_items(path: str) -> list[dict[str, Any]]:
    """Read the items of a file or URL: an item, an ItemCollection, or GeoParquet.

    Raises:
        SceneError: If it cannot be read, or holds no items.
    """
    expected = 'expected a STAC item or a collection of items'
    try:
        content = (
            _rows(path) if '.parquet' in path.lower() else json.loads(read_text(path))
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = failure(error, path)
        raise SceneError(f'Cannot read {path}, {expected}: {reason}') from error
    kind = content.get('type') if isinstance(content, dict) else None
    if kind in ('Catalog', 'Collection'):
        raise SceneError(
            f'{path} is a STAC {kind.lower()}, {expected}. Find items with torchgeo-ctm '
            f'search --catalog {path}.'
        )
    found = content.get('features') if kind == 'FeatureCollection' else [content]
    good = isinstance(found, list) and all(
        isinstance(item, dict) and 'id' in item and isinstance(item.get('assets'), dict)
        for item in found
    )
    if not good or not found:
        raise SceneError(f'{path} holds no STAC item, {expected}.')
    return list(found)


def _rows(path: str) -> dict[str, Any]:
    """Return the rows of a GeoParquet file of items as a collection of items."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise SceneError(
            f'{path} requires pyarrow: pip install "torchgeo-ctm[parquet]".'
        ) from error
    columns = pyarrow.parquet.read_schema(path).names
    used = [name for name in columns if name != 'geometry']
    rows = pyarrow.parquet.read_table(path, columns=used).to_pylist()
    items = []
    for row in map(_without_nulls, rows):
        # in GeoParquet, properties are columns of their own
        own = {k: row.pop(k) for k in ('id', 'assets', 'links') if k in row}
        items.append({**own, 'properties': row})
    return {'type': 'FeatureCollection', 'features': items}


def _without_nulls(value: Any) -> Any:
    """Return nested values without the keys that a row has only for other rows."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _is_raster(asset: Mapping[str, Any]) -> bool:
    """Return whether an asset is a raster, and not a picture of one."""
    roles = {*(asset.get('roles') or ())}
    if roles & {'thumbnail', 'overview', 'visual', 'metadata'}:
        return False
    kind = str(asset.get('type') or '')
    suffix = PurePosixPath(urlsplit(asset['href']).path).suffix.lower()
    return (
        'tiff' in kind or 'jp2' in kind or suffix in ('.tif', '.tiff', '.jp2', '.vrt')
    )


def _asset(
    key: str,
    asset: Mapping[str, Any],
    path: str,
    item: Mapping[str, Any],
    wanted: set[str],
    common: bool,
    sign: Sign | None,
) -> Asset:
    """Return an asset with the names of its bands and what the item says of values."""
    href = _absolute(asset['href'], path, item)
    described = asset.get('bands') or asset.get('eo:bands') or [{}]
    # 'B02_10m' and 'red-jp2' are bands in one of several resolutions or formats
    plain = re.sub(r'([_-]\d+m|-jp2)$', '', key)
    names = tuple(
        _band_name(
            [
                band.get('name'),
                *([plain] if len(described) == 1 else []),
                band.get('eo:common_name') or band.get('common_name'),
            ],
            wanted,
            common,
        )
        or f'band {number}'
        for number, band in enumerate(described, 1)
    )
    # STAC 1.0 has raster:bands, 1.1 has bands and fields of the asset
    raster = (asset.get('raster:bands') or [{}])[0]
    values = {**asset, **described[0], **raster}
    size = values.get('spatial_resolution') or values.get('raster:spatial_resolution')
    return Asset(
        names,
        gdal_name(sign(href) if sign else href),
        PurePosixPath(urlsplit(href).path).name,
        _number(size or values.get('gsd')),
        _number(values.get('scale', values.get('raster:scale'))),
        _number(values.get('offset', values.get('raster:offset'))),
        _number(values.get('nodata')),
    )


def _band_name(
    candidates: Sequence[str | None], wanted: set[str], common: bool
) -> str | None:
    """Return the name of a band: one that is wanted, that of Sentinel-2, or the first."""
    names = [name for name in candidates if name]
    for name in names:
        if band_key(name) in wanted or re.fullmatch(r'b\d{1,2}a?', band_key(name)):
            return name
    if common:
        found = [COMMON_NAMES[n.lower()] for n in names if n.lower() in COMMON_NAMES]
        names = found + names
    return names[0] if names else None


def _is_sentinel2(properties: Mapping[str, Any]) -> bool:
    """Return whether common names are those of Sentinel-2's bands."""
    named = [str(properties.get(key) or '') for key in ('constellation', 'platform')]
    text = ' '.join(named).lower().replace(' ', '-').strip('-')
    return not text or 'sentinel-2' in text


def _absolute(href: str, path: str, item: Mapping[str, Any]) -> str:
    """Return the address of an asset, relative to the file or to the item's own link."""
    if '://' in href or href.startswith('/'):
        return href
    links = item.get('links') or ()
    own = next((str(x.get('href')) for x in links if x.get('rel') == 'self'), '')
    if '://' in path:
        return urljoin(path, href)
    local = Path(path).absolute().parent / href
    if not local.exists() and '://' in own:
        return urljoin(own, href)
    return local.as_posix()


def gdal_name(href: str) -> str:
    """Return GDAL's name of a path or URL, with retries over HTTP."""
    scheme, _, rest = href.partition('://')
    if scheme in ('http', 'https'):
        return f'/vsicurl?{HTTP}&url={quote(href, safe=":/?=,;@")}'
    if scheme == 'file':
        return urlsplit(href).path
    return BUCKETS[scheme] + rest if scheme in BUCKETS else href


def _number(value: Any) -> float | None:
    """Return a number, None without one; STAC writes NaN as text."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _facts(properties: Mapping[str, Any], assets: Sequence[Asset]) -> Facts:
    """Return what the properties say: time, and the offset of all values."""
    applied = [
        properties.get(f'{x}:boa_offset_applied') for x in ('earthsearch', 'sentinel')
    ]
    offsets = {asset.offset for asset in assets if asset.offset is not None}
    offset = None
    # Earth Search states an offset in raster:bands that it has already applied
    if any(value is True for value in applied) or offsets == {0.0}:
        offset = 0.0
    elif not offsets:
        baselines = ('s2:processing_baseline', 'processing:version')
        text = next((str(properties[k]) for k in baselines if properties.get(k)), '')
        offset = baseline_offset(text)
    time = properties.get('datetime') or properties.get('start_datetime')
    if time is not None and not isinstance(time, str):
        time = time.isoformat()
    return Facts(offset, time)


def is_classification(asset: Asset) -> bool:
    """Return whether an asset is the scene classification."""
    return [*map(band_key, asset.bands)] == [band_key(CLASSIFICATION)]
