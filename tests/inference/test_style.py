import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio

from tests.fakes.bad_inputs import write_raster
from tests.fakes.class_rasters import COLORS, NAMES
from tests.fakes.masks import write_mask
from torchgeo_ctm.errors import OutputError
from torchgeo_ctm.inference.style import legend, ramp_style, style_of, write_style


def test_one_style_serves_raster_and_polygons(tmp_path: Path) -> None:
    path = tmp_path / 'a.qml'
    path.write_text('old')
    write_style(path, NAMES, COLORS)
    assert [p.name for p in tmp_path.iterdir()] == ['a.qml']
    root = ET.parse(path).getroot()
    assert root.tag == 'qgis'

    raster = root.find('pipe/rasterrenderer')
    assert raster is not None and raster.get('type') == 'paletted'
    entries = raster.findall('colorPalette/paletteEntry')
    assert [e.get('label') for e in entries] == NAMES
    assert [e.get('color') for e in entries] == COLORS
    # nodata has no entry, and so no colour
    assert [e.get('value') for e in entries] == ['0', '1', '2', '3']

    vector = root.find('renderer-v2')
    assert vector is not None and vector.get('type') == 'categorizedSymbol'
    assert vector.get('attr') == 'class'
    categories = vector.findall('categories/category')
    assert [c.get('label') for c in categories] == NAMES
    symbols = {s.get('name'): s for s in vector.findall('symbols/symbol')}
    for category, color in zip(categories, COLORS, strict=True):
        symbol = symbols[category.get('symbol')]
        paint = ','.join(map(str, (*bytes.fromhex(color[1:]), 255)))
        for key in ('color', 'outline_color'):
            (prop,) = symbol.findall(f"layer/prop[@k='{key}']")
            (option,) = symbol.findall(f"layer/Option/Option[@name='{key}']")
            assert prop.get('v') == option.get('value') == paint


def test_a_raster_without_palette_has_a_style(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.int16).reshape(2, 2)
    path = write_raster(tmp_path / 'm.tif', values[None])
    with rasterio.open(path, 'r+') as raster:
        raster.update_tags(CLASS_NAMES=json.dumps(NAMES))
    root = ET.parse(style_of(path, tmp_path / 'm.qml')).getroot()
    colors = [e.get('color') for e in root.iter('paletteEntry')]
    assert colors == ['#1f77b4', '#aec7e8', '#ff7f0e', '#ffbb78']


def test_a_ramp_is_the_same_for_every_map() -> None:
    root = ET.fromstring(ramp_style(100).split('\n', 1)[1])
    renderer = root.find('pipe/rasterrenderer')
    assert renderer is not None and renderer.get('classificationMax') == '100'
    assert renderer.findtext('minMaxOrigin/limits') == 'None'
    values = [item.get('value') for item in root.iter('item')]
    assert values == ['0', '25', '50', '75', '100']


def test_hectares_are_in_the_legend_on_request(tmp_path: Path) -> None:
    values = np.array([[0, 0, 3], [0, 1, 255]], np.uint8)
    path = write_mask(tmp_path / 'a.tif', values, names=NAMES, colors=COLORS)
    names, _ = legend(path, hectares=True)
    assert names == [
        f'{name} ({px * 0.01:,.0f} ha)'
        for name, px in zip(NAMES, (3, 1, 0, 1), strict=True)
    ]
    large = np.kron(values, np.ones((100, 100), np.uint8))
    path = write_mask(tmp_path / 'b.tif', large, names=NAMES, colors=COLORS)
    root = ET.parse(style_of(path, tmp_path / 'b.qml', hectares=True)).getroot()
    labels = [entry.get('label') for entry in root.iter('paletteEntry')]
    assert labels[0] == 'Forest (300 ha)'
    assert labels == [each.get('label') for each in root.iter('category')]


def test_the_attribute_table_lists_classes_alone(tmp_path: Path) -> None:
    # QGIS takes its legend from it, not from the 256 entries of the color table
    path = write_mask(
        tmp_path / 'a.tif', np.zeros((4, 4), np.uint8), names=NAMES, colors=COLORS
    )
    root = ET.parse(path.with_name('a.tif.aux.xml')).getroot()
    table = root.find('PAMRasterBand/GDALRasterAttributeTable')
    assert table is not None
    usages = [field.findtext('Usage') for field in table.iter('FieldDefn')]
    assert usages == ['5', '2', '6', '7', '8']
    rows = [[cell.text for cell in row] for row in table.iter('Row')]
    paints = [map(str, bytes.fromhex(color[1:])) for color in COLORS]
    assert rows == [
        [str(value), name, *paint]
        for value, (name, paint) in enumerate(zip(NAMES, paints, strict=True))
    ]


def test_colours_may_have_names(tmp_path: Path) -> None:
    write_style(tmp_path / 'a.qml', ['Water'], ['blue'])
    assert 'color="#0000ff"' in (tmp_path / 'a.qml').read_text()


def test_a_disk_that_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match='Cannot write'):
        write_style(tmp_path / 'gone' / 'a.qml', NAMES, COLORS)
    assert list(tmp_path.iterdir()) == []
