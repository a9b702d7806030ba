import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from torchgeo.datasets import NonGeoDataset, Sentinel2

from tests.fakes.sentinel2 import TAKEN, pixels_of, refused, write_band
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.scenes.sentinel2 import _PRODUCT_IMAGE
from torchgeo_ctm.scenes.sources import find_source


def test_a_product_without_metadata_is_known_by_its_name(tmp_path: Path) -> None:
    name = 'S2A_MSIL1C_20220301T101021_N0400_R022_T32TMT_20220301T121345.SAFE'
    images = tmp_path / name / 'GRANULE' / 'L1C_T32TMT' / 'IMG_DATA'
    write_band(images / f'T32TMT_{TAKEN}_B02.jp2', pixels_of('B02', 10))
    source = find_source(tmp_path / name)
    assert (source.offset, source.acquired) == (-1000, '2022-03-01T10:10:21Z')


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


def test_bands_of_different_offsets(tmp_path: Path) -> None:
    ones = np.ones((4, 4), np.uint16)
    for band, baseline in (('B02', '04.00'), ('B03', '02.09')):
        tags = {'PROCESSING_BASELINE': baseline}
        write_band(tmp_path / f'{band}.tif', ones, tags=tags)
    refused(tmp_path, r'different radiometric offsets \(-1000, 0\)')


def test_damaged_metadata(tmp_path: Path) -> None:
    write_band(tmp_path / 'B02.tif', np.ones((4, 4), np.uint16))
    (tmp_path / 'MTD_MSIL2A.xml').write_text('<a>')
    refused(tmp_path, r'MTD_MSIL2A\.xml is not readable XML')


@pytest.mark.parametrize(
    'name',
    [
        'T32TMT_20220301T101021_B8A_20m.jp2',
        'T32TMT_20220301T101021_B02.tif',
        'T32TMT_20220301T101021_B12.SAFE.jp2',
        'T32TMT_20220301T101021_SCL_20m.jp2',
        'XT32TMT_20220301T101021_B02.jp2',
        'T32TMT_20220301_B02.jp2',
        'T32TMT_20220301T101021_B02_far.jp2',
        'T32TMT_20220301T101021_B02',
    ],
)
def test_names_of_images_are_those_of_torchgeo(name: str) -> None:
    theirs = re.match(Sentinel2.filename_regex.format(r'\d+m'), name, re.VERBOSE)
    ours = _PRODUCT_IMAGE.match(name)
    assert (ours and ours.groupdict()) == (theirs and theirs.groupdict())


def test_scenes_are_data_sets_of_torchgeo() -> None:
    assert issubclass(SceneWindows, NonGeoDataset)
