"""The commands of ``torchgeo-ctm``: one function each.

The signature and docstring of a function are the options and the help of its command.
``**options`` are those of the function that they are passed to. Everything heavy is
imported inside the functions, so that help and errors in options come at once.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from .errors import (
    CheckpointError,
    CTMError,
    DataError,
    LabelError,
    OutputError,
    SceneError,
    SettingError,
    similar_file,
)
from .files import atomic_path, check_file, check_not_input, write_text
from .prediction import predict_scene, pseudo_masks
from .split import Split


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
    from .demo.data import find_scene

    if compare and not synthetic:
        raise SettingError(
            '--compare reads true masks of chips, which only synthetic data have. Pass '
            '--synthetic too.'
        )
    if steps is not None and steps < 1:
        raise SettingError(f'--steps {steps} is too small, expected at least 1.')
    scene = None if synthetic else find_scene()
    _loading()
    folder = Path(output)
    if synthetic:
        from .demo import synthetic as made

        metrics = made.run_synthetic_demo(folder, compare, seed, steps or made.STEPS)
        lines = made.report(metrics)
    else:
        from .demo import real

        metrics = real.run_demo(folder, seed, steps or real.STEPS)
        lines = real.report(metrics)
    for line in lines:
        _print(line)
    _print(f'Open {folder / "mask.png"}, and mask.tif and mask.gpkg beside it in QGIS.')
    if scene is not None:
        _print(f'The scene, one file per band: {scene}')


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
        config_out: Configuration to write (.yaml), with which torchgeo fit repeats
            the training.
        overwrite: Replace existing files.
    """
    for path, suffix in ((output, '.ckpt'), (config_out, '.yaml')):
        if path is not None:
            _check_file(Path(path), overwrite, suffix)
            for source in (labels, *scenes):
                check_not_input(path, source)
    for scene in scenes:
        _check_inputs(scene=scene, labels=labels)
    _loading()
    from .labels.detect import read_labels

    # mistakes in labels are told before TorchGeo, which takes seconds, is imported
    read_labels(labels, field, layer, crs)
    from . import train as training
    from .configuration import write_content

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
    )
    for line in plan.reasons:
        _print(line)
    logged = training.train(plan.content, Path(output))
    if config_out is not None:
        write_content(plan.content, Path(config_out), plan.reasons)
        _print(config_out)
    for name in ('label_loss', 'val_balanced_bce'):
        if name in logged:
            _print(f'{name}: {logged[name]:.3f}')
    _print(output)


def search(
    *,
    bbox: list[str],
    date: str,
    catalog: str,
    output: str,
    collection: str = 'sentinel-2-l2a',
    max_cloud: float = 100.0,
    limit: int = 100,
    overwrite: bool = False,
) -> None:
    """Find the scenes of a place and a time in a STAC catalog, for predict.

    Args:
        bbox: Box of longitude and latitude that scenes touch: west, south, east, north.
        date: A day, month or year, or two with a slash, as 2026-06/2026-07.
        catalog: URL of a STAC API, or URL or path of a static catalog.json.
        output: Scenes to write: .json (ItemCollection) or .parquet (GeoParquet). A
            picture of their footprints (.png) is written beside it.
        collection: Id of the collection; '' for any or none.
        max_cloud: Highest cloud cover in percent. Scenes that do not tell it stay.
        limit: Most scenes that are found, the earliest first.
        overwrite: Replace existing files.
    """
    from . import catalog as stac

    path = stac.check_scenes(output, overwrite)
    _check_file(path.with_suffix('.png'), overwrite, '.png')
    items = stac.search(
        catalog, bbox, date, collection=collection, max_cloud=max_cloud, limit=limit
    )
    from .plots import footprint_figure

    for line in stac.lines(items):
        _print(line)
    stac.write_scenes(items, path)
    figure = footprint_figure(stac.footprints(items), stac.box_corners(bbox))
    _write_figure(path.with_suffix('.png'), figure)
    for written in (path, path.with_suffix('.png')):
        _print(str(written))


def predict(
    scene: list[str],
    /,
    *,
    checkpoint: str,
    output: str,
    combine: Literal['mean', 'clearest'] | None = None,
    shard: str | None = None,
    **options: Any,
) -> None:
    """Write the georeferenced pseudo-mask of a scene, of several dates, or of many scenes.

    Args:
        scene: A raster that GDAL opens, a folder with one file per band, or a .SAFE.
            Several scenes are dates of one place, on one grid, or any scenes if --output
            is a folder. Also items that search writes, SCENES.json, and one of them,
            SCENES.json#ID.
        checkpoint: Checkpoint (.ckpt) of ClassTokenMaskingTask, or of the segmentation
            network that configs/segmentation.yaml trains. Or what publish wrote: a
            folder, or hf://USER/NAME@REVISION.
        output: Class raster to write, MASK.tif; the other products are written beside it.
            Or an existing folder, for a map of each scene, named after it.
        combine: How several dates make one map: mean takes the class with the highest
            mean score of the dates without a cloud, clearest that of the date with the
            fewest clouds that sees the pixel.
        shard: Map only the I-th of N parts of the scenes, I/N, as 1/8. N processes with
            1/N to N/N map all scenes into one folder.
        **options: See :func:`~torchgeo_ctm.prediction.predict_scene`.
    """
    if shard is not None or (combine is None and Path(output).is_dir()):
        if combine is not None:
            raise SettingError('Got --shard and --combine, expected one of both.')
        _predict_many(scene, checkpoint, output, shard, options)
        return
    if len(scene) > 1 and combine is None:
        raise SettingError(
            f'Got {len(scene)} scenes. Pass --combine mean or --combine clearest for one '
            'map of several dates, or an existing folder as --output for a map of each. '
            'Quote names with spaces.'
        )
    for each in scene:
        _check_inputs(scene=each, checkpoint=checkpoint)
        check_not_input(output, each)
    from .inference.geotiff import check_output
    from .scenes.items import item_names

    items = item_names(scene)
    if combine is None and len(items) > len(scene):
        raise SettingError(
            f'{scene[0]} holds {len(items)} scenes. Choose one by its id, as '
            f"'{items[0]}', or pass --combine mean for one map of all."
        )
    scene = items

    # jsonargparse, which looks for **options, rejects options[...] inside a call
    overwrite = options['overwrite']
    check_output(output, overwrite)
    _loading()
    # these import PyTorch
    from .inference.memory import limit_memory
    from .trainers.published import locate

    # downloaded, if it is on the Hub
    model = locate(checkpoint)
    if model.commit is not None:
        _print(f'{"commit":<20}  {model.commit}')

    limit_memory(scene)
    if combine is not None and len(scene) > 1:
        from .dates import predict_dates

        mask = predict_dates(scene, model.path, output, combine=combine, **options)
    else:
        mask = predict_scene(scene[0], model.path, output, progress=True, **options)
    for path in mask.paths:
        _print(str(path))


def _predict_many(
    scenes: list[str],
    checkpoint: str,
    output: str,
    shard: str | None,
    options: dict[str, Any],
) -> None:
    """Write a map of each scene, and tell which failed.

    Raises:
        SceneError: If any failed, after all others were mapped.
    """
    from .shards import predict_scenes, read_shard

    if shard is not None:
        read_shard(shard)
    _check_inputs(checkpoint=checkpoint)
    from .scenes.items import item_names

    every = item_names(scenes)
    _loading()
    from .inference.memory import limit_memory

    limit_memory(every)
    counts, failed = {'mapped': 0, 'already there': 0, 'failed': 0}, []
    given = options | {'shard': shard, 'progress': sys.stderr.isatty()}
    for result in predict_scenes(every, checkpoint, output, **given):
        if result.failure is not None:
            counts['failed'] += 1
            failed.append(result.scene)
            sys.stderr.write(f'torchgeo-ctm: failed: {result.failure}\n')
            continue
        counts['already there' if result.kept else 'mapped'] += 1
        if not result.kept:
            _print(str(result.path))
    part = '' if shard is None else f', shard {shard} of {len(every)} scenes'
    _print(', '.join(f'{number} {what}' for what, number in counts.items()) + part)
    if failed:
        more = f' and {len(failed) - 5} more' if len(failed) > 5 else ''
        raise SceneError(
            f'{len(failed)} of {len(every)} scenes failed: {", ".join(failed[:5])}{more}. '
            'Run the same command again to map only what is left.'
        )


def vectorize(
    mask: str,
    output: str,
    /,
    *,
    confidence: str | None = None,
    sieve: int = 0,
    min_area: float = 0.0,
    simplify: float = 0.0,
    fill_holes: float = 0.0,
    smooth: bool = False,
    style: bool = True,
    hectares: bool = False,
    overwrite: bool = False,
) -> None:
    """Convert a mask to polygons with class, name, area and mean confidence.

    Args:
        mask: Class raster written by predict.
        output: File to write: .gpkg, .parquet (GeoParquet) or .fgb (FlatGeobuf).
        confidence: Confidence raster; by default MASK_confidence.tif, if it exists.
        sieve: Merge regions of fewer pixels into their largest neighbor.
        min_area: Leave out polygons of fewer hectares.
        simplify: Simplify borders by triangles of about this side in meters. Neighbors
            keep one border.
        fill_holes: Fill holes of fewer hectares, and the polygons in them.
        smooth: Cut the corners of borders. Neighbors keep one border.
        style: Write OUTPUT.qml, colors and names for QGIS, and put them into a GeoPackage.
        hectares: Put the hectares of each class into the names of the QGIS legend.
        overwrite: Replace existing files.
    """
    from .inference import vector
    from .inference.style import has_style, style_of

    vector.check_vector_output(output, overwrite)
    named = Path(output).with_suffix('.qml')
    # polygons in another format share the style that is there
    if style and not has_style(mask, named, hectares):
        _check_file(named, overwrite, '.qml')

    path = vector.vectorize(
        mask,
        output,
        confidence=confidence or _confidence_of(mask),
        sieve=sieve,
        min_area=min_area,
        simplify=simplify,
        fill_holes=fill_holes,
        smooth=smooth,
        style=style,
        hectares=hectares,
        overwrite=overwrite,
    )
    _print(str(path))
    if style:
        _print(str(style_of(mask, named, hectares)))


def evaluate(
    mask: str,
    reference: str,
    /,
    *,
    classes: list[str] | None = None,
    class_map: list[str] | None = None,
    align: bool = False,
    band: int | None = None,
    kappa: bool = False,
    json: str | None = None,
    plot: str | None = None,
    overwrite: bool = False,
) -> None:
    """Score a mask against a reference raster.

    Args:
        mask: Class raster written by predict.
        reference: Raster of classes, compared by name where both rasters name them;
            255, nodata and negatives do not count.
        classes: Names of the reference's values 0, 1, 2, ..., if it does not name them.
        class_map: Names of the reference's values: worldcover, dfc2020, dynamic-world,
            esri, igbp or igbp-simplified, and VALUE=NAME or NAME=OTHER pairs, as
            "worldcover,Tree cover=Forest,Shrubland=Forest,70=". Nothing after the
            sign leaves a class out.
        align: Bring a reference with another grid or CRS to the grid of the mask, by
            nearest neighbor.
        band: Band of the reference with the classes, if it has several.
        kappa: Also print Cohen's kappa.
        json: File to write the scores to.
        plot: Picture of the confusion matrix to write (.png).
        overwrite: Replace existing files.
    """
    import numpy as np

    from . import scoring

    for path, suffix in ((json, '.json'), (plot, '.png')):
        if path is not None:
            _check_file(Path(path), overwrite, suffix)
    scores = scoring.evaluate(
        mask, reference, classes, class_map=class_map, align=align, band=band
    )
    confusion = np.array(scores['confusion'])
    if kappa:
        scores['kappa'] = scoring.cohens_kappa(confusion)
    if json is not None:
        _write_json(Path(json), scores)
    if plot is not None:
        from .plots import confusion_figure

        figure = confusion_figure(confusion, [*scores['iou']], 'reference', 'mask')
        _write_figure(Path(plot), figure)
    columns = ('iou', 'users_accuracy', 'producers_accuracy', 'f1')
    width = max(20, *map(len, scores['iou']))
    _print(f'{"class":<{width}}  {"  ".join(columns)}')
    for name in scores['iou']:
        values = [(scores[key][name], len(key)) for key in columns]
        cells = [f'{"-" if v is None else f"{v:.3f}":>{max(n, 5)}}' for v, n in values]
        _print(f'{name:<{width}}  {"  ".join(cells).strip()}')
    averages = ('miou', 'pixel_accuracy', 'average_accuracy', 'macro_f1', 'weighted_f1')
    for name in (*averages, *(['kappa'] if kappa else [])):
        _print(f'{name:<{width}}  {scores[name]:.3f}')
    for name in ('pixels', 'pixels_without_mask'):
        _print(f'{name:<{width}}  {scores[name]}')


def sample(
    mask: str,
    /,
    *,
    output: str,
    size: int | None = None,
    standard_error: float | None = None,
    floor: int | None = None,
    expected: list[str] | None = None,
    window: int = 21,
    clusters: int | None = None,
    block: int = 100,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw a stratified random sample of a map, to be labeled by eye in QGIS.

    Args:
        mask: Class raster.
        output: GeoPackage of points to write (.gpkg).
        size: Samples in all.
        standard_error: Instead of --size, the standard error of overall accuracy to
            reach, as 0.01.
        floor: Fewest samples of a class; by default 50, or less if that makes more than
            half of all.
        expected: Expected user's accuracy, as 0.8, or of single classes, as
            0.9,built=0.6. With it, samples go where they lower the standard error most;
            without, in proportion to area.
        window: Side of the surroundings that QGIS outlines, in pixels.
        clusters: Draw so many blocks of the map instead, and as many samples in each,
            so that fewer places are visited. Assess with --design cluster.
        block: Side of a block in pixels.
        seed: Seed of the draw.
        overwrite: Replace an existing file, with all its labels.
    """
    from .assessment.samples import draw_samples

    numbers = draw_samples(
        mask,
        output,
        size=size,
        standard_error=standard_error,
        floor=floor,
        expected=expected,
        window=window,
        clusters=clusters,
        block=block,
        seed=seed,
        overwrite=overwrite,
    )
    for name, number in numbers.items():
        _print(f'{name:<20}  {number}')
    _print(f'{"samples":<20}  {sum(numbers.values())}')
    _print(output)


def assess(
    mask: str,
    samples: str,
    /,
    *,
    column: str = 'reference',
    design: Literal['stratified', 'simple', 'cluster'] = 'stratified',
    json: str | None = None,
    csv: str | None = None,
    report: str | None = None,
    plot: str | None = None,
    overwrite: bool = False,
) -> None:
    """Estimate accuracy and area of each class of a map, with 95 % intervals.

    Args:
        mask: Class raster that was sampled.
        samples: Labeled points, as sample writes them.
        column: Column with the true classes.
        design: stratified for samples drawn in each class of the map, simple for samples
            drawn at random in the whole map, cluster for those of sample --clusters.
        json: File to write all numbers to.
        csv: Table of classes to write (.csv).
        report: Page to write (.html).
        plot: Picture of the confusion matrix to write (.png).
        overwrite: Replace existing files.
    """
    outputs = ((json, '.json'), (csv, '.csv'), (report, '.html'), (plot, '.png'))
    for path, suffix in outputs:
        if path is not None:
            _check_file(Path(path), overwrite, suffix)
    from .assessment import assess as assessment

    found = assessment.assess(mask, samples, column=column, design=design)
    for line in assessment.lines(found):
        _print(line)
    if json is not None:
        _write_json(Path(json), assessment.content(found))
    if csv is not None:
        write_text(
            csv, assessment.table(found).to_csv(index=False, lineterminator='\n')
        )
    if report is not None:
        from .assessment.report import page

        write_text(report, page(found, Path(mask).name, Path(samples).name, design))
    if plot is not None:
        from .plots import confusion_figure

        figure = confusion_figure(found.counts, found.names, 'map', 'reference')
        _write_figure(Path(plot), figure)
    for path, _ in outputs:
        if path is not None:
            _print(path)


def areas(
    mask: str,
    /,
    *,
    zones: str | None = None,
    field: str | None = None,
    confidence: str | None = None,
    output: str | None = None,
    overwrite: bool = False,
) -> None:
    """Measure the hectares of each class on the ellipsoid, also by zone.

    Args:
        mask: Class raster.
        zones: Polygons, as districts, in any CRS.
        field: Column with the names of the zones; by default the first with text.
        confidence: Confidence raster; MASK_confidence.tif if that exists.
        output: Table to write (.csv, .xlsx or .parquet).
        overwrite: Replace an existing file.
    """
    from .assessment import zones as measured

    path = None if output is None else measured.check_table(output, overwrite)
    if path is not None and zones is not None:
        check_not_input(path, zones)
    table = measured.class_table(
        mask, zones=zones, field=field, confidence=confidence or _confidence_of(mask)
    )
    if path is not None:
        measured.write_table(table, path)
    for line in table.to_string(
        index=False, float_format=lambda value: f'{value:,.3f}'
    ).splitlines():
        _print(line)
    if path is not None:
        _print(str(path))


def change(
    before: str,
    after: str,
    /,
    *,
    output: str,
    min_confidence: int = 0,
    polygons: bool = True,
    min_area: float = 0.0,
    csv: str | None = None,
    overwrite: bool = False,
) -> None:
    """Compare two maps of one place: hectares from each class to each, and where.

    Args:
        before: Class raster of the first date.
        after: That of the second date, on the same grid. Classes are compared by name.
        output: Class raster of change to write, CHANGE.tif, with its style for QGIS.
        min_confidence: Percent; leave out pixels that MASK_confidence.tif of either map
            knows less well.
        polygons: Write CHANGE.gpkg, a polygon for each region that changed.
        min_area: Leave out polygons of fewer hectares.
        csv: Table of hectares to write (.csv), from rows to columns.
        overwrite: Replace existing files.
    """
    from .assessment import change as changes

    if csv is not None:
        _check_file(Path(csv), overwrite, '.csv')
    found = changes.change(
        before,
        after,
        output,
        min_confidence=min_confidence,
        polygons=polygons,
        min_area=min_area,
        overwrite=overwrite,
    )
    for line in changes.lines(found):
        _print(line)
    if csv is not None:
        write_text(csv, found.hectares.to_csv(index_label='from', lineterminator='\n'))
        _print(csv)
    for path in found.paths:
        _print(str(path))


def join(
    maps: list[str],
    /,
    *,
    output: str,
    like: str | None = None,
    polygons: bool = True,
    style: bool = True,
    overwrite: bool = False,
) -> None:
    """Join maps of neighboring scenes, of one UTM zone or several, into one map.

    Where maps overlap, the class with the highest confidence counts, of equal ones the
    first class; without MASK_confidence.tif beside every map, the first map counts.

    Args:
        maps: Class rasters with class names, by which classes are joined.
        output: Class raster to write, MAP.tif; the other products are written beside it.
        like: Raster whose grid the map gets, by default CRS and pixels of the first map,
            as large as all maps need.
        polygons: Write MAP.gpkg, polygons.
        style: Write MAP.qml, colors and names for QGIS.
        overwrite: Replace existing files.
    """
    from .assessment import join as joining

    for path in joining.join(
        maps, output, like=like, polygons=polygons, style=style, overwrite=overwrite
    ):
        _print(str(path))


def relabel(
    mask: str,
    /,
    *,
    output: str,
    class_map: list[str] | None = None,
    merge: list[str] | None = None,
    names: list[str] | None = None,
    colors: list[str] | None = None,
    style: bool = True,
    overwrite: bool = False,
) -> None:
    """Give a map other classes, names or colors, without training again.

    Args:
        mask: Class raster.
        output: Class raster to write, MASK.tif.
        class_map: Names of the values of a map that does not name them: worldcover,
            dfc2020, dynamic-world, esri, igbp or igbp-simplified, and VALUE=NAME pairs.
        merge: Merged classes, as "Shrubland+Grassland=Open". "Crops=Fields" renames one.
        names: Names of all classes after that, in order.
        colors: Their colors, as #rrggbb or names.
        style: Write OUTPUT.qml, colors and names for QGIS.
        overwrite: Replace existing files.
    """
    from .assessment import relabel as relabeling

    for path in relabeling.relabel(
        mask,
        output,
        class_map=class_map,
        merge=merge,
        names=names,
        colors=colors,
        style=style,
        overwrite=overwrite,
    ):
        _print(str(path))


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
    _check_inputs(config=config, checkpoint=checkpoint)
    _loading()
    from .configuration import Overridden

    written = pseudo_masks(
        Overridden(config, overrides), checkpoint, output, progress=True, **options
    )
    _print(f'{"chips":<20}  {written["chips"]}')
    _print(f'{"GeoTIFFs":<20}  {written["rasters"]}')
    if 'miou' in written:
        _print(f'{"miou":<20}  {written["miou"]:.3f}')


def stats(
    *,
    config: str,
    output: str | None = None,
    json: str | None = None,
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Measure the bands and count the labels of a training split.

    Options --data.KEY VALUE and --model.KEY VALUE override the configuration, as those
    of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Configuration to write (.yaml) with the means and deviations as the
            model's scaling, for torchgeo fit --config CONFIG --config OUTPUT.
        json: File to write all numbers to.
        limit: Number of chips to read, evenly spread over the split; by default all.
        nodata: Nodata value: pixels with this value in all bands are left out.
        overwrite: Replace existing files.
        overrides: Arguments that override the configuration.
    """
    for path, suffix in ((output, '.yaml'), (json, '.json')):
        if path is not None:
            _check_file(Path(path), overwrite, suffix)
            check_not_input(Path(path), config)
    _check_inputs(config=config)
    _loading()
    from .configuration import Overridden
    from .reports import statistics

    config = Overridden(config, overrides)
    measured = statistics.measure(config, limit=limit, nodata=nodata)
    for line in statistics.report(measured):
        _print(line)
    if json is not None:
        _write_json(Path(json), statistics.content(measured))
    if output is not None:
        statistics.write_config(measured, config, Path(output))
        _print(output)


def describe(
    *,
    config: str,
    output: str | None = None,
    split: Split = 'train',
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Describe the data of a configuration, and plot ten chips with their labels.

    Options --data.KEY VALUE and --model.KEY VALUE override the configuration, as those
    of torchgeo do.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Picture to write (.png).
        split: Split to read: train, val or test.
        limit: Number of chips to read, evenly spread over the split; by default all.
        nodata: Nodata value: a chip whose pixels all have it counts as empty.
        overwrite: Replace an existing picture.
        overrides: Arguments that override the configuration.
    """
    if output is not None:
        _check_file(Path(output), overwrite, '.png')
        check_not_input(Path(output), config)
    _check_inputs(config=config)
    _loading()
    from .configuration import Overridden
    from .reports import describe as description

    config = Overridden(config, overrides)
    described = description.describe(config, split=split, limit=limit, nodata=nodata)
    for line in description.report(described):
        _print(line)
    if output is not None:
        _write_figure(Path(output), description.picture(described))
        _print(output)


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
        _check_file(Path(output), overwrite, '.yaml')
        check_not_input(Path(output), config)
    _check_inputs(config=config)
    numbers = _seeds(seeds)
    _loading()
    from .choose import choose_setting
    from .configuration import Overridden, write_config

    config = Overridden(config, overrides)
    choice = choose_setting(
        config, settings, seeds=numbers, steps=steps, accelerator=accelerator
    )
    report = choice.report()
    for line in report:
        _print(line)
    if output is not None:
        write_config(config, choice.settings[choice.taken], Path(output), report)
        _print(output)


def weights(*, markdown: bool = False) -> None:
    """List the weights of TorchGeo that training can start from.

    Each is a value of the key weights in a configuration. Weights for 'any' bands start
    with every list of bands whose wavelengths are known.

    Args:
        markdown: Print a table in Markdown.
    """
    _loading()
    from .reports import weights as listed

    for line in listed.markdown() if markdown else listed.report():
        _print(line)


def export(
    checkpoint: str,
    /,
    *,
    output: str,
    img_size: int | None = None,
    opset: int = 18,
    rule: Literal['argmax'] | None = None,
    offset: float | None = None,
    resolution: float | None = None,
    torch_export: bool = False,
    overwrite: bool = False,
) -> None:
    """Export a checkpoint to ONNX, with the metadata that QGIS's Deepness plugin reads.

    Args:
        checkpoint: Checkpoint of ClassTokenMaskingTask (.ckpt).
        output: File to write (.onnx).
        img_size: Side of a window in pixels; by default that of training.
        opset: Version of ONNX's operators, 18 to 23; 18 suits the oldest programs.
        rule: Use argmax for a checkpoint whose rule is paint, which cannot be exported.
        offset: Added to the input's numbers to make them reflectance x 10,000, as
            -1000 for Sentinel-2 processing baseline 04.00 and later; as in the
            training data if not given.
        resolution: Meters per pixel that Deepness resamples a layer to; 10 for
            Sentinel-2's bands if not given.
        torch_export: Also write the file's name with .pt2, for torch.export.load.
        overwrite: Replace existing files.
    """
    _check_file(Path(output), overwrite, '.onnx')
    if torch_export:
        _check_file(Path(output).with_suffix('.pt2'), overwrite, '.pt2')
    _check_inputs(checkpoint=checkpoint)
    _loading()
    from .export import export_model

    exported = export_model(
        checkpoint,
        output,
        img_size=img_size,
        opset=opset,
        rule=rule,
        offset=offset,
        resolution=resolution,
        torch_export=torch_export,
        overwrite=overwrite,
    )
    for path in exported.paths:
        _print(str(path))
    _print(
        f'{"largest difference":<20}  {exported.difference:.1e} from PyTorch, in '
        f'{exported.windows} random windows, {exported.several} with several classes'
    )


def publish(
    checkpoint: str,
    /,
    *,
    folder: str | None = None,
    repo: str | None = None,
    title: str | None = None,
    data: str | None = None,
    license: str | None = None,
    scores: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> None:
    """Publish a checkpoint with a model card, as a folder or on the Hugging Face Hub.

    Args:
        checkpoint: Checkpoint (.ckpt), as for predict.
        folder: Folder to write.
        repo: Repository to upload to, as hf:USER/NAME. It is created if it is missing.
        title: Title of the model card.
        data: Sentence about the training data.
        license: License, as the Hub spells it, for example cc-by-4.0.
        scores: File of evaluate --json or assess --json, for the model card.
        private: Create a private repository.
        overwrite: Replace the files of an earlier model.
    """
    _check_inputs(checkpoint=checkpoint)
    _loading()
    from .publish import Words, publish

    words = Words(title, data, license, None if scores is None else Path(scores))
    published = publish(
        checkpoint,
        folder=folder,
        repo=repo,
        words=words,
        private=private,
        overwrite=overwrite,
    )
    for path in published.paths:
        _print(str(path))
    if published.url is not None:
        _print(published.url)
        _print(f'{"commit":<20}  {published.commit}')
    _print(f'{"sha256":<20}  {published.sha256}')


def import_checkpoint(
    reference: str,
    output: str,
    /,
    *,
    bands: list[str],
    classes: list[str],
    num_heads: int = 16,
    overwrite: bool = False,
) -> None:
    """Convert a checkpoint of the paper's released code to one of this package.

    Args:
        reference: The released code's checkpoint.
        output: Checkpoint to write (.ckpt).
        bands: Names of the bands it was trained with, in order, as B02,B03,B04.
        classes: Names of its classes, in order, as Forest,Water.
        num_heads: Heads of a block.
        overwrite: Replace an existing file.
    """
    _check_file(Path(output), overwrite, '.ckpt')
    _loading()
    from .trainers import import_reference, save_task

    save_task(import_reference(reference, bands, classes, num_heads), output)
    _print(output)


def _check_inputs(
    *,
    scene: str | None = None,
    config: str | None = None,
    checkpoint: str | None = None,
    labels: str | None = None,
) -> None:
    """Check that the inputs exist, before anything heavy is imported.

    Raises:
        CTMError: If any is missing. The message names all of them.
    """
    missing: list[CTMError] = []
    if scene is not None and '#' in scene:
        # one of several items; imports PyTorch
        from .scenes.items import split_name

        scene, _ = split_name(scene) or (scene, None)
    # URLs and GDAL's own names are no paths
    remote = scene and (':' in scene[2:] or scene.startswith(('/vsi', '<')))
    if scene is not None and not remote and not Path(scene).exists():
        kinds = ('.tif', '.tiff', '.jp2', '.vrt', '.SAFE', '.zip', '.zarr', '.json', '')
        close = similar_file(scene, kinds)
        expected = 'a raster, a folder of bands or a Sentinel-2 product'
        missing.append(
            SceneError(f'{scene} does not exist, expected {expected}.{close}')
        )
    if config is not None and not Path(config).exists():
        close = similar_file(config, ('.yaml', '.yml'))
        expected = 'a configuration of torchgeo (.yaml)'
        missing.append(
            DataError(f'{config} does not exist, expected {expected}.{close}')
        )
    # a folder or hf://user/name is a published model
    if checkpoint is not None and not (
        Path(checkpoint).exists() or checkpoint.startswith('hf:')
    ):
        close = similar_file(checkpoint, ('.ckpt',))
        expected = 'a checkpoint (.ckpt)'
        missing.append(
            CheckpointError(f'{checkpoint} is not a file, expected {expected}.{close}')
        )
    if labels is not None and not Path(labels).expanduser().exists():
        close = similar_file(labels, ('.gpkg', '.geojson', '.shp', '.fgb', '.csv'))
        expected = 'polygons, points or a table'
        missing.append(
            LabelError(f'{labels} does not exist, expected {expected}.{close}')
        )
    if missing:
        raise type(missing[0])(' '.join(map(str, missing)))


def _check_file(path: Path, overwrite: bool, suffix: str) -> None:
    """Check the name and folder of a file to write, before any work is done."""
    if path.suffix.lower() != suffix:
        name = path.with_suffix(suffix).name
        raise OutputError(
            f'Expected a name that ends in {suffix}, got {str(path)!r}. '
            f'Did you mean {name!r}?'
        )
    check_file(path, overwrite)


def _confidence_of(mask: str) -> str | None:
    """Return the confidence raster beside a mask, if there is one."""
    beside = Path(mask).with_name(f'{Path(mask).stem}_confidence{Path(mask).suffix}')
    return str(beside) if beside.exists() else None


def _seeds(text: str) -> list[int]:
    """Return the seeds in ``0,1,2``.

    Raises:
        SettingError: If it holds anything else.
    """
    try:
        return [int(number) for number in text.split(',')]
    except ValueError:
        raise SettingError(
            f'Invalid --seeds {text!r}, expected integers, as 0,1,2.'
        ) from None


def _loading() -> None:
    """Tell a terminal at once that libraries are being loaded, which takes seconds."""
    if sys.stderr.isatty():
        sys.stderr.write('torchgeo-ctm: loading PyTorch and TorchGeo ...\n')


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under a temporary name, then rename it."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def _write_figure(path: Path, figure: Any) -> None:
    """Write a figure as PNG, complete or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png', dpi=120)


def _print(line: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(f'{line}\n')


COMMANDS: dict[str, Callable[..., None]] = {
    'demo': demo,
    'train': train,
    'search': search,
    'predict': predict,
    'evaluate': evaluate,
    'sample': sample,
    'assess': assess,
    'areas': areas,
    'change': change,
    'join': join,
    'relabel': relabel,
    'vectorize': vectorize,
    'pseudomasks': pseudomasks,
    'stats': stats,
    'describe': describe,
    'choose': choose,
    'weights': weights,
    'export': export,
    'publish': publish,
    'import-checkpoint': import_checkpoint,
}
