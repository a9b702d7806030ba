"""Load the chips of a configuration's split, as the model sees them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError
from tqdm import tqdm

from ..configuration import read_data, read_task
from ..datamodules import ChipDataModule
from ..errors import CTMError, DataError, SettingError, one_line
from ..scenes.validity import check_number
from ..split import Split
from ..trainers.channel_facts import channel_names, channel_order


class Chip(NamedTuple):
    """One chip as the model sees it in evaluation."""

    #: Index of the chip in the split.
    number: int
    #: (bands, H, W) float32, as the data module hands it to the model.
    image: NDArray[np.float32]
    #: (H, W), False for nodata.
    valid: NDArray[np.bool_]
    #: Image-level label (C,), 1 where the class is present; None: no labels.
    label: NDArray[np.float32] | None
    #: Where presence or absence is known, (C,).
    known: NDArray[np.bool_] | None
    #: Classes (H, W), 255 ignored; None: no masks.
    mask: NDArray[np.int64] | None
    #: CRS as text; None: unknown, or not requested.
    crs: str | None


class ConfiguredSplit:
    """The chips of one split of a configuration, in order, without augmentation."""

    def __init__(
        self,
        config: str | Path,
        split: Split = 'train',
        limit: int | None = None,
        nodata: float | None = None,
    ) -> None:
        """Open the split; nothing is read yet.

        Args:
            config: Configuration of ``torchgeo`` with ``model`` and ``data`` sections.
            split: 'train', 'val' or 'test'.
            limit: Maximum number of chips, evenly spread over the split; None: all.
            nodata: Nodata value of the data set; pixels that have it in all bands are
                invalid.

        Raises:
            CTMError: If the configuration, or the data, cannot be used.
        """
        if limit is not None and limit < 1:
            raise SettingError(
                f'limit={limit} is too small, expected 1 or more. Did you mean 1?'
            )
        check_number('nodata', nodata)
        self.config = config
        self.split = split
        self.nodata = nodata
        self.task = read_task(config)
        data: Any = read_data(config)
        if nodata is not None and getattr(data, 'nodata', nodata) is None:
            # a data module of scenes leaves it out of windows and warnings
            data.nodata = nodata
        self.data = ChipDataModule(data, split)
        self._trainer = pl.Trainer(
            accelerator='cpu',
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # data modules of scenes read bands and window size from the model
        self._trainer.strategy.connect(self.task)
        #: Where the data hold the task's bands; None: in their order.
        self.order: list[int] | None = None
        self.queries = self._open(self.data)
        self.total = len(self.queries)
        if not self.total:
            raise DataError(f'The {split} split of {config} has no chip.')
        count = min(self.total, limit or self.total)
        self.chosen = [index * self.total // count for index in range(count)]

    def __len__(self) -> int:
        """Return the number of chips to read."""
        return len(self.chosen)

    def _open(self, data: ChipDataModule) -> list[Any]:
        """Open a split and return the query of each chip."""
        data.trainer = self._trainer
        try:
            data.prepare_data()
            data.setup('predict')
            self._name_bands(data)
            return data.queries()
        except CTMError:
            raise
        except (
            AssertionError,
            DatasetNotFoundError,
            OSError,
            TypeError,
            ValueError,
        ) as error:
            raise DataError(
                f'The {data.split} split of {self.config} cannot be opened: '
                f'{one_line(error)}'
            ) from error

    def _name_bands(self, data: ChipDataModule) -> None:
        """Learn the order of the bands from the data set, as training does."""
        task, names = self.task, channel_names(data.chips)
        if names is None or getattr(data.data, 'reads_bands_by_name', False):
            return
        if task.hparams['bands'] is None and len(names) == len(task.bands):
            task.bands = task.hparams['bands'] = names
            task.scaling.bands = names
        self.order = channel_order(task.bands, names, type(data.data).__name__)

    def count(self, split: Split) -> int:
        """Return the number of chips of a split.

        Raises:
            CTMError: If it cannot be opened.
        """
        if split == self.split:
            return self.total
        # reuse the data module, so that it reads labels and warns about them once
        return len(self._open(ChipDataModule(self.data.data, split)))

    def chips(self, progress: bool = True, with_crs: bool = False) -> Iterator[Chip]:
        """Yield the chips in order, read by the data module's own workers.

        Args:
            progress: Show a progress bar.
            with_crs: Include the CRS of each chip, which may open its file again.
        """
        loader = self.data.loader([self.queries[index] for index in self.chosen])
        numbers = iter(self.chosen)
        title = f'{self.split} split'
        with tqdm(
            total=len(self), desc=title, unit='chip', disable=not progress
        ) as bar:
            for batch in loader:
                for chip in self._chips_of(dict(batch), numbers, with_crs):
                    yield chip
                    bar.update()

    def _chips_of(
        self, batch: dict[str, Any], numbers: Iterator[int], with_crs: bool
    ) -> Iterator[Chip]:
        """Yield the chips of a batch."""
        valid = _valid(batch, self.nodata)
        batch = self.data.on_after_batch_transfer(batch, 0)
        if self.order is not None:
            batch['image'] = batch['image'][:, self.order]
        images = batch['image'].float().numpy()
        masks = labels = known = None
        with torch.no_grad():
            if 'mask' in batch:
                masks = self.task.reference_mask(batch['mask']).numpy()
            if 'mask' in batch or 'label' in batch:
                labels = self.task.presence(batch).numpy()
                known = labels >= 0
                labels = labels.clip(0)
        for position, image in enumerate(images):
            index = next(numbers)
            yield Chip(
                index,
                image,
                valid[position],
                None if labels is None else labels[position],
                None if known is None else known[position],
                None if masks is None else masks[position],
                self._crs(index) if with_crs else None,
            )

    def _crs(self, index: int) -> str | None:
        """Return the CRS of a chip, None if it has none."""
        grid = self.data.place(index)[1]
        return grid.crs.to_string() if grid is not None and grid.crs else None


def _valid(batch: dict[str, Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return the valid pixels of a batch, (B, H, W)."""
    if 'image' not in batch:
        raise DataError(f"The batch has the keys {sorted(batch)}, expected 'image'.")
    image: Tensor = batch['image']
    valid = image.isfinite().any(dim=1)
    if 'valid' in batch:
        valid &= batch['valid'].reshape(valid.shape).bool()
    if nodata is not None:
        valid &= (image != nodata).any(dim=1)
    result: NDArray[np.bool_] = valid.numpy()
    return result
