"""Predict one split of any data module, chip by chip."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import BatchSampler, DataLoader, Dataset
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import GeoDataset

from ..compat import grid_sampler
from ..datasets.queries import query_grid, rasterio_crs
from ..errors import DataError
from ..grids import Grid
from ..split import Split

#: Splits that a stage needs.
SPLITS_OF_STAGE: dict[str, tuple[Split, ...]] = {
    'fit': ('train', 'val'),
    'validate': ('val',),
    'test': ('test',),
}
#: Stage that opens a split.
STAGE_OF_SPLIT = {'train': 'fit', 'val': 'validate', 'test': 'test'}


class ChipDataModule(LightningDataModule):
    """One split of another data module, to predict in order and without augmentation.

    Chips of a GeoDataset are read by queries that are drawn once, so that the grid of
    each is known exactly: batches of TorchGeo 0.9 hold no CRS, and bounds as float32.
    """

    def __init__(self, data: Any, split: Split) -> None:
        """Initialize a new ChipDataModule instance.

        Args:
            data: A TorchGeo data module, of tiles or of a GeoDataset.
            split: Split to predict.
        """
        super().__init__()
        self.data = data
        self.split = split
        self._queries: list[Any] = []
        self._crs: Any = None

    @property
    def dataset_name(self) -> str:
        """Name of the data set: its class, in lower case."""
        dataset: Any = getattr(self.data, 'dataset_class', type(self.data))
        return str(dataset.__name__).lower()

    def prepare_data(self) -> None:
        """Download or create the data, as the data module does."""
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the split.

        Raises:
            DataError: If the data module has no such split.
        """
        self.data.trainer = self.trainer
        if hasattr(self.data, 'chips'):
            self.chips: Dataset[Any] = self.data.chips(self.split)
            return
        self.data.setup(STAGE_OF_SPLIT[self.split])
        chips = getattr(self.data, f'{self.split}_dataset', None)
        chips = getattr(self.data, 'dataset', None) if chips is None else chips
        if chips is None:
            raise DataError(f'{type(self.data).__name__} has no {self.split} split.')
        self.chips = chips

    def predict_dataloader(self) -> Any:
        """Return a loader of all chips in order."""
        # the data module's own training loader would shuffle
        if hasattr(self.data, 'chips') or self.split == 'train':
            return self.loader(self.queries())
        loader = getattr(self.data, f'{self.split}_dataloader')()
        if not isinstance(self.chips, GeoDataset):
            return loader
        self._queries = _queries(loader)
        return self.loader(self._queries)

    def queries(self) -> list[Any]:
        """Return the index of every chip: numbers, or queries of a GeoDataset."""
        chips: Any = self.chips
        if isinstance(self.data, GeoDataModule):
            self._queries = list(grid_sampler(chips, self.data.patch_size))
            return self._queries
        return list(range(len(chips)))

    def loader(self, queries: Sequence[Any]) -> DataLoader[Any]:
        """Return a loader of some of the :meth:`queries`, in the given order."""
        options: dict[str, Any] = {}
        if getattr(self.data, 'collate_fn', None) is not None:
            options['collate_fn'] = self.data.collate_fn
        return DataLoader(
            dataset=self.chips,
            batch_size=self.data.batch_size,
            sampler=queries,
            num_workers=self.data.num_workers,
            **options,
        )

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int
    ) -> dict[str, Any]:
        """Transform a batch as the data module does in evaluation."""
        for key in ('crs', 'bounds'):
            # TorchGeo 0.8 cannot augment them
            batch.pop(key, None)
        trainer: Any = self.data.trainer
        stage = trainer.state.stage
        # training chips are evaluated too
        testing = self.split == 'test'
        trainer.state.stage = (
            RunningStage.TESTING if testing else RunningStage.VALIDATING
        )
        try:
            batch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        finally:
            trainer.state.stage = stage
        return dict(batch)

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip, and its grid if it has one."""
        if hasattr(self.data, 'chip_place'):
            name, grid = self.data.chip_place(self.chips, index)
            return str(name), grid
        if hasattr(self.chips, 'place'):
            name, grid = self.chips.place(index)
            return str(name), grid
        name = f'{self.dataset_name}_{index:06d}'
        if not isinstance(self.chips, GeoDataset):
            return name, None
        if self._crs is None:
            self._crs = rasterio_crs(self.chips.crs)
        return name, query_grid(self.chips, self._queries[index], self._crs)


def _queries(loader: DataLoader[Any]) -> list[Any]:
    """Return the queries of a loader in their order, as it would draw them."""
    batches: Any = loader.batch_sampler
    if batches is None or type(batches) is BatchSampler:
        return list(loader.sampler)
    return [query for batch in batches for query in batch]
