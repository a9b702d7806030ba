"""Runs of a map: options of a small one, what it wrote, and an interruption."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import rasterio

from torchgeo_ctm.inference.scene_loop import SceneLoop

QUIET: dict[str, Any] = {'progress': False, 'accelerator': 'cpu'}
#: Options of a run of several batches.
SMALL = QUIET | {'window': 32, 'stride': 16}


def read(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the first band of a raster."""
    with rasterio.open(path) as raster:
        values: np.ndarray[Any, np.dtype[np.uint8]] = raster.read(1)
        return values


def trainer(**options: Any) -> pl.Trainer:
    """Return a trainer that writes nothing."""
    return pl.Trainer(
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@contextmanager
def stopped_at_batch(number: int) -> Iterator[None]:
    """Interrupt when a batch begins: the one before it is not recorded yet."""
    begin, calls = SceneLoop._begin_batch, count()

    def stops(loop: Any, *arguments: Any, **options: Any) -> None:
        if next(calls) == number:
            raise KeyboardInterrupt
        begin(loop, *arguments, **options)

    with patch.object(SceneLoop, '_begin_batch', stops):
        yield
