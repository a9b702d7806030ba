"""Data module of the synthetic land cover."""

from typing import Any

from ..datasets import SyntheticLandCover
from .arguments import check_arguments
from .dfc2020 import DFC2020DataModule


class SyntheticDataModule(DFC2020DataModule):
    """Synthetic tiles in the layout of DFC2020, drawn on first use."""

    dataset_class: type[SyntheticLandCover] = SyntheticLandCover

    def __init__(
        self,
        batch_size: int = 16,
        num_workers: int = 0,
        img_size: int = 128,
        **kwargs: Any,
    ) -> None:
        """Initialize a new SyntheticDataModule instance.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            img_size: Side of a chip in pixels, at most the tile's.
            **kwargs: Arguments of
                :class:`~torchgeo_ctm.datasets.SyntheticLandCover`, such as ``root``,
                ``num_tiles`` and ``seed``.
        """
        super().__init__(batch_size, num_workers, img_size, **kwargs)

    def prepare_data(self) -> None:
        """Draw the tiles on first use, in one process."""
        check_arguments(self.dataset_class, self.kwargs)
        self.dataset_class(split='train', **self.kwargs)
