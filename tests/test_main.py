"""The command through its real entry: help, results, and every mistake."""

import inspect
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from tests.commands import Run, refused
from tests.conftest import WriteScene, save_task, scene_pixels, tiny_task
from tests.fakes.networks import reference_state
from torchgeo_ctm.commands import COMMANDS
from torchgeo_ctm.inference.options import ProductOptions
from torchgeo_ctm.main import as_options, command_parser
from torchgeo_ctm.prediction import predict_scene, pseudo_masks
from torchgeo_ctm.prediction.dates import predict_dates
from torchgeo_ctm.prediction.shards import predict_scenes
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.version import __version__

COMMAND = Path(sys.executable).with_name('torchgeo-ctm')


def test_mistakes_and_help_are_answered_without_torch(tmp_path: Path) -> None:
    """In one process: nothing heavy is imported by any of these."""
    config = tmp_path / 'train.yaml'
    wanted: list[tuple[list[str], int]] = [
        (['--help'], 0),
        (['--version'], 0),
        (['predict', '--help'], 0),
        (['predict', '--strid', '3'], 2),
        (['predikt'], 2),
        (['predict', 'no.tif', '--checkpoint', 'no.ckpt', '--output', 'm.tif'], 2),
        (['describe', '--config', str(config)], 2),
        (['stats', '--config', str(config)], 2),
    ]
    code = (
        'import json, sys\n'
        'import torchgeo_ctm\n'
        'from torchgeo_ctm import predict_scene\n'
        'from torchgeo_ctm.main import main\n'
        'for arguments in json.loads(sys.argv[1]):\n'
        '    try: main(arguments)\n'
        '    except SystemExit as stop: print("status", stop.code or 0)\n'
        'print([name for name in ("torch", "rasterio", "numpy") if name in sys.modules])'
    )
    commands = json.dumps([arguments for arguments, _ in wanted])
    done = subprocess.run(
        [sys.executable, '-c', code, commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    statuses = [line for line in lines if line.startswith('status')]
    assert statuses == [f'status {status}' for _, status in wanted]
    assert lines[-1] == '[]'


def test_version() -> None:
    done = subprocess.run(
        [COMMAND, '--version'], capture_output=True, text=True, check=True
    )
    assert done.stdout == f'torchgeo-ctm {__version__}\n'


def test_predict_and_evaluate(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'mask.tif'
    status, printed, _ = run(
        'predict', write_scene(), '--checkpoint', checkpoint, '--output', out,
        '--accelerator', 'cpu', '--batch-size', 4,
    )  # fmt: skip
    assert status == 0
    names = (
        *('mask.tif', 'mask_confidence.tif', 'mask.gpkg', 'mask.qml'),
        *('mask_confidence.qml', 'mask.png'),
    )
    assert printed.splitlines() == [str(tmp_path / name) for name in names]
    scores = tmp_path / 'scores.json'
    status, printed, _ = run('evaluate', out, out, '--json', scores)
    assert status == 0
    content = json.loads(scores.read_text())
    assert content['miou'] == content['pixel_accuracy'] == 1
    assert list(content['iou']) == ['Forest', 'Water', 'Urban/Built-up']
    assert content['pixels'] == 70 * 90
    assert {'average_accuracy', 'confusion'} <= content.keys()
    assert 'miou' in printed


def test_extra_bands_are_named(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene(pixels=scene_pixels(40, 40, 14), descriptions=None)
    status, _, err = run(
        'predict', scene, '--checkpoint', checkpoint, '--output', tmp_path / 'm.tif'
    )
    assert status == 0
    assert 'torchgeo-ctm: warning:' in err
    assert 'left out band 14' in err


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (
            (),
            [
                'Missing command',
                'demo, train, search, predict, evaluate, sample, assess, areas',
            ],
        ),
        (('predikt',), ["Unknown command 'predikt'", "Did you mean 'predict'?"]),
        (('predict', 'x', '--stirde', '3'), ['--stirde', "Did you mean '--stride'?"]),
        # no abbreviations: a half-typed option is not another one
        (('predict', 'x', '--strid', '3'), ['--strid', "Did you mean '--stride'?"]),
        (
            ('predict', 'x', '--ensemble', 'flips'),
            ["--ensemble 'flips', expected dihedral"],
        ),
        (
            ('describe', '--config', 'x', '--split', 'tain'),
            ["'tain', expected one of: train, val, test"],
        ),
        (('predict', 'x'), ['required', '--checkpoint', '--output']),
        (('predict', '--checkpoint', 'c', '--output', 'o.tif'), ['required', 'SCENE']),
        (
            ('predict', 'x', '--checkpoint', 'c', '--output', 'o.tif', '--stride', 'a'),
            ['--stride'],
        ),
        (
            (
                'predict',
                'x',
                '--checkpoint',
                'c',
                '--output',
                'o.tif',
                '--batch_size',
                'a',
            ),
            ['--batch_size', 'integer'],
        ),
        (('evaluate', 'a'), ['required', 'REFERENCE']),
        (('evaluate', 'a', 'b', 'c'), ["Unexpected argument 'c'", '--no_x']),
        (('predict', 'x', '--data.x=3'), ["Unknown option '--data.x"]),
        (('demo', '--compares'), ['--compares', "Did you mean '--compare'?"]),
    ],
)
def test_wrong_options(run: Run, arguments: tuple[str, ...], words: list[str]) -> None:
    refused(run(*arguments), *words)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_is_in_words(run: Run, command: str) -> None:
    status, printed, _ = run(command, '--help')
    assert status == 0
    for word in ('<', 'function', 'Optional', 'Literal', 'null', 'type:', 'None'):
        assert word not in printed
    words = ' '.join(printed.split())
    switches = words.count(', --no_')
    told = words.count('default: no)') + words.count('default: yes)')
    assert told == switches > 0


def test_an_option_is_written_once() -> None:
    """The options of a command are those of the function that it calls."""
    for name, function, own in (
        ('predict', predict_scene, {'progress'}),
        ('pseudomasks', pseudo_masks, {'progress'}),
    ):
        parameters = inspect.signature(function).parameters
        products = {each.name for each in fields(ProductOptions)}
        wanted = parameters.keys() - own - {'products'}
        if 'products' in parameters:
            wanted |= products
        if name == 'predict':
            # of several dates, and of many scenes
            wanted |= inspect.signature(predict_dates).parameters.keys() & {'combine'}
            wanted |= inspect.signature(predict_scenes).parameters.keys() & {'shard'}
        found = {action.dest for action in command_parser(name)._actions} - {'help'}
        assert found == wanted


def test_the_program_says_its_usage_in_one_line(run: Run) -> None:
    _, printed, _ = run('--help')
    first, second, *_ = printed.splitlines()
    assert first == 'usage: torchgeo-ctm [--help] [--version] COMMAND [options]'
    assert second == ''


def test_everything_that_is_missing_is_named_at_once(
    run: Run, tmp_path: Path, checkpoint: Path, write_scene: WriteScene
) -> None:
    scene = write_scene('scene.tif')
    good = ('--checkpoint', checkpoint, '--output', tmp_path / 'm.tif')
    refused(run('predict', tmp_path / 'scnee.tif', *good), f"Did you mean '{scene}'?")
    refused(
        run('predict', tmp_path / 'scnee.tif', '--checkpoint', tmp_path / 'no.ckpt',
            '--output', tmp_path / 'm.tif'),
        'scnee.tif does not exist', 'no.ckpt is not a file, expected a checkpoint',
    )  # fmt: skip
    config = tmp_path / 'train.yaml'
    config.touch()
    for command in ('describe', 'stats'):
        result = run(command, '--config', tmp_path / 'tarin.yaml')
        refused(result, 'tarin.yaml does not exist', f"Did you mean '{config}'?")
    both = ('--config', tmp_path / 'tarin.yaml', '--checkpoint', tmp_path / 'no.ckpt')
    refused(run('pseudomasks', *both, '--output', tmp_path), 'tarin.yaml', 'no.ckpt')


def test_inputs_are_not_replaced(
    run: Run, write_scene: WriteScene, tmp_path: Path
) -> None:
    scene, config = write_scene(), tmp_path / 'c.png'
    checkpoint = save_task(tiny_task(), tmp_path / 'c.tif')
    config.write_text('model: {}')
    before = checkpoint.read_bytes()
    for arguments in (
        ('predict', scene, '--checkpoint', checkpoint, '--output', checkpoint),
        ('describe', '--config', config, '--output', config),
    ):
        refused(run(*arguments, '--overwrite'), 'is the input itself')
    assert checkpoint.read_bytes() == before
    assert config.read_text() == 'model: {}'


def test_errors_of_the_system_are_one_line(run: Run, tmp_path: Path) -> None:
    name = tmp_path / f'{"x" * 300}.json'
    refused(run('evaluate', 'a.tif', 'b.tif', '--json', name), 'File name too long')


def test_a_file_is_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / 'README.md').touch()
    config = tmp_path / 'c.yaml'
    config.touch()
    for command, name in (('describe', 'p.png'), ('stats', 'p.yaml')):
        out = tmp_path / 'README.md' / name
        refused(
            run(command, '--config', config, '--output', out), 'is a file, expected'
        )


class TestPredictRefuses:
    @pytest.fixture
    def attempt(
        self, run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> Callable[..., None]:
        """Predict with one thing wrong; nothing may be left behind."""
        out = tmp_path / 'out'
        out.mkdir()
        good: dict[str, object] = {
            'scene': write_scene(),
            'checkpoint': checkpoint,
            'output': out / 'm.tif',
        }

        def call(*words: str, **wrong: object) -> None:
            given = good | wrong
            before = sorted(out.iterdir())
            refused(
                run('predict', given['scene'], '--checkpoint', given['checkpoint'],
                    '--output', given['output'], '--accelerator', 'cpu'),
                *words,
            )  # fmt: skip
            assert sorted(out.iterdir()) == before

        return call

    def test_missing_scene(self, attempt: Callable[..., None], tmp_path: Path) -> None:
        attempt('nowhere.tif', 'does not exist', scene=tmp_path / 'nowhere.tif')

    def test_no_raster(self, attempt: Callable[..., None], tmp_path: Path) -> None:
        path = tmp_path / 'notes.txt'
        path.write_text('hello')
        attempt('notes.txt', 'Cannot open', scene=path)

    def test_folder_without_tiles(
        self, attempt: Callable[..., None], tmp_path: Path
    ) -> None:
        (tmp_path / 'empty').mkdir()
        attempt('is a folder without a raster', scene=tmp_path / 'empty')

    def test_three_bands(
        self, attempt: Callable[..., None], write_scene: WriteScene
    ) -> None:
        rgb = write_scene('rgb.tif', pixels=scene_pixels(40, 40, 3), descriptions=None)
        attempt('3 bands', 'expected 13', 'B01, B02', scene=rgb)
        names = [f'X{number}' for number in range(13)]
        other = write_scene('other.tif', descriptions=names)
        attempt('pass the right ones as --scene_bands.', scene=other)

    def test_missing_checkpoint(self, attempt: Callable[..., None]) -> None:
        attempt('nowhere.ckpt', 'is not a file', checkpoint='nowhere.ckpt')

    def test_checkpoint_of_another_program(
        self, attempt: Callable[..., None], tmp_path: Path
    ) -> None:
        path = tmp_path / 'other.ckpt'
        torch.save({'state_dict': {}, 'hyper_parameters': {}}, path)
        attempt('another program', checkpoint=path)

    def test_pickle_checkpoint(
        self, attempt: Callable[..., None], tmp_path: Path
    ) -> None:
        path = tmp_path / 'pickle.ckpt'
        torch.save({'state_dict': {}, 'hyper_parameters': Path('x')}, path)
        attempt('weights_only=True', checkpoint=path)

    def test_missing_folder(self, attempt: Callable[..., None], tmp_path: Path) -> None:
        attempt('does not exist', output=tmp_path / 'no' / 'm.tif')

    def test_existing_output(
        self, attempt: Callable[..., None], tmp_path: Path
    ) -> None:
        (tmp_path / 'out' / 'm.tif').touch()
        attempt('--overwrite')

    def test_the_scene_itself_is_never_replaced(
        self, run: Run, write_scene: WriteScene, checkpoint: Path
    ) -> None:
        scene = write_scene()
        before = scene.read_bytes()
        refused(
            run('predict', scene, '--checkpoint', checkpoint, '--output', scene,
                '--overwrite'),
            'is the input itself',
        )  # fmt: skip
        assert scene.read_bytes() == before

    def test_unusable_numbers(
        self, run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
    ) -> None:
        good = ('predict', write_scene(), '--checkpoint', checkpoint, '--output',
                tmp_path / 'm.tif')  # fmt: skip
        for option, value, word in (
            ('--window', 0, 'the field of view of 20 px'),
            ('--window', 30, 'a multiple of 4 px'),
            ('--stride', 0, '1'),
            ('--stride', -4, '1'),
            ('--batch_size', 0, '1'),
            ('--num_workers', -1, '0'),
            ('--accelerator', 'tpu', 'not available here'),
        ):
            refused(run(*good, option, value), option.strip('-'), str(value), word)
        tokens = tiny_task(patches={'head': 'tokens'})
        tokens_file = save_task(tokens, tmp_path / 'tokens.ckpt')
        refused(
            run('predict', good[1], '--checkpoint', tokens_file, *good[4:], '--window', 0),
            '--window 0', 'a multiple of the patch size 8 px',
        )  # fmt: skip
        assert not (tmp_path / 'm.tif').exists()


def start(*arguments: object) -> 'subprocess.Popen[str]':
    """Start the command in a process of its own, deaf to nothing."""
    # a shell's background jobs, CI's among them, start with SIGINT ignored
    code = (
        'import signal, sys; from torchgeo_ctm.main import main\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'main(sys.argv[1:])'
    )
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished_share(out: Path) -> float:
    """Return which share of the windows of an unfinished ``m.tif`` is recorded."""
    flags = out / '.m.tif.part' / 'finished'
    content = flags.read_bytes() if flags.exists() else b''
    return float(np.mean(np.frombuffer(content, np.uint8) > 0)) if content else 0.0


@pytest.fixture(scope='module')
def uninterrupted() -> dict[str, bytes]:
    """The products of a run without interruption, once there is one."""
    return {}


@pytest.mark.slow
@pytest.mark.xdist_group('interrupted')
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_started_again(
    run: Run,
    write_scene: WriteScene,
    checkpoint: Path,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
    how: int,
) -> None:
    """The result is that of a run without interruption, to the byte."""
    # 3,000 windows: seconds after the share that is waited for
    pixels = scene_pixels(240, 260)
    pixels[:, 100:160, 50:150] = 0
    scene = write_scene(pixels=pixels, nodata=0)
    out = tmp_path / 'out'
    out.mkdir()
    arguments = ('predict', scene, '--checkpoint', checkpoint, '--window', 32,
                 '--stride', 4, '--accelerator', 'cpu', '--num_workers', 1)  # fmt: skip
    with start(*arguments, '--output', out / 'm.tif') as process:
        while process.poll() is None and finished_share(out) < 0.4:
            time.sleep(0.02)
        process.send_signal(how)
        sent = time.monotonic()
        _, err = process.communicate()
        seconds = time.monotonic() - sent
    before = finished_share(out)
    assert before >= 0.4, err
    assert [path.name for path in out.iterdir() if not path.name.startswith('.')] == []
    if how == signal.SIGTERM:
        assert seconds < 3
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how, err
        assert 'no product is half-written. Run the same command again to resume' in err
    status, _, err = run(*arguments, '--output', out / 'm.tif')
    assert status == 0
    assert 'resuming an interrupted run at' in err
    names = ('m.tif', 'm_confidence.tif')
    if not uninterrupted:
        whole = tmp_path / 'whole'
        whole.mkdir()
        assert run(*arguments, '--output', whole / 'm.tif')[0] == 0
        uninterrupted |= {name: (whole / name).read_bytes() for name in names}
    for name in names:
        assert (out / name).read_bytes() == uninterrupted[name]
    assert not [path for path in out.iterdir() if path.name.startswith('.')]


@pytest.mark.slow
def test_other_arguments_start_afresh(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene(pixels=scene_pixels(300, 300))
    out = tmp_path / 'out'
    out.mkdir()
    arguments = ('predict', scene, '--checkpoint', checkpoint, '--output',
                 out / 'm.tif', '--window', 32, '--accelerator', 'cpu')  # fmt: skip
    with start(*arguments, '--stride', 4) as process:
        while process.poll() is None and finished_share(out) < 0.2:
            time.sleep(0.02)
        # while one run writes, no other may
        refused(run(*arguments, '--stride', 4), 'Another run is writing')
        process.kill()
        process.communicate()
    status, _, err = run(*arguments, '--stride', 16)
    assert status == 0
    assert 'cannot be resumed, because STRIDE changed' in err
    assert run(*arguments, '--stride', 16, '--overwrite')[0] == 0


def test_an_empty_scene_is_said(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene = write_scene(pixels=np.zeros((13, 40, 40), np.uint16), nodata=0)
    status, _, err = run(
        'predict', scene, '--checkpoint', checkpoint, '--output', tmp_path / 'm.tif'
    )
    assert status == 0
    assert 'warning: ' in err
    assert 'has no valid pixel' in err


def test_evaluate_refuses_what_holds_no_classes(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    mask = tmp_path / 'm.tif'
    run('predict', write_scene(), '--checkpoint', checkpoint, '--output', mask)
    refused(run('evaluate', tmp_path / 'm_confidence.tif', mask), 'in percent')
    folder = tmp_path / 'folder.json'
    folder.mkdir()
    refused(run('evaluate', mask, mask, '--json', folder, '--overwrite'), 'is a folder')
    before = mask.read_bytes()
    refused(run('evaluate', mask, mask, '--json', mask, '--overwrite'), 'm.json')
    assert mask.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


def test_evaluate_on_another_grid(
    run: Run, write_scene: WriteScene, tmp_path: Path
) -> None:
    values = np.zeros((1, 40, 50), np.uint8)
    mask = write_scene('a.tif', pixels=values, descriptions=None)
    other = write_scene('b.tif', pixels=values[:, 1:], descriptions=None)
    out = tmp_path / 'scores.json'
    refused(run('evaluate', mask, other, '--json', out), 'different grids', 'size')
    assert not out.exists()
    refused(run('evaluate', mask, tmp_path / 'no.tif'), 'no.tif', 'does not exist')
    refused(run('evaluate', mask, mask, '--json', tmp_path / 'x' / 's.json'), 'Folder')
    out.touch()
    refused(run('evaluate', mask, mask, '--json', out), '--overwrite')


def test_import_checkpoint(
    run: Run,
    write_scene: WriteScene,
    tmp_path: Path,
    golden: Callable[[str], dict[str, Any]],
) -> None:
    from torchgeo_ctm.trainers import load_task

    archive = golden('pruned')
    state = reference_state(archive['names'].tolist())
    reference, out = tmp_path / 'reference.ckpt', tmp_path / 'ours.ckpt'
    torch.save({'state_dict': {f'model.{k}': v for k, v in state.items()}}, reference)
    bands, classes = ','.join(SENTINEL2_BANDS), ','.join('ABCDEFGH')
    options = ('--bands', bands, '--classes', classes, '--num-heads', 4)
    status, printed, err = run('import-checkpoint', reference, out, *options)
    assert status == 0, err
    assert printed == f'{out}\n'
    task = load_task(out)
    with torch.no_grad():
        probs = task.model(torch.from_numpy(archive['image'])).sigmoid()
    torch.testing.assert_close(
        probs, torch.from_numpy(archive['probs']), atol=1e-5, rtol=0
    )
    mask = tmp_path / 'mask.tif'
    scene = write_scene(pixels=scene_pixels(100, 120))
    assert run('predict', scene, '--checkpoint', out, '--output', mask)[0] == 0
    with rasterio.open(mask) as raster:
        assert raster.read(1).max() < 8
        assert raster.tags()['MAP_RULE'] == 'paint'

    other = tmp_path / 'other.ckpt'
    refused(run('import-checkpoint', reference, out, *options), '--overwrite')
    few = ('--bands', 'B02', '--classes', classes, '--num-heads', 4)
    refused(run('import-checkpoint', reference, other, *few), '1 bands', '13')
    heads = ('--bands', bands, '--classes', classes)
    refused(run('import-checkpoint', reference, other, *heads), '4')
    short = tmp_path / 'short.ckpt'
    short.write_bytes(reference.read_bytes()[:9000])
    refused(run('import-checkpoint', short, other, *options), 'is incomplete')
    foreign = tmp_path / 'foreign.ckpt'
    torch.save({'state_dict': {'conv.weight': torch.zeros(1)}}, foreign)
    refused(run('import-checkpoint', foreign, other, *options), 'are missing')
    torch.save({'state_dict': {}, 'args': Path('x')}, foreign)
    refused(run('import-checkpoint', foreign, other, *options), 'weights_only=True')
    assert not other.exists()


def test_overwrite(
    run: Run, write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'm.tif'
    out.write_text('old')
    arguments = ('predict', write_scene(), '--checkpoint', checkpoint, '--output', out)
    assert run(*arguments, '--overwrite', '--no-picture')[0] == 0
    with rasterio.open(out) as raster:
        assert raster.count == 1
    assert not (tmp_path / 'm.png').exists()


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('expected layer= one of: a, b.', 'expected --layer one of: a, b.'),
        ('but crs=EPSG:4326 is used.', 'but --crs EPSG:4326 is used.'),
        ('Pass overwrite=True to', 'Pass --overwrite to'),
        ('Pass x_field= and', 'Pass x_field= and'),
        ('"crs=1" and --crs=1', '"crs=1" and --crs=1'),
    ],
)
def test_arguments_of_python_are_options(text: str, shown: str) -> None:
    assert as_options(text, 'train') == shown
    assert as_options(text, 'no command') == text
