"""The documentation says what the code does: its pages, links, commands and keys."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from torchgeo_ctm.commands import COMMANDS
from torchgeo_ctm.main import build_parser, command_parser

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / 'docs'
#: Rooms whose public names have a page.
ROOMS = ('datamodules', 'datasets', 'labels', 'models', 'trainers')
PAGES = sorted(
    path for path in DOCS.rglob('*.md') if '_build' not in path.relative_to(DOCS).parts
)

Extension = Any


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


@pytest.fixture(scope='module')
def extension() -> Iterator[Extension]:
    """The Sphinx extension that writes pages, which needs no Sphinx to do so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / '_extensions')
        yield import_module('ctm_docs')


@pytest.fixture(scope='module')
def sources(extension: Extension, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the site with the pages that come from the code."""
    repository = tmp_path_factory.mktemp('repository')
    ignored = shutil.ignore_patterns('_build', '__pycache__')
    for name in ('docs', 'benchmarks', 'notebooks'):
        shutil.copytree(REPOSITORY / name, repository / name, ignore=ignored)
    for name in ('CHANGES.md', 'README.md'):
        shutil.copy(REPOSITORY / name, repository)
    extension.write_pages(repository / 'docs')
    return repository / 'docs'


def toctree_entries(page: Path, docs: Path) -> list[Path]:
    """Return the pages, without suffix, that the toctrees of a page name."""
    text = page.read_text(encoding='utf-8')
    trees = re.findall(r'^```\{toctree\}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    trees += re.findall(r'^\.\. toctree::\n((?:(?: +.*)?\n)+)', text, re.MULTILINE)
    lines = [line.strip() for tree in trees for line in tree.splitlines()]
    entries = [line for line in lines if line and not line.startswith(':')]
    found: list[Path] = []
    for entry in entries:
        folder = docs if entry.startswith('/') else page.parent
        if '*' in entry:
            paths = folder.glob(entry.removeprefix('/'))
            found += [path.with_suffix('') for path in paths if path.suffix == '.ipynb']
        else:
            found.append((folder / entry.removeprefix('/')).resolve())
    return found


def test_every_page_is_reached_from_a_toctree(sources: Path) -> None:
    suffixes = ('.md', '.rst', '.ipynb')
    pages = {
        path.with_suffix('').resolve(): path
        for path in sources.rglob('*')
        if path.suffix in suffixes
    }
    reached, waiting = set(), [(sources / 'index').resolve()]
    while waiting:
        page = waiting.pop()
        assert page in pages, f'{page} is in a toctree, but not there'
        if page not in reached:
            reached.add(page)
            waiting += toctree_entries(pages[page], sources)
    assert not [str(pages[page]) for page in pages.keys() - reached]


def test_every_command_has_a_page_with_its_options(sources: Path) -> None:
    folder = sources / 'reference' / 'commands'
    assert {path.stem for path in folder.iterdir()} == {'index', *COMMANDS}
    for name in COMMANDS:
        text = (folder / f'{name}.rst').read_text(encoding='utf-8')
        for action in command_parser(name)._actions:
            option = action.option_strings[-1:] or [action.dest.upper()]
            if option != ['--help']:
                assert f'{option[0]}\n' in text, f'{name} {option}'


@pytest.mark.parametrize('room', ROOMS)
def test_every_room_is_in_the_reference(room: str) -> None:
    """Its public names follow: autodoc goes by ``__all__``."""
    page = DOCS / 'reference' / 'api' / f'{room}.rst'
    assert f'.. automodule:: torchgeo_ctm.{room}\n' in page.read_text(encoding='utf-8')
    module = import_module(f'torchgeo_ctm.{room}')
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f'{name} has nothing to show'


def test_every_class_of_a_configuration_has_a_page(sources: Path) -> None:
    """Whatever class of ours a shipped configuration names, its keys are explained.

    What ``compat`` names is TorchGeo's.
    """
    pages = {path.stem for path in (sources / 'reference' / 'yaml').iterdir()}
    for config in (REPOSITORY / 'configs').glob('*.yaml'):
        for path in re.findall(
            r'class_path: (torchgeo_ctm\.(?!compat)[\w.]+)', config.read_text()
        ):
            assert path.rpartition('.')[2] in pages, f'{config.name}: {path}'


def test_every_key_is_explained(extension: Extension) -> None:
    pages = import_module('ctm_docs.yaml_pages')
    explained = [
        f'{owner}.{key.name}'
        for cls in pages.configured_classes()
        for owner, keys in pages.sections_of(cls).values()
        for key in keys
        if key.description.strip()
    ]
    listed = all_keys(pages)
    assert len(listed) > 150
    assert sorted(listed) == sorted(explained)


def all_keys(pages: Any) -> list[str]:
    """Return the full name of every key in the reference."""
    return [
        f'{owner}.{key.name}'
        for cls in pages.configured_classes()
        for owner, keys in pages.sections_of(cls).values()
        for key in keys
    ]


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_link_between_files_leads_somewhere(page: Path, sources: Path) -> None:
    text = page.read_text(encoding='utf-8')
    for target in re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text):
        assert (sources / name_of(page)).parent.joinpath(target).exists(), target


def fenced(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, outermost indentation taken away."""
    text = page.read_text(encoding='utf-8')
    pattern = rf'^( *)```{language}\n(.*?)^\1```'
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [inspect.cleandoc(f'\n{block}') for _, block in found]


def typed(page: Path) -> list[list[str]]:
    """Return the words of every command line that a page shows."""
    lines = [line for block in fenced(page, 'console') for line in block.splitlines()]
    lines += [line for block in fenced(page, 'bash') for line in block.splitlines()]
    # a backslash continues a line
    lines = '\n'.join(lines).replace('\\\n', ' ').splitlines()
    words = [shlex.split(line.removeprefix('$ '), comments=True) for line in lines]
    return [line[line[0] == 'srun' :] for line in words if line]


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_command_line_is_one(page: Path) -> None:
    """Options exist and required ones are there, as far as our own parser knows."""
    for command, *arguments in typed(page):
        if command == 'torchgeo-ctm' and arguments != ['--version']:
            build_parser().parse_args(arguments)
        for word in arguments:
            if word.startswith('configs/'):
                assert (REPOSITORY / word).is_file(), word


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_key_on_a_page_exists(page: Path, extension: Extension) -> None:
    """Those of YAML blocks, and those given to ``torchgeo`` on a command line."""
    pages = import_module('ctm_docs.yaml_pages')
    named = {cls.__name__: cls for cls in pages.configured_classes()}
    for block in fenced(page, 'yaml'):
        for name, section, key in configured(yaml.safe_load(block)):
            known = pages.sections_of(named[name])[section][1]
            assert key in {entry.name for entry in known}, f'{name} {section} {key}'
    for command, *arguments in typed(page):
        named_files = [word for word in arguments if word.startswith('configs/')]
        if command != 'torchgeo' or not named_files:
            continue
        content = yaml.safe_load((REPOSITORY / named_files[0]).read_text('utf-8'))
        for word in arguments:
            found = re.match(r'--(model|data)\.(init_args|dict_kwargs)\.(\w+)', word)
            if found:
                cls = content[found[1]]['class_path'].rpartition('.')[2]
                known = pages.sections_of(named[cls])[found[2]][1]
                assert found[3] in {entry.name for entry in known}, word


def configured(content: Any) -> Iterator[tuple[str, str, str]]:
    """Yield class, section and key of everything that YAML gives a class of ours."""
    if isinstance(content, list):
        for item in content:
            yield from configured(item)
    if not isinstance(content, dict):
        return
    path = str(content.get('class_path', ''))
    if path.startswith('torchgeo_ctm'):
        for section in ('init_args', 'dict_kwargs'):
            for key in content.get(section, ()):
                yield path.rpartition('.')[2], section, key
    for value in content.values():
        yield from configured(value)


def test_quality_is_tabulated_by_method_and_setting(extension: Extension) -> None:
    measured = import_module('ctm_docs.measured')
    scores = {'miou': 0.5, 'average_accuracy': 0.6, 'boundary_f': 0.7, 'ece': 0.1}
    row = {'predicted': scores, 'true': scores, 'seconds': 1.0}
    settings = [{'size': size, 'steps': 10, 'batch': 2} for size in (64, 128)]
    rows = [
        row | {'row': name, 'seed': seed, 'setting': setting}
        for setting in settings
        for name in ('paper', 'ours')
        for seed in (0, 1)
    ]
    rows[-1] = rows[-1] | {'predicted': scores | {'miou': 0.7}}
    table = measured.quality_table(rows)
    assert table.count('| ours | 2 |') == table.count('| paper | 2 |') == 2
    assert '| ours | 2 | 0.600 ± 0.100 | 0.600 | 0.700 | 0.100 | 0.500 |' in table


def test_a_broken_link_in_a_site_is_found(extension: Extension, tmp_path: Path) -> None:
    links = import_module('ctm_docs.links')
    (tmp_path / 'index.html').write_text(
        '<p id="here"></p><a href="#here"></a><a href="b.html#x"></a>'
        '<a href="c.html"></a><img src="https://example.org/i.png">'
    )
    (tmp_path / 'b.html').write_text('<a href="index.html#here"></a>')
    report = links.check_site(tmp_path)
    assert (report.pages, report.inside, report.outside) == (2, 4, 1)
    assert [line.split()[1] for line in report.broken] == ['b.html#x', 'c.html']


@pytest.mark.slow
def test_the_site_builds_without_a_warning(
    sources: Path, extension: Extension, tmp_path: Path
) -> None:
    """Every public name is in its index, and every link inside leads somewhere."""
    for needed in ('sphinx', 'myst_nb', 'pydata_sphinx_theme', 'sphinx_copybutton'):
        if find_spec(needed) is None:
            pytest.skip(f'{needed} is not installed (extra docs)')
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', sources, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert import_module('ctm_docs.links').check_site(tmp_path).broken == []
    inventory = import_module('sphinx.util.inventory').InventoryFile
    content = (tmp_path / 'objects.inv').read_bytes()
    known = inventory.loads(content, uri='').data
    documented = set(known['py:class']) | set(known['py:function'])
    for room in ROOMS:
        module = import_module(f'torchgeo_ctm.{room}')
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert f'torchgeo_ctm.{room}.{name}' in documented
    assert set(known['std:yamlkey']) == set(
        all_keys(import_module('ctm_docs.yaml_pages'))
    )
