"""A data set with holes in its chips, its data module and its configuration."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datamodules import NonGeoDataModule


class Holes(Dataset[dict[str, Tensor]]):
    """Chips (2, 32, 32) with NaN, a ``valid`` of its own, and fill."""

    def __init__(self, split: str = 'train', chips: int = 7, **_: Any) -> None:
        generator = torch.Generator().manual_seed(3)
        self.image = torch.randn((chips, 2, 32, 32), generator=generator) * 50 + 200
        self.image[0, 0, :4] = torch.nan
        self.image[1, :, 5:9] = -9999
        self.valid = torch.rand((chips, 32, 32), generator=generator) > 0.2
        self.label = torch.zeros(chips, 3)
        self.label[:, 0] = 1
        self.label[0, 1] = 1

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            'image': self.image[index],
            'valid': self.valid[index],
            'label': self.label[index],
        }


class HolesDataModule(NonGeoDataModule):
    """Divides by 10, as TorchGeo's data modules may."""

    mean = torch.tensor(0.0)
    std = torch.tensor(10.0)

    def __init__(
        self, batch_size: int = 2, num_workers: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(Holes, batch_size, num_workers, **kwargs)  # type: ignore[arg-type]


def holes_config(path: Path, chips: int = 7, **init_args: Any) -> Path:
    model = {
        'in_channels': 2,
        'num_classes': 3,
        'bands': ['VV', 'VH'],
        'class_names': ['Forest', 'Water', 'Urban'],
        'scaling': {'offset': -5, 'clip': [8, 25]},
        'img_size': 32,
        'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 2},
    }
    content = {
        'model': {
            'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
            'init_args': model,
        },
        'data': {
            'class_path': 'tests.fakes.holes.HolesDataModule',
            'init_args': init_args,
            'dict_kwargs': {'chips': chips},
        },
    }
    path.write_text(yaml.safe_dump(content))
    return path
