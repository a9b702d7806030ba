"""Read radiometric offset, time and nodata from the metadata of a scene."""

import math
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio.io import DatasetReader

from ..errors import SceneError

#: A folder, also inside an archive.
Folder = Path | zipfile.Path

#: Name of the band with the scene classification of Level-2A.
CLASSIFICATION = 'SCL'

#: Radiometric offset of Sentinel-2 products from this processing baseline on.
OFFSET, OFFSET_BASELINE = -1000.0, 4.0

#: The pattern of TorchGeo's ``Sentinel2``, whose import takes seconds.
_PRODUCT_IMAGE = re.compile(
    r'T(?P<tile>\d{2}[A-Z]{3})_(?P<date>\d{8}T\d{6})_(?P<band>B[018][\dA])'
    r'(?:_(?P<resolution>\d+m))?\..*'
)
_METADATA = re.compile(
    r'(MTD_MSIL(1C|2A)|S2\w_(OPER|USER)_MTD_SAFL(1C|2A)_.*)\.xml', re.IGNORECASE
)
_PRODUCT = re.compile(r'S2\w_MSIL(?:1C|2A)_(\d{8}T\d{6})_N(\d{4})_.*\.SAFE')
_NOT_FINITE = re.compile(r'[+-]?(nan|inf|infinity)', re.IGNORECASE)
_OFFSET_TAGS = ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET')
_TIME_TAGS = (
    'PRODUCT_START_TIME',
    'DATATAKE_SENSING_START',
    'DATATAKE_1_DATATAKE_SENSING_START',
    'SENSING_TIME',
)


class Facts(NamedTuple):
    """Metadata of a scene; None if unknown."""

    #: Added to the stored values to get reflectance × 10,000.
    offset: float | None = None
    #: Time of acquisition, ISO 8601.
    acquired: str | None = None
    #: Stored value of invalid pixels.
    nodata: float | None = None


def listing(folder: Folder) -> list[Folder]:
    """Return the content of a folder, sorted by name, without hidden files."""
    items: Iterable[Folder] = folder.iterdir()
    seen = [item for item in items if not item.name.startswith(('.', '__MACOSX'))]
    return sorted(seen, key=lambda item: item.name)


def is_product_metadata(file: str) -> bool:
    """Return whether a file name is that of a Sentinel-2 product's metadata."""
    return _METADATA.fullmatch(file) is not None


def product_facts(name: str, folder: Folder) -> Facts | None:
    """Read a Sentinel-2 product's metadata.

    Args:
        name: Name of the scene in an error.
        folder: The product's folder, or on a disk any folder below its ``GRANULE``.

    Returns:
        The content of its main metadata file, else of its name; None without a
        product.

    Raises:
        SceneError: If the metadata cannot be read, or list different offsets.
    """
    folders = [folder]
    if isinstance(folder, Path) and 'GRANULE' in folder.absolute().parts:
        parts = folder.absolute().parts
        folders.append(Path(*parts[: parts.index('GRANULE')]))
    for candidate in folders:
        for item in listing(candidate):
            if is_product_metadata(item.name) and item.is_file():
                return xml_facts(f'{name}: {item.name}', item.read_bytes())
        if match := _PRODUCT.fullmatch(candidate.name):
            return Facts(baseline_offset(match[2]), _time(match[1]), 0.0)
    return None


def xml_facts(name: str, text: bytes) -> Facts:
    """Read offset, time and nodata from MTD_MSIL1C.xml or MTD_MSIL2A.xml.

    The offset comes from the list of offsets, else from the processing baseline.

    Args:
        name: Name of the file in an error.
        text: Content of the file.

    Raises:
        SceneError: If it is not XML, or lists different offsets.
    """
    values = _xml_values(name, text)
    offsets = next(
        (_offsets(name, values[key]) for key in _OFFSET_TAGS if key in values), []
    )
    offset = _one_offset(name, offsets)
    if offset is None:
        offset = baseline_offset(next(iter(values.get('PROCESSING_BASELINE', ())), ''))
    times = [_time(values[key][0]) for key in _TIME_TAGS if key in values]
    special = dict(
        zip(
            values.get('SPECIAL_VALUE_TEXT', ()),
            _numbers(values.get('SPECIAL_VALUE_INDEX', ())),
            strict=False,
        )
    )
    return Facts(offset, next(iter(times), None), special.get('NODATA', 0.0))


def tag_facts(raster: DatasetReader, name: str) -> Facts:
    """Read offset and time from the tags of a raster, or GDAL's scale and offset.

    Args:
        raster: The open raster.
        name: Name of the raster in an error.

    Raises:
        SceneError: If its bands have different offsets.
    """
    tags = {key.upper(): value for key, value in raster.tags().items()}
    inner = [raster.tags(index) for index in raster.indexes]
    acquired = next((_time(tags[key]) for key in _TIME_TAGS if key in tags), None)
    for key in _OFFSET_TAGS:
        given = [tags.get(key, ''), *(band.get(key, '') for band in inner)]
        if numbers := _offsets(name, given):
            return Facts(_one_offset(name, numbers), acquired)
    offset = baseline_offset(tags.get('PROCESSING_BASELINE', ''))
    if offset is None:
        # only the unambiguous case: reflectance = value / 10,000 − 0.1
        scaled = np.isclose(raster.scales, 1e-4) & np.isclose(raster.offsets, -0.1)
        offset = OFFSET if scaled.all() else None
    return Facts(offset, acquired)


def image_facts(raster: DatasetReader, name: str, file: str) -> Facts:
    """Read the metadata of the raster of one band: its tags, else its file name.

    In a JPEG 2000 file named as in a Sentinel-2 product, 0 is nodata.

    Args:
        raster: The open raster.
        name: Name of the raster in an error.
        file: Its name, without folders.

    Raises:
        SceneError: If its bands have different offsets.
    """
    facts = tag_facts(raster, name)
    taken = _PRODUCT_IMAGE.match(file)
    if facts.acquired is None and taken:
        facts = facts._replace(acquired=_time(taken['date']))
    if taken and file.lower().endswith('.jp2'):
        facts = facts._replace(nodata=0.0)
    return facts


def merge_facts(name: str, product: Facts | None, files: Sequence[Facts]) -> Facts:
    """Return the metadata of a product, completed from those of its files.

    Args:
        name: Name of the scene in an error.
        product: Metadata of the product, None without a product.
        files: Metadata of the file of each band.

    Raises:
        SceneError: If the offset comes from the files, and these differ.
    """
    product = product or Facts()
    offset, acquired = product.offset, product.acquired
    if offset is None:
        given = [facts.offset for facts in files]
        offset = _one_offset(name, [value for value in given if value is not None])
    if acquired is None:
        acquired = next((facts.acquired for facts in files if facts.acquired), None)
    return Facts(offset, acquired)


def _xml_values(name: str, text: bytes) -> dict[str, list[str]]:
    """Return the texts of all elements of each tag, without its namespace."""
    try:
        root = ElementTree.fromstring(text)
    # an encoding that does not exist is a LookupError, one that lies a ValueError
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise SceneError(f'{name} is not readable XML: {error}') from error
    values: dict[str, list[str]] = {}
    for element in root.iter():
        tag = str(element.tag).rpartition('}')[2]
        values.setdefault(tag, []).append((element.text or '').strip())
    return values


def _offsets(name: str, texts: Sequence[str]) -> list[float]:
    """Return radiometric offsets; words say nothing.

    Raises:
        SceneError: If one is not finite.
    """
    numbers = _numbers(texts)
    infinite = [text for text in texts if _NOT_FINITE.fullmatch(text.strip())]
    if infinite:
        raise SceneError(
            f'{name} has a radiometric offset of {infinite[0]}, expected a number.'
        )
    return numbers


def _one_offset(name: str, values: Sequence[float]) -> float | None:
    """Return the offset that all bands share."""
    if len({*values}) > 1:
        raise SceneError(
            f'{name} has bands of different radiometric offsets '
            f'({", ".join(f"{value:g}" for value in sorted({*values}))}), expected one '
            'for all.'
        )
    return values[0] if values else None


def baseline_offset(baseline: str) -> float | None:
    """Return the offset of a processing baseline: ``04.00``, ``N0400``."""
    match = re.fullmatch(r'N?(\d\d)\.?(\d\d)', baseline.strip())
    # 99.99 marks test products of any version
    if not match or match[1] == '99':
        return None
    return OFFSET if float(f'{match[1]}.{match[2]}') >= OFFSET_BASELINE else 0.0


def _time(text: str) -> str | None:
    """Return a time in ISO 8601, or None if *text* is not a time."""
    try:
        if re.fullmatch(r'\d{8}T\d{6}', text):
            text = datetime.strptime(text, '%Y%m%dT%H%M%S').isoformat() + 'Z'
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text


def _numbers(texts: Iterable[str]) -> list[float]:
    """Return those texts that are finite numbers, as numbers."""
    numbers = []
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers
