import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from torchgeo_ctm.datasets import synthetic
from torchgeo_ctm.datasets.dfc2020 import DFC2020, SOURCE_TO_CLASS
from torchgeo_ctm.datasets.synthetic import SyntheticLandCover, render, write_scene
from torchgeo_ctm.errors import DataError, SettingError

Images = NDArray[np.float32]
Classes = NDArray[np.int64]

SOURCE = np.array(SOURCE_TO_CLASS)
SETTINGS: dict[str, Any] = {'num_tiles': (4, 2, 2), 'size': 48, 'seed': 3}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('synthetic')
    SyntheticLandCover(folder, **SETTINGS)
    return folder


@pytest.fixture(scope='module')
def tiles() -> tuple[Images, Classes]:
    images, sources = zip(*(render(128, 128, (7, index)) for index in range(50)))
    return np.stack(images).astype(np.float32), SOURCE[np.stack(sources)]


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(('split', 'count'), [('train', 4), ('val', 2), ('test', 2)])
def test_dfc2020_reads_what_was_drawn(root: Path, split: Any, count: int) -> None:
    drawn = SyntheticLandCover(root, split, **SETTINGS)
    read = DFC2020(root, split, download=False)
    assert len(drawn) == len(read) == count
    for index in range(count):
        assert set(drawn[index]) == {'image', 'mask'}
        for key, value in read[index].items():
            assert torch.equal(value, drawn[index][key])


def test_tiles_hold_what_render_returns(root: Path) -> None:
    sample = SyntheticLandCover(root, 'test', **SETTINGS)[1]
    image, source = render(48, 48, (3, 2, 1))
    np.testing.assert_array_equal(sample['image'], image)
    np.testing.assert_array_equal(sample['mask'], SOURCE[source])


def test_bands_and_transforms_reach_the_reader(root: Path) -> None:
    def negative(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return sample | {'image': -sample['image']}

    changed = SyntheticLandCover(root, 'val', ['B08', 'B04'], negative, **SETTINGS)
    plain = SyntheticLandCover(root, 'val', **SETTINGS)
    assert torch.equal(changed[0]['image'], -plain[0]['image'][[7, 3]])


def test_the_same_settings_write_the_same_bytes(root: Path, tmp_path: Path) -> None:
    SyntheticLandCover(tmp_path, 'test', **SETTINGS)
    assert files(tmp_path) == files(root)


def test_a_tile_does_not_depend_on_the_number_of_tiles(
    root: Path, tmp_path: Path
) -> None:
    few = SyntheticLandCover(tmp_path, 'val', **SETTINGS | {'num_tiles': (1, 1, 1)})
    many = SyntheticLandCover(root, 'val', **SETTINGS)
    assert torch.equal(few[0]['image'], many[0]['image'])


@pytest.mark.parametrize('other', [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_split_and_index_each_change_the_tile(other: tuple[int, int, int]) -> None:
    image, source = render(64, 64, (0, 0, 0))
    other_image, other_source = render(64, 64, other)
    assert (image != other_image).mean() > 0.9
    assert (source != other_source).any()


@pytest.mark.parametrize('shape', [(1, 1), (17, 5), (40, 90), (3, 9000)])
def test_any_shape_is_drawn(shape: tuple[int, int]) -> None:
    image, source = render(*shape, 0)
    assert image.shape == (13, *shape)
    assert image.dtype == np.uint16
    assert source.shape == shape
    assert source.dtype == np.uint8
    assert image.min() > 0


def test_classes_are_about_equally_common(tiles: tuple[Images, Classes]) -> None:
    shares = np.bincount(tiles[1].ravel()) / tiles[1].size
    assert shares.size == 8
    assert shares.min() > 0.06
    assert shares.max() < 0.25


def test_most_tiles_hold_two_to_four_classes(tiles: tuple[Images, Classes]) -> None:
    counts = np.array([np.unique(mask).size for mask in tiles[1]])
    assert ((counts >= 2) & (counts <= 4)).mean() > 0.7


def test_a_large_scene_is_the_same_process(tiles: tuple[Images, Classes]) -> None:
    source = render(512, 512, (7, 100))[1]
    windows = source.reshape(4, 128, 4, 128).swapaxes(1, 2).reshape(16, -1)
    in_scene = np.mean([np.unique(window).size for window in windows])
    in_tiles = np.mean([np.unique(mask).size for mask in tiles[1]])
    assert in_scene == pytest.approx(in_tiles, abs=1)


# a band in which the pair's two materials differ most
@pytest.mark.parametrize(
    ('plain', 'textured', 'band'),
    [
        ('Shrubland', 'Forest', 'B08'),
        ('Grassland', 'Croplands', 'B12'),
        ('Water', 'Wetlands', 'B08'),
        ('Barren', 'Urban/Built-up', 'B11'),
    ],
)
def test_pairs_overlap_in_value_and_differ_in_texture(
    tiles: tuple[Images, Classes], plain: str, textured: str, band: str
) -> None:
    values = tiles[0][:, DFC2020.all_bands.index(band)]
    texture = values - gaussian_filter(values, (0, 4, 4))
    first, second = (tiles[1] == DFC2020.classes.index(c) for c in (plain, textured))
    assert abs(values[first].mean() - values[second].mean()) < 2 * values[second].std()
    # the median leaves out the borders
    rough = [np.median(np.abs(texture[here])) for here in (first, second)]
    assert rough[1] > 1.5 * rough[0]


def test_tiles_are_georeferenced_in_two_zones(root: Path) -> None:
    folder = root / DFC2020.directory
    crs = set()
    for path in sorted((folder / 'dfc').iterdir()):
        image_path = folder / 's2' / path.name.replace('dfc', 's2')
        with rasterio.open(image_path) as image, rasterio.open(path) as mask:
            assert image.descriptions == DFC2020.all_bands
            assert (image.crs, image.transform) == (mask.crs, mask.transform)
            assert image.res == (10, 10)
            assert (image.dtypes[0], mask.dtypes[0]) == ('uint16', 'uint8')
            crs.add(str(image.crs))
    assert len(crs) == 2


def test_no_two_tiles_cover_the_same_ground(root: Path) -> None:
    places = set()
    for path in (root / DFC2020.directory / 'dfc').iterdir():
        with rasterio.open(path) as mask:
            places.add((str(mask.crs), *mask.bounds))
    assert len(places) == 8


def test_scene_and_reference_share_a_grid(tmp_path: Path) -> None:
    write_scene(tmp_path / 'scene.tif', tmp_path / 'reference.tif', size=150, seed=1)
    assert {path.name for path in tmp_path.iterdir()} == {'scene.tif', 'reference.tif'}
    with (
        rasterio.open(tmp_path / 'scene.tif') as scene,
        rasterio.open(tmp_path / 'reference.tif') as reference,
    ):
        assert scene.crs.is_projected
        assert (scene.crs, scene.transform) == (reference.crs, reference.transform)
        assert scene.shape == reference.shape == (150, 150)
        assert scene.descriptions == DFC2020.all_bands
        assert scene.profile['tiled']
        assert reference.nodata == 255
        image, source = render(150, 150, (1, 3, 0))
        np.testing.assert_array_equal(scene.read(), image)
        classes = SOURCE[source]
        np.testing.assert_array_equal(reference.read(1), classes)


@pytest.mark.parametrize(
    'other', [{'seed': 4}, {'size': 32}, {'num_tiles': (4, 2, 3)}], ids=str
)
def test_other_settings_are_refused(root: Path, other: dict[str, Any]) -> None:
    before = files(root)
    with pytest.raises(DataError, match=r'was drawn with .* expected') as error:
        SyntheticLandCover(root, **SETTINGS | other)
    assert '\n' not in str(error.value)
    assert files(root) == before


def test_tiles_of_an_older_drawing_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, 'DRAWING', synthetic.DRAWING + 1)
    with pytest.raises(DataError, match='drawing'):
        SyntheticLandCover(root, **SETTINGS)


@pytest.mark.parametrize('name', [f'{DFC2020.directory}/dfc/x.tif', DFC2020.zipfile])
def test_the_real_data_set_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'real')
    with pytest.raises(DataError, match='Choose another root'):
        SyntheticLandCover(tmp_path, **SETTINGS)
    assert files(tmp_path) == {name: b'real'}


@pytest.mark.parametrize(
    'wrong',
    [{'num_tiles': (1, 0, 1)}, {'num_tiles': (1, 1)}, {'size': 0}, {'seed': -1}],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(SettingError):
        SyntheticLandCover(tmp_path, **SETTINGS | wrong)
    assert not list(tmp_path.iterdir())


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    split: Any = 'tests'
    with pytest.raises(SettingError, match="Did you mean 'test'"):
        SyntheticLandCover(tmp_path, split, **SETTINGS)


def test_a_scene_without_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='0 x 0'):
        write_scene(tmp_path / 'scene.tif', tmp_path / 'reference.tif', size=0)


def test_a_killed_generation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / DFC2020.directory

    def interrupted(height: int, width: int, seed: Any, traits: Any) -> Any:
        # whenever the process ends, with or without a chance to clean up
        assert not final.exists()
        if seed[1:] == (1, 1):
            raise KeyboardInterrupt
        return render(height, width, seed, traits)

    monkeypatch.setattr(synthetic, 'render', interrupted)
    with pytest.raises(KeyboardInterrupt):
        SyntheticLandCover(tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_two_processes_at_once_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | {'num_tiles': (1, 1, 1)}

    def overtaken(height: int, width: int, seed: Any, traits: Any) -> Any:
        monkeypatch.setattr(synthetic, 'render', render)
        SyntheticLandCover(tmp_path, **settings)
        return render(height, width, seed, traits)

    monkeypatch.setattr(synthetic, 'render', overtaken)
    assert len(SyntheticLandCover(tmp_path, **settings)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [DFC2020.directory]
    record = tmp_path / DFC2020.directory / 'synthetic.json'
    assert json.loads(record.read_text())['seed'] == 3


def test_real_traits_make_classes_overlap_and_leave_the_reference() -> None:
    spreads = {}
    for traits in ('plain', 'real'):
        images, sources = zip(*(render(96, 96, (5, i), traits) for i in range(8)))
        source = np.concatenate([s.ravel() for s in sources])
        pixels = np.concatenate([i.reshape(13, -1) for i in images], axis=1)
        assert pixels.min() >= 1
        # deviation within a class, mean over classes and bands
        spreads[traits] = np.mean(
            [np.log(pixels[:, source == c]).std(axis=1) for c in np.unique(source)]
        )
    assert spreads['real'] > 1.3 * spreads['plain']
    for index in range(8):
        plain, real = (render(96, 96, (5, index), t) for t in ('plain', 'real'))
        assert (plain[1] == real[1]).all()
    again = render(96, 96, (5, 0), 'real')
    assert (again[0] == images[0]).all()


def test_traits_are_part_of_the_settings(tmp_path: Path) -> None:
    real = SyntheticLandCover(tmp_path, traits='real', **SETTINGS)
    assert len(real) == SETTINGS['num_tiles'][0]
    with pytest.raises(DataError, match="'traits': 'real'"):
        SyntheticLandCover(tmp_path, **SETTINGS)
    with pytest.raises(SettingError, match=r"traits='reel', .* Did you mean 'real'"):
        wrong: Any = 'reel'
        SyntheticLandCover(tmp_path, traits=wrong, **SETTINGS)
