import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.conftest import WriteScene, scene_pixels
from torchgeo_ctm.datasets import SceneBatches, SceneWindows
from torchgeo_ctm.errors import SceneError
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scenes.batches import Batch, prefetch


@pytest.mark.parametrize('ahead', [0, 1])
@pytest.mark.parametrize('stride', [7, 16, 32])
def test_batches_hold_what_samples_hold(
    write_scene: WriteScene, ahead: int, stride: int
) -> None:
    pixels = scene_pixels(100, 90)
    pixels[:, 30:60, :50] = 0
    scene = SceneWindows(
        write_scene(pixels=pixels, nodata=0), SENTINEL2_BANDS, 32, stride
    )
    batches = list(SceneBatches(scene, 3, ahead))
    numbers = torch.cat([batch['index'] for batch in batches]).tolist()
    occupied = [i for i in range(len(scene)) if scene[i]['valid'].any()]
    assert numbers == occupied
    assert len(batches) <= len(SceneBatches(scene, 3))
    for batch in batches:
        assert len(batch['index']) <= 3
        strips = {scene.plan.row_of(number) for number in batch['index'].tolist()}
        assert len(strips) == 1
        for position, number in enumerate(batch['index'].tolist()):
            for key, value in scene[number].items():
                assert torch.equal(batch[key][position], value)


@pytest.mark.parametrize('parts', [1, 2, 3, 50])
def test_parts_share_the_scene(write_scene: WriteScene, parts: int) -> None:
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 16)
    whole = [batch['index'].tolist() for batch in SceneBatches(scene, 4)]
    shared = [
        batch['index'].tolist()
        for part in range(parts)
        for batch in SceneBatches(scene, 4, part=(part, parts))
    ]
    assert shared == whole
    # Lightning refuses a process whose loader is empty
    assert all(len(SceneBatches(scene, 4, part=(i, parts))) for i in range(parts))


def test_finished_windows_are_skipped_and_batches_stay_the_same(
    write_scene: WriteScene,
) -> None:
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 16)
    whole = [batch['index'].tolist() for batch in SceneBatches(scene, 2)]
    again = SceneBatches(scene, 2)
    for numbers in whole[:5]:
        again.finished[numbers] = 1
    again.finished[whole[7][0]] = 1  # half of a batch is none
    assert [batch['index'].tolist() for batch in again] == whole[5:]


def test_two_iterators_do_not_share_a_file(write_scene: WriteScene) -> None:
    """Lightning makes one only to look at it; GDAL's files are no two threads' own."""
    scene = SceneWindows(write_scene(), SENTINEL2_BANDS, 32, 16)
    batches = SceneBatches(scene, 4)
    before = threading.active_count()
    looked_at = iter(batches)
    assert threading.active_count() == before
    expected = [batch['image'].clone() for batch in SceneBatches(scene, 4, ahead=0)]
    for first, second, image in zip(batches, looked_at, expected, strict=True):
        assert torch.equal(first['image'], image)
        assert torch.equal(second['image'], image)


@pytest.mark.parametrize('items', [1, 2, 3])
def test_nothing_is_made_that_has_no_room(items: int) -> None:
    made = []

    def source() -> Iterator[Batch]:
        for number in range(10):
            made.append(number)
            yield {'index': torch.tensor([number])}

    ahead = prefetch(source, items)
    for asked in range(1, 4):
        assert int(next(ahead)['index']) == asked - 1
        for _ in range(50):
            if len(made) == asked + items:
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == asked + items
    assert [int(batch['index']) for batch in ahead] == list(range(3, 10))


def test_errors_reach_whoever_asks(write_scene: WriteScene) -> None:
    path = write_scene(height=300, width=300)
    short = path.with_name('short.tif')
    short.write_bytes(path.read_bytes()[:-400_000])
    with pytest.raises(SceneError, match=r'short\.tif'):
        list(SceneBatches(SceneWindows(short, SENTINEL2_BANDS, 64, 64), 2))


def test_an_abandoned_iterator_ends_its_thread(write_scene: WriteScene) -> None:
    scene = SceneWindows(
        write_scene(pixels=scene_pixels(400, 400)), SENTINEL2_BANDS, 32, 8
    )
    before = threading.active_count()
    iterator = iter(SceneBatches(scene, 1))
    next(iterator)
    assert threading.active_count() == before + 1
    del iterator
    for _ in range(50):
        if threading.active_count() == before:
            break
        time.sleep(0.1)
    assert threading.active_count() == before


def test_the_offset_is_added_to_what_the_model_adds(write_scene: WriteScene) -> None:
    pixels = scene_pixels(40, 40)
    path = write_scene(pixels=pixels)
    for offset, model_offset, added in (
        (None, -5.0, 0),
        (-1000, 0, -1000),
        (-7, -7, 0),
    ):
        scene = SceneWindows(
            path, SENTINEL2_BANDS, 40, 40, offset=offset, model_offset=model_offset
        )
        expected = pixels.astype(np.float32) + added
        np.testing.assert_array_equal(scene[0]['image'], expected)


def test_a_program_may_end_between_two_items() -> None:
    """A thread that Python stops within another library aborts the process."""
    code = (
        'import itertools, time\n'
        'from torchgeo_ctm.scenes.batches import prefetch\n'
        'items = prefetch(lambda: (time.sleep(0.01) or i for i in itertools.count()))\n'
        'print(next(items))'
    )
    ended = subprocess.run(
        [sys.executable, '-c', code],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, '0\n', '')
