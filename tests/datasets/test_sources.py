import itertools
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from torchgeo.datasets import Sentinel2

from tests.conftest import WriteScene, scene_pixels
from torchgeo_ctm.datasets.sources import SceneSource, find_source
from torchgeo_ctm.errors import SceneError
from torchgeo_ctm.scaling import SENTINEL2_BANDS

CORNER = (600_000, 5_000_040)
CRS = 'EPSG:32632'
TAKEN = '20220301T101021'
L2A_BANDS = tuple(band for band in SENTINEL2_BANDS if band != 'B10')

Pixels = NDArray[np.uint16]
Product = Callable[..., Path]


def native(band: str) -> int:
    """The resolution of a band in metres."""
    return int(Sentinel2.resolutions[band].removesuffix('m'))


def pixels_of(band: str, resolution: int, extent: int = 600) -> Pixels:
    """Draw the pixels of a band: differs between bands and resolutions."""
    seed = (SENTINEL2_BANDS.index(band), resolution)
    side = extent // resolution
    numbers = np.random.default_rng(seed).integers(1, 9999, (side, side))
    return numbers.astype(np.uint16)


def on_10_m(band: str, resolution: int | None = None) -> Pixels:
    """Repeat the pixels of a band on the grid of 10 m."""
    resolution = resolution or native(band)
    times = resolution // 10
    return pixels_of(band, resolution).repeat(times, 0).repeat(times, 1)


def write_band(
    path: Path,
    pixels: NDArray[np.generic],
    resolution: float = 10,
    corner: tuple[float, float] = CORNER,
    crs: str | None = CRS,
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Path:
    """Write one raster, JPEG 2000 without loss or GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    jpeg = path.suffix == '.jp2'
    options = {'QUALITY': '100', 'REVERSIBLE': 'YES'} if jpeg else {}
    layers = pixels if pixels.ndim == 3 else pixels[None]
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            'w',
            driver='JP2OpenJPEG' if jpeg else 'GTiff',
            dtype=layers.dtype,
            count=layers.shape[0],
            height=layers.shape[1],
            width=layers.shape[2],
            crs=crs,
            transform=Affine(resolution, 0, corner[0], 0, -resolution, corner[1]),
            nodata=nodata,
            **options,
        ) as raster,
    ):
        raster.write(layers)
        if tags:
            raster.update_tags(**tags)
        if mask is not None:
            raster.write_mask(mask)
    return path


def metadata(level: str, baseline: str, offset: int | None, name: str) -> str:
    """Write MTD_MSIL1C.xml or MTD_MSIL2A.xml, shortened to what readers look at."""
    radio = level == 'L1C'
    kind, tag = ('Level-1C', 'RADIO') if radio else ('Level-2A', 'BOA')
    plural = 'Radiometric_Offset_List' if radio else 'BOA_ADD_OFFSET_VALUES_LIST'
    offsets = ''.join(
        f'<{tag}_ADD_OFFSET band_id="{i}">{offset}</{tag}_ADD_OFFSET>'
        for i in range(13)
    )
    images = ''.join(
        f'<IMAGE_FILE>GRANULE/{level}_T32TMT_A034934_{TAKEN}/IMG_DATA/'
        f'T32TMT_{TAKEN}_{band}</IMAGE_FILE>'
        for band in SENTINEL2_BANDS
    )
    bands = ''.join(f'<BAND_NAME>{band}</BAND_NAME>' for band in SENTINEL2_BANDS)
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{kind}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_{kind}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2022-03-01T10:10:21.024Z</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>2022-03-01T10:10:21.024Z</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{name}</PRODUCT_URI>
      <PROCESSING_LEVEL>{kind}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{level[1:]}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake datatakeIdentifier="GS2A_{TAKEN}_034934_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
        <DATATAKE_SENSING_START>2022-03-01T10:10:21.024Z</DATATAKE_SENSING_START>
      </Datatake>
      <Query_Options>
        <Band_List>{bands}</Band_List>
        <PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT>
      </Query_Options>
      <Product_Organisation><Granule_List>
        <Granule granuleIdentifier="S2A_OPER_MSI_{level}_TL_EPAE_A034934_T32TMT_N{baseline}" imageFormat="JPEG2000">
          {images}
        </Granule>
      </Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>
      {'' if offset is None else f'<{plural}>{offsets}</{plural}>'}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:{kind}_User_Product>
"""


def tile_metadata() -> str:
    """Write MTD_TL.xml, shortened to the grid."""
    sizes = ''.join(
        f'<Size resolution="{r}"><NROWS>{600 // r}</NROWS><NCOLS>{600 // r}</NCOLS>'
        f'</Size><Geoposition resolution="{r}"><ULX>{CORNER[0]}</ULX>'
        f'<ULY>{CORNER[1]}</ULY><XDIM>{r}</XDIM><YDIM>-{r}</YDIM></Geoposition>'
        for r in (10, 20, 60)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-1C_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-1C_Tile_Metadata.xsd">
  <n1:General_Info><TILE_ID>S2A_OPER_MSI_L1C_TL_EPAE_A034934_T32TMT_N04.00</TILE_ID></n1:General_Info>
  <n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
    <HORIZONTAL_CS_NAME>WGS84 / UTM zone 32N</HORIZONTAL_CS_NAME>
    <HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>{sizes}
  </Tile_Geocoding></n1:Geometric_Info>
</n1:Level-1C_Tile_ID>
"""


@pytest.fixture(scope='session')
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """Write a Sentinel-2 product in its own layout, with all that lies beside."""
    made: dict[tuple[str, str, int | None], Path] = {}

    def write(
        level: str = 'L1C', baseline: str = '04.00', offset: int | None = -1000
    ) -> Path:
        key = (level, baseline, offset)
        if key in made:
            return made[key]
        name = (
            f'S2A_MSI{level}_{TAKEN}_N{baseline.replace(".", "")}_R022_T32TMT_'
            '20220301T121345.SAFE'
        )
        safe = tmp_path_factory.mktemp('product') / name
        tile = safe / 'GRANULE' / f'{level}_T32TMT_A034934_{TAKEN}'
        images = tile / 'IMG_DATA'
        for band in SENTINEL2_BANDS if level == 'L1C' else L2A_BANDS:
            for resolution in (10, 20, 60):
                if level == 'L1C' and resolution == native(band):
                    path = images / f'T32TMT_{TAKEN}_{band}.jp2'
                # Level-2A: B08 in 10 m only, else everything at its own and coarser
                elif (
                    level == 'L2A'
                    and resolution >= native(band)
                    and not (band == 'B08' and resolution > 10)
                ):
                    path = images / f'R{resolution}m'
                    path /= f'T32TMT_{TAKEN}_{band}_{resolution}m.jp2'
                else:
                    continue
                write_band(path, pixels_of(band, resolution), resolution)
        color = np.ones((3, 60, 60), np.uint8)
        write_band(
            images / f'T32TMT_{TAKEN}_TCI.jp2'
            if level == 'L1C'
            else images / 'R10m' / f'T32TMT_{TAKEN}_TCI_10m.jp2',
            color,
        )
        write_band(tile / 'QI_DATA' / 'MSK_DETFOO_B02.jp2', color[0])
        (tile / 'MTD_TL.xml').write_text(tile_metadata())
        main = safe / f'MTD_MSI{level}.xml'
        main.write_text(metadata(level, baseline, offset, name))
        (safe / 'manifest.safe').write_text('<xfdu:XFDU xmlns:xfdu="urn"/>')
        made[key] = safe
        return safe

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


def zipped(place: Path, archive: Path) -> Path:
    """Pack a folder, with its own name at the top."""
    with zipfile.ZipFile(archive, 'w') as into:
        for path in sorted(place.rglob('*')):
            into.write(path, path.relative_to(place.parent))
    return archive


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


def test_a_product_without_metadata_is_known_by_its_name(
    product: Product, tmp_path: Path
) -> None:
    name = 'S2A_MSIL1C_20220301T101021_N0400_R022_T32TMT_20220301T121345.SAFE'
    images = tmp_path / name / 'GRANULE' / 'L1C_T32TMT' / 'IMG_DATA'
    write_band(images / f'T32TMT_{TAKEN}_B02.jp2', pixels_of('B02', 10))
    source = find_source(tmp_path / name)
    assert (source.offset, source.acquired) == (-1000, '2022-03-01T10:10:21Z')


def test_nothing_lies_where_all_bands_are_0(product: Product, tmp_path: Path) -> None:
    for band in ('B02', 'B11'):
        values = pixels_of(band, native(band))
        values[: 200 // native(band)] = 0
        values[-1, -1] = 0 if band == 'B11' else 5
        write_band(tmp_path / f'T32TMT_{TAKEN}_{band}.jp2', values, native(band))
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        valid = raster.dataset_mask() > 0
    assert not valid[:20].any()
    assert valid[20:, :-2].all()
    assert valid[-1, -1]


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
        match=r'a folder with rasters, but no bands.*nearest: .*S1_IW_VH\.tif',
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


def test_types_are_brought_together(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.full((5, 5), 60_000, np.uint16))
    write_band(tmp_path / 'B03.tif', np.full((5, 5), -5, np.int16), nodata=-9)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        assert raster.dtypes == ('int32', 'int32')
        assert raster.nodatavals == (None, -9)
        assert raster.read()[:, 0, 0].tolist() == [60_000, -5]


def test_masks_are_kept(tmp_path: Path) -> None:
    fine, coarse = np.ones((12, 12), bool), np.ones((6, 6), bool)
    fine[:3], coarse[:, :2] = False, False
    ones = np.ones((12, 12), np.uint16)
    write_band(tmp_path / 'B02.tif', ones, mask=fine)
    write_band(tmp_path / 'B03.tif', ones)
    write_band(tmp_path / 'B05.tif', ones[:6, :6], 20, mask=coarse)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        valid = fine & coarse.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(raster.dataset_mask() > 0, valid)
        window = Window(3, 1, 5, 5)
        np.testing.assert_array_equal(
            raster.dataset_mask(window=window) > 0, valid[1:6, 3:8]
        )


def test_a_coarse_pixel_that_is_cut_off(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.ones((7, 9), np.uint16))
    write_band(tmp_path / 'B05.tif', np.ones((4, 4), np.uint16), 20)
    with rasterio.open(find_source(tmp_path).dataset) as raster:
        assert raster.shape == (7, 8)
        assert (raster.read() == 1).all()


def test_no_georeference_is_invented(tmp_path: Path) -> None:
    for band in ('B02', 'B03'):
        with rasterio.open(tmp_path / f'{band}.png', 'w', driver='GTiff', count=1,
                           width=4, height=4, dtype='uint8') as raster:  # fmt: skip
            raster.write(np.ones((1, 4, 4), np.uint8))
        (tmp_path / f'{band}.png').rename(tmp_path / f'{band}.tif')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        source = find_source(tmp_path)
    with rasterio.open(source.dataset) as raster:
        assert raster.crs is None
        assert raster.transform.is_identity


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


@pytest.mark.parametrize(
    ('tags', 'offset'),
    [
        ({}, None),
        ({'PROCESSING_BASELINE': '04.00'}, -1000),
        ({'processing_baseline': 'N0511'}, -1000),
        ({'PROCESSING_BASELINE': '02.09'}, 0),
        ({'PROCESSING_BASELINE': '99.99'}, None),
        ({'PROCESSING_BASELINE': 'new'}, None),
        ({'BOA_ADD_OFFSET': '0', 'PROCESSING_BASELINE': '05.00'}, 0),
        ({'RADIO_ADD_OFFSET': '-1000'}, -1000),
        ({'RADIO_ADD_OFFSET': 'many'}, None),
    ],
)
def test_offset_of_a_raster_from_its_tags(
    tmp_path: Path, tags: dict[str, str], offset: float | None
) -> None:
    path = write_band(tmp_path / 'x.tif', np.ones((4, 4), np.uint16), tags=tags)
    assert find_source(path).offset == offset
    write_band(tmp_path / 'B02.tif', np.ones((4, 4), np.uint16), tags=tags)
    assert find_source(tmp_path).offset == offset


@pytest.mark.parametrize(
    ('scale', 'offset', 'expected'),
    [(1e-4, -0.1, -1000), (1e-4, 0, None), (1, -1000, None), (2e-4, -0.1, None)],
)
def test_offset_of_a_raster_from_its_scale(
    tmp_path: Path, scale: float, offset: float, expected: float | None
) -> None:
    path = write_band(tmp_path / 'x.tif', np.ones((2, 4, 4), np.uint16))
    with rasterio.open(path, 'r+') as raster:
        raster.scales, raster.offsets = (scale,) * 2, (offset,) * 2
    assert find_source(path).offset == expected


def test_time_of_a_raster_from_its_tags(tmp_path: Path) -> None:
    ones = np.ones((4, 4), np.uint16)
    for text, expected in (('2022-03-01T10:10:21Z',) * 2, ('yesterday', None)):
        path = write_band(tmp_path / 'x.tif', ones, tags={'PRODUCT_START_TIME': text})
        assert find_source(path).acquired == expected


def refused(scene: str | Path, message: str) -> None:
    """Assert that a scene is refused in one line."""
    with pytest.raises(SceneError, match=message) as caught:
        find_source(scene)
    assert '\n' not in str(caught.value)


def test_what_is_not_there(tmp_path: Path, write_scene: WriteScene) -> None:
    write_scene('berlin.tif')
    refused(tmp_path / 'berln.tif', r'does not exist; .*; nearest: berlin\.tif')
    refused('/vsizip/nowhere.zip/x.tif', 'not a raster that GDAL opens')
    refused('zip://nowhere.zip!x.tif', r'nowhere\.zip does not exist')
    refused(tmp_path, r'rasters, but no bands; .*; nearest: .*berlin\.tif')
    empty = tmp_path / 'empty'
    empty.mkdir()
    refused(empty, 'is a folder with no raster; needed: one raster, or one a band')
    text = tmp_path / 'text.tif'
    text.write_text('no raster')
    refused(text, r'text\.tif is not a raster that GDAL opens')
    broken = tmp_path / 'broken.zip'
    broken.write_bytes(b'no archive')
    refused(broken, r'broken\.zip is not a \.zip')


def test_metadata_in_an_archive(product: Product, tmp_path: Path) -> None:
    safe = product()
    archive = zipped(safe, tmp_path / 'a.zip')
    member = f'{safe.name}/MTD_MSIL1C.xml'
    assert find_source(f'zip://{archive}!{member}').bands == SENTINEL2_BANDS
    # by GDAL's own name it is a container
    message = 'no bands itself; needed: one raster; nearest: SENTINEL2_L1C:'
    refused(f'/vsizip/{archive}/{member}', message)


def test_an_archive_of_several_rasters(write_scene: WriteScene, tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    for letter in 'abcd':
        write_scene(f'in/{letter}.tif', height=4, width=4)
    archive = zipped(tmp_path / 'in', tmp_path / 'four.zip')
    message = r'4 rasters \(a\.tif, b\.tif, c\.tif, …\); .*nearest: zip://.*!in/a\.tif'
    refused(archive, message)
    refused(f'zip://{archive}!in/e.tif', r'holds no in/e\.tif; nearest: in/')


def test_two_files_for_a_band(folder: Path) -> None:
    write_band(folder / 'other_B2.tif', np.ones((60, 60), np.uint16))
    refused(folder, r'2 files for band B02 \(S2_Berlin_B02\.tif, other_B2\.tif\)')
    assert find_source(folder, ['B03', 'B04']).bands == ('B03', 'B04')


def test_grids_that_do_not_nest(tmp_path: Path) -> None:
    ones = np.ones((60, 60), np.uint16)
    write_band(tmp_path / 'B02.tif', ones)
    path = tmp_path / 'B03.tif'
    write_band(path, ones, crs='EPSG:32633')
    refused(tmp_path, r'B03\.tif and B02\.tif have different CRS \(EPSG:32633 and')
    write_band(path, ones, corner=(CORNER[0] + 5, CORNER[1]))
    refused(tmp_path, 'same upper left corner')
    write_band(path, ones, resolution=15)
    refused(tmp_path, 'whole multiples')
    write_band(path, ones[:58])
    refused(tmp_path, r'different areas \(58 × 60 and 60 × 60 px')
    write_band(path, np.stack([ones, ones]))
    refused(tmp_path, r'B03\.tif has 2 bands; needed: one raster a band')


def test_bands_of_different_offsets(tmp_path: Path) -> None:
    ones = np.ones((4, 4), np.uint16)
    for band, baseline in (('B02', '04.00'), ('B03', '02.09')):
        tags = {'PROCESSING_BASELINE': baseline}
        write_band(tmp_path / f'{band}.tif', ones, tags=tags)
    refused(tmp_path, r'different radiometric offsets \(-1000, 0\)')


def test_a_product_of_several_tiles(tmp_path: Path) -> None:
    for tile in ('L1C_T32TMT', 'L1C_T32TMS'):
        images = tmp_path / 'old.SAFE' / 'GRANULE' / tile / 'IMG_DATA'
        write_band(images / 'S2A_OPER_MSI_L1C_B02.jp2', np.ones((60, 60), np.uint16))
    refused(tmp_path / 'old.SAFE', r'2 tiles; needed: one; nearest: .*L1C_T32TMS')
    assert find_source(images).bands == ('B02',)


def test_damaged_metadata(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.ones((4, 4), np.uint16))
    (tmp_path / 'MTD_MSIL2A.xml').write_text('<a>')
    refused(tmp_path, r'MTD_MSIL2A\.xml is not readable XML')
