"""Every file imports only what the house plan allows it to import."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'torchgeo_ctm'

EVERYTHING = {'*'}
#: Which of our own modules a file, or a room, may import (CONTRIBUTING.md).
ARROWS: dict[str, set[str]] = {
    # floor 0: facts
    'version': set(),
    'errors': set(),
    'split': {'errors'},
    'legends': {'errors'},
    'streams': set(),
    'compat': set(),
    'lightning_messages': set(),
    # floor 1: grids, files, tensors, numbers
    'grids': {'errors'},
    'files': {'errors'},
    'scaling': {'errors'},
    'losses': {'errors'},
    'options': {'errors'},
    'maps': {'options', 'errors'},
    # floor 2
    'rasters': {'grids', 'errors'},
    'windows': {'grids', 'errors'},
    'labels': {'grids', 'rasters', 'legends', 'errors'},
    'scenes': {
        'grids',
        'options',
        'rasters',
        'windows',
        'scaling',
        'reflectance',
        'errors',
    },
    'network': {'losses', 'errors'},
    'models': {'network', 'losses', 'scaling', 'errors'},
    'reflectance': {'scaling', 'errors'},
    'scoring': {'grids', 'rasters', 'legends', 'errors'},
    'plots': {'scaling', 'errors'},
    # floor 3
    'samplers': {'scenes', 'labels', 'grids', 'rasters', 'split', 'windows', 'errors'},
    'datasets': {
        'compat',
        'scenes',
        'labels',
        'grids',
        'rasters',
        'files',
        'split',
        'windows',
        'scaling',
        'errors',
    },
    # floor 4
    'datamodules': {
        'compat',
        'datasets',
        'samplers',
        'scenes',
        'labels',
        'legends',
        'grids',
        'rasters',
        'split',
        'windows',
        'scaling',
        'errors',
    },
    'trainers': {
        'compat',
        'lightning_messages',
        'options',
        'models',
        'network',
        'maps',
        'losses',
        'labels',
        'legends',
        'scaling',
        'reflectance',
        'scoring',
        'plots',
        'grids',
        'rasters',
        'files',
        'errors',
        'version',
    },
    'inference': {
        'maps',
        'scenes',
        'plots',
        'grids',
        'rasters',
        'files',
        'windows',
        'scaling',
        'reflectance',
        'legends',
        'errors',
        'version',
    },
    # floor 5: maps that are there
    'accuracy': set(),
    'assessment': {
        'inference',
        'labels',
        'scenes',
        'accuracy',
        'legends',
        'grids',
        'rasters',
        'files',
        'errors',
    },
    'annotation': {
        'inference',
        'labels',
        'legends',
        'scenes',
        'scaling',
        'grids',
        'rasters',
        'files',
        'errors',
    },
    # floor 6: what joins the rooms
    'configuration': {'trainers', 'scaling', 'files', 'errors'},
    'export_formats': {'inference', 'files', 'errors', 'version'},
    'export': {
        'export_formats',
        'trainers',
        'inference',
        'maps',
        'files',
        'scaling',
        'errors',
        'version',
    },
    'catalog': {'scenes', 'files', 'errors'},
    'publish': {'export', 'inference', 'trainers', 'files', 'errors', 'version'},
    'prediction': EVERYTHING,
    'choose': {'configuration', 'prediction', 'reports', 'trainers', 'errors'},
    'train': {
        'configuration',
        'options',
        'prediction',
        'reflectance',
        'reports',
        'samplers',
        'labels',
        'legends',
        'scenes',
        'scaling',
        'files',
        'errors',
    },
    'reports': EVERYTHING,
    'demo': EVERYTHING,
    'commands': EVERYTHING,
    'main': {'commands', 'options', 'streams', 'errors', 'version'},
    '__init__': EVERYTHING,
}
#: Who may import a library that has one door.
DOORS: dict[str, set[str]] = {
    'timm': {'models'},
    'rasterio': {
        'rasters',
        'scenes',
        'samplers',
        'datasets',
        'assessment',
        'inference',
        'scoring',
        'labels',
        'prediction.dates',
        'annotation',
    },
    'lightning': {
        'datamodules',
        'trainers',
        'inference.writer',
        'inference.chip_writer',
        'choose',
        'train',
        'demo',
        'prediction',
        'configuration',
        'reports.chips',
    },
    'geopandas': {
        'labels.features',
        'labels.vector_files',
        'scenes.polygon_file',
        'inference.vector',
        'catalog',
        # a return type
        'inference.scene_mask',
        'assessment',
        'annotation',
    },
    'pyogrio': {'inference.vector', 'assessment', 'scenes.polygon_file'},
    'pyproj': {
        'grids',
        'inference.areas',
        'inference.vector',
        'labels',
        'scenes',
        'samplers',
        'datasets',
        'assessment',
    },
    'kornia': {'datamodules.augment', 'datamodules.pseudo_masks'},
    'anywidget': {'annotation.widget'},
    'pycocotools': {'datasets.coco'},
    'pystac': {'inference.stac', 'publish', 'catalog'},
    'pystac_client': {'catalog'},
    'huggingface_hub': {'trainers.published', 'publish'},
    'safetensors': {'trainers.published', 'publish'},
    'onnx': {'export_formats'},
    'onnxruntime': {'export_formats'},
    'shapely': {
        'catalog',
        'annotation',
        'labels',
        'scenes',
        'samplers',
        'datasets',
        'assessment',
        'inference.polygons',
        'inference.generalize',
        'inference.outlines',
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


def test_tests_import_no_tests() -> None:
    """What several tests use is in conftest, in commands and in fakes."""
    tests = Path(__file__).parents[1]
    for path in [*tests.rglob('*.py'), *(tests.parent / 'benchmarks').rglob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                'tests'
            ):
                names = [f'{node.module}.{alias.name}' for alias in node.names]
                assert not [name for name in names if '.test_' in name], path.name


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


@pytest.mark.parametrize('package', ['torchgeo_ctm', 'benchmarks'])
def test_no_circles(package: str) -> None:
    """No two files import each other, not even later or for types."""
    root = PACKAGE.parent
    modules = {
        '.'.join(path.relative_to(root).with_suffix('').parts).removesuffix(
            '.__init__'
        ): path
        for path in (root / package).rglob('*.py')
    }
    graph = {
        name: _modules_imported(name, path, modules) for name, path in modules.items()
    }
    # raises CycleError with the names in the circle
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def _modules_imported(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Return those of our modules that a file imports, anywhere in it."""
    package = name.split('.') if path.stem == '__init__' else name.split('.')[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        module = '.'.join([*base, *([node.module] if node.module else [])])
        files = [f'{module}.{alias.name}' for alias in node.names]
        found |= {file if file in modules else module for file in files}
    return found & set(modules) - {name}
