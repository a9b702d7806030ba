"""Images and masks of the same ground, paired without resampling either."""

import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

import shapely
from rasterio.transform import array_bounds
from shapely import STRtree
from torch.utils.data import Dataset
from torchgeo.datasets import IntersectionDataset

from ..errors import DataError, GridError, LabelWarning
from ..grids import Grid
from ..scenes.scene import SceneWindows
from .pseudo_masks import MaskFacts, PseudoMasks
from .scene_images import SceneImages

#: How far pixels may lie off each other, in pixels, and still be the same.
TOLERANCE = 0.01


class Lattice(NamedTuple):
    """The pixels of a CRS that rasters share, whichever part they show."""

    crs: Any
    #: Width and height of a pixel.
    res: tuple[float, float]
    #: Where a corner of pixels lies.
    origin: tuple[float, float]

    def holds(self, other: 'Lattice') -> bool:
        """Tell whether another lattice is this one."""
        if self.crs != other.crs:
            return False
        size = all(
            abs(own / its - 1) < 1e-6
            for own, its in zip(self.res, other.res, strict=True)
        )
        off = [
            (own - its) / step
            for own, its, step in zip(self.origin, other.origin, self.res, strict=True)
        ]
        return size and all(abs(value - round(value)) < TOLERANCE for value in off)


class Pairing(NamedTuple):
    """Images and masks of one lattice, to be asked together."""

    dataset: IntersectionDataset
    #: Number of the lattice: those of one number share their pixels.
    lattice: int
    #: A corner of its pixels.
    origin: tuple[float, float]


class PairedDatasets(Dataset[dict[str, Any]]):
    """Samples of several pairings, asked by number and query.

    A TorchGeo index has one CRS, so scenes of several UTM zones would have to be warped
    to share one. These lie behind one another instead.
    """

    def __init__(self, pairings: Sequence[Pairing]) -> None:
        """Put pairings behind one another."""
        self.pairings = list(pairings)

    def __len__(self) -> int:
        """Return the number of places where an image and a mask meet."""
        return sum(len(pairing.dataset) for pairing in self.pairings)

    def __getitem__(self, place: tuple[int, Any]) -> dict[str, Any]:
        """Return ``image``, ``mask``, ``crs`` and ``bounds``.

        Args:
            place: Number of a pairing, and what to ask it for.
        """
        number, query = place
        sample: dict[str, Any] = self.pairings[number].dataset[query]
        return sample


def pair(
    scenes: Sequence[SceneWindows],
    masks: Sequence[MaskFacts],
    min_confidence: float = 0,
) -> list[Pairing]:
    """Bring masks together with the images that they were made of.

    By place, among rasters that share their pixels (CRS, resolution, and where a pixel
    ends), so that nothing is resampled. Where several images show the ground of a mask,
    as on different dates, it belongs to the one that it names (tag ``SCENE``), or else
    that its file is named after.

    Args:
        scenes: The images.
        masks: The masks.
        min_confidence: In per cent; see :class:`PseudoMasks`.

    Raises:
        DataError: If no mask lies on the pixels of an image.
        GridError: If a raster is rotated.
    """
    lattices: list[Lattice] = []
    images = _by_lattice(scenes, [(s.grid, s.scene) for s in scenes], lattices)
    labels = _by_lattice(masks, [(m.grid, m.path) for m in masks], lattices)
    pairings: list[Pairing] = []
    unclear: list[str] = []
    for number, lattice in enumerate(lattices):
        own = images.get(number, [])
        groups = _made_of(own, labels.get(number, []), unclear)
        for chosen, paths in groups.items():
            shown = SceneImages(own if chosen is None else [own[chosen]])
            mapped = PseudoMasks(
                paths, shown.crs, shown.res, min_confidence=min_confidence
            )
            dataset = IntersectionDataset(shown, mapped)
            pairings.append(Pairing(dataset, number, lattice.origin))
    if not pairings:
        raise DataError(
            f'none of {len(masks)} masks lies on the pixels of one of {len(scenes)} '
            f'images: {masks[0].path} {_said(masks[0].grid)}, {scenes[0].scene} '
            f'{_said(scenes[0].grid)}'
        )
    used = {path for pairing in pairings for path in pairing.dataset.datasets[1].files}
    _tell([mask.path for mask in masks if mask.path not in used], unclear)
    return pairings


Raster = TypeVar('Raster')


def _by_lattice(
    rasters: Sequence[Raster], grids: Sequence[tuple[Grid, str]], known: list[Lattice]
) -> dict[int, list[Raster]]:
    """Sort rasters by the lattice of their pixels; add those that are new."""
    found: dict[int, list[Raster]] = {}
    for raster, (grid, name) in zip(rasters, grids, strict=True):
        a, b, left, d, e, top = tuple(grid.transform)[:6]
        if b or d or a <= 0 or e >= 0:
            raise GridError(f'{name} is rotated, or not north up; needed: north up')
        if grid.crs is None:
            raise GridError(f'{name} has no CRS, so it has no place; needed: one with')
        lattice = Lattice(grid.crs, (a, -e), (left, top))
        numbers = [n for n, other in enumerate(known) if other.holds(lattice)]
        if not numbers:
            known.append(lattice)
        number = numbers[0] if numbers else len(known) - 1
        found.setdefault(number, []).append(raster)
    return found


def _made_of(
    scenes: Sequence[SceneWindows], masks: Sequence[MaskFacts], unclear: list[str]
) -> dict[int | None, list[str]]:
    """Return the masks by the number of their scene; None: whichever is there.

    Masks that several scenes show, and that name none of them, are added to *unclear*;
    those that no scene shows are left out.
    """
    groups: dict[int | None, list[str]] = {}
    tree = STRtree([_box(scene.grid) for scene in scenes])
    for mask in masks:
        # half a pixel smaller, so that neighbours do not count
        asked = _box(mask.grid).buffer(-mask.grid.transform.a / 2)
        around = sorted(tree.query(asked, 'intersects').tolist())
        if not around:
            continue
        chosen = None
        if len(around) > 1:
            named = [n for n in around if _names(mask, scenes[n])]
            chosen = max(named, key=lambda n: len(scenes[n].scene), default=None)
            if chosen is None:
                unclear.append(mask.path)
        groups.setdefault(chosen, []).append(mask.path)
    return groups


def _names(mask: MaskFacts, scene: SceneWindows) -> bool:
    """Tell whether a mask names a scene, by tag or else by the begin of its file."""
    name = PurePath(scene.scene)
    if mask.scene is not None:
        return mask.scene == name.name
    return PurePath(mask.path).stem.startswith(name.stem)


def _tell(lost: Sequence[str], unclear: Sequence[str]) -> None:
    """Warn of masks without an image, and of those with several."""
    if lost:
        warnings.warn(
            f'{len(lost)} masks lie on the pixels of no image and were left out, first '
            f'{lost[0]}',
            LabelWarning,
            stacklevel=3,
        )
    if unclear:
        warnings.warn(
            f'{len(unclear)} masks lie on several images and name none, first '
            f'{unclear[0]}: each is taken for the first image that shows its ground',
            LabelWarning,
            stacklevel=3,
        )


def _box(grid: Grid) -> Any:
    """Return a grid's outline."""
    return shapely.box(*array_bounds(grid.height, grid.width, grid.transform))


def _said(grid: Grid) -> str:
    """Say where a grid lies."""
    bounds = array_bounds(grid.height, grid.width, grid.transform)
    place = ', '.join(f'{value:.10g}' for value in bounds)
    return f'has {grid.crs.to_string()}, {grid.transform.a:g} a pixel, within {place}'
