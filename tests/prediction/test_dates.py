"""Several dates of one place make one map."""

from itertools import count, permutations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.commands import Run, refused
from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.runs import SMALL, read
from tests.fakes.sentinel2 import write_band
from torchgeo_ctm.errors import (
    CloudWarning,
    CTMWarning,
    NodataWarning,
    OutputError,
    SceneError,
    SettingError,
)
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.inference.products import Products
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.prediction.dates import decide, predict_dates

pytestmark = [
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.CloudWarning'),
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning'),
]
Bytes = NDArray[np.uint8]


def drawn(seed: int) -> tuple[Bytes, Bytes]:
    """Classes and percents of a date; few values, so that many are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (4, 20, 30)) + rng.random((4, 20, 30)) / 10
    percents = np.rint(10 * scores).astype(np.uint8)
    classes = scores.argmax(axis=0).astype(np.uint8)
    hidden = rng.random((20, 30)) < 0.4
    classes[hidden] = IGNORED
    percents[:, hidden] = IGNORED
    return classes, percents


def test_dates_are_files(tmp_path: Path) -> None:
    made: list[Any] = [[np.zeros((3, 4, 5))], np.zeros((2, 3, 4, 5))]
    for scenes in made:
        with pytest.raises(SettingError, match='of type ndarray, expected a path'):
            predict_dates(scenes, tmp_path / 'a.ckpt', tmp_path / 'm.tif')


class TestDecide:
    def test_the_mean_does_not_depend_on_the_order(self) -> None:
        maps = [drawn(seed) for seed in range(3)]
        found = [decide(order, 3, 'mean') for order in permutations(maps)]
        for other in found[1:]:
            for name, values in found[0].items():
                np.testing.assert_array_equal(other[name], values)
        looks = sum((classes != IGNORED).astype(int) for classes, _ in maps)
        np.testing.assert_array_equal(found[0]['looks'], looks)
        np.testing.assert_array_equal(found[0]['mask'] == IGNORED, looks == 0)
        seen = np.array([classes != IGNORED for classes, _ in maps])
        sums = sum(p * s.astype(int) for (_, p), s in zip(maps, seen, strict=True))
        highest = np.asarray(sums).max(axis=0)
        chosen = np.where(looks > 0, found[0]['mask'], 0)
        own = np.take_along_axis(np.asarray(sums), chosen[None].astype(int), 0)[0]
        np.testing.assert_array_equal(own[looks > 0], highest[looks > 0])

    @pytest.mark.parametrize('combine', ['mean', 'clearest'])
    def test_equal_dates_give_their_map(self, combine: str) -> None:
        classes, percents = drawn(0)
        # classes of equal percents are told apart as on the date itself
        assert (percents.argmax(axis=0) != classes)[classes != IGNORED].any()
        found = decide([(classes, percents)] * 3, 3, combine)
        np.testing.assert_array_equal(found['mask'], classes)
        np.testing.assert_array_equal(found['probabilities'], percents)
        np.testing.assert_array_equal(found['confidence'], percents.max(axis=0))

    def test_the_clearest_comes_first(self) -> None:
        first, second = drawn(0), drawn(1)
        found = decide([first, second], 2, 'clearest')
        expected = np.where(first[0] == IGNORED, second[0], first[0])
        np.testing.assert_array_equal(found['mask'], expected)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_task(decisive(tiny_task()), tmp_path / 'tiny.ckpt')


@pytest.fixture
def taken(write_scene: WriteScene, tmp_path: Path) -> list[Path]:
    """Two dates, the second with more clouds; a corner that neither sees."""
    paths = []
    for number, hidden in enumerate((np.s_[:20, :30], np.s_[:, :45])):
        name = 'ab'[number]
        path = write_scene(
            f'{name}.tif', pixels=scene_pixels(70, 90) + np.uint16(150 * number)
        )
        cloudy = np.zeros((70, 90), np.uint8)
        cloudy[hidden] = 1
        with rasterio.open(path) as raster:
            place = {'transform': raster.transform, 'crs': raster.crs}
        write_band(tmp_path / f'{name}_clouds.tif', cloudy, **place)
        paths.append(path)
    return paths


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    mask = str(tmp_path / '{scene}_clouds.tif')
    return SMALL | {'cloud_mask': mask, 'cloud_dilation': 0, 'probabilities': True}


def files(folder: Path, name: str) -> dict[str, bytes]:
    """Content of the rasters of a map, and of its style."""
    found = {path.name: path for path in folder.glob(f'{name}*.[tq]*')}
    return {n.removeprefix(name): path.read_bytes() for n, path in found.items()}


@pytest.mark.parametrize('combine', ['mean', 'clearest'])
def test_each_pixel_comes_from_the_dates_that_see_it(
    taken: list[Path],
    checkpoint: Path,
    tmp_path: Path,
    options: dict[str, Any],
    combine: Any,
) -> None:
    single = [
        predict_scene(path, checkpoint, tmp_path / f'{path.stem}_map.tif', **options)
        for path in taken
    ]
    one, two = (read(mask.paths[0]) for mask in single)
    for name, order in (('m', taken), ('n', taken[::-1])):
        made = predict_dates(
            order, checkpoint, tmp_path / f'{name}.tif', combine=combine, **options
        )
        assert all(path.exists() for path in made.paths)
    assert files(tmp_path, 'm') == files(tmp_path, 'n')
    mask, looks = read(tmp_path / 'm.tif'), read(tmp_path / 'm_looks.tif')
    np.testing.assert_array_equal(
        looks, (one != IGNORED).astype(int) + (two != IGNORED)
    )
    assert (mask[:20, :30] == IGNORED).all()
    np.testing.assert_array_equal(mask == IGNORED, looks == 0)
    np.testing.assert_array_equal(mask[20:, :45], one[20:, :45])
    if combine == 'clearest':
        np.testing.assert_array_equal(mask[:20, 45:], one[:20, 45:])
    with rasterio.open(tmp_path / 'm.tif') as raster:
        tags = raster.tags()
    assert (tags['COMBINE'], tags['SCENE']) == (combine, 'a.tif, b.tif')
    assert tags['CLOUDS'] == 'a_clouds.tif, 0 px; b_clouds.tif, 0 px'
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]


def test_equal_dates_give_the_map_of_one(
    taken: list[Path], checkpoint: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    one = predict_scene(taken[0], checkpoint, tmp_path / 'one.tif', **options)
    same = predict_dates([taken[0]] * 3, checkpoint, tmp_path / 'same.tif', **options)
    for name in ('mask', 'confidence', 'probabilities'):
        with (
            rasterio.open(one.products[name]) as ours,
            rasterio.open(same.products[name]) as theirs,
        ):
            np.testing.assert_array_equal(ours.read(), theirs.read())
            assert ours.descriptions == theirs.descriptions
    assert set(np.unique(read(same.products['looks']))) == {0, 3}


@pytest.mark.parametrize('intact', [True, False])
def test_a_resumed_run_writes_the_same_bytes(
    taken: list[Path],
    checkpoint: Path,
    tmp_path: Path,
    options: dict[str, Any],
    intact: bool,
) -> None:
    predict_dates(taken, checkpoint, tmp_path / 'm.tif', **options)
    calls = count()

    def stops(*given: Any, **more: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return predict_scene(*given, **more)

    with patch('torchgeo_ctm.prediction.dates.predict_scene', stops):
        with pytest.raises(KeyboardInterrupt):
            predict_dates(taken, checkpoint, tmp_path / 'r.tif', **options)
        assert not (tmp_path / 'r.tif').exists()
        # the first date is there; calls 2 and 3
        damaged = [] if intact else [*(tmp_path / '.r.tif.dates').glob('*.tif')]
        for path in damaged:
            path.write_bytes(path.read_bytes()[:-40] + bytes(40))
        predict_dates(taken[::-1], checkpoint, tmp_path / 'r.tif', **options)
    assert next(calls) == (3 if intact else 4)
    assert files(tmp_path, 'm') == files(tmp_path, 'r')


def test_a_run_that_was_killed_while_it_published_resumes(
    taken: list[Path], checkpoint: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    output, publish = tmp_path / 'm.tif', Products.publish

    def killed(products: Products, overwrite: bool) -> None:
        if products.output == output:
            raise KeyboardInterrupt
        publish(products, overwrite)

    with patch.object(Products, 'publish', killed), pytest.raises(KeyboardInterrupt):
        predict_dates(taken, checkpoint, output, **options)
    assert not output.exists()
    assert (tmp_path / 'm_looks.tif').exists()
    predict_dates(taken, checkpoint, output, **options)
    assert output.exists()
    with pytest.raises(OutputError, match='already exists'):
        predict_dates(taken, checkpoint, output, **options)


def test_dates_that_change_meanwhile_are_not_combined(
    taken: list[Path], checkpoint: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    def train_again() -> None:
        task = tiny_task()
        task.load_state_dict({k: v * 2 for k, v in task.state_dict().items()})
        save_task(task, checkpoint)

    def crop() -> None:
        whole = taken[1].rename(tmp_path / 'whole.tif')
        with rasterio.open(whole) as raster:
            profile = raster.profile | {'height': 40}
            with rasterio.open(taken[1], 'w', **profile) as smaller:
                smaller.write(raster.read()[:, :40])
                smaller.descriptions = raster.descriptions

    for change in (train_again, crop):
        meanwhile = iter([change])

        def changes(*given: Any, meanwhile: Any = meanwhile, **more: Any) -> Any:
            made = predict_scene(*given, **more)
            for change in meanwhile:
                change()
            return made

        with (
            patch('torchgeo_ctm.prediction.dates.predict_scene', changes),
            pytest.raises(SceneError, match='changed while the dates were mapped'),
        ):
            predict_dates(taken, checkpoint, tmp_path / 'm.tif', **options)
        assert not (tmp_path / 'm.tif').exists()


def test_what_may_be_a_mistake_is_said(
    taken: list[Path], checkpoint: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.warns(CTMWarning, match='a.tif is given more than once'):
        predict_dates([taken[0]] * 2, checkpoint, tmp_path / 'm.tif', **options)
    options['cloud_mask'] = options['cloud_mask'].replace('{scene}', 'a')
    with pytest.warns(CloudWarning, match='a_clouds.tif is the cloud mask of several'):
        predict_dates(taken, checkpoint, tmp_path / 'n.tif', **options)


def test_no_clear_pixel_at_all(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene(pixels=np.zeros((13, 40, 50), np.uint16), nodata=0)
    with pytest.warns(NodataWarning, match='No date has a valid pixel'):
        predict_dates([scene, scene], checkpoint, tmp_path / 'm.tif', **SMALL)
    assert (read(tmp_path / 'm.tif') == IGNORED).all()
    assert not read(tmp_path / 'm_looks.tif').any()


def test_what_does_not_fit_leaves_no_file(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    scene, small = write_scene(), write_scene('small.tif', height=40)
    bare = write_scene('bare.tif', pixels=scene_pixels(70, 90, 3), descriptions=None)
    call = (
        '--checkpoint',
        checkpoint,
        '--output',
        out / 'm.tif',
        '--accelerator',
        'cpu',
    )
    mean = ('--combine', 'mean')
    for scenes, flags, words in (
        ((scene, scene), (), 'Got 2 scenes. Pass --combine mean or --combine clearest'),
        ((scene, small), mean, 'are on different grids: size'),
        ((scene, bare), mean, 'has 3 bands without names, expected 13'),
        ((scene, tmp_path / 'no.tif'), mean, 'no.tif does not exist'),
        (
            (scene, scene),
            ('--combine', 'median'),
            "--combine 'median', expected one of",
        ),
        ((scene, scene), (*mean, '--merge', 'Forest+Lake=A'), 'Lake'),
        ((scene, scene), (*mean, '--clouds', 'scl'), 'no scene classification'),
    ):
        refused(run('predict', *scenes, *call, *flags), words)
        assert not list(out.iterdir()), words
