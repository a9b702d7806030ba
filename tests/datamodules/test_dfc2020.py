from pathlib import Path

import pytest
import torch

from tests.datasets.fake_dfc2020 import write_dfc2020
from torchgeo_ctm.datamodules import DFC2020DataModule
from torchgeo_ctm.datamodules.dfc2020 import CropAndFlip


def test_image_and_mask_are_cropped_alike() -> None:
    mask = torch.arange(256 * 256).reshape(256, 256)
    sample = {'image': mask.expand(13, -1, -1).float(), 'mask': mask}
    for train in (True, False):
        crop = CropAndFlip(224, train)
        for _ in range(5):
            got = crop(sample)
            assert got['mask'].shape == (224, 224)
            assert torch.equal(got['image'][7], got['mask'].float())
            assert type(got['image']) is torch.Tensor


def test_evaluation_takes_the_centre() -> None:
    mask = torch.arange(100).reshape(10, 10)
    got = CropAndFlip(6, train=False)({'image': mask[None].float(), 'mask': mask})
    assert torch.equal(got['mask'], mask[2:8, 2:8])


@pytest.mark.parametrize('stage', ['fit', 'validate', 'test'])
def test_splits(tmp_path: Path, stage: str) -> None:
    write_dfc2020(tmp_path)
    datamodule = DFC2020DataModule(batch_size=1, root=str(tmp_path))
    datamodule.setup(stage)
    name = {'fit': 'train', 'validate': 'val', 'test': 'test'}[stage]
    loader = getattr(datamodule, f'{name}_dataloader')()
    batch = next(iter(loader))
    assert batch['image'].shape == (1, 13, 224, 224)
    # scaling belongs to the model: reflectances arrive as they are
    assert 500 <= batch['image'].min()
    assert batch['image'].max() < 3000
