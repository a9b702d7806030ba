"""What ``torchgeo-ctm`` can do: one function a command.

Signature and docstring of each function are its options and its help. Everything
heavy is imported inside the functions, so that help, version and option errors
answer at once.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from .errors import (
    CheckpointError,
    CTMError,
    DataError,
    OutputError,
    SceneError,
    nearest_file,
)
from .files import atomic_path, check_file, check_not_input, write_text
from .split import Split


def demo(output: str = 'demo', /, *, compare: bool = False, seed: int = 0) -> None:
    """Train on synthetic chips from image labels only, and map a synthetic scene.

    Args:
        output: Folder for data, checkpoint, products and metrics.json.
        compare: Also train without masking, and score attention alone with and without.
        seed: Seed of data and training.
    """
    from .demo import run_demo

    metrics = run_demo(Path(output), compare=compare, seed=seed)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        _say(f'{name:<{width}}  {value:.3f}')
    _say(f'Look at {Path(output) / "mask.png"}')


def predict(
    scene: str,
    /,
    *,
    checkpoint: str,
    output: str,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 10,
    num_workers: int | None = None,
    scene_bands: list[str] | None = None,
    nodata: float | None = None,
    offset: float | None = None,
    ensemble: Literal['dihedral'] | None = None,
    shifted_grids: bool = False,
    accelerator: str = 'auto',
    precision: str = '32-true',
    overwrite: bool = False,
    confidence: bool = True,
    probabilities: bool = False,
    polygons: bool = True,
    style: bool = True,
    picture: bool = True,
    stac: bool = False,
    sieve: int = 0,
    min_area: float = 0.0,
) -> None:
    """Write the georeferenced pseudo-mask of a scene.

    Args:
        scene: A raster that GDAL opens, a folder with one file a band, or a .SAFE.
        checkpoint: Checkpoint (.ckpt) of ClassTokenMaskingTask, or of the segmentation
            network that configs/segmentation.yaml trains.
        output: Class raster to write, MASK.tif; the other products lie beside it.
        window: Side of a window in pixels; that of training if not given.
        stride: Distance between windows in pixels; half a window if not given.
        batch_size: Windows per batch.
        num_workers: Threads that read ahead and decode; 0 reads in turns with the
            model; chosen if not given: 1 for a local scene on a CPU, else 2.
        scene_bands: Names of the scene's bands in file order, as B01,B02,..., if its
            own descriptions are missing or wrong.
        nodata: Value that means no data; what the scene says if not given.
        offset: Added to the scene's numbers to make them reflectance x 10,000, as
            -1000 for Sentinel-2 processing baseline 04.00 and later; what the
            metadata says if not given.
        ensemble: dihedral averages over flips and quarter turns of each window.
        shifted_grids: Let overlapping windows cut the patches in different places.
        accelerator: Where to compute, in Lightning's words: auto, cpu, gpu, mps.
        precision: Of the arithmetic, in Lightning's words: 32-true, bf16-mixed.
        overwrite: Replace existing products.
        confidence: Write MASK_confidence.tif, in per cent.
        probabilities: Write MASK_probabilities.tif, the share of each class.
        polygons: Write MASK.gpkg, polygons.
        style: Write MASK.qml, colours and names for QGIS.
        picture: Write MASK.png, scene and mask side by side.
        stac: Write MASK.json, a STAC item.
        sieve: Pixels; smaller patches join their largest neighbour in polygons.
        min_area: Hectares; smaller polygons are left out.
    """
    _check_given(scene=scene, checkpoint=checkpoint)
    from .inference.geotiff import check_output

    check_output(output, overwrite)
    from .inference.memory import block_cache

    # GDAL's own share, 5 % of the machine's memory, is more than a strip needs
    os.environ.setdefault('GDAL_CACHEMAX', str(block_cache(scene)))
    from .prediction import predict_scene

    mask = predict_scene(
        scene,
        checkpoint,
        output,
        window=window,
        stride=stride,
        batch_size=batch_size,
        num_workers=num_workers,
        scene_bands=scene_bands,
        nodata=nodata,
        offset=offset,
        ensemble=ensemble,
        shifted_grids=shifted_grids,
        accelerator=accelerator,
        precision=precision,
        overwrite=overwrite,
        confidence=confidence,
        probabilities=probabilities,
        polygons=polygons,
        style=style,
        picture=picture,
        stac=stac,
        sieve=sieve,
        min_area=min_area,
    )
    for path in mask.paths:
        _say(str(path))


def vectorize(
    mask: str,
    output: str,
    /,
    *,
    confidence: str | None = None,
    sieve: int = 0,
    min_area: float = 0.0,
    style: bool = True,
    overwrite: bool = False,
) -> None:
    """Turn a mask into polygons with class, name, area and mean confidence.

    Args:
        mask: Class raster written by predict.
        output: File to write: .gpkg, .parquet (GeoParquet) or .fgb (FlatGeobuf).
        confidence: Confidence raster; MASK_confidence.tif if that exists.
        sieve: Pixels; smaller patches join their largest neighbour.
        min_area: Hectares; smaller polygons are left out.
        style: Write OUTPUT.qml, colours and names for QGIS.
        overwrite: Replace existing files.
    """
    from .inference import vector
    from .inference.style import has_style, style_of

    vector.check_vector_output(output, overwrite)
    named = Path(output).with_suffix('.qml')
    # polygons in another format share the style that is there
    if style and not has_style(mask, named):
        _check_file(named, overwrite, '.qml')

    if confidence is None:
        beside = Path(mask).with_name(
            f'{Path(mask).stem}_confidence{Path(mask).suffix}'
        )
        confidence = str(beside) if beside.exists() else None
    path = vector.vectorize(
        mask,
        output,
        confidence=confidence,
        sieve=sieve,
        min_area=min_area,
        overwrite=overwrite,
    )
    _say(str(path))
    if style:
        _say(str(style_of(mask, named)))


def evaluate(
    mask: str, reference: str, /, *, json: str | None = None, overwrite: bool = False
) -> None:
    """Score a mask against a reference raster on the same grid.

    Args:
        mask: Class raster written by predict.
        reference: Raster of the same classes; 255, nodata and negatives do not count.
        json: File to write the scores to.
        overwrite: Replace that file.
    """
    from . import scoring

    if json is not None:
        _check_file(Path(json), overwrite, '.json')
    scores = scoring.evaluate(mask, reference)
    if json is not None:
        _write_json(Path(json), scores)
    for name, value in scores['iou'].items():
        _say(f'{name:<20}  {"absent" if value is None else f"{value:.3f}"}')
    for name in ('miou', 'pixel_accuracy', 'average_accuracy'):
        _say(f'{name:<20}  {scores[name]:.3f}')
    _say(f'{"pixels":<20}  {scores["pixels"]}')


def pseudomasks(
    *,
    config: str,
    checkpoint: str,
    output: str,
    split: Split = 'val',
    labels: Literal['predicted', 'true'] = 'predicted',
    source: Literal['attention', 'patchcam', 'fused'] | None = None,
    rule: Literal['paint', 'argmax'] | None = None,
    ensemble: Literal['dihedral'] | None = None,
    accelerator: str = 'auto',
    overwrite: bool = False,
    images: bool = True,
) -> None:
    """Write the pseudo-masks of a data set, as the paper's scripts do.

    Args:
        config: Configuration of torchgeo (.yaml); its data section says which chips.
        checkpoint: Checkpoint (.ckpt) of ClassTokenMaskingTask, or of the segmentation
            network that configs/segmentation.yaml trains.
        output: Folder for pms_NAME.npy, imgs_NAME.npy and masks_NAME.npy, and for
            GeoTIFFs, mask and confidence, of the chips that have a georeference.
        split: Which chips: train, val or test.
        labels: Classes taken as present in a chip: predicted, or true.
        source: Maps: attention, patchcam or fused; the checkpoint's if not given. Of
            class tokens only, as is rule.
        rule: From maps to masks: paint or argmax; the checkpoint's if not given.
        ensemble: dihedral averages over flips and quarter turns of each chip.
        accelerator: Where to compute, in Lightning's words: auto, cpu, gpu, mps.
        overwrite: Replace arrays that exist.
        images: Write imgs_NAME.npy, by far the largest array.
    """
    _check_given(config=config, checkpoint=checkpoint)
    from .prediction import pseudo_masks

    written = pseudo_masks(
        config,
        checkpoint,
        output,
        split=split,
        labels=labels,
        source=source,
        rule=rule,
        ensemble=ensemble,
        accelerator=accelerator,
        overwrite=overwrite,
        images=images,
    )
    _say(f'{"chips":<20}  {written["chips"]}')
    _say(f'{"GeoTIFFs":<20}  {written["rasters"]}')
    if 'miou' in written:
        _say(f'{"miou":<20}  {written["miou"]:.3f}')


def stats(
    *,
    config: str,
    output: str | None = None,
    json: str | None = None,
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
) -> None:
    """Measure the bands and count the labels of a training split.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Configuration to write (.yaml) with the means and deviations as the
            model's scaling, for torchgeo fit --config CONFIG --config OUTPUT.
        json: File to write all numbers to.
        limit: Read as many chips, evenly spread over the split; all if not given.
        nodata: Value that means no data, where all bands have it.
        overwrite: Replace existing files.
    """
    for path, suffix in ((output, '.yaml'), (json, '.json')):
        if path is not None:
            _check_file(Path(path), overwrite, suffix)
            check_not_input(Path(path), config)
    _check_given(config=config)
    from .reports import statistics

    measured = statistics.measure(config, limit=limit, nodata=nodata)
    for line in statistics.report(measured):
        _say(line)
    if json is not None:
        _write_json(Path(json), statistics.content(measured))
    if output is not None:
        statistics.write_config(measured, config, Path(output))
        _say(output)


def describe(
    *,
    config: str,
    output: str | None = None,
    split: Split = 'train',
    limit: int | None = None,
    nodata: float | None = None,
    overwrite: bool = False,
) -> None:
    """Say what the data of a configuration are, and draw ten chips with their labels.

    Args:
        config: Configuration of torchgeo (.yaml).
        output: Picture to write (.png).
        split: Whose chips to read: train, val or test.
        limit: Read as many chips, evenly spread over the split; all if not given.
        nodata: Value that means no data, where all bands have it.
        overwrite: Replace an existing picture.
    """
    if output is not None:
        _check_file(Path(output), overwrite, '.png')
    _check_given(config=config)
    from .reports import describe as description

    described = description.describe(config, split=split, limit=limit, nodata=nodata)
    for line in description.report(described):
        _say(line)
    if output is not None:
        with atomic_path(output) as temporary:
            description.picture(described).savefig(temporary, format='png', dpi=120)
        _say(output)


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
    """Write a model for other programs: ONNX, with what QGIS's Deepness reads.

    Args:
        checkpoint: Checkpoint of ClassTokenMaskingTask (.ckpt).
        output: File to write (.onnx).
        img_size: Side of a window in pixels; that of training if not given.
        opset: Version of ONNX's operators, 18 to 23; 18 suits the oldest programs.
        rule: argmax for a checkpoint whose own rule, paint, cannot be exported.
        offset: Added to the input's numbers to make them reflectance x 10,000, as
            -1000 for Sentinel-2 processing baseline 04.00 and later; as in the
            training data if not given.
        resolution: Metres per pixel that Deepness brings a layer to; 10 for
            Sentinel-2's bands if not given.
        torch_export: Also write the file's name with .pt2, for torch.export.load.
        overwrite: Replace existing files.
    """
    _check_file(Path(output), overwrite, '.onnx')
    if torch_export:
        _check_file(Path(output).with_suffix('.pt2'), overwrite, '.pt2')
    _check_given(checkpoint=checkpoint)
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
        _say(str(path))
    _say(
        f'{"largest difference":<20}  {exported.difference:.1e} from PyTorch, in '
        f'{exported.windows} random windows, {exported.several} with several classes'
    )


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
    """Turn a checkpoint of the paper's released code into one of this package.

    Args:
        reference: The released code's checkpoint.
        output: Checkpoint to write (.ckpt).
        bands: Names of the bands it was trained with, in order, as B02,B03,B04.
        classes: Names of its classes, in order, as Forest,Water.
        num_heads: Heads of a block.
        overwrite: Replace an existing file.
    """
    _check_file(Path(output), overwrite, '.ckpt')
    from .trainers import import_reference, save_task

    save_task(import_reference(reference, bands, classes, num_heads), output)
    _say(output)


def _check_given(
    *,
    scene: str | None = None,
    config: str | None = None,
    checkpoint: str | None = None,
) -> None:
    """Refuse what is not there, before anything heavy is imported; name all of it."""
    faults: list[CTMError] = []
    # URLs and GDAL's own names are no paths
    named = scene is None or ':' in scene[2:] or scene.startswith(('/vsi', '<'))
    if scene is not None and not named and not Path(scene).exists():
        close = nearest_file(scene, ('.tif', '.tiff', '.jp2', '.vrt', '.SAFE', '.zip'))
        needed = f'a raster, a folder of bands or a Sentinel-2 product{close}'
        faults.append(SceneError(f'{scene} does not exist; needed: {needed}'))
    if config is not None and not Path(config).exists():
        close = nearest_file(config, ('.yaml', '.yml'))
        needed = 'a configuration of torchgeo (.yaml)'
        faults.append(DataError(f'{config} does not exist; needed: {needed}{close}'))
    if checkpoint is not None and not Path(checkpoint).is_file():
        close = nearest_file(checkpoint, ('.ckpt',))
        needed = f'a checkpoint (.ckpt){close}'
        faults.append(CheckpointError(f'{checkpoint} is not a file; needed: {needed}'))
    if faults:
        raise type(faults[0])('; '.join(map(str, faults)))


def _check_file(path: Path, overwrite: bool, suffix: str) -> None:
    """Refuse a file that cannot be written, before any work is done."""
    if path.suffix.lower() != suffix:
        nearest_name = path.with_suffix(suffix).name
        raise OutputError(f'{path} is not a {suffix} name; nearest: {nearest_name}')
    check_file(path, overwrite)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under a temporary name, then rename it."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def _say(line: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(f'{line}\n')


COMMANDS: dict[str, Callable[..., None]] = {
    'demo': demo,
    'predict': predict,
    'evaluate': evaluate,
    'vectorize': vectorize,
    'pseudomasks': pseudomasks,
    'stats': stats,
    'describe': describe,
    'export': export,
    'import-checkpoint': import_checkpoint,
}
