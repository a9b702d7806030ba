"""Images of a batch, each with a thread of its own."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny_task
from torchgeo_ctm.errors import DeviceMemoryWarning, SettingError
from torchgeo_ctm.inference.threads import ImageThreads, NoThreads, threads_for


@pytest.fixture(autouse=True, params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def lanes(threads: int) -> Iterator[ImageThreads]:
    made = ImageThreads()
    yield made
    made.close()


def doubled(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    return {'twice': 2 * batch['image'] + batch['more'], 'first': batch['image'][:, 0]}


@pytest.mark.parametrize('count', [1, 2, 5, 8])
@torch.inference_mode()
def test_images_keep_their_order(lanes: ImageThreads, count: int) -> None:
    image = torch.randn(count, 3, 4, 4)
    found = lanes.submit(doubled, {'image': image, 'more': 1.0, 'crs': None})()
    assert torch.equal(found['twice'], 2 * image + 1)
    assert torch.equal(found['first'], image[:, 0])


@torch.inference_mode()
def test_what_is_of_an_image_stays_with_it(lanes: ImageThreads) -> None:
    image, more = torch.randn(6, 3, 4, 4), torch.arange(6.0).view(6, 1, 1, 1)
    found = lanes.submit(doubled, {'image': image, 'more': more})()
    assert torch.equal(found['twice'], 2 * image + more)


def test_modes_hold_in_every_thread(lanes: ImageThreads, threads: int) -> None:
    weight = torch.randn(3, 3, requires_grad=True)
    kinds = []

    def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        made = batch['image'] @ weight
        kinds.append((made.dtype, made.requires_grad, made.is_inference()))
        return {'made': made}

    image = torch.randn(8, 2, 3)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        lanes.submit(step, {'image': image})()
    with torch.no_grad():
        lanes.submit(step, {'image': image})()
    parts = min(threads, 8)
    assert kinds == (
        [(torch.bfloat16, False, True)] * parts
        + [(torch.float32, False, False)] * parts
    )
    assert torch.get_num_threads() == threads


@torch.inference_mode()
def test_every_thread_has_images_and_no_more_threads_run(
    lanes: ImageThreads, threads: int
) -> None:
    used = []

    def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        used.append((len(batch['image']), torch.get_num_threads()))
        return {'image': batch['image']}

    lanes.submit(step, {'image': torch.zeros(2, 1)})()
    parts = min(threads, 2)
    assert used == [(2 // parts, threads // parts)] * parts


@torch.inference_mode()
def test_a_failure_is_told_when_results_are_looked_at(lanes: ImageThreads) -> None:
    def fail(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        if batch['image'].sum() > 0:
            raise ValueError('an image that cannot be')
        return {}

    found = lanes.submit(fail, {'image': torch.eye(4)[:, :, None, None]})
    with pytest.raises(ValueError, match='cannot be'):
        found()


@torch.inference_mode()
def test_a_batch_is_begun_before_the_one_before_it_is_looked_at(
    lanes: ImageThreads,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        begun.set()
        assert go_on.wait(10)
        return {'image': batch['image']}

    image = torch.randn(1, 2)
    first = lanes.submit(step, {'image': image})
    assert begun.wait(10)
    second = lanes.submit(step, {'image': 2 * image})
    go_on.set()
    assert torch.equal(second()['image'], 2 * image)
    assert torch.equal(first()['image'], image)


def test_closing_ends_what_nobody_waits_for(threads: int) -> None:
    made, begun, go_on, calls = ImageThreads(), threading.Event(), threading.Event(), []

    def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        calls.append(len(batch['image']))
        begun.set()
        assert go_on.wait(10)
        return {}

    for _ in range(5):
        made.submit(step, {'image': torch.zeros(threads, 1)})
    assert begun.wait(10)
    threading.Timer(0.2, go_on.set).start()
    made.close()
    assert len(calls) <= threads
    assert torch.get_num_threads() == threads


@torch.inference_mode()
def test_a_task_predicts_the_same(threads: int) -> None:
    task = tiny_task(refinement='soft_assignment').eval()
    image = torch.rand(5, 13, 32, 32) * 3000
    alone = task.predict_step({'image': image}, 0)
    before = set(threading.enumerate())
    made = threads_for(task)
    assert isinstance(made, ImageThreads)
    together = made.submit(task.predict_images, {'image': image})()
    # a thread that is done with its images may take those of another
    running = set(threading.enumerate()) - before
    assert 0 < len(running) <= threads
    assert together.keys() == alone.keys()
    for key, value in together.items():
        torch.testing.assert_close(value, alone[key])
    made.close()
    for thread in running:
        thread.join(10)
    assert not any(thread.is_alive() for thread in running)


def test_compiled_blocks_and_gpus_have_no_threads() -> None:
    task, compiled = tiny_task().to('meta'), tiny_task(compile_blocks=True)
    for made in (threads_for(compiled), threads_for(task)):
        assert isinstance(made, NoThreads)
        image = torch.rand(2, 13, 32, 32)
        assert made.submit(lambda batch: dict(batch), {'image': image})() == {
            'image': image
        }
        made.close()


def short_of_memory(most: int) -> Any:
    """A step of a device whose memory takes so many images, and the sizes it was given."""
    sizes: list[int] = []

    def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        sizes.append(len(batch['image']))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        return {'scores': batch['image'] * batch['factor']}

    return step, sizes


def test_a_batch_that_does_not_fit_into_a_device_is_computed_in_parts() -> None:
    step, sizes = short_of_memory(3)
    batch = {'image': torch.rand(10, 2, 4, 4), 'factor': torch.tensor(2.0)}
    threads = NoThreads()
    with pytest.warns(DeviceMemoryWarning, match='Set batch_size to 2') as caught:
        first = threads.submit(step, batch)()['scores']
    assert len(caught) == 2  # for ten windows, and for five
    assert sizes == [10, 5, 2, 1, 2, 2, 1, 2]
    sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        second = threads.submit(step, batch)()['scores']
    assert sizes == [2, 1, 2, 2, 1, 2]
    for found in (first, second):
        torch.testing.assert_close(found, batch['image'] * 2, rtol=0, atol=0)


def test_a_window_that_does_not_fit_into_a_device_is_one_line() -> None:
    step, _ = short_of_memory(0)
    with pytest.raises(SettingError, match='no memory for one window of 4 px'):
        NoThreads().submit(step, {'image': torch.rand(1, 2, 4, 4)})
