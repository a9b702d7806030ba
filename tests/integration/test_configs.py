"""Every configuration through the real ``torchgeo`` command, on small real files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml

from tests.commands import Run, TorchGeoMain, succeeded, torchgeo
from tests.conftest import WriteScene, decisive, save_task, scene_pixels, tiny_task
from tests.fakes.dfc2020 import write_contest, write_dfc2020
from tests.fakes.torchgeo_data import write_eurosat
from torchgeo_ctm.datamodules import EuroSATDataModule
from torchgeo_ctm.errors import CTMError, SettingError
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scaling import GROUND_BANDS, SENTINEL2_BANDS, BandScaling

CONFIGS = Path(__file__).parents[2] / 'configs'

SMALL_MODEL = [
    '--model.init_args.model_options={embed_dim: 16, depth: 2, num_heads: 2}'
]


def predict_arguments(scene: Path, checkpoint: Path) -> list[object]:
    """Return what maps a scene into ``mask.tif`` of the current folder."""
    return [
        'predict',
        '--config',
        CONFIGS / 'scene.yaml',
        '--ckpt_path',
        checkpoint,
        f'--data.init_args.scene={scene}',
        '--trainer.accelerator=cpu',
    ]


def fit_arguments(name: str, root: Path) -> list[str]:
    """What a test adds to a configuration: less of everything."""
    tiles = [
        '--data.init_args.img_size=64',
        '--data.init_args.batch_size=1',
        '--data.init_args.num_workers=0',
        '--model.init_args.img_size=64',
        '--trainer.precision=32-true',
    ]
    data = {
        'synthetic': [
            '--data.dict_kwargs.num_tiles=[4,2,2]',
            '--data.dict_kwargs.size=32',
            '--data.init_args.img_size=32',
            '--data.init_args.batch_size=2',
            '--model.init_args.img_size=32',
        ],
        'paper_dfc2020': [
            *tiles,
            (
                '--model.init_args.model_options={embed_dim: 16, depth: 2, '
                'num_heads: 2, qkv_bias: false, norm_eps: 1.0e-5, final_norm: false}'
            ),
        ],
        'dfc2020': tiles,
        'dfc2020_s1s2': tiles,
    }[name]
    return [
        '--config',
        str(CONFIGS / f'{name}.yaml'),
        f'--data.dict_kwargs.root={root}',
        '--trainer.accelerator=cpu',
        '--trainer.max_epochs=1',
        *SMALL_MODEL,
        *data,
    ]


def test_every_configuration_is_driven() -> None:
    driven = {'synthetic', 'dfc2020', 'dfc2020_s1s2', 'paper_dfc2020', 'scene'}
    # tests/datamodules/test_image_folder.py
    driven |= {'ade20k', 'voc2012', 'coco', 'endotect'}
    # test_eurosat below
    driven |= {'eurosat'}
    # by tests/test_torchgeo_data.py
    driven |= {'bigearthnet', 'landcoverai', 'sen12ms', 'l8biome'}
    # by tests/test_training_from_scenes.py
    driven |= {'scene_training', 'second_stage'}
    # by tests/test_segmentation_stage.py
    driven |= {'segmentation'}
    assert {path.stem for path in CONFIGS.glob('*.yaml')} == driven


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['synthetic', 'dfc2020', 'dfc2020_s1s2', 'paper_dfc2020']
)
def test_fit_test_predict(
    name: str, tmp_path: Path, write_scene: WriteScene, torchgeo_main: TorchGeoMain
) -> None:
    """One is trained and tested as its user does, the others in this process."""

    def call(*arguments: object) -> str:
        if name == 'synthetic' and arguments[0] != 'predict':
            return succeeded(torchgeo(*arguments, cwd=tmp_path))
        return torchgeo_main(*arguments)

    root = tmp_path / 'data'
    if name == 'paper_dfc2020':
        write_contest(root, validation=2, test=2, block=16)
    elif name != 'synthetic':
        write_dfc2020(root)
    arguments = fit_arguments(name, root)
    call('fit', *arguments)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    assert list(tmp_path.glob('output/**/events.out.tfevents.*'))
    printed = call('test', *arguments, '--ckpt_path', checkpoint)
    for metric in ('test_mAP', 'test_F1', 'test_miou', 'test_miou_true_labels'):
        assert metric in printed
    scene = write_scene()
    if name == 'dfc2020_s1s2':
        decibels = scene_pixels(70, 90, 15).astype(np.float32)
        decibels[13:] = decibels[13:] / 100 - 40
        bands = (*SENTINEL2_BANDS, 'VV', 'VH')
        scene = write_scene(pixels=decibels, descriptions=bands)
    call(*predict_arguments(scene, checkpoint))
    # the same objects, so the same bytes as the other door
    ours = predict_scene(
        scene, checkpoint, tmp_path / 'ours.tif', progress=False, accelerator='cpu'
    ).paths
    theirs = tmp_path / 'mask.tif'
    assert ours[0].read_bytes() == theirs.read_bytes()
    assert ours[1].read_bytes() == (tmp_path / 'mask_confidence.tif').read_bytes()
    with rasterio.open(theirs) as mask, rasterio.open(scene) as raster:
        assert (mask.crs, mask.transform) == (raster.crs, raster.transform)
        assert mask.tags()['CLASS_NAMES'].startswith('["Forest", "Shrubland"')


def eurosat_arguments(root: Path) -> list[object]:
    """Return what makes a small run of configs/eurosat.yaml."""
    write_eurosat(root)
    return [
        '--config',
        CONFIGS / 'eurosat.yaml',
        f'--data.dict_kwargs.root={root}',
        '--data.init_args.batch_size=4',
        '--data.init_args.num_workers=0',
        '--trainer.accelerator=cpu',
        '--trainer.max_epochs=1',
        *SMALL_MODEL,
    ]


@pytest.mark.slow
def test_eurosat(
    tmp_path: Path, write_scene: WriteScene, torchgeo_main: TorchGeoMain, run: Run
) -> None:
    """Tiles of TorchGeo's own layout, and a map of a scene with other bands."""
    arguments = eurosat_arguments(tmp_path / 'data')
    torchgeo_main('fit', *arguments)
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    printed = torchgeo_main('test', *arguments, '--ckpt_path', checkpoint)
    assert 'test_balanced_bce' in printed
    output = tmp_path / 'mask.tif'
    merge = 'AnnualCrop+PermanentCrop=Crops,River+SeaLake=Water'
    status, _, error = run(
        'predict',
        write_scene(),
        '--checkpoint',
        checkpoint,
        '--output',
        output,
        '--merge',
        merge,
    )
    assert status == 0, error
    with rasterio.open(output) as mask:
        tags = mask.tags()
    assert tags['ADAPT'] == 'dark'
    assert tags['MERGE'] == merge
    assert 'Crops' in tags['CLASS_NAMES']
    assert 'SeaLake' not in tags['CLASS_NAMES']


@pytest.mark.slow
def test_documented_lines_give_eurosat_and_scenes_the_right_bands(
    tmp_path: Path,
    write_scene: WriteScene,
    torchgeo_main: TorchGeoMain,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []
    scale = BandScaling.forward

    def forward(self: BandScaling, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.float().mean(dim=(0, 2, 3)))
        return scale(self, x)

    monkeypatch.setattr(BandScaling, 'forward', forward)
    arguments = eurosat_arguments(tmp_path / 'data')
    torchgeo_main('fit', *arguments, '--data.init_args.spectral_jitter=0')
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    trained, seen[:] = list(seen), []
    # a scene with its bands in reversed order, and others between them
    names = SENTINEL2_BANDS[::-1]
    levels = [850 if band == 'B8A' else 100 * int(band[1:]) for band in names]
    pixels = np.array(levels, np.uint16)[:, None, None].repeat(64, 1).repeat(64, 2)
    pixels[:, ::2] += 1
    scene = write_scene(pixels=pixels, descriptions=names)
    output = ('--output', tmp_path / 'mask.tif', '--adapt', 'none')
    status, _, error = run('predict', scene, '--checkpoint', checkpoint, *output)
    assert status == 0, error
    expected = [200, 300, 400, 500, 600, 700, 800, 850, 1100, 1200]
    for numbers in (*trained, *seen):
        assert numbers.tolist() == pytest.approx(expected, abs=10)
    assert trained
    assert seen


def test_eurosat_gives_each_band_by_its_name(tmp_path: Path) -> None:
    write_eurosat(tmp_path)
    data = EuroSATDataModule(4, mix_tiles=1.0, bands=GROUND_BANDS, root=str(tmp_path))
    data.setup('fit')
    assert data.train_dataset is not None
    levels = data.train_dataset[0]['image'].mean(dim=(1, 2))
    expected = [200, 300, 400, 500, 600, 700, 800, 850, 1100, 1200]
    assert torch.allclose(levels, torch.tensor(expected).float(), atol=2)
    batch = data.train_aug(next(iter(data.train_dataloader())))  # type: ignore[misc]
    assert batch['label'].shape == (4, 10)
    assert batch['label'].sum(dim=1).min() >= 1


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'bands': ['B2', 'B03']}, "EuroSAT has no band 'B2'.*Did you mean 'B12'"),
        ({'mix_tiles': -1}, 'mix_tiles must be 0 to 1'),
        ({'spectral_jitter': -1}, 'spectral_jitter must be 0 or more'),
    ],
)
def test_eurosat_options_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        EuroSATDataModule(**change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ("--data.init_args.bands=['B02','B03']", 'expected the bands of the model'),
        ('--model.init_args.task=multiclass', "requires task='multilabel'"),
    ],
)
def test_eurosat_and_a_model_that_does_not_fit(
    tmp_path: Path, torchgeo_main: TorchGeoMain, change: str, said: str
) -> None:
    arguments = eurosat_arguments(tmp_path / 'data')
    more = ['--model.init_args.patches.balance=0'] if 'multiclass' in change else []
    with pytest.raises(CTMError, match=said):
        torchgeo_main('fit', *arguments, change, *more)


@pytest.mark.slow
@pytest.mark.parametrize('rule', ['argmax', 'paint'])
def test_two_processes_map_one_scene(
    tmp_path: Path, write_scene: WriteScene, torchgeo_main: TorchGeoMain, rule: str
) -> None:
    """By bands of rows; the first assembles the bytes of one process."""
    checkpoint = save_task(decisive(tiny_task(map_rule=rule)), tmp_path / 'tiny.ckpt')
    pixels = scene_pixels(150, 120)
    pixels[:, 40:70] = 0
    scene = write_scene(pixels=pixels, nodata=0)
    arguments = predict_arguments(scene, checkpoint)
    torchgeo_main(*arguments, '--trainer.devices=1')
    folder = tmp_path / 'two'
    folder.mkdir()
    several = ('--trainer.devices=2', '--trainer.strategy=ddp')
    succeeded(torchgeo(*arguments, *several, cwd=folder))
    for name in ('mask.tif', 'mask_confidence.tif', 'mask.qml'):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert not [path for path in folder.iterdir() if path.name[0] == '.']


@pytest.mark.slow
def test_two_processes_train_alike(tmp_path: Path) -> None:
    """Plain ddp: no parameter without a gradient, metrics gathered once."""
    arguments = fit_arguments('synthetic', tmp_path / 'data')
    succeeded(
        torchgeo(
            'fit',
            *arguments,
            # one step an epoch here, and ddp complains at the second
            '--trainer.max_epochs=3',
            '--trainer.devices=2',
            '--trainer.strategy=ddp',
            cwd=tmp_path,
        )
    )
    assert list(tmp_path.glob('output/**/last.ckpt'))


@pytest.mark.slow
def test_a_data_folder_without_tiles_says_so(
    tmp_path: Path, torchgeo_main: TorchGeoMain
) -> None:
    (tmp_path / 'data' / 'dfc2020_s1s2').mkdir(parents=True)
    for split in ('train', 'val', 'test'):
        path = tmp_path / 'data' / 'dfc2020_s1s2' / f'dfc-{split}-new.csv'
        path.write_text('ROIs0000_validation_dfc_0_p0.tif\n')
    arguments = fit_arguments('dfc2020', tmp_path / 'data')
    with pytest.raises(CTMError, match='Expected GeoTIFF tiles in folders'):
        torchgeo_main('fit', *arguments)


def test_configurations_name_every_class_once() -> None:
    for name in ('synthetic', 'dfc2020', 'dfc2020_s1s2', 'paper_dfc2020', 'eurosat'):
        config: Any = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text())
        model = config['model']['init_args']
        assert len(set(model['class_names'])) == model['num_classes']
        assert len(set(model['class_colors'])) == model['num_classes']
