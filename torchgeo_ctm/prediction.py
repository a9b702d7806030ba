"""A scene and a checkpoint in, the products of the scene out.

PyTorch takes seconds to import, Lightning and TorchGeo many more: the functions import
what they need.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import DataError, SettingError, did_you_mean, one_line
from .files import check_not_input
from .inference.options import ProductOptions
from .lightning_messages import quiet_lightning
from .split import Split

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
    from numpy.typing import NDArray

    from .inference.chip_writer import ChipMaskWriter
    from .inference.scene_mask import SceneMask

ACCELERATORS = ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu')
PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


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
    cloud_mask: str | None = None,
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
        from .inference.geotiff import check_output
        from .scenes.arrays import array_raster

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
    detector = chosen_detector(clouds, cloud_mask, cloud_dilation)
    import torch

    from .inference.geotiff import product_path, remove_raster
    from .inference.products import product_paths
    from .inference.scene_loop import SceneLoop
    from .scenes.area import chosen_area
    from .scenes.coverage import Coverage
    from .trainers.loading import load_scene_predictor

    loop = SceneLoop(output, overwrite, options, progress)
    [path] = loop.outputs([str(scene)])
    for product in product_paths(path, options).values():
        check_not_input(product, area or scene)
    predictor = load_scene_predictor(checkpoint).with_options(ensemble=ensemble)
    device = _device(accelerator)
    if precision == '16-mixed' and device.type == 'cpu':
        # CPUs have no autocast to 16 bits but bfloat16
        precision = 'bf16-mixed'
    coverage = Coverage(
        batch_size,
        num_workers,
        window,
        stride,
        scene_bands,
        nodata,
        offset,
        shifted_grids,
        adapt,
        # those of a detector come once all inputs are checked
        'none' if detector else clouds,
        cloud_mask,
        cloud_dilation,
        sign,
        resample,
    )
    batches = coverage.batches([str(scene)], predictor, device.type)
    opened = batches[0].scene
    opened.area = chosen_area(opened.scene, opened.grid, bbox, area)
    loop.check(predictor, batches)
    found, written = {}, False
    try:
        if detector is not None:
            from .inference.cloud_detection import CloudDetection, detected_clouds

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
    from .inference.scene_mask import SceneMask

    return SceneMask(product_paths(path, options) | found)


def chosen_detector(
    clouds: str | None, cloud_mask: str | None, dilation: int
) -> str | None:
    """Return the package that finds the clouds of scenes, None if none does.

    Raises:
        SettingError: If the options of clouds contradict each other, or the package is
            not installed.
    """
    from .scenes.clouds import CloudOptions
    from .scenes.detectors import DETECTORS

    CloudOptions(clouds, cloud_mask, dilation)
    if clouds not in DETECTORS:
        return None
    from .inference.cloud_detection import check_detector

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


def pseudo_masks(
    config: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    split: Split = 'val',
    labels: Literal['predicted', 'true'] = 'predicted',
    source: Literal['attention', 'patches', 'patchcam', 'fused'] | None = None,
    rule: Literal['argmax', 'paint'] | None = None,
    ensemble: Literal['dihedral'] | None = None,
    accelerator: str = 'auto',
    overwrite: bool = False,
    images: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the pseudo-masks of a data set's split, as arrays and GeoTIFFs.

    Args:
        config: Configuration of ``torchgeo``; its ``data`` section says which chips.
        checkpoint: As for :func:`predict_scene`.
        output: Folder for ``pms_NAME.npy``, ``imgs_NAME.npy``, ``masks_NAME.npy``, and
            ``pms_NAME/`` with GeoTIFFs of mask and confidence for each georeferenced
            chip.
        split: Split to read: train, val or test; in order, and as evaluation crops it.
        labels: Classes taken as present in a chip: predicted ones, or the true ones of
            its label.
        source: Source of the class maps: attention, patches, patchcam or fused; by default the
            checkpoint's. For class-token checkpoints only, as is rule.
        rule: How class maps become masks: paint or argmax; by default the checkpoint's.
            The paper's paint also takes its presence threshold, and no refinement.
        ensemble: Use dihedral to average over flips and quarter turns of each chip.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        overwrite: Replace existing arrays.
        images: Write imgs_NAME.npy, by far the largest array.
        progress: Show a progress bar.

    Returns:
        ``chips`` and ``rasters``, how many were written. With true masks also what
        :func:`torchgeo_ctm.scoring.summarize` returns.

    Raises:
        CTMError: If any input cannot be used. No array is written then.
    """
    from .configuration import read_data
    from .datamodules import ChipDataModule
    from .inference.chip_writer import ChipMaskWriter
    from .scoring import summarize
    from .trainers import load_predictor

    check_choices(accelerator)
    quiet_lightning()
    task = load_predictor(checkpoint)
    chosen = {'source': source, 'rule': rule}
    given: dict[str, Any] = {k: v for k, v in chosen.items() if v is not None}
    if rule == 'paint':
        # the defaults of a checkpoint do not go with this rule
        given |= {'presence': 'threshold', 'refinement': None}
    try:
        task.with_options(ensemble=ensemble, labels=labels, **given)
    except SettingError as error:
        raise SettingError(f'{checkpoint}: {error}') from error
    datamodule = ChipDataModule(read_data(config), split)
    writer = ChipMaskWriter(str(output), datamodule.dataset_name, overwrite, images)
    _predict(task, datamodule, [writer], accelerator, progress)
    written: dict[str, Any] = {'chips': writer.chips, 'rasters': writer.rasters}
    if writer.path('masks').exists():
        confusion = _confusion(writer, len(task.class_names))
        written |= summarize(confusion, task.class_names)
    return written


def _confusion(writer: 'ChipMaskWriter', num_classes: int) -> 'NDArray[np.int64]':
    """Return the confusion matrix of the written arrays, chip by chip."""
    import numpy as np

    from .scoring import confusion_matrix

    truth = np.load(writer.path('masks'), mmap_mode='r')
    masks = np.load(writer.path('pms'), mmap_mode='r')
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for reference, mask in zip(truth, masks, strict=True):
        confusion += confusion_matrix(reference, mask, num_classes)
    return confusion


def _predict(
    task: 'LightningModule',
    datamodule: 'LightningDataModule',
    callbacks: list['Callback'],
    accelerator: str,
    progress: bool,
) -> None:
    """Run Lightning's prediction, and re-raise its errors and exits as ours."""
    from lightning.pytorch.callbacks import TQDMProgressBar

    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    trainer = build_trainer(
        accelerator, callbacks=callbacks, enable_progress_bar=progress
    )
    with running(trainer):
        trainer.predict(task, datamodule=datamodule, return_predictions=False)


def build_trainer(
    accelerator: str, precision: str = '32-true', **options: Any
) -> 'Trainer':
    """Return a Trainer on one device that writes no logs and no checkpoints.

    Args:
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        precision: Precision of the model, as Lightning names it.
        **options: Of Lightning's ``Trainer``.

    Raises:
        SettingError: If the device or the precision is unknown, or not available.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    check_choices(accelerator, precision)
    quiet_lightning()
    try:
        return Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            logger=False,
            enable_model_summary=False,
            **({'enable_checkpointing': False} | options),
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise SettingError(
            f"accelerator={accelerator!r} is not available here. Did you mean 'auto'?"
        ) from error


@contextmanager
def running(trainer: 'Trainer') -> Iterator[None]:
    """Re-raise Lightning's errors and exits in the block as ours."""
    from torchgeo.datasets import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        raise DataError(one_line(error)) from error
    except SystemExit:
        # Lightning turns Ctrl-C into SystemExit
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def check_choices(accelerator: str, precision: str = '32-true') -> None:
    """Check the names of accelerator and precision.

    Raises:
        SettingError: If one is unknown.
    """
    for name, value, known in (
        ('accelerator', accelerator, ACCELERATORS),
        ('precision', precision, PRECISIONS),
    ):
        if value not in known:
            raise SettingError(
                f'Unknown {name} {value!r}, expected one of: {", ".join(known)}.'
                + did_you_mean(value, known)
            )
