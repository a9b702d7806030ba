"""Checks of what commands are given, before anything heavy is imported."""

from pathlib import Path

from ..errors import (
    CheckpointError,
    CTMError,
    DataError,
    LabelError,
    OutputError,
    SceneError,
    SettingError,
    similar_file,
)
from ..files import check_file


def check_inputs(
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
        from ..scenes.items import split_name

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


def check_output_file(path: Path, overwrite: bool, suffix: str) -> None:
    """Check the name and folder of a file to write, before any work is done."""
    if path.suffix.lower() != suffix:
        name = path.with_suffix(suffix).name
        raise OutputError(
            f'Expected a name that ends in {suffix}, got {str(path)!r}. '
            f'Did you mean {name!r}?'
        )
    check_file(path, overwrite)


def confidence_beside(mask: str) -> str | None:
    """Return the confidence raster beside a mask, if there is one."""
    beside = Path(mask).with_name(f'{Path(mask).stem}_confidence{Path(mask).suffix}')
    return str(beside) if beside.exists() else None


def read_seeds(text: str) -> list[int]:
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
