"""Suggest windows to label next, from maps and their probabilities or confidence."""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from ..accuracy import Floats
from ..errors import LabelWarning, OutputError, SceneError, SettingError, name_key
from ..files import check_not_input, temporary_path
from ..grids import IGNORED, from_pixels
from ..inference.geotiff import product_path
from ..inference.masks import class_names, open_confidence, open_mask, open_raster
from ..inference.vector import check_vector_output, layer_name, publish_vector
from .zones import read_zones

#: Side of a window in pixels, unless the map says what it was made with.
SIDE = 64
#: Share of a window that must be valid, and that two windows may share.
VALID, SHARED = 0.8, 0.01
#: Share of the pixels of a window that decides whether a class is present.
PRESENT = 0.05
#: What a factor counts where it is 0, so that the others still decide.
LEAST = 0.1
#: Mean presence entropy in bits below which nothing is uncertain.
CERTAIN = 0.02


class _Windows(NamedTuple):
    """Windows of maps; n windows, C classes."""

    #: Map of each, (n,).
    maps: NDArray[np.int64]
    #: Squares in the CRS of the first map, (n,).
    shapes: NDArray[Any]
    #: Probability that a class is present, (n, C).
    presence: Floats
    #: Difference of the two largest shares, mean over pixels, (n,).
    margin: Floats
    #: Composition of a window, (n, F).
    features: Floats


def suggest(
    maps: Sequence[str | Path],
    output: str | Path,
    *,
    number: int = 40,
    window: int | None = None,
    labels: str | Path | None = None,
    field: str = 'classes',
    overwrite: bool = False,
) -> gpd.GeoDataFrame:
    """Choose windows where maps are in doubt, and write them as squares.

    Windows are taken one by one. The next has the largest product of four factors, each
    relative to its maximum: the entropy of its presence probabilities; one minus the
    margin between the two largest shares of a pixel; the distance of its composition to
    all windows that are labeled or taken (k-center); and the need of its classes, which
    is large for a class that few windows have, or that few are without. No two windows
    share ground, nor do they share it with labels.

    Args:
        maps: Class rasters, with OUT_probabilities.tif or OUT_confidence.tif beside.
        output: Vector file to write. Its empty column ``classes`` is for the labels.
        number: Windows to choose.
        window: Side of a window in pixels; None: 64.
        labels: Polygons that are labeled already.
        field: Their column with the classes.
        overwrite: Replace an existing file.

    Returns:
        The windows, best first.

    Raises:
        CTMError: If an input cannot be used, or the output cannot be written.
    """
    output = check_vector_output(output, overwrite)
    side = SIDE if window is None else window
    for name, value in (('number', number), ('window', side)):
        if value < 1:
            raise SettingError(f'--{name} {value} is too small, expected 1 or more.')
    for path in (*maps, *([] if labels is None else [labels])):
        check_not_input(output, path)
    names, crs, found = _candidates(maps, side)
    free, counts, labeled = _unlabeled(found, names, crs, labels, field)
    if not free.any():
        raise SceneError('All windows of the maps are labeled. Map other scenes.')
    chosen, factors = _choose(found, free, counts, labeled, number)
    if len(chosen) < number:
        warnings.warn(
            f'The maps have room for {len(chosen)} windows of {side} px, not {number}.',
            LabelWarning,
            stacklevel=2,
        )
    if _entropy(found.presence[free]).mean() < CERTAIN:
        warnings.warn(
            'The maps are certain almost everywhere, so that the windows are chosen by '
            'their composition alone. Another scene may teach more.',
            LabelWarning,
            stacklevel=2,
        )
    frame = gpd.GeoDataFrame(
        {
            'rank': np.arange(1, len(chosen) + 1),
            'classes': np.full(len(chosen), None, object),
            'predicted': [
                '; '.join(n for n, p in zip(names, row, strict=True) if p > 0.5)
                for row in found.presence[chosen]
            ],
            'map': [Path(maps[m]).name for m in found.maps[chosen]],
            **dict(
                zip(('entropy', 'doubt', 'distance', 'need'), factors.T, strict=True)
            ),
        },
        geometry=found.shapes[chosen],
        crs=crs,
    )
    _write(frame, output)
    return frame


def _candidates(
    maps: Sequence[str | Path], side: int
) -> tuple[list[str], pyproj.CRS | None, _Windows]:
    """Return class names, the CRS of the first map, and the windows of all maps."""
    names: list[str] | None = None
    crs: pyproj.CRS | None = None
    parts = []
    for index, path in enumerate(maps):
        with open_mask(path) as raster:
            found = class_names(raster)
            here = (
                None if raster.crs is None else pyproj.CRS.from_user_input(raster.crs)
            )
            if names is None:
                names, crs = found, here
            if not found or [*map(name_key, found)] != [*map(name_key, names)]:
                raise SceneError(
                    f'{path} has the classes {", ".join(found) or "without names"}, '
                    f'expected those of {maps[0]}: {", ".join(names) or "names"}.'
                )
            if (here is None) != (crs is None):
                raise SceneError(
                    f'{path} or {maps[0]} has no CRS, expected one in both.'
                )
            part = _windows(raster, Path(path), index, side, len(found))
        if crs is not None and here is not None and here != crs:
            moved = gpd.GeoSeries(part.shapes, crs=here).to_crs(crs)
            part = part._replace(shapes=moved.to_numpy())
        parts.append(part)
    whole = _Windows(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    if not len(whole.maps):
        raise SceneError(
            f'The maps have no window of {side} px with enough valid pixels. Did you '
            'mean a smaller --window?'
        )
    return names or [], crs, whole


def _windows(
    raster: DatasetReader, path: Path, index: int, side: int, classes: int
) -> _Windows:
    """Return the windows of one map, read row by row of windows."""
    probabilities, confidence = (
        product_path(path, product) for product in ('probabilities', 'confidence')
    )
    if probabilities.exists():
        source = open_raster(probabilities, 'probabilities', classes)
    elif confidence.exists():
        source = open_confidence(confidence, raster)
    else:
        raise SceneError(
            f'{path} has neither {probabilities.name} nor {confidence.name} beside it, '
            'expected one of them. Map the scene again with --probabilities.'
        )
    columns = raster.width // side
    squares, rows = [], []
    with source:
        for row in range(0, raster.height - side + 1, side):
            here = RasterWindow(0, row, columns * side, side)
            values = raster.read(1, window=here)
            valid = (raster.read_masks(1, window=here) > 0) & (values != IGNORED)
            shares = _shares(source.read(window=here), values, classes)
            for col in range(0, columns * side, side):
                cut = slice(col, col + side)
                known = valid[:, cut]
                if known.mean() >= VALID:
                    rows.append(_facts(shares[:, :, cut][:, known]))
                    squares.append((col, row))
    corners = side * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    pixels = np.array(squares, float).reshape(-1, 1, 2) + corners
    shapes = shapely.polygons(
        from_pixels(pixels.reshape(-1, 2), raster.transform).reshape(-1, 4, 2)
    )
    facts = np.array(rows).reshape(-1, 3 * classes + 1)
    return _Windows(
        np.full(len(shapes), index),
        shapes,
        facts[:, :classes],
        facts[:, -1],
        facts[:, :-1],
    )


def _shares(
    stored: NDArray[Any], values: NDArray[Any], classes: int
) -> NDArray[np.float32]:
    """Return the share of each class (C, rows, width), 0…1.

    Confidence is the share of the class of the map. The others share the rest.
    """
    percent: NDArray[np.float32] = stored.astype(np.float32) / np.float32(100)
    if len(percent) == classes and classes > 1:
        return percent
    is_class = np.arange(classes)[:, None, None] == values
    rest = (1 - percent) / np.float32(max(classes - 1, 1))
    shares: NDArray[np.float32] = np.where(is_class, percent, rest)
    return shares


def _facts(shares: NDArray[np.float32]) -> Floats:
    """Return presence (C,), means (C,), deviations (C,) and margin of pixels (C, P)."""
    top = max(1, round(PRESENT * shares.shape[1]))
    presence = np.partition(shares, -top, axis=1)[:, -top:].mean(axis=1)
    margin = 1.0
    if len(shares) > 1:
        second, first = np.partition(shares, -2, axis=0)[-2:]
        margin = float((first - second).mean())
    return np.concatenate(
        [presence, shares.mean(axis=1), shares.std(axis=1), [margin]]
    ).astype(np.float64)


def _unlabeled(
    found: _Windows,
    names: Sequence[str],
    crs: pyproj.CRS | None,
    labels: str | Path | None,
    field: str,
) -> tuple[NDArray[np.bool_], Floats, int]:
    """Return which windows share no ground with labels, labels by class (C,), and all."""
    free = np.ones(len(found.maps), bool)
    counts = np.zeros(len(names))
    if labels is None:
        return free, counts, 0
    if crs is None:
        raise SceneError('The maps have no CRS, so that labels have no place in them.')
    texts, shapes = read_zones(Path(labels), field, crs)
    for index, name in enumerate(map(name_key, names)):
        parts = (text.replace('|', ';').replace(',', ';').split(';') for text in texts)
        counts[index] = sum(name in map(name_key, part) for part in parts)
    tree = shapely.STRtree(shapes)
    window, label = tree.query(found.shapes, predicate='intersects')
    shared = shapely.area(shapely.intersection(found.shapes[window], shapes[label]))
    free[window[shared > SHARED * shapely.area(found.shapes[window])]] = False
    return free, counts, len(texts)


def _entropy(presence: Floats) -> Floats:
    """Return the mean entropy of presences (n, C) in bits, (n,)."""
    p = presence.clip(1e-6, 1 - 1e-6)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    mean: Floats = np.where((presence > 0) & (presence < 1), entropy, 0).mean(axis=1)
    return mean


def _choose(
    found: _Windows, free: NDArray[np.bool_], counts: Floats, labeled: int, number: int
) -> tuple[NDArray[np.int64], Floats]:
    """Return the windows to label, best first, and the four factors of each (k, 4)."""
    spread = found.features.std(axis=0)
    features = found.features[:, spread > 0] / spread[spread > 0]
    features = features - features.mean(axis=0)
    distance = np.full(len(features), np.inf)
    for index in np.flatnonzero(~free):
        distance = np.minimum(
            distance, np.linalg.norm(features - features[index], axis=1)
        )
    if not np.isfinite(distance).all():
        # the first window is not far from all others, but in their middle
        distance = 1 / (1 + np.linalg.norm(features, axis=1))
    first = bool(free.all())
    entropy, doubt = _entropy(found.presence), 1 - found.margin
    tree = shapely.STRtree(found.shapes)
    free, counts = free.copy(), counts.copy()
    chosen: list[int] = []
    factors = []
    while free.any() and len(chosen) < number:
        # a class is learned from windows with it and from windows without
        need = found.presence @ (1 / (1 + counts))
        need += (1 - found.presence) @ (1 / (1 + labeled + len(chosen) - counts))
        each = np.stack([entropy, doubt, distance, need], axis=1)
        largest = each[free].max(axis=0)
        relative = each / np.where(largest > 0, largest, 1)
        score = (LEAST + relative).prod(axis=1)
        best = int(np.where(free, score, -1).argmax())
        chosen.append(best)
        factors.append(relative[best])
        counts += found.presence[best]
        apart = np.linalg.norm(features - features[best], axis=1)
        distance = apart if first and len(chosen) == 1 else np.minimum(distance, apart)
        near = tree.query(found.shapes[best], predicate='intersects')
        shared = shapely.area(
            shapely.intersection(found.shapes[near], found.shapes[best])
        )
        free[near[shared > SHARED * shapely.area(found.shapes[near])]] = False
    return np.array(chosen, np.int64), np.array(factors).reshape(-1, 4)


def _write(frame: gpd.GeoDataFrame, output: Path) -> None:
    """Write the windows, complete or not at all."""
    folder = temporary_path(output)
    made = folder / output.name
    try:
        folder.mkdir()
        if output.suffix.lower() == '.parquet':
            frame.to_parquet(made, index=False)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', "'crs' was not provided")
                pyogrio.write_dataframe(frame, made, layer=layer_name(output))
        publish_vector(made, output)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise OutputError(f'Cannot write {output}: {reason}') from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
