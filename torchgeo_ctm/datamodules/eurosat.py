"""Data module of EuroSAT."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import EuroSAT

from ..errors import SettingError, did_you_mean
from ..scaling import GROUND_BANDS
from .arguments import check_arguments, warn_of_unscaled
from .augment import augmentation
from .chips import SPLITS_OF_STAGE
from .classes import match_task
from .spectral import SpectralJitter


class EuroSATDataModule(NonGeoDataModule):
    """TorchGeo's :class:`~torchgeo.datasets.EuroSAT`: 27,000 tiles with one label each.

    Images keep reflectance × 10,000: the model scales them, so that it can also map
    scenes. TorchGeo's own data module normalizes them.
    """

    dataset_class: type[EuroSAT] = EuroSAT
    #: Images have the bands of the task, in its order.
    reads_bands_by_name = True
    #: Side of a pixel in meters.
    pixel_size = 10.0

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        bands: Sequence[str] | None = None,
        mix_tiles: float = 0.0,
        spectral_jitter: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Initialize a new EuroSATDataModule instance.

        Args:
            batch_size: Chips per batch.
            num_workers: Workers that load data.
            bands: Names of the bands to read; None: those of the model, in its order.
                For maps of other scenes leave out B01, B09 and B10, which follow the
                atmosphere of the day.
            mix_tiles: Probability, 0 to 1, that a training chip is mixed from several,
                see :class:`~torchgeo_ctm.datamodules.augment.MixTiles`.
            spectral_jitter: Strength of the variation of contrast, brightness, haze and
                season in training, 1 is recommended for maps of other scenes, see
                :class:`~torchgeo_ctm.datamodules.spectral.SpectralJitter`.
            **kwargs: Arguments of :class:`~torchgeo.datasets.EuroSAT`, such as ``root``
                and ``download``.

        Raises:
            SettingError: If the data set has no such band, *mix_tiles* is not 0 to 1, or
                *spectral_jitter* is negative.
        """
        super().__init__(self.dataset_class, batch_size, num_workers, **kwargs)
        self.bands = bands
        for band in bands or ():
            self._check_band(band)
        self.mix_tiles = mix_tiles
        # TorchGeo would normalize here, but the model holds the scaling
        self.aug = nn.Identity()
        self.spectral_jitter = spectral_jitter
        self.train_aug = self._augmentation(bands or GROUND_BANDS, 0)

    def _augmentation(self, bands: Sequence[str], num_classes: int) -> nn.Module:
        """Return the augmentation of training batches."""
        mixed = augmentation(mix_tiles=self.mix_tiles, num_classes=num_classes)
        return nn.Sequential(mixed, SpectralJitter(bands, self.spectral_jitter))

    def _check_band(self, band: str) -> None:
        """Check that the data set has a band."""
        known = self.dataset_class.all_band_names
        if band not in known:
            raise SettingError(
                f'EuroSAT has no band {band!r}, expected some of: {", ".join(known)}.'
                + did_you_mean(band, known)
            )

    def setup(self, stage: str) -> None:
        """Open the splits that *stage* needs.

        Args:
            stage: 'fit', 'validate', 'test' or 'predict'.

        Raises:
            SettingError: If bands or classes are not those of the task, or the data set
                has no argument of this name.
        """
        check_arguments(self.dataset_class, self.kwargs)
        warn_of_unscaled(self.trainer, self)
        bands = self._bands()
        for split in SPLITS_OF_STAGE.get(stage, ()):
            tiles = self.dataset_class(split=split, bands=bands, **self.kwargs)
            mixes = self.mix_tiles > 0
            match_task(self.trainer, tiles.root, tiles.classes, mixes=mixes)
            setattr(self, f'{split}_dataset', tiles)
            if split == 'train':
                self.train_aug = self._augmentation(bands, len(tiles.classes))

    def _bands(self) -> tuple[str, ...]:
        """Return the bands to read, those of the task if it has any."""
        task: Any = getattr(self.trainer, 'lightning_module', None)
        needed = tuple(getattr(task, 'bands', ()))
        given = tuple(self.bands or needed or GROUND_BANDS)
        if needed and given != needed:
            raise SettingError(
                f'The data module reads {", ".join(given)}, expected the bands of the '
                f'model: {", ".join(needed)}.'
            )
        for band in given:
            self._check_band(band)
        return given
