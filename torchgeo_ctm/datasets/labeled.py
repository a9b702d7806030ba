"""Image-level labels for the samples of any TorchGeo GeoDataset."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio.crs
import torch
from pyproj import CRS
from torch.utils.data import Sampler
from torchgeo.datasets import GeoDataset
from torchgeo.datasets.utils import GeoSlice
from torchgeo.samplers import BatchGeoSampler

from ..compat import is_random
from ..errors import LabelError, LabelWarning
from ..grids import Grid
from ..labels import ImageLabel, LabelSource
from .queries import query_grid, rasterio_crs


class LabelledDataset(GeoDataset):
    """A GeoDataset whose samples also hold their label.

    Adds ``label`` float32 (C,) and ``label_known`` bool (C,) to the samples of another
    data set. It shares index, CRS and resolution with that data set, so that samplers,
    ``&`` and ``|`` work as with any other.
    """

    def __init__(self, dataset: GeoDataset, labels: LabelSource) -> None:
        """Wrap a data set.

        Args:
            dataset: Any TorchGeo GeoDataset.
            labels: Source of the labels of its chips.
        """
        self.dataset = dataset
        self.labels = labels

    @property
    def index(self) -> Any:
        """The data set's index."""
        return self.dataset.index

    @property
    def crs(self) -> CRS:
        """The data set's CRS."""
        return self.dataset.crs

    @crs.setter
    def crs(self, new_crs: CRS) -> None:
        self.dataset.crs = new_crs

    @property
    def res(self) -> tuple[float, float]:
        """The data set's resolution (x, y) in units of its CRS."""
        return self.dataset.res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        self.dataset.res = new_res

    @property
    def paths(self) -> Any:  # type: ignore[override]
        """The data set's paths."""
        return self.dataset.paths

    def __getitem__(self, query: GeoSlice) -> dict[str, Any]:
        """Return the sample and the label of a query.

        Args:
            query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres].

        Raises:
            LabelError: If the query has no label; see :class:`LabelledSampler`.
        """
        label = self.label(query)
        if label is None:
            x, y, _ = self._disambiguate_slice(query)
            raise LabelError(
                f'The query x={x.start:g} to {x.stop:g}, y={y.start:g} to {y.stop:g} has '
                'no label. Use LabelledSampler(sampler, dataset), which leaves such '
                'queries out.'
            )
        sample: dict[str, Any] = self.dataset[query]
        return sample | {
            'label': torch.from_numpy(np.array(label.present, np.float32)),
            'label_known': torch.from_numpy(np.array(label.known, bool)),
        }

    def label(self, query: GeoSlice) -> ImageLabel | None:
        """Return the label of a query, None if it has none."""
        return self.labels.label(self.grid(query))

    def grid(self, query: GeoSlice) -> Grid:
        """Return the pixel grid of a query's sample."""
        return query_grid(self, query, self._rasterio_crs())

    def _rasterio_crs(self) -> rasterio.crs.CRS:
        """Return the CRS in rasterio's class, the same object while it is the same."""
        known = self.__dict__.get('_known_crs')
        if known is None or known[0] is not self.crs:
            known = (self.crs, rasterio_crs(self.crs))
            self._known_crs = known
        crs: rasterio.crs.CRS = known[1]
        return crs


class LabelledSampler(Sampler[Any]):
    """A sampler that leaves out queries without a label, and counts them.

    A random sampler draws another query for each one left out, so that the length of
    an epoch stays the same; epochs of other samplers become shorter. TorchGeo's batch
    samplers work, too: batches become smaller, and empty ones are left out.
    """

    def __init__(self, sampler: Sampler[Any], dataset: LabelledDataset) -> None:
        """Wrap a sampler.

        Args:
            sampler: A sampler of TorchGeo, over the area of *dataset*.
            dataset: The data set with the labels.
        """
        self.sampler = sampler
        self.dataset = dataset
        #: Queries without a label that were left out, since this object was created.
        self.skipped = 0
        self._length: int | None = None
        self._warned = False

    def __len__(self) -> int:
        """Return the number of queries of an epoch; of batches, at most."""
        sampler: Any = self.sampler
        bounded = is_random(sampler) or isinstance(sampler, BatchGeoSampler)
        if self._length is None and bounded:
            self._length = len(sampler)
        if self._length is None:
            labels = (self.dataset.label(query) for query in sampler)
            self._length = sum(label is not None for label in labels)
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """Yield the queries that have a label.

        Raises:
            LabelError: If no query has a label.
        """
        before, shown = self.skipped, 0
        sampler: Any = self.sampler
        wanted = len(sampler) if is_random(sampler) else 0
        while True:
            found = 0
            for item in self._labeled():
                found += 1
                shown += 1
                yield item
                if shown == wanted:
                    break
            if not found:
                raise LabelError(
                    f'None of {self.skipped - before} queries has a label. Check that '
                    'labels and data set cover the same area.'
                )
            if shown >= wanted:
                break
        self._warn(self.skipped - before, shown)

    def _labeled(self) -> Iterator[Any]:
        """Yield one epoch of the sampler, without queries that have no label."""
        for item in self.sampler:
            if not isinstance(item, list):
                if self._has_label(item):
                    yield item
            elif kept := [query for query in item if self._has_label(query)]:
                yield kept

    def _has_label(self, query: GeoSlice) -> bool:
        """Return whether a query has a label; count those without."""
        has = self.dataset.label(query) is not None
        self.skipped += not has
        return has

    def _warn(self, skipped: int, shown: int) -> None:
        """Warn once about the number of queries left out."""
        if skipped and not self._warned:
            self._warned = True
            warnings.warn(
                f'{skipped} queries have no label and were left out. {shown} have one.',
                LabelWarning,
                stacklevel=3,
            )
