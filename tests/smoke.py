"""What `make dist-check` runs in an environment that holds the built wheel alone.

    python -I tests/smoke.py

Isolated mode keeps the clone off the path: what is imported is what was installed.
"""

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import rasterio

#: Libraries of extras, which may be missing.
EXTRAS = {'onnx', 'onnxruntime', 'onnxscript', 'pyarrow', 'pystac'}


def import_everything() -> int:
    """Import every module of the package; return their number."""
    package = importlib.import_module('torchgeo_ctm')
    clone = Path(__file__).parents[1]
    if clone / 'torchgeo_ctm' == Path(str(package.__file__)).parent:
        raise SystemExit(f'{package.__file__} is the clone; needed: the wheel')
    if not Path(str(package.__file__)).with_name('py.typed').exists():
        raise SystemExit('py.typed is missing from the wheel')
    if metadata.version('torchgeo-ctm') != package.__version__:
        raise SystemExit(f'the wheel and {package.__version__} differ')
    modules = list(pkgutil.walk_packages(package.__path__, 'torchgeo_ctm.'))
    for module in modules:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if str(error.name).split('.')[0] not in EXTRAS:
                raise
    return len(modules)


def map_a_scene(folder: Path) -> None:
    """Map a small scene by the command, with random weights, and open every product."""
    from torchgeo.models import get_model

    from torchgeo_ctm.scaling import SENTINEL2_BANDS
    from torchgeo_ctm.trainers import ClassTokenMaskingTask, save_task

    get_model('ctm_vit_tiny_patch16_224')
    options = {'embed_dim': 32, 'depth': 1, 'num_heads': 2}
    task = ClassTokenMaskingTask(img_size=64, model_options=options)
    save_task(task, folder / 'random.ckpt')
    profile = {
        'driver': 'GTiff', 'dtype': 'uint16', 'count': 13, 'height': 100, 'width': 90,
        'crs': 'EPSG:32632',
        'transform': rasterio.Affine(10, 0, 600_000, 0, -10, 6_000_000),
    }  # fmt: skip
    numbers = np.random.default_rng(0).integers(200, 3000, (13, 100, 90))
    with rasterio.open(folder / 'scene.tif', 'w', **profile) as scene:
        scene.write(numbers.astype(np.uint16))
        scene.descriptions = SENTINEL2_BANDS
    command = [Path(sys.executable).with_name('torchgeo-ctm'), 'predict']
    command += [folder / 'scene.tif', '--checkpoint', folder / 'random.ckpt']
    command += ['--output', folder / 'mask.tif', '--accelerator', 'cpu']
    subprocess.run(list(map(str, command)), check=True)
    with rasterio.open(folder / 'mask.tif') as mask:
        if mask.shape != (100, 90) or mask.crs.to_epsg() != 32632:
            raise SystemExit(f'the mask has {mask.shape} px in {mask.crs}')
    for product in ('mask_confidence.tif', 'mask.gpkg', 'mask.qml', 'mask.png'):
        if not (folder / product).stat().st_size:
            raise SystemExit(f'{product} is empty')


if __name__ == '__main__':
    modules = import_everything()
    with tempfile.TemporaryDirectory() as made:
        map_a_scene(Path(made))
    sys.stdout.write(f'{modules} modules imported, a scene mapped\n')
