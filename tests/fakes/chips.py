"""Chips of two classes that a tiny task learns, and a quiet trainer for them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Chips(Dataset[dict[str, Tensor]]):
    """Chips in which class 0 is dark and class 1 bright; each holds one or both."""

    def __init__(self, keys: tuple[str, ...], length: int = 24) -> None:
        self.keys = keys
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        mask = torch.zeros(32, 32, dtype=torch.long)
        mask[:, 16 * (index % 3) :] = 1
        noise = torch.randn(13, 32, 32, generator=torch.Generator().manual_seed(index))
        sample = {
            'image': 1000 + 1500 * mask.float() + 100 * noise,
            'mask': mask,
            'label': torch.tensor([float((mask == c).any()) for c in (0, 1, 2)]),
            'class': mask[0, 31],
        }
        kept = {key: sample[key] for key in self.keys}
        return {('label' if key == 'class' else key): kept[key] for key in kept}


def trainer(folder: Path, **kwargs: Any) -> pl.Trainer:
    """Return a trainer that takes one epoch and writes nothing."""
    return pl.Trainer(
        default_root_dir=folder,
        accelerator='cpu',
        enable_model_summary=False,
        **(
            {
                'max_epochs': 1,
                'logger': False,
                'enable_checkpointing': False,
                'enable_progress_bar': False,
            }
            | kwargs
        ),
    )


def loader(*keys: str, length: int = 24) -> DataLoader[dict[str, Tensor]]:
    """Return batches of 8 chips that hold these keys."""
    return DataLoader(Chips(keys, length), batch_size=8)
