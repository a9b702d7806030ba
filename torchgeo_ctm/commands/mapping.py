"""Commands from scenes to maps."""

import sys
import warnings
from pathlib import Path
from typing import Any, Literal

from ..errors import FailureNote, OutputError, SceneError, SettingError
from ..files import check_not_input
from ..prediction import predict_scene
from .inputs import check_inputs, check_output_file
from .output import print_line, print_loading, write_figure


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
    from .. import catalog as stac

    path = stac.check_scenes(output, overwrite)
    check_output_file(path.with_suffix('.png'), overwrite, '.png')
    items = stac.search(
        catalog, bbox, date, collection=collection, max_cloud=max_cloud, limit=limit
    )
    from ..plots import footprint_figure

    for line in stac.lines(items):
        print_line(line)
    stac.write_scenes(items, path)
    figure = footprint_figure(stac.footprints(items), stac.box_corners(bbox))
    write_figure(path.with_suffix('.png'), figure)
    for written in (path, path.with_suffix('.png')):
        print_line(str(written))


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
        check_inputs(scene=each, checkpoint=checkpoint)
        check_not_input(output, each)
    from ..inference.geotiff import check_output
    from ..scenes.items import item_names

    items = item_names(scene)
    if combine is None and len(items) > len(scene):
        raise SettingError(
            f'{scene[0]} holds {len(items)} scenes. Choose one by its id, as '
            f"'{items[0]}', or pass --combine mean for one map of all."
        )
    scene = items

    # jsonargparse, which looks for **options, rejects options[...] inside a call
    overwrite = options['overwrite']
    if not Path(output).suffix and combine is None:
        raise OutputError(
            f'{output} is neither the name of a GeoTIFF nor an existing folder. Did you '
            f'mean {Path(output).name + ".tif"!r}?'
        )
    check_output(output, overwrite)
    print_loading()
    # these import PyTorch
    from ..inference.memory import limit_memory
    from ..trainers.published import locate

    # downloaded, if it is on the Hub
    model = locate(checkpoint)
    if model.commit is not None:
        print_line(f'{"commit":<20}  {model.commit}')

    limit_memory(scene)
    if combine is not None and len(scene) > 1:
        from ..prediction.dates import predict_dates

        mask = predict_dates(scene, model.path, output, combine=combine, **options)
    else:
        mask = predict_scene(scene[0], model.path, output, progress=True, **options)
    for path in mask.paths:
        print_line(str(path))


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
    from ..prediction.shards import predict_scenes, read_shard

    if shard is not None:
        read_shard(shard)
    check_inputs(checkpoint=checkpoint)
    from ..scenes.items import item_names

    every = item_names(scenes)
    print_loading()
    from ..inference.memory import limit_memory

    limit_memory(every)
    counts, failed = {'mapped': 0, 'already there': 0, 'failed': 0}, []
    given = options | {'shard': shard, 'progress': sys.stderr.isatty()}
    for result in predict_scenes(every, checkpoint, output, **given):
        if result.failure is not None:
            counts['failed'] += 1
            failed.append(result.scene)
            warnings.warn(f'failed: {result.failure}', FailureNote, stacklevel=2)
            continue
        counts['already there' if result.kept else 'mapped'] += 1
        if not result.kept:
            print_line(str(result.path))
    part = '' if shard is None else f', shard {shard} of {len(every)} scenes'
    print_line(', '.join(f'{number} {what}' for what, number in counts.items()) + part)
    if failed:
        more = f' and {len(failed) - 5} more' if len(failed) > 5 else ''
        raise SceneError(
            f'{len(failed)} of {len(every)} scenes failed: {", ".join(failed[:5])}{more}. '
            'Run the same command again to map only what is left.'
        )
