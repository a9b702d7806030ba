"""A training step of ours, of a plain implementation, and of timm's classifier.

All sides train ViT-B/16 on the same images of 13 bands in batches of one size, and
take their steps in turns in one process; a ratio is the median over rounds:

* ``ours``: class tokens and a linear patch head, as ViT-B/16: labels from masks,
  scaling, masking at 0.5, patch head, AdamW; ``checkpointed`` is the same with
  ``grad_checkpointing``, ``compiled`` with ``compile_blocks`` (only where
  :func:`speed` is asked for it). Task and optimiser are called directly, without Lightning's
  trainer, hence without its loops, loading and logging;
* ``plain``: the same network and losses, from the same weights, as METHOD describes
  the paper's code: every block builds and returns its S × S attention in float32, and
  Python loops over images and classes mask the tokens. It gets scaled images and
  labels. Nothing that the losses do not need is added but the maps;
* ``timm``: ``vit_base_patch16_224`` with BCE, on scaled images and labels.

On a GPU ours and timm run under autocast to bfloat16, plain in float32 as the paper's
code does (``plain_bf16``: under autocast too); on a processor all run in float32.

Where both compute in float32 on a processor, ours and plain cost about the same
operations; what plain loses there is memory. Timm's network has 197 tokens, ours 205.

Peak memory is of everything that a side holds from building its network to the end of
its second step: weights, gradients, AdamW's moments, activations. On a GPU that is
``max_memory_allocated``; on a processor (Linux) the peak of a process of its own
(``VmHWM``) less what was resident before the network was built, so that Python and
PyTorch do not count.

    python benchmarks/training.py --json benchmarks/results/training.json
    python benchmarks/training.py --device cuda --batch 64 --rounds 20 --steps 10
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from torchgeo_ctm.scaling import SENTINEL2_BANDS, ScalingOptions, build_scaling
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.options import with_former_defaults

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.model_speed import seconds_in_turns

CLASSES = 8
MASK_RATE = 0.5
#: Sides that are this package's task.
OURS = ('ours', 'checkpointed', 'compiled')
LR = 5e-4
WEIGHT_DECAY = 0.05
#: What Lightning says where there is no trainer to log to.
NO_TRAINER = r'You are trying to `self\.log\(\)`'

Batch = dict[str, Tensor]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """What is trained: ViT-B/16 at 224 px, or less of it.

    Attributes:
        batch: Images in a batch.
        img_size: Side of an image in pixels.
        options: What differs from ViT-B (``embed_dim``, ``depth``, ``num_heads``).
        device: Where.
    """

    batch: int = 4
    img_size: int = 224
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = 'cpu'

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of what is compared."""
        sides = ('ours', 'checkpointed', 'plain', 'timm')
        return sides if self.device == 'cpu' else (*sides, 'plain_bf16')

    def half(self, side: str) -> bool:
        """Tell whether a side runs under autocast to bfloat16."""
        return self.device != 'cpu' and side != 'plain'


class PlainAttention(nn.Module):
    """Self-attention, written out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        """Create the projections."""
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, S, D) and attention (B, heads, S, S), float32."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        attention = scores.float().softmax(dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(batch, length, dim)
        return self.proj(mixed), attention


class PlainBlock(nn.Module):
    """Pre-LN transformer block that returns its attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        """Create the layers."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {'fc1': nn.Linear(dim, 4 * dim), 'fc2': nn.Linear(4 * dim, dim)}
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, S, D) and attention (B, heads, S, S)."""
        mixed, attention = self.attn(self.norm1(x))
        x = x + mixed
        hidden = F.gelu(self.mlp['fc1'](self.norm2(x)))
        return x + self.mlp['fc2'](hidden), attention


class PlainViT(nn.Module):
    """The same network as ours, with the same names, as METHOD describes the paper's.

    Heads, biases and the final norm are ours, not the paper's (16 heads, no bias of
    queries, keys and values, no final norm), so that both start from the same weights.
    """

    def __init__(self, img_size: int, options: Mapping[str, int]) -> None:
        """Create the layers; see :class:`Setting`."""
        super().__init__()
        sizes = {'embed_dim': 768, 'depth': 12, 'num_heads': 12} | dict(options)
        dim = sizes['embed_dim']
        patches = (img_size // 16) ** 2
        self.patch_embed = nn.ModuleDict({'proj': nn.Conv2d(13, dim, 16, 16)})
        self.cls_token = nn.Parameter(torch.zeros(1, CLASSES, dim))
        self.reg_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, CLASSES + 1 + patches, dim))
        self.blocks = nn.ModuleList(
            PlainBlock(dim, sizes['num_heads']) for _ in range(sizes['depth'])
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.ModuleDict({'fc': nn.Linear(CLASSES * dim, CLASSES)})
        self.patch_head = nn.Linear(dim, CLASSES)

    def forward(
        self, x: Tensor, label: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, C), patch logits (B, N, C) and maps (L, B, C, N).

        Args:
            x: Scaled images (B, 13, H, W).
            label: Image-level labels (B, C).
            drawn: Which tokens to mask where the class is absent (B, C).
        """
        patches = self.patch_embed['proj'](x).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1)
        tokens = torch.cat([prefix.expand(len(x), -1, -1), patches], dim=1)
        tokens = tokens + self.pos_embed
        attentions = []
        for block in self.blocks:
            tokens, attention = block(tokens)
            attentions.append(attention)
        rows = [attention.mean(dim=1)[:, :CLASSES] for attention in attentions]
        maps = torch.stack(rows)[..., CLASSES + 1 :]
        tokens = self.norm(tokens)
        class_tokens = tokens[:, :CLASSES].clone()
        for image in range(len(x)):
            for index in range(CLASSES):
                if label[image, index] == 0 and drawn[image, index]:
                    class_tokens[image, index] = 0
        logits = self.head['fc'](class_tokens.flatten(1))
        return logits, self.patch_head(tokens[:, CLASSES + 1 :]), maps


def plain_loss(logits: Tensor, patch_logits: Tensor, label: Tensor) -> Tensor:
    """Return the BCE of image logits plus that of pooled patch logits (B, N, C)."""
    pooled = (5 * patch_logits.float()).logsumexp(dim=1)
    pooled = (pooled - math.log(patch_logits.shape[1])) / 5
    loss = F.binary_cross_entropy_with_logits(logits.float(), label)
    return loss + F.binary_cross_entropy_with_logits(pooled, label)


def make_task(
    setting: Setting, checkpointed: bool = False, compiled: bool = False
) -> ClassTokenMaskingTask:
    """Return our task with a linear patch head, as ViT-B/16.

    The schedule is not cosine, which asks a trainer for its length; a step of either
    is a few multiplications.
    """
    torch.manual_seed(0)
    task = ClassTokenMaskingTask(
        model='ctm_vit_base_patch16_224',
        in_channels=13,
        num_classes=CLASSES,
        img_size=setting.img_size,
        model_options=dict(setting.options),
        mask_rate=MASK_RATE,
        lr=LR,
        **with_former_defaults(
            {
                'optimization': {
                    'weight_decay': WEIGHT_DECAY,
                    'grad_checkpointing': checkpointed,
                    'compile_blocks': compiled,
                }
            }
        ),
    )
    task.train()
    task.on_train_epoch_start()  # seeds the masking
    return task.to(setting.device)


def make_batch(setting: Setting) -> Batch:
    """Return reflectances, masks of two to four classes in stripes, and labels.

    ``scaled`` holds the reflectances as the network sees them.
    """
    generator = torch.Generator().manual_seed(1)
    size = (setting.batch, 13, setting.img_size, setting.img_size)
    image = torch.rand(size, generator=generator) * 4000
    counts = torch.randint(2, 5, (setting.batch, 1, 1), generator=generator)
    shift = torch.randint(CLASSES, (setting.batch, 1, 1), generator=generator)
    stripe = torch.arange(setting.img_size)[None, :, None] % counts
    mask = ((stripe + shift) % CLASSES).expand(-1, -1, setting.img_size).contiguous()
    label = F.one_hot(mask.flatten(1), CLASSES).amax(dim=1).float()
    batch = {'image': image, 'mask': mask, 'label': label}
    scaling = build_scaling(SENTINEL2_BANDS, ScalingOptions(method='standard'))
    batch['scaled'] = scaling(image)
    return {key: value.to(setting.device) for key, value in batch.items()}


def _ours(setting: Setting, batch: Batch, side: str) -> tuple[Step, Optimizer]:
    """Return our loss and optimiser."""
    task = make_task(setting, side == 'checkpointed', side == 'compiled')
    given = {key: batch[key] for key in ('image', 'mask')}
    configured = cast(dict[str, Any], task.configure_optimizers())

    def step() -> Tensor:
        loss = task.training_step(given, 0)
        assert loss is not None  # every chip has a label
        return loss

    return step, configured['optimizer']


def _plain(setting: Setting, batch: Batch) -> tuple[Step, Optimizer]:
    """Return the plain implementation's loss and optimiser, from our weights."""
    task = make_task(setting)
    model = PlainViT(setting.img_size, setting.options).to(setting.device)
    model.load_state_dict(task.model.state_dict())
    generator = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        drawn = torch.rand(batch['label'].shape, generator=generator) < MASK_RATE
        logits, patch_logits, _ = model(batch['scaled'], batch['label'], drawn)
        return plain_loss(logits, patch_logits, batch['label'])

    return loss, _adamw(model, task.model.no_weight_decay())


def _timm(setting: Setting, batch: Batch) -> tuple[Step, Optimizer]:
    """Return the loss and optimiser of timm's classifier."""
    model: Any = timm.create_model(
        'vit_base_patch16_224',
        in_chans=13,
        num_classes=CLASSES,
        img_size=setting.img_size,
        **setting.options,
    )
    model.train()
    model.to(setting.device)

    def loss() -> Tensor:
        logits = model(batch['scaled'])
        return F.binary_cross_entropy_with_logits(logits.float(), batch['label'])

    return loss, _adamw(model, model.no_weight_decay())


def _adamw(model: nn.Module, undecayed: Collection[str]) -> Optimizer:
    """Return our optimiser for another network, which says what never decays."""
    groups = param_groups_weight_decay(
        model, WEIGHT_DECAY, no_weight_decay_list=tuple(undecayed)
    )
    return AdamW(groups, lr=LR)


def make_step(side: str, setting: Setting, batch: Batch) -> Step:
    """Return what takes one optimiser step of a side, and returns the loss."""
    match side:
        case 'timm':
            loss_of, optimizer = _timm(setting, batch)
        case 'plain' | 'plain_bf16':
            loss_of, optimizer = _plain(setting, batch)
        case _:
            loss_of, optimizer = _ours(setting, batch, side)
    half = setting.half(side)

    def step() -> Tensor:
        # the order of Lightning's loop
        with torch.autocast(setting.device, torch.bfloat16, enabled=half):
            loss = loss_of()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def peak_memory(side: str, setting: Setting, threads: int) -> float:
    """Return the peak memory of two steps in MB; call it in a process of its own."""
    torch.set_num_threads(threads)
    if setting.device == 'cpu':
        # what libraries read on first use is no memory of the step
        _two_steps(side, replace(setting, batch=1, img_size=32))
    batch = make_batch(setting)
    before = _resident('VmRSS') if setting.device == 'cpu' else _allocated()
    _two_steps(side, setting, batch)
    after = _resident('VmHWM') if setting.device == 'cpu' else _allocated(peak=True)
    return (after - before) / 1e6


def _two_steps(
    side: str, setting: Setting, batch: dict[str, Tensor] | None = None
) -> None:
    """Take two steps: the first one makes the moments of the optimizer."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=NO_TRAINER)
        step = make_step(side, setting, batch or make_batch(setting))
        for _ in range(2):
            step()


def _resident(name: str) -> int:
    """Return the bytes that Linux knows as *name* of this process."""
    status = Path('/proc/self/status').read_text(encoding='ascii')
    found = cast(re.Match[str], re.search(rf'{name}:\s+(\d+) kB', status))
    return int(found[1]) * 1024


def _allocated(peak: bool = False) -> int:
    """Return the bytes of tensors on the GPU, now or at most."""
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()


def _apart(side: str, setting: Setting) -> float:
    """Measure the peak memory of a side in a process of its own."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context) as pool:
        threads = torch.get_num_threads()
        return pool.submit(peak_memory, side, setting, threads).result()


def memory(setting: Setting, sides: Sequence[str] = ()) -> dict[str, Any]:
    """Measure peak memory, each side in a process of its own.

    Args:
        setting: What is trained, and where.
        sides: 'plain' and others; none named: all of them.

    Returns:
        ``memory_share_of_plain``: ours over the plain implementation's, and alike
        ``SIDE_memory_share_of_plain``; ``peak_memory_mb`` by side.
    """
    peaks = {side: _apart(side, setting) for side in sides or setting.sides}
    result: dict[str, Any] = {'peak_memory_mb': peaks}
    for side, peak in peaks.items():
        name = 'memory_share_of_plain'
        if side != 'plain':
            name = name if side == 'ours' else f'{side}_{name}'
            result[name] = peak / peaks['plain']
    return result


def speed(
    setting: Setting, rounds: int = 8, steps: int = 1, sides: Sequence[str] = ()
) -> dict[str, Any]:
    """Time training steps in turns.

    Args:
        setting: What is trained, and where.
        rounds: Timed rounds; in each one every side has its turn.
        steps: Steps of a turn.
        sides: Names of sides, 'compiled' (ours with ``compile_blocks``) among them;
            none named: those of *setting*.

    Returns:
        ``SIDE_over_OTHER``: images per second over those of the other, more is
        faster; ``images_per_second``, ``seconds`` of every turn, and ``first_loss``
        (from the same weights, but for timm's) by side.
    """
    batch = make_batch(setting)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=NO_TRAINER)
        takes = {
            side: make_step(side, setting, batch) for side in sides or setting.sides
        }
        losses = {side: float(step()) for side, step in takes.items()}
        turns = {side: _turn(step, steps, setting) for side, step in takes.items()}
        seconds = seconds_in_turns(turns, rounds)
    result: dict[str, Any] = {}
    for side in [name for name in OURS if name in seconds]:
        for other in [name for name in seconds if name.startswith(('plain', 'timm'))]:
            pairs = zip(seconds[other], seconds[side], strict=True)
            result[f'{side}_over_{other}'] = statistics.median(a / b for a, b in pairs)
    images = setting.batch * steps
    result['images_per_second'] = {
        side: images / statistics.median(taken) for side, taken in seconds.items()
    }
    return result | {'first_loss': losses, 'seconds': seconds}


def run(setting: Setting, rounds: int = 8, steps: int = 1) -> dict[str, Any]:
    """Measure speed and memory, and say of what and where."""
    peaks = memory(setting)  # before this process holds every side
    return {
        **speed(setting, rounds, steps),
        **peaks,
        'batch': setting.batch,
        'rounds': rounds,
        'steps': steps,
        'precision': {
            side: 'bf16-mixed' if setting.half(side) else '32-true'
            for side in setting.sides
        },
        'device': _device(setting),
        'machine': {
            'processor': platform.processor() or platform.machine(),
            'cores': os.cpu_count(),
            'threads': torch.get_num_threads(),
            'torch': torch.__version__,
            'float32_matmul_precision': torch.get_float32_matmul_precision(),
        },
    }


def _turn(step: Step, steps: int, setting: Setting) -> Callable[[], None]:
    """Return what takes some steps and waits until they are done."""

    def turn() -> None:
        for _ in range(steps):
            step()
        if setting.device != 'cpu':
            torch.cuda.synchronize()

    return turn


def _device(setting: Setting) -> str:
    """Return the name of the GPU, or 'cpu'."""
    if setting.device == 'cpu':
        return 'cpu'
    return torch.cuda.get_device_name(setting.device)


def main() -> None:
    """Read the arguments, measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=8)
    parser.add_argument('--steps', type=int, default=1, help='steps of a turn')
    parser.add_argument('--threads', type=int, help='default: PyTorch decides')
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    setting = Setting(arguments.batch, device=arguments.device)
    result = run(setting, arguments.rounds, arguments.steps)
    report = json.dumps(result, indent=2) + '\n'
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
