"""Draw a stratified random sample of a map, to be labeled by eye."""

import json
import sqlite3
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..accuracy import Floats, allocate, sample_size
from ..errors import Note, OutputError, SettingError, did_you_mean, name_key
from ..files import check_not_input, temporary_path
from ..grids import from_pixels
from ..inference.masks import open_mask
from ..inference.style import embed_style, samples_style
from ..inference.vector import check_vector_output, layer_name, publish_vector
from .clusters import draw_clusters
from .strata import OTHER, Strata, class_bands, read_strata, warn_of_few

#: Key of the file's metadata: pixels of each class of the map that was sampled.
STRATA = 'CTM_STRATA'
#: Side of a block in pixels, if none is given.
BLOCK = 100
#: Column with the block of a sample, from 1.
CLUSTER = 'cluster'
#: Fewest samples of a class by default, unless that is more than half of all.
FLOOR = 50
#: User's accuracy that is expected of a class by default.
EXPECTED = 0.8


def draw_samples(
    mask: str | Path,
    output: str | Path,
    *,
    size: int | None = None,
    standard_error: float | None = None,
    floor: int | None = None,
    expected: Sequence[str] | None = None,
    window: int = 21,
    clusters: int | None = None,
    block: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, int]:
    """Draw pixels at random from each class of a map, and write them as points.

    With *clusters*, draw blocks of the map instead, each with a probability in
    proportion to its valid pixels and with replacement, and as many pixels in each. A
    person then visits fewer places. Intervals are wider than of as many pixels that are
    drawn apart.

    The GeoPackage has a point in the center of each pixel, in random order and without
    the class of the map; an empty column ``reference``, for which QGIS offers the
    classes and :data:`~.strata.OTHER`; and the outlines of the pixel and of its surroundings as WKT.

    Args:
        mask: Class raster.
        output: GeoPackage to write.
        size: Samples in all.
        standard_error: Draw as many samples as give this standard error of overall
            accuracy, if the map is as accurate as expected.
        floor: Fewest samples of a class; None: 50, or less if that is over half of all.
        expected: Expected user's accuracy of all classes, ``0.8``, or of one,
            ``NAME=0.6``. With it, samples go where they lower the standard error most;
            without, in proportion to pixels.
        window: Side of the surroundings in pixels.
        clusters: Number of blocks; None: draw pixels from each class.
        block: Side of a block in pixels, by default 100.
        seed: Seed of the draw.
        overwrite: Replace an existing file.

    Returns:
        Class name → number of samples.

    Raises:
        OutputError: If *output* cannot be written, or holds samples that somebody has
            labeled.
        SceneError: If the map cannot be read, or has no class.
        SettingError: If an option is out of range.
    """
    _check_unanswered(Path(output))
    output = check_vector_output(output, overwrite)
    if output.suffix.lower() != '.gpkg':
        raise OutputError(
            f'{output} cannot hold the choices for QGIS, expected a GeoPackage. Did '
            f'you mean {output.with_suffix(".gpkg").name!r}?'
        )
    check_not_input(output, mask)
    _check(size, standard_error, floor, window)
    if clusters is None and block is not None:
        raise SettingError('--block is the side of a cluster. Pass --clusters too.')
    if clusters is not None:
        block = BLOCK if block is None else block
        _check_clusters(clusters, block, size, floor, expected)
        with open_mask(mask) as raster:
            if block >= max(raster.shape):
                raise SettingError(
                    f'--block {block} is as large as the map of {raster.height} × '
                    f'{raster.width} px, expected a part of it. Did you mean --block '
                    f'{min(BLOCK, max(1, min(raster.shape) // 10))}?'
                )
            drawn = draw_clusters(
                raster, clusters, block, size or 0, np.random.default_rng(seed)
            )
            frame = _frame(raster, drawn.pixels, window)
            frame.insert(2, CLUSTER, drawn.cluster)
        _write(frame, output, drawn.strata)
        return {
            name: int((drawn.values == value).sum())
            for name, value in zip(
                drawn.strata.names, drawn.strata.values.tolist(), strict=True
            )
        }
    with open_mask(mask) as raster:
        strata = read_strata(raster)
        users = _expected(expected, strata.names)
        if standard_error is not None:
            rates = np.full(len(users), EXPECTED) if expected is None else users
            size = sample_size(strata.pixels.astype(float), rates, standard_error)
        total = size or 0
        occurring = int((strata.pixels > 0).sum())
        if standard_error is None:
            _check_size(total, strata.pixels, floor)
        least = min(FLOOR, max(1, total // (2 * occurring)))
        numbers = allocate(
            strata.pixels,
            total,
            least if floor is None else floor,
            None if expected is None else users,
        )
        if size is not None and numbers.sum() > total:
            warnings.warn(
                f'--floor {floor} in each class gives {numbers.sum()} samples, more than '
                f'--size {size}.',
                Note,
                stacklevel=2,
            )
        occurs = strata.pixels > 0
        warn_of_few(np.array(strata.names)[occurs].tolist(), numbers[occurs])
        pixels = _draw(raster, strata, numbers, np.random.default_rng(seed))
        frame = _frame(raster, pixels, window)
    _write(frame, output, strata)
    return dict(zip(strata.names, numbers.tolist(), strict=True))


def _check(
    size: int | None, standard_error: float | None, floor: int | None, window: int
) -> None:
    """Check the numbers of :func:`draw_samples`."""
    if (size is None) == (standard_error is None):
        raise SettingError(
            'Expected either --size or --standard_error, got '
            f'{"both" if size is not None else "neither"}. Did you mean --size 300?'
        )
    for name, value, least in (('size', size, 1), ('floor', floor, 0)):
        if value is not None and value < least:
            raise SettingError(f'--{name} {value} is too small, expected {least}.')
    if standard_error is not None and not 0 < standard_error < 0.5:
        raise SettingError(
            f'--standard_error {standard_error}, expected 0 to 0.5, as 0.01.'
        )
    if window < 1:
        raise SettingError(f'--window {window} is too small, expected 1 px or more.')


def _check_size(size: int, pixels: NDArray[np.int64], floor: int | None) -> None:
    """Check that a map (pixels of each class) can have so many samples, or so few."""
    occurring = int((pixels > 0).sum())
    if size > pixels.sum():
        raise SettingError(
            f'--size {size} is more than the {pixels.sum():,} pixels of the map that '
            'have a class. Did you mean --size 300?'
        )
    if floor is None and size < occurring:
        raise SettingError(
            f'--size {size} is less than the {occurring} classes of the map, expected at '
            'least one sample of each. Did you mean --size 300?'
        )


def _check_clusters(
    clusters: int,
    block: int,
    size: int | None,
    floor: int | None,
    expected: Sequence[str] | None,
) -> None:
    """Check that options go with clusters."""
    for name, given in (('floor', floor), ('expected', expected)):
        if given is not None:
            raise SettingError(
                f'--{name} is for samples of each class, which --clusters does not draw.'
            )
    if size is None:
        raise SettingError('--clusters requires --size. Did you mean --size 300?')
    for name, value, least in (('clusters', clusters, 2), ('block', block, 1)):
        if value < least:
            raise SettingError(f'--{name} {value} is too small, expected {least}.')
    if size < clusters:
        raise SettingError(
            f'--size {size} is less than --clusters {clusters}, expected at least one '
            'sample in each.'
        )


def _expected(given: Sequence[str] | None, names: Sequence[str]) -> Floats:
    """Return the expected user's accuracy of each class."""
    users = np.full(len(names), EXPECTED)
    index = {name_key(name): number for number, name in enumerate(names)}
    for entry in given or ():
        name, equals, number = (part.strip() for part in entry.rpartition('='))
        if equals and name_key(name) not in index:
            raise SettingError(
                f'Unknown class {name!r} in --expected, expected some of: '
                f'{", ".join(names)}.{did_you_mean(name, names)}'
            )
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if not 0 < value < 1:
            raise SettingError(
                f'Invalid --expected {entry!r}, expected an accuracy between 0 and 1, '
                'as 0.8, or of a class, as NAME=0.6.'
            )
        users[index[name_key(name)] if equals else slice(None)] = value
    return users


def _draw(
    raster: DatasetReader,
    strata: Strata,
    numbers: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return rows and columns (n, 2) of pixels drawn from each class, in random order.

    Which of the pixels of a class, in reading order, is drawn before the second pass
    over the map.
    """
    ranks = [
        np.sort(rng.choice(pixels, number, replace=False, shuffle=False))
        for pixels, number in zip(strata.pixels, numbers, strict=True)
    ]
    seen = np.zeros(len(numbers), np.int64)
    found = []
    for row, values in class_bands(raster):
        flat = values.ravel()
        counts = np.bincount(flat[flat >= 0], minlength=int(strata.values.max()) + 1)
        for index, value in enumerate(strata.values.tolist()):
            end = seen[index] + counts[value]
            low, high = np.searchsorted(ranks[index], [seen[index], end])
            if high > low:
                chosen = ranks[index][low:high] - seen[index]
                place = np.flatnonzero(flat == value)[chosen]
                rows, cols = np.divmod(place, values.shape[1])
                found.append(np.stack([row + rows, cols], axis=1))
            seen[index] = end
    drawn = np.concatenate([np.empty((0, 2), np.int64), *found])
    return drawn[rng.permutation(len(drawn))]


def _frame(
    raster: DatasetReader, pixels: NDArray[np.int64], window: int
) -> gpd.GeoDataFrame:
    """Return the samples as points with the outlines of pixel and surroundings."""
    centers = (pixels[:, ::-1] + 0.5).astype(np.float64)
    crs = None if raster.crs is None else pyproj.CRS.from_user_input(raster.crs)
    return gpd.GeoDataFrame(
        {
            'id': np.arange(1, len(pixels) + 1),
            'reference': np.full(len(pixels), None, object),
            'pixel': _squares(centers, 1, raster),
            'window': _squares(centers, window, raster),
        },
        geometry=shapely.points(from_pixels(centers, raster.transform)),
        crs=crs,
    )


def _check_unanswered(output: Path) -> None:
    """Check that no sample is replaced that somebody has labeled."""
    if not output.is_file():
        return
    try:
        with closing(sqlite3.connect(output)) as database:
            layers = database.execute(
                'SELECT c.table_name FROM gpkg_contents c, '
                "pragma_table_info(c.table_name) p WHERE p.name = 'reference'"
            ).fetchall()
            answers = sum(
                database.execute(
                    f'SELECT count(reference) FROM "{layer}" '
                    "WHERE trim(reference) <> ''"
                ).fetchone()[0]
                for (layer,) in layers
            )
    except sqlite3.Error:
        return
    if answers:
        raise OutputError(
            f'{output} holds {answers} samples that somebody has labeled, which new ones '
            'would replace. Write to another name.'
        )


def _squares(centers: Floats, side: int, raster: DatasetReader) -> list[str]:
    """Return squares around pixels (n, 2), column and row, as WKT."""
    corners = side / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    rings = (centers[:, None] + corners).reshape(-1, 2)
    xy = from_pixels(rings, raster.transform).reshape(-1, 4, 2)
    wkt: list[str] = shapely.to_wkt(shapely.polygons(xy), rounding_precision=9).tolist()
    return wkt


def _write(frame: gpd.GeoDataFrame, output: Path, strata: Strata) -> None:
    """Write the samples, complete or not at all."""
    temporary = temporary_path(output).with_suffix('.gpkg')
    layer = layer_name(output)
    pixels = dict(zip(strata.names, strata.pixels.tolist(), strict=True))
    options: dict[str, Any] = {'dataset_options': {'VERSION': '1.2'}}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', "'crs' was not provided")
            pyogrio.write_dataframe(
                frame,
                temporary,
                layer=layer,
                driver='GPKG',
                geometry_type='Point',
                dataset_metadata={STRATA: json.dumps(pixels)},
                **options,
            )
        with closing(sqlite3.connect(temporary)) as database, database:
            embed_style(
                database, layer, samples_style([*dict.fromkeys([*strata.names, OTHER])])
            )
        publish_vector(temporary, output)
    except (OSError, RuntimeError, sqlite3.Error) as error:
        reason = str(error).splitlines()[0]
        raise OutputError(f'Cannot write {output}: {reason}') from error
    finally:
        temporary.unlink(missing_ok=True)
