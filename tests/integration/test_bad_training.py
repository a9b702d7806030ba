"""Data, trainings and environments that once gave a wrong network or a wrong map.

Each test stands for a kind of fault; its parameters are generated inputs of that kind.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.callbacks import StochasticWeightAveraging as SWA
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchgeo.datamodules import EuroSATDataModule
from torchgeo.datasets import SEN12MS, SSL4EOS12, BigEarthNet, EuroSAT, L8Biome

from tests.conftest import WriteScene, save_task, tiny_task
from tests.fakes.bad_training import (
    RGB,
    Chips,
    Sample,
    fit,
    loaders,
    trainer,
    weights_after,
)
from tests.fakes.class_rasters import write_classes
from tests.fakes.torchgeo_data import (
    write_bigearthnet,
    write_coded_eurosat,
    write_l8biome,
    write_raster,
    write_sen12ms,
)
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.datasets import ImageFolder
from torchgeo_ctm.errors import (
    BandError,
    BandWarning,
    CheckpointError,
    DataError,
    LabelError,
    LabelWarning,
    ResumeWarning,
    SettingError,
)
from torchgeo_ctm.inference.scene_run import SceneRun
from torchgeo_ctm.inference.writer import PseudoMaskWriter
from torchgeo_ctm.labels import TableLabels
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.scoring import evaluate
from torchgeo_ctm.trainers import load_task
from torchgeo_ctm.trainers.channel_facts import channel_names

S2 = SENTINEL2_BANDS


# channels are what they are called


def test_band_names_are_those_of_the_numbers(tmp_path: Path) -> None:
    write_coded_eurosat(
        tmp_path / 'e', lambda band: np.full((64, 64), 1 + S2.index(band))
    )
    write_sen12ms(tmp_path / 's')
    write_bigearthnet(tmp_path / 'b')
    write_l8biome(tmp_path / 'l', scenes=1)
    eurosat = EuroSAT(str(tmp_path / 'e'))
    names = channel_names(Subset(eurosat, [0]))
    held = eurosat[0]['image'][:, 0, 0].int().tolist()
    assert names == tuple(S2[number - 1] for number in held)
    assert channel_names(EuroSAT(str(tmp_path / 'e'), bands=('B04', 'B8A'))) == (
        'B04',
        'B8A',
    )
    sen12ms = SEN12MS(str(tmp_path / 's'), checksum=False)
    assert channel_names(sen12ms)[:3] == ('VV', 'VH', 'B01')  # type: ignore[index]
    for bands in ('s1', 's2', 'all'):
        data = BigEarthNet(str(tmp_path / 'b'), bands=bands)
        files = [Path(path).stem.split('_')[-1] for path in data._load_paths(0)]
        assert channel_names(data) == tuple(files)
    landsat = tuple(f'B{number}' for number in range(1, 12))
    assert channel_names(L8Biome(str(tmp_path / 'l'))) == landsat


def number(band: str) -> int:
    """Return the number that all pixels of a band have, in chips and scenes."""
    return 100 * (1 + S2.index(band))


@pytest.mark.parametrize('given', [None, S2, ('B04', 'B03', 'B8A')])
def test_eurosat_then_a_scene(
    given: tuple[str, ...] | None, tmp_path: Path, write_scene: WriteScene
) -> None:
    write_coded_eurosat(tmp_path, lambda band: np.full((64, 64), number(band)))
    task = tiny_task(
        num_classes=10, class_names=None, class_colors=None, task='multiclass',
        bands=given, in_channels=len(given or S2), scaling=None, schedule='cosine',
        img_size=64,
    )  # fmt: skip
    data = EuroSATDataModule(root=str(tmp_path), batch_size=10)
    taught: list[torch.Tensor] = []
    hook = task.model.patch_embed.proj.register_forward_pre_hook(
        lambda _, x: taught.append(x[0])
    )
    run = trainer(max_steps=1, limit_val_batches=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', BandWarning)
        run.fit(task, data)
    hook.remove()
    task = load_task(save_task(task, tmp_path / 'a.ckpt'))
    assert set(task.bands) == set(given or EuroSAT.all_band_names)
    pixels = np.array([number(band) for band in S2], np.uint16)
    scene = write_scene(pixels=pixels[:, None, None].repeat(64, 1).repeat(64, 2))
    windows = SceneDataModule(str(scene), batch_size=1, num_workers=0)
    windows.trainer = trainer()
    windows.trainer.strategy.connect(task)
    windows.setup('predict')
    mapped = task.scaling(next(iter(windows.batches[0]))['image'])
    for channel, band in enumerate(task.bands):
        position = EuroSAT.all_band_names.index(band)
        wanted = (number(band) - data.mean[position]) / data.std[position]
        for x in (taught[-1], mapped):
            assert float(x[0, channel, 5, 5]) == pytest.approx(float(wanted), abs=1e-4)


def test_order_of_bands_is_mapped_or_refused() -> None:
    names = ['B', 'R', 'G']
    task = tiny_task(**(RGB | {'schedule': 'cosine'}))
    seen: list[torch.Tensor] = []
    task.model.patch_embed.proj.register_forward_pre_hook(
        lambda _, x: seen.append(x[0])
    )

    def coded(index: int, sample: Sample) -> Sample:
        image = torch.arange(3.0)[:, None, None].expand(3, 32, 32)
        return sample | {'image': image}

    with pytest.warns(BandWarning, match='read by name'):
        trainer().fit(task, *loaders(Chips(change=coded, bands=names)))
    assert seen[0][0, :, 0, 0].tolist() == [1, 2, 0]
    for wrong in (['R', 'G', 'NIR'], ['R', 'R', 'G', 'B']):
        with pytest.raises(BandError, match='Set bands'):
            fit(Chips(bands=wrong, channels=len(wrong)))
    with pytest.raises(SettingError, match='in_channels=13, but Chips has 3 bands'):
        fit(Chips(bands=names), in_channels=13, bands=None)
    with pytest.warns(BandWarning, match='does not name its bands'):
        fit(Chips(channels=13), in_channels=13, bands=None)


# numbers are not scaled twice


@pytest.mark.parametrize(
    ('factor', 'shift', 'word'),
    [
        (1.0, 0.0, 'scaled'),
        (4.0, -2.0, 'standardized'),
        (60.0, 0.0, 'scaled'),
        (5000.0, -3000.0, 'negative'),
        (3000.0, 0.0, None),
        (400.0, 20.0, None),
    ],
)
def test_scaled_numbers_are_recognized(
    factor: float, shift: float, word: str | None
) -> None:
    def change(index: int, sample: Sample) -> Sample:
        return sample | {'image': factor * sample['image'] + shift}

    chips = Chips(change=change)
    bands = ['B02', 'B03', 'B04']
    scaling = {'method': 'standard'}
    options: Any = {'bands': bands, 'scaling': scaling, 'schedule': 'cosine'}
    if word is None:
        fit(chips, **options)
        return
    task = tiny_task(**(RGB | options))
    before = [p.clone() for p in task.parameters()]
    with pytest.raises(SettingError, match=f'{word}.*scaling: null'):
        trainer().fit(task, *loaders(chips))
    assert all(a.equal(b) for a, b in zip(before, task.parameters(), strict=True))


def test_validation_has_the_bands_of_training() -> None:
    names = ['B02', 'B03', 'B04']
    task = tiny_task(**(RGB | {'bands': names}))
    data = [DataLoader(Chips(bands=order), 4) for order in (names, names[::-1])]
    with pytest.raises(BandError, match='the same bands in the same order'):
        trainer().fit(task, data[0], data[1])


@pytest.mark.parametrize('lr', ['high', -1, np.nan, np.inf])
def test_impossible_learning_rates_are_refused(lr: Any) -> None:
    with pytest.raises(SettingError, match='expected a number of 0 or more'):
        tiny_task(lr=lr)


# nothing that is not finite teaches


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('where', ['pixel', 'band', 'chip', 'mask', 'label'])
def test_no_number_that_is_not_finite_teaches(value: float, where: str) -> None:
    def damage(index: int, sample: Sample) -> Sample:
        image, label = sample['image'].clone(), sample['label'].clone()
        if where == 'mask':
            mask = torch.zeros(32, 32)
            mask[:16] = value if index == 0 else 1
            return {'image': image, 'mask': mask}
        if index == 0:
            match where:
                case 'pixel':
                    image[0, 3, 4] = value
                case 'band':
                    image[1, 5:20] = value
                case 'chip':
                    image[:] = value
                case 'label':
                    label[1] = value
        return {'image': image, 'label': label}

    task = fit(Chips(change=damage), schedule='cosine')
    assert all(p.isfinite().all() for p in task.parameters())


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    def damage(index: int, sample: Sample) -> Sample:
        image = sample['image'] * (1e38 if index == 5 else 1)
        return sample | {'image': image, 'name': f'tile_{index}'}

    task = tiny_task(**(RGB | {'schedule': 'cosine'}))
    with pytest.raises(DataError, match=r'chip tile_5 holds numbers up to'):
        trainer().fit(task, *loaders(Chips(change=damage), batch_size=8))
    assert all(p.isfinite().all() for p in task.parameters())


def test_weights_that_are_not_finite_are_neither_saved_nor_mapped(
    tmp_path: Path,
) -> None:
    task = tiny_task(**RGB)
    good = save_task(task, tmp_path / 'good.ckpt')
    content = torch.load(good, weights_only=True)
    content['state_dict']['model.patch_embed.proj.weight'].view(-1)[0] = np.nan
    torch.save(content, tmp_path / 'bad.ckpt')
    with pytest.raises(CheckpointError, match='diverged'):
        load_task(tmp_path / 'bad.ckpt')
    next(task.parameters()).data.view(-1)[0] = np.inf
    with pytest.raises(CheckpointError, match='no checkpoint is written'):
        save_task(task, tmp_path / 'worse.ckpt')
    assert not (tmp_path / 'worse.ckpt').exists()


# unknown is not absent


def unlabeled(kind: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the task and the label of a chip of which nothing is known."""
    ignored = torch.full((1, 8, 8), 255)
    return {
        'ignored mask': ('multilabel', {'mask': ignored}),
        'ignored mask, one class': ('multiclass', {'mask': ignored}),
        'values outside': ('multilabel', {'mask': ignored - 200}),
        'float mask of NaN': ('multilabel', {'mask': torch.full((1, 8, 8), np.nan)}),
        'index 255': ('multiclass', {'label': torch.tensor([255])}),
        'index -1': ('multiclass', {'label': torch.tensor([-1])}),
        'no class present': ('multiclass', {'label': torch.zeros(1, 3)}),
        'entries -1': ('multilabel', {'label': -torch.ones(1, 3)}),
        'entries NaN': ('multilabel', {'label': torch.full((1, 3), np.nan)}),
        'not known': (
            'multilabel',
            {'label': torch.ones(1, 3), 'label_known': torch.zeros(1, 3).bool()},
        ),
    }[kind]


@pytest.mark.parametrize(
    'kind',
    [
        *('ignored mask', 'ignored mask, one class', 'values outside', 'index -1'),
        *('float mask of NaN', 'index 255', 'no class present', 'entries -1'),
        *('entries NaN', 'not known'),
    ],
)
def test_an_unlabeled_chip_teaches_nothing(kind: str) -> None:
    task_kind, label = unlabeled(kind)
    task = tiny_task(**(RGB | {'task': task_kind}))
    presence = task.presence(label)
    assert presence.tolist() == [[-1, -1, -1]]
    logits = torch.zeros(1, 3, requires_grad=True)
    torch.autograd.backward(task.image_loss(logits, presence))
    assert logits.grad is not None
    assert not logits.grad.any()


def test_partly_labeled_chips_say_what_is_known() -> None:
    task = tiny_task(**RGB)
    mask = torch.full((2, 10, 10), 255)
    mask[0, :3] = 1  # 30 % labeled
    mask[1, :8] = 1  # 80 %
    assert task.presence({'mask': mask}).tolist() == [[-1, 1, -1], [0, 1, 0]]
    with pytest.raises(LabelError, match='A chip has class 7, expected 0 to 2'):
        task.presence({'label': torch.tensor([7])})


def test_left_out_chips_and_missing_classes_are_said() -> None:
    def change(index: int, sample: Sample) -> Sample:
        label = sample['label'].clone()
        label[1] = 0
        return sample | {'label': -torch.ones(3) if index < 2 else label}

    with pytest.warns(LabelWarning) as caught:
        fit(Chips(change=change), schedule='cosine')
    said = ' '.join(str(each.message) for each in caught)
    assert '2 of 8 training chips have no labeled' in said
    assert 'Water (0)' in said
    assert said.count('Water') == 1
    nothing = Chips(change=lambda _, s: s | {'label': -torch.ones(3)})
    with pytest.raises(DataError, match='None of 8 training chips has a known label'):
        fit(nothing, schedule='cosine')


@pytest.mark.parametrize('task', ['multilabel', 'multiclass'])
def test_validation_without_a_label_is_said(task: str) -> None:
    ignored = torch.full((32, 32), 255)
    chips = Chips(change=lambda _, s: {'image': s['image'], 'mask': ignored})
    run = trainer()
    with pytest.warns(LabelWarning, match='No val chip has a known label'):
        run.fit(tiny_task(**RGB, task=task), loaders(Chips())[0], loaders(chips)[1])
    assert run.callback_metrics['val_mAP'] == 0


def test_contradictory_rows_are_named(tmp_path: Path) -> None:
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in 'ab':
        Image.new('RGB', (8, 8)).save(folder / f'{name}.png')
    table = tmp_path / 'labels.csv'
    for rows, words in (
        ('a,x\nb,y\na,y\n', 'line 4.*as in line 2'),
        ('a,x\nb,y\na.png,y\n', "'a', 'a.png'"),
    ):
        table.write_text(f'image,classes\n{rows}')
        with pytest.raises(LabelError, match=words):
            ImageFolder(
                tmp_path, 'train', ['x', 'y'], None, 'images/{name}.png', None,
                'labels.csv', shares=[1, 0, 0],
            )  # fmt: skip


class Masked(Chips):
    """Chips with a mask instead of a label."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return {'image': sample['image'], 'mask': self.mask}


@pytest.mark.parametrize(
    ('change', 'error', 'words'),
    [
        ({'label': torch.full((3,), 2.0)}, LabelError, 'holds 2, expected 1'),
        ({'label': torch.ones(4)}, LabelError, 'one entry per class'),
        ({'image': torch.rand(4, 32, 32)}, BandError, '4 bands, expected 3'),
        ({'image': torch.rand(32, 32)}, DataError, 'expected real numbers'),
        ({'image': torch.rand(3, 32, 32) * 1j}, DataError, 'is complex'),
        ({'mask': torch.ones(16, 16)}, DataError, 'must have the same size'),
        ({'valid': torch.ones(16, 16)}, DataError, "'valid' of .* the same size"),
        ({'label_known': torch.ones(2)}, LabelError, 'one entry per class'),
        ({'label': torch.tensor(1.5)}, LabelError, r'has class 1\.5'),
    ],
)
def test_impossible_chips_are_refused(
    change: Sample, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fit(Chips(change=lambda _, sample: sample | change), schedule='cosine')


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda s: {'image': s['image'][:, 1:]}, r'has image \(3, 31, 32\)'),
        (lambda s: {'image': s['image'][:2]}, r'has image \(2, 32, 32\)'),
    ],
)
def test_chips_that_differ_are_named(change: Any, words: str, workers: int) -> None:
    def other(index: int, sample: Sample) -> Sample:
        sample['name'] = f'tile_{index}'
        return sample | (change(sample) if index == 5 else {})

    chips = Chips(change=other)
    data = [DataLoader(chips, 4, num_workers=workers), DataLoader(chips, 4)]
    task = tiny_task(**(RGB | {'schedule': 'cosine'}))
    # chips 4 to 7 are one batch
    with pytest.raises(DataError, match=f'Chip tile_5 {words}.*Chip tile_4 has'):
        trainer().fit(task, data[0], data[1])


@pytest.mark.parametrize('label', [None, 'Forest', ['Forest']])
def test_labels_that_are_no_numbers_are_refused(label: Any) -> None:
    with pytest.raises(LabelError, match='expected 0 or 1 for each class'):
        fit(Chips(change=lambda _, s: s | {'label': label}), schedule='cosine')


def test_masks_outside_the_classes_are_said_and_ignored() -> None:
    mask = torch.zeros(32, 32).long()
    mask[:8], mask[8:16] = 3, -9999
    with pytest.warns(LabelWarning, match='A mask holds 3, expected 0 to 2'):
        fit(Masked(mask), schedule='cosine')
    with pytest.raises(LabelError, match='one class per pixel'):
        fit(Masked(torch.ones(3, 32, 32)), schedule='cosine')


def test_joined_data_sets_have_the_same_bands() -> None:
    names = ['B02', 'B03', 'B04']
    chips = [Chips(bands=names), Chips(bands=names[::-1])]
    assert channel_names(ConcatDataset([chips[0], chips[0]])) == tuple(names)
    with pytest.raises(BandError, match='different bands are joined'):
        channel_names(ConcatDataset(chips))


@pytest.mark.parametrize('split', SSL4EOS12.metadata)
def test_ssl4eo_bands_are_those_of_its_files(
    split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = SSL4EOS12.metadata[split]['bands']
    day = '20200101T000000' if split != 's1' else 'S1A_IW_GRDH_1SDV_20200101T000000'
    for number, band in enumerate(names):
        pixels = np.full((1, 264, 264), number, np.uint16)
        write_raster(tmp_path / split / '0000000' / day / f'{band}.tif', pixels)
    monkeypatch.setattr(SSL4EOS12, '_verify', lambda self: None)
    data = SSL4EOS12(str(tmp_path), split)  # type: ignore[arg-type]
    assert data[0]['image'][:, 0, 0].tolist() == list(range(len(names)))
    assert channel_names(Subset(data, [0])) == tuple(names)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda x: torch.stack([x[0] / 1e4, x[1], x[2]]), 'in B02, scaled already'),
        (lambda x: (x / 16).round(), 'deviation of'),
        (lambda x: 10 * x, 'give reflectances'),
        (lambda x: (x / 13).clamp(max=254).byte(), '8-bit picture'),
    ],
)
def test_numbers_that_scaling_does_not_expect(change: Any, words: str) -> None:
    def other(index: int, sample: Sample) -> Sample:
        return sample | {'image': change(3000 * sample['image'] + 500)}

    scaling = {'method': 'standard', 'mean': [1500] * 3, 'std': [800] * 3}
    options: dict[str, Any] = {'bands': ['B02', 'B03', 'B04'], 'scaling': scaling}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try:
            fit(Chips(change=other), schedule='cosine', **options)
            said = ' '.join(str(each.message) for each in caught)
        except SettingError as error:
            said = str(error)
    assert words in said


# complete or not at all


@pytest.mark.parametrize(
    'limit', [{'limit_predict_batches': 1}, {'fast_dev_run': True}]
)
def test_a_limited_prediction_leaves_no_mask(
    limit: dict[str, Any], tmp_path: Path, write_scene: WriteScene
) -> None:
    scene = str(write_scene())
    for options in (limit, {}):
        writer = PseudoMaskWriter(
            str(tmp_path / 'm.tif'), picture=False, polygons=False
        )
        run = trainer(writer, **options)
        data = SceneDataModule(scene, 1, num_workers=0, window=32)
        with pytest.warns(ResumeWarning, match='were not computed|resuming'):
            run.predict(tiny_task(), data, return_predictions=False)
        assert (tmp_path / 'm.tif').exists() == (not options)


def test_lightning_stops_at_sigterm(
    tmp_path: Path, write_scene: WriteScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, output = str(write_scene()), tmp_path / 'm.tif'
    take, calls = SceneRun.take, iter(range(100))

    def terminated(self: SceneRun, *arguments: Any) -> None:
        take(self, *arguments)
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def predict() -> None:
        writer = PseudoMaskWriter(str(output), picture=False, polygons=False)
        data = SceneDataModule(scene, 1, num_workers=0, window=32)
        trainer(writer).predict(tiny_task(), data, return_predictions=False)

    with monkeypatch.context() as patch:
        patch.setattr(SceneRun, 'take', terminated)
        with pytest.raises(SystemExit) as stop:
            predict()
    assert stop.value.code == 143
    assert not output.exists()
    with pytest.warns(ResumeWarning, match='resuming'):
        predict()
    assert output.exists()


# resumed training is the same training


@pytest.mark.parametrize(
    'length', [{'max_epochs': 4}, {'max_epochs': -1, 'max_steps': 12}]
)
@pytest.mark.parametrize('every', [{}, {'every_n_train_steps': 1}])
@pytest.mark.parametrize(
    'options',
    [
        {'schedule': 'plateau', 'patience': 0, 'calibration': 'validation'},
        {'schedule': 'cosine', 'self_training': {'start': 0.3}},
    ],
)
def test_resumed_training_is_the_same(
    options: dict[str, Any],
    every: dict[str, Any],
    length: dict[str, int],
    tmp_path: Path,
) -> None:
    whole = weights_after(tmp_path / 'a', [], every, length=length, **options)
    parts = weights_after(tmp_path / 'b', [5, 8], every, length=length, **options)
    for name, value in whole.items():
        assert value.equal(parts[name]), name


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
def test_resumed_average_is_the_same(workers: int, tmp_path: Path) -> None:
    made = [
        weights_after(
            tmp_path / str(number), stops, {}, lambda: [EMAWeightAveraging(decay=0.9)],
            workers=workers, schedule='cosine',
        )
        for number, stops in enumerate(([], [5, 8]))
    ]  # fmt: skip
    for name, value in made[0].items():
        assert value.equal(made[1][name]), name


def test_averaged_weights_have_their_own_calibration(tmp_path: Path) -> None:
    options = RGB | {'calibration': 'validation', 'lr': 3e-3, 'schedule': 'cosine'}
    task, data = tiny_task(**options), loaders(Chips(12))
    saved = ModelCheckpoint(tmp_path, save_last=True)
    run = trainer(
        saved, EMAWeightAveraging(decay=0.99), max_epochs=3, enable_checkpointing=True
    )
    run.fit(task, *data)
    loaded = load_task(tmp_path / 'last.ckpt')
    shift = loaded.presence_shift.clone()
    trainer().validate(loaded, data[1], verbose=False)
    torch.testing.assert_close(shift, loaded.presence_shift)
    torch.testing.assert_close(shift, task.presence_shift)
    averaged = tiny_task(**options)
    trainer(SWA(1e-3, swa_epoch_start=1), max_epochs=4).fit(averaged, *data)
    shift = averaged.presence_shift.clone()
    trainer().validate(averaged, data[1], verbose=False)
    torch.testing.assert_close(shift, averaged.presence_shift)


def test_plateau_without_validation_is_refused_before_the_first_step() -> None:
    for kwargs in ({'limit_val_batches': 0}, {}):
        task = tiny_task(**(RGB | {'schedule': 'plateau'}))
        before = [p.clone() for p in task.parameters()]
        validation = loaders(Chips())[1] if kwargs else None
        with pytest.raises(SettingError, match=r"needs a validation split.*'cosine'"):
            trainer(**kwargs).fit(task, loaders(Chips())[0], validation)
        assert all(a.equal(b) for a, b in zip(before, task.parameters(), strict=True))


class Seen(pl.Callback):
    """Remembers the images of every training batch."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.images.append(batch['image'].clone())


def test_overfitting_repeats_its_batches() -> None:
    seen = Seen()
    run = trainer(seen, overfit_batches=1, max_epochs=3)
    run.fit(tiny_task(**(RGB | {'schedule': 'cosine'})), *loaders(Chips(random=True)))
    assert len(seen.images) == 3
    assert all(images.equal(seen.images[0]) for images in seen.images)


# files as people have them


def folder_of(root: Path, names: list[str], suffix: str = '.png') -> Path:
    """Write images and masks of 8 px."""
    for kind, mode in (('images', 'RGB'), ('masks', 'L')):
        for name in names:
            path = root / kind / f'{name}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 8)).save(path)
    return root


def opened(root: Path, split: str = 'train', **options: Any) -> ImageFolder:
    """Open a folder of :func:`folder_of`, two classes, by shares of one half."""
    patterns = {'images': 'images/{name}.*', 'masks': 'masks/{name}.*'}
    shares = {'shares': [0.5, 0.25, 0.25]}
    return ImageFolder(root, split, ['A', 'B'], **(patterns | shares | options))  # type: ignore[arg-type]


@pytest.mark.parametrize('kind', ['loop', 'folder', 'file', 'hard link'])
@pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.LabelWarning')
def test_links_add_no_image(kind: str, tmp_path: Path) -> None:
    root = folder_of(tmp_path, [f'{part}/{i}' for part in 'ab' for i in range(8)])
    before = {s: opened(root, s).names for s in ('train', 'val', 'test')}
    for images in (root / 'images', root / 'masks'):
        match kind:
            case 'loop':
                (images / 'all').symlink_to('.')
            case 'folder':
                (images / '0').symlink_to('b')
            case 'file':
                (images / '0.png').symlink_to('a/1.png')
            case 'hard link':
                os.link(images / 'a/1.png', images / 'z.png')
    assert {s: opened(root, s).names for s in before} == before


def test_names_of_files(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ['a', 'b'], '.PNG')
    for bad in ('._a.png', '.hidden/c.png', '__MACOSX/a.png'):
        (root / 'images' / bad).parent.mkdir(exist_ok=True)
        (root / 'images' / bad).write_bytes(b'no image')
    one = {'images': 'images/{name}.png', 'masks': 'masks/{name}.png'}
    assert opened(root, shares=[1, 0, 0], **one).names == ['a', 'b']


def test_names_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    folder_of(tmp_path, ['a', 'b'])
    (tmp_path / 'images/a.png').rename(tmp_path / 'images/a\u0308.png')
    (tmp_path / 'masks/a.png').rename(tmp_path / 'masks/\u00e4.png')
    lists = tmp_path / 'train.txt'
    lists.write_bytes('\ufeffa\u0308\r\nb\r\n'.encode())
    names = opened(tmp_path, shares=None, list_file='{split}.txt').names
    assert names == ['\u00e4', 'b']
    (tmp_path / 'images/c.png').symlink_to('nowhere.png')
    with pytest.raises(DataError, match=r'c\.png is a link to a file that cannot'):
        opened(tmp_path, shares=[1, 0, 0])


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / 'data', ['a'])
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    assert opened(Path('~/data'), shares=[1, 0, 0]).names == ['a']


def test_a_chip_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ['a', 'b', 'c'])
    (root / 'train.txt').write_text('a\nb\n')
    (root / 'val.txt').write_text('b\nc\n')
    with pytest.raises(DataError, match=r'both name b \(1 images\)'):
        opened(root, shares=None, list_file='{split}.txt')


@pytest.mark.parametrize(('driver', 'suffix'), [('PNG', '.png'), ('GTiff', '.tif')])
@pytest.mark.parametrize('bands', [1, 2, 3, 4])
def test_16_bits_are_refused(
    bands: int, driver: str, suffix: str, tmp_path: Path
) -> None:
    root = folder_of(tmp_path, ['a'])
    (root / 'images/a.png').unlink()
    pixels = np.random.default_rng(0).integers(0, 4000, (bands, 8, 8)).astype('u2')
    with rasterio.open(
        root / f'images/a{suffix}', 'w', driver=driver, width=8, height=8, count=bands,
        dtype='uint16',
    ) as raster:  # fmt: skip
        raster.write(pixels)
    with pytest.raises(DataError, match=r'more than 8 bits|Cannot read'):
        opened(root, shares=[1, 0, 0])[0]


def test_tables_tell_folders_apart(tmp_path: Path) -> None:
    table = tmp_path / 'labels.csv'
    table.write_text(
        'tile,classes\nnorth/1.tif,Forest\nsouth/1.tif,Water\n2.tif,Water\n'
    )
    labels = TableLabels(table, 'tile', 'classes')

    def found(tile: str) -> str | None:
        label = labels.label(None, tile)  # type: ignore[arg-type]
        return None if label is None else labels.classes[int(label.present.argmax())]

    assert found('north/1.tif') == found('/data/north/1.TIF') == 'Forest'
    assert found('data\\south\\1.tif') == found('anywhere/2.tif') == 'Water'
    assert found('east/1.tif') is None
    with pytest.raises(LabelError, match="2 tiles named '1' in different folders"):
        found('1.tif')


# classes by name


@pytest.mark.parametrize('other', [' Wald', 'WALD', '\uff37\uff21\uff2c\uff24'])
def test_a_class_named_twice_is_refused(other: str, tmp_path: Path) -> None:
    names = ['Wald', 'See', other]
    with pytest.raises(SettingError, match='twice'):
        tiny_task(class_names=names)
    with pytest.raises(SettingError, match='twice'):
        ImageFolder(tmp_path, 'train', names)
    with pytest.raises(SettingError, match='duplicates'):
        (tmp_path / 't.csv').write_text('tile,classes\na,See\n')
        TableLabels(tmp_path / 't.csv', 'tile', 'classes', names)


def test_rasters_are_compared_by_name(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1, 255]], np.uint8)
    truth = np.array([[1, 0, 2, 0]], np.uint8)
    ours = write_classes(tmp_path / 'm.tif', mask, names=['Forest', 'Water'])
    theirs = write_classes(tmp_path / 't.tif', truth, names=['water', 'Forest', 'Rock'])
    scores = evaluate(ours, theirs)
    assert scores['iou'] == {'Forest': 1, 'Water': 0.5, 'Rock': 0}
    assert scores['pixels_without_mask'] == 1
    named = evaluate(ours, theirs, ['Water', 'Forest', 'Rock'])
    assert named == scores


def test_another_order_of_classes_is_said(tmp_path: Path) -> None:
    mask = np.array([[0] * 8 + [1] * 8 + [2] * 4], np.uint8)
    ours = write_classes(tmp_path / 'm.tif', mask, names=['a', 'b', 'c'])
    with rasterio.open(ours) as raster:
        profile = raster.profile
    for truth, said in (((mask + 1) % 3, True), (mask, False)):
        with rasterio.open(tmp_path / 't.tif', 'w', **profile) as raster:
            raster.write(truth, 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            evaluate(ours, tmp_path / 't.tif')
        assert any('another order' in str(each.message) for each in caught) == said


@pytest.mark.parametrize('how', ['nodata', 'alpha', 'mask'])
def test_masked_references_do_not_count(how: str, tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1, 0]], np.uint8)
    ours = write_classes(tmp_path / 'm.tif', mask, names=['a', 'b'])
    with rasterio.open(ours) as raster:
        profile = raster.profile | {'nodata': 9 if how == 'nodata' else None}
    truth, valid = np.array([[0, 1, 0, 1]], np.uint8), np.array([[1, 1, 0, 0]], 'u1')
    if how == 'nodata':
        truth[valid == 0] = 9
    profile |= {'count': 1 + (how == 'alpha')}
    if how == 'alpha':
        profile |= {'alpha': 'yes', 'photometric': 'minisblack'}
    with rasterio.open(tmp_path / 't.tif', 'w', **profile) as raster:
        raster.write(truth, 1)
        if how == 'alpha':
            raster.write(255 * valid, 2)
        elif how == 'mask':
            raster.write_mask(valid > 0)
    scores = evaluate(ours, tmp_path / 't.tif', ['a', 'b'])
    assert scores['miou'] == 1
    assert scores['pixels'] == 2


# any environment


@pytest.mark.slow
@pytest.mark.parametrize(
    'environment',
    [
        {'PYTHONIOENCODING': 'ascii'},
        {'PYTHONIOENCODING': 'cp1252', 'PYTHONOPTIMIZE': '2'},
        {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
        {'HOME': '/nonexistent', 'XDG_CACHE_HOME': '/nonexistent'},
    ],
)
def test_output_in_any_environment(environment: dict[str, str], tmp_path: Path) -> None:
    mask = np.array([[0, 1]], np.uint8)
    path = write_classes(tmp_path / 'm.tif', mask, names=['Δάσος', 'Las liściasty'])
    command = [
        sys.executable,
        '-m',
        'torchgeo_ctm.main',
        'evaluate',
        str(path),
        str(path),
    ]
    scores = tmp_path / 's.json'
    result = subprocess.run(
        [*command, '--json', str(scores)],
        capture_output=True, env=os.environ | environment, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'Δάσος' in json.loads(scores.read_text(encoding='utf-8'))['iou']


@pytest.mark.slow
def test_spawned_workers(tmp_path: Path) -> None:
    images = opened(folder_of(tmp_path, ['a', 'b']), shares=[1, 0, 0])
    loader = DataLoader(images, 2, num_workers=1, multiprocessing_context='spawn')
    assert next(iter(loader))['image'].shape == (2, 3, 8, 8)
