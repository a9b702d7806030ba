"""Scenes of embeddings, in the layout of TorchGeo 0.10: trained and mapped as they are."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torchgeo.datasets
import yaml
from numpy.typing import NDArray

from tests.commands import Run, TorchGeoMain
from tests.fakes.land_cover import (
    CLASSES,
    LandCover,
    write_land_cover,
    write_raster,
    write_squares,
)
from torchgeo_ctm import scoring
from torchgeo_ctm.demo.synthetic import constant_guess_miou

REPOSITORY = Path(__file__).parents[2]
WINDOW = 32
ALPHAEARTH = tuple(f'A{number:02}' for number in range(64))
#: File below the root, band descriptions and TorchGeo's class of each product.
PRODUCTS: dict[str, tuple[str, tuple[str, ...] | None, int, str]] = {
    'alphaearth': (
        '2024/3{number}N/x{number}-0000000000-0000000000.tiff',
        ALPHAEARTH,
        64,
        'GoogleSatelliteEmbedding',
    ),
    'tessera': ('grid_{number}.05_47.85_2024.tiff', None, 128, 'TesseraEmbeddings'),
    'olmoearth': ('olmoearth_{number}.tif', None, 128, ''),
}


def embedded(classes: NDArray[np.uint8], bands: int) -> NDArray[np.float32]:
    """Return unit vectors (bands, H, W) around one of each class."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (len(CLASSES), bands))
    vectors = centers[classes] + rng.normal(0, 0.5, (*classes.shape, bands))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.moveaxis(vectors, -1, 0).astype(np.float32)


def write_embeddings(folder: Path, product: str, number: int) -> LandCover:
    """Write a scene of embeddings, and its classes."""
    file, descriptions, bands, _ = PRODUCTS[product]
    land = write_land_cover(folder, f'land_{number}', 32, number, size=288, cell=30)
    path = folder / product / file.format(number=number)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = embedded(land.classes, bands)
    write_raster(path, pixels, land.crs, land.transform, descriptions=descriptions)
    return land._replace(scene=path)


@pytest.mark.slow
@pytest.mark.parametrize('product', PRODUCTS)
def test_embeddings_are_learned_and_mapped(
    tmp_path: Path, torchgeo_main: TorchGeoMain, run: Run, product: str
) -> None:
    trained, unseen = (write_embeddings(tmp_path, product, n) for n in (1, 2))
    squares = write_squares(tmp_path / 'squares.gpkg', [trained], WINDOW, 16)
    _, names, bands, dataset = PRODUCTS[product]
    if hasattr(torchgeo.datasets, dataset):
        opened = getattr(torchgeo.datasets, dataset)(tmp_path / product)
        assert len(opened) == 2
    page = (REPOSITORY / 'docs' / 'how-to' / 'embeddings.md').read_text()
    config = yaml.safe_load(page.split('```yaml\n')[1].split('```')[0])
    config['model']['init_args'] |= {'in_channels': bands, 'img_size': WINDOW}
    config['model']['init_args']['bands'] = None if names is None else list(names)
    config['data']['init_args'] |= {'scene': str(trained.scene), 'batch_size': 8}
    config['data']['init_args'] |= {'block_size': 96}
    config['data']['init_args']['labels']['init_args']['path'] = str(squares)
    (tmp_path / 'embeddings.yaml').write_text(yaml.safe_dump(config))
    arguments = ['--config', REPOSITORY / 'configs' / 'scene_training.yaml']
    arguments += ['--config', tmp_path / 'embeddings.yaml']
    torchgeo_main(
        'fit', *arguments, '--trainer.accelerator=cpu', '--trainer.precision=32-true',
        '--trainer.max_epochs=3', '--data.init_args.length=64',
        '--model.init_args.model_options={embed_dim: 16, depth: 1, num_heads: 2}',
    )  # fmt: skip
    [checkpoint] = tmp_path.glob('output/**/last.ckpt')
    mask = tmp_path / 'mask.tif'
    status, _, err = run(
        'predict', unseen.scene, '--checkpoint', checkpoint, '--output', mask
    )
    assert status == 0, err
    scores = scoring.evaluate(mask, unseen.reference)
    with rasterio.open(mask) as raster:
        assert raster.crs.to_string() == unseen.crs
    assert scores['miou'] > 0.4 > constant_guess_miou(np.array(scores['confusion']))
