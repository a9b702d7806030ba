"""Stack bands in separate files by a VRT, on the grid of the finest."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from ..errors import NodataWarning, SceneError
from ..grids import Grid, corners, crs_agree_at
from ..rasters import open_raster
from ..scaling import Resample
from .sentinel2 import Facts, image_facts

#: What a VRT with an interpolated band holds.
INTERPOLATED = 'resampling="bilinear"'
#: First and last + 1 of some rows or columns.
Span = tuple[float, float]
#: Rows and columns.
Area = tuple[Span, Span]


class Layer(NamedTuple):
    """One raster of one band, as described in a VRT."""

    #: Name of the band.
    band: str
    #: Name of the file, for messages.
    file: str
    #: Argument for rasterio: an absolute path, or a /vsi path.
    dataset: str
    #: Height and width in pixels.
    size: tuple[int, int]
    crs: Any
    transform: Any
    dtype: str
    nodata: float | None
    #: Whether it has a mask band or an alpha band.
    masked: bool
    #: Height and width of a block.
    block: tuple[int, int]
    #: Metadata from its tags and its name.
    facts: Facts
    #: GDAL's scale and offset of its values.
    scale: float = 1.0
    offset: float = 0.0
    #: Ground control points and their CRS.
    gcps: tuple[list[Any], Any] = ([], None)
    #: Tags of its RPCs.
    rpcs: Mapping[str, str] = {}


def open_dataset(name: str, dataset: str) -> DatasetReader:
    """Open a raster, with or without a georeference.

    Args:
        name: Name of the raster in an error.
        dataset: Its name for GDAL.

    Raises:
        SceneError: If GDAL cannot open it.
    """
    return open_raster(dataset, name=name)


def read_layer(
    name: str, band: str, dataset: str, product: Facts | None, file: str | None = None
) -> Layer:
    """Read the description of a band from its file.

    Args:
        name: Name of the scene in an error.
        band: Name of the band.
        dataset: Name of the file for GDAL.
        product: Metadata of the product, None without a product.
        file: Name of the file in an error; None: the last part of *dataset*.

    Raises:
        SceneError: If the file is no raster, or has several bands.
    """
    file = file or PurePosixPath(dataset).name
    label = f'{name}: {file}'
    with open_dataset(label, dataset) as raster:
        colors = [c for c in raster.colorinterp if c is not ColorInterp.alpha]
        if len(colors) != 1:
            raise SceneError(
                f'{label} has {len(colors)} bands, expected one raster per band.'
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
            scale=raster.scales[0],
            offset=raster.offsets[0],
            gcps=raster.gcps,
            rpcs=raster.tags(ns='RPC'),
        )


class Extent(NamedTuple):
    """Rows (or columns) of a layer, in pixels of the finest layer."""

    #: Number of pixels of the layer.
    number: int
    #: Side of one of its pixels.
    step: int
    #: Where the first one starts; negative: before the scene.
    start: int

    @property
    def stop(self) -> int:
        """Where the last pixel stops."""
        return self.start + self.number * self.step

    def covered(self, size: int) -> tuple[int, int]:
        """Return first and last + 1 of the *size* pixels of the scene with a value.

        A remainder smaller than a pixel of the layer counts: it repeats the edge.
        """
        if self.start >= size or self.stop <= 0:
            return self.start, self.stop
        first = 0 if self.start < self.step else self.start
        last = size if size - self.stop < self.step else self.stop
        return first, last

    def segments(
        self, size: int, span: Span, edge: float = 1
    ) -> Iterator[tuple[Span, Span]]:
        """Yield pixels of the layer and those of the scene that show them.

        Args:
            size: Pixels of the scene along this axis.
            span: The pixels of the scene that are shown.
            edge: Part of the first and last pixel that is repeated beyond them.
        """
        first, last = self.covered(size)
        for pixels, shown in (
            ((0, self.number), (self.start, self.stop)),
            ((0, edge), (first, self.start)),
            ((self.number - edge, self.number), (self.stop, last)),
        ):
            begin, end = max(shown[0], span[0]), min(shown[1], span[1])
            if begin < end:
                scale = (pixels[1] - pixels[0]) / (shown[1] - shown[0])
                source = [pixels[0] + (at - shown[0]) * scale for at in (begin, end)]
                yield (source[0], source[1]), (begin, end)


class Placed(NamedTuple):
    """A layer and where it lies on the grid of the scene."""

    layer: Layer
    rows: Extent
    columns: Extent


def stack_layers(
    name: str,
    layers: Sequence[Layer],
    resample: Resample = 'nearest',
    nodata: float | None = None,
) -> str:
    """Stack layers on the grid of the finest one, each by its own transform.

    Args:
        name: Name of the scene, for messages.
        layers: One layer a band, in the order of the bands.
        resample: How pixels of coarse layers come to the grid.
        nodata: Nodata value that is not interpolated, in place of the layers' own.

    Returns:
        The text of a VRT.

    Raises:
        SceneError: If a layer is on another CRS, its pixels do not nest in the grid,
            or the layers have no area in common.
    """
    finest = min(layers, key=lambda layer: abs(layer.transform.determinant))
    placed = [_place(name, layer, finest) for layer in layers]
    common = _common(name, placed, finest.size)
    whole: Area = ((0, finest.size[0]), (0, finest.size[1]))
    by_nodata = all(layer.nodata is not None for layer in layers)
    root = _canvas(finest)
    # one type that holds the values of all: rasterio cannot read several
    dtype = np.result_type(*(layer.dtype for layer in layers)).name
    for index, item in enumerate(placed, 1):
        band = _band(root, typename_fwd[dtype_rev[dtype]], band=str(index))
        ElementTree.SubElement(band, 'Description').text = item.layer.band
        if item.layer.nodata is not None:
            ElementTree.SubElement(band, 'NoDataValue').text = repr(item.layer.nodata)
        for tag, number, usual in (
            ('Offset', item.layer.offset, 0.0),
            ('Scale', item.layer.scale, 1.0),
        ):
            if number != usual:
                ElementTree.SubElement(band, tag).text = repr(float(number))
        # outside of its sources, a band of a VRT is nodata
        if nodata is not None:
            layer = item.layer._replace(nodata=nodata, masked=False)
            item = item._replace(layer=layer)
        area = common if by_nodata else whole
        _add_pixels(band, item, finest.size, area, resample)
    masked = any(layer.masked for layer in layers)
    if masked or (common != whole and not by_nodata):
        mask = _band(ElementTree.SubElement(root, 'MaskBand'), 'Byte')
        _add_rectangles(_source(mask, 'SimpleSource', finest, 'mask,1'), common, common)
        for item in placed:
            if item.layer.masked or item.layer.nodata is not None:
                _add_mask(mask, item, finest.size)
    return ElementTree.tostring(root, encoding='unicode')


def _grid(layer: Layer) -> Grid:
    """Return the grid of a layer."""
    return Grid(*layer.size, layer.crs, layer.transform)


def _place(name: str, layer: Layer, finest: Layer) -> Placed:
    """Return where a layer lies on the grid of the finest.

    Raises:
        SceneError: If its CRS differs, or its pixels do not nest in the grid.
    """
    pair = f'{name}: {layer.file} and {finest.file}'
    if not crs_agree_at(layer.crs, finest.crs, corners(_grid(layer))):
        raise SceneError(
            f'{pair} have different CRS: {layer.crs} and {finest.crs}. Warp one to '
            'the CRS of the other first.'
        )
    if layer.transform.is_identity and layer.size != finest.size:
        raise SceneError(
            f'{pair} have no transform and different sizes: {_shape(layer.size)} and '
            f'{_shape(finest.size)} px. Georeference both, or resample one first.'
        )
    across, skew, left, tilt, down, top = tuple(~finest.transform @ layer.transform)[:6]
    rows = Extent(layer.size[0], max(1, round(down)), round(top))
    columns = Extent(layer.size[1], max(1, round(across)), round(left))
    # in pixels of the finest: at the origin, and what adds up to the far corner
    offset = max(abs(left - columns.start), abs(top - rows.start))
    drift = max(
        layer.size[0] * max(abs(down - rows.step), abs(skew)),
        layer.size[1] * max(abs(across - columns.step), abs(tilt)),
    )
    if offset > 0.01 or drift > 0.1:
        raise SceneError(
            f'{pair} are on grids that do not nest, expected pixels that are integer '
            'multiples of the finest and start at the corner of one. Resample one to '
            'the grid of the other first.'
        )
    return Placed(layer, rows, columns)


def _common(name: str, placed: Sequence[Placed], size: tuple[int, int]) -> Area:
    """Return the rows and columns (first, last + 1) with a value in every layer.

    Raises:
        SceneError: If there are none.
    """
    spans = []
    for pixels, extents in (
        (size[0], [item.rows for item in placed]),
        (size[1], [item.columns for item in placed]),
    ):
        firsts, lasts = zip(*(e.covered(pixels) for e in extents), strict=True)
        first, last = max(firsts), min(lasts)
        if first >= last:
            one, two = (placed[firsts.index(first)], placed[lasts.index(last)])
            raise SceneError(
                f'{name}: {one.layer.file} and {two.layer.file} do not overlap, '
                'expected bands of one area. Remove the bands of other areas.'
            )
        spans.append((first, last))
    (top, bottom), (left, right) = spans
    if (bottom - top, right - left) != size:
        warnings.warn(
            f'{name}: not every band covers the {size[0]} × {size[1]} px of the finest. '
            f'Pixels outside rows {top} to {bottom - 1} and columns {left} to '
            f'{right - 1} are invalid.',
            NodataWarning,
            stacklevel=2,
        )
    return spans[0], spans[1]


def _shape(size: tuple[int, int]) -> str:
    """Return ``ROWS × COLUMNS``."""
    return f'{size[0]} × {size[1]}'


def _canvas(finest: Layer) -> ElementTree.Element:
    """Return a VRT without bands, on the grid of *finest*."""
    height, width = finest.size
    root = ElementTree.Element(
        'VRTDataset', rasterXSize=str(width), rasterYSize=str(height)
    )
    if finest.crs is not None:
        ElementTree.SubElement(root, 'SRS').text = finest.crs.to_wkt()
    if not finest.transform.is_identity:
        numbers = ', '.join(map(repr, map(float, finest.transform.to_gdal())))
        ElementTree.SubElement(root, 'GeoTransform').text = numbers
    points, crs = finest.gcps
    if points:
        wkt = '' if crs is None else crs.to_wkt()
        parent = ElementTree.SubElement(root, 'GCPList', Projection=wkt)
        for point in points:
            place = {'Pixel': point.col, 'Line': point.row, 'X': point.x, 'Y': point.y}
            ElementTree.SubElement(parent, 'GCP', {k: str(v) for k, v in place.items()})
    if finest.rpcs:
        parent = ElementTree.SubElement(root, 'Metadata', domain='RPC')
        for key, value in finest.rpcs.items():
            ElementTree.SubElement(parent, 'MDI', key=key).text = value
    return root


def _band(
    parent: ElementTree.Element, dtype: str, **attributes: str
) -> ElementTree.Element:
    """Add a band to a VRT, or to its mask."""
    return ElementTree.SubElement(
        parent, 'VRTRasterBand', {'dataType': dtype, **attributes}
    )


def _add_pixels(
    band: ElementTree.Element,
    placed: Placed,
    size: tuple[int, int],
    area: Area,
    resample: Resample = 'nearest',
) -> None:
    """Add what a layer shows in an *area* to a band of a VRT of *size*."""
    if resample == 'bilinear' and max(placed.rows.step, placed.columns.step) > 1:
        _add_interpolated(band, placed, size, area)
        return
    for there, here in _rectangles(placed, size, area):
        _add_source(band, placed.layer, there, here)


def _add_interpolated(
    band: ElementTree.Element, placed: Placed, size: tuple[int, int], area: Area
) -> None:
    """Add a layer by bilinear interpolation between its valid pixels.

    GDAL leaves nodata out of the weights if the source declares it, and so fills nodata
    beside valid pixels. These become nodata again.
    """
    layer = placed.layer
    # NaN is never data, and no integer
    floats = np.dtype(layer.dtype).kind == 'f'
    if layer.nodata is None or math.isnan(layer.nodata):
        layer = layer._replace(nodata=math.nan if floats else None)
    if layer.nodata is not None:
        layer = layer._replace(dataset=_declared(layer, layer.nodata))
    # the outer half of a pixel, in which nothing is interpolated
    for there, here in _rectangles(placed, size, area, 0.5):
        _add_source(band, layer, there, here, 'bilinear')
    if layer.nodata is not None:
        for there, here in _rectangles(placed, size, area):
            _add_nodata(band, layer, there, here)


def _declared(layer: Layer, nodata: float) -> str:
    """Return a VRT of a layer that is nodata where the layer is invalid."""
    whole: Area = ((0, layer.size[0]), (0, layer.size[1]))
    root = _canvas(layer)
    band = _band(root, typename_fwd[dtype_rev[layer.dtype]], band='1')
    value = ElementTree.SubElement(band, 'NoDataValue')
    if math.isnan(nodata):
        # GDAL would add NaN × 0. What is NaN is not written here, and so is nodata
        nodata = float(np.finfo(layer.dtype).min)
        source = _source(band, 'ComplexSource', layer, '1', None)
        _add_rectangles(source, whole, whole)
        ElementTree.SubElement(source, 'NODATA').text = 'nan'
    else:
        _add_source(band, layer, whole, whole, None)
    value.text = repr(nodata)
    if layer.masked:
        _add_nodata(band, layer._replace(nodata=nodata), whole, whole)
    return ElementTree.tostring(root, encoding='unicode')


def _add_nodata(
    band: ElementTree.Element, layer: Layer, there: Area, here: Area
) -> None:
    """Write nodata to a band where the mask of a layer is 0."""
    source = _source(band, 'ComplexSource', layer, 'mask,1')
    _add_rectangles(source, there, here)
    ElementTree.SubElement(source, 'ScaleOffset').text = repr(layer.nodata)
    ElementTree.SubElement(source, 'ScaleRatio').text = '1'
    ElementTree.SubElement(source, 'NODATA').text = '255'


def _add_source(
    band: ElementTree.Element,
    layer: Layer,
    there: Area,
    here: Area,
    resample: Resample | None = 'nearest',
) -> None:
    """Add pixels of a layer to a band."""
    source = _source(band, 'SimpleSource', layer, '1', resample)
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
    _add_rectangles(source, there, here)


def _add_mask(mask: ElementTree.Element, placed: Placed, size: tuple[int, int]) -> None:
    """Mark as invalid what is invalid in a layer.

    Valid pixels (255) leave the mask as it is, so that a pixel is valid where all
    layers are.
    """
    for there, here in _rectangles(placed, size, ((0, size[0]), (0, size[1]))):
        source = _source(mask, 'ComplexSource', placed.layer, 'mask,1')
        _add_rectangles(source, there, here)
        ElementTree.SubElement(source, 'NODATA').text = '255'


def _source(
    band: ElementTree.Element,
    kind: str,
    layer: Layer,
    content: str,
    resample: Resample | None = 'nearest',
) -> ElementTree.Element:
    """Add a source to a band of a VRT: band 1 of a layer's file, or its mask."""
    source = ElementTree.SubElement(band, kind)
    if resample is not None:
        source.set('resampling', resample)
    file = ElementTree.SubElement(source, 'SourceFilename', relativeToVRT='0')
    file.text = layer.dataset
    ElementTree.SubElement(source, 'SourceBand').text = content
    return source


def _rectangles(
    placed: Placed, size: tuple[int, int], area: Area, edge: float = 1
) -> Iterator[tuple[Area, Area]]:
    """Yield areas of a layer and the areas of the scene that show them."""
    rows = placed.rows.segments(size[0], area[0], edge)
    columns = placed.columns.segments(size[1], area[1], edge)
    for (row_span, to_rows), (column_span, to_columns) in product(rows, columns):
        yield (row_span, column_span), (to_rows, to_columns)


def _add_rectangles(source: ElementTree.Element, there: Area, here: Area) -> None:
    """Add source and destination rectangle to a source of a VRT."""
    for tag, ((top, bottom), (left, right)) in (('SrcRect', there), ('DstRect', here)):
        ElementTree.SubElement(
            source,
            tag,
            xOff=repr(left),
            yOff=repr(top),
            xSize=repr(right - left),
            ySize=repr(bottom - top),
        )
