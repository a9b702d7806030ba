import shutil
import threading
import warnings
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError

from tests.fakes.dfc2020 import Georeference, write_contest, write_dfc2020
from torchgeo_ctm.datasets import DFC2020
from torchgeo_ctm.datasets.dfc2020 import PROTOCOLS, Layout, find_layout, tile_names
from torchgeo_ctm.errors import (
    BandError,
    DataError,
    GeoreferenceWarning,
    GridError,
    NodataWarning,
    SceneError,
    SettingError,
)
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.split import SPLITS


def test_labels_become_the_eight_classes(tmp_path: Path) -> None:
    source = write_dfc2020(tmp_path)
    sample = DFC2020(tmp_path, 'train')[0]
    assert sample['image'].shape == (13, 256, 256)
    assert sample['image'].dtype == torch.float32
    assert sample['mask'].dtype == torch.int64
    names = dict(enumerate(DFC2020.classes)) | {255: None}
    wanted = {
        0: None, 1: 'Forest', 2: 'Shrubland', 3: None, 4: 'Grassland', 5: 'Wetlands',
        6: 'Croplands', 7: 'Urban/Built-up', 8: None, 9: 'Barren', 10: 'Water',
    }  # fmt: skip
    labels = torch.from_numpy(source['train'].astype(np.int64))
    for value, name in wanted.items():
        found = sorted(set(sample['mask'][labels == value].tolist()))
        assert [names[c] for c in found] == [name]


def test_tiles_with_and_without_georeference_share_a_batch(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    [batch] = DataLoader(DFC2020(tmp_path, 'train'), batch_size=2)
    assert batch['image'].shape == (2, 13, 256, 256)
    assert sorted(batch) == ['image', 'mask']


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    all_bands = DFC2020(tmp_path, 'val')[0]['image']
    some = DFC2020(tmp_path, 'val', bands=('B12', 'B02'))[0]['image']
    assert torch.equal(some, all_bands[[12, 1]])


def test_transforms_see_the_classes(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, 'train', transforms=lambda s: {**s, 'image': s['mask']})
    assert dataset[0]['image'].max() == 255


def test_the_zip_is_unpacked(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    write_dfc2020(made)
    with zipfile.ZipFile(tmp_path / 'dfc2020.zip', 'w') as archive:
        for file in made.rglob('*'):
            archive.write(file, file.relative_to(made))
    assert len(DFC2020(tmp_path, 'test')) == 1


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_download_uses_the_hub_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real download code, on a small archive in the real layout."""
    made = tmp_path / 'made'
    write_dfc2020(made)
    archive = tmp_path / 'dfc2020.zip'
    with zipfile.ZipFile(archive, 'w') as content:
        for file in made.rglob('*'):
            content.write(file, file.relative_to(made))
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/dfc2020.zip'
        monkeypatch.setattr(DFC2020, 'url', url)
        assert len(DFC2020(tmp_path / 'root', 'train', download=True)) == 2
        server.shutdown()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        DFC2020(tmp_path)


@pytest.mark.parametrize('what', ['tiles', 'list'])
def test_a_folder_without_tiles(tmp_path: Path, what: str) -> None:
    write_dfc2020(tmp_path)
    folder = tmp_path / 'dfc2020_s1s2'
    if what == 'tiles':
        for tile in folder.glob('dfc/*.tif'):
            tile.unlink()
    else:
        (folder / 'dfc-train-new.csv').write_text('')
    with pytest.raises(DataError, match='Expected GeoTIFF tiles in'):
        DFC2020(tmp_path)


def test_fake_tiles_are_like_the_real_ones(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    paths = sorted((tmp_path / 'dfc2020_s1s2' / 's2').iterdir())
    assert len(paths) == 4
    with rasterio.open(paths[0]) as raster:
        assert (raster.count, raster.dtypes[0], raster.shape) == (
            13,
            'uint16',
            (256, 256),
        )


ALL = (*SENTINEL2_BANDS, 'VV', 'VH')


def stored(path: Path, **options: object) -> NDArray[np.generic]:
    with rasterio.open(path) as raster:
        pixels: NDArray[np.generic] = raster.read(**options)
        return pixels


def test_sentinel1_follows_sentinel2_in_decibels(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, 'val', bands=ALL)
    image = dataset[0]['image']
    assert image.shape == (15, 256, 256)
    assert image.dtype == torch.float32
    name = str(dataset.files[0])
    radar = stored(dataset.layout.path(name, 's1'))
    assert np.array_equal(image[13:], radar.astype(np.float32))
    assert torch.equal(image[:13], DFC2020(tmp_path, 'val')[0]['image'])


def test_bands_of_both_sensors_in_any_order(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    every = DFC2020(tmp_path, 'val', bands=ALL)[0]['image']
    some = DFC2020(tmp_path, 'val', bands=('vh', 'B2', 'VV', 'B12'))
    assert some.bands == ('VH', 'B02', 'VV', 'B12')
    assert torch.equal(some[0]['image'], every[[14, 1, 13, 12]])


def test_radar_alone_needs_no_sentinel2(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    shutil.rmtree(tmp_path / 'dfc2020_s1s2' / 's2')
    assert DFC2020(tmp_path, bands=('VV', 'VH'))[0]['image'].shape == (2, 256, 256)
    with pytest.raises(DataError, match=r'2 of their files are missing.*dfc, s2'):
        DFC2020(tmp_path)


def test_an_unknown_band_is_refused(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    with pytest.raises(BandError, match=r"no band 'HV'.*B12, VV, VH"):
        DFC2020(tmp_path, bands=('B02', 'HV'))


def test_a_missing_tile_is_counted(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    last = DFC2020(tmp_path, 'train').layout.path(
        'ROIs0000_validation_dfc_1_p1.tif', 's2'
    )
    last.unlink()
    with pytest.raises(DataError, match=f'1 of their files .* first {last}'):
        DFC2020(tmp_path, 'train')


def test_rasters_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    folder = tmp_path / 'dfc2020_s1s2'
    other = folder / 's1' / 'ROIs0000_validation_s1_0_p0.tif'
    profile = {'driver': 'GTiff', 'height': 128, 'width': 256, 'dtype': 'float32'}
    with rasterio.open(other, 'w', count=2, **profile) as raster:
        raster.write(np.zeros((2, 128, 256), np.float32))
    with pytest.raises(GridError, match=r'128 × 256 px, .* has 256 × 256 px'):
        DFC2020(tmp_path, bands=ALL)[0]
    with rasterio.open(other, 'w', count=1, **profile) as raster:
        raster.write(np.zeros((1, 128, 256), np.float32))
    with pytest.raises(SceneError, match='has 1 bands, expected at least 2'):
        DFC2020(tmp_path, bands=ALL)[0]


def test_what_is_no_number_becomes_the_mean_of_its_band(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    path = tmp_path / 'dfc2020_s1s2' / 's1' / 'ROIs0000_validation_s1_0_p0.tif'
    with rasterio.open(path, 'r+') as raster:
        pixels = raster.read()
        pixels[1, :2, :5] = np.nan
        raster.write(pixels)
    with pytest.warns(NodataWarning, match=f'{path}: 10 of 131072 values'):
        image = DFC2020(tmp_path, bands=('VV', 'VH'))[0]['image'].numpy()
    known = np.isfinite(pixels)
    assert np.array_equal(image[known], pixels[known].astype(np.float32))
    assert image[1, :2, :5] == pytest.approx(np.nanmean(pixels[1]), abs=1e-3)


@pytest.mark.parametrize('georeference', ['identity', 'same', 'no crs'])
def test_a_georeference_that_cannot_be_true_is_not_passed_on(
    tmp_path: Path, georeference: Georeference
) -> None:
    write_dfc2020(tmp_path, georeference)
    dataset = DFC2020(tmp_path, 'train', bands=ALL)
    assert dataset[0]['image'].shape == (15, 256, 256)
    with pytest.warns(GeoreferenceWarning, match='without a georeference') as said:
        grids = [dataset.chip_grid(index, 224) for index in range(2)]
    assert grids == [None, None]
    assert len(said) == 1


def test_tiles_of_two_zones_are_where_they_say(tmp_path: Path) -> None:
    """Also where two zones have a tile at the same numbers, and no zone has two."""
    write_dfc2020(tmp_path, 'zones')
    dataset = DFC2020(tmp_path, 'train')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        grids = [dataset.chip_grid(index, 224) for index in range(2)]
    for index, grid in enumerate(grids):
        assert grid is not None
        with rasterio.open(dataset.layout.path(str(dataset.files[index]), 's2')) as s2:
            assert grid.crs == s2.crs
            assert grid.transform @ (-16, -16) == s2.transform @ (0, 0)


def test_no_number_of_headers_is_read_to_believe_a_sound_copy(tmp_path: Path) -> None:
    write_contest(tmp_path, validation=12)
    dataset = DFC2020(tmp_path, 'val', protocol='C')
    assert dataset.chip_grid(11, 16) is not None
    # one, and then as many as it takes to see two of one zone apart
    assert len(dataset._grids) <= 4


def test_plot_shows_the_classes(tmp_path: Path) -> None:
    write_dfc2020(tmp_path)
    dataset = DFC2020(tmp_path, bands=ALL)
    mask = dataset.plot(dataset[0]).axes[1].images[0]
    for index, colour in enumerate([*DFC2020.class_colors, '#000000']):
        value = mask.norm(np.array([index if index < 8 else 255]))
        shown: Any = mask.cmap(value)
        assert to_hex(shown[0]) == colour


def empty_contest(root: Path, validation: int = 986, test: int = 5128) -> Layout:
    """The contest's tiles in full number, as empty files: protocols read names only."""
    for group, count in (('validation', validation), ('test', test)):
        for scene in range(2):
            folder = root / f'ROIs0000_{group}' / f'dfc_{scene}'
            folder.mkdir(parents=True)
            for patch in range(scene, count, 2):
                name = f'ROIs0000_{group}_dfc_{scene}_p{patch}.tif'
                (folder / name).touch()
    layout = find_layout(root, 'dfc2020_s1s2')
    assert layout is not None
    return layout


@pytest.mark.parametrize('protocol', ['B', 'C'])
def test_the_contest_gives_each_protocol_its_tiles(
    tmp_path: Path, protocol: str
) -> None:
    layout = empty_contest(tmp_path)
    names = {split: tile_names(layout, protocol, split) for split in SPLITS}
    counts = {split: len(names[split]) for split in SPLITS}
    assert counts == PROTOCOLS[protocol]
    groups = {split: {name.split('_')[1] for name in names[split]} for split in SPLITS}
    if protocol == 'B':
        assert groups == {
            'train': {'validation'}, 'val': {'validation'}, 'test': {'test'},
        }  # fmt: skip
        assert not set(names['train']) & set(names['val'])
        # every region is in both: of any five tiles in a row, one is held out
        together = layout.names('validation')
        assert [name in names['val'] for name in together[:10]] == 2 * [
            *4 * [False],
            True,
        ]
    else:
        assert groups == {
            'train': {'test'}, 'val': {'validation'}, 'test': {'validation'},
        }  # fmt: skip
        assert names['val'] == names['test']


def test_tiles_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = empty_contest(tmp_path, validation=24, test=1).names('validation')
    numbers = [tuple(int(part.strip('p.tif')) for part in name.split('_')[3:])
               for name in names]  # fmt: skip
    assert numbers == sorted(numbers)
    assert len(numbers) == 24


@pytest.mark.parametrize('by_group', [False, True])
def test_a_tile_is_read_from_its_own_three_files(
    tmp_path: Path, by_group: bool
) -> None:
    write_contest(tmp_path, by_group=by_group)
    bands = ('B01', 'VV')
    dataset = DFC2020(tmp_path, 'train', bands=bands, protocol='B')
    assert len(dataset) == 9
    assert len(DFC2020(tmp_path, 'val', protocol='B')) == 2
    assert len(DFC2020(tmp_path, 'test', protocol='B')) == 4
    for index in range(9):
        parts = {
            sensor: dataset.layout.path(str(dataset.files[index]), sensor).stem
            for sensor in ('s1', 's2', 'dfc')
        }
        plain = {name.replace(f'_{s}_', '_') for s, name in parts.items()}
        assert len(plain) == 1
        assert dataset[index]['image'].shape == (2, 32, 32)
    # no two tiles are one
    assert len({float(dataset[i]['image'][1, 0, 0]) for i in range(9)}) == 9


def test_both_layouts_of_the_same_tiles_agree(tmp_path: Path) -> None:
    write_contest(tmp_path / 'contest')
    contest = DFC2020(tmp_path / 'contest', 'test', protocol='C')
    bench = tmp_path / 'bench' / 'dfc2020_s1s2'
    for sensor in ('s1', 's2', 'dfc'):
        (bench / sensor).mkdir(parents=True)
        for name in map(str, contest.files):
            source = contest.layout.path(name, sensor)
            (bench / sensor / source.name).write_bytes(source.read_bytes())
    for split in SPLITS:
        (bench / f'dfc-{split}-new.csv').write_text('\n'.join(map(str, contest.files)))
    every = (*SENTINEL2_BANDS, 'VV', 'VH')
    ours = DFC2020(bench.parent, 'test', bands=every, protocol='C')
    contest = DFC2020(tmp_path / 'contest', 'test', bands=every, protocol='C')
    listed = DFC2020(bench.parent, 'train', bands=every)
    assert list(ours.files) == list(contest.files) == list(listed.files)
    for index in range(len(ours)):
        for other in (contest, listed):
            for key, value in ours[index].items():
                assert torch.equal(value, other[index][key])


def test_the_contest_with_the_lists_beside_it(tmp_path: Path) -> None:
    write_contest(tmp_path)
    listed = ['ROIs0000_test_dfc_2_p0.tif', 'ROIs0000_validation_dfc_0_p10.tif']
    (tmp_path / 'dfc-val-new.csv').write_text('\n'.join(listed) + '\n\n')
    dataset = DFC2020(tmp_path, 'val')
    assert list(dataset.files) == listed
    assert dataset[1]['mask'].shape == (32, 32)


def test_what_a_copy_does_not_have(tmp_path: Path) -> None:
    write_contest(tmp_path / 'contest')
    with pytest.raises(DataError, match=r"Protocol A needs the lists .* 'B' or 'C'"):
        DFC2020(tmp_path / 'contest')
    write_dfc2020(tmp_path / 'bench')
    with pytest.raises(DataError, match=r"no label raster ROIs0000_test.*protocol 'A'"):
        DFC2020(tmp_path / 'bench', protocol='C')
    write_contest(tmp_path / 'few', validation=4)
    with pytest.raises(DataError, match='has 0 tiles in split val of protocol B'):
        DFC2020(tmp_path / 'few', 'val', protocol='B')


def test_an_unknown_protocol_or_split(tmp_path: Path) -> None:
    write_contest(tmp_path)
    with pytest.raises(
        SettingError, match="Unknown protocol 'D', expected one of: A, B, C"
    ):
        DFC2020(tmp_path, protocol='D')  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"Unknown split 'vall'.*Did you mean 'val'"):
        DFC2020(tmp_path, 'vall', protocol='C')  # type: ignore[arg-type]
