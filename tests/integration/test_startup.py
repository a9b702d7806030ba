"""What mapping a scene imports: a law, because imports take longer than a small scene."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WriteScene, save_task, tiny_task

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
