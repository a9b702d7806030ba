"""A page for each class that a configuration names, with all its keys."""

import inspect
from collections.abc import Iterable, Mapping, Sequence

from torchgeo_ctm import datamodules, labels, scaling, trainers
from torchgeo_ctm.inference.options import ProductOptions
from torchgeo_ctm.inference.writer import PseudoMaskWriter
from torchgeo_ctm.maps import refine
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.trainers.options import GROUPS, PruningOptions
from torchgeo_ctm.trainers.self_training import SelfTrainingOptions

from .files import title
from .keys import Key, keys_of, keys_of_function, keys_of_options

#: What the data module gives its data set; a configuration cannot.
GIVEN = ('split', 'transforms')
#: What the task gives its network.
FROM_TASK = ('img_size', 'in_chans', 'num_classes', 'patch_head')
#: Callbacks that a configuration names.
CALLBACKS: dict[str, type] = {'PseudoMaskWriter': PseudoMaskWriter}
#: Options that a class takes as keyword arguments.
KEYWORD_GROUPS: dict[type, type] = {PseudoMaskWriter: ProductOptions}

INTRODUCTION = """
Every key of the configurations that ``torchgeo`` and ``torchgeo-ctm`` read, made from the
signatures and docstrings of the classes they name. Keys of ``trainer`` are `Lightning's
<https://lightning.ai/docs/pytorch/stable/common/trainer.html>`_.

.. code-block:: yaml

   seed_everything: 0
   trainer: {max_epochs: 60}                      # Lightning's Trainer
   model:
     class_path: torchgeo_ctm.trainers.ClassTokenMaskingTask
     init_args: {img_size: 224}                   # keys of the class
   data:
     class_path: torchgeo_ctm.datamodules.DFC2020DataModule
     init_args: {batch_size: 64, img_size: 224}   # keys of the data module
     dict_kwargs: {root: data/dfc2020}            # keys of its data set

On the command line the same key is ``--model.init_args.img_size 224``. If a key is given
twice, the last value is used. ``torchgeo fit --config FILE --print_config`` prints the
configuration as it was read.
"""


def yaml_pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    named = {cls.__name__: cls for cls in configured_classes()}
    pages = {f'{name}.rst': _page(cls) for name, cls in named.items()}
    groups = {
        'model': trainers,
        'data': datamodules,
        'labels, below data of scenes': labels,
        'trainer.callbacks': None,
    }
    parts = [title('Keys of a configuration'), INTRODUCTION]
    for section, room in groups.items():
        parts += [title(section, '-'), '.. toctree::', '   :maxdepth: 1', '']
        own = [n for n in named if (hasattr(room, n) if room else n in CALLBACKS)]
        parts += [*(f'   {name}' for name in own), '']
    pages['index.rst'] = '\n'.join(parts)
    return pages


def configured_classes() -> list[type]:
    """Return the classes that have a page: the task, data, labels and the writer.

    Of a room, those that a configuration can build: not a data module that wraps
    another one.
    """
    found = [
        thing
        for room, kind in (
            (trainers, 'Task'),
            (datamodules, 'DataModule'),
            (labels, 'Labels'),
        )
        for name in room.__all__
        if inspect.isclass(thing := getattr(room, name)) and name.endswith(kind)
    ]
    found.remove(datamodules.ChipDataModule)
    return [*found, *CALLBACKS.values()]


def sections_of(cls: type) -> dict[str, tuple[str, list[Key]]]:
    """Return the sections of a class: where its keys stand, their owner and the keys."""
    own = keys_of(cls, group=KEYWORD_GROUPS.get(cls))
    sections = {'init_args': (cls.__name__, own)}
    tiles = getattr(cls, 'dataset_class', None)
    if tiles is not None:
        taken = (*GIVEN, *(key.name for key in own))
        sections['dict_kwargs'] = (tiles.__name__, keys_of(tiles, taken))
    if cls is trainers.ClassTokenMaskingTask:
        sections |= _options_of_the_task()
    return sections


def _options_of_the_task() -> dict[str, tuple[str, list[Key]]]:
    """Return the keys below ``scaling``, ``maps`` and the like."""
    scales = _by_name(keys_of(scaling.BandScaling))
    refines = list(refine.RefinementOptions.__annotations__)
    refined = _by_name(keys_of_function(refine.soft_assignment, refines))
    groups = {
        f'init_args.{name}': (kind.__name__, keys_of_options(kind))
        for name, kind in GROUPS.items()
    }
    return groups | {
        name: (owner.__name__, keys)
        for name, owner, keys in (
            (
                'init_args.model_options',
                ClassTokenViT,
                keys_of(ClassTokenViT, FROM_TASK),
            ),
            (
                'init_args.scaling',
                scaling.ScalingOptions,
                keys_of_options(scaling.ScalingOptions, scales),
            ),
            (
                'init_args.scaling.per_band.BAND',
                scaling.BandOptions,
                keys_of_options(scaling.BandOptions),
            ),
            (
                'init_args.attention.pruning',
                PruningOptions,
                keys_of_options(PruningOptions),
            ),
            (
                'init_args.patches.self_training',
                SelfTrainingOptions,
                keys_of_options(SelfTrainingOptions),
            ),
            (
                'init_args.maps.refinement_options',
                refine.RefinementOptions,
                keys_of_options(refine.RefinementOptions, refined),
            ),
        )
    }


def _by_name(keys: Iterable[Key]) -> Mapping[str, Key]:
    return {key.name: key for key in keys}


def _page(cls: type) -> str:
    """Return the page of one class."""
    room = '.'.join(cls.__module__.split('.')[:2])
    path = f'{room}.{cls.__name__}'
    if room == 'torchgeo_ctm.inference':
        path = f'{cls.__module__}.{cls.__name__}'
    parts = [title(cls.__name__), f'``class_path: {path}``', '']
    parts += [inspect.getdoc(cls) or '', '']
    for section, (owner, keys) in sections_of(cls).items():
        parts += [title(section, '-'), *_entries(owner, keys)]
    return '\n'.join(parts)


def _entries(owner: str, keys: Sequence[Key]) -> list[str]:
    """Return the entries of a section, or that it has none."""
    return [key.directive(owner) for key in keys] or ['None.', '']
