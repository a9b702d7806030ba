"""Random samplers of the TorchGeo that is installed."""

from typing import Any

import torch
import torchgeo.samplers
from torchgeo.datasets import GeoDataset


def random_sampler(dataset: GeoDataset, size: int, length: int, seed: int = 0) -> Any:
    """Return a sampler of random queries.

    Args:
        dataset: The data set.
        size: Side of a chip in pixels.
        length: Number of queries of an epoch.
        seed: Of the draws.
    """
    samplers: Any = torchgeo.samplers
    if hasattr(samplers, 'RandomPatchSampler'):
        return samplers.RandomPatchSampler(
            dataset, size=size, length=length, generator=seed
        )
    generator = torch.Generator().manual_seed(seed)
    return samplers.RandomGeoSampler(dataset, size, length, generator=generator)
