"""Predict one split of any data module, chip by chip."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import GeoDataModule
from torchgeo.samplers import GridGeoSampler

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

    Batches keep ``crs`` and ``bounds``, which TorchGeo drops on transfer, so that masks
    can be georeferenced.
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
        return getattr(self.data, f'{self.split}_dataloader')()

    def queries(self) -> list[Any]:
        """Return the index of every chip: numbers, or queries of a GeoDataset."""
        chips: Any = self.chips
        if isinstance(self.data, GeoDataModule):
            size = self.data.patch_size
            return list(GridGeoSampler(chips, size, size))
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
        apart = {key: batch.pop(key) for key in ('crs', 'bounds') if key in batch}
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
        return dict(batch) | apart

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip, and its grid if the data module knows it."""
        if hasattr(self.data, 'chip_place'):
            name, grid = self.data.chip_place(self.chips, index)
            return str(name), grid
        if hasattr(self.chips, 'place'):
            name, grid = self.chips.place(index)
            return str(name), grid
        return f'{self.dataset_name}_{index:06d}', None
