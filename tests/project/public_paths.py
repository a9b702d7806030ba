"""Dotted paths that configurations, documentation and notebooks name."""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = 'torchgeo_ctm'

#: What the plan of the house lets go or move (its section 7, "Must change"): these, and
#: everything below them, are kept in a list of their own and not tested.
ALLOWED_TO_CHANGE = tuple(
    f'{PACKAGE}.{name}'
    for name in (
        'datasets.split',
        'datasets.scene_splits',
        'datasets.window_draws',
        'datasets.labelled_windows',
        'datasets.fixed_grid',
        'datasets.image_labels',
        'trainers.class_maps',
        'trainers.evaluation',
        'trainers.side_by_side',
        'models.blocks',
        # moved with the rooms of section 7
        'datasets.sources',
        'datasets.dfc2020_layout',
        'datasets.dfc2020_raster',
        'datasets.SceneImages',
        'errors.nearest',
        'errors.nearest_file',
        'inference.refine',
        'inference.figures',
        'inference.masks',
        'windows.Window',
        'windows.Grid',
        'windows.check_same_grid',
        # imported, never ours
        'prediction.quiet_lightning',
    )
)
#: Named nowhere, but promised by the same section; checkpoints name the last.
PROMISED = (
    f'{PACKAGE}.models.reference.from_reference',
    f'{PACKAGE}.scoring.evaluate',
    f'{PACKAGE}.trainers.class_token_masking.ClassTokenMaskingTask',
)
#: Written by ``make docs``.
GENERATED = ('docs/_build', 'docs/reference/commands', 'docs/reference/yaml')

DOTTED = re.compile(rf'\b{PACKAGE}(?:\.[A-Za-z_]\w*)+')
AUTOMODULE = re.compile(rf'^\.\. automodule:: ({PACKAGE}[\w.]*)', re.MULTILINE)
PYTHON = re.compile(r'^```python\n(.*?)^```', re.MULTILINE | re.DOTALL)


def may_change(path: str) -> bool:
    """Tell whether the plan lets a path go."""
    return any(f'{path}.'.startswith(f'{prefix}.') for prefix in ALLOWED_TO_CHANGE)


def named_paths() -> set[str]:
    """Return the paths that are named today, with the public names of our rooms."""
    paths = set(PROMISED)
    paths |= {f'{PACKAGE}.{name}' for name in importlib.import_module(PACKAGE).__all__}
    for file in _files('configs/*.yaml', 'docs/reference/api/*.rst'):
        paths |= set(DOTTED.findall(file.read_text('utf-8')))
    for module in _documented_modules():
        names = getattr(module, '__all__', ())
        paths |= {f'{module.__name__}.{name}' for name in names}
    for file in _files('docs/**/*.md', 'README.md'):
        text = file.read_text('utf-8')
        paths |= set(DOTTED.findall(text))
        paths |= {path for code in PYTHON.findall(text) for path in _imports(code)}
    for file in _files('notebooks/*.ipynb'):
        for cell in json.loads(file.read_text('utf-8'))['cells']:
            source = ''.join(cell['source'])
            paths |= set(DOTTED.findall(source))
            if cell['cell_type'] == 'code':
                paths |= set(_imports(source))
    return paths


def shown_paths() -> set[str]:
    """Return what autodoc shows of modules that do not say what is public."""
    return {
        f'{module.__name__}.{name}'
        for module in _documented_modules()
        if not hasattr(module, '__all__')
        for name, thing in vars(module).items()
        if getattr(thing, '__module__', None) == module.__name__
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and not name.startswith('_')
    }


def _documented_modules() -> Iterator[ModuleType]:
    """Yield the modules that the reference shows whole."""
    for file in _files('docs/reference/api/*.rst'):
        for name in AUTOMODULE.findall(file.read_text('utf-8')):
            yield importlib.import_module(name)


def _files(*patterns: str) -> Iterator[Path]:
    """Yield the repository's files of some patterns, but no generated ones."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if not path.relative_to(ROOT).as_posix().startswith(GENERATED):
                yield path


def _imports(code: str) -> Iterator[str]:
    """Yield what Python code, or a notebook's cell, imports from the package."""
    lines = [line for line in code.splitlines() if not line.startswith(('%', '!'))]
    for node in ast.walk(ast.parse('\n'.join(lines))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from (n for n in names if f'{n}.'.startswith(f'{PACKAGE}.'))


def resolve(path: str) -> Any:
    """Import what a dotted path names.

    Raises:
        ImportError: If there is no such thing.
    """
    parts = path.split('.')
    for count in range(len(parts), 0, -1):
        name = '.'.join(parts[:count])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f'{name}.'.startswith(f'{error.name}.'):
                raise
            continue
        for attribute in parts[count:]:
            if not hasattr(found, attribute):
                raise ImportError(f'{path}: no {attribute!r} in {found!r}')
            found = getattr(found, attribute)
        return found
    raise ImportError(path)


def unresolved(paths: set[str]) -> list[str]:
    """Return the paths that cannot be imported."""
    lost = []
    for path in sorted(paths):
        try:
            resolve(path)
        except ImportError:
            lost.append(path)
    return lost


def as_json(stored: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the lists to store: what is there already, and what is named today."""
    before = {path for group in stored.values() for path in group}
    named, shown = named_paths(), shown_paths()
    named |= set(stored.get('named', ())) | {p for p in before - shown if may_change(p)}
    shown = (shown | set(stored.get('shown', ()))) - named
    return {
        'named': sorted(path for path in named if not may_change(path)),
        'shown': sorted(path for path in shown if not may_change(path)),
        'allowed_to_change': sorted(filter(may_change, named | shown)),
    }
