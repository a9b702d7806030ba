"""Synthetic land cover in the layout and classes of DFC2020."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import rasterio
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio import Affine
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import DataError, SettingError, did_you_mean
from ..files import atomic_path
from ..grids import IGNORED
from ..split import SPLITS, Split, check_split
from .dfc2020 import DFC2020, SOURCE_TO_CLASS

#: Top-of-atmosphere reflectance x 10,000 of pure materials in the 13 bands B01 … B12.
MATERIALS = {
    'shade': (1130, 840, 620, 420, 500, 950, 1150, 1100, 1200, 420, 12, 600, 300),
    'canopy': (1180, 900, 790, 520, 900, 2300, 2850, 2800, 3050, 980, 14, 1600, 750),
    'herb': (1230, 980, 980, 720, 1250, 2600, 3150, 3100, 3400, 1100, 15, 2200, 1200),
    'hay': (1330, 1200, 1300, 1400, 1800, 2350, 2600, 2600, 2850, 980, 18, 3200, 2250),
    'soil': (1420, 1350, 1500, 1800, 2050, 2250, 2400, 2350, 2600, 880, 20, 3400, 2900),
    'roof': (1600, 1600, 1700, 1850, 1950, 2050, 2150, 2200, 2250, 860, 20, 2500, 2200),
    'water': (1240, 950, 720, 460, 440, 420, 400, 350, 320, 150, 12, 140, 90),
}
#: Reflectance that the thickest haze adds to each band, less toward the infrared.
HAZE = (300, 240, 170, 110, 95, 80, 70, 60, 55, 50, 0, 15, 8)


class Cover(NamedTuple):
    """Appearance of a class: a mixture of two materials that varies in space.

    The share of the second is ``mean + spread * region + contrast * texture``, clipped
    to 0…1, where region and texture are names of fields of about unit variance.
    """

    first: str
    second: str
    mean: float
    spread: float
    region: Literal['drift', 'parcel']
    contrast: float
    texture: Literal['speckle', 'clumps', 'soft', 'stripes', 'blocks']


#: In the order of DFC2020.classes. Forest and Shrubland, Grassland and Croplands,
#: Wetlands and Water, Urban and Barren consist of the same materials in overlapping
#: shares, so that only texture of 3 to 8 pixels tells them apart, not single pixels.
COVERS = (
    Cover('shade', 'canopy', 0.40, 0.10, 'drift', 0.38, 'speckle'),
    Cover('shade', 'canopy', 0.80, 0.09, 'drift', 0.12, 'soft'),
    Cover('herb', 'hay', 0.24, 0.10, 'drift', 0.08, 'soft'),
    Cover('water', 'herb', 0.48, 0.08, 'drift', 0.28, 'clumps'),
    Cover('herb', 'hay', 0.62, 0.12, 'parcel', 0.34, 'stripes'),
    Cover('soil', 'roof', 0.76, 0.10, 'parcel', 0.38, 'blocks'),
    Cover('soil', 'roof', 0.25, 0.10, 'drift', 0.08, 'soft'),
    Cover('water', 'herb', 0.12, 0.07, 'drift', 0.04, 'soft'),
)

#: A second appearance of each class, in the same order: open or deciduous forest, dry
#: shrubs, dry grass, reeds, bare fields, suburbs, gravel with herbs, turbid water.
OTHER_COVERS = (
    Cover('shade', 'herb', 0.45, 0.12, 'drift', 0.30, 'speckle'),
    Cover('canopy', 'hay', 0.40, 0.12, 'drift', 0.20, 'clumps'),
    Cover('herb', 'hay', 0.60, 0.12, 'drift', 0.10, 'soft'),
    Cover('water', 'canopy', 0.50, 0.10, 'drift', 0.30, 'clumps'),
    Cover('soil', 'hay', 0.30, 0.15, 'parcel', 0.20, 'stripes'),
    Cover('roof', 'canopy', 0.40, 0.12, 'parcel', 0.35, 'blocks'),
    Cover('soil', 'hay', 0.15, 0.10, 'drift', 0.10, 'soft'),
    Cover('water', 'soil', 0.20, 0.08, 'drift', 0.04, 'soft'),
)

Traits = Literal['plain', 'real']
#: With traits='real': share of the parcels with the second appearance, deviation of the
#: brightness of a parcel, pixels by which borders are off, share of the ground with
#: strays of other classes, blur of the optics in pixels, deviation of the logarithmic
#: gain of near and of shortwave infrared.
OTHER, BRIGHTNESS, OFF, STRAYS, REAL_SPREAD, SEASON = 0.35, 0.06, 1.2, 0.05, 1.3, 0.15
#: Bands that brighten and darken together from season to season.
SEASONAL = (('B06', 'B07', 'B08', 'B8A'), ('B11', 'B12'))

PATCH_SPACING = 135  # pixels between patches of one class
PARCEL_SPACING = 34  # pixels between the parcels (fields, blocks) they consist of
POINT_SPREAD = 0.8  # standard deviation of the optics' blur, pixels
PIXEL = 10  # meters
UTM_ZONES = ('EPSG:32632', 'EPSG:32633')
#: Version of the drawing, stored with the tiles. Increase it with every change.
DRAWING = 2

Shape = tuple[int, int]
Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


def _noise(rng: Generator, shape: Shape, sigma: float) -> Floats:
    """Draw Gaussian noise (H, W) of unit variance, smoothed over *sigma* pixels.

    A Fourier transform filters it at a cost that does not grow with *sigma*, and its
    wrap-around keeps the variance at the edges.
    """
    rows, columns = (fft.next_fast_len(max(n, round(6 * sigma))) for n in shape)
    frequency = np.hypot(fft.fftfreq(rows)[:, None], fft.rfftfreq(columns))
    response = np.exp(-2 * (np.pi * sigma * frequency) ** 2).astype(np.float32)
    white = rng.standard_normal((rows, columns), np.float32)
    field: Floats = fft.irfft2(fft.rfft2(white) * response, s=(rows, columns))
    # smoothing leaves a variance of 1 / (4 pi sigma²)
    return np.float32(2 * sigma * np.sqrt(np.pi)) * field[: shape[0], : shape[1]]


def _scatter(rng: Generator, shape: Shape, spacing: int) -> NDArray[np.float64]:
    """Draw random points (N, 2), rows and columns, in the area and a margin.

    The margin makes cells at the edge as large as those in the center.
    """
    corner = np.array(shape) + 2 * spacing
    count = round(float((corner + 2 * spacing).prod()) / spacing**2)
    return rng.uniform(-2 * spacing, corner, (count, 2))


def _layout(rng: Generator, shape: Shape) -> tuple[NDArray[np.intp], Labels]:
    """Draw the parcel number and the class 0…7 of every pixel, (H, W) each.

    Parcels are Voronoi cells with borders bent by noise. Each takes the class of the
    patch that its center lies in, so that patches consist of whole parcels.
    """
    bend = [6 * _noise(rng, shape, 8) + _noise(rng, shape, 2) for _ in range(2)]
    pixels = np.moveaxis(np.indices(shape, np.float32) + np.stack(bend), 0, -1)
    patches = _scatter(rng, shape, PATCH_SPACING)
    centers = _scatter(rng, shape, PARCEL_SPACING)
    # dealt, not drawn, so that no scene lacks a class by chance
    patch_class = rng.permutation(np.arange(len(patches)) % len(COVERS)).astype(
        np.uint8
    )
    parcel_class = patch_class[cKDTree(patches).query(centers)[1]]
    parcel = np.asarray(cKDTree(centers).query(pixels)[1])
    return parcel, parcel_class[parcel]


def _grids(rng: Generator, parcel: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Draw stripes and blocks, (H, W) each, at an own angle in every parcel."""
    low, high = ((0,), (4.5,), (0,)), ((np.pi,), (7,), (1,))
    drawn = rng.uniform(low, high, (3, int(parcel.max()) + 1)).astype(np.float32)
    angle, period, phase = drawn[:, parcel]
    y, x = np.indices(parcel.shape, np.float32)
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    stripes = np.sqrt(2) * np.sin(2 * np.pi * (across / period + phase))
    # houses of 8 pixels with streets between them
    street = (across / 8 % 1 < 0.3) | (along / 8 % 1 < 0.3)
    brightness = rng.uniform(0.75, 1.6, (64, 64))
    column, row = (np.floor(axis / 8).astype(int) % 64 for axis in (across, along))
    blocks = np.where(street, -1.2, brightness[row, column])
    return stripes.astype(np.float32), blocks.astype(np.float32)


def _abundances(
    rng: Generator,
    parcel: NDArray[np.intp],
    labels: Labels,
    other: NDArray[np.bool_] | None = None,
) -> Floats:
    """Draw the share of each material in every pixel: (materials, H, W), sum 1.

    Args:
        rng: Random numbers.
        parcel: Number of the parcel (H, W).
        labels: Class (H, W).
        other: Which pixels (H, W) have the second appearance of their class.
    """
    height, width = labels.shape
    shape = (height, width)
    fields = {
        'drift': _noise(rng, shape, 14),
        'parcel': rng.standard_normal(int(parcel.max()) + 1, np.float32)[parcel],
        'speckle': _noise(rng, shape, 1.1),
        'clumps': _noise(rng, shape, 2.2),
        'soft': _noise(rng, shape, 5),
    }
    fields['stripes'], fields['blocks'] = _grids(rng, parcel)
    names = list(MATERIALS)
    abundances = np.zeros((len(names), *shape), np.float32)
    drawn = [(cover, labels == index) for index, cover in enumerate(COVERS)]
    if other is not None:
        drawn = [(cover, here & ~other) for cover, here in drawn]
        drawn += [
            (cover, (labels == index) & other)
            for index, cover in enumerate(OTHER_COVERS)
        ]
    for cover, here in drawn:
        region, texture = fields[cover.region][here], fields[cover.texture][here]
        share = cover.mean + cover.spread * region + cover.contrast * texture
        abundances[names.index(cover.second), here] = share.clip(0, 1)
        abundances[names.index(cover.first), here] = 1 - share.clip(0, 1)
    # the optics mix neighboring pixels, also across borders
    spread = POINT_SPREAD if other is None else REAL_SPREAD
    return gaussian_filter(abundances, (0, spread, spread), truncate=3)


def _seen(
    rng: Generator, parcel: NDArray[np.intp], labels: Labels
) -> tuple[NDArray[np.intp], Labels]:
    """Return parcels and classes (H, W) as they lie on real ground.

    Borders are up to a few pixels from where the reference has them, and classes hold
    strays of others, such as trees in grassland, which the reference leaves out.
    """
    height, width = labels.shape
    rows, columns = (
        np.clip(axis + np.rint(OFF * _noise(rng, (height, width), 2)).astype(int), 0, n)
        for axis, n in zip(np.indices(labels.shape), (height - 1, width - 1))
    )
    parcel, labels = parcel[rows, columns], labels[rows, columns]
    strays = _noise(rng, (height, width), 2.5)
    strayed = strays > np.quantile(strays, 1 - STRAYS)
    return parcel, np.where(strayed, _layout(rng, (height, width))[1], labels)


def _weather(rng: Generator, shape: Shape) -> tuple[Floats, Floats]:
    """Draw the season's gain of each band (13,), and haze (H, W), 0 to about 1."""
    gain = np.ones(len(HAZE), np.float32)
    for group in SEASONAL:
        gain[[DFC2020.all_bands.index(band) for band in group]] = np.exp(
            SEASON * rng.standard_normal()
        )
    haze = rng.uniform() * (1 + 0.5 * _noise(rng, shape, 40)).clip(0)
    return gain, haze.astype(np.float32)


def render(
    height: int, width: int, seed: int | Sequence[int], traits: Traits = 'plain'
) -> tuple[NDArray[np.uint16], Labels]:
    """Draw an image and its land cover.

    Args:
        height: Rows, pixels of 10 m.
        width: Columns, pixels of 10 m.
        seed: Seed of :func:`numpy.random.default_rng`, which determines the result.
        traits: 'plain', or 'real' for classes of two appearances, borders that the
            reference has a pixel off, strays, haze that varies, and seasons.

    Returns:
        The image, uint16 (13, height, width), reflectance x 10,000, bands in the order
        of ``DFC2020.all_bands``, and labels of DFC2020's source, uint8 (height, width),
        1…10 without 3 and 8.

    Raises:
        SettingError: If the image has no pixel.
    """
    if min(height, width) < 1:
        raise SettingError(
            f'Cannot draw {height} x {width} px, expected at least 1 x 1.'
        )
    rng = np.random.default_rng(seed)
    parcel, labels = _layout(rng, (height, width))
    spectra = np.array(list(MATERIALS.values()), np.float32)
    # sun and calibration: one factor for the scene, a weaker one for each band
    gain = rng.normal(1, 0.05) * rng.normal(1, 0.02, (1, len(HAZE)))
    lit = (spectra * gain).T.astype(np.float32)
    if traits == 'plain':
        image = np.tensordot(lit, _abundances(rng, parcel, labels), axes=1)
    else:
        image = _real_image(rng, lit, parcel, labels)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= (6 + 0.02 * spectra.mean(axis=0))[:, None, None]
    image += noise
    if traits == 'plain':
        haze = np.array(HAZE, np.float32) * np.float32(rng.uniform())
        image += haze[:, None, None]
    # 0 is nodata in Sentinel-2 products
    reflectance = image.round().clip(1, 65535).astype(np.uint16)
    source = np.array([SOURCE_TO_CLASS.index(i) for i in range(len(COVERS))], np.uint8)
    return reflectance, source[labels]


def _real_image(
    rng: Generator, lit: Floats, parcel: NDArray[np.intp], labels: Labels
) -> Floats:
    """Draw an image (13, H, W) without noise, as of real ground.

    Args:
        rng: Random numbers.
        lit: Reflectance of the materials (13, materials).
        parcel: Number of the parcel (H, W), in the reference.
        labels: Class (H, W), likewise.
    """
    parcel, seen = _seen(rng, parcel, labels)
    count = int(parcel.max()) + 1
    other = (rng.random(count) < OTHER)[parcel]
    image = np.tensordot(lit, _abundances(rng, parcel, seen, other), axes=1)
    image *= rng.normal(1, BRIGHTNESS, count).astype(np.float32)[parcel]
    gain, haze = _weather(rng, (labels.shape[0], labels.shape[1]))
    found: Floats = gain[:, None, None] * image
    return found + np.array(HAZE, np.float32)[:, None, None] * haze


def _write(
    path: Path, array: NDArray[Any], crs: str, corner: tuple[int, int], **options: Any
) -> None:
    """Write (bands, H, W) as GeoTIFF of 10 m pixels with *corner* at the upper left."""
    profile = {
        **dict(zip(('count', 'height', 'width'), array.shape)),
        'dtype': array.dtype,
        'crs': crs,
        'transform': Affine(PIXEL, 0, corner[0], 0, -PIXEL, corner[1]),
        'interleave': 'band',
    }
    with rasterio.open(path, 'w', driver='GTiff', **profile, **options) as raster:
        raster.write(array)
        raster.descriptions = DFC2020.all_bands if len(array) > 1 else ('land cover',)


def write_scene(
    scene_path: str | os.PathLike[str],
    reference_path: str | os.PathLike[str],
    size: int = 1024,
    seed: int = 0,
) -> None:
    """Write a scene like the tiles, but larger, and its reference.

    Both are tiled, deflated GeoTIFFs on one UTM grid of 10 m pixels. The scene differs
    from every tile of the same seed.

    Args:
        scene_path: Output: uint16, 13 named bands, reflectance x 10,000.
        reference_path: Output: uint8, classes 0…7 of :class:`DFC2020`, nodata 255.
        size: Rows and columns in pixels.
        seed: Seed of the drawing.

    Raises:
        SettingError: If *size* is below 1.
    """
    image, labels = render(size, size, (seed, len(SPLITS), 0))
    classes = np.array(SOURCE_TO_CLASS, np.uint8)[labels][None]
    tiling: dict[str, Any] = {'tiled': True, 'compress': 'deflate', 'predictor': 2}
    location = (UTM_ZONES[0], (600_000, 6_000_000))
    rasters = ((scene_path, image, None), (reference_path, classes, IGNORED))
    for path, array, nodata in rasters:
        with atomic_path(path) as temporary:
            _write(temporary, array, *location, nodata=nodata, **tiling)


class SyntheticLandCover(DFC2020):
    """Synthetic tiles with the classes, bands and layout of DFC2020.

    Nothing is downloaded: the tiles are written below *root* on first use (350 MB with
    the default settings, in 15 s on one core), and :class:`DFC2020` reads them. Samples
    are those of DFC2020, with *size* instead of 256.

    A tile has irregular patches of mostly two to four classes. Pairs of classes have
    the same materials and different texture, so that single pixels do not tell them
    apart: a random forest on pixels, trained on true masks, reaches a test mIoU of
    0.70, the best single class 0.02; with the mean and deviation of 3 x 3 pixels the
    forest reaches 0.94. ``python benchmarks/synthetic_pixels.py`` reproduces this.
    """

    #: Synthetic tiles have no protocols.
    tile_counts: ClassVar[dict[str, dict[str, int]]] = {}

    def __init__(
        self,
        root: str | os.PathLike[str] = 'data',
        split: Split = 'train',
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        *,
        num_tiles: tuple[int, int, int] = (600, 100, 100),
        size: int = 128,
        seed: int = 0,
        traits: Traits = 'plain',
    ) -> None:
        """Initialize a new SyntheticLandCover instance, and draw its tiles if needed.

        Args:
            root: Folder that holds, or will hold, ``dfc2020_s1s2``.
            split: 'train', 'val' or 'test'.
            bands: Names of the bands to read, all 13 if None.
            transforms: Applied to each sample by TorchGeo's class.
            num_tiles: Tiles in each of the three splits.
            size: Rows and columns of a tile in pixels.
            seed: Seed of the drawing. A tile depends on it, its split and its number.
            traits: 'plain', or 'real' for tiles that are as hard to learn from as a
                real scene: classes of two appearances, borders that the reference has
                a pixel off, strays of other classes, uneven haze, and seasons.

        Raises:
            DataError: If *root* holds the real DFC2020, or tiles of other settings.
            SettingError: If *split*, *num_tiles*, *size* or *seed* is not valid.
        """
        settings: dict[str, Any] = {
            'num_tiles': list(num_tiles),
            'size': size,
            'seed': seed,
        }
        check_split(split)
        if len(num_tiles) != len(SPLITS) or min(*num_tiles, size) < 1 or seed < 0:
            raise SettingError(
                f'Invalid settings {settings}, expected three counts and a size of at '
                'least 1, and a seed of at least 0.'
            )
        if traits not in get_args(Traits):
            raise SettingError(
                f"traits={traits!r}, expected 'plain' or 'real'."
                + did_you_mean(str(traits), get_args(Traits))
            )
        if traits != 'plain':
            settings['traits'] = traits
        folder = Path(root) / self.directory
        settings['drawing'] = DRAWING
        if not folder.exists() and not (Path(root) / self.zipfile).exists():
            self._draw(folder, settings)
        self._check(folder, settings)
        super().__init__(root, split, bands, transforms)

    @staticmethod
    def _check(folder: Path, settings: dict[str, Any]) -> None:
        """Check that the tiles in *folder* were drawn with *settings*.

        Raises:
            DataError: If not, or if they are the real DFC2020.
        """
        record = folder / 'synthetic.json'
        if not record.is_file():
            raise DataError(
                f'{folder.parent} holds the real DFC2020. Choose another root.'
            )
        drawn = json.loads(record.read_text(encoding='utf-8'))
        if drawn != settings:
            raise DataError(
                f'{folder} was drawn with {drawn}, expected {settings}. Use the same '
                'settings or choose another root.'
            )

    @classmethod
    def _draw(cls, folder: Path, settings: dict[str, Any]) -> None:
        """Draw all splits in a temporary folder beside *folder*, then rename it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix='.synthetic-', dir=folder.parent) as temporary:
            partial = Path(temporary) / folder.name
            for sensor in ('s2', 'dfc'):
                (partial / sensor).mkdir(parents=True)
            for split, count in enumerate(settings['num_tiles']):
                files = [cls._tile(partial, split, i, settings) for i in range(count)]
                listing = partial / cls.filename.format(SPLITS[split])
                listing.write_text('\n'.join(files) + '\n', encoding='utf-8')
            (partial / 'synthetic.json').write_text(
                json.dumps(settings), encoding='utf-8'
            )
            try:
                partial.rename(folder)
            except OSError:
                # another process was faster; its settings are checked afterward
                if not folder.exists():
                    raise

    @staticmethod
    def _tile(folder: Path, split: int, index: int, settings: dict[str, Any]) -> str:
        """Draw and write tile *index* of a split; return the file name of its mask."""
        size = settings['size']
        seed, traits = settings['seed'], settings.get('traits', 'plain')
        image, labels = render(size, size, (seed, split, index), traits)
        # zones alternate; within one, tiles stand in rows of 20, one tile apart
        row, column = divmod(index // len(UTM_ZONES), 20)
        step = 2 * size * PIXEL
        location = (
            UTM_ZONES[index % len(UTM_ZONES)],
            (300_000 + column * step, 5_000_000 + split * 400_000 - row * step),
        )
        name = f'ROIs0000_synthetic_dfc_{split}_p{index}.tif'
        _write(folder / 's2' / name.replace('dfc', 's2'), image, *location)
        _write(folder / 'dfc' / name, labels[None], *location)
        return name
