"""Predict every window of scenes, and write their products.

``torchgeo-ctm predict`` and :func:`~torchgeo_ctm.prediction.predict_scene` run it alone,
Lightning runs it through :class:`~torchgeo_ctm.inference.writer.PseudoMaskWriter`. So
either resumes what the other has begun, and writes the same bytes.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import (
    BandWarning,
    CheckpointError,
    CTMError,
    OutputError,
    ReadError,
    ReflectanceWarning,
    SettingError,
)
from ..files import check_not_input, check_not_read, check_space
from ..grids import IGNORED
from ..reflectance import band_doubts, scaling_complaint
from ..scaling import rgb_indices
from ..scenes.batches import SceneBatches
from ..scenes.inputs import check_unchanged
from ..scenes.items import scene_stem
from ..scenes.scene import SceneWindows
from ..version import __version__
from .journal import ScoreJournal
from .memory import check_memory, estimate, required_disk
from .merging import Merging, merging
from .options import ProductOptions
from .paths import product_paths
from .products import Products, check_georeference, check_products
from .protocols import ScenePredictor
from .scene_run import FULL, SceneRun, warn_about_resume
from .threads import Result, threads_for

#: Longest side of the quick look's scene, in pixels.
PICTURE = 768
#: Step between the rows and columns of the first windows that are checked.
SAMPLED = 4
#: Hyperparameters that scores depend on, and that tags and weights do not show.
ARCHITECTURE = (
    'model',
    'backbone',
    'model_options',
    'img_size',
    'task',
    'maps',
    'patches',
    'attention',
)


@dataclass(frozen=True)
class Processes:
    """The processes that share scenes: this one's number, and how they meet.

    Attributes:
        number: Number of this process; the first one writes the products.
        count: Number of processes.
        barrier: Waits for all processes at a named place.
        total: Returns the sum of an integer over all processes.
    """

    number: int = 0
    count: int = 1
    barrier: Callable[[str], None] = lambda name: None
    total: Callable[[int], int] = lambda own: own


@dataclass(frozen=True)
class _Pending:
    """A batch that may still be computed: its scene's number, result and facts."""

    scene: int
    result: Result
    index: Tensor
    valid: Tensor


class SceneLoop:
    """Predict the windows of scenes, blend them, and write masks and products.

    The class of a pixel is decided once, from the scores of all windows over it. Of
    several processes, the first one assembles the products. Windows that the journal of
    an interrupted run holds are not predicted again.
    """

    def __init__(
        self,
        output: str | Path,
        overwrite: bool,
        options: ProductOptions,
        progress: bool = False,
    ) -> None:
        """Create the loop.

        Args:
            output: Class raster to write, ``MASK.tif``; for several scenes a folder.
            overwrite: Replace existing products.
            options: Products to write.
            progress: Show a progress bar with pixels per second.
        """
        self.output = Path(output)
        self.overwrite = overwrite
        self.options = options
        self.progress = progress
        self.processes = Processes()
        #: Products of the scenes that are complete.
        self.written: list[Path] = []
        #: Runs of the scenes that have begun and are not finished, by number.
        self._runs: dict[int, SceneRun] = {}
        self._batches: Sequence[SceneBatches] = ()
        self._settings: dict[str, Any] = {}
        #: Files of the scenes that have begun, as they were then.
        self._files: dict[int, dict[str, list[int]]] = {}
        self._weights = ''
        self._finished = 0
        self._pending: _Pending | None = None

    def outputs(self, scenes: Sequence[str]) -> list[Path]:
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
        paths = [self.output / f'{scene_stem(scene)}.tif' for scene in scenes]
        if len(set(paths)) < len(paths):
            raise OutputError(
                f'Scenes with the same file name would share a mask in {self.output}. '
                'Map them one by one.'
            )
        return paths

    def check(self, task: ScenePredictor, batches: Sequence[SceneBatches]) -> None:
        """Check that every product can be written, before anything is computed.

        Args:
            task: The task.
            batches: The batches of each scene.

        Raises:
            GridError: If a product requires a location on Earth, and a scene has none.
            OutputError: If a product exists and may not be replaced.
            SettingError: If the task has too many classes, or *merge* does not fit them.
        """
        classes = len(task.class_names)
        if classes > IGNORED:
            raise SettingError(
                f'A mask holds at most {IGNORED} classes, but the network has {classes}.'
            )
        inputs: list[Path] = []
        scenes = [each.scene for each in batches]
        outputs = self.outputs([str(scene.scene) for scene in scenes])
        for path, scene in zip(outputs, scenes, strict=True):
            check_not_input(path, scene.scene)
            check_products(path, self.options, self.overwrite, _journal_folder(path))
            check_georeference(scene.scene, scene.grid, self.options)
            inputs += scene.input_files()
        check_not_read([p for path in outputs for p in self._written(path)], inputs)
        self._merging(task)

    def _written(self, output: Path) -> list[Path]:
        """Return the files that a run writes, sidecars included."""
        paths = list(product_paths(output, self.options).values())
        return paths + [path.with_name(f'{path.name}.aux.xml') for path in paths]

    def _merging(self, task: ScenePredictor) -> Merging:
        """Return the classes of the maps."""
        return merging(self.options.merge, task.class_names, task.class_colors)

    def begin(
        self,
        task: ScenePredictor,
        batches: Sequence[SceneBatches],
        precision: str = '32-true',
        processes: Processes = Processes(),
    ) -> None:
        """Start the run of the first scene; others start when they are read.

        A run holds files open, of which a process has about 1,000.

        Args:
            task: The task with its weights, before it removes pruned heads.
            batches: The batches of each scene.
            precision: Precision of the model, as Lightning names it.
            processes: The processes that share the scenes.
        """
        self.processes, self._batches = processes, batches
        self._runs, self._finished, self._pending = {}, 0, None
        self.written = []
        self._weights, self._settings = (
            weights_hash(task),
            _conditions(task, precision),
        )
        if self.options.picture:
            for each in batches:
                each.take_thumbnail(rgb_indices(task.bands), PICTURE)
        # processes wait for each other when they open a scene, so they do so now
        for number in range(1 if processes.count == 1 else len(batches)):
            self._open(task, number)

    def _open(self, task: ScenePredictor, number: int) -> None:
        """Start the run of a scene, and skip the windows that its journal holds."""
        if number in self._runs:
            return
        batches, first = self._batches[number], not self.processes.number
        scene = batches.scene
        path = self.outputs([str(each.scene.scene) for each in self._batches])[number]
        check_memory(scene, task, batches.batch_size)
        tags = map_tags(task, scene, self._weights, self.options)
        classes = self._merging(task)
        facts = scene.fingerprint()
        self._files[number] = facts['files']
        settings = tags | facts | self._settings
        if scene.area is not None:
            settings['area'] = scene.area.identity
        settings['batch_size'] = batches.batch_size
        journal = ScoreJournal(_journal_folder(path), settings, len(scene))
        reason = None
        if first:
            journal.lock()
            reason = journal.start()
        self.processes.barrier('journal')
        journal.reload()
        batches.finished = journal.finished.copy()
        products = Products(
            path,
            self.options,
            classes.names,
            classes.colors,
            scene.extent,
            journal.folder,
            tags,
        )
        alone = self.processes.count == 1
        # before anything is written, so that abandon() removes it
        run = SceneRun(
            scene.plan, journal, products, classes, task.device, alone, scene.area
        )
        self._runs[number] = run
        if first:
            warn_about_resume(journal, reason)
            left = float((journal.finished == 0)[scene.wanted].mean())
            check_space(path.parent, left * required_disk(scene, task))
            products.open()
            if self.progress:
                line = estimate(scene, task, batches.batch_size)
                tqdm.write(line, file=sys.stderr)

    def run(
        self,
        task: ScenePredictor,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        convert: Callable[[Any], Any] = lambda batch: batch,
        limits: Sequence[int] | None = None,
    ) -> None:
        """Predict every window that the journals do not hold, and write the products.

        Runs in the caller's mode, which is without gradients.

        Args:
            task: The task of :meth:`begin`.
            context: Returns the context in which the task predicts a batch.
            convert: Changes the types of a batch for the task.
            limits: Number of batches of each scene that are predicted at most. A scene
                that is not complete then has no products.
        """
        threads = threads_for(task)

        def step(batch: Mapping[str, Any]) -> dict[str, Tensor]:
            found: dict[str, Tensor] = task.predict_step(batch, 0)
            return found

        try:
            for number, batches in enumerate(self._batches):
                self._open(task, number)
                limit = None if limits is None else limits[number]
                for position, batch in enumerate(islice(batches, limit)):
                    here = {k: value.to(task.device) for k, value in batch.items()}
                    here = convert(here)
                    self._begin_batch(task, number, here, first=not position)
                    with context():
                        result = threads.submit(step, here)
                    # while the model computes this batch, record the one before
                    self._record(task)
                    if self.processes.count == 1:
                        self._finish(number)
                    self._pending = _Pending(
                        number, result, here['index'], here['valid']
                    )
                    del here, batch
            self._record(task)
        finally:
            threads.close()
        self.processes.barrier('windows')
        for number in range(self._finished, len(self._batches)):
            journal = self._runs[number].journal
            journal.reload()
            own = self._batches[number].missing(journal.finished)
            missed = self.processes.total(own)
            if not self.processes.number:
                self._finish(number + 1, missed)
        self.processes.barrier('products')

    def _begin_batch(
        self,
        task: ScenePredictor,
        number: int,
        batch: Mapping[str, Tensor],
        first: bool,
    ) -> None:
        """Show progress, and compare a scene's first windows with the training data."""
        run = self._runs[number]
        if self.progress and not self.processes.number:
            run.show_progress(run.products.output.name)
        scene = self._batches[number].scene
        if first:
            run.doubted = _compare(task, batch, scene)

    def _record(self, task: ScenePredictor) -> None:
        """Record and blend the pending batch of windows."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        outputs, options = pending.result(), task.decoder.options
        scores = outputs['scores']
        if not scores.isfinite().all():
            raise CheckpointError(
                'Scores are not finite: the weights of the checkpoint are broken, as '
                'after a training that diverged, or too large for the precision.'
            )
        if options.rule == 'paint':
            # one-hot scores: the class index holds the same in less space
            scores = scores.argmax(dim=1).to(torch.uint8)
        elif task.refines:
            # one byte per class is enough, as there is one score per pixel
            scores = (FULL * scores).round().to(torch.uint8)
        nothing = (outputs['probs'] <= task.decoder.threshold).all(dim=1)
        numbers = pending.index.tolist()
        self._runs[pending.scene].take(numbers, scores, pending.valid, nothing)

    def _finish(self, end: int, missed: int | None = None) -> None:
        """Finish the scenes before *end*, and stop those that are incomplete.

        Args:
            end: Number of the first scene that is not finished.
            missed: Windows that were not computed by any process; None: of this one.
        """
        while self._finished < end:
            run, batches = self._runs[self._finished], self._batches[self._finished]
            missing = missed
            if missing is None:
                missing = batches.missing(run.journal.finished)
            if missing:
                run.stop_incomplete(missing)
            else:
                check_unchanged(self._files[self._finished], batches.scene.scene)
                run.finish(batches.scene, batches.thumbnail, self.overwrite)
                output = run.products.output
                self.written += product_paths(output, self.options).values()
            # not before, so that abandon() finds a run that failed to finish
            del self._runs[self._finished]
            self._finished += 1
            batches.thumbnail = None

    def abandon(self, error: BaseException) -> bool:
        """Remove temporary files, but keep the journal if the run can resume.

        Args:
            error: Why the loop has ended.

        Returns:
            Whether the run can resume.
        """
        self._pending = None
        mistake = isinstance(error, CTMError)
        keep = not mistake or isinstance(error, OutputError | ReadError)
        if not self.processes.number:
            for run in self._runs.values():
                run.abandon(keep)
        self._runs = {}
        return keep


def _compare(
    task: ScenePredictor, batch: Mapping[str, Tensor], scene: SceneWindows
) -> bool:
    """Warn if a batch does not look like the training data, and return whether."""
    some = np.s_[..., ::SAMPLED, ::SAMPLED]
    image, valid = batch['image'][some], batch['valid'][some]
    pixels = image.movedim(1, 0)[:, valid].float().cpu().numpy()
    if scene.adaptation is not None:
        pixels = scene.adaptation.undone(pixels)
    for value in scene.fills:
        # a warning has told them already
        filled = (value * scene.factors + scene.shifts).reshape(-1, 1)
        pixels = pixels[:, ~np.isclose(pixels, filled).all(axis=0)]
    eight_bits = scene.dtype.itemsize == 1 and bool((scene.factors == 1).all())
    complaint = scaling_complaint(
        pixels, task.bands, task.scaling, eight_bits, scene.offset
    )
    if complaint is not None:
        warnings.warn(f'{scene.scene}: {complaint}', ReflectanceWarning, stacklevel=4)
        return True
    doubts = band_doubts(pixels, task.bands, scene.named)
    for doubt in doubts:
        warnings.warn(f'{scene.scene}: {doubt}', BandWarning, stacklevel=4)
    return bool(doubts)


def _journal_folder(output: Path) -> Path:
    """Return the folder of an output's journal: hidden, beside it."""
    return output.with_name(f'.{output.name}.part')


def map_tags(
    task: ScenePredictor, scene: SceneWindows, weights: str, options: ProductOptions
) -> dict[str, str]:
    """Return the tags that make a run repeatable.

    Args:
        task: The task.
        scene: The scene.
        weights: Its :func:`weights_hash`.
        options: Products to write.
    """
    facts = task.provenance()
    known = scene.offset is not None
    adapted, resample = scene.adaptation, scene.source.resample
    return {
        'TORCHGEO_CTM_VERSION': __version__,
        'BANDS': facts.pop('BANDS'),
        'SCALING': facts.pop('SCALING'),
        'OFFSET': f'{scene.offset:g}' if known else 'as in the training data',
        'NODATA': 'from the scene' if scene.nodata is None else f'{scene.nodata:g}',
        **({} if adapted is None else {'ADAPT': adapted.name}),
        **({} if resample == 'nearest' else {'RESAMPLE': resample}),
        **({} if scene.clouds is None else {'CLOUDS': scene.clouds.tag}),
        **({} if scene.area is None else {'AREA': scene.area.name}),
        **({'MERGE': ','.join(options.merge)} if options.merge else {}),
        **facts,
        'WINDOW': str(scene.window),
        'STRIDE': str(scene.stride),
        'SCENE': Path(scene.scene).name,
        'WEIGHTS_SHA256': weights,
    }


def _conditions(task: ScenePredictor, precision: str) -> dict[str, Any]:
    """Return what scores depend on beside the scene, the weights and the windows."""
    hparams: Any = getattr(task, 'hparams', {})
    options = {key: hparams[key] for key in ARCHITECTURE if key in hparams}
    network = f'{task.model!r} {json.dumps(options, sort_keys=True, default=repr)}'
    return {
        'device': task.device.type,
        'precision': f'{precision} {torch.get_float32_matmul_precision()}',
        'PyTorch': torch.__version__,
        'architecture': hashlib.sha256(network.encode()).hexdigest(),
    }


def weights_hash(task: ScenePredictor) -> str:
    """Return the SHA-256 of the weights, whichever file they came from."""
    whole = hashlib.sha256()
    for name, tensor in sorted(task.state_dict().items()):
        numbers = np.ascontiguousarray(tensor.detach().cpu().numpy())
        whole.update(name.encode() + hashlib.sha256(numbers.data).digest())
    return whole.hexdigest()
