"""Several dates of one place in, one map out: where one date has a cloud, others see.

Each date is mapped by :func:`~torchgeo_ctm.prediction.predict_scene` into a hidden folder
beside the output, and stays there until the map is complete, so that a run resumes. Only
integers are added up, so that the order of the dates does not change a byte.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..errors import (
    CloudWarning,
    CTMWarning,
    NodataWarning,
    SceneError,
    SettingError,
    did_you_mean,
)
from ..files import (
    check_file,
    check_not_read,
    given_paths,
    make_folder,
    uninterrupted,
    write_text,
)
from ..grids import IGNORED, check_same_grid
from ..inference.cloud_detection import CloudDetection, detected_clouds
from ..inference.geotiff import RasterRows
from ..inference.masks import class_colors, class_names, open_mask
from ..inference.options import ProductOptions
from ..inference.paths import product_path, product_paths
from ..inference.products import Products, check_georeference, check_products
from ..inference.scene_loop import PICTURE
from ..inference.scene_mask import SceneMask
from ..options import options_of
from ..rasters import open_raster
from ..scaling import rgb_indices
from ..scenes.area import chosen_area
from ..scenes.clouds import DILATION
from ..scenes.coverage import Coverage
from ..scenes.inputs import file_checksum, fingerprint
from ..scenes.scene import SceneWindows
from ..trainers.any_checkpoint import load_scene_predictor
from ..trainers.published import files_of, locate
from ..version import __version__
from .scene import chosen_detector, predict_scene

COMBINATIONS = ('mean', 'clearest')
#: Products of the map of a date.
OF_A_DATE = {
    'confidence': False,
    'probabilities': True,
    'polygons': False,
    'style': False,
    'picture': False,
    'stac': False,
}
#: Rows that are combined at once.
ROWS = 128
#: Largest number of dates that the raster of clear looks holds; 255 is nodata.
MOST = 254

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class DateMap:
    """The map of one date.

    Attributes:
        scene: The scene.
        path: Its class raster; that of probabilities lies beside it.
        clear: Number of pixels with a class.
    """

    scene: SceneWindows
    path: Path
    clear: int

    def rows(self, row: int) -> tuple[Bytes, Bytes]:
        """Return classes (rows, W) and percents (C, rows, W) of some rows."""
        # opened for each call: of many dates, few files are open
        with (
            open_raster(self.path) as mask,
            open_raster(product_path(self.path, 'probabilities')) as percents,
        ):
            return _rows(mask, row)[0], _rows(percents, row)


def predict_dates(
    scenes: Sequence[str | Path],
    checkpoint: str | Path,
    output: str | Path,
    *,
    combine: Literal['mean', 'clearest'] = 'mean',
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> SceneMask:
    """Write one map of several dates on one grid.

    Call it again with the same arguments to resume an interrupted run.

    Args:
        scenes: The dates, in any order.
        checkpoint: As for :func:`~torchgeo_ctm.prediction.predict_scene`.
        output: Class raster to write (.tif). ``OUTPUT_looks.tif`` beside it holds the
            number of dates that see each pixel.
        combine: 'mean': the class with the highest mean score of the dates that see a
            pixel; 'clearest': the class of the date that sees most of the scene, among
            those that see the pixel.
        overwrite: Replace existing products.
        progress: Show progress bars.
        **options: As for :func:`~torchgeo_ctm.prediction.predict_scene`.

    Returns:
        The products.

    Raises:
        CTMError: If any input cannot be used. Nothing is written then.
    """
    if combine not in COMBINATIONS:
        raise SettingError(
            f'Unknown combine {combine!r}, expected one of: {", ".join(COMBINATIONS)}.'
            + did_you_mean(str(combine), COMBINATIONS)
        )
    paths = given_paths('scenes', scenes)
    output = Path(output)
    folder = output.with_name(f'.{output.name}.dates')
    wanted = ProductOptions(**options_of(ProductOptions, options))
    check_products(output, wanted, overwrite, folder)
    # an interrupted run, which found none, may have published its own
    looks = check_file(product_path(output, 'looks'), overwrite or folder.is_dir())
    checkpoint = locate(checkpoint).path
    predictor = load_scene_predictor(checkpoint)
    opened = _opened(paths, predictor, options)
    made = [*product_paths(output, wanted).values(), looks]
    area = [Path(options['area'])] if options.get('area') else []
    for scene in opened:
        check_not_read(made, [*scene.input_files(), *area])
        check_georeference(scene.scene, scene.grid, wanted)
    make_folder(folder)
    try:
        names = [_map_name(scene, checkpoint, options) for scene in opened]
        dates = [
            _mapped(scene, folder / f'{name}.tif', checkpoint, progress, options)
            for scene, name in zip(opened, names, strict=True)
        ]
    finally:
        # without a map there is nothing to resume
        with suppress(OSError):
            folder.rmdir()
    # of equal dates, which comes first makes no difference
    dates.sort(key=lambda date: (-date.clear, date.scene.scene))
    products = _combine(
        dates, output, wanted, combine, folder, rgb_indices(predictor.bands)
    )
    with uninterrupted():
        products.rasters['looks'].publish()
        del products.rasters['looks']
        products.publish(overwrite)
        shutil.rmtree(folder, ignore_errors=True)
    return SceneMask(product_paths(output, wanted) | {'looks': looks})


def _opened(
    scenes: Sequence[str], predictor: Any, options: dict[str, Any]
) -> list[SceneWindows]:
    """Open all dates, and check that they can be mapped on one grid.

    Raises:
        SettingError: If there is no date.
        CTMError: If one cannot be mapped, or its grid differs.
    """
    if not scenes:
        raise SettingError('Got no scene, expected one for each date.')
    detector = _detector(options)
    # each date's own are found when it is mapped
    clouds = {} if detector is None else {'clouds': 'none'}
    coverage = Coverage(**options_of(Coverage, options) | clouds)
    opened = [each.scene for each in coverage.batches(scenes, predictor, 'cpu')]
    first = opened[0]
    for scene in opened:
        check_same_grid(first.scene, first.grid, scene.scene, scene.grid)
        box, area = options.get('bbox'), options.get('area')
        scene.area = chosen_area(scene.scene, scene.grid, box, area)
        if detector is not None:
            names = (options.get(name) for name in ('scene_bands', 'sign', 'offset'))
            CloudDetection.open(detector, scene, predictor, *names)
    places = [Path(scene).resolve() for scene in scenes]
    twice = {
        s for s, place in zip(scenes, places, strict=True) if places.count(place) > 1
    }
    if twice:
        warnings.warn(
            f'{min(twice)} is given more than once and counts as several dates.',
            CTMWarning,
            stacklevel=3,
        )
    # a date that comes twice shares its mask with itself
    masks = [
        mask
        for _, mask in {
            (each.scene, each.clouds.dataset)
            for each in opened
            if each.clouds is not None
        }
    ]
    shared = next((mask for mask in masks if masks.count(mask) > 1), None)
    if shared is not None:
        warnings.warn(
            f'{shared} is the cloud mask of several dates. Write {{scene}} in its name '
            'for one of each date, with scenes of different names.',
            CloudWarning,
            stacklevel=3,
        )
    return opened


def _detector(options: dict[str, Any]) -> str | None:
    """Return the package that finds the clouds of each date, None if none does."""
    dilation = options.get('cloud_dilation', DILATION)
    return chosen_detector(options.get('clouds'), options.get('cloud_mask'), dilation)


def _map_name(
    scene: SceneWindows, checkpoint: str | Path, options: dict[str, Any]
) -> str:
    """Return the name of the map of a date: a hash of everything that it depends on."""
    facts = {
        'version': __version__,
        'checkpoint': fingerprint(files_of(Path(checkpoint))),
        'scene': scene.fingerprint(),
        'area': None if scene.area is None else scene.area.identity,
        'options': sorted(
            (k, str(value))
            for k, value in (options | OF_A_DATE).items()
            # tokens change between runs
            if k != 'sign'
        ),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _mapped(
    scene: SceneWindows,
    path: Path,
    checkpoint: str | Path,
    progress: bool,
    options: dict[str, Any],
) -> DateMap:
    """Map a date, unless its map is there already, and undamaged.

    Raises:
        SceneError: If the date or the checkpoint is no longer what the name of the map
            says: dates would be mapped by different networks, or on other grids.
    """
    record = path.with_suffix('.json')
    if not record.exists() or record.read_text() != _checksums(path):
        read = options | OF_A_DATE
        predict_scene(
            scene.scene, checkpoint, path, overwrite=True, progress=progress, **read
        )
        if _map_name(scene, checkpoint, options) != path.stem:
            raise SceneError(
                f'{scene.scene} or {checkpoint} changed while the dates were mapped, '
                'expected the same content until the end. Run the same command again.'
            )
        write_text(record, _checksums(path))
    if _detector(options) is not None:
        scene.clouds = detected_clouds(
            scene, product_path(path, 'clouds'), options.get('cloud_dilation', DILATION)
        )
    with open_mask(path) as raster:
        clear = sum(
            int((_rows(raster, row) != IGNORED).sum())
            for row in range(0, raster.height, ROWS)
        )
    return DateMap(scene, path, clear)


def _checksums(path: Path) -> str:
    """Return checksums of the rasters of a date, which a power loss may damage."""
    rasters = (path, *(product_path(path, x) for x in ('probabilities', 'clouds')))
    return ' '.join(str(file_checksum(each)) for each in rasters if each.exists())


def _combine(
    dates: Sequence[DateMap],
    output: Path,
    wanted: ProductOptions,
    combine: str,
    folder: Path,
    visible: Sequence[int],
) -> Products:
    """Write the products of several dates, still in the hidden folder."""
    with open_mask(dates[0].path) as raster:
        names, colors = class_names(raster), class_colors(raster)
    if names is None or colors is None:
        raise SettingError(f'{dates[0].path} has no class names.')
    grid = dates[0].scene.extent
    tags = _tags(dates) | {'COMBINE': combine}
    products = Products(output, wanted, names, colors, grid, folder, tags)
    products.open()
    products.rasters['looks'] = RasterRows(
        product_path(output, 'looks'), grid, ['clear dates'], tags, None, folder
    )
    seen = False
    for row in range(0, grid.height, ROWS):
        values = decide((date.rows(row) for date in dates), len(dates), combine)
        seen = seen or bool(values['looks'].any())
        products.write(row, values)
    if not seen:
        warnings.warn(
            'No date has a valid pixel: the mask is empty.', NodataWarning, stacklevel=3
        )
    acquired = {date.scene.source.acquired for date in dates}
    products.finish(
        (lambda: _picture(dates, visible)) if wanted.picture else None,
        acquired.pop() if len(acquired) == 1 else None,
    )
    return products


def decide(
    dates: Iterable[tuple[Bytes, Bytes]], count: int, combine: str
) -> dict[str, Bytes]:
    """Decide the class of pixels from the maps of several dates.

    Args:
        dates: Classes (H, W), 255 where a date sees nothing, and percents (C, H, W) of
            each date, the clearest first.
        count: Number of the dates.
        combine: 'mean' or 'clearest'.

    Returns:
        ``mask`` and ``confidence`` (H, W), ``probabilities`` (C, H, W), all 255 where no
        date sees anything, and ``looks`` (H, W), the number of dates that do.
    """
    # of classes with equal percents, the one that more dates chose is the largest
    weight = count + 1
    total, looks = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for classes, percents in dates:
        clear = classes != IGNORED
        used = clear if combine == 'mean' else clear & (looks == 0)
        own = np.arange(len(percents))[:, None, None] == classes
        total = total + np.where(used, weight * percents.astype(np.int64) + own, 0)
        looks = looks + clear
    divisor = np.maximum(looks, 1) if combine == 'mean' else 1
    percent = np.rint(total // weight / divisor).astype(np.uint8)
    chosen = total.argmax(axis=0)
    values = {
        'mask': chosen.astype(np.uint8),
        'confidence': np.take_along_axis(percent, chosen[None], axis=0)[0],
        'probabilities': percent,
    }
    hidden = {
        name: np.where(looks > 0, value, IGNORED).astype(np.uint8)
        for name, value in values.items()
    }
    return hidden | {'looks': np.minimum(looks, MOST).astype(np.uint8)}


def _tags(dates: Sequence[DateMap]) -> dict[str, str]:
    """Return the tags that all dates share, and the names of scenes and clouds."""
    shared: set[tuple[str, str]] | None = None
    clouds: set[str] = set()
    for date in dates:
        with open_mask(date.path) as raster:
            own = {*raster.tags().items()}
            clouds |= {raster.tags()['CLOUDS']} if 'CLOUDS' in raster.tags() else set()
        shared = own if shared is None else shared & own
    tags = {
        k: v
        for k, v in sorted(shared or ())
        if k not in ('AREA_OR_POINT', 'CLASS_NAMES')
    }
    names = sorted(Path(date.scene.scene).name for date in dates)
    if clouds:
        tags['CLOUDS'] = '; '.join(sorted(clouds))
    return tags | {'SCENE': ', '.join(names)}


def _picture(dates: Sequence[DateMap], visible: Sequence[int]) -> NDArray[np.float32]:
    """Return a thumbnail (3, h, w) of the clearest date that sees each pixel."""
    picture: NDArray[np.float32] | None = None
    for date in dates:
        scene = date.scene
        area = None if scene.area is None else scene.area.window
        own = scene.overview(visible, PICTURE, area)
        picture = own if picture is None else np.where(np.isnan(picture), own, picture)
    return np.zeros((3, 1, 1), np.float32) if picture is None else picture


def _rows(raster: DatasetReader, row: int) -> Bytes:
    """Return some rows (bands, rows, W) of a raster."""
    size = min(ROWS, raster.height - row)
    values: Bytes = raster.read(window=RasterWindow(0, row, raster.width, size))
    return values
