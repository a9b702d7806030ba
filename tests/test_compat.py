from typing import Any

import pytest
import torchgeo.samplers
from torch.utils.data import SequentialSampler
from torchgeo.datasets import RasterDataset

from tests.conftest import WriteScene
from tests.fakes.samplers import random_sampler
from torchgeo_ctm import compat
from torchgeo_ctm.trainers import ClassTokenMaskingTask


def test_tasks_are_torchgeos() -> None:
    for name in ('BaseTask', 'Classification', 'SemanticSegmentation'):
        assert getattr(compat, name).__module__.startswith('torchgeo.')
    assert issubclass(ClassTokenMaskingTask, compat.BaseTask)
    with pytest.raises(AttributeError, match='Segmenter'):
        compat.Segmenter  # noqa: B018


def test_samplers_that_draw_at_random(write_scene: WriteScene) -> None:
    dataset = RasterDataset(str(write_scene()))
    draws = random_sampler(dataset, 32, 3)
    assert compat.is_random(draws)
    assert not compat.is_random(compat.grid_sampler(dataset, 32))
    assert not compat.is_random(SequentialSampler(range(3)))
    if not hasattr(torchgeo.samplers, 'RandomTimestampSampler'):
        return
    samplers: Any = torchgeo.samplers
    dates = samplers.RandomTimestampSampler(dataset)
    assert compat.is_random(draws @ dates)
    orders = samplers.SequentialTimestampSampler(dataset)
    assert not compat.is_random(compat.grid_sampler(dataset, 32) @ orders)


def test_grids_cover_a_scene(write_scene: WriteScene) -> None:
    dataset = RasterDataset(str(write_scene(height=64, width=96)))
    queries = list(compat.grid_sampler(dataset, 32))
    corners = {(query[0].start, query[1].start) for query in queries}
    x, y, _ = dataset.bounds
    assert corners == {
        (x.start + 320 * col, y.start + 320 * row) for col in range(3) for row in (0, 1)
    }
