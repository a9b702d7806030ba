"""Find the rasters of a scene: a file, a folder of bands, a product, a .zip."""

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from rasterio.enums import ColorInterp

from ..errors import NodataWarning, SceneError, closest, did_you_mean
from ..scaling import SENTINEL2_BANDS, Resample, band_key, check_resample, resolve_bands
from .eopf import METADATA, METADATA_3, read_product
from .items import Sign, gdal_name, is_classification, read_item, split_name
from .remote import failure, read_text
from .sentinel2 import (
    CLASSIFICATION,
    Facts,
    Folder,
    is_product_metadata,
    listing,
    merge_facts,
    product_facts,
    tag_facts,
)
from .stack import INTERPOLATED, Layer, open_dataset, read_layer, stack_layers

#: Suffixes of files that may hold a band.
RASTER_SUFFIXES = ('.tif', '.tiff', '.jp2', '.img', '.vrt')

#: As ``T32UPE_…_B02_10m.jp2``, or ``…_B02_(Raw).tiff`` of the Copernicus Browser.
_BAND_IMAGE = re.compile(
    r'(?:.*[_.\-\s])?(?!\d+m\.)([^_.\-\s()]+)(?:[_\-](\d+)m)?(?:[_\s]*\([^()]*\))?\.\w+'
)

T = TypeVar('T')


class SceneSource(NamedTuple):
    """Where the pixels of a scene are, and what its metadata say."""

    #: The argument of the user: its name in messages.
    name: str
    #: Argument for rasterio: a path, a /vsi path, a URL or the text of a VRT.
    dataset: str
    #: Names of the bands, if known from file names; None: as the raster says.
    bands: tuple[str | None, ...] | None
    #: Added to the stored values to get reflectance × 10,000; None: unknown.
    offset: float | None
    #: Time of acquisition, ISO 8601; None: unknown.
    acquired: str | None
    #: Argument for rasterio of the scene classification; None without one.
    classification: str | None = None
    #: Bands that are still to be stacked.
    layers: tuple[Layer, ...] = ()

    @property
    def resample(self) -> Resample:
        """How pixels of coarse bands come to the grid of the finest."""
        return 'bilinear' if INTERPOLATED in self.dataset else 'nearest'


def find_source(
    scene: str | Path,
    bands: Sequence[str] | None = None,
    sign: Sign | None = None,
    resample: Resample = 'nearest',
    nodata: float | None = None,
) -> SceneSource:
    """Return where the pixels of a scene are, and what its metadata say.

    A scene is one of

    - a raster that GDAL opens, by path, URL (``https://``, ``s3://``), ``/vsi`` path,
      VRT text or driver name (``SENTINEL2_L1C:…:10m:EPSG_32632``);
    - a folder with one raster per band, named after it: ``B02.jp2``, ``…_B02.tif``,
      ``…_B02_10m.jp2``;
    - a Sentinel-2 product, Level-1C or 2A: its ``.SAFE`` folder, or ``MTD_MSIL1C.xml``
      or ``MTD_MSIL2A.xml`` in it;
    - a ``.zip`` with one of these, by path or as ``zip://archive.zip!member``;
    - a Sentinel-2 product in EOPF Zarr, version 2: a ``.zarr`` folder or URL, or a
      ``.zip`` of one;
    - a STAC item, ``ITEM.json``, or one of several in an ItemCollection or in
      GeoParquet, ``ITEMS.json#ID``, by path or URL.

    Bands in separate files are stacked by a VRT, in product order, on the grid of the
    finest band. Coarser bands are placed by their own transform. By default their
    pixels are repeated (nearest neighbor): no value is changed or interpolated. Their
    origin may differ, but their pixels must be integer multiples of the finest and
    start at the corner of one. Where a band does not reach the edge of the scene, its
    last pixels are repeated if less than one of them is missing; beyond that, the
    scene is invalid. Bands whose grids do not overlap are an error. Where a band comes
    in several resolutions, as in Level-2A, the finest is used. Nodata and masks are
    kept; in Sentinel-2 products, 0 in every band means nodata.

    Args:
        scene: The scene, as the user names it.
        bands: Names of the bands to use. They tell which files are bands if these are
            not named ``B…``; if all are found, others are left out.
        sign: Changes the URL of each asset of an item, as to add a token.
        resample: How pixels of coarser bands come to the grid of the finest: 'nearest'
            or 'bilinear'. Bilinear interpolates between valid pixels, and the same
            pixels are valid. It changes no other band, nor a scene that is one raster.
        nodata: Value of invalid pixels in all bands; None: as the files say.

    Raises:
        SceneError: If the scene does not exist, or cannot be read as one raster.
        SettingError: If *resample* is unknown.
    """
    check_resample(resample)
    source = _found(str(scene), bands, sign)
    if not source.layers:
        return source
    dataset = stack_layers(source.name, source.layers, resample, nodata)
    return source._replace(dataset=dataset, layers=())


def _found(name: str, bands: Sequence[str] | None, sign: Sign | None) -> SceneSource:
    """Return :func:`find_source` of a scene, whose bands may still be separate."""
    if split_name(name):
        return _from_item(name, bands, sign)
    if '://' in name and name.rstrip('/').lower().endswith('.zarr'):
        return _from_zarr(name, name.rstrip('/'), None, bands)
    if name.startswith('zip://'):
        archive, _, member = name.removeprefix('zip://').partition('!')
        return _from_archive(name, Path(archive), member.strip('/'), bands)
    if _is_gdal_name(name):
        return _from_raster('VRT' if name.startswith('<') else name, name)
    path = Path(name)
    if not path.exists():
        raise _nothing(name, path)
    if path.is_dir():
        return _from_folder(name, path, bands)
    if is_product_metadata(path.name):
        return _from_folder(name, path.parent, bands)
    if path.suffix.lower() == '.zip':
        return _from_archive(name, path, '', bands)
    return _from_raster(name, name)


def tile_of(scene: str | Path) -> str:
    """Return the path by which a table knows a scene: that of its file or product.

    ``X.SAFE``, ``X.SAFE/``, ``X.SAFE/MTD_MSIL1C.xml``, ``X.SAFE.zip`` and
    ``zip://X.zip!X.SAFE`` are one product.
    """
    path = PurePosixPath(str(scene).replace('\\', '/').removeprefix('zip://'))
    parts = [part.partition('!')[0] for part in path.parts]
    products = [
        number
        for number, part in enumerate(parts)
        if '.safe' in part.lower() and not is_product_metadata(part)
    ]
    if products:
        parts = parts[: products[-1] + 1]
    elif is_product_metadata(path.name):
        parts = parts[:-1]
    return str(PurePosixPath(*parts)) if parts else str(scene)


def band_names(scene: str | Path) -> list[str]:
    """Return the names of a scene's bands in file order, without alpha and SCL.

    A scene without names has those of Sentinel-2 if it has 13 bands, else numbers.
    Unnamed bands among named ones are left out.

    Raises:
        SceneError: If the scene does not exist, or cannot be read.
    """
    source = find_source(scene)
    with open_dataset(source.name, source.dataset) as raster:
        kinds = raster.colorinterp
        names = source.bands or raster.descriptions
    kept = [n for n, k in zip(names, kinds, strict=True) if k != ColorInterp.alpha]
    if not any(kept):
        return [*resolve_bands(None, len(kept))]
    classes = band_key(CLASSIFICATION)
    return [n for n in kept if n and band_key(n) != classes]


def _nothing(name: str, path: Path) -> SceneError:
    """Return the error for a path that does not exist."""
    siblings = list(path.parent.iterdir()) if path.parent.is_dir() else []
    close = closest(path.name, [sibling.name for sibling in siblings])
    hint = f' Did you mean {str(path.with_name(close))!r}?' if close else ''
    return SceneError(
        f'{name} does not exist, expected a raster, a folder with one raster per band, '
        f'a Sentinel-2 product or a .zip of one.{hint}'
    )


def _is_gdal_name(name: str) -> bool:
    """Return whether GDAL alone knows a name; ``C:`` is a drive, not a driver."""
    if name.startswith(('/vsi', '<')) or '://' in name:
        return True
    return re.match(r'[A-Za-z]\w+:', name) is not None and not Path(name).exists()


def _from_raster(name: str, dataset: str) -> SceneSource:
    """Return the source of a single raster."""
    with open_dataset(name, dataset) as raster:
        if not raster.count:
            names = raster.subdatasets
            hint = f' Did you mean {names[0]!r}?' if names else ''
            raise SceneError(f'{name} has no bands itself, expected a raster.{hint}')
        facts = tag_facts(raster, name)
    return SceneSource(name, dataset, None, facts.offset, facts.acquired)


def _from_archive(
    name: str, path: Path, member: str, bands: Sequence[str] | None
) -> SceneSource:
    """Return the source of a .zip, or of a raster or folder in it."""
    if not path.is_file():
        raise SceneError(f'{path} does not exist, expected a .zip.')
    try:
        with zipfile.ZipFile(path) as archive:
            item = zipfile.Path(archive).joinpath(member)
            if member and not item.exists():
                hint = did_you_mean(member, archive.namelist())
                raise SceneError(f'{path} has no member {member}.{hint}')
            if is_product_metadata(item.name):
                folder = member.rpartition('/')[0]
                inside = zipfile.Path(archive, f'{folder}/' if folder else '')
                return _from_folder(name, inside, bands)
            if item.is_file():
                return _from_raster(name, _dataset(item))
            return _from_folder(name, item, bands)
    # RuntimeError: encrypted; NotImplementedError: an unknown compression
    except (
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OSError,
    ) as error:
        reason = ' '.join(str(error).split())
        raise SceneError(
            f'{path} is not a .zip, or cannot be unpacked: {reason}.'
        ) from error


def _from_folder(name: str, folder: Folder, bands: Sequence[str] | None) -> SceneSource:
    """Return the source of a folder: a product, or one raster per band."""
    folder = _innermost(folder)
    if _is_zarr(folder):
        return _from_zarr(name, _dataset(folder).rstrip('/'), folder, bands)
    if isinstance(folder, zipfile.Path):
        everything = list(_rasters(folder, deep=True))
        if len(everything) == 1:
            return _from_raster(name, _dataset(everything[0]))
    images = list(_images(name, folder))
    found = _choose(name, _named(images), bands)
    if not found:
        raise _no_bands(name, folder, images)
    product = product_facts(name, folder)
    layers = [read_layer(name, band, _dataset(item), product) for band, item in found]
    facts = merge_facts(name, product, [layer.facts for layer in layers])
    names = tuple(layer.band for layer in layers)
    scl = [image for image in _named(images) if image[0] == CLASSIFICATION]
    classes = _choose(name, scl, [CLASSIFICATION])
    return SceneSource(
        name,
        '',
        names,
        facts.offset,
        facts.acquired,
        _dataset(classes[0][1]) if classes else None,
        tuple(layers),
    )


def _from_item(
    name: str, bands: Sequence[str] | None, sign: Sign | None
) -> SceneSource:
    """Return the source of a STAC item, whose assets are its bands."""
    item = read_item(name, bands, sign)
    if item.product is not None:
        return _from_zarr(name, item.product, None, bands)
    classes = next((a.dataset for a in item.assets if is_classification(a)), None)
    wanted = {*map(band_key, bands or ())}
    whole = [a for a in item.assets if len(a.bands) > 1]
    for asset in whole:
        if wanted <= {*map(band_key, asset.bands)}:
            offset, acquired, _ = item.facts
            return SceneSource(
                name, asset.dataset, asset.bands, offset, acquired, classes
            )
    # of several formats, that with tiles
    single = sorted(
        (a for a in item.assets if len(a.bands) == 1),
        key=lambda a: a.file.lower().endswith('.jp2'),
    )
    formats = {(band_key(a.bands[0]), a.resolution): a for a in reversed(single)}
    found = _choose(
        name, [(a.bands[0], a.resolution, a) for a in formats.values()], bands
    )
    _check_found(name, 'asset', bands, [a.bands[0] for a in single])
    if not found:
        raise SceneError(f'{name} has no asset that is a band, expected one per band.')
    layers = []
    for band, asset in found:
        facts = Facts(nodata=asset.nodata)
        layer = read_layer(name, band, asset.dataset, facts, asset.file)
        layers.append(
            layer._replace(
                scale=layer.scale if asset.scale is None else asset.scale,
                offset=layer.offset if asset.offset is None else asset.offset,
            )
        )
    facts = merge_facts(name, item.facts, [layer.facts for layer in layers])
    names = tuple(layer.band for layer in layers)
    offset, acquired, _ = facts
    return SceneSource(name, '', names, offset, acquired, classes, tuple(layers))


def _check_found(
    name: str, kind: str, bands: Sequence[str] | None, known: Sequence[str]
) -> None:
    """Check that Sentinel-2 bands are there, before any is opened."""
    have = {*map(band_key, known)}
    missing = [band for band in bands or () if band_key(band) not in have]
    if missing and all(re.fullmatch(r'b\d{1,2}a?', band_key(b)) for b in missing):
        raise SceneError(
            f'{name} has no {kind} for {", ".join(missing)}, expected one per band. Its '
            f'bands are: {", ".join(sorted({*known})) or "none"}.'
        )


def _is_zarr(folder: Folder) -> bool:
    """Return whether a folder is the root of a Zarr product."""
    return any((folder / file).is_file() for file in (METADATA, METADATA_3))


def _from_zarr(
    name: str, root: str, folder: Folder | None, bands: Sequence[str] | None
) -> SceneSource:
    """Return the source of a product in EOPF Zarr.

    Args:
        name: Name of the scene.
        root: URL of the product, or GDAL's name of its folder.
        folder: Its folder; None: it is remote.
        bands: Names of the bands to use.
    """
    if folder is None:
        try:
            text = read_text(f'{root}/{METADATA}')
        except OSError as error:
            reason = failure(error, root)
            raise SceneError(f'Cannot open {name} as EOPF Zarr: {reason}') from error
    else:
        if not (folder / METADATA).is_file():
            raise SceneError(f'{name} is Zarr version 3, expected version 2.')
        text = (folder / METADATA).read_bytes()
    product = read_product(name, text, lambda path: f'ZARR:"{gdal_name(root)}/{path}"')
    _check_found(name, 'array', bands, [band for band, *_ in product.bands])
    layers = [layer for _, layer in _choose(name, product.bands, bands)]
    classes = _choose(name, product.classification, [CLASSIFICATION])
    if folder is not None:
        _warn_of_chunks(name, folder, [layer.file for layer in layers])
    return SceneSource(
        name,
        '',
        tuple(layer.band for layer in layers),
        product.facts.offset,
        product.facts.acquired,
        # with the CRS, which GDAL may not see
        stack_layers(name, [classes[0][1]]) if classes else None,
        tuple(layers),
    )


def _warn_of_chunks(name: str, folder: Folder, paths: Sequence[str]) -> None:
    """Warn about chunks that a band lacks and another of its resolution has.

    Zarr writes no chunk of nodata alone. So a chunk that was not copied reads as 0.
    """
    chunks = {
        path: {
            item.name for item in (folder / path).iterdir() if item.name[0].isdigit()
        }
        for path in paths
        if (folder / path).is_dir()
    }
    for path, own in chunks.items():
        group = path.rpartition('/')[0]
        peers = [other for other in chunks if other.rpartition('/')[0] == group]
        lacking = sorted(set().union(*(chunks[peer] for peer in peers)) - own)
        if lacking:
            warnings.warn(
                f'{name}: {path} lacks chunk {lacking[0]} (of {len(lacking)}), which '
                'other bands have: its pixels are 0. Copy the product again if it is '
                'incomplete.',
                NodataWarning,
                stacklevel=2,
            )
            return


def _no_bands(name: str, folder: Folder, images: Sequence[Folder]) -> SceneError:
    """Return the error for a folder without bands."""
    if isinstance(folder, zipfile.Path):
        images = list(_rasters(folder, deep=True))
    if not images:
        given, hint = 'without a raster', ''
    elif isinstance(folder, zipfile.Path):
        given = f'with {len(images)} rasters ({_some(images)})'
        member = f'zip://{folder.root.filename}!{_inside(images[0])}'
        hint = f' Did you mean {member!r}?'
    else:
        given = 'with rasters, but no bands'
        hint = f' Did you mean {str(images[0])!r}?'
        if len(images) > 1:
            files = str(Path(name) / f'*{Path(images[0].name).suffix}')
            hint += f' If each is a scene, pass them as {files}.'
    kind = 'an archive' if isinstance(folder, zipfile.Path) else 'a folder'
    return SceneError(
        f'{name} is {kind} {given}, expected one raster, or one per band named like '
        f'…_B02.tif.{hint}'
    )


def _dataset(item: Folder) -> str:
    """Return the name of a file for GDAL."""
    if isinstance(item, zipfile.Path):
        archive = Path(str(item.root.filename)).absolute().as_posix()
        # braces: folders on the way may be called .zip too
        return f'/vsizip/{{{archive}}}/{_inside(item)}'
    return item.absolute().as_posix()


def _inside(item: Folder) -> str:
    """Return the path of a member in its archive."""
    return str(getattr(item, 'at', item))


def _some(items: Sequence[Any]) -> str:
    """List the names of up to three files."""
    names = ', '.join(getattr(item, 'file', None) or item.name for item in items[:3])
    return names + (', …' if len(items) > 3 else '')


def _rasters(folder: Folder, deep: bool = False) -> Iterator[Folder]:
    """Yield the rasters in a folder, and below it if *deep*."""
    for item in listing(folder):
        if item.is_dir():
            if deep:
                yield from _rasters(item, deep)
        elif PurePosixPath(item.name.lower()).suffix in RASTER_SUFFIXES:
            yield item


def _innermost(folder: Folder) -> Folder:
    """Return the folder that holds rasters or the product, if there is only one."""
    while not (
        _is_zarr(folder) or (folder / 'GRANULE').is_dir() or any(_rasters(folder))
    ):
        folders = [item for item in listing(folder) if item.is_dir()]
        products = [item for item in folders if item.name.upper().endswith('.SAFE')]
        inner = products or folders
        if len(inner) != 1 or inner[0].name in ('IMG_DATA', 'R10m', 'R20m', 'R60m'):
            break
        folder = inner[0]
    return folder


def _images(name: str, folder: Folder) -> Iterator[Folder]:
    """Yield the rasters that may be bands: the image data of a product, or all."""
    if (folder / 'GRANULE').is_dir():
        tiles = [item for item in listing(folder / 'GRANULE') if item.is_dir()]
        if len(tiles) != 1:
            hint = f' Did you mean {str(tiles[0])!r}?' if tiles else ''
            raise SceneError(f'{name} has {len(tiles)} tiles, expected one.{hint}')
        folder = tiles[0]
    if (folder / 'IMG_DATA').is_dir():
        folder = folder / 'IMG_DATA'
    for inner in (folder, folder / 'R10m', folder / 'R20m', folder / 'R60m'):
        if inner.is_dir():
            # quality masks of Sentinel-2 are named after bands too
            yield from (i for i in _rasters(inner) if not i.name.startswith('MSK_'))


def _named(images: Iterable[Folder]) -> list[tuple[str, float | None, Folder]]:
    """Return band, resolution and file of the rasters whose names tell a band."""
    matches = ((_BAND_IMAGE.fullmatch(item.name), item) for item in images)
    return [
        (match[1], float(match[2]) if match[2] else None, item)
        for match, item in matches
        if match
    ]


def _choose(
    name: str,
    images: Iterable[tuple[str, float | None, T]],
    bands: Sequence[str] | None,
) -> list[tuple[str, T]]:
    """Return bands with their files, in product order, of several the finest."""
    wanted = {band_key(band) for band in bands or ()}
    groups: dict[str, list[tuple[str, float | None, T]]] = {}
    for image in images:
        key = band_key(image[0])
        if re.fullmatch(r'b\d{1,2}a?', key) or key in wanted:
            groups.setdefault(key, []).append(image)
    if wanted and wanted <= groups.keys():
        groups = {key: groups[key] for key in groups if key in wanted}
    order = [band_key(band) for band in SENTINEL2_BANDS]
    known = [key for key in order if key in groups]
    keys = known + sorted(groups.keys() - set(order))
    return [_finest(name, groups[key]) for key in keys]


def _finest(name: str, group: Sequence[tuple[str, float | None, T]]) -> tuple[str, T]:
    """Return band and file of the finest of several resolutions."""
    resolutions = [resolution for _, resolution, _ in group]
    if len(group) > 1 and (None in resolutions or len({*resolutions}) < len(group)):
        files = _some([item for *_, item in group])
        raise SceneError(
            f'{name} has {len(group)} files for band {group[0][0]} ({files}), expected '
            'one. Remove the others.'
        )
    band, _, item = min(group, key=lambda entry: entry[1] or 0)
    return band, item
