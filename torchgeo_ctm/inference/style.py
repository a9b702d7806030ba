"""QGIS styles of class rasters, polygons and samples."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from ..files import write_text
from .areas import class_areas
from .geotiff import rgb_of
from .masks import class_colors, class_names, open_mask

#: Colors of a ramp from its lowest to its highest value (viridis).
RAMP = ('#440154', '#3b528b', '#21918c', '#5ec962', '#fde725')
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def write_style(
    path: Path, class_names: Sequence[str], class_colors: Sequence[str]
) -> None:
    """Write a QGIS style, ``OUT.qml``, for both ``OUT.tif`` and its polygons.

    QGIS looks for ``OUT.qml`` beside any layer ``OUT.*`` and uses the part for that type
    of layer: a palette for the raster, categories of ``class`` for polygons.

    Args:
        path: The style to write; an existing one is replaced.
        class_names: Name of each class.
        class_colors: Color of each class, as matplotlib reads it.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_text(path, style_text(class_names, class_colors))


def style_text(names: Sequence[str], colors: Sequence[str]) -> str:
    """Return the text of :func:`write_style`."""
    root = _root()
    root.append(_raster_pipe(names, colors))
    root.append(_vector_renderer(names, colors))
    return _text(root)


def _root(categories: str = 'Symbology') -> ET.Element:
    return ET.Element(
        'qgis',
        version='3.22',
        styleCategories=categories,
        hasScaleBasedVisibilityFlag='0',
    )


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return DOCTYPE + ET.tostring(root, encoding='unicode') + '\n'


def _raster_pipe(names: Sequence[str], colors: Sequence[str]) -> ET.Element:
    """Return the style of the raster: one palette entry per class.

    Values without an entry, such as nodata, are transparent.
    """
    pipe = ET.Element('pipe')
    renderer = _renderer(pipe, 'paletted', {})
    palette = ET.SubElement(renderer, 'colorPalette')
    for value, (name, color) in enumerate(zip(names, colors, strict=True)):
        red, green, blue = rgb_of(color)
        ET.SubElement(
            palette,
            'paletteEntry',
            value=str(value),
            color=f'#{red:02x}{green:02x}{blue:02x}',
            label=name,
            alpha='255',
        )
    ET.SubElement(pipe, 'rasterresampler', maxOversampling='2')
    return pipe


def _renderer(pipe: ET.Element, kind: str, more: dict[str, str]) -> ET.Element:
    """Add a renderer of band 1 to the style of a raster."""
    options = {'type': kind, 'band': '1', 'opacity': '1', 'alphaBand': '-1'}
    renderer = ET.SubElement(
        pipe, 'rasterrenderer', options | {'nodataColor': ''} | more
    )
    ET.SubElement(renderer, 'rasterTransparency')
    return renderer


def _vector_renderer(names: Sequence[str], colors: Sequence[str]) -> ET.Element:
    """Return the style of polygons: one category of ``class`` per class."""
    renderer = ET.Element(
        'renderer-v2', type='categorizedSymbol', attr='class', enableorderby='0'
    )
    categories = ET.SubElement(renderer, 'categories')
    symbols = ET.SubElement(renderer, 'symbols')
    for value, (name, color) in enumerate(zip(names, colors, strict=True)):
        ET.SubElement(
            categories,
            'category',
            value=str(value),
            type='long',
            symbol=str(value),
            label=name,
            render='true',
        )
        symbols.append(_fill(str(value), color))
    return renderer


def _fill(name: str, color: str) -> ET.Element:
    """Return a symbol with fill and outline of the same color.

    Without an outline, thin lines of background show between neighboring polygons.
    """
    paint = ','.join(map(str, (*rgb_of(color), 255)))
    symbol = ET.Element('symbol', name=name, type='fill', alpha='1', clip_to_extent='1')
    _layer(
        symbol,
        'SimpleFill',
        {
            'color': paint,
            'style': 'solid',
            'outline_color': paint,
            'outline_style': 'solid',
            'outline_width': '0',
            'outline_width_unit': 'MM',
            'joinstyle': 'miter',
        },
    )
    return symbol


def _layer(symbol: ET.Element, kind: str, options: dict[str, str]) -> ET.Element:
    """Add a layer to a symbol."""
    layer = ET.SubElement(symbol, 'layer', {'class': kind, 'enabled': '1'})
    texts = ET.SubElement(layer, 'Option', type='Map')
    for key, value in options.items():
        # both forms: QGIS before 3.26 reads prop, later ones Option
        ET.SubElement(texts, 'Option', name=key, value=value, type='QString')
        ET.SubElement(layer, 'prop', k=key, v=value)
    return layer


def polygons_style(names: Sequence[str], colors: Sequence[str]) -> str:
    """Return the QGIS style of polygons alone, to be embedded in their file."""
    root = _root()
    root.append(_vector_renderer(names, colors))
    return _text(root)


def ramp_style(highest: float) -> str:
    """Return a QGIS style of a raster: a fixed ramp from 0 to *highest*.

    Without it, QGIS stretches colors over the values of each raster, and two maps
    cannot be compared.
    """
    root = _root()
    pipe = ET.SubElement(root, 'pipe')
    limits = {'classificationMin': '0', 'classificationMax': f'{highest:g}'}
    renderer = _renderer(pipe, 'singlebandpseudocolor', limits)
    ET.SubElement(ET.SubElement(renderer, 'minMaxOrigin'), 'limits').text = 'None'
    shader = ET.SubElement(
        ET.SubElement(renderer, 'rastershader'),
        'colorrampshader',
        colorRampType='INTERPOLATED',
        classificationMode='1',
        clip='0',
        minimumValue='0',
        maximumValue=f'{highest:g}',
    )
    for number, color in enumerate(RAMP):
        value = f'{highest * number / (len(RAMP) - 1):g}'
        ET.SubElement(
            shader, 'item', value=value, label=value, color=color, alpha='255'
        )
    return _text(root)


def samples_style(names: Sequence[str]) -> str:
    """Return a QGIS style of samples: outlines, and the classes as a drop-down.

    Args:
        names: Names that the column ``reference`` may have.
    """
    root = _root('Symbology|Fields|Forms')
    renderer = ET.SubElement(root, 'renderer-v2', type='singleSymbol')
    symbols = ET.SubElement(renderer, 'symbols')
    symbol = ET.SubElement(symbols, 'symbol', name='0', type='marker', alpha='1')
    for column, color in (('window', '255,255,0,255'), ('pixel', '255,0,0,255')):
        expression = f'geom_from_wkt("{column}")'
        layer = _layer(
            symbol,
            'GeometryGenerator',
            {'geometryModifier': expression, 'SymbolType': 'Fill', 'units': 'MapUnit'},
        )
        number = len(symbol) - 1
        outline = ET.SubElement(
            layer, 'symbol', name=f'@0@{number}', type='fill', alpha='1'
        )
        _layer(
            outline,
            'SimpleFill',
            {'style': 'no', 'outline_color': color, 'outline_width': '0.4'},
        )
    fields = ET.SubElement(root, 'fieldConfiguration')
    for column in ('pixel', 'window'):
        field = ET.SubElement(fields, 'field', name=column)
        widget = ET.SubElement(field, 'editWidget', type='Hidden')
        ET.SubElement(ET.SubElement(widget, 'config'), 'Option')
    field = ET.SubElement(fields, 'field', name='reference')
    widget = ET.SubElement(field, 'editWidget', type='ValueMap')
    config = ET.SubElement(ET.SubElement(widget, 'config'), 'Option', type='Map')
    choices = ET.SubElement(config, 'Option', name='map', type='List')
    for name in names:
        choice = ET.SubElement(choices, 'Option', type='Map')
        ET.SubElement(choice, 'Option', name=name, value=name, type='QString')
    return _text(root)


def embed_style(database: sqlite3.Connection, layer: str, style: str) -> None:
    """Make a style the default of a layer in a GeoPackage, as QGIS does.

    Args:
        database: The GeoPackage.
        layer: Name of the layer.
        style: A QGIS style (QML).
    """
    database.execute(
        'CREATE TABLE IF NOT EXISTS layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT '
        'NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name '
        'TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, '
        'styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui '
        'TEXT(30), update_time DATETIME DEFAULT '
        "(strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
    )
    database.execute(
        'INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier) '
        "VALUES ('layer_styles', 'attributes', 'layer_styles')"
    )
    database.execute(
        'INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, '
        'f_geometry_column, styleName, styleQML, useAsDefault) SELECT '
        "'', '', table_name, column_name, ?, ?, 1 FROM gpkg_geometry_columns "
        'WHERE table_name = ?',
        (layer, style, layer),
    )


def legend(mask: str | Path, hectares: bool = False) -> tuple[list[str], list[str]]:
    """Return names and colors of the legend of a class raster.

    Args:
        mask: The class raster.
        hectares: Put the hectares of each class into its name.

    Raises:
        GridError: If *hectares* of a raster without a CRS are wanted.
    """
    with open_mask(mask) as raster:
        names, colors = class_names(raster), class_colors(raster)
    if hectares:
        areas = class_areas(mask)
        names = [f'{name} ({areas[name]:,.0f} ha)' for name in names]
    return names, colors


def has_style(mask: str | Path, path: Path, hectares: bool = False) -> bool:
    """Return whether a file is exactly the style of a class raster."""
    if not path.is_file():
        return False
    made = style_text(*legend(mask, hectares))
    return path.read_text(encoding='utf-8', errors='replace') == made


def style_of(mask: str | Path, path: Path, hectares: bool = False) -> Path:
    """Write the style of a class raster from its own names and colors.

    Args:
        mask: Class raster written by predict.
        path: The style to write; an existing one is replaced.
        hectares: Put the hectares of each class into its name.

    Returns:
        *path*.
    """
    write_style(path, *legend(mask, hectares))
    return path
