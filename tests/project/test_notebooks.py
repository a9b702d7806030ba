"""The notebooks: what they import, what a reader has to change, and that they run."""

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from benchmarks.real_chip import train
from tests.conftest import SHARED
from tests.project.notebooks import FOLDER
from tests.project.notebooks import execute as execute_notebook
from torchgeo_ctm import errors
from torchgeo_ctm.choose import SETTINGS
from torchgeo_ctm.demo import find_scene

NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))
REAL = SHARED / 'real'
#: Bytes of a notebook with its outputs.
LARGEST = 600_000
#: Folders of some machine, which nobody else has.
PLACES = r'(?<![\w.])/(?:tmp|work|root|home|Users|mnt|opt|usr|var)/|[A-Z]:\\\\'

notebooks = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return notebook


def sources(path: Path, kind: str) -> list[str]:
    """The text of the cells of a kind, in order."""
    cells = read(path)['cells']
    return [''.join(cell['source']) for cell in cells if cell['cell_type'] == kind]


def outputs(path: Path) -> list[dict[str, Any]]:
    """What the cells put out, in order."""
    return [
        output for cell in read(path)['cells'] for output in cell.get('outputs', [])
    ]


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """The modules that are imported, and the names from them."""
    for node in ast.walk(ast.parse('\n'.join(sources(path, 'code')))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        '01_scene_analysis',
        '02_why_masking',
        '03_labels_to_qgis',
        '04_label_map_assess',
    ]


@notebooks
def test_format(path: Path) -> None:
    notebook = read(path)
    assert (notebook['nbformat'], notebook['nbformat_minor'] >= 5) == (4, True)
    assert notebook['metadata'] == {
        'kernelspec': {
            'display_name': 'Python 3',
            'language': 'python',
            'name': 'python3',
        },
        'language_info': {'name': 'python'},
    }
    names = [cell['id'] for cell in notebook['cells']]
    assert len(set(names)) == len(names)
    if importlib.util.find_spec('nbformat') is not None:
        importlib.import_module('nbformat').validate(notebook)


@notebooks
def test_only_public_names_are_imported(path: Path) -> None:
    """Names of ``__all__``, or of a module that has none and is no part of a room."""
    found = list(imports(path))
    assert any(module.split('.')[0] == 'torchgeo_ctm' for module, _ in found)
    for module, name in found:
        if module.split('.')[0] != 'torchgeo_ctm':
            continue
        imported = importlib.import_module(module)
        assert name is not None, f'{path.name}: import {module}'
        assert not any(part.startswith('_') for part in [*module.split('.'), name])
        assert module.count('.') <= 1, f'{path.name} reaches into a room: {module}'
        public = getattr(imported, '__all__', None)
        if public is None:
            assert not hasattr(imported, '__path__'), f'{module} makes nothing public'
            assert getattr(imported, name).__module__ == module
        else:
            assert name in public, f'{path.name}: {name} is not public in {module}'


@notebooks
def test_one_cell_has_the_settings(path: Path) -> None:
    """All that a reader changes stands in the first cell of code."""
    settings, *others = sources(path, 'code')
    assert "os.environ.get('CTM_" in settings
    for source in others:
        assert 'environ' not in source
        assert not re.search(r'^(?:SCENE|DATA|LABELS|CLASSES) = ', source, re.MULTILINE)
    assert len(settings.splitlines()) <= 35


@notebooks
def test_it_says_what_it_teaches_and_how_long_it_takes(path: Path) -> None:
    first = sources(path, 'markdown')[0]
    assert first.startswith('# ')
    assert re.search(r'takes about (?:\w+|\d+) minutes? on two CPU', first)


@notebooks
def test_links_to_the_others(path: Path) -> None:
    links = re.findall(r'\]\(([^)]+)\)', '\n'.join(sources(path, 'markdown')))
    assert links
    for link in links:
        assert link.startswith('https://') or (FOLDER / link).exists(), link


@notebooks
def test_no_path_of_any_machine(path: Path) -> None:
    for source in [*sources(path, 'code'), *sources(path, 'markdown')]:
        assert not re.search(PLACES, source)
        assert not re.search(r"""['"](?:/|~/)""", source)
    for output in outputs(path):
        # pictures in base 64 hold any letters by chance
        text = {k: v for k, v in output.get('data', {}).items() if 'image' not in k}
        assert not re.search(PLACES, json.dumps([text, output.get('text')]))


@notebooks
def test_it_is_kept_executed_small_and_quiet(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    code = [cell for cell in read(path)['cells'] if cell['cell_type'] == 'code']
    assert [cell['execution_count'] for cell in code] == [*range(1, len(code) + 1)]
    for output in outputs(path):
        assert output['output_type'] != 'error'
        if output.get('name') == 'stderr':
            # the package's own, such as PresenceWarning, tell something of the data
            kind = ''.join(output['text']).split(':')[0]
            assert hasattr(errors, kind), output['text']
        assert len(''.join(output.get('text', ''))) < 500
    assert any('image/png' in output.get('data', {}) for output in outputs(path))


def execute(name: str, folder: Path, **settings: object) -> dict[str, Any]:
    """Execute a notebook as ``make notebooks`` does, with other settings."""
    if not _can_execute():
        pytest.skip('the extra notebooks is not installed')
    path = FOLDER / f'{name}.ipynb'
    settings |= {'CTM_OUTPUT': folder, 'OMP_NUM_THREADS': 1}
    return dict(execute_notebook(path, **settings))


def _can_execute() -> bool:
    needed = ('anywidget', 'nbclient', 'nbformat', 'ipykernel', 'folium', 'mapclassify')
    return all(importlib.util.find_spec(name) is not None for name in needed)


@pytest.mark.slow
@notebooks
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """From nothing but the scene of the demo, with a few steps of training."""
    if path.stem != '02_why_masking':
        require_scene()
    notebook = execute(path.stem, tmp_path, CTM_STEPS=10)
    done = [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']
    assert all(cell['execution_count'] for cell in done)


def require_scene() -> None:
    """Skip a test of the real scene where it is not installed."""
    try:
        find_scene()
    except errors.DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='session')
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of land and water, hardly trained, on the real chip."""
    checkpoint = tmp_path_factory.mktemp('water') / 'water.ckpt'
    train(REAL, checkpoint, 20, 0, SETTINGS['class always present'])
    return checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason='the real chip is not here')
def test_scene_analysis_of_a_real_scene(tmp_path: Path, water: Path) -> None:
    """Another scene, checkpoint and classes, with nothing changed but the settings."""
    notebook = execute(
        '01_scene_analysis',
        tmp_path,
        CTM_SCENE=REAL / 'spain_s2.tif',
        CTM_CHECKPOINT=water,
        CTM_REFERENCE=REAL / 'spain_water.tif',
    )
    assert 'Water' in shown(notebook)
    assert not (tmp_path / '01_scene_analysis' / 'trained.ckpt').exists()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason='the real chip is not here')
def test_labels_to_qgis_on_a_real_scene(tmp_path: Path) -> None:
    """Squares that are tagged from a reference."""
    notebook = execute(
        '03_labels_to_qgis',
        tmp_path,
        CTM_SCENE=REAL / 'spain_s2.tif',
        CTM_REFERENCE=REAL / 'spain_water.tif',
        CTM_CLASSES='Land,Water',
        CTM_STEPS=10,
    )
    assert 'Land|Water' in shown(notebook)
    with rasterio.open(tmp_path / '03_labels_to_qgis' / 'land_cover.tif') as mask:
        assert mask.shape == (512, 512)
        assert set(np.unique(mask.read(1))) <= {0, 1, 255}


def shown(notebook: dict[str, Any]) -> str:
    """All text that a notebook put out."""
    return json.dumps(
        [
            [output.get('text'), output.get('data', {}).get('text/plain')]
            for cell in notebook['cells']
            for output in cell.get('outputs', [])
        ]
    )
