"""Products in EOPF Zarr are mapped as the same pixels in GeoTIFFs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from tests.conftest import decisive, save_task, tiny_task
from tests.fakes.eopf import CHUNK, path_of, write_product
from tests.fakes.runs import SMALL, read
from tests.fakes.sentinel2 import native, write_band
from tests.fakes.serve import Behavior, served_parts
from torchgeo_ctm.errors import NodataWarning, SceneError
from torchgeo_ctm.grids import Window
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scenes.scene import SceneWindows
from torchgeo_ctm.scenes.sources import band_names, find_source

BANDS = ('B01', 'B02', 'B03', 'B05', 'B8A')
SIDE = 120
WHOLE = Window(0, 0, SIDE, SIDE)
OPTIONS = SMALL | {'polygons': False, 'picture': False}

pytestmark = pytest.mark.filterwarnings(
    'ignore::torchgeo_ctm.errors.PresenceWarning',
    'ignore::torchgeo_ctm.errors.ReflectanceWarning',
    'ignore::torchgeo_ctm.errors.CloudWarning',
)


def pixels(band: str) -> NDArray[np.uint16]:
    """Random pixels; the first 50 are nodata, which makes a chunk of 10 m empty."""
    side = SIDE * 10 // native(band)
    found = np.random.default_rng(BANDS.index(band)).integers(1, 9999, (side, side))
    empty = CHUNK * 10 // native(band)
    found[:empty, :empty] = 0
    return found.astype(np.uint16)


def classes() -> NDArray[np.uint8]:
    found = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
    found[40:44, 40:44] = 9
    return found


def blosc(values: NDArray[Any], folder: Path) -> bytes:
    """Compress as ESA does: Blosc, Zstandard, shuffled bits."""
    store = folder / 'chunk.zarr'
    shutil.rmtree(store, ignore_errors=True)
    options = {'COMPRESS': 'BLOSC', 'BLOSC_CNAME': 'zstd', 'BLOSC_SHUFFLE': 'BIT'}
    height, width = values.shape
    with rasterio.open(
        store,
        'w',
        driver='Zarr',
        dtype=values.dtype,
        count=1,
        height=height,
        width=width,
        BLOCKSIZE=f'{height},{width}',
        **options,
    ) as raster:
        raster.write(values, 1)
    return (store / 'chunk' / '0.0').read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same pixels, a GeoTIFF for each band."""
    for band in BANDS:
        path = tmp_path / 'bands' / f'{band}.tif'
        write_band(path, pixels(band), native(band), nodata=0)
    write_band(tmp_path / 'bands' / 'SCL.tif', classes(), 20, nodata=0)
    return tmp_path / 'bands'


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(tmp_path, {b: pixels(b) for b in BANDS}, classes())


@pytest.fixture
def url(product: Path) -> Iterator[str]:
    with served_parts(product.parent, Behavior(failures=1, suffix='0.1')) as address:
        yield f'{address}/{product.name}'


def edit(product: Path, path: str, **changes: Any) -> None:
    """Change consolidated metadata; None removes an entry."""
    file = product / '.zmetadata'
    content = json.loads(file.read_text())
    node = content['metadata'][path]
    for key, value in changes.items():
        name = key.replace('__', ':')
        node.pop(name, None)
        if value is not None:
            node[name] = value
    file.write_text(json.dumps(content))


def compressed(values: Any, folder: Path) -> Any:
    """Compress as the products are; skip where GDAL was built without it."""
    try:
        return blosc(values, folder)
    except RasterioError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize('form', ['folder', 'zip', 'blosc', 'product crs'])
def test_pixels_are_those_of_a_folder_of_bands(
    folder: Path, tmp_path: Path, form: str
) -> None:
    options: dict[str, Any] = {'own_crs': form != 'product crs'}
    if form == 'blosc':
        settings = {'cname': 'zstd', 'clevel': 5, 'shuffle': 2, 'blocksize': 0}
        options['compressor'] = {'id': 'blosc', **settings}
        options['compress'] = lambda values: compressed(values, tmp_path)
    scene = write_product(
        tmp_path / 'eopf', {b: pixels(b) for b in BANDS}, classes(), **options
    )
    if form == 'zip':
        archive = shutil.make_archive(str(scene), 'zip', scene.parent, scene.name)
        shutil.rmtree(scene)
        scene = Path(archive)
    found, expected = (SceneWindows(s, BANDS, 32, 32) for s in (scene, folder))
    assert found.grid == expected.grid
    assert found.source.acquired == '2026-06-03T10:10:41.024Z'
    assert found.offset == -1000
    for one, other in zip(found.read(WHOLE), expected.read(WHOLE), strict=True):
        assert np.array_equal(one, other)
    assert not found.read(Window(0, 0, 32, 32))[1].any()
    assert band_names(scene) == list(BANDS)


def test_the_map_is_that_of_geotiffs(
    product: Path, folder: Path, url: str, tmp_path: Path
) -> None:
    task = tiny_task(in_channels=len(BANDS), bands=BANDS, patches={'head': 'tokens'})
    checkpoint = save_task(decisive(task), tmp_path / 'tiny.ckpt')
    item = tmp_path / 'item.json'
    assets = {'product': {'href': url, 'type': 'application/vnd+zarr'}}
    item.write_text(json.dumps({'type': 'Feature', 'id': 'a', 'assets': assets}))
    maps = []
    for number, scene in enumerate((folder, product, url, item)):
        output = tmp_path / f'{number}.tif'
        # GeoTIFFs do not say the offset
        predict_scene(scene, checkpoint, output, offset=-1000, **OPTIONS)
        maps.append(read(output))
        assert np.array_equal(maps[0], maps[-1])
    assert (maps[0] == 255)[80:88, 80:88].all()
    assert len(np.unique(maps[0])) > 2


def test_an_offset_of_zero_is_one(tmp_path: Path) -> None:
    product = write_product(tmp_path, {'B02': pixels('B02')}, offset=0.0)
    assert SceneWindows(product, ['B02'], 32, 32).offset == 0


def test_a_chunk_that_is_missing(product: Path) -> None:
    (product / path_of('B03') / '1.1').unlink()
    with pytest.warns(NodataWarning, match=r'r10m/b03 lacks chunk 1\.1 \(of 1\)'):
        scene = SceneWindows(product, BANDS, 32, 32)
    values, _ = scene.read(WHOLE)
    assert not values[2, 50:100, 50:100].any()
    assert values[2, 100:, 100:].all()


def test_products_that_are_incomplete(product: Path, url: str, tmp_path: Path) -> None:
    array = path_of('B8A')
    with pytest.raises(SceneError, match=r'no array for B04, B12, expected.*B01, B02'):
        find_source(product, ['B02', 'B04', 'B12'])
    edit(product, f'{array}/.zattrs', proj__transform=None)
    with pytest.raises(SceneError, match=r'r20m/b8a is incomplete.*proj:transform'):
        find_source(product, BANDS)
    edit(product, f'{array}/.zattrs', proj__transform=[20, 0, 1, 0, -20])
    with pytest.raises(SceneError, match=r'r20m/b8a is incomplete'):
        find_source(url, BANDS)
    (product / '.zmetadata').write_text('{}')
    with pytest.raises(SceneError, match='has no consolidated Zarr metadata'):
        find_source(product, BANDS)
    (product / '.zmetadata').write_text('{"metadata": {}}')
    with pytest.raises(SceneError, match='has no array measurements/reflectance'):
        find_source(product, BANDS)
    (product / '.zmetadata').rename(product / 'zarr.json')
    with pytest.raises(SceneError, match='is Zarr version 3, expected version 2'):
        find_source(product, BANDS)
    with pytest.raises(
        SceneError, match=r'Cannot open .* as EOPF Zarr: .* answers HTTP 404'
    ):
        find_source(url, BANDS)
