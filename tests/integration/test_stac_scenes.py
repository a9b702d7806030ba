"""Items of a STAC catalog are mapped as their files on a disk are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import Run, refused
from tests.conftest import decisive, save_task, tiny_task
from tests.fakes.runs import SMALL, read
from tests.fakes.sentinel2 import native, write_band
from tests.fakes.serve import Behavior, served_parts
from tests.fakes.stac import make_item, write_catalog, write_cog
from torchgeo_ctm.errors import ResumeWarning, SceneError
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scenes.items import gdal_name, read_item
from torchgeo_ctm.scenes.scene import SceneWindows
from torchgeo_ctm.scenes.sources import find_source

BANDS = ('B01', 'B02', 'B03', 'B04', 'B05', 'B8A')
SIDE = 360
OPTIONS = SMALL | {'batch_size': 4, 'polygons': False, 'picture': False}
APPLIED = {'earthsearch:boa_offset_applied': True}
#: A box of some pixels in the corner of the scenes.
CORNER_BOX = (10.2725, 45.1445, 10.2745, 45.146)

pytestmark = pytest.mark.filterwarnings(
    'ignore::torchgeo_ctm.errors.PresenceWarning',
    'ignore::torchgeo_ctm.errors.ReflectanceWarning',
    'ignore::torchgeo_ctm.errors.CloudWarning',
)


def pixels_of(band: str) -> np.ndarray[Any, np.dtype[np.uint16]]:
    side = SIDE * 10 // native(band)
    rng = np.random.default_rng(BANDS.index(band))
    return rng.integers(1, 9999, (side, side)).astype(np.uint16)


@pytest.fixture(scope='module')
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalog of one scene, its COGs, and the same bands as a folder."""
    folder = tmp_path_factory.mktemp('store')
    for band in BANDS:
        write_cog(folder / 'cogs' / f'{band}.tif', pixels_of(band), native(band))
        write_band(folder / 'bands' / f'{band}.tif', pixels_of(band), native(band))
    classes = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
    classes[40:60, 40:60] = 9
    write_cog(folder / 'cogs' / 'SCL.tif', classes, 20)
    write_band(folder / 'bands' / 'SCL.tif', classes, 20)
    hrefs = {band: f'../../cogs/{band}.tif' for band in BANDS}
    facts = {'datetime': '2026-06-03T10:00:00Z', 'eo:cloud_cover': 3.2}
    item = make_item('S2A_1', hrefs, facts, classification='../../cogs/SCL.tif')
    write_catalog(folder, [item])
    return folder


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = tiny_task(in_channels=len(BANDS), bands=BANDS, patches={'head': 'tokens'})
    return save_task(decisive(task), tmp_path_factory.mktemp('net') / 'tiny.ckpt')


@pytest.fixture
def behavior() -> Behavior:
    return Behavior()


@pytest.fixture
def url(store: Path, behavior: Behavior) -> Iterator[str]:
    with served_parts(store, behavior) as address:
        yield address


@pytest.fixture
def saved(url: str, store: Path, tmp_path: Path) -> Path:
    """Items as search saves them: with absolute addresses."""
    item = json.loads((store / 'sentinel-2-l2a/S2A_1/item.json').read_text())
    for asset in item['assets'].values():
        asset['href'] = asset['href'].replace('../..', url)
    path = tmp_path / 'scenes.json'
    content = {'type': 'FeatureCollection', 'features': [item, {**item, 'id': 'S2B_2'}]}
    path.write_text(json.dumps(content))
    return path


def changed(saved: Path, **properties: Any) -> Path:
    """Write one item again with other properties."""
    item = json.loads(saved.read_text())['features'][0]
    item['properties'] |= properties
    path = saved.with_name('one.json')
    path.write_text(json.dumps(item))
    return path


@pytest.mark.parametrize(
    'options', [{}, {'resample': 'bilinear'}, {'resample': 'bilinear', 'nodata': 4000}]
)
def test_an_item_is_the_same_scene_as_its_files_in_a_folder(
    store: Path, saved: Path, options: dict[str, Any]
) -> None:
    scenes = f'{saved}#S2A_1', store / 'sentinel-2-l2a/S2A_1/item.json', store / 'bands'
    remote, local, folder = (
        SceneWindows(scene, BANDS, 32, 32, **options) for scene in scenes
    )
    assert remote.grid == local.grid == folder.grid
    assert remote.source.acquired == '2026-06-03T10:00:00Z'
    for number in (0, 77):
        window = folder.plan[number]
        expected = folder.read(window)[0]
        assert np.array_equal(remote.read(window)[0], expected)
        assert np.array_equal(local.read(window)[0], expected)


def test_the_map_of_an_item_has_the_bytes_of_that_of_its_files(
    store: Path, saved: Path, checkpoint: Path, tmp_path: Path, behavior: Behavior
) -> None:
    behavior.failures, behavior.delay = 1, 0.01
    options = OPTIONS | {'bbox': CORNER_BOX}
    predict_scene(f'{saved}#S2A_1', checkpoint, tmp_path / 'a.tif', **options)
    assert behavior.failures == 0
    predict_scene(store / 'bands', checkpoint, tmp_path / 'b.tif', **options)
    assert np.array_equal(read(tmp_path / 'a.tif'), read(tmp_path / 'b.tif'))
    # clouds of the classification
    predict_scene(store / 'bands', checkpoint, tmp_path / 'c.tif', **OPTIONS)
    predict_scene(f'{saved}#S2A_1', checkpoint, tmp_path / 'd.tif', **OPTIONS)
    whole = read(tmp_path / 'c.tif')
    assert np.array_equal(read(tmp_path / 'd.tif'), whole)
    assert (whole == 255)[80:120, 80:120].all()
    assert len(np.unique(whole)) == 4


def test_only_the_windows_of_a_box_are_read(
    saved: Path, checkpoint: Path, tmp_path: Path, behavior: Behavior
) -> None:
    scene = SceneWindows(f'{saved}#S2A_1', BANDS, 32, 16)
    read_windows = []
    original = SceneWindows.read

    def counting(self: SceneWindows, window: Any, out: Any = None) -> Any:
        read_windows.append(window)
        return original(self, window, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneWindows, 'read', counting)
        options = OPTIONS | {'bbox': CORNER_BOX}
        predict_scene(scene.scene, checkpoint, tmp_path / 'a.tif', **options)
    # 16 by 22 px and the windows of their batches
    assert max(w.col + w.width for w in read_windows) <= 96
    assert max(w.row + w.height for w in read_windows) <= 64


def test_an_expired_token_ends_in_one_line_and_resumes(
    checkpoint: Path, tmp_path: Path, behavior: Behavior
) -> None:
    rng = np.random.default_rng(0)
    for band in BANDS:
        # 1,920 × 48 px at 10 m, more than GDAL reads at once
        size = 19_200 // native(band), 480 // native(band)
        pixels = rng.integers(1, 9999, size).astype(np.uint16)
        write_cog(tmp_path / f'{band}.tif', pixels, native(band))
    behavior.tokens = tokens = {'whole': 1000, 'old': 1000, 'new': 1000}
    options = OPTIONS | {'stride': 32}
    with served_parts(tmp_path, behavior) as url:
        item = make_item('a', {band: f'{url}/{band}.tif' for band in BANDS}, {})
        scene = tmp_path / 'item.json'
        scene.write_text(json.dumps(item))

        def mapped(name: str, token: str) -> bytes:
            output = tmp_path / name
            given = options | {'sign': lambda href: f'{href}?token={token}'}
            predict_scene(scene, checkpoint, output, **given)
            return output.read_bytes()

        whole = mapped('whole.tif', 'whole')
        tokens['old'] = 1000 - tokens['whole'] - 3
        with pytest.raises(SceneError, match='again to resume') as caught:
            mapped('halfway.tif', 'old')
        assert '=old' not in str(caught.value)
        assert not (tmp_path / 'halfway.tif').exists()
        with pytest.warns(ResumeWarning):
            assert mapped('halfway.tif', 'new') == whole


@pytest.mark.parametrize(
    ('raster', 'properties', 'offset'),
    [
        ({'scale': 1e-4, 'offset': -0.1, 'nodata': 0}, {}, -1000),
        ({'scale': 1e-4, 'offset': -0.1, 'nodata': 0}, APPLIED, 0),
        ({'scale': 1e-4, 'offset': 0, 'nodata': 0}, {}, 0),
        ({'nodata': 0}, {'s2:processing_baseline': '05.09'}, -1000),
        ({'nodata': 0}, {'s2:processing_baseline': '03.01'}, 0),
        ({}, {}, None),
    ],
)
def test_offset_and_nodata_come_from_the_item(
    store: Path,
    tmp_path: Path,
    raster: dict[str, Any],
    properties: dict[str, Any],
    offset: float | None,
) -> None:
    hrefs = {band: str(store / f'cogs/{band}.tif') for band in BANDS}
    item = make_item('a', hrefs, properties, raster=raster)
    path = tmp_path / 'item.json'
    path.write_text(json.dumps(item))
    scene = SceneWindows(path, BANDS, 32, 32)
    assert scene.offset == offset
    assert (scene.factors == 1).all()
    assert set(scene.shifts.ravel()) == {offset or 0}
    assert scene.always_valid == ('nodata' not in raster)


def test_band_names_of_several_catalogs(store: Path, tmp_path: Path) -> None:
    """Earth Search, Planetary Computer, Copernicus Data Space (STAC 1.1)."""
    href = str(store / 'cogs/B02.tif')
    kinds: list[dict[str, Any]] = [
        {'blue': {'href': href}, 'blue-jp2': {'href': f'{href[:-4]}.jp2'}},
        {'B02': {'href': href, 'eo:bands': [{'name': 'B02', 'common_name': 'blue'}]}},
        {
            'B02_10m': {'href': href, 'bands': [{'name': 'B02'}], 'gsd': 10},
            'B02_20m': {
                'href': str(store / 'cogs/B05.tif'),
                'bands': [{'name': 'B02'}],
                'gsd': 20,
            },
        },
        {'image': {'href': href, 'bands': [{'eo:common_name': 'blue'}]}},
    ]
    for assets in kinds:
        path = tmp_path / 'item.json'
        path.write_text(json.dumps({'type': 'Feature', 'id': 'a', 'assets': assets}))
        source = find_source(path, ['B02'])
        assert source.bands is not None
        assert source.bands in (('B02',), ('blue',)), assets
        assert href in source.dataset


def test_an_asset_of_several_bands_is_a_scene(tmp_path: Path) -> None:
    path = write_band(tmp_path / 'a.tif', np.ones((3, 20, 20), np.uint16))
    bands = [{'name': name} for name in ('red', 'green', 'blue')]
    assets = {'data': {'href': './a.tif', 'bands': bands}}
    item = tmp_path / 'item.json'
    item.write_text(json.dumps({'type': 'Feature', 'id': 'a', 'assets': assets}))
    source = find_source(item, ['B02', 'B04'])
    assert source.bands == ('B04', 'B03', 'B02')
    assert source.dataset == str(path)


def test_several_items_are_dates_if_asked(
    saved: Path, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    small = ('--window', '32', '--bbox', ','.join(map(str, CORNER_BOX)), '--checkpoint')
    output = tmp_path / 'm.tif'
    call = ('predict', saved, *small, checkpoint, '--output', output)
    refused(run(*call), 'holds 2 scenes', f'{saved}#S2A_1', '--combine mean')
    status, _, err = run(*call, '--combine', 'mean')
    assert status == 0, err
    assert read(tmp_path / 'm_looks.tif').max() == 2


def test_wrong_items(saved: Path, store: Path, tmp_path: Path, url: str) -> None:
    for content, words in (
        ('{', 'Cannot read'),
        ('{"type": "FeatureCollection", "features": []}', 'holds no STAC item'),
        ('{"type": "Feature", "id": "a", "assets": {}}', 'has no asset for B01, B02'),
    ):
        path = tmp_path / 'wrong.json'
        path.write_text(content)
        with pytest.raises(SceneError, match=words):
            find_source(path, BANDS)
    with pytest.raises(SceneError, match='is a STAC catalog'):
        find_source(store / 'catalog.json', BANDS)
    with pytest.raises(SceneError, match=r"no item 'S2A_2'\. Did you mean 'S2."):
        find_source(f'{saved}#S2A_2', BANDS)
    with pytest.raises(SceneError, match='Cannot read'):
        find_source(f'{url}/nothing.json', BANDS)
    item = json.loads(saved.read_text())['features'][0]
    item['assets']['red']['href'] = f'{url}/cogs/gone.tif?token=secret'
    saved.write_text(json.dumps(item))
    with pytest.raises(SceneError, match=r'gone\.tif.*404') as caught:
        find_source(saved, BANDS)
    assert 'secret' not in str(caught.value)
    del item['assets']['red']
    saved.write_text(json.dumps(item))
    with pytest.raises(SceneError, match='no asset for B04, expected one per band'):
        find_source(saved, BANDS)


def test_a_url_of_one_raster_is_repeated_too(
    url: str, behavior: Behavior, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GDAL would list the folder of a server that this process is
    monkeypatch.setenv('GDAL_DISABLE_READDIR_ON_OPEN', 'EMPTY_DIR')
    behavior.failures = 1
    scene = SceneWindows(f'{url}/cogs/B02.tif', ['B02'], 32, 32)
    assert behavior.failures == 0
    assert np.array_equal(scene.read(scene.plan[0])[0][0], pixels_of('B02')[:32, :32])
    behavior.failures = 1
    monkeypatch.setenv('GDAL_HTTP_MAX_RETRY', '0')
    with pytest.raises(SceneError, match='503'):
        SceneWindows(f'{url}/cogs/B03.tif', ['B03'], 32, 32)


def test_addresses_for_gdal() -> None:
    assert gdal_name('s3://bucket/a.tif') == '/vsis3/bucket/a.tif'
    assert gdal_name('/data/a.tif') == '/data/a.tif'
    assert gdal_name('file:///data/a.tif') == '/data/a.tif'
    signed = gdal_name('https://host/a.tif?st=1&sig=a%2Fb')
    assert signed.startswith('/vsicurl?max_retry=')
    assert signed.endswith('&url=https://host/a.tif?st=1%26sig=a%252Fb')


def test_items_of_a_geoparquet_file(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip('pyarrow')
    pystac = pytest.importorskip('pystac')
    from torchgeo_ctm.catalog import write_scenes

    items = [
        pystac.Item.from_dict(i) for i in json.loads(saved.read_text())['features']
    ]
    write_scenes(items, tmp_path / 'scenes.parquet')
    for name in ('S2A_1', 'S2B_2'):
        # pyarrow may sort the keys of the assets
        found, expected = (
            sorted(read_item(f'{path}#{name}').assets, key=lambda asset: asset.file)
            for path in (tmp_path / 'scenes.parquet', saved)
        )
        assert found == expected
