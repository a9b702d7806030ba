"""Commands that train, and what they start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingError
from ..files import check_not_input
from ..prediction import pseudo_masks
from .inputs import check_inputs, check_output_file, read_seeds
from .output import bars_on_stderr, print_line, print_loading


def demo(
    output: str = 'demo',
    /,
    *,
    synthetic: bool = False,
    compare: bool = False,
    seed: int = 0,
    steps: int | None = None,
) -> None:
    """Train on image-level labels of a real Sentinel-2 scene, map it and score the map.

    Args:
        output: Folder for checkpoint, products and metrics.json.
        synthetic: Use synthetic chips and a synthetic scene, which need no download.
        compare: With --synthetic, also train without masking, and score attention
            alone with and without.
        seed: Seed of data and training.
        steps: Training steps; by default 500, or 800 with --synthetic.
    """
    from ..demo.data import find_scene

    if compare and not synthetic:
        raise SettingError(
            '--compare reads true masks of chips, which only synthetic data have. Pass '
            '--synthetic too.'
        )
    if steps is not None and steps < 1:
        raise SettingError(f'--steps {steps} is too small, expected at least 1.')
    scene = None if synthetic else find_scene()
    print_loading()
    folder = Path(output)
    if synthetic:
        from ..demo import synthetic as made

        with bars_on_stderr():
            metrics = made.run_synthetic_demo(
                folder, compare, seed, steps or made.STEPS
            )
        lines = made.report(metrics)
    else:
        from ..demo import real

        with bars_on_stderr():
            metrics = real.run_demo(folder, seed, steps or real.STEPS)
        lines = real.report(metrics)
    for line in lines:
        print_line(line)
    print_line(
        f'Open {folder / "mask.png"}, and mask.tif and mask.gpkg beside it in QGIS.'
    )
    if scene is not None:
        print_line(f'The scene, one file per band: {scene}')


def train(
    scenes: list[str],
    /,
    *,
    labels: str,
    output: str,
    field: str = 'class',
    layer: str | None = None,
    crs: str | None = None,
    window: int | None = None,
    steps: int = 400,
    seed: int = 0,
    accelerator: str = 'auto',
    resample: Literal['nearest', 'bilinear'] | None = None,
    scene_bands: list[str] | None = None,
    nodata: float | None = None,
    offset: float | None = None,
    config_out: str | None = None,
    overwrite: bool = False,
) -> None:
    """Train on drawn polygons, and choose window, split and scaling from the data.

    Ten polygons on one scene make a first map. The checkpoint maps with predict.

    Args:
        scenes: Scenes with the same bands, as for predict.
        labels: Polygons or points with one class or several, separated by semicolons: a
            GeoPackage or another vector file, or a table with lon and lat. Or a table
            of scenes.
        output: Checkpoint to write (.ckpt).
        field: Attribute or column with the classes.
        layer: Layer of the labels, if their file has several.
        crs: CRS of the labels, if their file has none or a wrong one, as EPSG:32633.
        window: Side of a window in pixels, a multiple of 8; by default the largest of
            64, 48, 32, 24 and 16 that the labels allow.
        steps: Training steps.
        seed: Seed of training, and of what is held out.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        resample: How bands of 20 m and 60 m in files of their own come to the grid of
            10 m: nearest repeats their pixels, bilinear interpolates between valid
            ones. By default nearest. The checkpoint maps with the same.
        scene_bands: Names of the scenes' bands in file order, for scenes whose own
            descriptions are missing or wrong.
        nodata: Value of invalid pixels; by default as the scenes declare them.
        offset: Added to the values to get reflectance x 10,000, as -1000 since
            Sentinel-2 processing baseline 04.00; by default from the metadata.
        config_out: Configuration to write (.yaml), with which torchgeo fit repeats
            the training.
        overwrite: Replace existing files.
    """
    for path, suffix in ((output, '.ckpt'), (config_out, '.yaml')):
        if path is not None:
            check_output_file(Path(path), overwrite, suffix)
            for source in (labels, *scenes):
                check_not_input(path, source)
    for scene in scenes:
        check_inputs(scene=scene, labels=labels)
    print_loading()
    from ..labels.detect import read_labels

    # mistakes in labels are told before TorchGeo, which takes seconds, is imported
    read_labels(labels, field, layer, crs)
    from .. import train as training
    from ..configuration import write_content

    plan = training.plan(
        scenes,
        labels,
        field,
        layer=layer,
        crs=crs,
        window=window,
        steps=steps,
        seed=seed,
        accelerator=accelerator,
        resample=resample,
        scene_bands=scene_bands,
        nodata=nodata,
        offset=offset,
    )
    for line in plan.reasons:
        print_line(line)
    with bars_on_stderr():
        logged = training.train(plan.content, Path(output), overwrite=overwrite)
    if config_out is not None:
        write_content(plan.content, Path(config_out), plan.reasons)
        print_line(config_out)
    for name in ('label_loss', 'val_balanced_bce'):
        if name in logged:
            print_line(f'{name}: {logged[name]:.3f}')
    print_line(output)


def choose(
    *,
    config: str,
    output: str | None = None,
    settings: str | None = None,
    seeds: str = '0',
    steps: int = 200,
    accelerator: str = 'auto',
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Choose the setting with the best masks by image-level labels alone.

    Trains for a short time with each setting, and compares them by val_balanced_bce of
    the validation split. Options --data.KEY VALUE and --model.KEY VALUE override the
    configuration, as those of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml) that trains ClassTokenMaskingTask.
        output: Configuration to write (.yaml) with the chosen setting, for torchgeo fit
            --config OUTPUT.
        settings: Other settings to choose from (.yaml), each a name with arguments of
            the task; by default four.
        seeds: Seeds of training, as 0,1,2; each trains every setting once.
        steps: Training steps of each network.
        accelerator: Device, as Lightning names it: auto, cpu, gpu, mps.
        overwrite: Replace an existing configuration.
        overrides: Arguments that override the configuration.
    """
    if output is not None:
        check_output_file(Path(output), overwrite, '.yaml')
        check_not_input(Path(output), config)
    check_inputs(config=config)
    numbers = read_seeds(seeds)
    print_loading()
    from ..choose import choose_setting
    from ..configuration import Overridden, write_config

    config = Overridden(config, overrides)
    choice = choose_setting(
        config, settings, seeds=numbers, steps=steps, accelerator=accelerator
    )
    report = choice.report()
    for line in report:
        print_line(line)
    if output is not None:
        write_config(config, choice.settings[choice.taken], Path(output), report)
        print_line(output)


def pseudomasks(
    *,
    config: str,
    checkpoint: str,
    output: str,
    overrides: Sequence[str] = (),
    **options: Any,
) -> None:
    """Write the pseudo-masks of a data set, as the paper's scripts do.

    Options --data.KEY VALUE override the configuration, as those of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml); its data section names the chips.
        checkpoint: Checkpoint (.ckpt) of ClassTokenMaskingTask, or of the segmentation
            network that configs/segmentation.yaml trains.
        output: Folder for pms_NAME.npy, imgs_NAME.npy and masks_NAME.npy, and for
            GeoTIFFs, mask and confidence, of the georeferenced chips.
        overrides: Arguments that override the configuration.
        **options: See :func:`~torchgeo_ctm.prediction.pseudo_masks`.
    """
    check_inputs(config=config, checkpoint=checkpoint)
    print_loading()
    from ..configuration import Overridden

    configured = Overridden(config, overrides)
    with bars_on_stderr():
        written = pseudo_masks(configured, checkpoint, output, progress=True, **options)
    print_line(f'{"chips":<20}  {written["chips"]}')
    print_line(f'{"GeoTIFFs":<20}  {written["rasters"]}')
    if 'miou' in written:
        print_line(f'{"miou":<20}  {written["miou"]:.3f}')
