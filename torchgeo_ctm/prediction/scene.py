"""Map a scene with a checkpoint.

PyTorch takes seconds to import, Lightning and TorchGeo many more: the functions import
what they need.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AreaNote, SettingError, did_you_mean
from ..files import check_not_input, given_paths
from ..inference.options import ProductOptions
from .trainer import check_choices

if TYPE_CHECKING:
    import torch

    from ..inference.scene_mask import SceneMask

#: Share of an area below which what lies outside of the scene is told.
WHOLE = 0.99


def predict_scene(
    # a path or an array of xarray, whose type jsonargparse would import
    scene: Any,
    checkpoint: str | Path,
    output: str | Path,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 10,
    num_workers: int | None = None,
    scene_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    offset: float | None = None,
    ensemble: Literal['dihedral'] | None = None,
    shifted_grids: bool = False,
    adapt: Literal['dark', 'none'] | None = None,
    clouds: Literal['scl', 'none', 's2cloudless', 'omnicloudmask'] | None = None,
    cloud_mask: str | Path | None = None,
    cloud_dilation: int = 6,
    bbox: Sequence[float] | str | None = None,
    area: str | Path | None = None,
    resample: Literal['nearest', 'bilinear'] | None = None,
    sign: Callable[[str], str] | None = None,
    accelerator: str = 'auto',
    precision: str = '32-true',
    overwrite: bool = False,
    progress: bool = True,
    **products: Any,
) -> 'SceneMask':
    """Write the georeferenced pseudo-mask of a scene.

    Runs the same loop as ``torchgeo predict --config configs/scene.yaml``, without
    Lightning. Call it again with the same arguments to resume an interrupted run.

    Args:
        scene: A raster that GDAL opens, a folder with one file per band, a ``.SAFE``, a
            STAC item (``ITEM.json``, ``ITEMS.json#ID``). Or an ``xarray.DataArray``
            (band, y, x) with a CRS in ``rio``, which is written to a raster beside
            *output* for the time of the run.
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`, or of TorchGeo's
            segmentation task trained on pseudo-masks
            (:func:`~torchgeo_ctm.trainers.load_predictor`).
        output: Class raster to write (.tif); the other products are written beside it.
        window: Side of a window in pixels, by default 256, or that of the training chips
            if masks come from class tokens.
        stride: Distance between windows in pixels, by default an overlap of 32 px, or
            half a window if masks come from class tokens.
        batch_size: Windows per batch.
        num_workers: Threads that read ahead and decode; 0 alternates reading and the
            model. By default 1 for a local scene on a CPU, else 2.
        scene_bands: Names of the scene's bands in file order, as B01,B02,..., if its
            own descriptions are missing or wrong.
        nodata: Nodata value, by default that of the scene.
        offset: Added to the scene's values to make them reflectance x 10,000, as -1000
            for Sentinel-2 processing baseline 04.00 and later. By default that of the
            metadata, else that of the training data.
        ensemble: Use dihedral to average over flips and quarter turns of each window.
        shifted_grids: Place the patch grid of overlapping windows at different offsets.
        adapt: Use dark to subtract the scene's haze and to move its brightness a
            quarter of the way to the training data, none to map it as it is. By
            default as in training.
        clouds: Use scl to make clouds, their shadows and cirrus of the scene
            classification nodata, none to map them. By default scl where the scene has
            one, as Sentinel-2 Level-2A. Or a package that finds clouds, and writes them
            beside the mask, OUTPUT_clouds.tif: s2cloudless for Sentinel-2 Level-1C,
            omnicloudmask for both levels.
        cloud_mask: Raster of clouds instead, on any grid: RASTER, where all but 0 is
            cloud, or RASTER:VALUES, as mask.tif:2,4. {scene} in it stands for the
            name of the scene without suffix.
        cloud_dilation: Pixels around clouds that are nodata too.
        bbox: Map the part of the scene in a box alone: west, south, east, north in
            degrees of longitude and latitude.
        area: Map the part of the scene in polygons alone, a vector file in any CRS. What
            is outside of them is nodata.
        resample: How bands of 20 m and 60 m in files of their own come to the grid of
            10 m: nearest repeats their pixels, bilinear interpolates between valid
            ones. By default as in training, else nearest. A scene in one raster has one
            grid, and stays as it is.
        sign: Function that changes the URL of each asset of a STAC item, as to add a
            token: planetary_computer.sign.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps. For others use
            ``torchgeo predict``.
        precision: Precision of the model, as Lightning names it: 32-true, bf16-mixed.
        overwrite: Replace existing products.
        progress: Show a progress bar.
        **products: Products beside the mask, see
            :class:`~torchgeo_ctm.inference.options.ProductOptions`.

    Returns:
        The products.

    Raises:
        CTMError: If any input cannot be used. Nothing is written then.
    """
    if not isinstance(scene, str | Path):
        given = {k: v for k, v in locals().items() if k not in ('scene', 'products')}
        given.update(products)
        from ..inference.geotiff import check_output
        from ..scenes.arrays import array_raster

        check_output(output, overwrite)
        with array_raster(scene, output, scene_bands) as raster:
            return predict_scene(raster, **given)
    check_not_input(output, scene)
    check_not_input(output, checkpoint)
    for name in products:
        if name not in ProductOptions.__dataclass_fields__:
            known = ProductOptions.__dataclass_fields__
            raise SettingError(
                f'predict_scene has no argument {name!r}.{did_you_mean(name, known)}'
            )
    options = ProductOptions(**products)
    check_choices(accelerator, precision)
    if cloud_mask is not None:
        [cloud_mask] = given_paths('cloud_mask', [cloud_mask])
    detector = chosen_detector(clouds, cloud_mask, cloud_dilation)
    import torch

    from ..inference.geotiff import remove_raster
    from ..inference.paths import product_path, product_paths
    from ..inference.scene_loop import SceneLoop
    from ..scenes.area import chosen_area
    from ..scenes.coverage import Coverage
    from ..trainers.any_checkpoint import load_scene_predictor

    loop = SceneLoop(output, overwrite, options, progress)
    [path] = loop.outputs([str(scene)])
    for product in product_paths(path, options).values():
        check_not_input(product, area if isinstance(area, str | Path) else scene)
    predictor = load_scene_predictor(checkpoint).with_options(ensemble=ensemble)
    device = _device(accelerator)
    if precision == '16-mixed' and device.type == 'cpu':
        # CPUs have no autocast to 16 bits but bfloat16
        precision = 'bf16-mixed'
    coverage = Coverage(
        batch_size=batch_size,
        num_workers=num_workers,
        window=window,
        stride=stride,
        scene_bands=scene_bands,
        nodata=nodata,
        offset=offset,
        shifted_grids=shifted_grids,
        adapt=adapt,
        # those of a detector come once all inputs are checked
        clouds='none' if detector else clouds,
        cloud_mask=cloud_mask,
        cloud_dilation=cloud_dilation,
        sign=sign,
        resample=resample,
    )
    batches = coverage.batches([str(scene)], predictor, device.type)
    opened = batches[0].scene
    opened.area = chosen_area(opened.scene, opened.grid, bbox, area)
    if opened.area is not None and opened.area.inner < WHOLE:
        warnings.warn(
            f'{opened.scene}: {100 * opened.area.inner:.0f} % of {opened.area.name} lies '
            'in the scene, the rest is not mapped.',
            AreaNote,
            stacklevel=2,
        )
    loop.check(predictor, batches)
    found, written = {}, False
    try:
        if detector is not None:
            from ..inference.cloud_detection import CloudDetection, detected_clouds

            found = {'clouds': product_path(path, 'clouds')}
            written = CloudDetection.open(
                detector, opened, predictor, scene_bands, sign, offset
            ).write(found['clouds'], overwrite, device.type, progress)
            opened.clouds = detected_clouds(opened, found['clouds'], cloud_dilation)
            opened.warn_of_clouds()
        coverage.adapt_scenes(batches, predictor)
        loop.begin(predictor.to(device), batches, precision)
        predictor.on_predict_start()
        with torch.inference_mode():
            loop.run(predictor, lambda: _autocast(precision, device))
    except BaseException as error:
        if not loop.abandon(error) and written:
            remove_raster(found['clouds'])
        raise
    from ..inference.scene_mask import SceneMask

    return SceneMask(product_paths(path, options) | found)


def chosen_detector(
    clouds: str | None, cloud_mask: str | None, dilation: int
) -> str | None:
    """Return the package that finds the clouds of scenes, None if none does.

    Raises:
        SettingError: If the options of clouds contradict each other, or the package is
            not installed.
    """
    from ..scenes.clouds import CloudOptions
    from ..scenes.detectors import DETECTORS

    CloudOptions(clouds, cloud_mask, dilation)
    if clouds not in DETECTORS:
        return None
    from ..inference.cloud_detection import check_detector

    check_detector(clouds)
    return clouds


def _device(accelerator: str) -> 'torch.device':
    """Return the device of an accelerator, as Lightning chooses it.

    Raises:
        SettingError: If there is none here.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {'cpu': True, 'cuda': cuda, 'mps': mps}
    kinds = {'auto': ('mps', 'cuda', 'cpu'), 'gpu': ('mps', 'cuda')}
    for kind in kinds.get(accelerator, (accelerator,)):
        if here.get(kind):
            return torch.device(kind, 0) if kind != 'cpu' else torch.device('cpu')
    raise SettingError(
        f"accelerator={accelerator!r} is not available here. Did you mean 'auto'?"
    )


def _autocast(precision: str, device: 'torch.device') -> AbstractContextManager[Any]:
    """Return the context of a precision, the same as Lightning's."""
    import torch

    if precision == '32-true':
        return nullcontext()
    dtype = torch.float16 if precision == '16-mixed' else torch.bfloat16
    return torch.autocast(device.type, dtype, cache_enabled=False)
