"""Second stage: a segmentation network learns the soft masks of class tokens."""

import re
import warnings
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Literal, Self, TypeVar, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics.classification import MulticlassConfusionMatrix

from ..compat import BaseTask, SemanticSegmentation
from ..errors import (
    CheckpointError,
    LabelWarning,
    SecondStageWarning,
    SettingError,
    did_you_mean,
    one_line,
)
from ..files import expanded
from ..grids import IGNORED
from ..maps.class_maps import resize
from ..maps.refine import geometric_blend
from ..scoring import iou_from_confusion, mean_of_known
from ..version import __version__
from .checkpoint import load_task
from .class_token_masking import ClassTokenMaskingTask
from .loading import SOFT_MASKS_KEY, load_file, unlike_network
from .metrics import BalancedBCE
from .optimizers import cosine_schedule
from .predictor import readable
from .score_table import ScoreTable
from .segmentation import SegmentationNetwork, SegmentationPredictor

T = TypeVar('T')
Model = Literal['unet', 'deeplabv3+', 'fcn', 'upernet', 'segformer']


class PaddedNetwork(SegmentationNetwork):
    """A segmentation network for images of any size."""

    patch_size = 1

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of scaled images (B, bands, H, W).

        Encoders halve the size five times, so edge pixels are repeated up to a
        multiple of 32 px.
        """
        rows, cols = x.shape[-2:]
        padding = (0, -cols % 32, 0, -rows % 32)
        logits: Tensor = self.network(F.pad(x, padding, mode='replicate'))
        return logits[..., :rows, :cols]


class SoftMaskSegmentationTask(SegmentationPredictor, BaseTask):
    """Train a segmentation network on the soft masks of a trained class-token task.

    The teacher maps every training chip as it maps a scene. The network learns the
    share of each class at each pixel by cross-entropy, each pixel weighted by its
    largest share. Chips require no labels, so all windows of a scene can be used
    (``unlabeled_window`` of :class:`~torchgeo_ctm.datamodules.SceneDataModule`).

    Maps are the geometric mean of both networks, which is better than either on real
    ground. Validation compares it with the teacher alone by ``val_balanced_bce``, which
    requires image-level labels only; use labels that the teacher was not trained on. As
    long as the mean is not better, checkpoints map with the teacher alone. They contain
    the teacher's weights.
    """

    #: Arguments that are no hyperparameters: checkpoints hold them as weights.
    ignore = ('weights', 'teacher', 'task', 'facts')
    teacher: ClassTokenMaskingTask
    keeps_teacher: Tensor

    def __init__(
        self,
        teacher: str | dict[str, Any] | ClassTokenMaskingTask,
        model: Model = 'unet',
        backbone: str = 'resnet18',
        weights: str | bool | None = None,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        jitter: float = 0.05,
    ) -> None:
        """Initialize the task.

        Args:
            teacher: Checkpoint of a trained :class:`ClassTokenMaskingTask`, which also
                gives bands, scaling, classes and colors. A mapping holds the arguments
                of such a task, whose weights are in the checkpoint of this one.
            model: Segmentation network, as in TorchGeo's segmentation task.
            backbone: Its encoder, likewise.
            weights: Initial weights of the encoder, likewise.
            lr: Highest learning rate of AdamW. It rises, then falls along a cosine.
            weight_decay: Weight decay.
            warmup: Fraction of training, 0 to 1, during which the learning rate rises.
            jitter: Standard deviation of a random gain per chip and a random offset per
                band, in units of the scaled bands. The teacher sees chips without it.

        Raises:
            CheckpointError: If the teacher cannot be loaded.
            SettingError: If *jitter* is negative.
        """
        if jitter < 0:
            raise SettingError(f'jitter must be at least 0, got {jitter}.')
        models: tuple[str, ...] = get_args(Model)
        if model not in models:
            raise SettingError(
                f'Unknown model {model!r}, expected one of: {", ".join(models)}.'
                + did_you_mean(str(model), models)
            )
        split: Mapping[str, Any] = {}
        if isinstance(teacher, Mapping):
            teacher = _apart(ClassTokenMaskingTask, **teacher)
        elif not isinstance(teacher, ClassTokenMaskingTask):
            path = teacher
            teacher = _apart(load_task, path)
            if expanded(path).is_file():
                split = load_file(expanded(path)).get('SceneDataModule') or {}
        count = len(teacher.class_names)
        super().__init__(
            _apart(_segmentation_task, teacher, model, backbone, weights),
            {
                'class_names': teacher.class_names,
                'class_colors': teacher.class_colors,
                'bands': teacher.bands,
                'scaling': teacher.hparams['scaling'],
                'img_size': teacher.hparams['img_size'],
            },
        )
        #: How the scenes of the teacher were split, if its checkpoint says so.
        self._split = split
        self.model = PaddedNetwork(self.model.network)
        self.save_hyperparameters(ignore=list(self.ignore))
        self.teacher = teacher.eval().requires_grad_(False)
        self.register_buffer('keeps_teacher', torch.tensor(False))
        self.criteria: Any = nn.ModuleDict(
            {
                name: BalancedBCE(count, teacher.options.labels.min_share)
                for name in ('both', 'teacher')
            }
        )
        self.confusion: Any = MulticlassConfusionMatrix(count, ignore_index=IGNORED)
        self._best = {'both': float('inf'), 'teacher': float('inf')}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights.

        Raises:
            CheckpointError: If they are of another network.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise unlike_network(error) from error

    def configure_models(self) -> None:
        """Do nothing: the constructor builds the networks."""

    def train(self, mode: bool = True) -> Self:
        """Set the network to training or evaluation; the teacher only evaluates."""
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def prediction_window(self) -> tuple[int, int]:
        """Side and overlap in pixels of the windows to map: wide, for context."""
        return 256, 64

    def on_fit_start(self) -> None:
        """Warn if the teacher has learned windows that validate."""
        data: Any = getattr(self.trainer, 'datamodule', None)
        if self._split and hasattr(data, 'compare_split'):
            data.compare_split(self._split, 'The teacher')

    @torch.no_grad()
    def soft_masks(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the teacher's share of each class at every pixel (B, C, H, W)."""
        image = batch['image']
        scores = self.teacher.predict_images(batch)['scores'].float()
        shares = resize(scores, (image.shape[-2], image.shape[-1]))
        return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-9)

    def training_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Return the cross-entropy of one batch against the teacher's soft masks."""
        soft = self.soft_masks(batch)
        weight = soft.amax(dim=1)
        if 'valid' in batch:
            weight = weight * batch['valid']
        x = self._jittered(self.scaling(batch['image'].float()))
        shares = self.model(x).float().log_softmax(dim=1)
        losses = -(soft * shares).sum(dim=1) * weight
        loss: Tensor = losses.sum() / weight.sum().clamp(min=1)
        self.log('train_loss', loss, batch_size=len(x), prog_bar=True)
        return loss

    def _jittered(self, x: Tensor) -> Tensor:
        """Vary gain by chip and offset by band of scaled images (B, bands, H, W)."""
        size: float = self.hparams['jitter']
        if not size:
            return x
        gain = 1 + size * torch.randn(len(x), 1, 1, 1, device=x.device)
        offset = torch.randn(len(x), x.shape[1], 1, 1, device=x.device)
        return x * gain + size * offset

    def predict_images(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the prediction of a batch: both networks', or the teacher's alone.

        Returns:
            See :meth:`SegmentationPredictor.predict_images`.
        """
        batch = readable(batch)
        shares = self.soft_masks(batch)
        if not self.keeps_teacher:
            shares = self._both(batch, shares)
        return {'scores': shares, 'maps': shares, 'probs': shares.mean(dim=(-2, -1))}

    def _both(self, batch: Mapping[str, Tensor], soft: Tensor) -> Tensor:
        """Return the geometric mean of the network's shares and the teacher's.

        Args:
            batch: Images.
            soft: The teacher's shares (B, C, H, W).
        """
        return geometric_blend(soft, super().predict_images(batch)['scores'])

    def validation_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compare both networks' mean with the teacher on one batch."""
        presence, soft = self.presence(batch), self.soft_masks(batch)
        both = self._both(batch, soft)
        self.criteria['both'].update(both, presence)
        self.criteria['teacher'].update(soft, presence)
        self._score(both, batch)

    def test_step(
        self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Score the masks of one batch, if it has a reference."""
        self._score(self.predict_images(batch)['scores'], batch)

    def _score(self, shares: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Count the pixels of masks by class, where there is a reference."""
        if 'mask' in batch:
            labels = self.teacher.reference_mask(batch['mask'])
            if 'valid' in batch:
                valid = batch['valid'].reshape(labels.shape).bool()
                labels = labels.masked_fill(~valid, IGNORED)
            self.confusion.update(shares.argmax(dim=1), labels)

    def presence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the image-level labels (B, C) of a batch, as the teacher reads them.

        Raises:
            SettingError: If the batch has neither ``label`` nor ``mask``.
        """
        return self.teacher.presence(batch)

    def on_validation_epoch_end(self) -> None:
        """Log both criteria, and keep the teacher alone unless the mean is better."""
        scores = {
            name: float(metric.compute()) for name, metric in self.criteria.items()
        }
        for metric in self.criteria.values():
            metric.reset()
        self.keeps_teacher.fill_(scores['both'] >= scores['teacher'])
        if not self.trainer.sanity_checking:
            self._best = {
                name: min(value, scores[name]) for name, value in self._best.items()
            }
        self.log('val_balanced_bce', scores['both'], prog_bar=True)
        self.log('val_teacher_balanced_bce', scores['teacher'])
        self._log_masks('val')

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that prints the scores of a test."""
        return [ScoreTable()]

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test split's masks."""
        if not self.confusion.update_called:
            warnings.warn(
                'No test chip has a mask, so that there is no score. Set reference of '
                'the data.',
                LabelWarning,
                stacklevel=2,
            )
        self._log_masks('test')

    def _log_masks(self, split: str) -> None:
        """Log mean and per-class IoU of a split, if it has a reference."""
        if not self.confusion.update_called:
            return
        iou = iou_from_confusion(self.confusion.compute().cpu().numpy())
        self.confusion.reset()
        self.log(f'{split}_miou', mean_of_known(iou), prog_bar=True)
        for name, value in zip(self.class_names, iou, strict=True):
            if value is not None:
                self.log(f'{split}_iou_{name}', value)

    def on_fit_end(self) -> None:
        """Say so if no checkpoint is better than the teacher."""
        both, teacher = self._best['both'], self._best['teacher']
        if both >= teacher < float('inf'):
            warnings.warn(
                'The second stage is not better than its teacher: val_balanced_bce is '
                f'{both:.4f} at best, the teacher has {teacher:.4f}. Its checkpoints '
                'map with the teacher.',
                SecondStageWarning,
                stacklevel=2,
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a warm-up and a cosine over the whole training.

        Raises:
            SettingError: If training has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if steps == float('inf'):
            raise SettingError(
                'The learning rate follows the whole training. Set max_epochs or '
                'max_steps.'
            )
        optimizer = AdamW(
            self.model.parameters(),
            self.hparams['lr'],
            weight_decay=self.hparams['weight_decay'],
        )
        schedule = cosine_schedule(optimizer, int(steps), self.hparams['warmup'])
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }

    def provenance(self) -> dict[str, str]:
        """Return the tags with which products say how they were made."""
        if self.keeps_teacher:
            return self.teacher.provenance()
        return super().provenance()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as one of this task, and describe its teacher."""
        teacher = dict(self.teacher.hparams)
        checkpoint[SOFT_MASKS_KEY] = {'version': __version__, 'teacher': teacher}
        hparams = checkpoint.get('hyper_parameters', {})
        # LightningCLI takes them as arguments, and the teacher gives these two
        for name in ('img_size', 'scaling'):
            hparams.pop(name, None)
        # so that torchgeo needs neither the teacher's file nor this configuration
        hparams['teacher'] = {k: v for k, v in teacher.items() if not k.startswith('_')}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint is one of this task.

        Raises:
            CheckpointError: If it is not.
        """
        if SOFT_MASKS_KEY not in checkpoint:
            raise CheckpointError(
                'The checkpoint is not one of SoftMaskSegmentationTask. Pass that of '
                'the first stage as --model.init_args.teacher.'
            )


def _apart(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function that builds another task.

    While LightningCLI builds a task, every task that is built takes the
    hyperparameters of that one, by a context variable.
    """
    return Context().run(function, *args, **kwargs)


def _segmentation_task(
    teacher: ClassTokenMaskingTask, model: Any, backbone: str, weights: Any
) -> SemanticSegmentation:
    """Return TorchGeo's task for the bands and classes of a teacher.

    Raises:
        SettingError: If the encoder or its weights are unknown.
    """
    try:
        return SemanticSegmentation(
            model=model,
            backbone=backbone,
            weights=weights,
            in_channels=len(teacher.bands),
            num_classes=len(teacher.class_names),
            ignore_index=IGNORED,
        )
    except KeyError as error:
        # the list of encoders is long
        known = re.findall(r"'([^']+)'", str(error.args[0]))
        raise SettingError(
            f'Unknown backbone {backbone!r}.' + did_you_mean(backbone, known)
        ) from error
    except ValueError as error:
        raise SettingError(
            f'Cannot build {model} {backbone} with weights {weights!r}: '
            f'{one_line(error).rstrip(".")}.'
        ) from error
