"""``torchgeo-ctm stats``: NumPy's numbers, and a configuration that trains."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.commands import Run, TorchGeoMain, refused
from tests.fakes.dfc2020 import write_dfc2020
from tests.fakes.holes import Holes, holes_config
from tests.fakes.torchgeo_configs import small_config
from torchgeo_ctm.datamodules import DFC2020DataModule
from torchgeo_ctm.errors import LabelWarning
from torchgeo_ctm.reports.counts import LabelCounts
from torchgeo_ctm.reports.statistics import PERCENTILES, BandStatistics, measure
from torchgeo_ctm.trainers import load_task


def valid_pixels() -> list[np.ndarray]:
    """What is to be measured, said once more."""
    chips = Holes()
    valid = chips.valid & ~(chips.image == -9999).all(dim=1)
    bands = []
    for band in range(2):
        values = chips.image[:, band][valid].numpy() / np.float32(10)
        values = values[~np.isnan(values)] - np.float32(5)
        bands.append(np.clip(values, 8, 25))
    return bands


def test_it_is_numpy_on_all_pixels() -> None:
    drawn = np.random.default_rng(0).normal([[5], [-3000]], [[1], [800]], (2, 9000))
    values = drawn.astype(np.float32)
    statistics = BandStatistics(2)
    for part in np.array_split(values, 13, axis=1):
        statistics.update(part)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, exact.std(axis=1), rtol=1e-12)
    for band in range(2):
        np.testing.assert_allclose(
            statistics.percentiles(band),
            np.percentile(exact[band], PERCENTILES),
            rtol=1e-12,
        )


@pytest.mark.parametrize('cut', [0, 1, 400, 1000])
def test_parts_make_a_whole(cut: int) -> None:
    values = np.random.default_rng(1).normal(10, 3, (3, 1000)).astype(np.float32)
    values[1, ::7] = np.nan
    values[2] = 4
    whole, first = BandStatistics(3), BandStatistics(3)
    whole.update(values)
    first.update(values[:, :cut])
    first.update(values[:, cut:])
    np.testing.assert_array_equal(first.count, whole.count)
    np.testing.assert_allclose(first.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(first.std, whole.std, rtol=1e-12)
    assert whole.std[2] == 0
    for band in range(3):
        assert first.percentiles(band) == whole.percentiles(band)


@pytest.mark.parametrize('rising', [True, False])
def test_percentiles_of_a_sample(rising: bool) -> None:
    """Every pixel is equally likely to be drawn, whatever the order."""
    values = np.random.default_rng(4).normal(0, 1000, (1, 50_000)).astype(np.float32)
    ordered = np.sort(values) if rising else np.sort(values)[:, ::-1]
    drawn, again = BandStatistics(1, 4000), BandStatistics(1, 4000)
    for part in np.array_split(ordered, 37, axis=1):
        drawn.update(part)
        again.update(part)
    assert (drawn.sampled, drawn.pixels) == (4000, 50_000)
    assert drawn.percentiles(0) == again.percentiles(0)
    ranks = [float((values < found).mean()) for found in drawn.percentiles(0)]
    # four standard errors of a median of 4000 pixels
    assert ranks == pytest.approx([each / 100 for each in PERCENTILES], abs=0.032)


def test_nothing_has_no_percentile() -> None:
    statistics = BandStatistics(1)
    assert np.isnan(statistics.percentiles(0)).all()
    statistics.update(np.full((1, 5), np.nan, np.float32))
    assert np.isnan(statistics.percentiles(0)).all()
    assert statistics.constant.all()


@pytest.mark.parametrize(('batch_size', 'num_workers'), [(2, 0), (7, 0), (3, 2)])
def test_batches_and_workers_change_nothing(
    tmp_path: Path, batch_size: int, num_workers: int
) -> None:
    config = holes_config(
        tmp_path / 'c.yaml', batch_size=batch_size, num_workers=num_workers
    )
    with pytest.warns(UserWarning, match='Urban'):
        measured = measure(config, nodata=-9999, progress=False)
    one = holes_config(tmp_path / 'one.yaml', batch_size=1)
    with pytest.warns(UserWarning, match='Urban'):
        alone = measure(one, nodata=-9999, progress=False)
    for band, values in enumerate(valid_pixels()):
        assert measured.bands.count[band] == values.size
        assert measured.bands.mean[band] == alone.bands.mean[band]
        assert measured.bands.std[band] == alone.bands.std[band]
        exact = values.astype(np.float64)
        assert measured.bands.mean[band] == pytest.approx(exact.mean(), rel=1e-6)
        assert measured.bands.std[band] == pytest.approx(exact.std(), rel=1e-6)
        assert measured.bands.percentiles(band) == pytest.approx(
            np.percentile(exact, PERCENTILES).tolist(), rel=1e-6
        )


def test_the_command_warns_counts_and_writes(run: Run, tmp_path: Path) -> None:
    config = holes_config(tmp_path / 'c.yaml')
    out, numbers = tmp_path / 'stats.yaml', tmp_path / 'stats.json'
    arguments = ('stats', '--config', config, '--output', out, '--json', numbers,
                 '--nodata', '-9999')  # fmt: skip
    status, printed, err = run(*arguments)
    assert status == 0, err
    assert 'Present in none of 7 labeled chips: Urban' in err
    assert 'Present in all of 7 labeled chips: Forest' in err
    assert '7 of 7 training chips' in printed
    content = json.loads(numbers.read_text())
    means = [values.astype(np.float64).mean() for values in valid_pixels()]
    assert content['bands']['VH']['mean'] == pytest.approx(means[1], rel=1e-6)
    valid = Holes().valid.numel()
    assert 0 < content['percentiles_of_pixels'] < valid
    assert 'percentiles of all pixels' in printed
    assert content['classes']['Water']['chips'] == 1
    scaling = yaml.safe_load(out.read_text())['model']['init_args']['scaling']
    assert scaling['offset'] == -5
    assert scaling['clip'] == [8, 25]
    assert scaling['mean'] == pytest.approx(means, rel=1e-5)
    assert not list(tmp_path.glob('.*.part'))
    refused(run(*arguments), 'exists', '--overwrite')
    assert run(*arguments, '--overwrite')[0] == 0


def test_a_limit_is_spread_over_the_split(run: Run, tmp_path: Path) -> None:
    config = holes_config(tmp_path / 'c.yaml', chips=100)
    with warnings.catch_warnings():
        # some chips do not tell what is missing in all of them
        warnings.simplefilter('error', LabelWarning)
        measured = measure(config, limit=4, progress=False)
    assert (measured.labels.chips, measured.total) == (4, 100)
    images = Holes(chips=100)
    chosen = [0, 25, 50, 75]
    pixels = images.image[chosen, 1][images.valid[chosen]]
    assert measured.bands.count[1] == pixels.numel()
    refused(
        run('stats', '--config', config, '--limit', 0), '--limit 0', 'Did you mean 1?'
    )


def test_mistakes_are_one_line(run: Run, tmp_path: Path) -> None:
    config = holes_config(tmp_path / 'c.yaml')
    refused(
        run('stats', '--config', tmp_path / 'none.yaml'), 'none.yaml does not exist'
    )
    refused(run('stats'), '--config')
    before = config.read_text()
    refused(
        run('stats', '--config', config, '--output', config, '--overwrite'),
        'is the input itself',
    )
    refused(run('stats', '--config', config, '--output', tmp_path / 's.txt'), 's.yaml')
    assert config.read_text() == before
    content = yaml.safe_load(before)
    for section in ('model', 'data'):
        part = {key: value for key, value in content.items() if key != section}
        config.write_text(yaml.safe_dump(part))
        refused(run('stats', '--config', config), f'no {section} section')
    content['model']['init_args']['in_channels'] = 3
    content['model']['init_args']['bands'] = ['VV', 'VH', 'HH']
    config.write_text(yaml.safe_dump(content))
    refused(run('stats', '--config', config), '2 bands, expected 3')
    content['model']['class_path'] = 'torchgeo_ctm.compat.Classification'
    config.write_text(yaml.safe_dump(content))
    refused(run('stats', '--config', config), 'is a Classification', 'fast_dev_run')
    other = small_config('landcoverai', tmp_path)
    content = yaml.safe_load(other.read_text())
    content['data']['dict_kwargs']['root'] = str(tmp_path / 'nowhere')
    other.write_text(yaml.safe_dump(content))
    refused(run('stats', '--config', other), 'train split', 'No data set found')


def test_training_chips_are_not_augmented(tmp_path: Path) -> None:
    """DFC2020 crops at random to train; what is measured are the centres."""
    write_dfc2020(tmp_path / 'dfc')
    config = tmp_path / 'dfc.yaml'
    model = {'img_size': 64, 'model_options': {'embed_dim': 16, 'num_heads': 2}}
    content = {
        'model': {
            'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
            'init_args': model,
        },
        'data': {
            'class_path': 'torchgeo_ctm.datamodules.DFC2020DataModule',
            'init_args': {'img_size': 64, 'batch_size': 1},
            'dict_kwargs': {'root': str(tmp_path / 'dfc')},
        },
    }
    config.write_text(yaml.safe_dump(content))
    with pytest.warns(UserWarning):
        measured = measure(config, progress=False)
    with pytest.warns(UserWarning):
        chips = DFC2020DataModule(img_size=64, root=str(tmp_path / 'dfc')).chips(
            'train'
        )
    images = np.stack([chips[index]['image'].numpy() for index in range(len(chips))])
    exact = images.transpose(1, 0, 2, 3).reshape(13, -1).astype(np.float64)
    np.testing.assert_allclose(measured.bands.mean, exact.mean(axis=1), rtol=1e-12)
    for band in range(13):
        assert measured.bands.percentiles(band) == pytest.approx(
            np.percentile(exact[band], PERCENTILES).tolist()
        )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['bigearthnet', 'l8biome'])
def test_the_configuration_trains(
    name: str, run: Run, tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    """After the one it was measured with: null, and numbers, give way to it."""
    config, out = small_config(name, tmp_path), tmp_path / 'stats.yaml'
    assert run('stats', '--config', config, '--output', out, '--nodata', 0)[0] == 0
    torchgeo_main('fit', '--config', config, '--config', out)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    task = load_task(checkpoint)
    wanted = yaml.safe_load(out.read_text())['model']['init_args']['scaling']
    assert task.hparams['scaling']['mean'] == wanted['mean']
    assert task.hparams['scaling']['clip'] is None
    model = yaml.safe_load(config.read_text())['model']['init_args']
    assert task.class_names == model['class_names']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        chips = measure(config, nodata=0, progress=False)
    mean = torch.tensor(chips.bands.mean).float().view(-1, 1, 1)
    assert task.scaling(mean[None]).abs().max() < 1e-4


@pytest.mark.slow
def test_masks_train_with_it(
    run: Run, tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    config, out = small_config('landcoverai', tmp_path), tmp_path / 'stats.yaml'
    assert run('stats', '--config', config, '--output', out)[0] == 0
    torchgeo_main('fit', '--config', config, '--config', out)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    wanted = yaml.safe_load(out.read_text())['model']['init_args']['scaling']
    assert load_task(checkpoint).hparams['scaling']['std'] == wanted['std']


def test_masks_that_contradict_labels_are_told() -> None:
    counts = LabelCounts(2)
    for _ in range(6):
        counts.update(np.array([1, 0]), None, np.ones((4, 4), np.int64))
        counts.update(np.array([0, 1]), None, np.ones((4, 4), np.int64))
    with pytest.warns(LabelWarning, match='a is in the labels of 6 chips, but 6 of'):
        counts.warn(['a', 'b'])
    counts = LabelCounts(2)
    for _ in range(6):
        counts.update(np.array([1, 0]), None, np.zeros((4, 4), np.int64))
        counts.update(np.array([0, 1]), None, np.ones((4, 4), np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        counts.warn(['a', 'b'])
