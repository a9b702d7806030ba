"""Names and arguments that TorchGeo changed between its releases 0.8 and 0.10.

No other file depends on which release is installed.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torchgeo.samplers
from torch import Tensor
from torchgeo.datasets import GeoDataset, RasterDataset
from torchgeo.datasets.utils import GeoSlice

if TYPE_CHECKING:
    from torchgeo.trainers import BaseTask  # type: ignore[attr-defined, unused-ignore]
    from torchgeo.trainers import ClassificationTask as Classification
    from torchgeo.trainers import SemanticSegmentationTask as SemanticSegmentation

__all__ = [
    'BaseTask',
    'Classification',
    'SemanticSegmentation',
    'entries',
    'grid_sampler',
    'is_random',
    'merge',
]

#: Names of the tasks before 0.10, in ``torchgeo.trainers``.
_FORMER = {
    'BaseTask': 'BaseTask',
    'Classification': 'ClassificationTask',
    'SemanticSegmentation': 'SemanticSegmentationTask',
}


def __getattr__(name: str) -> Any:
    """Import a task of TorchGeo on first use, because that takes seconds."""
    if name not in _FORMER:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if find_spec('torchgeo.tasks') is not None:
        return getattr(import_module('torchgeo.tasks'), name)
    return getattr(import_module('torchgeo.trainers'), _FORMER[name])


def grid_sampler(dataset: GeoDataset, size: Any, stride: Any = None) -> Any:
    """Return a sampler of side-by-side queries.

    Args:
        dataset: The data set.
        size: Side or (height, width) of a chip in pixels.
        stride: Distance between chips in pixels; None: *size*.
    """
    samplers: Any = torchgeo.samplers
    stride = size if stride is None else stride
    if hasattr(samplers, 'GriddedPatchSampler'):
        return samplers.GriddedPatchSampler(dataset, size=size, stride=stride)
    return samplers.GridGeoSampler(dataset, size, stride)


def is_random(sampler: Any) -> bool:
    """Return whether a sampler draws a fixed number of random queries."""
    parts = [
        getattr(part, 'strategy', None)
        for name in ('spatial_sampler', 'temporal_sampler')
        if (part := getattr(sampler, name, None)) is not None
    ]
    strategies = parts or [getattr(sampler, 'strategy', None)]
    former: Any = torchgeo.samplers.RandomGeoSampler
    return isinstance(sampler, former) or set(strategies) == {'random'}


def merge(dataset: RasterDataset, paths: Sequence[str], query: GeoSlice) -> Tensor:
    """Return what rasters hold at a query, merged as the data set merges its own.

    Args:
        dataset: The data set, which gives CRS and resolution.
        paths: The rasters.
        query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres].

    Returns:
        Pixels (bands, H, W).
    """
    anything: Any = dataset
    name = '_merge_or_stack' if hasattr(dataset, '_merge_or_stack') else '_merge_files'
    merged: Tensor = getattr(anything, name)(paths, query)
    return merged


def entries(dataset: GeoDataset, query: GeoSlice) -> dict[str, Any]:
    """Return what a sample says about its place, besides its pixels.

    From 0.9 on, samples hold tensors only: ``bounds`` and no ``crs``.

    Args:
        dataset: The data set.
        query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres].
    """
    anything: Any = dataset
    if hasattr(dataset, '_slice_to_tensor'):
        return {'bounds': anything._slice_to_tensor(query)}
    return {'crs': dataset.crs, 'bounds': dataset._disambiguate_slice(query)}
