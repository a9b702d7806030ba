"""Sentinel-2 products, and single bands, as they lie on a disk."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from torchgeo.datasets import Sentinel2

from torchgeo_ctm.errors import SceneError
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scenes.sources import find_source

CORNER = (600_000, 5_000_040)
CRS = 'EPSG:32632'
TAKEN = '20220301T101021'
L2A_BANDS = tuple(band for band in SENTINEL2_BANDS if band != 'B10')

Pixels = NDArray[np.uint16]


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
    transform: Affine | None = None,
) -> Path:
    """Write one raster, lossless JPEG 2000 or GeoTIFF."""
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
            transform=transform
            or Affine(resolution, 0, corner[0], 0, -resolution, corner[1]),
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


def write_shifted_bands(folder: Path, suffix: str = '.tif') -> dict[str, Pixels]:
    """Write bands whose coarse grids are shifted and end early, as in a cut product.

    A 10 m pixel (row, col) lies in the 20 m pixel (row // 2, (col + 1) // 2) and in
    the 60 m pixel ((row + 2) // 6, (col + 1) // 6). The last pixels of the coarse bands
    are missing: one row at 20 m, three rows and two columns at 60 m.

    Returns:
        Each band on the 10 m grid, 31 × 37 px, with the last pixels repeated.
    """
    rng = np.random.default_rng(7)
    row, col = np.indices((31, 37))
    left, top = CORNER
    expected = {}
    for band, resolution, size, corner, index in (
        ('B02', 10, (31, 37), CORNER, (row, col)),
        ('B05', 20, (15, 19), (left - 10, top), (row // 2, (col + 1) // 2)),
        ('B01', 60, (5, 6), (left - 10, top + 20), ((row + 2) // 6, (col + 1) // 6)),
    ):
        pixels = rng.integers(1, 9999, size).astype(np.uint16)
        write_band(folder / f's2_{band}{suffix}', pixels, resolution, corner)
        rows, columns = (np.minimum(i, n - 1) for i, n in zip(index, size, strict=True))
        expected[band] = pixels[rows, columns]
    return expected


def write_product(
    parent: Path,
    level: str,
    baseline: str,
    offset: int | None,
    classification: NDArray[np.uint8] | None = None,
) -> Path:
    """Write a Sentinel-2 product in its own layout, with all that lies beside.

    Its scene classification of 20 m, if given, comes in 60 m too.
    """
    name = (
        f'S2A_MSI{level}_{TAKEN}_N{baseline.replace(".", "")}_R022_T32TMT_'
        '20220301T121345.SAFE'
    )
    safe = parent / name
    tile = safe / 'GRANULE' / f'{level}_T32TMT_A034934_{TAKEN}'
    images = tile / 'IMG_DATA'
    for band in SENTINEL2_BANDS if level == 'L1C' else L2A_BANDS:
        for resolution in resolutions(level, band):
            path = images / image_name(level, band, resolution)
            write_band(path, pixels_of(band, resolution), resolution)
    if classification is not None:
        for resolution in (20, 60):
            path = images / image_name(level, 'SCL', resolution)
            step = resolution // 20
            write_band(path, classification[::step, ::step], resolution)
    color = np.ones((3, 60, 60), np.uint8)
    write_band(images / image_name(level, 'TCI', 10), color)
    write_band(tile / 'QI_DATA' / 'MSK_DETFOO_B02.jp2', color[0])
    (tile / 'MTD_TL.xml').write_text(tile_metadata())
    main = safe / f'MTD_MSI{level}.xml'
    main.write_text(metadata(level, baseline, offset, name))
    (safe / 'manifest.safe').write_text('<xfdu:XFDU xmlns:xfdu="urn"/>')
    return safe


def resolutions(level: str, band: str) -> list[int]:
    """The resolutions in which a product holds a band.

    Level-2A: B08 in 10 m only, else everything at its own and coarser.
    """
    if level == 'L1C' or band == 'B08':
        return [native(band)]
    return [resolution for resolution in (10, 20, 60) if resolution >= native(band)]


def image_name(level: str, band: str, resolution: int) -> str:
    """The path of a band below IMG_DATA."""
    if level == 'L1C':
        return f'T32TMT_{TAKEN}_{band}.jp2'
    return f'R{resolution}m/T32TMT_{TAKEN}_{band}_{resolution}m.jp2'


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


def zipped(place: Path, archive: Path) -> Path:
    """Pack a folder, with its own name at the top."""
    with zipfile.ZipFile(archive, 'w') as into:
        for path in sorted(place.rglob('*')):
            into.write(path, path.relative_to(place.parent))
    return archive


def refused(scene: str | Path, message: str) -> None:
    """Assert that a scene is refused in one line."""
    with pytest.raises(SceneError, match=message) as caught:
        find_source(scene)
    assert '\n' not in str(caught.value)
