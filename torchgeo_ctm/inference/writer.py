"""The Lightning callback that turns predictions of windows into the products."""

import hashlib
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from ..errors import CTMError, OutputError, ReflectanceWarning, SettingError
from ..files import check_not_input
from ..plots import rgb_indices
from ..reflectance import reflectance_complaint
from ..scaling import is_reflectance
from ..version import __version__
from .geotiff import check_output
from .journal import ScoreJournal
from .memory import estimate
from .options import ProductOptions
from .products import Products, check_products
from .scene_run import SHARE, SceneRun, say_what_was_found
from .threads import ThreadedPrediction, threaded_prediction

#: Longest side of the quick look's scene, in pixels.
PICTURE = 768
#: Every how many rows and columns of the first windows are looked at.
SAMPLED = 4


class PseudoMaskWriter(Callback):
    """Blend the windows of scenes and write masks and everything beside them.

    The class of a pixel is decided once, from the scores of all windows over it.
    Works on the predictions of
    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` over a
    :class:`~torchgeo_ctm.datamodules.SceneDataModule`, in one process or many: the
    first one assembles. A run that was killed goes on where it stood.
    """

    def __init__(
        self,
        output: str,
        overwrite: bool = False,
        confidence: bool = True,
        probabilities: bool = False,
        polygons: bool = True,
        style: bool = True,
        picture: bool = True,
        stac: bool = False,
        sieve: int = 0,
        min_area: float = 0.0,
        progress: bool = False,
    ) -> None:
        """Create the callback.

        Args:
            output: The class raster to write, ``OUT.tif``; for many scenes a folder.
            overwrite: Replace existing products.
            confidence: Write ``OUT_confidence.tif``, in per cent.
            probabilities: Write ``OUT_probabilities.tif``, the share of each class.
            polygons: Write ``OUT.gpkg``.
            style: Write ``OUT.qml``, the colours and names for QGIS.
            picture: Write ``OUT.png``, the quick look.
            stac: Write ``OUT.json``, a STAC item (extra ``stac``).
            sieve: Pixels; smaller patches join their largest neighbour in polygons.
            min_area: Hectares; smaller polygons are left out.
            progress: Show a progress bar of its own, with pixels per second.

        Raises:
            OutputError: If *output* cannot be written.
            SettingError: If *sieve* or *min_area* is negative.
        """
        super().__init__()
        for name, value in (('sieve', sieve), ('min_area', min_area)):
            if value < 0:
                raise SettingError(f'{name}={value} is negative; nearest: 0')
        self.output = Path(output)
        self.overwrite = overwrite
        self.options = ProductOptions(
            confidence, probabilities, polygons, style, picture, stac, sieve, min_area
        )
        self.progress = progress
        if not self.output.is_dir():
            check_output(self.output, overwrite)
        self.runs: list[SceneRun] = []
        self._finished = 0
        self._threads: ThreadedPrediction | None = None
        # what the model is still at: number of the scene, results, which windows
        self._pending: tuple[int, Any, dict[str, Tensor]] | None = None

    def outputs(self, scenes: list[str]) -> list[Path]:
        """Return the class raster of each scene.

        Raises:
            OutputError: If one file is named for many scenes, or two share a name.
        """
        if len(scenes) == 1 and not self.output.is_dir():
            return [self.output]
        if not self.output.is_dir():
            raise OutputError(
                f'{self.output} is one file for {len(scenes)} scenes; needed: a folder'
            )
        paths = [self.output / f'{Path(scene).stem}.tif' for scene in scenes]
        if len(set(paths)) < len(paths):
            raise OutputError(
                f'scenes share names, so their masks would in {self.output}; needed: '
                'scenes with different file names'
            )
        return paths

    def setup(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str
    ) -> None:
        """Refuse outputs that cannot be written, before anything is computed.

        Raises:
            OutputError: If a product exists and may not be replaced.
            SettingError: If there is no SceneDataModule to take windows from.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(datamodule, 'before_reading'):
            raise SettingError(
                f'PseudoMaskWriter takes windows of a SceneDataModule, not of '
                f'{type(datamodule).__name__}'
            )
        for path, scene in zip(
            self.outputs(datamodule.scenes), datamodule.scenes, strict=True
        ):
            check_not_input(path, scene)
            if not _journal_folder(path).is_dir():
                # an unfinished run may have published some products already
                check_products(path, self.options, self.overwrite)
        # weights are loaded between now and then
        datamodule.before_reading = lambda: self._begin(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, task: Any) -> None:
        """Open a journal for each scene, and tell the reader what it can skip."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        weights = _weights_hash(task)
        if self.options.picture:
            datamodule.take_thumbnails(rgb_indices(task.bands), PICTURE)
        alone = trainer.world_size == 1
        for path, scene, batches in zip(
            self.outputs(datamodule.scenes),
            datamodule.predict_datasets,
            datamodule.batches,
            strict=True,
        ):
            tags = _tags(task, scene, weights)
            settings = tags | _identity(scene) | {'batch_size': batches.batch_size}
            journal = ScoreJournal(_journal_folder(path), settings, len(scene))
            reason = None
            if trainer.is_global_zero:
                journal.lock()
                reason = journal.start()
            trainer.strategy.barrier('journal')
            journal.open()
            batches.finished = journal.finished.copy()
            products = Products(
                path,
                self.options,
                task.class_names,
                task.class_colors,
                scene.grid,
                journal.folder,
                tags,
            )
            run = SceneRun(scene.plan, journal, products, task.device, alone)
            self.runs.append(run)
            if trainer.is_global_zero:
                say_what_was_found(journal, reason)
                products.open()
                if self.progress:
                    line = estimate(scene, task, batches.batch_size)
                    tqdm.write(line, file=sys.stderr)

    def on_predict_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Let the task predict on threads, if nobody else uses its predictions."""
        if not trainer.predict_loop.return_predictions:
            self._threads = threaded_prediction(pl_module)

    def _stop_threads(self) -> None:
        """Stop the threads; batches that are still computed are dropped."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    def on_predict_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the first windows of a scene before the model does."""
        task: Any = pl_module
        run = self.runs[dataloader_idx]
        if run.progress is None and self.progress and trainer.is_global_zero:
            run.show_progress(run.products.output.name)
        if batch_idx:
            return
        if not hasattr(task.scaling, 'mean') or task.scaling.method != 'standard':
            return
        if not any(map(is_reflectance, task.bands)):
            return
        offset = task.scaling.offset
        some = np.s_[..., ::SAMPLED, ::SAMPLED]
        image, valid = batch['image'][some], batch['valid'][some]
        pixels = image.movedim(1, 0)[:, valid].float() + offset
        optical = [i for i, band in enumerate(task.bands) if is_reflectance(band)]
        complaint = reflectance_complaint(
            pixels[optical].cpu().numpy(),
            task.scaling.mean.flatten()[optical].cpu().numpy(),
            task.scaling.std.flatten()[optical].cpu().numpy(),
            [task.bands[index] for index in optical],
        )
        if complaint is not None:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            scene = datamodule.predict_datasets[dataloader_idx].scene
            warnings.warn(f'{scene}: {complaint}', ReflectanceWarning, stacklevel=2)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the batch before this one, now that the model is busy."""
        self._take(pl_module)
        if trainer.world_size == 1:
            self._finish(trainer, pl_module, dataloader_idx)
        # not its pixels, which nobody needs any more
        facts = {key: batch[key] for key in ('index', 'valid')}
        self._pending = dataloader_idx, outputs, facts

    def _take(self, task: Any) -> None:
        """Record the batch of windows that is pending, and blend it."""
        if self._pending is None:
            return
        number, outputs, batch = self._pending
        self._pending = None
        scores = outputs['scores']
        if task.decoder.options.rule == 'paint':
            # one-hot: the class says as much in a fraction of the space
            scores = scores.argmax(dim=1).to(torch.uint8)
        elif task.refines:
            # of every pixel, so a byte each has to do
            scores = (SHARE * scores).round().to(torch.uint8)
        nothing = (outputs['probs'] <= task.decoder.options.threshold).all(dim=1)
        numbers = batch['index'].tolist()
        self.runs[number].take(numbers, scores, batch['valid'], nothing)

    def _finish(self, trainer: pl.Trainer, task: Any, end: int) -> None:
        """Finish the scenes before *end*."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        while self._finished < end:
            scene = datamodule.predict_datasets[self._finished]
            thumbnail = datamodule.batches[self._finished].thumbnail
            self.runs[self._finished].finish(scene, thumbnail)
            self._finished += 1

    def on_predict_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Write the last rows; the first of many processes writes everything."""
        self._take(pl_module)
        self._stop_threads()
        trainer.strategy.barrier('windows')
        if trainer.is_global_zero:
            for run in self.runs[self._finished :]:
                run.journal.reload()
            self._finish(trainer, pl_module, len(self.runs))
        else:
            for run in self.runs:
                run.journal.close()
        trainer.strategy.barrier('products')

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Leave no product half-written; keep what has been computed."""
        self._pending = None
        self._stop_threads()
        mistake = isinstance(exception, CTMError)
        keep = not mistake or isinstance(exception, OutputError)
        for run in self.runs[self._finished :]:
            if trainer.is_global_zero:
                run.abandon(keep)
            else:
                run.journal.close()


def _journal_folder(output: Path) -> Path:
    """Return where the journal of an output lies: hidden, beside it."""
    return output.with_name(f'.{output.name}.part')


def _tags(task: Any, scene: Any, weights: str) -> dict[str, str]:
    """Return what is needed to repeat the run."""
    facts = task.provenance()
    known = scene.offset is not None
    return {
        'TORCHGEO_CTM_VERSION': __version__,
        'BANDS': facts.pop('BANDS'),
        'SCALING': facts.pop('SCALING'),
        'OFFSET': f'{scene.offset:g}' if known else 'as in the training data',
        'NODATA': 'from the scene' if scene.nodata is None else f'{scene.nodata:g}',
        **facts,
        'WINDOW': str(scene.window),
        'STRIDE': str(scene.stride),
        'SCENE': Path(scene.scene).name,
        'WEIGHTS_SHA256': weights,
    }


def _identity(scene: Any) -> dict[str, Any]:
    """Return what tells a scene from another one of the same name."""
    path = Path(scene.scene)
    found: dict[str, Any] = {
        'scene': str(scene.scene),
        'size': [scene.grid.height, scene.grid.width],
    }
    if path.exists():
        stat = path.stat()
        found |= {'bytes': stat.st_size, 'modified': stat.st_mtime_ns}
    return found


def _weights_hash(task: Any) -> str:
    """Return the SHA-256 over the weights' own, whichever file they came from."""
    weights = dict(sorted(task.state_dict().items()))
    # hashing lets other threads run
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, weights.values()))
    whole = hashlib.sha256()
    for name, digest in zip(weights, digests, strict=True):
        whole.update(name.encode() + digest)
    return whole.hexdigest()


def _digest(tensor: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's numbers."""
    numbers = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return hashlib.sha256(numbers.data).digest()
