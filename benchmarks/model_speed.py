"""The network against timm's ViT-B/16: seconds, operations and errors of one forward.

Both sides of every ratio are run in turns in one process, in an order that rotates;
the ratio is the median over rounds. The options that change numbers (bfloat16, int8)
or need a compiler are compared with the network's own float32.

    python benchmarks/model_speed.py --threads 1 --options --json FILE
"""

import argparse
import copy
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchgeo_ctm.models import ClassTokenViT, ctm_vit_base_patch16_224
from torchgeo_ctm.network.linear import Projection

Forward = Callable[[], Any]
#: Random weights attend to everything alike; this makes rows that differ.
CONTRAST = 3.0


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Use so many threads meanwhile; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network(head_gates: bool = False) -> ClassTokenViT:
    """Return ViT-B/16 with random weights, half of its gates (if any) closed."""
    torch.manual_seed(0)
    model: ClassTokenViT = ctm_vit_base_patch16_224(head_gates=head_gates)
    model.eval()
    with torch.no_grad():
        for attn in model.attentions:
            attn.qkv.weight *= CONTRAST
        for gate in model.gates:
            gate.log_a[::2] = -5
    return model


def seconds_in_turns(
    forwards: dict[str, Forward], rounds: int
) -> dict[str, list[float]]:
    """Time each forward pass, taking turns; one round to warm up."""
    names = list(forwards)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds + 1):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            forwards[name]()
            if round_:
                taken[name].append(time.perf_counter() - start)
    return taken


def operations(forward: Forward) -> int:
    """Count the floating-point operations of one forward pass."""
    with FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def largest_error(given: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((given.float() - expected.float()).abs().max())


@torch.no_grad()
def model_ratios(
    batch: int = 8, rounds: int = 12, threads: int | None = None
) -> dict[str, float]:
    """Compare ViT-B/16, 13 bands, 224 px, with timm's network of the same size.

    Args:
        batch: Images in a batch.
        rounds: Timed forward passes of each side.
        threads: Threads of PyTorch; None: as they are.

    Returns:
        ``NAME_vs_timm``: timm's seconds over ours, more is faster, where NAME is
        ``model`` (logits, maps of every block, patch logits), ``attention_only``
        (no patch logits), ``half_heads`` (as model, after removing half of the heads)
        or ``half_heads_attention_only``. ``NAME_operations``: the same ratio of
        operations. ``NAME_map_error``: the largest difference from the maps of the
        slower computation. ``half_heads_vs_model``: seconds before over after.
    """
    theirs = timm.create_model('vit_base_patch16_224', in_chans=13, num_classes=8)
    theirs.eval()
    ours, gated = network(), network(head_gates=True)
    half = copy.deepcopy(gated)
    half.remove_pruned_heads()
    images = torch.randn(batch, 13, 224, 224)
    forwards: dict[str, Forward] = {
        'timm': lambda: theirs(images),
        'model': lambda: ours.forward_attention(images),
        'attention_only': lambda: ours.forward_attention(images, patches=False),
        'half_heads': lambda: half.forward_attention(images),
        'half_heads_attention_only': lambda: half.forward_attention(
            images, patches=False
        ),
    }
    with _threads(threads):
        taken = seconds_in_turns(forwards, rounds)
        counted = {name: operations(forward) for name, forward in forwards.items()}
        expected = {'attention_only': _exact_maps(ours, images)}
        expected['half_heads'] = _exact_maps(gated, images)
        expected['half_heads_attention_only'] = expected['half_heads']
        expected['model'] = expected['attention_only']
        result = {}
        for name in list(forwards)[1:]:
            result[f'{name}_vs_timm'] = _ratio(taken['timm'], taken[name])
            result[f'{name}_operations'] = counted['timm'] / counted[name]
            maps = forwards[name]()[1]
            result[f'{name}_map_error'] = largest_error(maps, expected[name])
    result['half_heads_vs_model'] = _ratio(taken['model'], taken['half_heads'])
    return result


def _ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over rounds of one side's seconds over the other's."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def _exact_maps(model: ClassTokenViT, images: Tensor) -> Tensor:
    """Return the maps as PyTorch's own layers compute them, every token in full."""
    return _plain(model).forward_attention(images)[1]


def _plain(model: ClassTokenViT) -> ClassTokenViT:
    """Return a copy with ``nn.Linear`` in place of the network's own linear layers."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Projection):
                linear = nn.Linear(child.in_features, child.out_features)
                linear.load_state_dict(child.state_dict())
                setattr(module, name, linear)
    return plain


def _int8(model: ClassTokenViT) -> ClassTokenViT:
    """Return a copy whose linear layers multiply in int8, scaled by batch."""
    with warnings.catch_warnings():
        # deprecated in favour of torchao, which is not one of our dependencies
        warnings.simplefilter('ignore')
        quantised = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            _plain(model), {nn.Linear}, dtype=torch.qint8
        )
    return cast(ClassTokenViT, quantised)


def _compiled(model: ClassTokenViT) -> ClassTokenViT:
    """Return a copy with compiled blocks."""
    copied = copy.deepcopy(model)
    for block in copied.blocks:
        block.compile()
    return copied


@torch.no_grad()
def option_ratios(
    batch: int = 8, rounds: int = 5, threads: int | None = None
) -> dict[str, dict[str, float]]:
    """Compare options with the network's float32: speed, and errors of its outputs.

    Args:
        batch: Images in a batch.
        rounds: Timed forward passes of each side.
        threads: Threads of PyTorch; None: as they are.

    Returns:
        By option: ``speed`` (float32 seconds over the option's), ``logit_error`` and
        ``map_error`` (largest absolute), ``logit_size`` and ``map_size`` (largest
        absolute value in float32, for comparison).
    """
    ours = network()
    images = torch.randn(batch, 13, 224, 224)
    models = {'float32': ours, 'bfloat16': ours, 'plain_linear': _plain(ours)}
    models |= {'int8': _int8(ours), 'compiled': _compiled(ours)}

    def forward(name: str) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.autocast('cpu', torch.bfloat16, enabled=name == 'bfloat16'):
            return models[name].forward_attention(images, patches=False)

    with _threads(threads):
        forwards: dict[str, Forward] = {
            name: lambda name=name: forward(name)  # type: ignore[misc]
            for name in models
        }
        taken = seconds_in_turns(forwards, rounds)
        logits, maps, _ = forward('float32')
        result = {}
        for name in list(models)[1:]:
            given = forward(name)
            result[name] = {
                'speed': _ratio(taken['float32'], taken[name]),
                'logit_error': largest_error(given[0], logits),
                'logit_size': float(logits.abs().max()),
                'map_error': largest_error(given[1], maps),
                'map_size': float(maps.max()),
            }
    return result


def main() -> None:
    """Read the arguments, measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=12)
    parser.add_argument('--threads', type=int, help='default: PyTorch decides')
    parser.add_argument('--options', action='store_true', help='bfloat16, int8, …')
    arguments = parser.parse_args()
    sizes = (arguments.batch, arguments.rounds, arguments.threads)
    result: dict[str, Any] = {
        'settings': {
            'batch': arguments.batch,
            'rounds': arguments.rounds,
            'threads': arguments.threads or torch.get_num_threads(),
        },
        'ratios': model_ratios(*sizes),
    }
    if arguments.options:
        result['options'] = option_ratios(*sizes)
    report = json.dumps(result, indent=2) + '\n'
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
