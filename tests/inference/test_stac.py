import importlib.util
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pystac
import pytest
import rasterio
import shapely.geometry
from affine import Affine
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from referencing import Registry, Resource

from tests.fakes.class_rasters import COLORS, NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.errors import DateNote, GridError, OutputError
from torchgeo_ctm.inference.stac import write_item

NOTHING: Mapping[str, Any] = {}


def item_of(folder: Path, mask: Path, **properties: Any) -> dict[str, Any]:
    path = folder / 'a.json'
    write_item(path, mask, {}, NAMES, COLORS, properties)
    item: dict[str, Any] = json.loads(path.read_text())
    return item


def core_schema() -> Any:
    """STAC's own schema of an item, from the copies that pystac carries."""
    folder = Path(pystac.__file__).parent / 'validation' / 'jsonschemas'
    schemas = {
        path.name: json.loads(path.read_text()) for path in folder.rglob('*.json')
    }
    registry: Any = Registry().with_resources(
        # by file: an $id among them has a slip of the pen
        (f'{schema["$id"].rpartition("/")[0]}/{name}', Resource.from_contents(schema))
        for name, schema in schemas.items()
    )
    return jsonschema.Draft7Validator(schemas['item.json'], registry=registry)


def test_an_item_has_every_fact(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(70, 90))
    share = write_classes(tmp_path / 'a_confidence.tif', random_classes(70, 90))
    with rasterio.open(share, 'r+') as raster:
        raster.scales = (0.01,)
    assets = {'confidence': share, 'polygons': tmp_path / 'sub' / 'a.gpkg'}
    path = tmp_path / 'a.json'
    path.write_text('old')
    given = {'datetime': '2020-05-06T07:08:09Z', 'ctm:window': '224'}
    write_item(path, mask, assets, NAMES, COLORS, given)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'a.json',
        'a.tif',
        'a_confidence.tif',
    ]

    core_schema().validate(json.loads(path.read_text()))
    item = pystac.Item.from_file(path)
    assert item.id == 'a'
    assert item.datetime == datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert item.properties['ctm:window'] == '224'
    assert item.properties['ctm:datetime_source'] == 'properties'

    projection = ProjectionExtension.ext(item)
    assert projection.code == 'EPSG:32630'
    assert projection.shape == [70, 90]
    assert projection.transform == list(UTM)[:6]
    assert projection.bbox == [500_000, 4_199_300, 500_900, 4_200_000]

    assert item.assets['mask'].href == './a.tif'
    assert item.assets['confidence'].href == './a_confidence.tif'
    assert item.assets['polygons'].href == './sub/a.gpkg'
    assert item.assets['polygons'].media_type == 'application/geopackage+sqlite3'
    bands = RasterExtension.ext(item.assets['mask']).bands
    assert bands is not None
    assert [band.to_dict() for band in bands] == [
        {'data_type': 'uint8', 'nodata': 255, 'spatial_resolution': 10}
    ]
    bands = RasterExtension.ext(item.assets['confidence']).bands
    assert bands is not None and bands[0].scale == 0.01

    classes = ClassificationExtension.ext(item.assets['mask']).classes
    assert classes is not None
    assert [c.value for c in classes] == [0, 1, 2, 3, 255]
    assert [c.title for c in classes[:4]] == NAMES
    assert classes[2].name == 'Urban_Built-up_Roads'
    assert [c.color_hint for c in classes[:4]] == [c[1:].upper() for c in COLORS]
    assert [bool(c.nodata) for c in classes] == [False] * 4 + [True]


def test_the_footprint_follows_the_curve(tmp_path: Path) -> None:
    transform = Affine(2000, 0, 200_000, 0, -2000, 7_500_000)
    mask = write_classes(
        tmp_path / 'a.tif', random_classes(300, 300), transform=transform
    )
    item = item_of(tmp_path, mask)
    footprint = shapely.geometry.shape(item['geometry'])
    assert footprint.is_valid and footprint.exterior.is_ccw
    assert footprint.bounds == tuple(item['bbox'])
    # in the middle of the upper edge
    from rasterio.warp import transform as warp

    (lon,), (lat,) = warp('EPSG:32630', 'EPSG:4326', [500_000], [7_500_000])
    distance = footprint.exterior.distance(shapely.Point(lon, lat))
    assert distance < 0.001 * np.ptp(footprint.bounds[1::2])


def test_the_footprint_is_cut_at_the_date_line(tmp_path: Path) -> None:
    transform = Affine(1000, 0, 700_000, 0, -1000, 8_200_000)
    mask = write_classes(
        tmp_path / 'a.tif', random_classes(200, 300), 'EPSG:32760', transform
    )
    item = item_of(tmp_path, mask)
    core_schema().validate(item)
    assert item['geometry']['type'] == 'MultiPolygon'
    west, south, east, north = item['bbox']
    assert 178 < west < 180 and -180 < east < -178 and south < north


def test_a_grid_without_a_code_has_its_definition(tmp_path: Path) -> None:
    crs = '+proj=laea +lat_0=37 +lon_0=-3 +ellps=WGS84'
    local = Affine(30, 0, -1000, 0, -30, 1000)
    mask = write_classes(tmp_path / 'a.tif', random_classes(40, 50), crs, local)
    item = item_of(tmp_path, mask)
    assert item['properties'].get('proj:code') is None
    assert 'Lambert Azimuthal' in item['properties']['proj:wkt2']
    degrees = Affine(1e-4, 0, 10, 0, -1e-4, 0)
    mask = write_classes(
        tmp_path / 'b.tif', random_classes(40, 50), 'EPSG:4326', degrees
    )
    band = item_of(tmp_path, mask)['assets']['mask']['raster:bands'][0]
    assert band['spatial_resolution'] == pytest.approx(11.1, abs=0.1)


def test_the_date_is_the_scene_s_where_it_is_known(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(40, 50))
    with pytest.warns(DateNote, match='no date of acquisition was found'):
        found = item_of(tmp_path, mask)['properties']
    assert found['datetime'] == found['created']
    assert 'written' in found['ctm:datetime_source']
    for tag, text in (
        ('TIFFTAG_DATETIME', '2019:02:03 04:05:06'),
        ('DATETIME', '2019-02-03T04:05:06'),
        ('ACQUISITION', '2019-02-03T05:05:06+01:00'),
    ):
        with rasterio.open(mask, 'r+') as raster:
            raster.update_tags(**{tag: text})
        found = item_of(tmp_path, mask)['properties']
        assert found['datetime'] == '2019-02-03T04:05:06Z'
        assert found['ctm:datetime_source'] == tag
    found = item_of(tmp_path, mask, datetime='yesterday')['properties']
    assert found['ctm:datetime_source'] == 'ACQUISITION'


def test_what_cannot_be_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = write_classes(tmp_path / 'a.tif', random_classes(40, 50), None)
    path = tmp_path / 'a.json'
    with pytest.raises(GridError, match='has no CRS'):
        write_item(path, mask, {}, NAMES, COLORS, NOTHING)
    mill = 'LOCAL_CS["mill",UNIT["metre",1]]'
    mask = write_classes(tmp_path / 'a.tif', random_classes(40, 50), mill)
    with pytest.raises(GridError, match='local CRS'):
        write_item(path, mask, {}, NAMES, COLORS, NOTHING)
    mask = write_classes(tmp_path / 'a.tif', random_classes(40, 50))
    with pytest.raises(OutputError, match='Cannot write'):
        write_item(tmp_path / 'gone' / 'a.json', mask, {}, NAMES, COLORS, NOTHING)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(OutputError, match=r'torchgeo-ctm\[stac\]'):
        write_item(path, mask, {}, NAMES, COLORS, NOTHING)
    assert [p.name for p in tmp_path.iterdir()] == ['a.tif']
