import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pyproj import CRS
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomBatchGeoSampler

from tests.conftest import WriteScene, scene_pixels
from tests.fakes.labeled_scenes import RuleLabels
from tests.fakes.samplers import random_sampler
from torchgeo_ctm.compat import grid_sampler
from torchgeo_ctm.datasets import LabelledDataset, LabelledSampler
from torchgeo_ctm.errors import LabelError, LabelWarning
from torchgeo_ctm.grids import Grid

CLASSES = ('west', 'east')


class Masks(RasterDataset):
    """Class rasters."""

    is_image = False


def west_or_east(grid: Grid) -> list[int]:
    """Which side of x = 500,450 m a chip touches."""
    left = grid.transform.c
    return [int(left < 500_450), int(left + grid.width * grid.transform.a > 500_450)]


def northern(grid: Grid) -> list[int] | None:
    """Labels for chips that touch the northern 10 rows alone."""
    return west_or_east(grid) if grid.transform.f > 4_199_900 else None


@pytest.fixture
def images(write_scene: WriteScene) -> RasterDataset:
    return RasterDataset(str(write_scene()))


def test_a_sample_has_the_label_of_its_ground(images: RasterDataset) -> None:
    labels = RuleLabels(CLASSES, west_or_east)
    dataset = LabelledDataset(images, labels)
    assert len(dataset) == 1
    assert dataset.bounds == images.bounds
    sampler = grid_sampler(dataset, 32)
    pixels = scene_pixels(70, 90)
    for query in sampler:
        sample = dataset[query]
        grid, _ = labels.asked[-1]
        assert (grid.height, grid.width) == sample['image'].shape[1:]
        assert grid.crs.to_epsg() == 32630
        # the grid of the label is the grid of the pixels
        col, row = ~grid.transform @ (500_000, 4_200_000)
        top, left = round(-row), round(-col)
        assert (top, left) == (pytest.approx(-row), pytest.approx(-col))
        if 0 <= top <= 38 and 0 <= left <= 58:
            part = pixels[:, top : top + 32, left : left + 32]
            np.testing.assert_array_equal(sample['image'], part)
        assert sample['label'].tolist() == west_or_east(grid)
        assert sample['label'].dtype == torch.float32
        assert sample['label_known'].tolist() == [True, True]


def test_whatever_torchgeo_combines(
    images: RasterDataset, write_scene: WriteScene
) -> None:
    classes = (np.arange(70 * 90).reshape(1, 70, 90) % 3).astype(np.uint8)
    path = write_scene('mask.tif', pixels=classes, descriptions=None)
    labels = RuleLabels(CLASSES, west_or_east)
    inside = LabelledDataset(images, labels) & Masks(str(path))
    outside = LabelledDataset(images & Masks(str(path)), labels)
    [query] = random_sampler(inside, 32, 1)
    one, other = inside[query], outside[query]
    for key in ('image', 'mask', 'label', 'label_known'):
        assert torch.equal(one[key], other[key])


def test_loaders_show_labelled_queries_alone(images: RasterDataset) -> None:
    dataset = LabelledDataset(images, RuleLabels(CLASSES, northern))
    sampler = LabelledSampler(grid_sampler(dataset, 30), dataset)
    loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=stack_samples)
    assert len(sampler) == 3
    assert len(loader) == 2
    with pytest.warns(LabelWarning, match='6 queries have no label.* 3 have one'):
        batches = list(loader)
    assert [batch['image'].shape[0] for batch in batches] == [2, 1]
    assert torch.cat([batch['label'] for batch in batches]).tolist() == [
        [1, 0],
        [1, 1],
        [0, 1],
    ]
    assert torch.cat([batch['label_known'] for batch in batches]).all()
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        list(loader)  # it says so once
    with pytest.raises(LabelError, match='Use LabelledSampler'):
        list(DataLoader(dataset, sampler=grid_sampler(dataset, 30)))


def test_random_draws_fill_an_epoch(images: RasterDataset) -> None:
    dataset = LabelledDataset(images, RuleLabels(CLASSES, northern))

    def queries(seed: int) -> list[object]:
        sampler = LabelledSampler(random_sampler(dataset, 30, 20, seed), dataset)
        assert len(sampler) == 20
        with pytest.warns(LabelWarning):
            found = list(sampler)
        assert sampler.skipped > 0
        return found

    found = queries(1)
    assert len(found) == 20
    assert all(dataset.label(query) is not None for query in found)  # type: ignore[arg-type]
    assert queries(1) == found
    assert queries(2) != found


@pytest.mark.filterwarnings('ignore:Use torchgeo.samplers')
def test_batch_samplers_keep_their_labelled_queries(images: RasterDataset) -> None:
    dataset = LabelledDataset(images, RuleLabels(CLASSES, northern))
    torch.manual_seed(0)
    sampler = LabelledSampler(RandomBatchGeoSampler(dataset, 30, 4, 40), dataset)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=stack_samples)
    with pytest.warns(LabelWarning):
        shown = sum(len(batch['label']) for batch in loader)
    assert 0 < shown == 40 - sampler.skipped


def test_no_label_at_all_is_an_error(images: RasterDataset) -> None:
    dataset = LabelledDataset(images, RuleLabels(CLASSES, lambda _: None))
    for sampler in (random_sampler(dataset, 30, 5), grid_sampler(dataset, 30)):
        with pytest.raises(LabelError, match=r'None of \d+ queries has a label'):
            list(LabelledSampler(sampler, dataset))


def test_another_crs_and_resolution_reach_the_labels(
    images: RasterDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = RuleLabels(CLASSES, lambda _: [1, 0])
    dataset = LabelledDataset(images, labels)
    dataset.crs = CRS.from_epsg(4326)
    dataset.res = 0.0001
    assert images.crs == CRS.from_epsg(4326)
    assert re.search('Converting .* CRS', capsys.readouterr().out)
    x, y, t = dataset.bounds
    middle = (x.start + x.stop) / 2
    dataset[slice(middle, middle + 0.001), slice(y.start, y.start + 0.002), t]
    [(grid, _)] = labels.asked
    assert (grid.height, grid.width) == (20, 10)
    assert grid.crs.to_epsg() == 4326


def test_it_travels_to_workers(images: RasterDataset, tmp_path: Path) -> None:
    dataset = LabelledDataset(images, None)  # type: ignore[arg-type]
    dataset.labels = Everything()
    again = pickle.loads(pickle.dumps(dataset))
    [query] = random_sampler(dataset, 32, 1)
    assert torch.equal(again[query]['label'], dataset[query]['label'])


class Everything(RuleLabels):
    """Says the same everywhere; a function of a test cannot be pickled."""

    def __init__(self) -> None:
        super().__init__(CLASSES, west_or_east)
