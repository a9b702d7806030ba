"""A small scene, and what checkpoints of version 0.1 make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from torchgeo_ctm import predict_scene

FOLDER = Path(__file__).parent / 'yardstick'
CHECKPOINT = FOLDER / 'class_tokens_0.1.ckpt'
SEGMENTATION = FOLDER / 'segmentation_0.1.ckpt'

BANDS = ('B02', 'B03', 'B04', 'B08')
NAMES = ('Forest', 'Water', 'Urban/Built-up')
COLORS = ('#009900', '#1c0dff', '#a5a5a5')
#: Reflectance × 10,000 of each class in each band.
SPECTRA = np.array(
    [[300, 600, 400, 3200], [900, 700, 400, 200], [1800, 2000, 2200, 2600]]
)
HEIGHT, WIDTH = 150, 160
#: What is compared: hyperparameters beside the checkpoint's own, and arguments of
#: predict_scene. The checkpoint has what README recommends.
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'recommended': ({}, {'probabilities': True, 'stac': True, 'min_area': 0.05}),
    'plain': (
        {'presence': 'threshold', 'refinement': None},
        {'ensemble': 'dihedral', 'sieve': 12, 'stride': 24},
    ),
    'paint': (
        {'presence': 'threshold', 'refinement': None, 'map_rule': 'paint'},
        {'polygons': False, 'style': False, 'picture': False},
    ),
}


def ground(height: int, width: int, seed: int) -> NDArray[np.int64]:
    """Return the classes (height, width) of squares of 16 pixels."""
    squares = np.random.default_rng(seed).integers(3, size=(height // 16, width // 16))
    return np.kron(squares, np.ones((16, 16), np.int64))


def pixels(classes: NDArray[np.int64], seed: int) -> NDArray[np.uint16]:
    """Return reflectances × 10,000 (bands, height, width) of a ground."""
    noise = np.random.default_rng(seed).normal(0, 40, (len(BANDS), *classes.shape))
    values: NDArray[np.uint16] = (SPECTRA[classes].transpose(2, 0, 1) + noise).astype(
        np.uint16
    )
    return values


def write_small_scene(folder: Path) -> Path:
    """Write the scene, nodata at its left edge and in a corner; return where."""
    values = pixels(ground(160, 160, seed=5)[:HEIGHT], seed=6)
    values[:, :, :7] = 0
    values[:, 110:, 121:] = 0
    path = folder / 'scene.tif'
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        dtype='uint16',
        count=len(BANDS),
        height=HEIGHT,
        width=WIDTH,
        crs='EPSG:32630',
        transform=Affine(10, 0, 500_000, 0, -10, 4_200_000),
        nodata=0,
    ) as raster:
        raster.write(values)
        raster.descriptions = BANDS
        raster.update_tags(ACQUISITION='2021-06-01T10:00:00+00:00')
    return path


def products(scene: Path, folder: Path, run: str) -> dict[str, Path]:
    """Map the scene with the checkpoint of version 0.1.

    Returns:
        Every file that lies there then, by name: those that predict_scene tells of
        first.
    """
    hparams, arguments = RUNS[run]
    checkpoint, folder = CHECKPOINT, folder / run
    folder.mkdir()
    if hparams:
        content = torch.load(CHECKPOINT, weights_only=True)
        content['hyper_parameters'] |= hparams
        checkpoint = folder.with_suffix('.ckpt')
        torch.save(content, checkpoint)
    mask = predict_scene(
        scene,
        checkpoint,
        folder / 'mask.tif',
        accelerator='cpu',
        progress=False,
        **arguments,
    )
    return {path.name: path for path in (*mask.paths, *sorted(folder.iterdir()))}


def window() -> torch.Tensor:
    """Return a small window, (1, bands, 32, 32), of ground that no training saw."""
    values = pixels(ground(32, 32, seed=9), seed=10).astype(np.float32)
    return torch.from_numpy(values)[None]


def classes(task: Any) -> NDArray[np.int64]:
    """Return the classes (32, 32) that a predictor gives the small window."""
    with torch.no_grad():
        found = task.predict_step({'image': window()}, 0)
    masks = task.pseudo_masks(found['maps'], found['probs'], (32, 32))
    numbers: NDArray[np.int64] = masks[0].numpy()
    return numbers
