"""Which tiles of DFC2020 a split has, and where their files lie."""

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import DataError, SettingError, nearest

Sensor = Literal['s1', 's2', 'dfc']
Group = Literal['validation', 'test']

#: Tiles in each split of a protocol.
PROTOCOLS = {
    'A': {'train': 3156, 'val': 986, 'test': 986},
    'B': {'train': 789, 'val': 197, 'test': 5128},
    'C': {'train': 5128, 'val': 986, 'test': 986},
}
#: The contest's names for its two groups of tiles, in the names of their files.
GROUPS: tuple[Group, Group] = ('validation', 'test')
#: Of so many "validation" tiles in a row, protocol B keeps the last to validate on.
FOLD = 5

_NAME = re.compile(r'ROIs\d+_(?P<group>[^_]+)_dfc_(?P<scene>\w+)_p(?P<patch>\d+)\.tif')


class Layout(NamedTuple):
    """A copy of DFC2020 on disk; a tile is known by the name of its label raster.

    ``copernicus-bench``: ``{s1,s2,dfc}/ROIs0000_{group}_{sensor}_K_pN.tif`` and a list
    ``dfc-{split}-new.csv`` per split in one folder. ``contest``:
    ``ROIs0000_{group}/{sensor}_K/ROIs0000_{group}_{sensor}_K_pN.tif``, K the scene, or
    ``{sensor}_{group}`` as some copies have it; without lists.
    """

    folder: Path
    kind: Literal['copernicus-bench', 'contest']

    def path(self, name: str, sensor: Sensor) -> Path:
        """Return the file of a tile: ``s1``, ``s2``, or its labels, ``dfc``.

        Args:
            name: Name of the tile's label raster.
            sensor: Which of its files.
        """
        file = name.replace('_dfc_', f'_{sensor}_')
        if self.kind == 'copernicus-bench':
            return self.folder / sensor / file
        found = _NAME.fullmatch(name)
        group, scene = (found['group'], found['scene']) if found else ('', '')
        folder = self.folder / f'ROIs0000_{group}'
        by_scene = folder / f'{sensor}_{scene}'
        by_group = folder / f'{sensor}_{group}'
        plain = by_scene.is_dir() or not by_group.is_dir()
        return (by_scene if plain else by_group) / file

    def names(self, group: Group) -> list[str]:
        """Return the tiles of a group, by scene and number (p2 before p10)."""
        inside = f'ROIs0000_{group}/dfc_*' if self.kind == 'contest' else 'dfc'
        paths = self.folder.glob(f'{inside}/ROIs0000_{group}_dfc_*.tif')
        return sorted((path.name for path in paths), key=_order)

    def listing(self, split: str) -> Path:
        """Return where Copernicus-Bench's list of a split is expected."""
        return self.folder / f'dfc-{split}-new.csv'


def _order(name: str) -> tuple[int, str, int]:
    """Sort by scene, as a number where it is one, then by number."""
    found = _NAME.fullmatch(name)
    if found is None:
        return (0, name, 0)
    scene = found['scene']
    return (int(scene) if scene.isdigit() else 0, scene, int(found['patch']))


def find_layout(root: str | os.PathLike[str], directory: str) -> Layout | None:
    """Return the copy of DFC2020 in a folder, None where there is none.

    Args:
        root: The folder; the contest's own holds ``ROIs0000_validation`` or ``_test``.
        directory: Name of Copernicus-Bench's folder in it.
    """
    if (Path(root) / directory).is_dir():
        return Layout(Path(root) / directory, 'copernicus-bench')
    if any((Path(root) / f'ROIs0000_{group}').is_dir() for group in GROUPS):
        return Layout(Path(root), 'contest')
    return None


def tile_names(layout: Layout, protocol: str, split: str) -> list[str]:
    """Return the tiles of a split.

    Protocol ``A`` is Copernicus-Bench's: what its lists say, in their order. ``B``
    trains on the contest's "validation" tiles and tests on its "test" tiles; the
    contest ships no lists, so the "validation" tiles are sorted by scene and number,
    and of each five in a row the fifth is for validation: 789 and 197 of 986. ``C``
    is the paper's: trained on the "test" tiles, validated and tested on the
    "validation" tiles (METHOD, section 6).

    Args:
        layout: The copy.
        protocol: 'A', 'B' or 'C'.
        split: 'train', 'val' or 'test'.

    Returns:
        Names of label rasters.

    Raises:
        DataError: If this copy does not have what the protocol asks for.
        SettingError: If there is no such protocol or split.
    """
    for what, given, known in (
        ('protocol', protocol, [*PROTOCOLS]),
        ('split', split, [*PROTOCOLS['A']]),
    ):
        if given not in known:
            needed = f'needed: one of {", ".join(known)}{nearest(str(given), known)}'
            raise SettingError(f'{what}={given!r}; {needed}')
    if protocol == 'A':
        return _listed(layout, split)
    evaluated: Group = 'test' if protocol == 'B' else 'validation'
    if split == 'test' or (protocol == 'C' and split == 'val'):
        return _group(layout, evaluated, protocol)
    if protocol == 'C':
        return _group(layout, 'test', protocol)
    names = _group(layout, 'validation', protocol)
    held_out = slice(FOLD - 1, None, FOLD)
    if split == 'val':
        return names[held_out]
    del names[held_out]
    return names


def _listed(layout: Layout, split: str) -> list[str]:
    """Return the tiles of one of Copernicus-Bench's lists."""
    path = layout.listing(split)
    if not path.is_file():
        raise DataError(
            f'{path} is not there: protocol A needs the lists that Copernicus-Bench '
            "ships; nearest: protocol 'B' or 'C', which follow from names of files"
        )
    lines = path.read_text().splitlines()
    return [line.split(',')[0].strip() for line in lines if line.strip(' ,')]


def _group(layout: Layout, group: Group, protocol: str) -> list[str]:
    """Return the tiles of a group, of which there must be some."""
    names = layout.names(group)
    if not names:
        raise DataError(
            f'{layout.folder} has no label raster ROIs0000_{group}_dfc_*.tif, which '
            f'protocol {protocol} needs; the contest has both groups, Copernicus-Bench '
            "what its lists name: protocol 'A'"
        )
    return names
