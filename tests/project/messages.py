"""Collect every message that a user sees in the first ten minutes.

``python -m tests.project.messages`` writes ``messages.txt``. A test compares it, so that
a change of any help, output or error is seen in review. Read it aloud.
"""

import io
import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from tests.fakes.land_cover import (
    BANDS,
    CLASSES,
    COLORS,
    write_land_cover,
    write_raster,
    write_squares,
)
from tests.fakes.masks import write_mask
from torchgeo_ctm.configuration import build_task
from torchgeo_ctm.errors import CTMError, CTMWarning, one_line
from torchgeo_ctm.main import _kind, command_parser, main
from torchgeo_ctm.trainers import save_task

MESSAGES = Path(__file__).with_name('messages.txt')
CONFIGS = Path(__file__).parents[2] / 'configs'
#: Width of help in columns.
COLUMNS = '88'
#: Good runs and likely mistakes of a command, beyond those of :func:`usual_mistakes`.
#: They run in this order, and later ones read what earlier ones wrote. A command that
#: is not here has its help and its usual mistakes.
RUNS: dict[str, str] = {
    '': """
        predikt
    """,
    'demo': """
        --compare
        --steps 0
    """,
    'train': """
        scene.tif --labels squares.gpkg --field tags --output model.ckpt --steps 2 --accelerator cpu --config_out model.yaml
        scene.tif --labels squares.gpkg --field tags --output model.ckpt
        scene.tif --labels squares.gpkg --output new.ckpt
        scene.tif --labels square.gpkg --output new.ckpt
        scene.tif --labels scene.tif --output new.ckpt
        scene.tif --labels squares.gpkg --field tags --output new.ckpt --window 20
        scene.tif --labels squares.gpkg --field tags --output new.ckpt --window 128
        scen.tif --labels squares.gpkg --output model.pt
        scen.tif --labels squares.gpkg --output new.ckpt
    """,
    'predict': """
        scene.tif --checkpoint tiny.ckpt --output mask.tif --accelerator cpu
        scene.tif --checkpoint tiny.ckpt --output mask.tif
        scene.tif --checkpoint tiny.ckpt --output scene.tif
        scene.tif --checkpoint tiny.ckpt --output no/mask.tif
        scene.tif --checkpoint tiny.ckpt --output mask.jpg
        scen.tif --checkpoint tyni.ckpt --output new.tif
        scene.tif --checkpoint train.yaml --output new.tif
        train.yaml --checkpoint tiny.ckpt --output new.tif
        reference.tif --checkpoint tiny.ckpt --output new.tif
        scene.tif --checkpoint tiny.ckpt --output new.tif --scene_bands B02,B04
        scene.tif --checkpoint tiny.ckpt --output new.tif --stride 300
        scene.tif --checkpoint tiny.ckpt --output new.tif --merge Forest+Lake=Green
        scene.tif --checkpoint tiny.ckpt --output new.tif --accelerator tpu
        scene.tif --checkpoint tiny.ckpt --output new.tif --clouds scl
        scene.tif --checkpoint tiny.ckpt --output new.tif --cloud_mask reference.tif:Water
        scene.tif --checkpoint tiny.ckpt --output cut.tif --accelerator cpu --cloud_mask reference.tif:1 --no_polygons
        scene.tif --checkpoint tiny.ckpt --output new.tif --bbox 7 50 8 51
        scene.tif --checkpoint tiny.ckpt --output new.tif --bbox 700000 5000000 710000 5010000
        scene.tif --checkpoint tiny.ckpt --output new.tif --area train.yaml
        scene.tif scene.tif --checkpoint tiny.ckpt --output new.tif
        scene.tif map.tif --checkpoint tiny.ckpt --output new.tif --combine mean
    """,
    'evaluate': """
        map.tif reference.tif --classes Forest,Water,Croplands,Urban/Built-up --json scores.json
        map.tif reference.tif --json scores.json
        map.tif exchanged.tif
        map.tif scene.tif
        map.tif reference.tif --json scores.csv
    """,
    'sample': """
        map.tif --output points.gpkg --size 20
        map.tif --output points.gpkg --size 20
        map.tif --output few.gpkg --size 5
        map.tif --output few.gpkg
    """,
    'assess': """
        map.tif points.gpkg
        map.tif squares.gpkg
    """,
    'areas': """
        map.tif
        map.tif --output areas.txt
        map.tif --zones squares.gpkg --field name
    """,
    'change': """
        map.tif map.tif --output change.tif
        map.tif exchanged.tif --output change.tif
        map.tif map.tif --output other.tif --min_confidence 101
    """,
    'relabel': """
        map.tif --output merged.tif --merge 'Forest+Croplands=Green'
        map.tif --output other.tif --merge Forest+Lake=Green
        map.tif --output other.tif --names Wood,Lake
        map.tif --output other.tif --colors red
    """,
    'vectorize': """
        map.tif large.gpkg --sieve 20
        map.tif large.gpkg
        map.tif polygons.shp
        map.tif new.gpkg --sieve -1
        scene.tif new.gpkg
    """,
    'describe': """
        --config train.yaml --output windows.png
        --config train.yaml --data.init_args.scene no.tif
        --config train.yaml --data.init_args.blok_size 3
        --config train.yaml --model.init_args.class_names Forest,Water
        --config train.yaml --model.init_args.patches.pooling shar
        --config missing.yaml
        --config missing_data.yaml
    """,
    'stats': """
        --config train.yaml --output stats.yaml
        --config train.yaml --output stats.yaml
        --config train.yaml --output train.yaml --overwrite
        --config train.yaml --limit 0
        --config scene.tif
    """,
    'choose': """
        --config train.yaml --seeds one
        --config train.yaml --settings no.yaml
        --config train.yaml --steps 0
    """,
    'pseudomasks': """
        --config train.yaml --checkpoint tiny.ckpt --output mask.tif
        --config train.yaml --checkpoint tiny.ckpt --output masks --split train
    """,
    'export': """
        tiny.ckpt --output model.onx
        tiny.ckpt --output model.onnx --opset 9
        tiny.ckpt --output model.onnx --img_size 31
    """,
    'publish': """
        tiny.ckpt
        tiny.ckpt --repo land-cover
        no.ckpt --folder model
    """,
    'import-checkpoint': """
        tiny.ckpt new.ckpt --bands B02,B03 --classes Forest,Water
    """,
}
PREDICT = 'predict --config scene.yaml --ckpt_path tiny.ckpt'
#: Mistakes in TorchGeo's own command that reach this package.
TORCHGEO = f"""
    {PREDICT} --data.init_args.scene no.tif
    {PREDICT} --data.init_args.stride 300
    {PREDICT}
    fit --config missing_data.yaml
"""


def make_world(folder: Path) -> None:
    """Write a scene, labels, a reference, a checkpoint and configurations."""
    made = write_land_cover(folder, 'scene', 32, 0, size=128)
    made.reference.rename(folder / 'reference.tif')
    mapped = made.classes.copy()
    mapped[::9] = 0
    place: dict[str, Any] = {'transform': made.transform, 'crs': made.crs}
    write_mask(folder / 'map.tif', mapped, names=CLASSES, colors=COLORS, **place)
    write_raster(folder / 'exchanged.tif', 3 - made.classes[None], nodata=255, **place)
    write_squares(folder / 'squares.gpkg', [made], 16, 0)
    labels = {'path': 'squares.gpkg', 'field': 'tags', 'classes': [*CLASSES]}
    data: dict[str, Any] = {
        'class_path': 'torchgeo_ctm.datamodules.SceneDataModule',
        'init_args': {
            'scene': 'scene.tif',
            'batch_size': 8,
            'num_workers': 0,
            'block_size': 32,
            'labels': {
                'class_path': 'torchgeo_ctm.labels.PolygonLabels',
                'init_args': labels,
            },
        },
    }
    model: dict[str, Any] = {
        'class_path': 'torchgeo_ctm.trainers.ClassTokenMaskingTask',
        'init_args': {
            'img_size': 16,
            'in_channels': len(BANDS),
            'bands': [*BANDS],
            'num_classes': len(CLASSES),
            'class_names': [*CLASSES],
            'class_colors': [*COLORS],
            'model_options': {'embed_dim': 16, 'depth': 1, 'num_heads': 1},
        },
    }
    content: dict[str, Any] = {
        'trainer': {'max_epochs': 1, 'logger': False},
        'model': model,
        'data': data,
    }
    (folder / 'train.yaml').write_text(yaml.safe_dump(content))
    content['data'] = {
        'class_path': 'torchgeo_ctm.datamodules.DFC2020DataModule',
        'dict_kwargs': {'root': 'data/dfc2020'},
    }
    (folder / 'missing_data.yaml').write_text(yaml.safe_dump(content))
    (folder / 'scene.yaml').write_text((CONFIGS / 'scene.yaml').read_text())
    torch.manual_seed(0)
    save_task(build_task(folder / 'train.yaml'), folder / 'tiny.ckpt')


def usual_mistakes(name: str) -> Iterator[list[str]]:
    """Yield calls with the mistakes that any command allows, made from its parser."""
    parser = command_parser(name)
    actions = [each for each in parser._actions if '--help' not in each.option_strings]
    required = [
        word
        for action in actions
        if action.required or not action.option_strings
        for word in (*action.option_strings[:1], f'no_{action.dest}')
        if action.nargs != '?'
    ]
    # without required arguments this is a good run, which may take minutes
    if required:
        yield []
    options = [action for action in actions if action.option_strings]
    if options:
        yield [*required, options[0].option_strings[0][:-1], 'x']
    for kind in ('an integer', 'a number', 'one of'):
        for action in options:
            if _kind(action).startswith(kind):
                yield [*required, action.option_strings[0], 'many']
                break
    if required:
        yield required
    yield [*required, 'one', 'more', 'word']


def call(arguments: list[str]) -> str:
    """Return what a call of ``torchgeo-ctm`` prints, and its exit status."""

    def run() -> int:
        try:
            main(arguments)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return _recorded('torchgeo-ctm', arguments, run)


def call_torchgeo(arguments: list[str]) -> str:
    """Return the last line of what ``torchgeo`` prints about a mistake."""
    import torchgeo.main
    from torchgeo.datasets import DatasetNotFoundError

    def run() -> int:
        try:
            with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
                torchgeo.main.main(arguments)
        except (CTMError, DatasetNotFoundError) as error:
            sys.stderr.write(f'{type(error).__name__}: {one_line(error)}\n')
            return 1
        return 0

    return _recorded('torchgeo', arguments, run)


def _recorded(program: str, arguments: list[str], run: Any) -> str:
    """Return a command, what it prints and its exit status, the same anywhere."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        warnings.simplefilter('default', CTMWarning)
        status = run()
    printed, complained = out.getvalue(), err.getvalue()
    if '--help' not in arguments:
        # scores and sizes depend on the machine
        printed = re.sub(r'\d+\.\d+(e[-+]\d+)?', '#', printed)
        complained = re.sub(r'\d+\.\d+ GB', '# GB', complained)
    lines = [f'$ {shlex.join([program, *arguments])}']
    for line in (printed + complained).splitlines():
        if 'px/s]' not in line and 'it/s' not in line and 'chip' + '/s]' not in line:
            lines.append(line.rstrip().replace(str(Path.cwd()), 'FOLDER'))
    if status:
        lines.append(f'(exit status {status})')
    return '\n'.join(line for line in lines if line) + '\n'


def command_names() -> list[str]:
    """Return the commands of the parser."""
    from torchgeo_ctm.main import build_parser

    parser: Any = build_parser()
    return [*parser._subcommands_action._name_parser_map]


def collect(folder: Path) -> str:
    """Return every message, from calls in an empty folder."""
    make_world(folder)
    parts = []
    environment = {'COLUMNS': COLUMNS, 'NO_COLOR': '1'}
    with chdir(folder), patch.dict(os.environ, environment):
        for name in ['', *command_names()]:
            first = [name] if name else []
            parts.append(call([*first, '--help']))
            runs = [*usual_mistakes(name)] if name else [[]]
            runs += [shlex.split(line) for line in _lines(RUNS.get(name, ''))]
            parts += [call([*first, *run]) for run in runs]
        parts += [call_torchgeo(shlex.split(line)) for line in _lines(TORCHGEO)]
    return '\n'.join(parts)


def _lines(text: str) -> list[str]:
    """Return the lines of a text that are not empty, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as temporary:
        MESSAGES.write_text(collect(Path(temporary)), encoding='utf-8')
    sys.stdout.write(f'{MESSAGES}\n')
