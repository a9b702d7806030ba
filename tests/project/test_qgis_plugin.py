"""The QGIS plugin: its calls, and, where QGIS is installed, its algorithms."""

import ast
import configparser
import inspect
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from qgis_plugin.torchgeo_ctm_qgis.command import (
    COMMAND,
    CommandError,
    arguments,
    environment,
    find_command,
    run,
)
from torchgeo_ctm import commands
from torchgeo_ctm.version import __version__

PLUGIN = Path(__file__).parents[2] / 'qgis_plugin' / 'torchgeo_ctm_qgis'
MAIN = 'from torchgeo_ctm.main import main; main()'
#: The program itself; Debian's wrapper adds an option that it does not know.
QGIS = shutil.which('qgis_process.bin') or shutil.which('qgis_process')


def test_arguments_are_those_of_the_command() -> None:
    options = {'output': 'a b.tif', 'bbox': '-1,2,3,4', 'sieve': 0, 'overwrite': True}
    options |= {'hectares': False, 'layer': ''}
    assert arguments('predict', 'x.tif', options=options, more='--clouds none') == [
        *('predict', 'x.tif', '--output=a b.tif', '--bbox=-1,2,3,4', '--sieve=0'),
        *('--overwrite', '--clouds', 'none'),
    ]
    with pytest.raises(CommandError, match='Further options'):
        arguments('predict', options={}, more='"open')


def test_algorithms_pass_options_that_the_commands_have() -> None:
    tree = ast.parse((PLUGIN / 'algorithms.py').read_text('utf-8'))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == 'call'
    ]
    names = [str(call.args[1].value) for call in calls]  # type: ignore[attr-defined]
    assert names == ['predict', 'train', 'sample', 'assess']
    for name, call in zip(names, calls, strict=True):
        known = inspect.signature(getattr(commands, name)).parameters
        extra = known.keys() | {'more'}
        if name == 'predict':
            # its options are those of three typed groups
            shown = subprocess.run(
                [sys.executable, '-c', MAIN, name, '--help'],
                capture_output=True,
                text=True,
                check=True,
            )
            extra |= {w[2:].strip(',') for w in shown.stdout.split() if w[:2] == '--'}
        assert {str(keyword.arg) for keyword in call.keywords} <= extra


def test_its_version_is_that_of_the_package() -> None:
    content = configparser.ConfigParser()
    content.read(PLUGIN / 'metadata.txt', encoding='utf-8')
    assert content['general']['version'] == __version__
    assert content['general']['hasProcessingProvider'] == 'yes'


def test_a_command_that_is_missing_is_named_with_the_remedy() -> None:
    with pytest.raises(
        CommandError, match=r'nowhere/ctm was not found. Install torchgeo-ctm'
    ):
        find_command(' nowhere/ctm ')
    assert find_command(sys.executable) == sys.executable


def test_the_command_is_found_in_a_folder_and_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / Path(COMMAND).name
    program.write_text('')
    program.chmod(0o755)
    assert find_command(str(tmp_path)) == str(program)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert find_command(f'~/{program.name}') == str(program)


def test_python_of_qgis_is_kept_out() -> None:
    own = environment({'PYTHONHOME': '/qgis', 'PYTHONPATH': '/qgis', 'PATH': '/bin'})
    assert own.keys() == {'PATH', 'PYTHONIOENCODING'}


def call(code: str, canceled: bool = False) -> tuple[list[str], list[str], list[float]]:
    """Run Python code as a command: its output, what is said, and the progress."""
    said: list[str] = []
    progress: list[float] = []
    output = run(
        [sys.executable, '-c', code], said.append, progress.append, lambda: canceled
    )
    return output, said, progress


def test_lines_and_progress_are_passed_on() -> None:
    bar = r"'\rmap.tif:  50%|####    | 1.0/2.0 [00:01<00:01]\r'"
    empty = r"'\rTraining: |     | 0/? [00:00<?, ?it/s]\n'"
    code = (
        f"import sys; sys.stderr.write({bar} + {empty} + 'w\u00e4rm'); print('map.tif')"
    )
    output, said, progress = call(code)
    assert output == ['map.tif']
    assert sorted(said) == ['map.tif', 'wärm']
    assert progress == [50.0]


def test_the_line_of_an_error_is_the_message() -> None:
    with pytest.raises(CommandError, match=r'^torchgeo-ctm: no such file$'):
        call("import sys; print('x'); sys.exit('torchgeo-ctm: no such file')")
    with pytest.raises(CommandError, match='Exit status 3'):
        call('import sys; sys.exit(3)')


def test_cancel_stops_the_command() -> None:
    start = time.monotonic()
    with pytest.raises(CommandError, match='Canceled'):
        call('import time; time.sleep(60)', canceled=True)
    assert time.monotonic() - start < 30


@pytest.mark.slow
@pytest.mark.skipif(QGIS is None, reason='QGIS is not installed')
def test_a_map_is_sampled_by_qgis(tmp_path: Path) -> None:
    pixels = np.arange(40 * 40, dtype=np.uint8).reshape(1, 40, 40) // 128
    profile = {'driver': 'GTiff', 'width': 40, 'height': 40, 'count': 1}
    profile |= {'dtype': 'uint8', 'crs': 'EPSG:32633', 'nodata': 255}
    grid = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    with rasterio.open(tmp_path / 'm.tif', 'w', transform=grid, **profile) as raster:
        raster.write(pixels % 2)
    own = os.environ | {
        'QT_QPA_PLATFORM': 'offscreen',
        'QGIS_PLUGINPATH': str(PLUGIN.parent),
        'XDG_DATA_HOME': str(tmp_path),
        # QGIS's own Python must be the first that it finds
        'PATH': f'/usr/bin:/bin:{Path(sys.executable).parent}',
    }
    for words in (
        ['plugins', 'enable', PLUGIN.name],
        ['run', 'torchgeo_ctm:sample', '--MAP=m.tif', '--SIZE=20', '--OUTPUT=s.gpkg'],
    ):
        done = subprocess.run(
            [str(QGIS), *words],
            check=False,
            cwd=tmp_path,
            env=own,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 's.gpkg').exists()
