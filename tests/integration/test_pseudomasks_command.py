"""``torchgeo-ctm pseudomasks`` on tiles with and without a georeference."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import IntersectionDataset, RasterDataset

from tests.commands import Run, refused
from tests.conftest import (
    TRANSFORM,
    WriteScene,
    decisive,
    save_task,
    scene_pixels,
    tiny_task,
)
from tests.fakes.dfc2020 import write_dfc2020
from torchgeo_ctm.compat import grid_sampler
from torchgeo_ctm.datamodules import DFC2020DataModule
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.maps.class_maps import resize
from torchgeo_ctm.trainers import load_task

DFC = 'torchgeo_ctm.datamodules.DFC2020DataModule'


def write_config(path: Path, class_path: str, **options: Any) -> Path:
    data = {'class_path': class_path} | options
    content = {'seed_everything': 0, 'trainer': {'max_epochs': 1}, 'data': data}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def dfc(tmp_path: Path) -> Path:
    """A configuration over tiles in DFC2020's layout, crops of 64 px."""
    write_dfc2020(tmp_path / 'data')
    return write_config(
        tmp_path / 'dfc.yaml',
        DFC,
        init_args={'batch_size': 1, 'img_size': 64},
        dict_kwargs={'root': str(tmp_path / 'data')},
    )


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    """A checkpoint of a tiny model with DFC2020's eight classes."""
    task = tiny_task(num_classes=8, class_names=None, class_colors=None)
    return save_task(decisive(task), tmp_path / 'eight.ckpt')


def test_arrays_and_rasters_of_a_data_set(
    run: Run, tmp_path: Path, dfc: Path, eight: Path
) -> None:
    out = tmp_path / 'out'
    status, printed, err = run(
        'pseudomasks', '--config', dfc, '--checkpoint', eight, '--output', out,
        '--split', 'train',
    )  # fmt: skip
    assert status == 0, err
    assert 'miou' in printed
    arrays = {
        kind: np.load(out / f'{kind}_dfc2020.npy') for kind in ('pms', 'imgs', 'masks')
    }
    chips = DFC2020DataModule(img_size=64, root=str(tmp_path / 'data')).chips('train')
    assert arrays['pms'].shape == arrays['masks'].shape == (2, 64, 64)
    task = load_task(eight)
    for index in range(2):
        sample = chips[index]
        assert np.array_equal(arrays['imgs'][index], sample['image'])
        assert np.array_equal(arrays['masks'][index], sample['mask'])
        with torch.no_grad():
            maps, logits, _ = task.maps(sample['image'][None])
            batch = {'image': sample['image'][None]}
            probs = task.probabilities(logits)
            mask = task.pseudo_masks(maps, probs, (64, 64), batch)[0]
        assert np.array_equal(arrays['pms'][index], mask)
    # the second tile has no georeference, so no GeoTIFF is made up for it
    beside, path = sorted((out / 'pms_dfc2020').glob('*.tif'), reverse=True)
    assert beside.stem == f'{path.stem}_confidence'
    with rasterio.open(path) as raster:
        assert raster.crs == 'EPSG:32632'
        middle = Affine(10, 0, 500_000 + 960, 0, -10, 4_200_000 - 960)
        assert raster.transform == middle
        assert np.array_equal(raster.read(1), arrays['pms'][0])
        assert raster.colormap(1)[0]
    assert path.stem == chips.chip_name(0)
    with rasterio.open(beside) as raster, torch.no_grad():
        confidence = raster.read(1)
        scores = task.predict_step({'image': chips[0]['image'][None]}, 0)['scores']
    shares = resize(scores, (64, 64))[0].numpy()
    chosen = np.take_along_axis(shares, arrays['pms'][:1].astype(int), axis=0)[0]
    assert np.abs(confidence - 100 * chosen).max() <= 0.51
    assert not list(out.rglob('*.part'))


def test_what_labels_leave_out_is_unsure(
    run: Run, tmp_path: Path, dfc: Path, eight: Path
) -> None:
    """From true labels, confidence is the class's share had all been allowed."""
    out = tmp_path / 'out'
    status, _, err = run(
        'pseudomasks', '--config', dfc, '--checkpoint', eight, '--output', out,
        '--split', 'train', '--labels', 'true', '--ensemble', 'dihedral', '--no_images',
    )  # fmt: skip
    assert status == 0, err
    sample = DFC2020DataModule(img_size=64, root=str(tmp_path / 'data')).chips('train')[
        0
    ]
    task = load_task(eight)
    task.with_options(labels='true', ensemble='dihedral')
    image = sample['image'][None]
    with torch.no_grad():
        scores = task.predict_step({'image': image, 'label': torch.ones(1, 8)}, 0)
    shares = resize(scores['scores'], (64, 64))[0].numpy()
    chosen = np.load(out / 'pms_dfc2020.npy')[:1].astype(int)
    [path] = (out / 'pms_dfc2020').glob('*_confidence.tif')
    with rasterio.open(path) as raster:
        confidence = raster.read(1)
        assert raster.tags()['ENSEMBLE'] == 'dihedral'
    wanted = 100 * np.take_along_axis(shares, chosen, axis=0)[0]
    assert np.abs(confidence - wanted).max() <= 0.51
    # some pixels look like a class that the label leaves out
    assert (wanted < 100 * shares.max(axis=0) - 1).any()


def test_true_labels_sources_and_rules(
    run: Run, tmp_path: Path, dfc: Path, eight: Path
) -> None:
    masks = {}
    for name, flags in {
        'own': (),
        'true': ('--labels', 'true'),
        'cam': ('--labels', 'true', '--source', 'patchcam'),
        'paint': ('--labels', 'true', '--rule', 'paint'),
    }.items():
        out = tmp_path / name
        status, _, err = run(
            'pseudomasks', '--config', dfc, '--checkpoint', eight, '--output', out,
            '--no_images', *flags,
        )  # fmt: skip
        assert status == 0, err
        assert not (out / 'imgs_dfc2020.npy').exists()
        masks[name] = np.load(out / 'pms_dfc2020.npy')[0]
    sample = DFC2020DataModule(img_size=64, root=str(tmp_path / 'data')).chips('val')[0]
    present = set(load_task(eight).presence({'mask': sample['mask'][None]})[0].nonzero()
                  .flatten().tolist())  # fmt: skip
    for name in ('true', 'cam', 'paint'):
        assert set(np.unique(masks[name])) <= present
    different = [not np.array_equal(masks['true'], masks[k]) for k in ('cam', 'paint')]
    assert all(different)


class Images(RasterDataset):
    filename_glob = 'image_*.tif'
    all_bands = tuple(f'B{i}' for i in range(13))
    separate_files = False


class Labels(RasterDataset):
    filename_glob = 'mask_*.tif'
    is_image = False


class GeoTiles(GeoDataModule):
    """A GeoDataset's chips, normalised by its own data module."""

    mean = torch.tensor(1500.0)
    std = torch.tensor(500.0)
    root: ClassVar[str] = ''

    def __init__(self, root: str) -> None:
        super().__init__(Images, batch_size=3, patch_size=32)
        self.root_ = root

    def setup(self, stage: str) -> None:
        both = IntersectionDataset(Images(self.root_), Labels(self.root_))
        self.dataset = both
        self.train_dataset = both
        self.sampler = grid_sampler(both, 32)


@pytest.mark.parametrize('split', ['val', 'train'])
def test_a_geo_data_set_keeps_its_place(
    run: Run, tmp_path: Path, write_scene: WriteScene, split: str
) -> None:
    pixels = scene_pixels(64, 96)
    write_scene('image_1.tif', pixels=pixels)
    labels = (np.arange(64 * 96).reshape(1, 64, 96) // 2000).astype(np.uint8)
    write_scene('mask_1.tif', pixels=labels, descriptions=None)
    config = write_config(
        tmp_path / 'geo.yaml',
        'tests.integration.test_pseudomasks_command.GeoTiles',
        init_args={'root': str(tmp_path)},
    )
    checkpoint = save_task(tiny_task(scaling=None), tmp_path / 'own.ckpt')
    out = tmp_path / 'out'
    status, _, err = run(
        'pseudomasks', '--config', config, '--checkpoint', checkpoint, '--output', out,
        '--split', split,
    )  # fmt: skip
    assert status == 0, err
    masks = np.load(out / 'masks_images.npy')
    images = np.load(out / 'imgs_images.npy')
    written = sorted((out / 'pms_images').glob('*.tif'))
    paths = [path for path in written if not path.stem.endswith('_confidence')]
    assert len(paths) == len(masks) == 6
    for path, mask, image in zip(paths, masks, images, strict=True):
        with rasterio.open(path) as raster:
            offset = ~TRANSFORM @ (raster.transform.c, raster.transform.f)
            col, row = (round(part) for part in offset)
        place = np.s_[row : row + 32, col : col + 32]
        # the task has three classes, so 3 is none
        truth = np.where(labels[0][place] < 3, labels[0][place], IGNORED)
        assert np.array_equal(mask, truth)
        assert np.allclose(image, (pixels[:, *place] - 1500.0) / 500, atol=1e-4)


def test_mistakes_are_one_line(
    run: Run, tmp_path: Path, dfc: Path, eight: Path
) -> None:
    out = tmp_path / 'out'

    def call(config: Path, *flags: object) -> tuple[int, str, str]:
        return run(
            'pseudomasks', '--config', config, '--output', out, '--checkpoint', eight,
            *flags,
        )  # fmt: skip

    refused(call(tmp_path / 'none.yaml'), 'none.yaml does not exist, expected')
    (tmp_path / 'empty.yaml').write_text('trainer: {}\n')
    refused(call(tmp_path / 'empty.yaml'), 'has no data section')
    (tmp_path / 'bad.yaml').write_text('data: [\n')
    refused(call(tmp_path / 'bad.yaml'), 'YAML')
    wrong = write_config(tmp_path / 'wrong.yaml', 'torchgeo_ctm.datamodules.DFC2021')
    refused(call(wrong), 'DFC2021')
    absent = write_config(
        tmp_path / 'absent.yaml', DFC, dict_kwargs={'root': str(tmp_path / 'nowhere')}
    )
    refused(call(absent), 'No data set found')
    refused(call(dfc, '--config', dfc), '--config is given twice')
    refused(call(dfc, '--split', 'all'), '--split')
    refused(call(dfc, '--rule', 'majority'), '--rule')
    assert not list(out.glob('*.npy'))
    assert call(dfc)[0] == 0
    refused(call(dfc), 'exists', '--overwrite')
    assert call(dfc, '--overwrite')[0] == 0


def test_a_source_needs_its_head(run: Run, tmp_path: Path, dfc: Path) -> None:
    task = tiny_task(num_classes=8, class_names=None, class_colors=None,
                     patch_loss_weight=0.0, map_source='attention')  # fmt: skip
    checkpoint = save_task(task, tmp_path / 'plain.ckpt')
    refused(
        run('pseudomasks', '--config', dfc, '--checkpoint', checkpoint,
            '--output', tmp_path / 'out', '--source', 'fused'),
        'patch head', "maps.source='attention'",
    )  # fmt: skip
