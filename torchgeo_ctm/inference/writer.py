"""Lightning callback that writes the masks of scenes."""

import re
import signal
import sys
from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..errors import OutputError
from .options import ProductOptions
from .protocols import SceneData, scene_data, scene_predictor
from .scene_loop import Processes, SceneLoop


class PseudoMaskWriter(Callback):
    """Predict the windows of scenes, and write masks and their companion products.

    For the predictions of
    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` over a
    :class:`~torchgeo_ctm.datamodules.SceneDataModule`. Of several processes, the first
    one assembles the products. An interrupted run resumes.

    The callback runs the loop of
    :func:`~torchgeo_ctm.prediction.predict_scene` when prediction starts, and leaves no
    window to Lightning's own loop, which returns no predictions: those of a scene would
    fill the memory.
    """

    def __init__(
        self,
        output: str,
        overwrite: bool = False,
        *,
        progress: bool = False,
        **products: Any,
    ) -> None:
        """Create the callback.

        Args:
            output: Class raster to write, ``MASK.tif``; for several scenes a folder.
            overwrite: Replace existing products.
            progress: Show a progress bar of its own, with pixels per second, and print
                the names of the files that were written.
            **products: Options of
                :class:`~torchgeo_ctm.inference.options.ProductOptions`.

        Raises:
            SettingError: If *sieve* or *min_area* is negative.
        """
        super().__init__()
        options = ProductOptions(**products)
        self.loop = SceneLoop(output, overwrite, options, progress)

    def setup(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str
    ) -> None:
        """Check that every product can be written, before anything is computed.

        Raises:
            OutputError: If a product exists and may not be replaced.
            SettingError: If data module or task are not for scenes, or *merge* does not
                fit the classes of the task.
        """
        try:
            self.loop.check(scene_predictor(pl_module), _source(trainer).batches)
        except OutputError as error:
            # a configuration sets keys, and passes no arguments
            text = re.sub(r'Pass (\w+)=True', r'Set \1: true', str(error))
            raise OutputError(text) from None

    def on_predict_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Start the runs, before the task removes pruned heads."""
        task = scene_predictor(pl_module)

        def total(own: int) -> int:
            counted = torch.tensor(own, device=task.device)
            return int(trainer.strategy.reduce(counted, reduce_op='sum'))

        processes = Processes(
            trainer.global_rank, trainer.world_size, trainer.strategy.barrier, total
        )
        batches = _source(trainer).batches
        self.loop.begin(task, batches, str(trainer.precision), processes)

    def on_predict_epoch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Predict every window and write the products.

        Raises:
            SystemExit: After SIGTERM, with status 143, before the next batch.
        """
        precision, loop = trainer.precision_plugin, trainer.predict_loop

        def context() -> AbstractContextManager[Any]:
            # Lightning only notes the signal
            if trainer.received_sigterm:
                raise SIGTERMException(128 + signal.SIGTERM)
            return precision.predict_step_context()

        self.loop.run(
            scene_predictor(pl_module),
            context,
            precision.convert_input,
            # infinity for loaders without a length, which ours have
            [int(limit) for limit in loop.max_batches],
        )
        # so that Lightning's own loop ends at once: finished loaders of 1,000 scenes
        # would be skipped by as many nested calls
        loop.max_batches[:] = [0] * len(loop.max_batches)
        for batches in _source(trainer).batches:
            batches.finished[:] = 1

    def on_predict_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Name the files that were written, as ``torchgeo-ctm predict`` does."""
        if self.loop.progress and trainer.is_global_zero:
            for path in self.loop.written:
                sys.stdout.write(f'{path}\n')

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Remove temporary files, but keep the journal if the run can resume."""
        self.loop.abandon(exception)


def _source(trainer: pl.Trainer) -> SceneData:
    """Return the data module, checked to be one of scenes."""
    datamodule: object = trainer.datamodule  # type: ignore[attr-defined]
    return scene_data(datamodule)
