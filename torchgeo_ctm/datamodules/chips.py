"""Any data module's split as chips to predict, in order."""

from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import GeoDataModule
from torchgeo.samplers import GridGeoSampler

from ..errors import DataError
from ..windows import Grid

Split = Literal['train', 'val', 'test']

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
            return self._in_order()
        return getattr(self.data, f'{self.split}_dataloader')()

    def _in_order(self) -> DataLoader[Any]:
        """Return a loader that draws nothing at random."""
        sampler = None
        if isinstance(self.data, GeoDataModule):
            chips: Any = self.chips
            size = self.data.patch_size
            sampler = GridGeoSampler(chips, size, size)
        options: dict[str, Any] = {'sampler': sampler} if sampler else {}
        if getattr(self.data, 'collate_fn', None) is not None:
            options['collate_fn'] = self.data.collate_fn
        return DataLoader(
            dataset=self.chips,
            batch_size=self.data.batch_size,
            num_workers=self.data.num_workers,
            **options,
        )

    def on_after_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int
    ) -> dict[str, Any]:
        """Normalise as the data module does in evaluation."""
        splits = ('val', 'predict') if self.split == 'train' else (self.split,)
        augs = [getattr(self.data, f'{split}_aug', None) for split in splits]
        aug = next((aug for aug in augs if aug is not None), None)
        aug = getattr(self.data, 'aug', None) if aug is None else aug
        if aug is None:
            return batch
        apart = {key: batch.pop(key) for key in ('crs', 'bounds') if key in batch}
        return dict(aug(batch)) | apart

    def place(self, index: int) -> tuple[str, Grid | None]:
        """Return the name of a chip and, where the data module knows it, its grid."""
        if hasattr(self.data, 'chip_place'):
            name, grid = self.data.chip_place(self.chips, index)
            return str(name), grid
        return f'{self.dataset_name}_{index:06d}', None
