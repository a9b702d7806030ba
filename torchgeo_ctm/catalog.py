"""Find scenes in a STAC catalog by place, time and cloud cover."""

import importlib.util
import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import (
    CTMWarning,
    DataError,
    OutputError,
    SettingError,
    did_you_mean,
    one_line,
)
from .files import atomic_path, check_file, write_text
from .scenes.area import read_box
from .scenes.remote import BUSY, RETRIES, WAIT, failure

if TYPE_CHECKING:
    import pystac

SUFFIXES = ('.json', '.parquet')
#: Properties with the tile of a scene.
TILES = ('grid:code', 's2:mgrs_tile', 's2:tile_id', 'tileId')


def check_scenes(output: str | Path, overwrite: bool) -> Path:
    """Return the path of a file of scenes to write.

    Raises:
        OutputError: If it cannot be written.
    """
    path = Path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f'Expected a name that ends in .json or .parquet, got {str(path)!r}. Did you '
            f'mean {path.with_suffix(".json").name!r}?'
        )
    if path.suffix.lower() == '.parquet' and not importlib.util.find_spec('pyarrow'):
        raise OutputError(
            f'{path} requires pyarrow: pip install "torchgeo-ctm[parquet]". Or write '
            f'{path.stem}.json.'
        )
    return check_file(path, overwrite)


def search(
    catalog: str,
    bbox: Sequence[Any],
    date: str,
    *,
    collection: str | None = 'sentinel-2-l2a',
    max_cloud: float = 100.0,
    limit: int = 100,
) -> 'list[pystac.Item]':
    """Find the scenes of a place and a time, sorted by time.

    Args:
        catalog: URL of a STAC API, or URL or path of a static catalog.
        bbox: West, south, east, north in degrees. A west beyond east crosses the date
            line.
        date: A day, month or year, or two with a slash.
        collection: Id of the collection; None or '': any, or none.
        max_cloud: Highest cloud cover in percent. Scenes that do not tell it are kept.
        limit: Most scenes that are returned.

    Returns:
        The items, at least one. The addresses of their assets are absolute.

    Raises:
        SettingError: If an argument is out of range, or pystac-client is missing.
        DataError: If the catalog cannot be read, or no scene matches.
    """
    if importlib.util.find_spec('pystac_client') is None:
        raise SettingError(
            'search requires pystac-client: pip install "torchgeo-ctm[catalog]".'
        )
    from pystac import STACError
    from pystac_client.errors import ClientTypeError
    from pystac_client.exceptions import APIError

    collection = collection or None
    box = read_box(bbox)
    first, last = _interval(date)
    if limit < 1:
        raise SettingError(f'limit={limit} is too small, expected at least 1.')
    try:
        client = _open(catalog)
        found = list(_items(client, box, date, (first, last), collection))
        clear = [item for item in found if (_cloud(item) or 0) <= max_cloud]
        if not clear:
            raise DataError(_nothing(client, catalog, collection, found, max_cloud))
    except ClientTypeError as error:
        raise DataError(
            f'{catalog} is no catalog, expected the URL of a STAC API, or URL or path of a '
            'catalog.json. predict takes items as they are.'
        ) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f'Cannot search {catalog}: its content is not valid STAC '
            f'({type(error).__name__}: {one_line(error)}). Check that the address is '
            'that of a STAC API or of a catalog.json.'
        ) from error
    except (OSError, ValueError, STACError, APIError) as error:
        reason = failure(error, catalog)
        raise DataError(f'Cannot search {catalog}: {reason}') from error
    clear.sort(key=lambda item: (_times(item)[0], item.id))
    if len(clear) > limit:
        warnings.warn(
            f'{len(clear)} scenes match, the first {limit} are kept. Narrow the search, '
            f'or raise limit={limit}.',
            CTMWarning,
            stacklevel=2,
        )
    for item in clear[:limit]:
        # an API gives absolute ones, and items without an address
        if item.get_self_href():
            item.make_asset_hrefs_absolute()
    return clear[:limit]


def _interval(date: str) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a date or of two.

    Raises:
        SettingError: If it is not a date.
    """
    from pystac_client import ItemSearch

    wrong = f'Invalid date {date!r}, expected YYYY-MM-DD, YYYY-MM or YYYY, or two as'
    try:
        # completes months and years as in a request
        text = str(ItemSearch('', datetime=date).get_parameters()['datetime'])
        first, _, last = text.partition('/')
        ends = [
            limit if end in ('', '..') else _moment(end)
            for end, limit in (
                (first, datetime.min.replace(tzinfo=UTC)),
                (last or first, datetime.max.replace(tzinfo=UTC)),
            )
        ]
    # pystac-client raises Exception itself
    except Exception as error:
        raise SettingError(f'{wrong} 2026-06/2026-07.') from error
    if ends[0] > ends[1]:
        raise SettingError(f'{wrong} EARLIER/LATER.')
    return ends[0], ends[1]


def _moment(text: str) -> datetime:
    """Return a time with its zone, UTC without one."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _open(catalog: str) -> Any:
    """Open an API or a static catalog; failed requests are repeated."""
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # POST too, which a search is
    retry = Retry(
        RETRIES,
        connect=2,
        backoff_factor=0.5,
        status_forcelist=BUSY,
        allowed_methods=None,
    )
    if Path(catalog).is_dir():
        catalog = str(Path(catalog) / 'catalog.json')
    with warnings.catch_warnings():
        # says that a static catalog is no API
        warnings.filterwarnings('ignore', module='pystac_client')
        # open() replaces the timeout of its reader
        reader = StacApiIO(max_retries=retry, timeout=WAIT)
        return Client.open(catalog, stac_io=reader, timeout=WAIT)


def _items(
    client: Any,
    box: tuple[float, float, float, float],
    date: str,
    times: tuple[datetime, datetime],
    collection: str | None,
) -> 'Iterator[pystac.Item]':
    """Yield the items of a place and a time, by a request or by reading all of them."""
    if client.conforms_to('ITEM_SEARCH'):
        only = None if collection is None else [collection]
        yield from client.search(bbox=box, datetime=date, collections=only).items()
        return
    import shapely

    west, south, east, north = box
    east += 360 * (east <= west)
    # footprints beyond the date line are given on either side of it
    sides = [shapely.box(west + d, south, east + d, north) for d in (-360, 0, 360)]
    place = shapely.union_all(sides)
    for item in _walk(client, place, collection):
        start, end = _times(item)
        inside = start <= times[1] and end >= times[0]
        if inside and place.intersects(shapely.geometry.shape(item.geometry)):
            yield item


def _walk(node: Any, place: Any, collection: str | None) -> 'Iterator[pystac.Item]':
    """Yield the items of a static catalog, without collections that lie elsewhere."""
    import pystac
    import shapely

    if isinstance(node, pystac.Collection):
        boxes = [_flat(box) for box in node.extent.spatial.bboxes if box]
        if boxes and not any(place.intersects(shapely.box(*box)) for box in boxes):
            return
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', module='pystac_client')
        items, children = node.get_items(recursive=False), list(node.get_children())
        yield from (i for i in items if collection in (None, i.collection_id))
        for child in children:
            yield from _walk(child, place, collection)


def _flat(box: Sequence[float]) -> Sequence[float]:
    """Return west, south, east, north of a box with or without heights."""
    return box if len(box) == 4 else (*box[:2], *box[3:5])


def _times(item: 'pystac.Item') -> tuple[datetime, datetime]:
    """Return when a scene begins and ends."""
    found = item.properties
    start = found.get('start_datetime') or found.get('datetime')
    end = found.get('end_datetime') or found.get('datetime') or start
    return _moment(str(start)), _moment(str(end))


def _cloud(item: 'pystac.Item') -> float | None:
    """Return the cloud cover of a scene in percent, None if unknown."""
    cloud = item.properties.get('eo:cloud_cover')
    return None if cloud is None else float(cloud)


def _tile(item: 'pystac.Item') -> str:
    """Return the tile of a scene, '-' if unknown."""
    found = [item.properties.get(key) for key in TILES]
    return str(next((tile for tile in found if tile), '-')).removeprefix('MGRS-')


def _nothing(
    client: Any,
    catalog: str,
    collection: str | None,
    found: 'Sequence[pystac.Item]',
    max_cloud: float,
) -> str:
    """Return why nothing was found, and what would find something."""
    if found:
        least = min(_cloud(item) or 0 for item in found)
        return (
            f'{len(found)} scenes match, but all have more than {max_cloud:g} % clouds. '
            f'Did you mean max_cloud={np.ceil(least):g}?'
        )
    known = [str(each.id) for each in islice(client.get_collections(), 100)]
    if collection is not None and not known:
        return (
            f'No scene of {catalog} matches, which has no collection {collection!r}: '
            "pass collection='' for items of any or none. Or widen the box or the date."
        )
    if collection is not None and collection not in known:
        hint = did_you_mean(collection, known)
        return (
            f'{catalog} has no collection {collection!r}, expected one of: '
            f'{", ".join(known[:10])}.{hint}'
        )
    return (
        f'No scene of {catalog} matches. Expected one that touches the box at this date. '
        'Widen the box or the date.'
    )


def lines(items: 'Sequence[pystac.Item]') -> list[str]:
    """Return a table of scenes: date, cloud cover, tile and id."""
    rows = [('date', 'cloud', 'tile', 'id')]
    for item in items:
        cloud = _cloud(item)
        share = '-' if cloud is None else f'{cloud:.0f} %'
        rows.append((_times(item)[0].strftime('%Y-%m-%d'), share, _tile(item), item.id))
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f'{a:<{wide[0]}}  {b:>{wide[1]}}  {c:<{wide[2]}}  {d}' for a, b, c, d in rows
    ]


def write_scenes(items: 'Sequence[pystac.Item]', path: Path) -> None:
    """Write scenes as a STAC ItemCollection or as GeoParquet."""
    features = []
    for item in items:
        feature = item.to_dict(include_self_link=False, transform_hrefs=False)
        own = item.get_self_href()
        # relative to a catalog that is elsewhere
        feature['links'] = [{'rel': 'self', 'href': own}] if own else []
        features.append(feature)
    content = {'type': 'FeatureCollection', 'features': features}
    if path.suffix.lower() == '.json':
        write_text(path, json.dumps(content, indent=2) + '\n')
        return
    import geopandas as gpd
    import pandas as pd

    frame = gpd.GeoDataFrame.from_features(content, crs='EPSG:4326')
    keys = ('id', 'collection', 'assets', 'links', 'stac_version', 'stac_extensions')
    for key in keys:
        frame[key] = [_without_empty(feature.get(key)) for feature in features]
    if 'datetime' in frame:
        frame['datetime'] = pd.to_datetime(frame['datetime'], utc=True)
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary)


def _without_empty(value: Any) -> Any:
    """Return nested values without empty objects, which Parquet cannot hold."""
    if isinstance(value, dict):
        kept = {k: _without_empty(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v is not None} or None
    if isinstance(value, list):
        return [v for v in map(_without_empty, value) if v is not None] or None
    return value


def footprints(
    items: 'Sequence[pystac.Item]',
) -> list[tuple[NDArray[np.float64], str, float | None]]:
    """Return corners (n, 2), tile and cloud cover of each scene."""
    import shapely

    found = []
    for item in items:
        shape = shapely.geometry.shape(item.geometry)
        # two parts, on both sides of the date line
        for part in getattr(shape, 'geoms', [shape]):
            corners = np.asarray(part.exterior.coords)[:, :2]
            found.append((corners, _tile(item), _cloud(item)))
    return found


def box_corners(bbox: Sequence[Any]) -> NDArray[np.float64]:
    """Return the corners (5, 2) of a box of longitude and latitude."""
    west, south, east, north = read_box(bbox)
    east += 360 * (east <= west)
    lons, lats = [west, east, east, west, west], [south, south, north, north, south]
    return np.array([lons, lats]).T
