"""What metadata say about a scene: radiometric offset, time, nodata."""

import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio.io import DatasetReader
from torchgeo.datasets import Sentinel2

from ..errors import SceneError

#: A folder, or what stands for one inside an archive.
Place = Path | zipfile.Path

#: Radiometric offset of Sentinel-2 products from this processing baseline on.
OFFSET, OFFSET_BASELINE = -1000.0, 4.0

_PRODUCT_IMAGE = re.compile(Sentinel2.filename_regex.format(r'\d+m'), re.VERBOSE)
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


class Facts(NamedTuple):
    """What metadata say about a scene; None where they say nothing."""

    #: To add to the stored numbers for reflectance x 10,000.
    offset: float | None = None
    #: When it was taken, ISO 8601.
    acquired: str | None = None
    #: The stored number of pixels that hold nothing.
    nodata: float | None = None


def listing(place: Place) -> list[Place]:
    """Return what lies in a folder by name, without what systems hide there."""
    items: Iterable[Place] = place.iterdir()
    seen = [item for item in items if not item.name.startswith(('.', '__MACOSX'))]
    return sorted(seen, key=lambda item: item.name)


def is_product_metadata(file: str) -> bool:
    """Tell from its name whether a file describes a whole Sentinel-2 product."""
    return _METADATA.fullmatch(file) is not None


def product_facts(name: str, place: Place) -> Facts | None:
    """Read a Sentinel-2 product's metadata.

    Args:
        name: What an error calls the scene.
        place: The product's folder, or on a disk any folder below its ``GRANULE``.

    Returns:
        What its main metadata file says, else its name; None where there is no
        product.

    Raises:
        SceneError: If the metadata cannot be read, or contradict themselves.
    """
    folders = [place]
    if isinstance(place, Path) and 'GRANULE' in place.absolute().parts:
        parts = place.absolute().parts
        folders.append(Path(*parts[: parts.index('GRANULE')]))
    for folder in folders:
        for item in listing(folder):
            if is_product_metadata(item.name):
                return xml_facts(f'{name}: {item.name}', item.read_bytes())
        if match := _PRODUCT.fullmatch(folder.name):
            return Facts(_baseline_offset(match[2]), _time(match[1]), 0.0)
    return None


def xml_facts(name: str, text: bytes) -> Facts:
    """Read offset, time and nodata from MTD_MSIL1C.xml or MTD_MSIL2A.xml.

    The list of offsets decides where there is one, else the processing baseline.

    Args:
        name: What an error calls the file.
        text: All that the file holds.

    Raises:
        SceneError: If it is no XML, or lists different offsets.
    """
    values = _xml_values(name, text)
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
    return Facts(offset, next(iter(times), None), special.get('NODATA', 0.0))


def tag_facts(raster: DatasetReader, name: str) -> Facts:
    """Read offset and time from a raster's tags, or GDAL's scale and offset.

    Args:
        raster: The open raster.
        name: What an error calls it.

    Raises:
        SceneError: If its bands have different offsets.
    """
    tags = {key.upper(): value for key, value in raster.tags().items()}
    inner = [raster.tags(index) for index in raster.indexes]
    acquired = next((_time(tags[key]) for key in _TIME_TAGS if key in tags), None)
    for key in _OFFSET_TAGS:
        given = [tags.get(key, ''), *(band.get(key, '') for band in inner)]
        if numbers := _numbers(given):
            return Facts(_one_offset(name, numbers), acquired)
    offset = _baseline_offset(tags.get('PROCESSING_BASELINE', ''))
    if offset is None:
        # only what can mean nothing else: reflectance = number / 10,000 − 0.1
        scaled = np.isclose(raster.scales, 1e-4) & np.isclose(raster.offsets, -0.1)
        offset = OFFSET if scaled.all() else None
    return Facts(offset, acquired)


def image_facts(raster: DatasetReader, name: str, file: str) -> Facts:
    """Read what the raster of one band says: its tags, else its own name.

    A JPEG 2000 that is named as in a Sentinel-2 product holds nothing where it is 0.

    Args:
        raster: The open raster.
        name: What an error calls it.
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
    """Return what the product says; where it is silent, what the files say.

    Args:
        name: What an error calls the scene.
        product: What the product's metadata say; None where there is no product.
        files: What the file of each band says.

    Raises:
        SceneError: If the files' offsets are needed, and differ.
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
    except ElementTree.ParseError as error:
        raise SceneError(f'{name} is not readable XML: {error}') from error
    values: dict[str, list[str]] = {}
    for element in root.iter():
        tag = element.tag.rpartition('}')[2]
        values.setdefault(tag, []).append((element.text or '').strip())
    return values


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
