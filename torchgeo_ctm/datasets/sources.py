"""What a scene may be: a raster, a folder of bands, a Sentinel-2 product, a .zip."""

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio import open as open_raster
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader
from torchgeo.datasets import Sentinel2

from ..errors import SceneError, nearest
from ..scaling import SENTINEL2_BANDS, band_key

#: A folder, or what stands for one inside an archive.
Place = Path | zipfile.Path

#: Names of files that may hold a band.
RASTER_SUFFIXES = ('.tif', '.tiff', '.jp2', '.img', '.vrt')
#: Radiometric offset of Sentinel-2 products from this processing baseline on.
OFFSET, OFFSET_BASELINE = -1000.0, 4.0

_PRODUCT_IMAGE = re.compile(Sentinel2.filename_regex.format(r'\d+m'), re.VERBOSE)
_BAND_IMAGE = re.compile(r'(?:.*[_.\-\s])?(?!\d+m\.)([^_.\-\s]+)(?:[_\-](\d+)m)?\.\w+')
_METADATA = re.compile(
    r'(MTD_MSIL(1C|2A)|S2\w_(OPER|USER)_MTD_SAFL(1C|2A)_.*)\.xml', re.IGNORECASE
)
_PRODUCT = re.compile(r'S2\w_MSIL(?:1C|2A)_(\d{8}T\d{6})_N(\d{4})_.*\.SAFE')
_OFFSET_TAGS = ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET')
_TIME_TAGS = (
    'PRODUCT_START_TIME',
    'DATATAKE_SENSING_START',
    'DATATAKE_1_DATATAKE_SENSING_START',
    'SENSING_TIME',
)


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


class _Facts(NamedTuple):
    """What metadata say about a scene; None where they say nothing."""

    offset: float | None = None
    acquired: str | None = None
    nodata: float | None = None


class _Layer(NamedTuple):
    """One raster of one band, as a VRT needs to know it."""

    band: str
    file: str
    dataset: str
    size: tuple[int, int]  # height, width
    crs: Any
    transform: Any
    dtype: str
    nodata: float | None
    masked: bool
    block: tuple[int, int]
    facts: _Facts


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

    Bands in files of their own are stacked by a VRT, in product order. Coarser ones
    are brought to the grid of the finest by repeating pixels (nearest neighbour): no
    value is changed, none is interpolated. All must share CRS and upper left corner,
    pixels must be whole multiples of the finest; where one ends less than a pixel of
    its own before the others, the scene ends there. Where a band comes in several
    resolutions, as in Level-2A, the finest is taken. Nodata and masks are kept; in
    Sentinel-2 products, 0 in every band means no data.

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
        siblings = (
            [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        )
        raise SceneError(
            f'{name} does not exist; needed: a raster, a folder with one raster a '
            f'band, a Sentinel-2 product or a .zip of one{nearest(path.name, siblings)}'
        )
    if path.is_dir():
        return _from_place(name, path, bands)
    if _METADATA.fullmatch(path.name):
        return _from_place(name, path.parent, bands)
    if path.suffix.lower() == '.zip':
        return _from_archive(name, path, '', bands)
    return _from_raster(name, name)


def _open(name: str, dataset: str) -> DatasetReader:
    """Open a raster; *name* is what an error calls it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            return open_raster(dataset)
    except RasterioIOError as error:
        reason = str(error).splitlines()[0]
        raise SceneError(f'{name} is not a raster that GDAL opens: {reason}') from error


def _is_gdal_name(name: str) -> bool:
    """Tell names for GDAL from local paths; ``C:`` is a drive, not a driver."""
    if name.startswith(('/vsi', '<')) or '://' in name:
        return True
    return re.match(r'[A-Za-z]\w+:', name) is not None and not Path(name).exists()


def _from_raster(name: str, dataset: str) -> SceneSource:
    """Return the source of a single raster."""
    with _open(name, dataset) as raster:
        if not raster.count:
            inner = f'; nearest: {raster.subdatasets[0]}' if raster.subdatasets else ''
            raise SceneError(f'{name} holds no bands itself; needed: one raster{inner}')
        facts = _tag_facts(raster, name)
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
            if _METADATA.fullmatch(place.name):
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
    product = _product_facts(name, place)
    layers = [_layer(name, band, item, product) for band, item in found]
    facts = _merge(name, product, layers)
    names = tuple(layer.band for layer in layers)
    return SceneSource(name, _stack(name, layers), names, facts.offset, facts.acquired)


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


def _listing(place: Place) -> list[Place]:
    """Return what lies in a folder by name, without what systems hide there."""
    items: Iterable[Place] = place.iterdir()
    seen = [item for item in items if not item.name.startswith(('.', '__MACOSX'))]
    return sorted(seen, key=lambda item: item.name)


def _rasters(place: Place, deep: bool = False) -> Iterator[Place]:
    """Yield the rasters in a folder, and below it if *deep*."""
    for item in _listing(place):
        if item.is_dir():
            if deep:
                yield from _rasters(item, deep)
        elif PurePosixPath(item.name.lower()).suffix in RASTER_SUFFIXES:
            yield item


def _innermost(place: Place) -> Place:
    """Step into a folder that is all there is, or the only product."""
    while not (place / 'GRANULE').is_dir() and not any(_rasters(place)):
        folders = [item for item in _listing(place) if item.is_dir()]
        products = [item for item in folders if item.name.upper().endswith('.SAFE')]
        inner = products or folders
        if len(inner) != 1 or inner[0].name in ('IMG_DATA', 'R10m', 'R20m', 'R60m'):
            break
        place = inner[0]
    return place


def _images(name: str, place: Place) -> Iterator[Place]:
    """Yield the rasters that may be bands: a product's image data, or all."""
    if (place / 'GRANULE').is_dir():
        tiles = [item for item in _listing(place / 'GRANULE') if item.is_dir()]
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


def _layer(name: str, band: str, item: Place, product: _Facts | None) -> _Layer:
    """Read what a VRT needs to know about the file of a band."""
    dataset = _dataset(item)
    label = item.name
    taken = _PRODUCT_IMAGE.match(label)
    with _open(f'{name}: {label}', dataset) as raster:
        colors = [c for c in raster.colorinterp if c is not ColorInterp.alpha]
        if len(colors) != 1:
            raise SceneError(
                f'{name}: {label} has {len(colors)} bands; needed: one raster a band'
            )
        flags = raster.mask_flag_enums[0]
        nodata = raster.nodatavals[0]
        if nodata is None and product is not None:
            nodata = product.nodata
        elif nodata is None and taken and label.lower().endswith('.jp2'):
            nodata = 0.0
        facts = _tag_facts(raster, f'{name}: {label}')
        if facts.acquired is None and taken:
            facts = facts._replace(acquired=_time(taken['date']))
        return _Layer(
            band=band,
            file=label,
            dataset=dataset,
            size=(raster.height, raster.width),
            crs=raster.crs,
            transform=raster.transform,
            dtype=raster.dtypes[0],
            nodata=nodata,
            masked=MaskFlags.per_dataset in flags or MaskFlags.alpha in flags,
            block=raster.block_shapes[0],
            facts=facts,
        )


def _merge(name: str, product: _Facts | None, layers: Sequence[_Layer]) -> _Facts:
    """Return what the product says; where it is silent, what the files say."""
    product = product or _Facts()
    offset, acquired = product.offset, product.acquired
    if offset is None:
        given = [layer.facts.offset for layer in layers]
        offset = _one_offset(name, [value for value in given if value is not None])
    if acquired is None:
        times = [layer.facts.acquired for layer in layers]
        acquired = next((time for time in times if time), None)
    return _Facts(offset, acquired)


def _one_offset(name: str, values: Sequence[float]) -> float | None:
    """Return the offset that all bands share."""
    if len({*values}) > 1:
        raise SceneError(
            f'{name} has bands of different radiometric offsets '
            f'({", ".join(f"{value:g}" for value in sorted({*values}))}); needed: one '
            'for all'
        )
    return values[0] if values else None


def _baseline_offset(baseline: str) -> float | None:
    """Return the offset of a processing baseline: ``04.00``, ``N0400``."""
    match = re.fullmatch(r'N?(\d\d)\.?(\d\d)', baseline.strip())
    # 99.99 marks products made at home, by any version
    if not match or match[1] == '99':
        return None
    return OFFSET if float(f'{match[1]}.{match[2]}') >= OFFSET_BASELINE else 0.0


def _time(text: str) -> str | None:
    """Return an acquisition time, or None where it is none."""
    if re.fullmatch(r'\d{8}T\d{6}', text):
        text = datetime.strptime(text, '%Y%m%dT%H%M%S').isoformat() + 'Z'
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text


def _numbers(texts: Iterable[str]) -> list[float]:
    """Return the texts that are numbers."""
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except ValueError:
            continue
    return numbers


def _tag_facts(raster: DatasetReader, name: str) -> _Facts:
    """Read offset and time from a raster's tags, or GDAL's scale and offset."""
    tags = {key.upper(): value for key, value in raster.tags().items()}
    inner = [raster.tags(index) for index in raster.indexes]
    acquired = next((_time(tags[key]) for key in _TIME_TAGS if key in tags), None)
    for key in _OFFSET_TAGS:
        given = [tags.get(key, ''), *(band.get(key, '') for band in inner)]
        if numbers := _numbers(given):
            return _Facts(_one_offset(name, numbers), acquired)
    offset = _baseline_offset(tags.get('PROCESSING_BASELINE', ''))
    if offset is None:
        # only what can mean nothing else: reflectance = number / 10,000 − 0.1
        scaled = np.isclose(raster.scales, 1e-4) & np.isclose(raster.offsets, -0.1)
        offset = OFFSET if scaled.all() else None
    return _Facts(offset, acquired)


def _product_facts(name: str, place: Place) -> _Facts | None:
    """Read a Sentinel-2 product's metadata; None where there is no product."""
    folders = [place]
    if isinstance(place, Path) and 'GRANULE' in place.absolute().parts:
        parts = place.absolute().parts
        folders.append(Path(*parts[: parts.index('GRANULE')]))
    for folder in folders:
        for item in _listing(folder):
            if _METADATA.fullmatch(item.name):
                return _xml_facts(f'{name}: {item.name}', item.read_bytes())
        if match := _PRODUCT.fullmatch(folder.name):
            return _Facts(_baseline_offset(match[2]), _time(match[1]), 0.0)
    return None


def _xml_facts(name: str, text: bytes) -> _Facts:
    """Read offset, time and nodata from MTD_MSIL1C.xml or MTD_MSIL2A.xml.

    The list of offsets decides where there is one, else the processing baseline.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise SceneError(f'{name} is not readable XML: {error}') from error
    values: dict[str, list[str]] = {}
    for element in root.iter():
        tag = element.tag.rpartition('}')[2]
        values.setdefault(tag, []).append((element.text or '').strip())
    offsets = next((_numbers(values[key]) for key in _OFFSET_TAGS if key in values), [])
    offset = _one_offset(name, offsets)
    if offset is None:
        offset = _baseline_offset(next(iter(values.get('PROCESSING_BASELINE', ())), ''))
    times = [_time(values[key][0]) for key in _TIME_TAGS if key in values]
    special = dict(
        zip(
            values.get('SPECIAL_VALUE_TEXT', ()),
            _numbers(values.get('SPECIAL_VALUE_INDEX', ())),
            strict=False,
        )
    )
    return _Facts(offset, next(iter(times), None), special.get('NODATA', 0.0))


def _grid(name: str, layers: Sequence[_Layer]) -> tuple[_Layer, tuple[int, int]]:
    """Return the finest layer, and the height and width that all layers cover.

    Raises:
        SceneError: If the layers' grids do not nest.
    """
    finest = min(layers, key=lambda layer: abs(layer.transform.determinant))
    height, width = finest.size
    for layer in layers:
        pair = f'{name}: {layer.file} and {finest.file}'
        if layer.crs != finest.crs:
            raise SceneError(
                f'{pair} have different CRS ({layer.crs} and {finest.crs}); needed: one'
            )
        down, across = _steps(layer, finest, pair)
        rows, columns = layer.size[0] * down, layer.size[1] * across
        if rows <= finest.size[0] - down or columns <= finest.size[1] - across:
            raise SceneError(
                f'{pair} cover different areas ({rows} × {columns} and '
                f'{finest.size[0]} × {finest.size[1]} px of the finer); needed: one'
            )
        height, width = min(height, rows), min(width, columns)
    return finest, (height, width)


def _steps(layer: _Layer, finest: _Layer, pair: str = '') -> tuple[int, int]:
    """Return how many rows and columns of the finest a pixel of *layer* takes."""
    across, skew, left, tilt, down, top = tuple(~finest.transform @ layer.transform)[:6]
    steps = max(1, round(down)), max(1, round(across))
    # in pixels of the finest: at the origin, and what adds up to the far corner
    start = max(abs(left), abs(top))
    drift = max(
        layer.size[0] * max(abs(down - steps[0]), abs(skew)),
        layer.size[1] * max(abs(across - steps[1]), abs(tilt)),
    )
    if start > 0.01 or drift > 0.1:
        raise SceneError(
            f'{pair} lie on grids that do not nest; needed: the same upper left '
            'corner, and pixels that are whole multiples of the finest'
        )
    return steps


def _stack(name: str, layers: Sequence[_Layer]) -> str:
    """Return the text of a VRT that stacks the layers on the finest one's grid."""
    finest, (height, width) = _grid(name, layers)
    root = ElementTree.Element(
        'VRTDataset', rasterXSize=str(width), rasterYSize=str(height)
    )
    if finest.crs is not None:
        ElementTree.SubElement(root, 'SRS').text = finest.crs.to_wkt()
    if not finest.transform.is_identity:
        numbers = ', '.join(map(repr, map(float, finest.transform.to_gdal())))
        ElementTree.SubElement(root, 'GeoTransform').text = numbers
    # one type for all, which holds the numbers of each: rasterio reads no mixture
    dtype = np.result_type(*(layer.dtype for layer in layers)).name
    for index, layer in enumerate(layers, 1):
        band = _band(root, typename_fwd[dtype_rev[dtype]], band=str(index))
        ElementTree.SubElement(band, 'Description').text = layer.band
        if layer.nodata is not None:
            ElementTree.SubElement(band, 'NoDataValue').text = repr(layer.nodata)
        _add_pixels(band, layer, finest)
    if any(layer.masked for layer in layers):
        mask = _band(ElementTree.SubElement(root, 'MaskBand'), 'Byte')
        for layer in layers:
            if layer.masked or layer.nodata is not None:
                _add_pixels(mask, layer, finest, mask=True)
    return ElementTree.tostring(root, encoding='unicode')


def _band(
    parent: ElementTree.Element, dtype: str, **attributes: str
) -> ElementTree.Element:
    """Add a band to a VRT, or to its mask."""
    return ElementTree.SubElement(
        parent, 'VRTRasterBand', {'dataType': dtype, **attributes}
    )


def _add_pixels(
    band: ElementTree.Element, layer: _Layer, finest: _Layer, mask: bool = False
) -> None:
    """Let a VRT's band take a layer's pixels, or its mask.

    Masks lie upon each other: all but the first leave pixels as they are where they
    are valid themselves (255), so that a pixel is valid where all say so.
    """
    upon = mask and len(band) > 0
    source = ElementTree.SubElement(band, 'ComplexSource' if upon else 'SimpleSource')
    source.set('resampling', 'nearest')
    file = ElementTree.SubElement(source, 'SourceFilename', relativeToVRT='0')
    file.text = layer.dataset
    ElementTree.SubElement(source, 'SourceBand').text = 'mask,1' if mask else '1'
    height, width = layer.size
    if not mask:
        # with these GDAL opens a file when it is read, not before
        ElementTree.SubElement(
            source,
            'SourceProperties',
            RasterXSize=str(width),
            RasterYSize=str(height),
            DataType=typename_fwd[dtype_rev[layer.dtype]],
            BlockXSize=str(layer.block[1]),
            BlockYSize=str(layer.block[0]),
        )
    down, across = _steps(layer, finest)
    for tag, rows, columns in (
        ('SrcRect', height, width),
        ('DstRect', height * down, width * across),
    ):
        ElementTree.SubElement(
            source, tag, xOff='0', yOff='0', xSize=str(columns), ySize=str(rows)
        )
    if upon:
        ElementTree.SubElement(source, 'NODATA').text = '255'
