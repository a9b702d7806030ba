"""Choose between settings of the task without masks, by image-level labels alone.

Each setting trains for a few steps and is scored by ``val_balanced_bce``, the balanced
cross-entropy of held-out labels. It ranks masks without any mask.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from .configuration import build_task, read_data, read_yaml
from .errors import CTMError, DataError, LabelWarning, SettingError, UntrainedWarning
from .prediction import build_trainer, running
from .reports.choice import ALWAYS_PRESENT, FEW, FEW_LABELS, Choice
from .trainers import ClassTokenMaskingTask
from .trainers.held_out import Blocks, HeldOut, LabelLosses
from .trainers.options import with_setting

#: Arguments of the task, as in a configuration: groups of options are mappings.
Setting = Mapping[str, Any]

#: Training steps of each setting.
STEPS: Final = 200


def pooled(
    share: float, balance: float = 0.0, compete: bool = False, warmup: float = 0.0
) -> Setting:
    """Return a setting of :class:`~torchgeo_ctm.trainers.PatchOptions`."""
    options = {'share': share, 'balance': balance, 'compete': compete}
    if warmup:
        options['pooling_warmup'] = warmup
    return {'patches': {'pooling': 'share', **options}}


#: The settings that were best on one or another kind of labels on real ground.
SETTINGS: Final[dict[str, Setting]] = {
    'recommended': pooled(0.25, balance=0.5),
    FEW_LABELS: pooled(0.25, balance=1.0, compete=True),
    'incomplete labels': pooled(0.5, balance=0.5),
    ALWAYS_PRESENT: pooled(0.1, compete=True, warmup=0.3),
}


def hold_out(
    task: ClassTokenMaskingTask, data: pl.LightningDataModule, accelerator: str
) -> HeldOut:
    """Return the losses of a task on the validation split.

    Args:
        task: The task.
        data: Its data module.
        accelerator: Device, as Lightning names it.

    Raises:
        DataError: If the split has no chip.
    """
    blocks = Blocks()
    min_share = task.options.labels.min_share
    metric = LabelLosses(len(task.class_names), min_share)
    task.split_metrics['val'].balanced_bce = metric
    trainer = build_trainer(accelerator, callbacks=[blocks], enable_progress_bar=False)
    with running(trainer), warnings.catch_warnings():
        # labels are counted before there is a trained network
        warnings.simplefilter('ignore', UntrainedWarning)
        trainer.validate(task, datamodule=data, verbose=False)
    if not metric.kept:
        raise DataError(
            'The validation split has no chip, but settings are compared there. Hold '
            'labels out: for scenes by --data.shares [0.6,0.2,0.2].'
        )
    return HeldOut.of(metric, blocks)


def train(
    task: ClassTokenMaskingTask,
    data: pl.LightningDataModule,
    steps: int,
    accelerator: str,
    on_step: Callable[[], object],
) -> Tensor:
    """Train a task for some steps, without validation.

    Args:
        task: The task.
        data: Its data module.
        steps: Number of steps.
        accelerator: Device, as Lightning names it.
        on_step: Called after each step.

    Returns:
        Number of training labels that say a class is absent, (C,).
    """
    seen: list[Tensor] = []

    class Steps(Callback):
        def on_train_batch_start(
            self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
        ) -> None:
            # stays on the device: its sum is read once
            seen.append((pl_module.presence(batch) == 0).sum(dim=0))

        def on_train_batch_end(self, *arguments: Any, **options: Any) -> None:
            on_step()

    trainer = build_trainer(
        accelerator,
        max_steps=steps,
        limit_val_batches=0,
        callbacks=[Steps()],
        enable_progress_bar=False,
    )
    with running(trainer):
        trainer.fit(task, datamodule=data)
    none = torch.zeros(len(task.class_names))
    return torch.stack(seen).sum(dim=0).cpu() if seen else none


def choose(
    build_task: Callable[[Setting], ClassTokenMaskingTask],
    build_data: Callable[[int], pl.LightningDataModule],
    settings: Mapping[str, Setting] = SETTINGS,
    *,
    seeds: Sequence[int] = (0,),
    steps: int = STEPS,
    accelerator: str = 'auto',
    progress: bool = True,
    on_trained: Callable[[str, int, ClassTokenMaskingTask], object] | None = None,
) -> Choice:
    """Train with each setting and compare them by held-out labels.

    The networks of a seed see the same chips. The learning rate falls to 0 over *steps*,
    whatever schedule the setting has.

    Args:
        build_task: Returns an untrained task with a setting, see :func:`with_setting`.
        build_data: Returns the data module for a seed; settings are compared on its
            validation split. If the seed decides that split, too, several seeds hold
            out more labels.
        settings: The settings by name.
        seeds: Seeds of weights and chips; each trains every setting once.
        steps: Training steps of each network.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        progress: Show a progress bar.
        on_trained: Called with setting, seed and trained task.

    Raises:
        CTMError: If a setting or the data cannot be used.
    """
    _check(settings, seeds, steps)
    built = [_built(build_task, name, settings[name]) for name in settings]
    class_names = built[0].class_names
    _check_labels(hold_out(built[0], build_data(seeds[0]), accelerator), class_names)
    found: dict[str, list[HeldOut]] = {name: [] for name in settings}
    total = len(seeds) * len(settings) * steps
    with tqdm(total=total, unit='step', disable=not progress) as bar:
        for seed in seeds:
            for name, setting in settings.items():
                bar.set_description(f'{name}, seed {seed}')
                pl.seed_everything(seed, verbose=False)
                task, data = _built(build_task, name, setting), build_data(seed)
                absences = train(task, data, steps, accelerator, bar.update)
                result = hold_out(task, data, accelerator)
                found[name].append(result._replace(absences=absences))
                if on_trained is not None:
                    on_trained(name, seed, task)
    return Choice(settings, seeds, found, class_names)


def choose_setting(
    config: str | Path,
    settings: str | Path | None = None,
    *,
    seeds: Sequence[int] = (0,),
    steps: int = STEPS,
    accelerator: str = 'auto',
    progress: bool = True,
) -> Choice:
    """Choose a setting for a configuration of ``torchgeo``.

    Args:
        config: The configuration (.yaml).
        settings: The settings (.yaml); None: :data:`SETTINGS`.
        seeds: See :func:`choose`, as for the others.
        steps: Training steps of each network.
        accelerator: Device, as Lightning names it.
        progress: Show a progress bar.

    Raises:
        CTMError: If configuration, settings or data cannot be used.
    """
    build_task(config)  # an error in it is not one of the settings
    return choose(
        partial(build_task, config),
        partial(read_data, config),
        SETTINGS if settings is None else read_settings(settings),
        seeds=seeds,
        steps=steps,
        accelerator=accelerator,
        progress=progress,
    )


def read_settings(path: str | Path) -> dict[str, Setting]:
    """Read settings: a mapping of names to arguments of the task.

    Raises:
        DataError: If the file is anything else.
    """
    content = read_yaml(path, 'a file of settings')
    if not isinstance(content, dict):
        raise DataError(
            f'{path} is no mapping, expected a name and arguments of the task for each '
            "setting, as in 'wide: {patches: {share: 0.5}}'."
        )
    for name, setting in content.items():
        if not isinstance(setting, dict | None):
            raise DataError(
                f'Setting {str(name)!r} of {path} is {setting!r}, expected arguments of '
                "the task, as in '{patches: {share: 0.5}}'."
            )
    return {str(name): setting or {} for name, setting in content.items()}


def _check(settings: Mapping[str, Setting], seeds: Sequence[int], steps: int) -> None:
    """Check that there is something to compare."""
    if len(settings) < 2:
        raise SettingError(
            f'Expected 2 settings or more to choose from, got {len(settings)}.'
        )
    if not seeds or min(seeds) < 0 or len({*seeds}) < len(seeds):
        raise SettingError(
            f'seeds must be different integers of 0 or more, got {list(seeds)}.'
        )
    if steps < 1:
        raise SettingError(f'steps must be 1 or more, got {steps}.')


def _built(
    build_task: Callable[[Setting], ClassTokenMaskingTask], name: str, setting: Setting
) -> ClassTokenMaskingTask:
    """Return the task of a setting, trained to the end of a cosine schedule."""
    try:
        return build_task(
            with_setting(setting, {'optimization': {'schedule': 'cosine'}})
        )
    except (CTMError, TypeError) as error:
        raise SettingError(f'Setting {name!r}: {error}') from error


def _check_labels(held_out: HeldOut, class_names: Sequence[str]) -> None:
    """Warn about classes that held-out labels hardly tell apart."""
    presences = held_out.counts[:, 0].sum(0).long().tolist()
    few = [
        f'{name} ({count})'
        for name, count in zip(class_names, presences, strict=True)
        if count < FEW
    ]
    if few:
        warnings.warn(
            f'Fewer than {FEW} presences among {held_out.chips} held-out labels: '
            f'{", ".join(few)}. Masks of these classes hardly count in the choice.',
            LabelWarning,
            stacklevel=3,
        )
