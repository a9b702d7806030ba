import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from tests.conftest import WriteScene
from tests.fakes.labeled_scenes import Rule, RuleLabels, footprint
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.errors import LabelError, LabelWarning, SettingError
from torchgeo_ctm.grids import Window
from torchgeo_ctm.samplers.blocks import SPLITS
from torchgeo_ctm.samplers.labeled_scene import LabeledScene, LabeledWindows
from torchgeo_ctm.samplers.splits import SceneSplits
from torchgeo_ctm.split import Split

METRES = '+proj=laea +lat_0=48 +lon_0=12'
WINDOW = 16


def anything(_: object) -> list[int]:
    return [1, 0]


def labeled(
    paths: Sequence[Path], rule: Rule = anything, window: int = WINDOW
) -> list[LabeledScene]:
    labels = RuleLabels(('a', 'b'), rule)
    return [
        LabeledScene(SceneWindows(path, ['B02'], window, window), labels)
        for path in paths
    ]


def neighbours(write_scene: WriteScene) -> list[Path]:
    """Two scenes in two UTM zones that overlap, one band each."""
    paths = []
    for name, crs, lon in (('west', 32632, 11.98), ('east', 32633, 12.0)):
        x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, 48.0)
        transform = Affine(10, 0, round(x), 0, -10, round(y))
        pixels = np.ones((1, 260, 280), np.uint16)
        paths.append(
            write_scene(
                f'{name}.tif',
                pixels=pixels,
                descriptions=('B02',),
                crs=f'EPSG:{crs}',
                transform=transform,
            )
        )
    return paths


def ground(splits: SceneSplits, split: Split) -> shapely.Geometry:
    """All ground that a split shows."""
    windows = [(n, window) for n, window, _ in splits.windows(split).windows]
    if split == 'train':
        windows += [
            (reading.scene, draw.window)
            for chunk in range(10)
            for reading in splits.draws(4).readings(0, chunk)
            for draw in reading.draws
        ]
    return shapely.union_all(
        [footprint(splits.scenes[n].grid, window, METRES) for n, window in windows]
    )


def test_splits_share_no_ground_across_zones(write_scene: WriteScene) -> None:
    scenes = labeled(neighbours(write_scene))
    splits = SceneSplits(scenes)
    grounds = {split: ground(splits, split) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert (grounds[one] & grounds[other]).area == 0
    outlines = [
        footprint(s.grid, Window(0, 0, s.grid.height, s.grid.width), METRES)
        for s in scenes
    ]
    assert (outlines[0] & outlines[1]).area > 1e6


def test_windows_of_both_scenes_meet_the_shares(write_scene: WriteScene) -> None:
    splits = SceneSplits(labeled(neighbours(write_scene)), shares=(0.5, 0.25, 0.25))
    counts = [len(splits.windows(split)) for split in SPLITS]
    assert {n for n, *_ in splits.windows('train').windows} == {0, 1}
    assert np.abs(np.array(counts) / sum(counts) - [0.5, 0.25, 0.25]).max() < 0.1
    # of 2 × 16 × 17 windows; the others lie across a border
    assert sum(counts) > 250


def places(windows: LabeledWindows) -> list[tuple[int, Window]]:
    return [(number, window) for number, window, _ in windows.windows]


def test_the_same_seed_gives_the_same_splits(write_scene: WriteScene) -> None:
    paths = neighbours(write_scene)
    one, same, other = (SceneSplits(labeled(paths), seed=seed) for seed in (1, 1, 2))
    for split in SPLITS:
        assert places(one.windows(split)) == places(same.windows(split))
    assert places(one.windows('val')) != places(other.windows('val'))


def test_scenes_that_serve_one_split(write_scene: WriteScene) -> None:
    """Ground that a neighbour shares with them is not trained on."""
    splits = SceneSplits(labeled(neighbours(write_scene)), fixed={1: 'test'})
    assert {n for n, *_ in splits.windows('test').windows} == {1}
    assert len(splits.windows('test')) == 16 * 17
    assert {n for n, *_ in splits.windows('train').windows} == {0}
    assert len(splits.windows('val'))
    grounds = {split: ground(splits, split) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert (grounds[one] & grounds[other]).area == 0
    with pytest.raises(SettingError, match='expected at least one to train on'):
        SceneSplits(splits.scenes, fixed={0: 'val', 1: 'test'})


def test_windows_without_labels_are_counted_once(write_scene: WriteScene) -> None:
    def western(grid: object) -> list[int] | None:
        return [1, 0] if grid.transform.c < 500_400 else None  # type: ignore[attr-defined]

    path = write_scene(height=80, width=80)
    with pytest.warns(LabelWarning, match='10 of 25 windows side by side have no') as w:
        splits = SceneSplits(labeled([path], western), block_size=32)
    assert [entry.category for entry in w].count(LabelWarning) == 1
    for split in SPLITS:
        assert all(window.col < 40 for _, window in places(splits.windows(split)))
    with pytest.raises(LabelError, match='None of 25 windows of 1 scenes has a label'):
        SceneSplits(labeled([path], lambda _: None))


def test_an_empty_split_says_which_block_size_would_do(write_scene: WriteScene) -> None:
    scenes = labeled([write_scene(height=96, width=96, crs=None)])
    with pytest.raises(SettingError) as caught:
        SceneSplits(scenes, block_size=96)
    message = str(caught.value)
    assert message.startswith(
        'block_size=96 px leaves no labeled window to val, test: 1 blocks have '
        'labeled windows, expected 3 or more. Did you mean block_size='
    )
    proposed = int(message.rpartition('=')[2].rstrip('?'))
    assert all(len(SceneSplits(scenes, block_size=proposed).windows(s)) for s in SPLITS)
    tiny = labeled([write_scene('tiny.tif', height=20, width=20)])
    with pytest.raises(
        SettingError, match='No block size is small enough: pass more labels'
    ):
        SceneSplits(tiny)
    with pytest.raises(SettingError, match='smaller than a window of 16 px'):
        SceneSplits(scenes, block_size=8)
    # without shares, one block is enough
    alone = SceneSplits(tiny, shares=(1, 0, 0))
    assert [len(alone.windows(split)) for split in SPLITS] == [1, 0, 0]
