"""Options of the task: groups, their former names, and what goes together."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from ..errors import OptionWarning, SettingError, did_you_mean
from ..losses import DiversityForm, PatchPooling, check_pooling_warmup
from ..maps.class_maps import MapRule, MapSource
from ..maps.decoder import MapOptions, check_map_options
from ..maps.refine import Refinement, RefinementOptions
from ..options import options_from
from .self_training import SelfTrainingOptions, check_self_training


class PruningOptions(TypedDict, total=False):
    """Options of pruning attention heads (METHOD, section 3).

    Attributes:
        penalty: λ of the paper, the price of an open gate. Default: 0.01.
        lr: Learning rate of the gates, which barely move at the network's own. Default:
            the network's.
        start_epoch: Gates stay open before this epoch. Default: 0.
        settle_epoch: From this epoch on the closed heads are fixed, and the network
            learns to do without them. Default: never.
        remove_at_predict: Remove closed heads before predicting. Default: true.
    """

    penalty: float
    lr: float
    start_epoch: int
    settle_epoch: int
    remove_at_predict: bool


@dataclass(frozen=True)
class LabelOptions:
    """How image-level labels are derived from masks, and weighted.

    Attributes:
        min_share: Share of a chip, 0 to 1, from which a class is present if the label
            is derived from a mask.
        values: Value of each class in the masks of the data set. Every other value is
            ignored, as nodata is. Null: 0 to C-1, and 255 is ignored.
        weights: Weight of each class in the losses. Null: 1.
    """

    min_share: float = 0.1
    values: Sequence[int] | None = None
    weights: Sequence[float] | None = None


@dataclass(frozen=True)
class PatchOptions:
    """The patch head, and how it learns from image-level labels.

    Attributes:
        head: 'local', a small convolutional network with a field of view of about
            20 px, see :class:`~torchgeo_ctm.network.local.LocalHead`; or 'tokens', a
            linear layer on the patch tokens.
        loss_weight: Weight of the patch head's loss. 0 removes the head, and requires
            ``maps.source: attention`` and ``attention.distillation_weight: 0``.
        pooling: How patch logits become image logits, see
            :func:`~torchgeo_ctm.losses.pool_patch_logits`.
        share: Share of the patches, 0 to 1, that pooling by 'share' asks for. Null:
            ``labels.min_share``.
        compete: Pool the log-odds of the softmax, so that classes compete for patches.
            For few labels, and for classes that every chip contains.
        balance: Weighs presences and absences of a class alike in the losses of patches
            and class tokens, 0 (not at all) to 1 (fully), because labels overlook
            things. Task 'multiclass', which has no absences, ignores it.
        pooling_warmup: Fraction of training, 0 to 1, during which pooling by 'share'
            narrows from all patches to its share.
        self_training: From half of training on, the patch head also learns from its own
            refined maps of the classes in the labels. {} for the defaults, see
            :class:`~torchgeo_ctm.trainers.self_training.SelfTrainingOptions`. Where a
            label is unknown, the predicted probability replaces it.
    """

    head: Literal['tokens', 'local'] = 'local'
    loss_weight: float = 1.0
    pooling: PatchPooling = 'share'
    share: float | None = 0.25
    compete: bool = False
    balance: float = 0.5
    pooling_warmup: float = 0.0
    self_training: SelfTrainingOptions | None = None


@dataclass(frozen=True)
class AttentionOptions:
    """Losses on attention: taught by patches, distinct tokens, and pruned heads.

    Attributes:
        distillation_weight: Weight of the loss that teaches class-to-patch attention
            where the patch head sees each class, see
            :func:`~torchgeo_ctm.losses.attention_loss`.
        diversity_weight: Weight of the loss that keeps class tokens apart.
        diversity_form: 'present', or the paper's 'reference'.
        pruning: Prune attention heads. Null: keep all of them.
    """

    distillation_weight: float = 1.0
    diversity_weight: float = 0.0
    diversity_form: DiversityForm = 'present'
    pruning: PruningOptions | None = None


@dataclass(frozen=True)
class OptimizationOptions:
    """Optimizer, schedule and what else concerns the training loop.

    Attributes:
        optimizer: 'adamw', 'adam' or 'sgd' (Nesterov momentum 0.9).
        weight_decay: Weight decay. Tokens, positions, norms and biases never decay.
        layer_decay: Factor, 0 to 1, between the learning rate of a layer and that of
            the layer above it, for pre-trained weights. Null: one learning rate.
        head_lr: Learning rate of the heads, which pre-trained weights do not have. Null:
            ``lr``.
        freeze_blocks: Number of first blocks that do not learn, nor do patch embedding
            and positions. Class tokens and heads learn.
        schedule: 'cosine' over the whole training, which requires ``max_epochs`` or
            ``max_steps``; or 'plateau' (TorchGeo's).
        warmup: Fraction of training, 0 to 1, during which the learning rate of 'cosine'
            rises.
        grad_checkpointing: Recompute blocks in the backward pass to save memory.
        compile_blocks: Compile every block with torch.compile.
        mask_seed: Seed of the masking's random generator.
    """

    optimizer: Literal['adamw', 'adam', 'sgd'] = 'adamw'
    weight_decay: float = 0.05
    layer_decay: float | None = None
    head_lr: float | None = None
    freeze_blocks: int = 0
    schedule: Literal['plateau', 'cosine'] = 'cosine'
    warmup: float = 0.1
    grad_checkpointing: bool = False
    compile_blocks: bool = False
    mask_seed: int = 0


class FormerOptions(TypedDict, total=False):
    """Arguments of the task in version 0.1, which now belong to a group."""

    class_values: Sequence[int] | None
    patch_loss_weight: float
    patch_pooling: PatchPooling
    patch_pooling_warmup: float
    class_weights: Sequence[float] | None
    diversity_weight: float
    diversity_form: DiversityForm
    pruning: PruningOptions | None
    label_min_share: float
    map_source: MapSource
    map_rule: MapRule
    map_labels: Literal['predicted', 'true']
    threshold: float
    presence: Literal['threshold', 'probability', 'all']
    refinement: Refinement | None
    refinement_options: RefinementOptions | None
    self_training: SelfTrainingOptions | None
    ensemble: Literal['dihedral'] | None
    calibration: Literal['odds', 'validation'] | None
    optimizer: Literal['adamw', 'adam', 'sgd']
    weight_decay: float
    layer_decay: float | None
    schedule: Literal['plateau', 'cosine']
    warmup: float
    grad_checkpointing: bool
    compile_blocks: bool
    mask_seed: int


#: Dataclass of each group.
GROUPS: dict[str, type[Any]] = {
    'labels': LabelOptions,
    'maps': MapOptions,
    'patches': PatchOptions,
    'attention': AttentionOptions,
    'optimization': OptimizationOptions,
}
#: Group and name of each former option: those that kept their name, and the others.
MOVED: dict[str, tuple[str, str]] = {
    name: (group, name)
    for group, kind in GROUPS.items()
    for name in kind.__annotations__
    if name in FormerOptions.__annotations__
} | {
    'class_values': ('labels', 'values'),
    'class_weights': ('labels', 'weights'),
    'label_min_share': ('labels', 'min_share'),
    'patch_loss_weight': ('patches', 'loss_weight'),
    'patch_pooling': ('patches', 'pooling'),
    'patch_pooling_warmup': ('patches', 'pooling_warmup'),
    'map_source': ('maps', 'source'),
    'map_rule': ('maps', 'rule'),
    'map_labels': ('maps', 'labels'),
}
#: Defaults of version 0.1 that have changed since, by group; and values that are without
#: effect, of options that it did not have.
FORMER_DEFAULTS: dict[str, dict[str, Any]] = {
    'maps': {
        'source': 'fused',
        'presence': 'threshold',
        'refinement': None,
        'refinement_weight': 1.0,
    },
    'patches': {
        'head': 'tokens',
        'pooling': 'logsumexp',
        'share': None,
        'balance': 0.0,
    },
    'attention': {'distillation_weight': 0.0},
    'optimization': {'schedule': 'plateau'},
}


class TaskOptions(NamedTuple):
    """The groups of a task."""

    labels: LabelOptions
    maps: MapOptions
    patches: PatchOptions
    attention: AttentionOptions
    optimization: OptimizationOptions

    def mappings(self) -> dict[str, Any]:
        """Return the groups as mappings of plain values, as checkpoints hold them."""
        return {name: asdict(group) for name, group in self._asdict().items()}


def regrouped(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with the options of version 0.1 moved into their groups.

    If there are any, every option that is not given has its default of version 0.1, so
    that configurations and checkpoints of that version mean what they meant.
    """
    former = {key: value for key, value in hparams.items() if key in MOVED}
    if not former:
        return dict(hparams)
    kept = {key: value for key, value in hparams.items() if key not in MOVED}
    kept = with_former_defaults(kept)
    for name, value in former.items():
        group, option = MOVED[name]
        kept[group] = kept[group] | {option: value}
    return kept


def with_setting(
    arguments: Mapping[str, Any], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Return arguments of the task with those of a setting in their place.

    Args:
        arguments: Arguments of the task.
        setting: Arguments in their place. Of a mapping, only the given keys are
            replaced.

    Raises:
        SettingError: If the setting has an unknown option.
    """
    merged, changes = regrouped(arguments), regrouped(setting)
    for name, value in changes.items():
        kept = merged.get(name)
        if name in GROUPS and isinstance(value, Mapping):
            options_from(GROUPS[name], value, name)
            kept = kept if kept is None or isinstance(kept, Mapping) else asdict(kept)
        if isinstance(value, Mapping) and isinstance(kept, Mapping):
            value = {**kept, **value}
        merged[name] = value
    return merged


def with_former_defaults(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters whose groups lack no option that has a former default."""
    groups = {}
    for name, kind in GROUPS.items():
        given = hparams.get(name) or {}
        if not isinstance(given, Mapping):
            # a task passes its own defaults where a group is not given
            given = {} if given == kind() else asdict(given)
        groups[name] = FORMER_DEFAULTS.get(name, {}) | dict(given)
    return dict(hparams) | groups


def task_options(groups: Mapping[str, Any], former: Mapping[str, Any]) -> TaskOptions:
    """Return the groups of a task.

    Args:
        groups: Each group by name, as dataclass, mapping or None.
        former: Options of version 0.1. They replace those in the groups.

    Raises:
        SettingError: If an option is unknown, or is not one of its choices.
        TypeError: If a former option never existed.
    """
    for name in former:
        if name not in MOVED:
            raise TypeError(
                f'ClassTokenMaskingTask got an unexpected argument {name!r}.'
                + did_you_mean(name, (*GROUPS, *MOVED))
            )
    if former:
        places = ', '.join(
            f'{name} is now {".".join(MOVED[name])}' for name in sorted(former)
        )
        warnings.warn(
            f'Options of ClassTokenMaskingTask have moved: {places}. The former names '
            'still work, and options that are not given have the defaults of 0.1.',
            OptionWarning,
            stacklevel=3,
        )
    given = regrouped(dict(groups) | dict(former))
    return TaskOptions(
        *(options_from(kind, given[name], name) for name, kind in GROUPS.items())
    )


def check_options(options: TaskOptions, task: str, num_classes: int) -> None:
    """Check that the options of a task are in range and go together.

    Args:
        options: The options.
        task: 'multilabel' or 'multiclass'.
        num_classes: Number of classes.

    Raises:
        SettingError: If they do not.
    """
    labels, maps, patches = options.labels, options.maps, options.patches
    if task not in ('multilabel', 'multiclass'):
        raise SettingError(
            f"task={task!r}, expected 'multilabel' or 'multiclass'."
            + did_you_mean(str(task), ('multilabel', 'multiclass'))
        )
    if num_classes < 2:
        raise SettingError(
            f'num_classes must be 2 or more, got {num_classes}. Classes are told from '
            "each other: add one for all the rest, such as 'background'."
        )
    check_map_options(maps)
    if patches.loss_weight == 0 and maps.source != 'attention':
        raise SettingError(
            f'maps.source={maps.source!r} requires the patch head, which '
            "patches.loss_weight=0 removes. Use maps.source='attention'."
        )
    check_pooling_warmup(patches.pooling_warmup, patches.pooling)
    _check_patches(options)
    _check_self_training(patches, task)
    values = labels.values
    if values is not None and not len(values) == len(set(values)) == num_classes:
        raise SettingError(
            f'labels.values must be {num_classes} different values, one per class, got '
            f'{list(values)}.'
        )
    if isinstance(labels.weights, str):
        raise SettingError(
            f'labels.weights={labels.weights!r}, expected a number for each class.'
        )
    if labels.weights is not None and len(labels.weights) != num_classes:
        raise SettingError(
            f'labels.weights must have num_classes={num_classes} entries, got '
            f'{len(labels.weights)}.'
        )
    if patches.loss_weight < 0:
        raise SettingError(
            f'patches.loss_weight must be 0 or more, got {patches.loss_weight}.'
        )
    warmup = options.optimization.warmup
    if not 0 <= warmup <= 1:
        raise SettingError(
            f'optimization.warmup={warmup} is a fraction of training, expected 0 to 1.'
        )
    for weight in labels.weights or ():
        if not 0 <= weight < math.inf:
            raise SettingError(f'labels.weights must be 0 or more, got {weight}.')
    if not 0 <= labels.min_share <= 1:
        raise SettingError(f'labels.min_share must be 0 to 1, got {labels.min_share}.')


def _check_patches(options: TaskOptions) -> None:
    """Check the options of pooling and of what the patch head teaches."""
    patches = options.patches
    if patches.share is not None and not 0 < patches.share <= 1:
        raise SettingError(
            f'patches.share must be above 0 and at most 1, got {patches.share}.'
        )
    if not 0 <= patches.balance <= 1:
        raise SettingError(f'patches.balance must be 0 to 1, got {patches.balance}.')
    weight = options.attention.distillation_weight
    if weight < 0:
        raise SettingError(
            f'attention.distillation_weight must be 0 or more, got {weight}.'
        )
    if weight and patches.loss_weight == 0:
        raise SettingError(
            f'attention.distillation_weight={weight} requires the patch head, which '
            'patches.loss_weight=0 removes. Set attention.distillation_weight=0.'
        )


def _check_self_training(patches: PatchOptions, task: str) -> None:
    """Check that self-training has a patch head to teach, and valid options."""
    check_self_training(patches.self_training)
    if patches.self_training is None:
        return
    if patches.loss_weight == 0:
        raise SettingError(
            'patches.self_training teaches the patch head, which patches.loss_weight=0 '
            'removes. Set patches.loss_weight=1.'
        )
    if task == 'multiclass':
        raise SettingError(
            "patches.self_training requires task='multilabel': with 'multiclass' it "
            'would teach one class to every patch.'
        )
