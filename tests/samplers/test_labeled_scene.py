import pickle
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import WriteScene, scene_pixels
from tests.fakes.labeled_scenes import RuleLabels
from torchgeo_ctm.datamodules.loaders import EvaluationBatches, TrainingBatches
from torchgeo_ctm.datasets import SceneWindows
from torchgeo_ctm.errors import LabelError
from torchgeo_ctm.grids import Grid, Window
from torchgeo_ctm.labels import ImageLabel
from torchgeo_ctm.samplers.labeled_scene import LabeledScene, LabeledWindows
from torchgeo_ctm.samplers.neighborhoods import Reading, WindowDraws
from torchgeo_ctm.scaling import SENTINEL2_BANDS

CLASSES = ('left', 'right')


def left_or_right(grid: Grid) -> list[int]:
    """Which side of x = 500,450 m a window touches."""
    left = grid.transform.c
    return [int(left < 500_450), int(left + grid.width * 10 > 500_450)]


def labeled_scene(
    path: Path, labels: RuleLabels | None = None, window: int = 32
) -> LabeledScene:
    scene = SceneWindows(path, SENTINEL2_BANDS, window, window)
    return LabeledScene(scene, labels or RuleLabels(CLASSES, left_or_right))


def draws(
    scenes: list[LabeledScene], seed: int = 0, group: int = 4, top: int | None = None
) -> WindowDraws:
    """Draws of windows, of those above a row if told so."""
    return WindowDraws(
        scenes,
        lambda _, window: top is None or window.row + window.height <= top,
        seed,
        group,
    )


def windows(readings: list[Reading]) -> dict[int, tuple[int, Window]]:
    return {
        draw.number: (reading.scene, draw.window)
        for reading in readings
        for draw in reading.draws
    }


def test_a_window_has_a_grid_a_name_and_a_label(write_scene: WriteScene) -> None:
    labels = RuleLabels(CLASSES, left_or_right)
    scene = labeled_scene(write_scene('T32TMT.tif'), labels)
    label = scene.label(scene.window(10, 20))
    assert label is not None
    [(grid, tile)] = labels.asked
    assert tile == str(scene.scene.scene)
    assert PurePath(tile).name == 'T32TMT.tif'
    assert (grid.height, grid.width) == (32, 32)
    assert (grid.transform.c, grid.transform.f) == (500_200, 4_199_900)
    assert label.present.tolist() == [1, 1]


def test_windows_side_by_side_lie_inside(write_scene: WriteScene) -> None:
    scene = labeled_scene(write_scene())
    assert scene.tiling() == [
        Window(row, col, 32, 32) for row in (0, 32) for col in (0, 32)
    ]
    small = labeled_scene(write_scene(height=5, width=70))
    assert small.tiling() == [Window(0, 0, 5, 32), Window(0, 32, 5, 32)]


def test_where_windows_may_start(write_scene: WriteScene) -> None:
    path = write_scene()

    def starts(*boxes: tuple[float, float, float, float]) -> list[int] | None:
        """First and last row, first and last column, in cells of 4 px."""
        labels = RuleLabels(CLASSES, left_or_right, list(boxes))
        scene = labeled_scene(path, labels)
        assert scene.step == 4
        rows, cols = np.nonzero(scene.starts)
        ends = [rows.min(), rows.max(), cols.min(), cols.max()] if len(rows) else None
        return [int(end) for end in ends] if ends else None

    scene = labeled_scene(path)
    assert scene.starts.shape == (10, 15)
    assert scene.starts.all()
    assert scene.may_start(38, 58)
    assert not scene.may_start(39, 58)
    assert not scene.may_start(38, 59)
    # a box of rows 40 to 49: windows that start at 9 reach into it, at 49 as well
    assert starts((40, 60, 50, 70)) == [2, 9, 7, 14]
    assert starts((33, 33, 34, 34)) == [0, 8, 0, 8]
    # a point, on a corner of pixels and within one
    assert starts((36, 36, 36, 36)) == [1, 9, 1, 9]
    assert starts((35.5, 35.5, 35.5, 35.5)) == [1, 8, 1, 8]
    assert starts((-50, 0, -1, 10), (0, 95, 10, 99)) is None


def test_windows_to_score_lie_in_the_middle_of_labels(write_scene: WriteScene) -> None:
    path = write_scene(height=300, width=300)

    def tiling(*boxes: tuple[float, float, float, float]) -> list[tuple[int, int]]:
        labels = RuleLabels(CLASSES, left_or_right, list(boxes))
        return [(w.row, w.col) for w in labeled_scene(path, labels).tiling()]

    assert tiling((100, 100, 110, 110)) == [(89, 89)]
    # larger places are tiled, and points keep a window's distance
    assert tiling((100, 100, 170, 132)) == [(103, 100), (135, 100)]
    assert tiling((50, 50, 50, 50), (60, 60, 60, 60), (90, 50, 90, 50)) == [
        (34, 34),
        (74, 34),
    ]
    assert tiling((0, 0, 5, 5), (290, 290, 300, 300)) == [(0, 0), (268, 268)]
    squares = [(r, c, r + 32, c + 32) for r in (5, 55, 105) for c in (5, 55, 105)]
    assert tiling(*squares) == [(r, c) for r, c, _, _ in squares]
    # where labels are nearly everywhere, the whole scene is tiled
    assert len(tiling((0, 0, 300, 300), (20, 20, 40, 40))) == 81


def test_draws_depend_on_seed_epoch_and_number_alone(write_scene: WriteScene) -> None:
    scene = labeled_scene(write_scene())
    one, same, other = (draws([scene], seed=seed) for seed in (3, 3, 4))
    one.readings(0, 0)  # what was drawn before does not matter
    assert windows(one.readings(5, 2)) == windows(same.readings(5, 2))
    assert windows(one.readings(5, 2)) != windows(one.readings(6, 2))
    assert windows(one.readings(5, 2)) != windows(one.readings(5, 3))
    assert windows(one.readings(5, 2)) != windows(other.readings(5, 2))
    assert sorted(windows(one.readings(5, 2))) == [*range(2 * one.chunk, 3 * one.chunk)]


@pytest.mark.parametrize(
    ('group', 'window', 'places'), [(8, 64, 32), (8, 128, 8), (8, 224, 8), (1, 64, 8)]
)
def test_steps_mix_as_many_places_as_memory_allows(
    write_scene: WriteScene, group: int, window: int, places: int
) -> None:
    scene = labeled_scene(write_scene('a.tif', 256, 256), window=window)
    source = draws([scene], group=group)
    assert len(source.readings(0, 0)) == places
    assert source.chunk == group * places


@pytest.mark.parametrize('group', [1, 8])
def test_every_window_is_as_likely(write_scene: WriteScene, group: int) -> None:
    """Alone or by neighbourhoods, over scenes of different sizes, within a split."""
    scenes = [
        labeled_scene(write_scene('a.tif', 70, 90), window=16),
        labeled_scene(write_scene('b.tif', 40, 40), window=16),
    ]
    source = draws(scenes, group=group, top=40)
    drawn = Counter(
        (scene, window.row // 5, window.col // 25)
        for chunk in range(8000 // source.chunk)
        for scene, window in windows(source.readings(0, chunk)).values()
    )
    # starts: rows 0…24 in both; columns 0…74 in one, 0…24 in the other
    assert drawn.keys() == {(0, r, c) for r in range(5) for c in range(3)} | {
        (1, r, 0) for r in range(5)
    }
    expected = 8000 / 20
    spread = np.array(list(drawn.values())) / expected
    assert np.abs(spread - 1).max() < (0.2 if group == 1 else 0.4)


def test_draws_go_to_places_with_labels(write_scene: WriteScene) -> None:
    boxes = [(10.0, 10.0, 12.0, 12.0), (60.0, 80.0, 61.0, 81.0)]
    labels = RuleLabels(CLASSES, left_or_right, boxes)
    source = draws([labeled_scene(write_scene(), labels, window=16)])
    hits = Counter[int]()
    for chunk in range(20):
        for _, (row, col, height, width) in windows(source.readings(0, chunk)).values():
            for number, (top, left, bottom, right) in enumerate(boxes):
                inside = row < bottom and top < row + height
                hits[number] += inside and col < right and left < col + width
    # the rest touch a cell that a window with labels starts in, no more
    assert 0.6 * 20 * source.chunk < hits.total()
    # 17 × 17 starts meet the first; of the second, at the edge, 10 × 10
    assert 0 < hits[1] < hits[0]


def test_windows_without_labels_are_passed_over_and_counted(
    write_scene: WriteScene,
) -> None:
    def only_left(grid: Grid) -> list[int] | None:
        return [1, 0] if grid.transform.c < 500_200 else None

    source = draws([labeled_scene(write_scene(), RuleLabels(CLASSES, only_left))])
    drawn = windows(source.readings(0, 0)).values()
    assert len(drawn) == source.chunk
    assert max(window.col for _, window in drawn) < 20
    assert source.unlabeled > 0
    never = RuleLabels(CLASSES, lambda _: None)
    with pytest.raises(LabelError, match='No window with a label was found in'):
        draws([labeled_scene(write_scene(), never)]).readings(0, 0)
    nowhere = RuleLabels(CLASSES, left_or_right, [])
    with pytest.raises(LabelError, match='None of 1 scenes overlaps'):
        draws([labeled_scene(write_scene(), nowhere)])


def test_empty_ground_is_never_drawn(write_scene: WriteScene) -> None:
    pixels = scene_pixels(70, 90)
    pixels[:, :, 45:] = 0
    scene = labeled_scene(write_scene(pixels=pixels, nodata=0))
    assert scene.holds_data(Window(0, 29, 32, 32))
    assert not scene.holds_data(Window(0, 30, 32, 32))
    batches = TrainingBatches(draws([scene]), 8, 64)
    for batch in batches:
        assert (batch['window'][:, 1] < 30).all()
        assert (batch['valid'].flatten(1).float().mean(1) >= 0.5).all()
        assert torch.isfinite(batch['image']).all()
        # filled with the mean of what is there, as when a scene is predicted
        assert (batch['image'] > 0).all()


def test_training_batches_show_the_scenes_pixels(write_scene: WriteScene) -> None:
    pixels = scene_pixels(70, 90).astype(np.float32)
    classes = (np.arange(70 * 90).reshape(1, 70, 90) % 7).astype(np.uint8)
    reference = write_scene('reference.tif', pixels=classes, descriptions=None)
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 32, reference=reference)
    labels = RuleLabels(CLASSES, left_or_right)
    source = draws([LabeledScene(scene, labels)])
    turned = Counter[int]()
    for batch in TrainingBatches(source, 8, 64):
        assert batch['label'].dtype == torch.float32
        assert batch['label_known'].all()
        for number in range(8):
            row, col, tall, wide = batch['window'][number].tolist()
            part = (slice(row, row + tall), slice(col, col + wide))
            image = batch['image'][number]
            ways = [
                way
                for way in range(8)
                if np.array_equal(image, _turned(pixels[:, *part], way))
            ]
            assert len(ways) == 1
            turned[ways[0]] += 1
            mask = _turned(classes[0][part], ways[0])
            np.testing.assert_array_equal(batch['mask'][number], mask)
            grid = source.scenes[0].window_grid(Window(row, col, tall, wide))
            assert batch['label'][number].tolist() == left_or_right(grid)
    assert min(turned[way] for way in range(8)) > 1


def _turned(pixels: NDArray[Any], way: int) -> NDArray[Any]:
    """Pixels in one of the 8 orientations."""
    pixels = np.rot90(pixels, way % 4, (-2, -1))
    return pixels[..., ::-1] if way >= 4 else pixels


def rows(batches: TrainingBatches) -> list[list[int]]:
    """Scene, window and first pixel of everything that is shown, in order."""
    return [
        [int(scene), *window.tolist(), int(image[0, 0, 0])]
        for batch in batches
        for scene, window, image in zip(
            batch['scene'], batch['window'], batch['image'], strict=True
        )
    ]


def test_what_is_shown_does_not_depend_on_threads_or_batches(
    write_scene: WriteScene,
) -> None:
    paths = [write_scene('a.tif'), write_scene('b.tif', 50, 60)]
    scenes = [labeled_scene(path) for path in paths]
    shown = [
        rows(TrainingBatches(draws(scenes), batch, 96, threads, epoch=lambda: 2))
        for threads, batch in ((0, 8), (1, 12), (3, 8))
    ]
    assert len(shown[0]) == 96
    assert shown[0] == shown[1] == shown[2]
    again = TrainingBatches(draws(scenes), 8, 96, epoch=lambda: 3)
    assert len(again) == 12
    assert rows(again) == rows(again) != shown[0]


def test_processes_share_an_epoch(write_scene: WriteScene) -> None:
    scenes = [labeled_scene(write_scene())]
    alone = rows(TrainingBatches(draws(scenes), 8, 128))
    parts = [
        rows(TrainingBatches(draws(scenes), 8, 128, 0, (part, 2))) for part in (0, 1)
    ]
    assert [len(part) for part in parts] == [64, 64]
    assert sorted(parts[0] + parts[1]) == sorted(alone)
    # an odd number is rounded up, alike for both
    assert {len(TrainingBatches(draws(scenes), 8, 100, 0, (p, 2))) for p in (0, 1)} == {
        7
    }


@pytest.mark.parametrize('threads', [0, 2])
def test_evaluation_batches_are_the_windows_in_order(
    write_scene: WriteScene, threads: int
) -> None:
    scene = labeled_scene(write_scene())
    known = [(0, window, scene.label(window)) for window in scene.tiling()]
    dataset = LabeledWindows([scene], known)  # type: ignore[arg-type]
    batches = EvaluationBatches(dataset, 3, threads)
    assert [len(batch['image']) for batch in batches] == [3, 1]
    together = {
        key: torch.cat([batch[key] for batch in batches]) for key in dataset[0]
        if dataset[0][key].ndim
    }  # fmt: skip
    for key, values in together.items():
        assert torch.equal(values, torch.stack([dataset[i][key] for i in range(4)]))
    parts = [EvaluationBatches(dataset, 3, threads, (part, 3)) for part in range(3)]
    shown = [batch['window'] for part in parts for batch in part]
    assert torch.equal(torch.cat(shown), together['window'])
    # no process is without a window, which others would wait for
    many = [EvaluationBatches(dataset, 3, threads, (part, 9)) for part in range(9)]
    assert [len(part) for part in many] == [1] * 9
    assert {tuple(b['window'][0].tolist()) for part in many for b in part} == {
        tuple(window) for window in together['window'].tolist()
    }
    name, grid = dataset.place(3)
    assert name == 'scene_32_32'
    assert (grid.transform.c, grid.transform.f) == (500_320, 4_199_680)


def test_an_error_while_reading_reaches_whoever_asks(write_scene: WriteScene) -> None:
    path = write_scene()
    batches = TrainingBatches(draws([labeled_scene(path)]), 8, 32, threads=2)
    path.unlink()
    with pytest.raises(Exception, match='does not exist'):
        next(iter(batches))


def test_small_scenes_are_padded(write_scene: WriteScene) -> None:
    scene = labeled_scene(write_scene(height=20, width=25))
    [batch] = TrainingBatches(draws([scene]), 8, 8)
    assert batch['image'].shape == (8, 13, 32, 32)
    assert (batch['valid'].sum((1, 2)) == 500).all()


def test_readers_travel(write_scene: WriteScene) -> None:
    scene = labeled_scene(write_scene())
    dataset = LabeledWindows(
        [scene],
        [(0, Window(0, 0, 32, 32), scene.label(Window(0, 0, 32, 32)))],  # type: ignore[list-item]
    )
    dataset.scenes[0].labels = RuleLabels(CLASSES, left_or_right)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0]['image'], dataset[0]['image'])


def test_labels_are_known_without_reading(write_scene: WriteScene) -> None:
    label = ImageLabel(np.array([1, 0, 0], np.float32), np.array([True, True, False]))
    dataset = LabeledWindows(
        [labeled_scene(write_scene())], [(0, Window(0, 0, 32, 32), label)]
    )
    assert dataset.image_label(0).tolist() == [1, 0, -1]


def test_areas_are_drawn_alike_whatever_their_size(write_scene: WriteScene) -> None:
    boxes = [(0.0, 0.0, 190.0, 190.0), (240.0, 240.0, 250.0, 250.0)]
    labels = RuleLabels(CLASSES, left_or_right, boxes)
    path = write_scene(height=256, width=256)
    scene = LabeledScene(SceneWindows(path, SENTINEL2_BANDS, 16, 16), labels)
    shares = []
    for alike in (False, True):
        sampler = WindowDraws([scene], lambda *_: True, 0, 1, alike)
        drawn = [
            window
            for chunk in range(40)
            for _, window in windows(sampler.readings(0, chunk)).values()
        ]
        shares.append(np.mean([window.row > 200 for window in drawn]))
    assert shares[0] < 0.06
    # 40 x 32 draws of one half
    assert 0.44 < shares[1] < 0.56
    assert scene.chances().sum() == pytest.approx(2)
    np.testing.assert_array_equal(scene.chances() > 0, scene.starts)
