"""What mapping a scene imports: a law, because imports take longer than a small scene."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import WriteScene, save_task, tiny_task
from tests.fakes.class_rasters import random_classes, write_classes

#: Each takes seconds to import, and none is needed to map a scene.
HEAVY = (
    'lightning',
    'torchmetrics',
    'torchvision',
    'torchgeo',
    'timm',
    'torch._dynamo',
)
#: Needed for polygons and pictures, at the end.
LATE = ('geopandas', 'pandas', 'matplotlib', 'scipy')
CODE = """
import json, sys
from torchgeo_ctm.main import main
from torchgeo_ctm.scenes.scene import SceneWindows
read, seen = SceneWindows.read, []
def first(self, window):
    if not seen:
        seen.extend(name for name in sys.argv[1].split() if name in sys.modules)
        seen.append('read')
    return read(self, window)
SceneWindows.read = first
main(sys.argv[2:])
print(json.dumps([seen, [name for name in sys.argv[1].split() if name in sys.modules]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'options', [{}, {'maps': {'source': 'patches'}, 'patches': {'head': 'local'}}]
)
def test_a_scene_is_mapped_without_lightning_and_torchgeo(
    write_scene: WriteScene, tmp_path: Path, options: dict[str, object]
) -> None:
    checkpoint = save_task(tiny_task(**options), tmp_path / 'tiny.ckpt')
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            CODE,
            ' '.join((*HEAVY, *LATE)),
            'predict',
            write_scene(),
            '--checkpoint',
            checkpoint,
            '--output',
            tmp_path / 'mask.tif',
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    before_the_first_window, in_all = json.loads(done.stdout.splitlines()[-1])
    assert before_the_first_window == ['read']
    assert not set(in_all) & set(HEAVY)


@pytest.mark.slow
def test_commands_on_maps_do_without_torch(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(40, 50))
    values = np.full((40, 50), 70, np.uint8)
    write_classes(tmp_path / 'm_confidence.tif', values, names=None, description='x')
    commands = [
        ['evaluate', 'm.tif', 'm.tif', '--plot', 'c.png'],
        ['sample', 'm.tif', '--size', '50', '--output', 's.gpkg'],
        ['areas', 'm.tif', '--output', 'a.csv'],
        ['relabel', 'm.tif', '--merge', 'Forest+Crops=Green', '--output', 'r.tif'],
        ['vectorize', 'm.tif', 'v.gpkg', '--sieve', '3'],
        ['assess', 'm.tif', 's.gpkg', '--report', 'a.html'],
    ]
    code = (
        'import json, sys\n'
        'from torchgeo_ctm.main import main\n'
        'for arguments in json.loads(sys.argv[1]):\n'
        '    try: main(arguments)\n'
        '    except SystemExit as stop: print("status", stop.code)\n'
        'print([name for name in ("torch", "torchgeo", "lightning") if name in sys.modules])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, json.dumps(commands)],
        cwd=mask.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    # nobody has labeled the samples
    assert [line for line in lines if 'status' in line] == ['status 2'], done.stderr
    assert lines[-1] == '[]'
