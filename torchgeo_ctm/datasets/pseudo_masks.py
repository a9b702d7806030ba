"""Exported masks as a TorchGeo RasterDataset."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.colors import to_hex
from torchgeo.datasets import RasterDataset

from ..compat import merge
from ..errors import DataError, LabelError, SettingError
from ..files import expanded
from ..grids import IGNORED, Grid
from ..rasters import grid_of, open_raster

#: Ends of the names of rasters beside a mask that are no masks.
BESIDE = ('_confidence', '_probabilities')


class MaskFacts(NamedTuple):
    """Metadata of a mask."""

    path: str
    grid: Grid
    #: Name of the scene that it was made of, None if unknown.
    scene: str | None
    #: Names of the classes, None if unknown.
    class_names: tuple[str, ...] | None
    #: Color of each value (``#rrggbb``) in its color table, if it has one.
    colors: dict[int, str]


class PseudoMasks(RasterDataset):
    """Masks that ``torchgeo-ctm predict`` and ``pseudomasks`` wrote, by place.

    Samples hold ``mask`` int64 (h, w): the class, or 255 where there is none or its
    confidence is too low. Rasters ``…_confidence.tif`` and ``…_probabilities.tif`` are
    not masks. Any class raster of one band serves, if 255 is its nodata value.

    As TorchGeo does, masks of other coordinate systems are warped to *crs*, pixels by
    nearest neighbor, for masks and their confidence alike.
    """

    filename_glob = '*.tif*'
    is_image = False

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = 'data',
        crs: Any = None,
        res: float | tuple[float, float] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        cache: bool = True,
        min_confidence: float = 0,
    ) -> None:
        """Find the masks.

        Args:
            paths: Masks, or folders to search through.
            crs: CRS to warp to; None: that of the first mask.
            res: Resolution in units of the CRS; None: that of the first mask.
            transforms: Applied to each sample.
            cache: Keep files open between samples.
            min_confidence: In percent, 0…100; pixels of less become 255. Above 0,
                each mask ``X.tif`` needs its ``X_confidence.tif``.

        Raises:
            DataError: If a mask has several bands, no CRS, or no confidence though
                that is asked for.
            SettingError: If *min_confidence* is out of range.
            torchgeo.datasets.DatasetNotFoundError: If there is no mask.
        """
        if not 0 <= min_confidence <= 100:
            raise SettingError(
                f'min_confidence={min_confidence} is out of range, expected 0 to 100 '
                f'percent. Did you mean {min(max(min_confidence, 0), 100)}?'
            )
        if 0 < min_confidence < 1:
            raise SettingError(
                f'min_confidence={min_confidence} is in percent, expected 0 or 1 to '
                f'100. Did you mean {100 * min_confidence:g}?'
            )
        self.min_confidence = min_confidence
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        given = [str(expanded(path)) for path in several]
        for path in given:
            if not Path(path).exists():
                raise DataError(f'{path} does not exist, expected a mask or a folder.')
        self.paths: list[str] = given
        #: Metadata of each mask, in the order of :attr:`files`.
        self.facts = [mask_facts(path) for path in self.files]
        if min_confidence:
            self._check_confidence()
        super().__init__(given, crs, res, transforms=transforms, cache=cache)

    @property
    def files(self) -> list[str]:
        """The masks, in order of their paths; hidden files are none."""
        found: set[str] = set()
        for given in map(Path, self.paths):
            inside = sorted(given.rglob('*')) if given.is_dir() else [given]
            found |= {str(path) for path in inside if _is_mask(path, given)}
        return sorted(found)

    def _check_confidence(self) -> None:
        """Check that each mask has a confidence on its grid."""
        for facts in self.facts:
            path = confidence_path(facts.path)
            if not Path(path).is_file():
                raise DataError(
                    f'{path} does not exist, which min_confidence='
                    f'{self.min_confidence:g} of {facts.path} requires. Did you mean '
                    'min_confidence=0?'
                )
            if _open_facts(path)[0] != facts.grid:
                raise DataError(f'{path} is not on the grid of {facts.path}.')

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Return the sample of a query: ``mask`` and TorchGeo's ``bounds``.

        Args:
            query: [xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres].

        Raises:
            IndexError: If no mask is there.
        """
        transforms, self.transforms = self.transforms, None
        try:
            sample = super().__getitem__(query)
        finally:
            self.transforms = transforms
        if self.min_confidence:
            confidence = self._confidence(query)
            # 255: no data, in both
            sample['mask'][confidence < self.min_confidence] = IGNORED
        return sample if transforms is None else transforms(sample)

    def _confidence(self, query: Any) -> Any:
        """Return the confidence (h, w) of a query, merged as its masks are."""
        x, y, t = self._disambiguate_slice(query)
        near = self.index.cx[x.start : x.stop, y.start : y.stop]
        paths = [confidence_path(path) for path in near.filepath]
        return merge(self, paths, (x, y, t))[0]


def _is_mask(path: Path, given: Path) -> bool:
    """Return whether a file below a folder, or itself, may be a mask."""
    hidden = path != given and any(
        part.startswith('.') for part in path.relative_to(given).parts
    )
    kind = path.suffix.lower() in ('.tif', '.tiff')
    return kind and not hidden and not path.stem.endswith(BESIDE)


def confidence_path(mask: str | Path) -> str:
    """Return the path of a mask's confidence."""
    path = Path(mask)
    return str(path.with_name(f'{path.stem}_confidence{path.suffix}'))


def _open_facts(path: str) -> tuple[Grid, dict[str, str], dict[int, str], int]:
    """Return grid, tags, colors and number of bands of a raster."""
    with open_raster(path, DataError) as raster:
        is_palette = raster.colorinterp[0].name == 'palette'
        colors = raster.colormap(1) if is_palette else {}
        hexes = {
            value: to_hex((color[0] / 255, color[1] / 255, color[2] / 255))
            for value, color in colors.items()
        }
        return grid_of(raster), raster.tags(), hexes, raster.count


def mask_facts(path: str) -> MaskFacts:
    """Read the metadata of a mask.

    Args:
        path: The class raster.

    Raises:
        DataError: If it cannot be opened, has several bands, or no CRS.
    """
    grid, tags, colors, bands = _open_facts(path)
    if bands != 1:
        raise DataError(f'{path} has {bands} bands, expected a mask of one band.')
    if grid.crs is None:
        raise DataError(f'{path} has no CRS, expected a georeferenced raster.')
    names = tags.get('CLASS_NAMES')
    return MaskFacts(
        path,
        grid,
        tags.get('SCENE'),
        None if names is None else tuple(json.loads(names)),
        colors,
    )


def shared_legend(
    facts: Sequence[MaskFacts],
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Return names and colors of the classes: those given, or those of the masks.

    Args:
        facts: Metadata of the masks, which must agree.
        class_names: Names, for masks that have none.
        class_colors: Colors as ``#rrggbb``, likewise.

    Raises:
        LabelError: If masks contradict each other or the given names, or names or
            colors are missing.
    """
    names = None if class_names is None else tuple(class_names)
    for fact in facts:
        names = fact.class_names if names is None else names
        if fact.class_names not in (None, names):
            raise LabelError(
                f'{fact.path} has the classes {", ".join(fact.class_names or ())}, '
                f'expected {", ".join(names or ())}.'
            )
    if not names:
        raise LabelError(
            f'{facts[0].path} does not name its classes. Pass class_names.'
        )
    colors = list(class_colors or [])
    if not colors:
        colors = [facts[0].colors.get(index, '') for index in range(len(names))]
    if len(colors) != len(names) or not all(colors):
        raise LabelError(
            f'Got {len([c for c in colors if c])} colors for {len(names)} classes of '
            f'{facts[0].path}, expected one for each. Pass class_colors.'
        )
    return list(names), colors
