import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from tests.conftest import WriteScene, scene_pixels
from tests.fakes.sentinel2 import (
    CORNER,
    CRS,
    L2A_BANDS,
    Pixels,
    native,
    on_10_m,
    pixels_of,
    refused,
    write_band,
    write_product,
    zipped,
)
from torchgeo_ctm.errors import SceneError
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scenes.sources import SceneSource, find_source

Product = Callable[..., Path]


@pytest.fixture(scope='session')
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """Write a Sentinel-2 product, each kind of it once."""
    made: dict[tuple[str, str, int | None], Path] = {}

    def write(
        level: str = 'L1C', baseline: str = '04.00', offset: int | None = -1000
    ) -> Path:
        kind = (level, baseline, offset)
        if kind not in made:
            made[kind] = write_product(tmp_path_factory.mktemp('product'), *kind)
        return made[kind]

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one GeoTIFF a band, beside other things."""
    place = tmp_path / 'my bands'
    for band in SENTINEL2_BANDS:
        path = place / f'S2_Berlin_{band}.tif'
        write_band(path, pixels_of(band, native(band)), native(band))
    (place / 'notes.txt').write_text('B02')
    return place


def check(
    source: SceneSource, bands: Sequence[str], expected: Sequence[Pixels]
) -> None:
    """Assert names, grid and every pixel of a source, in windows of all alignments."""
    assert source.bands == tuple(bands)
    wanted = np.stack(expected)
    with rasterio.open(source.dataset) as raster:
        assert raster.descriptions == tuple(bands)
        assert raster.crs == CRS
        assert raster.transform == Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
        np.testing.assert_array_equal(raster.read(), wanted)
        for row, col, side in itertools.product((0, 1, 8), (0, 5, 7), (1, 4, 19)):
            np.testing.assert_array_equal(
                raster.read(window=Window(col, row, side, side)),
                wanted[:, row : row + side, col : col + side],
            )


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize(
    ('baseline', 'listed', 'offset'),
    [('04.00', -1000, -1000), ('02.09', None, 0), ('05.11', None, -1000)],
)
def test_level_1c(
    product: Product,
    tmp_path: Path,
    packed: bool,
    baseline: str,
    listed: int | None,
    offset: float,
) -> None:
    scene = product('L1C', baseline, listed)
    if packed:
        scene = zipped(scene, tmp_path / 'product.zip')
    source = find_source(scene)
    check(source, SENTINEL2_BANDS, [on_10_m(band) for band in SENTINEL2_BANDS])
    assert source.name == str(scene)
    assert source.offset == offset
    assert source.acquired == '2022-03-01T10:10:21.024Z'


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'zip'])
def test_level_2a_takes_the_finest(
    product: Product, tmp_path: Path, packed: bool
) -> None:
    scene = product('L2A')
    if packed:
        scene = zipped(scene, tmp_path / 'product.zip')
    source = find_source(scene)
    check(source, L2A_BANDS, [on_10_m(band) for band in L2A_BANDS])
    assert source.offset == -1000


def test_gdals_own_driver_sees_the_same(product: Product) -> None:
    main = product() / 'MTD_MSIL1C.xml'
    ours = find_source(main)
    for resolution in (10, 20, 60):
        name = f'SENTINEL2_L1C:{main}:{resolution}m:EPSG_32632'
        theirs = find_source(name)
        assert (theirs.dataset, theirs.bands) == (name, None)
        assert (theirs.offset, theirs.acquired) == (ours.offset, ours.acquired)
        with rasterio.open(theirs.dataset) as a, rasterio.open(ours.dataset) as b:
            for index, text in zip(a.indexes, a.descriptions, strict=True):
                band = f'B{text.split(",")[0][1:].zfill(2)}'
                step = resolution // 10
                position = SENTINEL2_BANDS.index(band) + 1
                np.testing.assert_array_equal(
                    a.read(index), b.read(position)[::step, ::step]
                )


def test_parts_of_a_product_know_its_offset(product: Product) -> None:
    for safe, inner in ((product(), 'IMG_DATA'), (product('L2A'), 'IMG_DATA/R20m')):
        (tile,) = (safe / 'GRANULE').iterdir()
        whole = find_source(tile)
        assert len(whole.bands or ()) == (13 if 'L1C' in safe.name else 12)
        part = find_source(tile / inner)
        assert whole.offset == part.offset == -1000
    assert part.bands == tuple(b for b in L2A_BANDS if b in
                               ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A',
                                'B11', 'B12'))  # fmt: skip
    with rasterio.open(part.dataset) as raster:
        assert raster.res == (20, 20)
        np.testing.assert_array_equal(raster.read(1), pixels_of('B02', 20))


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'zip'])
def test_a_folder_of_bands(folder: Path, tmp_path: Path, packed: bool) -> None:
    scene = zipped(folder, tmp_path / 'a.zip') if packed else folder
    source = find_source(str(scene))
    check(source, SENTINEL2_BANDS, [on_10_m(band) for band in SENTINEL2_BANDS])
    assert (source.offset, source.acquired) == (None, None)


def test_only_needed_bands_are_stacked_on_their_own_grid(folder: Path) -> None:
    source = find_source(folder, ['B12', 'b5', 'B9'])
    assert source.bands == ('B05', 'B09', 'B12')
    with rasterio.open(source.dataset) as raster:
        assert raster.res == (20, 20)
        np.testing.assert_array_equal(raster.read(1), pixels_of('B05', 20))
    assert find_source(folder, ['B12', 'VV']).bands == SENTINEL2_BANDS


def test_other_names_are_bands_when_they_are_needed(tmp_path: Path) -> None:
    for name in ('S1_IW_VV', 'S1_IW_VH', 'S1_IW_angle'):
        write_band(tmp_path / f'{name}.tif', np.ones((5, 5), np.float32))
    assert find_source(tmp_path, ['vv', 'VH']).bands == ('VH', 'VV')
    with pytest.raises(
        SceneError,
        match=r'a folder with rasters, but no bands.*Did you mean .*S1_IW_VH\.tif',
    ):
        find_source(tmp_path)


@pytest.mark.parametrize(
    'name',
    ['B2.tif', 'b02.TIF', 'x_B02.tif', 'HLS.S30.T32TMT.v2.0.B02.tif', 'x-B02_10m.tiff'],
)
def test_names_of_files(tmp_path: Path, name: str) -> None:
    write_band(tmp_path / name, np.ones((5, 5), np.uint16))
    (band,) = find_source(tmp_path).bands or ()
    assert band and band.upper() in ('B2', 'B02')


def test_a_plain_raster_is_left_as_it_is(write_scene: WriteScene) -> None:
    path = write_scene()
    assert find_source(path) == SceneSource(str(path), str(path), None, None, None)


def test_a_raster_in_a_zip(write_scene: WriteScene, tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    path = write_scene('in/B02.tif')
    archive = zipped(path.parent, tmp_path / 'scene.zip')
    names = [
        str(archive),
        f'zip://{archive}',
        f'zip://{archive}!in/B02.tif',
        f'zip://{archive}!/in',
        f'/vsizip/{archive}/in/B02.tif',
    ]
    for name in names:
        source = find_source(name)
        assert (source.name, source.bands) == (name, None)
        with rasterio.open(source.dataset) as raster:
            np.testing.assert_array_equal(raster.read(), scene_pixels(70, 90))


def test_a_relative_path_and_a_vrt(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = find_source(folder).dataset
    (folder.parent / 'stack.vrt').write_text(text)
    monkeypatch.chdir(folder.parent)
    for scene in ('stack.vrt', 'my bands', text):
        source = find_source(scene)
        assert len(source.name) < 20
        with rasterio.open(source.dataset) as raster:
            np.testing.assert_array_equal(raster.read(2), on_10_m('B02'))


def test_what_is_not_there(tmp_path: Path, write_scene: WriteScene) -> None:
    write_scene('berlin.tif')
    refused(tmp_path / 'berln.tif', r'does not exist, .* Did you mean .*berlin\.tif')
    refused('/vsizip/nowhere.zip/x.tif', 'Cannot open')
    refused('zip://nowhere.zip!x.tif', r'nowhere\.zip does not exist')
    refused(tmp_path, r'rasters, but no bands, .* Did you mean .*berlin\.tif')
    empty = tmp_path / 'empty'
    empty.mkdir()
    refused(empty, 'is a folder without a raster, expected one raster, or one per band')
    text = tmp_path / 'text.tif'
    text.write_text('no raster')
    refused(text, r'Cannot open .*text\.tif')
    broken = tmp_path / 'broken.zip'
    broken.write_bytes(b'no archive')
    refused(broken, r'broken\.zip is not a \.zip')


def test_metadata_in_an_archive(product: Product, tmp_path: Path) -> None:
    safe = product()
    archive = zipped(safe, tmp_path / 'a.zip')
    member = f'{safe.name}/MTD_MSIL1C.xml'
    assert find_source(f'zip://{archive}!{member}').bands == SENTINEL2_BANDS
    # by GDAL's own name it is a container
    message = 'no bands itself, expected a raster. Did you mean .SENTINEL2_L1C:'
    refused(f'/vsizip/{archive}/{member}', message)


def test_an_archive_of_several_rasters(write_scene: WriteScene, tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    for letter in 'abcd':
        write_scene(f'in/{letter}.tif', height=4, width=4)
    archive = zipped(tmp_path / 'in', tmp_path / 'four.zip')
    message = (
        r'4 rasters \(a\.tif, b\.tif, c\.tif, …\), .*Did you mean .zip://.*!in/a\.tif'
    )
    refused(archive, message)
    refused(f'zip://{archive}!in/e.tif', r'has no member in/e\.tif\. Did you mean .in/')


def test_two_files_for_a_band(folder: Path) -> None:
    write_band(folder / 'other_B2.tif', np.ones((60, 60), np.uint16))
    refused(folder, r'2 files for band B02 \(S2_Berlin_B02\.tif, other_B2\.tif\)')
    assert find_source(folder, ['B03', 'B04']).bands == ('B03', 'B04')


def test_a_product_of_several_tiles(tmp_path: Path) -> None:
    for tile in ('L1C_T32TMT', 'L1C_T32TMS'):
        images = tmp_path / 'old.SAFE' / 'GRANULE' / tile / 'IMG_DATA'
        write_band(images / 'S2A_OPER_MSI_L1C_B02.jp2', np.ones((60, 60), np.uint16))
    refused(tmp_path / 'old.SAFE', r'2 tiles, expected one\. Did you mean .*L1C_T32TMS')
    assert find_source(images).bands == ('B02',)
