"""Every file imports only what the house plan allows it to import."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'torchgeo_ctm'

EVERYTHING = {'*'}
#: Which of our own modules a file, or a room, may import (DESIGN.md, CHANGES.md).
ARROWS: dict[str, set[str]] = {
    '__init__': EVERYTHING,
    'main': {'commands', 'errors', '__init__'},
    'commands': EVERYTHING,
    'demo': EVERYTHING,
    'prediction': EVERYTHING,
    'configuration': {'configuration_faults', 'trainers', 'scaling', 'errors'},
    'configured_split': {'configuration', 'datamodules', 'errors'},
    'statistics': EVERYTHING,
    'configuration_faults': {'errors'},
    'description': EVERYTHING,
    'export': {
        'export_formats',
        'trainers',
        'inference',
        'scaling',
        'errors',
        '__init__',
    },
    'export_formats': {'inference', 'errors', '__init__'},
    'value_counts': set(),
    'errors': set(),
    'labels': {'windows', 'errors'},
    'scaling': {'errors'},
    'reflectance': {'scaling', 'errors'},
    'windows': {'errors'},
    'losses': {'errors'},
    'scoring': {'windows', 'errors'},
    'models': {'scaling', 'errors'},
    'datasets': {'labels', 'windows', 'scaling', 'errors'},
    'datamodules': {'datasets', 'labels', 'windows', 'scaling', 'errors'},
    'inference': {'windows', 'scaling', 'reflectance', 'errors', '__init__'},
    'trainers': {
        'models',
        'losses',
        'labels',
        'scaling',
        'scoring',
        'inference.pseudomask',
        'inference.refine',
        'inference.figures',
        'errors',
        '__init__',
    },
}
#: Who may import a library that has one door.
DOORS: dict[str, set[str]] = {
    'timm': {'models'},
    'rasterio': {'datasets', 'inference', 'scoring', 'labels'},
    'lightning': {
        'datamodules',
        'trainers',
        'inference.writer',
        'inference.chip_writer',
        'demo',
        'prediction',
        'configuration',
        'configured_split',
    },
    'geopandas': {'labels', 'datasets.fixed_grid', 'inference.vector'},
    'pyogrio': {'inference.vector'},
    'pyproj': {'inference.areas', 'inference.vector', 'labels', 'datasets'},
    'pystac': {'inference.stac'},
    'onnx': {'export_formats'},
    'onnxruntime': {'export_formats'},
    'shapely': {
        'labels',
        'datasets',
        'inference.polygons',
        'inference.seams',
        'inference.stac',
        'inference.vector',
    },
}

FILES = sorted(PACKAGE.rglob('*.py'))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(part for part in parts if part != '__init__') or '__init__'


def _imports(path: Path) -> set[tuple[bool, str]]:
    """Return (ours, dotted name) for every import in a file."""
    package = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(package[: len(package) - node.level + 1])
            if node.module:
                found.add((True, '.'.join([*base, node.module])))
            else:
                names = [alias.name for alias in node.names]
                known = [
                    n
                    if (PACKAGE / n).exists() or (PACKAGE / f'{n}.py').exists()
                    else '__init__'
                    for n in names
                ]
                found |= {(True, '.'.join([*base, name])) for name in known}
        elif isinstance(node, ast.ImportFrom):
            found.add((False, str(node.module)))
        elif isinstance(node, ast.Import):
            found |= {(False, alias.name) for alias in node.names}
    return found


def _within(name: str, allowed: set[str]) -> bool:
    return any(name == place or name.startswith(f'{place}.') for place in allowed)


@pytest.mark.parametrize('path', FILES, ids=_name)
def test_arrows(path: Path) -> None:
    name = _name(path)
    room = name.split('.')[0]
    allowed = ARROWS[room] | {room}
    if '*' in allowed:
        return
    for ours, imported in _imports(path):
        assert not ours or _within(imported, allowed), f'{name} imports {imported}'


@pytest.mark.parametrize('path', FILES, ids=_name)
def test_doors(path: Path) -> None:
    name = _name(path)
    for ours, imported in _imports(path):
        library = imported.split('.')[0]
        if not ours and library in DOORS:
            assert _within(name, DOORS[library]), f'{name} imports {library}'
