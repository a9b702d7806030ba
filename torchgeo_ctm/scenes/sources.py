"""What a scene may be: a raster, a folder of bands, a Sentinel-2 product, a .zip."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import SceneError, nearest
from ..scaling import SENTINEL2_BANDS, band_key
from .sentinel2 import (
    Place,
    is_product_metadata,
    listing,
    merge_facts,
    product_facts,
    tag_facts,
)
from .stack import open_dataset, read_layer, stack_layers

#: Names of files that may hold a band.
RASTER_SUFFIXES = ('.tif', '.tiff', '.jp2', '.img', '.vrt')

_BAND_IMAGE = re.compile(r'(?:.*[_.\-\s])?(?!\d+m\.)([^_.\-\s]+)(?:[_\-](\d+)m)?\.\w+')


class SceneSource(NamedTuple):
    """Where the pixels of a scene are, and what its metadata say about them."""

    #: What the user gave: its name in messages.
    name: str
    #: What rasterio opens: a path, a /vsi path, a URL or the text of a VRT.
    dataset: str
    #: Names of the bands, where they are known better than from the file itself.
    bands: tuple[str | None, ...] | None
    #: To add to the stored numbers for reflectance x 10,000; None: nothing is said.
    offset: float | None
    #: When it was taken, ISO 8601; None: nothing is said.
    acquired: str | None


def find_source(scene: str | Path, bands: Sequence[str] | None = None) -> SceneSource:
    """Find out what a scene is made of, and what its metadata say.

    A scene is one of

    - a raster that GDAL opens, by path, URL (``https://``, ``s3://``), ``/vsi`` path,
      VRT text or driver name (``SENTINEL2_L1C:…:10m:EPSG_32632``);
    - a folder with one raster a band, named after it: ``B02.jp2``, ``…_B02.tif``,
      ``…_B02_10m.jp2``;
    - a Sentinel-2 product, Level-1C or 2A: its ``.SAFE`` folder, or ``MTD_MSIL1C.xml``
      or ``MTD_MSIL2A.xml`` in it;
    - a ``.zip`` with one of these, by path or as ``zip://archive.zip!member``.

    Bands in separate files are stacked by a VRT, in product order, on the grid of the
    finest band. Coarser bands keep their place by their own transform, and their
    pixels are repeated (nearest neighbor): no value is changed or interpolated. Their
    origin may differ, but their pixels must be integer multiples of the finest and
    start at the corner of one. Where a band does not reach the edge of the scene, its
    last pixels are repeated if less than one of them is missing; beyond that, the
    scene is invalid. Bands whose grids do not overlap are an error. Where a band comes
    in several resolutions, as in Level-2A, the finest is used. Nodata and masks are
    kept; in Sentinel-2 products, 0 in every band means nodata.

    Args:
        scene: What the user gave.
        bands: Names of the bands that are needed. They say which files are bands
            where names are not ``B…``; if all are found, others are left out.

    Raises:
        SceneError: If nothing is there, or it cannot be read as one scene.
    """
    name = str(scene)
    if name.startswith('zip://'):
        archive, _, member = name.removeprefix('zip://').partition('!')
        return _from_archive(name, Path(archive), member.strip('/'), bands)
    if _is_gdal_name(name):
        return _from_raster('VRT' if name.startswith('<') else name, name)
    path = Path(scene)
    if not path.exists():
        raise _nothing(name, path)
    if path.is_dir():
        return _from_place(name, path, bands)
    if is_product_metadata(path.name):
        return _from_place(name, path.parent, bands)
    if path.suffix.lower() == '.zip':
        return _from_archive(name, path, '', bands)
    return _from_raster(name, name)


def _nothing(name: str, path: Path) -> SceneError:
    """Return the error that says that nothing is there, and what is nearest."""
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return SceneError(
        f'{name} does not exist; needed: a raster, a folder with one raster a band, a '
        f'Sentinel-2 product or a .zip of one{nearest(path.name, siblings)}'
    )


def _is_gdal_name(name: str) -> bool:
    """Tell names for GDAL from local paths; ``C:`` is a drive, not a driver."""
    if name.startswith(('/vsi', '<')) or '://' in name:
        return True
    return re.match(r'[A-Za-z]\w+:', name) is not None and not Path(name).exists()


def _from_raster(name: str, dataset: str) -> SceneSource:
    """Return the source of a single raster."""
    with open_dataset(name, dataset) as raster:
        if not raster.count:
            inner = f'; nearest: {raster.subdatasets[0]}' if raster.subdatasets else ''
            raise SceneError(f'{name} holds no bands itself; needed: one raster{inner}')
        facts = tag_facts(raster, name)
    return SceneSource(name, dataset, None, facts.offset, facts.acquired)


def _from_archive(
    name: str, path: Path, member: str, bands: Sequence[str] | None
) -> SceneSource:
    """Return the source of a .zip, or of a raster or folder in it."""
    if not path.is_file():
        raise SceneError(f'{path} does not exist; needed: a .zip')
    try:
        with zipfile.ZipFile(path) as archive:
            place = zipfile.Path(archive).joinpath(member)
            if member and not place.exists():
                close = nearest(member, archive.namelist())
                raise SceneError(f'{path} holds no {member}{close}')
            if is_product_metadata(place.name):
                folder = member.rpartition('/')[0]
                inside = zipfile.Path(archive, f'{folder}/' if folder else '')
                return _from_place(name, inside, bands)
            if place.is_file():
                return _from_raster(name, _dataset(place))
            return _from_place(name, place, bands)
    except zipfile.BadZipFile as error:
        raise SceneError(f'{path} is not a .zip, or is damaged: {error}') from error


def _from_place(name: str, place: Place, bands: Sequence[str] | None) -> SceneSource:
    """Return the source of a folder: a product, or one raster a band."""
    place = _innermost(place)
    if isinstance(place, zipfile.Path):
        everything = list(_rasters(place, deep=True))
        if len(everything) == 1:
            return _from_raster(name, _dataset(everything[0]))
    images = list(_images(name, place))
    found = _choose(name, images, bands)
    if not found:
        raise _no_bands(name, place, images)
    product = product_facts(name, place)
    layers = [read_layer(name, band, _dataset(item), product) for band, item in found]
    facts = merge_facts(name, product, [layer.facts for layer in layers])
    names = tuple(layer.band for layer in layers)
    stack = stack_layers(name, layers)
    return SceneSource(name, stack, names, facts.offset, facts.acquired)


def _no_bands(name: str, place: Place, images: Sequence[Place]) -> SceneError:
    """Return the error that says what a folder holds instead of bands."""
    if isinstance(place, zipfile.Path):
        images = list(_rasters(place, deep=True))
    if not images:
        given, close = 'no raster', ''
    elif isinstance(place, zipfile.Path):
        given = f'{len(images)} rasters ({_some(images)})'
        close = f'; nearest: zip://{place.root.filename}!{_inside(images[0])}'
    else:
        given, close = 'rasters, but no bands', f'; nearest: {images[0]}'
    needed = 'one raster, or one a band named as …_B02.tif'
    kind = 'an archive' if isinstance(place, zipfile.Path) else 'a folder'
    return SceneError(f'{name} is {kind} with {given}; needed: {needed}{close}')


def _dataset(item: Place) -> str:
    """Return what GDAL calls a file."""
    if isinstance(item, zipfile.Path):
        archive = Path(str(item.root.filename)).absolute().as_posix()
        # braces: folders on the way may be called .zip too
        return f'/vsizip/{{{archive}}}/{_inside(item)}'
    return item.absolute().as_posix()


def _inside(item: Place) -> str:
    """Return the path of a member in its archive."""
    return str(getattr(item, 'at', item))


def _some(items: Sequence[Place]) -> str:
    """List the names of up to three files."""
    names = ', '.join(item.name for item in items[:3])
    return names + (', …' if len(items) > 3 else '')


def _rasters(place: Place, deep: bool = False) -> Iterator[Place]:
    """Yield the rasters in a folder, and below it if *deep*."""
    for item in listing(place):
        if item.is_dir():
            if deep:
                yield from _rasters(item, deep)
        elif PurePosixPath(item.name.lower()).suffix in RASTER_SUFFIXES:
            yield item


def _innermost(place: Place) -> Place:
    """Step into a folder that is all there is, or the only product."""
    while not (place / 'GRANULE').is_dir() and not any(_rasters(place)):
        folders = [item for item in listing(place) if item.is_dir()]
        products = [item for item in folders if item.name.upper().endswith('.SAFE')]
        inner = products or folders
        if len(inner) != 1 or inner[0].name in ('IMG_DATA', 'R10m', 'R20m', 'R60m'):
            break
        place = inner[0]
    return place


def _images(name: str, place: Place) -> Iterator[Place]:
    """Yield the rasters that may be bands: a product's image data, or all."""
    if (place / 'GRANULE').is_dir():
        tiles = [item for item in listing(place / 'GRANULE') if item.is_dir()]
        if len(tiles) != 1:
            nearby = f'; nearest: {tiles[0]}' if tiles else ''
            raise SceneError(f'{name} holds {len(tiles)} tiles; needed: one{nearby}')
        place = tiles[0]
    if (place / 'IMG_DATA').is_dir():
        place = place / 'IMG_DATA'
    for folder in (place, place / 'R10m', place / 'R20m', place / 'R60m'):
        if folder.is_dir():
            # quality masks of Sentinel-2 are named after bands too
            yield from (i for i in _rasters(folder) if not i.name.startswith('MSK_'))


def _choose(
    name: str, images: Iterable[Place], bands: Sequence[str] | None
) -> list[tuple[str, Place]]:
    """Pair bands with files, in product order; the finest where there are several."""
    wanted = {band_key(band) for band in bands or ()}
    groups: dict[str, list[tuple[str, int | None, Place]]] = {}
    for item in images:
        match = _BAND_IMAGE.fullmatch(item.name)
        key = band_key(match[1]) if match else ''
        if match and (re.fullmatch(r'b\d{1,2}a?', key) or key in wanted):
            resolution = int(match[2]) if match[2] else None
            groups.setdefault(key, []).append((match[1], resolution, item))
    if wanted and wanted <= groups.keys():
        groups = {key: groups[key] for key in groups if key in wanted}
    order = [band_key(band) for band in SENTINEL2_BANDS]
    known = [key for key in order if key in groups]
    keys = known + sorted(groups.keys() - set(order))
    return [_finest(name, groups[key]) for key in keys]


def _finest(
    name: str, group: Sequence[tuple[str, int | None, Place]]
) -> tuple[str, Place]:
    """Return band and file of the finest of several resolutions."""
    resolutions = [resolution for _, resolution, _ in group]
    if len(group) > 1 and (None in resolutions or len({*resolutions}) < len(group)):
        files = _some([item for *_, item in group])
        raise SceneError(
            f'{name} holds {len(group)} files for band {group[0][0]} ({files}); '
            'needed: one'
        )
    band, _, item = min(group, key=lambda entry: entry[1] or 0)
    return band, item
