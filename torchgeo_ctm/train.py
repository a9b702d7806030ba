"""Train on scenes and labels without a configuration: choose one from the data.

What is chosen is a configuration of ``torchgeo``. Training runs what it names.
"""

import itertools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from numpy.typing import NDArray

from .configuration import build_task, read_data, write_content
from .errors import (
    BandWarning,
    CTMWarning,
    LabelError,
    LabelWarning,
    SceneError,
    SettingError,
    did_you_mean,
    name_key,
)
from .files import check_file, given_paths, staging_folder
from .labels import PointLabels, PolygonLabels, TableLabels, check_overlap
from .labels.detect import COVERAGE, AnyLabels, read_labels
from .legends import usual_colors
from .options import comma_separated
from .prediction import build_trainer, check_choices, running
from .reports.statistics import BandStatistics, measured_scaling
from .samplers.labeled_scene import LabeledScene
from .samplers.splits import SceneSplits
from .scaling import SENTINEL2_BANDS, Resample, band_key
from .scenes.levels import Levels, levels_of, warn_of_levels
from .scenes.pixel_sample import sample_pixels
from .scenes.scene import SceneWindows
from .scenes.sources import band_names, tile_of

#: Sides of windows to choose from, in pixels.
WINDOWS: Final = (64, 48, 32, 24, 16)
#: Windows for labels that no class has enough of, and for polygons smaller than those.
SMALL: Final = (16, 8)
#: Side of a window that a point describes, in pixels: of a larger one it says little.
POINT: Final = 16
#: Labeled windows of each class, side by side, that training or validation should have.
ENOUGH: Final = 5
#: What stands between two classes in one name.
SEVERAL: Final = re.compile(r'[/&+]|\band\b')
#: Shares of training, validation and test, and epochs, if there are that many.
HELD_OUT: Final = (0.8, 0.2, 0.0)
EPOCHS: Final = 10
STEPS: Final = 400
#: Pixels in the windows of a step, about; and their smallest and largest number.
STEP_PIXELS, SMALLEST, LARGEST = 16 * 64**2, 8, 32
#: The network and the learning rate of ``configs/scene_training.yaml``.
NETWORK: Final = {
    'model': 'ctm_vit_tiny_patch8_224',
    'model_options': {'embed_dim': 128, 'depth': 3, 'num_heads': 4, 'stem': 'conv'},
    'lr': 2e-3,
}


#: How warnings of the data begin that the plan has given.
SAID: Final = (
    r'\d+ of \d+ windows',
    'Fewer than',
    'Labels of .* typical',
    '.* is given more than once',
    '.*: dark pixels',
    '.*: values of about',
)


class Plan(NamedTuple):
    """What to train, and why.

    Attributes:
        content: The configuration, as ``torchgeo fit --config`` reads it.
        reasons: One line for each choice.
    """

    content: dict[str, Any]
    reasons: list[str]


def plan(
    scenes: Sequence[str | Path] | str | Path,
    labels: str | Path,
    field: str = 'class',
    *,
    layer: str | None = None,
    crs: str | None = None,
    window: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    accelerator: str = 'auto',
    resample: Resample | None = None,
    scene_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    offset: float | None = None,
) -> Plan:
    """Choose a configuration for scenes and their labels.

    Args:
        scenes: Scenes with the same bands, or one.
        labels: Polygons or points, or a table of scenes.
        field: Attribute or column with the classes.
        layer: Layer of the labels, if their file has several.
        crs: CRS of the labels, if their file has none or a wrong one.
        window: Side of a window in pixels; None: the largest of :data:`WINDOWS` that
            the labels allow.
        steps: Training steps.
        seed: Seed of training, and of what is held out.
        accelerator: Device, as Lightning names it.
        resample: How coarse bands come to the grid of the finest; None: nearest.
        scene_bands: Names of the scenes' bands in file order; None: their own.
        nodata: Value of invalid pixels; None: as the scenes declare them.
        offset: Added to the values to get reflectance × 10,000; None: from the metadata.

    Raises:
        CTMError: If scenes and labels cannot be used, or not together.
    """
    check_choices(accelerator)
    for name, value, least in (('steps', steps, 1), ('seed', seed, 0)):
        if value < least:
            raise SettingError(f'{name}={value}, expected at least {least}.')
    if window is not None and (window < 8 or window % 8):
        raise SettingError(
            f'window={window} px, expected a multiple of 8 from 8 on. Did you mean '
            f'{max(1, round(window / 8)) * 8}?'
        )
    paths = given_paths('scenes', scenes)
    [labels] = given_paths('labels', [labels])
    for scene in {path for path in paths if paths.count(path) > 1}:
        warnings.warn(f'{scene} is given more than once.', LabelWarning, stacklevel=2)
    source, options = read_labels(labels, field, layer, crs)
    kept: dict[str, Any] = {} if resample is None else {'resample': resample}
    names = None if scene_bands is None else comma_separated(scene_bands)
    given = {'scene_bands': names, 'nodata': nodata, 'offset': offset}
    reading = {name: value for name, value in given.items() if value is not None}
    bands = band_names(paths[0]) if names is None else names
    ground = _Ground(paths, bands, source, seed, reading | kept)
    _warn_of_numbers(bands, paths[0])
    window, reason = _choose_window(ground, window)
    held_out = ground.holds_out(window)
    epochs = min(EPOCHS, steps) if held_out else 1
    per_epoch = -(-steps // epochs)
    batch_size = min(LARGEST, max(SMALLEST, STEP_PIXELS // window**2))
    known = {band_key(name) for name in SENTINEL2_BANDS}
    optical = all(band_key(name) in known for name in ground.bands)
    task = NETWORK | {
        'in_channels': len(ground.bands),
        'bands': ground.bands,
        'num_classes': len(source.classes),
        'class_names': [*source.classes],
        'class_colors': usual_colors(source.classes),
        'img_size': window,
        'scaling': ({} if optical else {'clip': None})
        | ground.scaling()
        | kept
        # the network adds it, so that predict does without being told
        | ({} if offset is None else {'offset': offset}),
    }
    data = {
        'scene': paths,
        'labels': _section(f'torchgeo_ctm.labels.{type(source).__name__}', options),
        'batch_size': batch_size,
        'length': batch_size * per_epoch,
        # windows of a step from all over the scenes
        'windows_per_read': 1,
        # ten polygons by hand: one large one must not be most of what is seen
        'draw': 'areas',
        'shares': [*HELD_OUT] if held_out else [1.0, 0.0, 0.0],
        'seed': seed,
    } | reading
    content = {
        'seed_everything': seed,
        'trainer': _trainer(epochs, held_out, accelerator, Path(labels).stem),
        'model': _section('torchgeo_ctm.trainers.ClassTokenMaskingTask', task),
        'data': _section('torchgeo_ctm.datamodules.SceneDataModule', data),
    }
    return Plan(
        content,
        [
            f'labels: {_amounts(source, [tile_of(scene) for scene in paths])}',
            f'window: {window} px, {reason}',
            'held out: a fifth of the ground. The weights with the best masks there '
            '(val_balanced_bce) are kept'
            if held_out
            else 'held out: nothing, because a fifth of the ground would have fewer than '
            f'{ENOUGH} windows of a class. The last weights are kept',
            f'scaling: mean and deviation of {len(ground.bands)} bands in the scenes',
            f'steps: {epochs * per_epoch} of {batch_size} windows',
        ],
    )


class _Ground:
    """Scenes and their labels, in windows of any size."""

    def __init__(
        self,
        scenes: Sequence[str],
        bands: Sequence[str],
        labels: AnyLabels,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        self.options = options
        self.scenes, self.bands, self.labels = scenes, [*bands], labels
        self.seed = seed
        grids = [scene.grid for scene in self._opened(WINDOWS[0])]
        check_overlap(labels, grids, [tile_of(scene) for scene in scenes])
        #: Shorter side of the smallest scene, in pixels.
        self.side = min(min(grid.height, grid.width) for grid in grids)

    def _opened(self, window: int) -> list[SceneWindows]:
        return [
            SceneWindows(scene, self.bands, window, window, **self.options)
            for scene in self.scenes
        ]

    def counts(
        self, window: int, shares: Sequence[float] = (1, 0, 0), split: Any = 'train'
    ) -> NDArray[np.int64]:
        """Return how many windows side by side show each class, and have no unknown."""
        none = np.zeros(len(self.labels.classes), np.int64)
        scenes = [LabeledScene(scene, self.labels) for scene in self._opened(window)]
        with warnings.catch_warnings():
            # of windows that may not be chosen
            warnings.simplefilter('ignore', LabelWarning)
            try:
                splits = SceneSplits(scenes, None, shares, self.seed)
            except (LabelError, SettingError):
                return none
        labels = [label for *_, label in splits.windows(split).windows]
        # what is unknown of a tag stays so in windows of any size
        tags = isinstance(self.labels, PolygonLabels) and self.labels.whole
        present = [label.present for label in labels if tags or label.known.all()]
        return none + np.sum(present, axis=0, dtype=np.int64)

    def holds_out(self, window: int) -> bool:
        """Return whether a held-out part has enough windows of each class."""
        return bool((self.counts(window, HELD_OUT, 'val') >= ENOUGH).all())

    def scaling(self) -> dict[str, Any]:
        """Return mean, deviation and percentiles of the bands in all scenes."""
        statistics = BandStatistics(len(self.bands))
        levels: list[Levels] = []
        for scene in self._opened(WINDOWS[0]):
            pixels = sample_pixels(scene)
            statistics.update(pixels)
            if pixels.shape[1]:
                levels.append(levels_of(scene.scene, pixels, self.bands))
        warn_of_levels(levels)
        if not statistics.count.all():
            raise SceneError(f'{self.scenes[0]} has no valid pixel to measure.')
        return measured_scaling(statistics)


def _choose_window(ground: _Ground, window: int | None) -> tuple[int, str]:
    """Return the side of a window in pixels, and why.

    Raises:
        LabelError: If no window shows one of the classes.
    """
    labels = ground.labels
    reason = f'the largest of which {ENOUGH}, side by side, show each class'
    sizes, small = ([*WINDOWS], [*SMALL]) if window is None else ([], [window])
    needed = np.full(len(labels.classes), ENOUGH)
    lacking = (
        f'expected labels that cover {COVERAGE:.0%} of one, where the scenes have data. '
        'Label larger areas, or smaller ones elsewhere.'
    )
    if isinstance(labels, TableLabels):
        reason = 'as large as the scenes, whose labels describe all of them'
        lacking = 'which the table names for other scenes only.'
        sizes, small = [], [window or max(8, min(ground.side, 256) // 8 * 8)]
    if isinstance(labels, PointLabels):
        reason = 'the ground around a point that has its class'
        lacking = 'expected points of it where the scenes have data.'
        sizes, small = [], [window or POINT]
    if isinstance(labels, PolygonLabels) and labels.whole:
        reason = 'the largest that half of the polygons of each class cover'
        needed = np.ceil(labels.members.sum(axis=0) / 2)
    for size in sizes:
        if (ground.counts(size) >= needed).all():
            return size, reason
    if len(small) > 1:
        reason = 'small, because some classes have little ground'
    for size in small:
        counts = ground.counts(size)
        if counts.all():
            return size, reason if window is None else 'as given'
    missing = [n for n, c in zip(labels.classes, counts, strict=True) if not c]
    if window is not None and window > ground.side:
        lacking = (
            f'which is larger than a scene of {ground.side} px. Use smaller windows.'
        )
    raise LabelError(f'No window of {size} px shows {", ".join(missing)}, {lacking}')


def _amounts(labels: AnyLabels, tiles: Sequence[str]) -> str:
    """Return how many labels each class has, and warn about classes with one."""
    _warn_of_spelling(labels)
    if isinstance(labels, TableLabels):
        known = len(labels) - len(labels.lost(tiles))
        return f'{known} scenes, {", ".join(labels.classes)}'
    counts = labels.members.sum(axis=0).tolist()
    kind = 'polygon' if isinstance(labels, PolygonLabels) else 'point'
    few = [n for n, c in zip(labels.classes, counts, strict=True) if c < 2]
    if few:
        others = [name for name in labels.classes if name not in few]
        hint = did_you_mean(few[0], others)
        warnings.warn(
            f'{labels.path} has one {kind} of {", ".join(few)}, which cannot show how '
            f'the class varies. Draw another elsewhere.{hint}',
            LabelWarning,
            stacklevel=3,
        )
    named = zip(labels.classes, counts, strict=True)
    listed = ', '.join(
        f'{name}{":" if name[-1].isdigit() else ""} {count}' for name, count in named
    )
    return f'{len(labels)} {kind}s ({listed})'


def _warn_of_numbers(bands: Sequence[str], scene: str) -> None:
    """Warn of bands without names, which a scene may have in another order."""
    if all(re.fullmatch(r'(band )?\d+', name) for name in bands):
        warnings.warn(
            f'{scene} has no band names. The model can map scenes with their bands in the '
            'same order only. Pass scene_bands= to name them.',
            BandWarning,
            stacklevel=3,
        )


def _warn_of_spelling(labels: AnyLabels) -> None:
    """Warn of classes that may be one, or several, by their names."""
    names = {name_key(name): name for name in labels.classes}
    # numbers that follow each other are no other spelling
    single = [n for n in names if re.search('[^\\W\\d]', n) and not SEVERAL.search(n)]
    for one, other in itertools.combinations(single, 2):
        if one == f'{other}s' or other == f'{one}s' or did_you_mean(one, [other]):
            warnings.warn(
                f'{labels.path} has the classes {names[one]!r} and {names[other]!r}. '
                'Write one name if they are one class.',
                LabelWarning,
                stacklevel=4,
            )
    for key, name in names.items():
        parts = [part.strip() for part in SEVERAL.split(key)]
        if len(parts) > 1 and all(part in names for part in parts):
            warnings.warn(
                f'{labels.path} has a class {name!r} beside its parts. Separate classes '
                'with a semicolon if both are there.',
                LabelWarning,
                stacklevel=4,
            )


def _section(class_path: str, init_args: dict[str, Any]) -> dict[str, Any]:
    """Return a section of a configuration."""
    return {'class_path': class_path, 'init_args': init_args}


def _trainer(
    epochs: int, held_out: bool, accelerator: str, name: str
) -> dict[str, Any]:
    """Return the trainer's section of a configuration."""
    best = {'monitor': 'val_balanced_bce', 'mode': 'min'} if held_out else {}
    return {
        'max_epochs': epochs,
        'limit_val_batches': 1.0 if held_out else 0,
        'accelerator': accelerator,
        'devices': 1,
        'logger': _section(
            'lightning.pytorch.loggers.TensorBoardLogger',
            {'save_dir': 'output', 'name': name},
        ),
        'callbacks': [_section('lightning.pytorch.callbacks.ModelCheckpoint', best)],
    }


def train(
    content: dict[str, Any] | Plan,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, float]:
    """Train what a configuration of :func:`plan` names, and write a checkpoint.

    Args:
        content: The configuration, or the plan with it.
        output: Checkpoint to write (.ckpt).
        overwrite: Replace an existing file.
        progress: Show a progress bar.

    Returns:
        What was logged last.

    Raises:
        CTMError: If training is impossible. No file is written then.
    """
    content = content.content if isinstance(content, Plan) else content
    if missing := {'seed_everything', 'trainer', 'model', 'data'} - {*content}:
        raise SettingError(
            f'The configuration has no {", ".join(sorted(missing))}, expected one of '
            'plan.'
        )
    output, options = Path(output), content['trainer']
    check_file(output, overwrite)
    callbacks = [TQDMProgressBar(refresh_rate=10)] if progress else []
    with staging_folder(output) as folder:
        config = folder / 'model.yaml'
        write_content(content, config)
        pl.seed_everything(content['seed_everything'], workers=True, verbose=False)
        task, data = build_task(config), read_data(config)
        kept = ModelCheckpoint(
            # Lightning warns about a folder with files
            folder / 'checkpoints',
            save_weights_only=True,
            **options['callbacks'][0]['init_args'],
        )
        trainer = build_trainer(
            options['accelerator'],
            max_epochs=options['max_epochs'],
            limit_val_batches=options['limit_val_batches'],
            callbacks=[kept, *callbacks],
            enable_progress_bar=progress,
            enable_checkpointing=True,
        )
        with running(trainer), warnings.catch_warnings():
            # what the plan has said in fewer words
            for said in SAID:
                warnings.filterwarnings('ignore', said, CTMWarning)
            trainer.fit(task, datamodule=data)
        Path(kept.best_model_path).replace(output)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
