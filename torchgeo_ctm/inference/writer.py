"""Lightning callback that turns predictions of windows into products."""

import hashlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from ..errors import CTMError, OutputError, ReflectanceWarning
from ..files import check_not_input
from ..plots import rgb_indices
from ..reflectance import reflectance_complaint
from ..scaling import BandScaling, is_reflectance
from ..version import __version__
from .geotiff import check_output
from .journal import ScoreJournal
from .memory import estimate
from .merging import Merging, merging
from .options import ProductOptions
from .products import Products, check_companions
from .protocols import Scene, ScenePredictor, SceneSource, scene_predictor, scene_source
from .scene_run import FULL, SceneRun, warn_about_resume
from .threads import ThreadedPrediction, threaded_prediction

#: Longest side of the quick look's scene, in pixels.
PICTURE = 768
#: Step between the rows and columns of the first windows that are checked.
SAMPLED = 4


class PseudoMaskWriter(Callback):
    """Blend the windows of scenes and write the masks and their companion products.

    The class of a pixel is decided once, from the scores of all windows over it.
    Writes the predictions of
    :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask` over a
    :class:`~torchgeo_ctm.datamodules.SceneDataModule`. Of several processes, the first
    one assembles the products. An interrupted run resumes.
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
            progress: Show a progress bar of its own, with pixels per second.
            **products: Options of
                :class:`~torchgeo_ctm.inference.options.ProductOptions`.

        Raises:
            SettingError: If *sieve* or *min_area* is negative.
        """
        super().__init__()
        self.output = Path(output)
        self.overwrite = overwrite
        self.options = ProductOptions(**products)
        self.progress = progress
        self.runs: list[SceneRun] = []
        self._finished = 0
        self._threads: ThreadedPrediction | None = None
        # a batch that may still be computed: number of the scene, prediction, facts
        self._pending: tuple[int, Mapping[str, Tensor], dict[str, Tensor]] | None = None

    def outputs(self, scenes: list[str]) -> list[Path]:
        """Return the class raster of each scene.

        Raises:
            OutputError: If *output* is one file for several scenes, or two scenes
                share a name.
        """
        if len(scenes) == 1 and not self.output.is_dir():
            return [self.output]
        if not self.output.is_dir():
            raise OutputError(
                f'{self.output} is one file for {len(scenes)} scenes, expected an '
                'existing folder.'
            )
        paths = [self.output / f'{Path(scene).stem}.tif' for scene in scenes]
        if len(set(paths)) < len(paths):
            raise OutputError(
                f'Scenes with the same file name would share a mask in {self.output}. '
                'Map them one by one.'
            )
        return paths

    def setup(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str
    ) -> None:
        """Check that every product can be written, before anything is computed.

        Raises:
            OutputError: If a product exists and may not be replaced.
            SettingError: If the data module is not a SceneDataModule, or *merge* does
                not fit the classes of the task.
        """
        source, task = _partners(trainer, pl_module)
        scenes = list(source.scenes)
        for path, scene in zip(self.outputs(scenes), scenes, strict=True):
            check_not_input(path, scene)
            check_output(path, self.overwrite)
            if not _journal_folder(path).is_dir():
                # an interrupted run may have published some products already
                check_companions(path, self.options, self.overwrite)
        self._merging(task)
        # weights are loaded between now and then
        source.on_start(lambda: self._begin(trainer, source, task))

    def _merging(self, task: ScenePredictor) -> Merging:
        """Return the classes of the maps.

        Raises:
            SettingError: If *merge* does not fit the classes of the task.
        """
        return merging(self.options.merge, task.class_names, task.class_colors)

    def _begin(
        self, trainer: pl.Trainer, source: SceneSource, task: ScenePredictor
    ) -> None:
        """Start a run for each scene, and skip the windows that its journal holds."""
        if self.options.picture:
            source.take_thumbnails(rgb_indices(task.bands), PICTURE)
        weights, classes = _weights_hash(task), self._merging(task)
        outputs = self.outputs(list(source.scenes))
        for path, scene, batches in zip(
            outputs, source.predict_datasets, source.batches, strict=True
        ):
            tags = _tags(task, scene, weights)
            if self.options.merge:
                tags['MERGE'] = ','.join(self.options.merge)
            settings = tags | _identity(scene) | {'batch_size': batches.batch_size}
            journal = ScoreJournal(_journal_folder(path), settings, len(scene))
            reason = None
            if trainer.is_global_zero:
                journal.lock()
                reason = journal.start()
            trainer.strategy.barrier('journal')
            journal.reload()
            batches.finished = journal.finished.copy()
            products = Products(
                path,
                self.options,
                classes.names,
                classes.colors,
                scene.grid,
                journal.folder,
                tags,
            )
            alone = trainer.world_size == 1
            self.runs.append(
                SceneRun(scene.plan, journal, products, classes, task.device, alone)
            )
            if trainer.is_global_zero:
                warn_about_resume(journal, reason)
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
        """Stop the threads and drop batches that are still being computed."""
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
        """Compare the first windows of a scene with the training statistics."""
        source, task = _partners(trainer, pl_module)
        run = self.runs[dataloader_idx]
        if self.progress and trainer.is_global_zero:
            run.show_progress(run.products.output.name)
        scene = source.predict_datasets[dataloader_idx]
        complaint = None if batch_idx else _complaint(task, batch, scene)
        if complaint is not None:
            warnings.warn(
                f'{scene.scene}: {complaint}', ReflectanceWarning, stacklevel=2
            )

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record the previous batch, while the model computes this one."""
        source, task = _partners(trainer, pl_module)
        self._record(task)
        if trainer.world_size == 1:
            self._finish(source, dataloader_idx)
        # not the image, which is not used any more
        facts = {key: batch[key] for key in ('index', 'valid')}
        self._pending = dataloader_idx, outputs, facts

    def _record(self, task: ScenePredictor) -> None:
        """Record and blend the pending batch of windows."""
        if self._pending is None:
            return
        number, outputs, batch = self._pending
        self._pending = None
        scores, options = outputs['scores'], task.decoder.options
        if options.rule == 'paint':
            # one-hot scores: the class index holds the same in less space
            scores = scores.argmax(dim=1).to(torch.uint8)
        elif task.refines:
            # one byte per class is enough, as there is one score per pixel
            scores = (FULL * scores).round().to(torch.uint8)
        # no threshold decides where every class may be in a mask
        least = -1.0 if options.presence == 'all' else options.threshold
        nothing = (outputs['probs'] <= least).all(dim=1)
        self.runs[number].take(batch['index'].tolist(), scores, batch['valid'], nothing)

    def _finish(self, source: SceneSource, end: int, missed: int | None = None) -> None:
        """Finish the scenes before *end*, and stop those that are incomplete.

        Args:
            source: The data module.
            end: Number of the first scene that is not finished.
            missed: Windows that were not computed by any process; None: of this one.
        """
        while self._finished < end:
            run = self.runs[self._finished]
            scene = source.predict_datasets[self._finished]
            batches = source.batches[self._finished]
            missing = (
                batches.missing(run.journal.finished) if missed is None else missed
            )
            self._finished += 1
            if missing:
                run.stop_incomplete(missing)
            else:
                run.finish(scene, batches.thumbnail)

    def on_predict_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Finish the last scene; the first of several processes finishes all."""
        source, task = _partners(trainer, pl_module)
        self._record(task)
        self._stop_threads()
        trainer.strategy.barrier('windows')
        for number in range(self._finished, len(self.runs)):
            journal = self.runs[number].journal
            journal.reload()
            own = source.batches[number].missing(journal.finished)
            missed = trainer.strategy.reduce(
                torch.tensor(own, device=task.device), reduce_op='sum'
            )
            if trainer.is_global_zero:
                self._finish(source, number + 1, int(missed))
        trainer.strategy.barrier('products')

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        exception: BaseException,
    ) -> None:
        """Remove temporary files, but keep the journal if the run can resume."""
        self._pending = None
        self._stop_threads()
        mistake = isinstance(exception, CTMError)
        keep = not mistake or isinstance(exception, OutputError)
        if trainer.is_global_zero:
            for run in self.runs[self._finished :]:
                run.abandon(keep)


def _partners(
    trainer: pl.Trainer, module: pl.LightningModule
) -> tuple[SceneSource, ScenePredictor]:
    """Return the data module and the task, checked to serve this callback."""
    datamodule: object = trainer.datamodule  # type: ignore[attr-defined]
    return scene_source(datamodule), scene_predictor(module)


def _complaint(
    task: ScenePredictor, batch: Mapping[str, Tensor], scene: Scene
) -> str | None:
    """Return why a batch does not look like the training data, or None."""
    scaling = task.scaling
    optical = [i for i, band in enumerate(task.bands) if is_reflectance(band)]
    if not isinstance(scaling, BandScaling) or scaling.method == 'per_chip_maximum':
        return None
    if not optical:
        return None
    some = np.s_[..., ::SAMPLED, ::SAMPLED]
    image, valid = batch['image'][some], batch['valid'][some]
    pixels = image.movedim(1, 0)[:, valid].float().cpu().numpy()
    if scene.adaptation is not None:
        pixels = scene.adaptation.undone(pixels)
    return reflectance_complaint(
        pixels[optical] + scaling.offset,
        scaling.mean.flatten()[optical].cpu(),
        scaling.std.flatten()[optical].cpu(),
        [task.bands[index] for index in optical],
    )


def _journal_folder(output: Path) -> Path:
    """Return the folder of an output's journal: hidden, beside it."""
    return output.with_name(f'.{output.name}.part')


def _tags(task: ScenePredictor, scene: Scene, weights: str) -> dict[str, str]:
    """Return the tags that make a run repeatable."""
    facts = task.provenance()
    known = scene.offset is not None
    adapted = scene.adaptation
    return {
        'TORCHGEO_CTM_VERSION': __version__,
        'BANDS': facts.pop('BANDS'),
        'SCALING': facts.pop('SCALING'),
        'OFFSET': f'{scene.offset:g}' if known else 'as in the training data',
        'NODATA': 'from the scene' if scene.nodata is None else f'{scene.nodata:g}',
        **({} if adapted is None else {'ADAPT': adapted.name}),
        **facts,
        'WINDOW': str(scene.window),
        'STRIDE': str(scene.stride),
        'SCENE': Path(scene.scene).name,
        'WEIGHTS_SHA256': weights,
    }


def _identity(scene: Scene) -> dict[str, Any]:
    """Return what distinguishes a scene from another one of the same name."""
    path = Path(scene.scene)
    found: dict[str, Any] = {
        'scene': str(scene.scene),
        'size': [scene.grid.height, scene.grid.width],
    }
    if path.exists():
        stat = path.stat()
        found |= {'bytes': stat.st_size, 'modified': stat.st_mtime_ns}
    return found


def _weights_hash(task: ScenePredictor) -> str:
    """Return the SHA-256 of the weights, whichever file they came from."""
    whole = hashlib.sha256()
    for name, tensor in sorted(task.state_dict().items()):
        numbers = np.ascontiguousarray(tensor.detach().cpu().numpy())
        whole.update(name.encode() + hashlib.sha256(numbers.data).digest())
    return whole.hexdigest()
