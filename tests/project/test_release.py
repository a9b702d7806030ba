"""What belongs together when a version is released."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from torchgeo_ctm.version import __version__

ROOT = Path(__file__).parents[2]
#: Bytes; what is larger does not belong into the repository.
LARGEST = 600_000


def tracked() -> list[Path]:
    """Return the files under version control."""
    if not (ROOT / '.git').exists():
        pytest.skip('not a clone')
    command = ['git', '-C', str(ROOT), 'ls-files', '-z']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    files = [ROOT / name for name in done.stdout.split('\0') if name]
    return [path for path in files if path.exists()]


def test_one_version() -> None:
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['version'] == __version__
    headings = re.findall(
        r'^## (\S+)', (ROOT / 'CHANGES.md').read_text('utf-8'), re.MULTILINE
    )
    assert headings[0] == __version__


#: Names of packages on conda-forge that differ from those on PyPI.
CONDA = {
    'torch': 'pytorch',
    'matplotlib': 'matplotlib-base',
    'docstring-parser': 'docstring_parser',
}


def test_recipe_and_container_say_what_pyproject_says() -> None:
    """Neither is built here: names, versions and files alone."""
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    project = tomllib.loads(text)['project']
    recipe = yaml.safe_load((ROOT / 'recipe' / 'recipe.yaml').read_text('utf-8'))
    assert recipe['context']['version'] == __version__
    wanted = [Requirement(each) for each in project['dependencies']]
    python, *named = map(Requirement, recipe['requirements']['run'])
    assert [(each.name, each.specifier) for each in named] == [
        (CONDA.get(each.name, each.name), each.specifier) for each in wanted
    ]
    assert str(python) == f'python{project["requires-python"]}'
    [command] = recipe['build']['python']['entry_points']
    assert [tuple(command.split(' = '))] == [*project['scripts'].items()]
    container = (ROOT / 'Dockerfile').read_text(encoding='utf-8')
    [version] = re.findall(r'^FROM python:([\d.]+)-slim', container, re.MULTILINE)
    assert f'Programming Language :: Python :: {version}' in project['classifiers']
    [extras] = re.findall(r'/source\[(.+)\]', container)
    assert {*extras.split(',')} <= project['optional-dependencies'].keys()
    for line in re.findall(r'^COPY (.+) \S+$', container, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())


@pytest.mark.parametrize('file', ['README.md', 'CONTRIBUTING.md', '.ci/run'])
def test_every_target_that_is_named_exists(file: str) -> None:
    text = (ROOT / file).read_text(encoding='utf-8')
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, re.MULTILINE))
    commands = re.findall(r'(?:^|`)(?:exec )?make ((?:[a-z-]+ ?)+)', text, re.MULTILINE)
    named = {word for command in commands for word in command.split()}
    assert named
    assert named <= targets


def test_the_workflow_calls_targets() -> None:
    path = ROOT / '.github' / 'workflows' / 'ci.yml'
    jobs = yaml.safe_load(path.read_text(encoding='utf-8'))['jobs']
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, re.MULTILINE))
    assert set(jobs['whole']['strategy']['matrix']['target']) <= targets
    for job in jobs.values():
        assert job['steps'][-1]['run'].startswith('make ')


def test_no_large_file_and_no_path_of_one_machine() -> None:
    # written in two parts, or this file would be found
    traces = [b'/wo' + b'rk/', b'/ro' + b'ot/', b'/ho' + b'me/', b'/tm' + b'p/']
    for path in tracked():
        content = path.read_bytes()
        assert len(content) <= LARGEST, path
        if path.suffix in ('.py', '.md', '.yaml', '.json', '.toml', '.ipynb'):
            assert not [trace for trace in traces if trace in content], path
