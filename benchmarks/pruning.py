"""What pruning costs and saves: heads, mAP, IoU, operations and speed, as ratios.

Trains the synthetic demo's network (with more heads) twice from the same seed, without
gates and with them, scores both on the test tiles of SyntheticLandCover, removes the
closed heads, and times the forward passes of both in turns.

    python benchmarks/pruning.py output/pruning --json benchmarks/results/pruning.json
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchgeo_ctm.datamodules import SyntheticDataModule
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.options import PruningOptions, with_former_defaults

CHIP = 128
NETWORK = {'embed_dim': 128, 'depth': 3, 'num_heads': 8}


def train(
    datamodule: SyntheticDataModule,
    steps: int,
    seed: int,
    pruning: PruningOptions | None,
) -> ClassTokenMaskingTask:
    """Train one network from image labels."""
    pl.seed_everything(seed, verbose=False)
    # maps that need the heads: class tokens and a linear patch head
    options = with_former_defaults(
        {'attention': {'pruning': pruning}, 'optimization': {'schedule': 'cosine'}}
    )
    task = ClassTokenMaskingTask(
        model='ctm_vit_tiny_patch8_224',
        img_size=CHIP,
        model_options=NETWORK,
        lr=2e-3,
        **options,
    )
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=datamodule)
    return task


def score(
    task: ClassTokenMaskingTask, datamodule: SyntheticDataModule
) -> dict[str, float]:
    """Return mAP and mean IoU on the test tiles."""
    trainer = pl.Trainer(
        logger=False, enable_model_summary=False, enable_progress_bar=False
    )
    [scores] = trainer.test(task, datamodule=datamodule, verbose=False)
    names = {
        'mAP': 'test_mAP',
        'miou': 'test_miou',
        'miou_true_labels': 'test_miou_true_labels',
    }
    return {name: scores[logged] for name, logged in names.items()}


def operations(model: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of one forward pass with maps."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_attention(images)  # type: ignore[operator]
    return int(counter.get_total_flops())


def seconds_in_turns(
    models: dict[str, nn.Module], images: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Time each model's forward pass with maps, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for round_ in range(rounds + 3):
            for name, model in models.items():
                start = time.perf_counter()
                model.forward_attention(images)  # type: ignore[operator]
                if round_ >= 3:
                    taken[name].append(time.perf_counter() - start)
    return taken


def run(
    output: Path,
    steps: int = 1200,
    seed: int = 0,
    penalty: float = 0.02,
    lr: float = 0.05,
    start_epoch: int = 4,
    settle_epoch: int = 8,
    rounds: int = 40,
) -> dict[str, Any]:
    """Train, prune, remove, score and time.

    Args:
        output: Folder for the synthetic tiles.
        steps: Training steps of each network.
        seed: Seed of weights, order and masking.
        penalty: λ of the gates' penalty.
        lr: Learning rate of the gates.
        start_epoch: Epoch from which gates may close.
        settle_epoch: Epoch from which they stay as they are.
        rounds: Timed forward passes of each network.

    Returns:
        Rows by name, and the ratios of the pruned network to the dense one.
    """
    quiet_lightning()
    datamodule = SyntheticDataModule(batch_size=8, root=str(output / 'data'))
    gates: PruningOptions = {
        'penalty': penalty,
        'lr': lr,
        'start_epoch': start_epoch,
        'settle_epoch': settle_epoch,
    }
    dense = train(datamodule, steps, seed, None)
    pruned = train(datamodule, steps, seed, gates)
    heads = sum(attn.num_heads for attn in dense.model.attentions)
    rows: dict[str, dict[str, Any]] = {
        'dense': {'heads': heads} | score(dense, datamodule),
        'gated': score(pruned, datamodule),
    }
    rows['gated']['heads'] = int(sum(g.hard().sum() for g in pruned.model.gates))
    pruned.remove_pruned_heads()
    kept = [attn.num_heads for attn in pruned.model.attentions]
    rows['removed'] = {'heads': sum(kept), 'heads_by_block': kept}
    rows['removed'] |= score(pruned, datamodule)
    images = torch.randn(8, 13, CHIP, CHIP)
    models: dict[str, nn.Module] = {
        'dense': dense.model.cpu().eval(),
        'removed': pruned.model.cpu().eval(),
    }
    for name, model in models.items():
        rows[name]['operations'] = operations(model, images)
    taken = seconds_in_turns(models, images, rounds)
    ratios = [d / r for d, r in zip(taken['dense'], taken['removed'], strict=True)]
    return {
        'settings': {'steps': steps, 'seed': seed, **gates},
        'rows': rows,
        'ratios': {
            'heads_open': rows['removed']['heads'] / heads,
            'mAP_drop': rows['dense']['mAP'] - rows['removed']['mAP'],
            'miou_drop': rows['dense']['miou'] - rows['removed']['miou'],
            'operations': rows['removed']['operations'] / rows['dense']['operations'],
            'speed': statistics.median(ratios),
        },
    }


def main() -> None:
    """Read the arguments, run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    parser.add_argument('--json', type=Path, help='also write the result here')
    parser.add_argument('--steps', type=int, default=1200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--penalty', type=float, default=0.02)
    parser.add_argument('--lr', type=float, default=0.05, help='of the gates')
    parser.add_argument('--start-epoch', type=int, default=4)
    parser.add_argument('--settle-epoch', type=int, default=8)
    arguments = vars(parser.parse_args())
    target = arguments.pop('json')
    report = json.dumps(run(**arguments), indent=2) + '\n'
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
