"""Many scenes are mapped one by one, and by processes that do not know each other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rasterio.crs import CRS

from tests.commands import Run, refused
from tests.conftest import (
    TRANSFORM,
    WriteScene,
    decisive,
    save_task,
    scene_pixels,
    tiny_task,
)
from tests.fakes.cloud_packages import cloud_packages
from tests.fakes.label_files import square, write_features
from tests.fakes.runs import SMALL
from tests.fakes.sentinel2 import write_shifted_bands
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.grids import Grid
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.prediction.shards import predict_scenes, read_shard

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / 'docs' / 'examples'
NAMES = ['a', 'b', 'c', 'd', 'e']

pytestmark = pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')


@pytest.fixture
def data(write_scene: WriteScene, tmp_path: Path) -> Path:
    """A folder with five scenes, a checkpoint and a folder for maps."""
    for name in ('scenes', 'maps'):
        (tmp_path / name).mkdir()
    for number, name in enumerate(NAMES):
        pixels = scene_pixels(40 + number, 50)
        write_scene(f'scenes/{name}.tif', pixels=pixels)
    save_task(decisive(tiny_task()), tmp_path / 'model.ckpt')
    return tmp_path


def maps(data: Path) -> list[str]:
    return sorted(path.stem for path in (data / 'maps').glob('?.tif'))


def call(data: Path, *more: object) -> list[object]:
    """Return the arguments of a command that maps all scenes."""
    scenes = sorted((data / 'scenes').iterdir(), reverse=True)
    options = ['--checkpoint', data / 'model.ckpt', '--output', data / 'maps']
    return ['predict', *scenes, *options, '--window', '32', *more]


@pytest.mark.parametrize('count', [1, 2, 3, 5, 7])
def test_shards_map_every_scene_once(
    data: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = []
    monkeypatch.setattr(
        'torchgeo_ctm.prediction.shards.predict_scene',
        lambda scene, *_, **__: mapped.append(scene),
    )
    scenes = [str(path) for path in (data / 'scenes').iterdir()]
    for number in range(1, count + 1):
        shard = f'{number}/{count}'
        done = predict_scenes(scenes, 'x.ckpt', data / 'maps', shard=shard)
        assert [result.scene for result in done] == sorted(scenes)[number - 1 :: count]
    assert sorted(mapped) == sorted(scenes)


def test_a_map_of_a_shard_has_the_bytes_of_one_alone(data: Path, run: Run) -> None:
    status, out, err = run(*call(data, '--shard', '2/3'))
    assert status == 0, err
    assert maps(data) == ['b', 'e']
    assert out.splitlines()[-1] == (
        '2 mapped, 0 already there, 0 failed, shard 2/3 of 5 scenes'
    )
    alone = data / 'alone' / 'e.tif'
    alone.parent.mkdir()
    options = SMALL | {'stride': None}
    predict_scene(data / 'scenes' / 'e.tif', data / 'model.ckpt', alone, **options)
    assert (data / 'maps' / 'e.tif').read_bytes() == alone.read_bytes()


def test_failed_scenes_are_named_and_the_others_mapped(data: Path, run: Run) -> None:
    bad = data / 'scenes' / 'b.tif'
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    status, out, err = run(*call(data))
    assert status == 2
    assert maps(data) == ['a', 'c', 'd', 'e']
    assert out.splitlines()[-1] == '4 mapped, 0 already there, 1 failed'
    lines = [line for line in err.splitlines() if 'warning' not in line]
    assert next(line[:22] for line in lines if 'failed: ' in line) == (
        'torchgeo-ctm: failed: '
    )
    assert f'1 of 5 scenes failed: {bad}. Run the same command again' in lines[-1]
    before = (data / 'maps' / 'a.tif').stat().st_mtime_ns
    bad.write_bytes(good)
    status, out, err = run(*call(data))
    assert status == 0, err
    assert out.splitlines()[-1] == '1 mapped, 4 already there, 0 failed'
    assert (data / 'maps' / 'a.tif').stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ('shard', 'words'),
    [
        ('0/4', ["Shard '0/4' is out of range", '1/4 to 4/4', 'Did you mean 1/4?']),
        ('5/4', ["Shard '5/4' is out of range", 'count from 1']),
        ('0/0', ['out of range']),
        ('2', ["Invalid shard '2'", 'I/N, as 1/8']),
        ('-1/4', ["Invalid shard '-1/4'"]),
    ],
)
def test_shards_that_are_none(
    data: Path, run: Run, shard: str, words: list[str]
) -> None:
    with pytest.raises(SettingError):
        read_shard(shard)
    refused(run(*call(data, f'--shard={shard}')), *words)
    assert not maps(data)


def test_what_does_not_go_together(data: Path, run: Run) -> None:
    refused(run(*call(data, '--shard', '1/2', '--combine', 'mean')), 'one of both')
    missing = call(data, '--shard', '1/2', '--output', data / 'nothing')
    refused(run(*missing), 'nothing is no folder, expected an existing one')
    wrong = call(data, '--output', data / 'a.tif')
    refused(run(*wrong), '--combine mean', 'an existing folder as --output')
    # a mistake in the checkpoint is one mistake
    (data / 'model.ckpt').write_bytes(b'x')
    refused(run(*call(data)), 'model.ckpt')
    scene = min((data / 'scenes').iterdir())
    once = ['predict', scene, '--checkpoint', data / 'model.ckpt']
    refused(run(*once, '--output', data / 'new'), 'nor an existing folder', "'new.tif'")


def test_more_shards_than_scenes(data: Path, run: Run) -> None:
    status, out, _ = run(*call(data, '--shard', '7/8'))
    assert status == 0
    assert out == '0 mapped, 0 already there, 0 failed, shard 7/8 of 5 scenes\n'


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a task, in which torchgeo-ctm is found."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    packages = f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    own = {'PATH': path, 'PYTHONPATH': packages, 'OMP_NUM_THREADS': '1'}
    return os.environ | own | variables


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['slurm', 'kubernetes'])
def test_the_examples_map_all_scenes(data: Path, kind: str) -> None:
    """Two of the eight tasks, as the cluster starts them: the others are alike."""
    if kind == 'slurm':
        script = (EXAMPLES / 'slurm.sh').read_text()
        found = re.search(r'--array=1-(\d+)', script)
        command, name, first = ['bash', '-c', script], 'SLURM_ARRAY_TASK_ID', 1
        assert found is not None
        count = int(found[1])
        assert f'SHARDS={count}\n' in script
    else:
        job = yaml.safe_load((EXAMPLES / 'kubernetes.yaml').read_text())
        assert job['spec']['completionMode'] == 'Indexed'
        [container] = job['spec']['template']['spec']['containers']
        command, name, first = container['command'], 'JOB_COMPLETION_INDEX', 0
        count = job['spec']['completions']
        assert f'/{count}"' in command[-1]
    # a shard of five scenes has one or none
    numbers = (1, len(NAMES) - 1)
    tasks = [
        subprocess.Popen(
            command, cwd=data, env=environment(**{name: str(first + number)})
        )
        for number in numbers
    ]
    assert [task.wait() for task in tasks] == [0, 0]
    assert maps(data) == [NAMES[number] for number in numbers]


def test_the_plan_has_the_measured_figures() -> None:
    page = (ROOT / 'docs/how-to/several-machines.md').read_text()
    measured = json.loads((ROOT / 'benchmarks/results/tile.json').read_text())
    seconds = measured['seconds_per_tile']
    assert f'{seconds:.0f} s' in page
    assert f'{measured["peak_rss_mb"]["10980"] / 1000:.1f} GB' in page
    hours = 10_000 * round(seconds) / 3600
    assert f'{hours:.0f} hours' in page


def kept(result: tuple[int, str, str]) -> list[str]:
    """Return the warnings about maps that are kept."""
    status, _, err = result
    assert status == 0, err
    return [line for line in err.splitlines() if ' is kept, but ' in line]


def test_maps_that_are_kept_as_this_run_makes_them_are_no_news(
    data: Path, run: Run
) -> None:
    """Whatever does not change a map: batches, threads, shards, what was written."""
    assert not kept(run(*call(data, '--merge', 'Forest+Water=A', '--adapt', 'none')))
    (data / 'scenes' / 'a.tif.aux.xml').write_text('<PAMDataset></PAMDataset>')
    for more in (
        (),
        ('--batch_size', 3, '--num_workers', 2),
        ('--shard', '1/2'),
        ('--window', '32', '--stride', '16'),
    ):
        again = call(data, '--merge', 'Forest+Water=A', '--adapt', 'none', *more)
        scenes = [x for x in again if not str(x).endswith('.xml')]
        result = run(*scenes)
        assert not kept(result)
        assert ' 0 mapped' in f' {result[1]}'
    # mapped, then deleted
    (data / 'scenes' / 'a.tif').write_bytes(b'')
    assert not kept(run(*scenes))


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        (('--stride', 8), 'STRIDE 8 instead of 16.'),
        (('--nodata', 0), 'NODATA 0 instead of from the scene.'),
        (('--offset', -1000), 'OFFSET -1000 instead of as in the training data.'),
        (('--ensemble', 'dihedral'), 'ENSEMBLE dihedral instead of None.'),
        (('--merge', 'Forest+Water=A'), 'MERGE Forest+Water=A instead of none.'),
        (('--probabilities',), '.tif is missing, '),
        (('--checkpoint', 'other.ckpt'), ': another checkpoint.'),
    ],
)
def test_a_map_that_this_run_would_make_otherwise_is_named(
    data: Path, run: Run, more: tuple[Any, ...], words: str
) -> None:
    assert not kept(run(*call(data, '--shard', '1/3')))
    before = (data / 'maps' / 'a.tif').read_bytes()
    more = tuple(data / x if str(x).endswith('.ckpt') else x for x in more)
    options = {'embed_dim': 16, 'depth': 1, 'num_heads': 2}
    other = decisive(tiny_task(model_options=options))
    save_task(other, data / 'other.ckpt')
    lines = kept(run(*call(data, '--shard', '1/3', *more)))
    assert len(lines) == 2
    name = data / 'maps' / 'a.tif'
    start = f'torchgeo-ctm: warning: {name} is kept, but this run would make another'
    assert lines[0].startswith(start)
    assert words in lines[0]
    assert lines[0].endswith(
        'Delete it to make it anew, or pass --overwrite to replace all.'
    )
    assert name.read_bytes() == before


def test_a_scene_that_changed_is_named(data: Path, run: Run) -> None:
    assert not kept(run(*call(data)))
    scene = data / 'scenes' / 'c.tif'
    later = (data / 'maps' / 'c.tif').stat().st_mtime + 5
    os.utime(scene, (later, later))
    [line] = kept(run(*call(data)))
    assert 'c.tif is kept' in line
    assert 'another map: c.tif is newer. Delete it' in line
    (data / 'maps' / 'c.tif').unlink()
    for beside in (data / 'maps').glob('c*'):
        beside.unlink()
    os.utime(scene)
    assert not kept(run(*call(data)))
    assert not kept(run(*call(data)))


@pytest.mark.parametrize('option', ['clouds', 'area', 'dark', 'bilinear', 'products'])
def test_maps_with_options_of_all_kinds_are_no_news(
    write_scene: WriteScene, tmp_path: Path, run: Run, option: str
) -> None:
    (tmp_path / 'maps').mkdir()
    scene = write_scene(height=40, width=50)
    task: dict[str, object] = {}
    flags: dict[str, list[object]] = {
        'clouds': ['--clouds', 's2cloudless', '--cloud_dilation', 0],
        'area': ['--area', tmp_path / 'area.gpkg'],
        'products': ['--stac', '--probabilities', '--no_polygons', '--no_confidence'],
    }
    if option == 'area':
        grid = Grid(40, 50, CRS.from_epsg(32630), TRANSFORM)
        write_features(
            tmp_path / 'area.gpkg', [square((9, 9, 30, 40), grid)], [1], 32630
        )
    if option == 'dark':
        task['scaling'] = {'low': [0.0] * 13, 'high': [9e3] * 13, 'adapt': 'dark'}
    if option == 'bilinear':
        write_shifted_bands(tmp_path / 'bands')
        scene, bands = tmp_path / 'bands', ['B02', 'B05', 'B01']
        scaling = {'resample': 'bilinear'}
        task.update(in_channels=3, bands=bands, scaling=scaling)
    checkpoint = save_task(decisive(tiny_task(**task)), tmp_path / 'model.ckpt')
    call = ('predict', scene, '--checkpoint', checkpoint, '--output', tmp_path / 'maps')
    with cloud_packages(tmp_path / 'site'):
        for _ in range(2):
            assert not kept(run(*call, '--window', '32', *flags.get(option, ())))
        # without the option, the map would be another one
        other = {'dark': ['--adapt', 'none'], 'bilinear': ['--resample', 'nearest']}
        [line] = kept(run(*call, '--window', '32', *other.get(option, ())))
    word = {'dark': 'ADAPT', 'bilinear': 'RESAMPLE', 'products': 'is missing'}
    assert word.get(option, option.upper()) in line
