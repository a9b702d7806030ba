"""Mistakes in the ``torchgeo`` command: one line from us, all of Python's for others."""

import sys
from pathlib import Path, PurePosixPath

import pytest
from torchgeo.datasets import DatasetNotFoundError

from tests.commands import torchgeo
from tests.conftest import WriteScene
from torchgeo_ctm.errors import OutputError
from torchgeo_ctm.torchgeo_command import find_mistake, is_torchgeo, print_error

EXISTS = (
    'already exists. Pass --trainer.callbacks.overwrite true (overwrite: true in the '
    'configuration) to replace it.'
)
NOT_FOUND = (
    "No data set found in 'data/dfc2020'. Set root to its folder, or download to true."
)
#: As jsonargparse words it, for labels of several classes.
UNION = """Does not validate against any of the Union subtypes
Errors:
  - Does not validate against any of the Union subtypes
    Subtypes: [...]
    Errors:
      - Import path torchgeo_ctm.labels.PolygonLabels does not implement protocol L
      - no.gpkg does not exist.
      - Expected a <class 'NoneType'>
  - Expected a <class 'NoneType'>"""
CONFIG = Path(__file__).parents[1] / 'configs/scene.yaml'


@pytest.mark.parametrize(
    ('program', 'expected'),
    [
        ('/usr/bin/torchgeo', True),
        ('C:/venv/Scripts/torchgeo.exe', True),
        ('/lib/site-packages/torchgeo/__main__.py', True),
        ('/usr/bin/torchgeo-ctm', False),
        ('my_script.py', False),
        ('', False),
    ],
)
def test_only_the_command_of_torchgeo_is_changed(program: str, expected: bool) -> None:
    assert is_torchgeo([program]) == expected
    assert sys.excepthook is not print_error


def wrapped(cause: Exception) -> Exception:
    """Return an error as jsonargparse raises it, of a constructor that failed."""
    try:
        try:
            raise cause
        except Exception as error:
            raise TypeError('Subclass types expect one of\n- a class path') from error
    except TypeError as error:
        return error


class Missing:
    """A data set that is not there."""

    root, download = PurePosixPath('data/dfc2020'), False


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (
            OutputError('m.tif already exists. Pass overwrite=True to replace it.'),
            f'torchgeo: m.tif {EXISTS}',
        ),
        (ValueError(UNION), 'torchgeo: no.gpkg does not exist.'),
        (wrapped(OutputError('two\nlines')), 'torchgeo: two lines'),
        (
            DatasetNotFoundError(Missing()),  # type: ignore[arg-type]
            f'torchgeo: {NOT_FOUND}',
        ),
    ],
)
def test_a_mistake_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_error(type(error), error, None)
    assert capsys.readouterr().err.strip() == line


def test_an_error_of_the_program_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = wrapped(ValueError('a fault'))
    assert find_mistake(error) is None
    print_error(type(error), error, error.__traceback__)
    assert 'Traceback' in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_prediction_twice(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    write_scene()
    arguments = (
        'predict', '--config', CONFIG, '--ckpt_path', checkpoint,
        '--trainer.accelerator', 'cpu',
    )  # fmt: skip
    first = torchgeo(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for noise in ('Tip', 'LeafSpec', 'weights_only', 'dirpath'):
        assert noise not in first.stderr
    names = ('mask.tif', 'mask_confidence.tif', 'mask.gpkg', 'mask.qml', 'mask.png')
    assert first.stdout.splitlines() == list(names)
    second = torchgeo(*arguments, cwd=tmp_path)
    assert second.returncode == 1
    assert 'Traceback' not in second.stderr
    assert second.stderr.splitlines()[-1] == f'torchgeo: mask.tif {EXISTS}'
    written = (tmp_path / 'mask.tif').read_bytes()
    third = torchgeo(*arguments, '--trainer.callbacks.overwrite', 'true', cwd=tmp_path)
    assert third.returncode == 0, third.stderr
    assert (tmp_path / 'mask.tif').read_bytes() == written
