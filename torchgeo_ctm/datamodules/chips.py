"""Any data module's split as chips to predict, in order."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import GeoDataModule
from torchgeo.samplers import GridGeoSampler

from ..errors import DataError
from ..grids import Grid
from ..split import Split

STAGES = {'train': 'fit', 'val': 'validate', 'test': 'test'}


class ChipDataModule(LightningDataModule):
    """One split of another data module, to predict: in order, without augmentation.

    Batches keep what TorchGeo's own transfer drops (``crs`` and ``bounds``), so that
    masks can be written where they lie.
    """

    def __init__(self, data: Any, split: Split) -> None:
        """Wrap a data module.

        Args:
            data: A TorchGeo data module, of tiles or of a GeoDataset.
            split: Which of its splits to predict.
        """
        super().__init__()
        self.data = data
        self.split = split

    @property
    def dataset_name(self) -> str:
        """The data set's name: its class, in lower case."""
        dataset: Any = getattr(self.data, 'tiles', None)
        dataset = dataset or getattr(self.data, 'dataset_class', type(self.data))
        return str(dataset.__name__).lower()

    def prepare_data(self) -> None:
        """Let the data module download or make what it needs."""
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
        self.data.setup(STAGES[self.split])
        chips = getattr(self.data, f'{self.split}_dataset', None)
        chips = getattr(self.data, 'dataset', None) if chips is None else chips
        if chips is None:
            raise DataError(
                f'{type(self.data).__name__} has no {self.split} split to predict'
            )
        self.chips = chips

    def predict_dataloader(self) -> Any:
        """Return the split's chips in order: its own loader, but for training."""
        if hasattr(self.data, 'chips') or self.split == 'train':
            return self.loader(self.queries())
        return getattr(self.data, f'{self.split}_dataloader')()

    def queries(self) -> list[Any]:
        """Return what the data set is asked for, chip by chip: numbers, or places."""
        chips: Any = self.chips
        if isinstance(self.data, GeoDataModule):
            size = self.data.patch_size
            return list(GridGeoSampler(chips, size, size))
        return list(range(len(chips)))

    def loader(self, queries: Sequence[Any]) -> DataLoader[Any]:
        """Return a loader of some of the :meth:`queries`, in the order given."""
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
        """Let the data module do what it does in evaluation: normalise, renumber."""
        apart = {key: batch.pop(key) for key in ('crs', 'bounds') if key in batch}
        trainer = self.data.trainer
        self.data.trainer = SimpleNamespace(
            training=False,
            validating=self.split != 'test',
            sanity_checking=False,
            testing=self.split == 'test',
            predicting=False,
            lightning_module=getattr(trainer, 'lightning_module', None),
        )
        try:
            batch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        finally:
            self.data.trainer = trainer
        return dict(batch) | apart

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip and, where the data module knows it, its grid."""
        if hasattr(self.data, 'chip_place'):
            name, grid = self.data.chip_place(self.chips, index)
            return str(name), grid
        if hasattr(self.chips, 'place'):
            name, grid = self.chips.place(index)
            return str(name), grid
        return f'{self.dataset_name}_{index:06d}', None
