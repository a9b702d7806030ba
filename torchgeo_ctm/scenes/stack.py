"""Bands in files of their own, stacked by a VRT on the grid of the finest."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from ..errors import SceneError
from ..rasters import open_raster
from .sentinel2 import Facts, image_facts


class Layer(NamedTuple):
    """One raster of one band, as a VRT needs to know it."""

    #: Name of the band.
    band: str
    #: Name of the file: what messages call it.
    file: str
    #: What rasterio opens: an absolute path, or a /vsi path.
    dataset: str
    #: Height and width in its own pixels.
    size: tuple[int, int]
    crs: Any
    transform: Any
    dtype: str
    nodata: float | None
    #: Whether it has a mask of its own: a mask band or an alpha band.
    masked: bool
    #: Height and width of a block.
    block: tuple[int, int]
    #: What its tags and its name say.
    facts: Facts


def open_dataset(name: str, dataset: str) -> DatasetReader:
    """Open a raster, with or without a georeference.

    Args:
        name: What an error calls it.
        dataset: What GDAL calls it.

    Raises:
        SceneError: If GDAL does not open it.
    """
    return open_raster(dataset, name=name)


def read_layer(name: str, band: str, dataset: str, product: Facts | None) -> Layer:
    """Read what a VRT needs to know about the file of a band.

    Args:
        name: What an error calls the scene.
        band: Name of the band.
        dataset: What GDAL calls the file.
        product: What the product's metadata say; None where there is no product.

    Raises:
        SceneError: If it is no raster, or one of several bands.
    """
    file = PurePosixPath(dataset).name
    label = f'{name}: {file}'
    with open_dataset(label, dataset) as raster:
        colors = [c for c in raster.colorinterp if c is not ColorInterp.alpha]
        if len(colors) != 1:
            raise SceneError(
                f'{label} has {len(colors)} bands; needed: one raster a band'
            )
        flags = raster.mask_flag_enums[0]
        facts = image_facts(raster, label, file)
        nodata = raster.nodatavals[0]
        if nodata is None:
            nodata = (facts if product is None else product).nodata
        return Layer(
            band=band,
            file=file,
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


def stack_layers(name: str, layers: Sequence[Layer]) -> str:
    """Stack layers on the finest one's grid.

    Args:
        name: What an error calls the scene.
        layers: One layer a band, in the order of the bands.

    Returns:
        The text of a VRT.

    Raises:
        SceneError: If the layers' grids do not nest.
    """
    finest, size = _grid(name, layers)
    root = _canvas(finest, size)
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
                _add_mask(mask, layer, finest)
    return ElementTree.tostring(root, encoding='unicode')


def _grid(name: str, layers: Sequence[Layer]) -> tuple[Layer, tuple[int, int]]:
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


def _steps(layer: Layer, finest: Layer, pair: str = '') -> tuple[int, int]:
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


def _canvas(finest: Layer, size: tuple[int, int]) -> ElementTree.Element:
    """Return a VRT (height, width) of no bands yet, georeferenced as *finest* is."""
    height, width = size
    root = ElementTree.Element(
        'VRTDataset', rasterXSize=str(width), rasterYSize=str(height)
    )
    if finest.crs is not None:
        ElementTree.SubElement(root, 'SRS').text = finest.crs.to_wkt()
    if not finest.transform.is_identity:
        numbers = ', '.join(map(repr, map(float, finest.transform.to_gdal())))
        ElementTree.SubElement(root, 'GeoTransform').text = numbers
    return root


def _band(
    parent: ElementTree.Element, dtype: str, **attributes: str
) -> ElementTree.Element:
    """Add a band to a VRT, or to its mask."""
    return ElementTree.SubElement(
        parent, 'VRTRasterBand', {'dataType': dtype, **attributes}
    )


def _add_pixels(band: ElementTree.Element, layer: Layer, finest: Layer) -> None:
    """Let a VRT's band take a layer's pixels."""
    source = _source(band, 'SimpleSource', layer, '1')
    # with these GDAL opens a file when it is read, not before
    ElementTree.SubElement(
        source,
        'SourceProperties',
        RasterXSize=str(layer.size[1]),
        RasterYSize=str(layer.size[0]),
        DataType=typename_fwd[dtype_rev[layer.dtype]],
        BlockXSize=str(layer.block[1]),
        BlockYSize=str(layer.block[0]),
    )
    _add_rectangles(source, layer, finest)


def _add_mask(mask: ElementTree.Element, layer: Layer, finest: Layer) -> None:
    """Let a VRT's mask take a layer's mask.

    Masks lie upon each other: all but the first leave pixels as they are where they
    are valid themselves (255), so that a pixel is valid where all say so.
    """
    upon = len(mask) > 0
    kind = 'ComplexSource' if upon else 'SimpleSource'
    source = _source(mask, kind, layer, 'mask,1')
    _add_rectangles(source, layer, finest)
    if upon:
        ElementTree.SubElement(source, 'NODATA').text = '255'


def _source(
    band: ElementTree.Element, kind: str, layer: Layer, content: str
) -> ElementTree.Element:
    """Add a layer's file to a band of a VRT: its band 1, or that one's mask."""
    source = ElementTree.SubElement(band, kind, resampling='nearest')
    file = ElementTree.SubElement(source, 'SourceFilename', relativeToVRT='0')
    file.text = layer.dataset
    ElementTree.SubElement(source, 'SourceBand').text = content
    return source


def _add_rectangles(source: ElementTree.Element, layer: Layer, finest: Layer) -> None:
    """Say which pixels of the VRT the whole layer covers."""
    height, width = layer.size
    down, across = _steps(layer, finest)
    for tag, rows, columns in (
        ('SrcRect', height, width),
        ('DstRect', height * down, width * across),
    ):
        ElementTree.SubElement(
            source, tag, xOff='0', yOff='0', xSize=str(columns), ySize=str(rows)
        )
