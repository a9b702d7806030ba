"""``torchgeo-ctm publish``, and maps with what it wrote, from a folder and from a Hub."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pystac
import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from tests.commands import Run, refused
from tests.project.small_scene import (
    BANDS,
    CHECKPOINT,
    NAMES,
    SEGMENTATION,
    write_small_scene,
)
from torchgeo_ctm import predict_scene
from torchgeo_ctm.errors import CheckpointError, SettingError
from torchgeo_ctm.publish import Words, publish
from torchgeo_ctm.trainers.published import locate, sha256_of

pytestmark = [
    pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.CTMWarning'),
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),
]
COMMIT = '0123456789abcdef0123456789abcdef01234567'
FILES = ['README.md', 'config.json', 'item.json', 'model.onnx', 'model.safetensors']


@pytest.fixture(scope='session')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_scene(tmp_path_factory.mktemp('scene'))


@pytest.fixture(scope='session')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model, which no test changes."""
    path = tmp_path_factory.mktemp('made')
    (path / 'scores.json').write_text('{"miou": 0.5, "iou": {"Water": 0.25}}')
    words = Words('Land', 'Squares.', 'cc-by-4.0', path / 'scores.json')
    publish(CHECKPOINT, folder=path / 'model', words=words)
    return path / 'model'


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A published model of one test."""
    return Path(shutil.copytree(made, tmp_path / 'model'))


def test_what_is_published(made: Path) -> None:
    folder = made
    assert sorted(path.name for path in folder.iterdir()) == FILES
    _, head, text = (folder / 'README.md').read_text('utf-8').split('---\n')
    assert yaml.safe_load(head)['license'] == 'cc-by-4.0'
    assert '# Land\n' in text and 'Squares.' in text
    assert '| mean IoU | 0.500 |' in text and '| IoU, Water | 0.250 |' in text
    assert '| 1 | Water | `#1c0dff` |' in text
    for band in BANDS:
        assert f'| {band} | ' in text
    item = pystac.Item.from_file(folder / 'item.json')
    [given] = item.properties['mlm:input']
    [scores] = item.properties['mlm:output']
    assert given['bands'] == [*BANDS]
    assert [each['name'] for each in scores['classification:classes']] == [*NAMES]
    for asset in item.assets.values():
        assert (folder / asset.href).is_file()
    # no random state of the training, and no path
    assert (folder / 'config.json').stat().st_size < 6000


@pytest.mark.parametrize('checkpoint', [CHECKPOINT, SEGMENTATION], ids=lambda p: p.stem)
def test_the_folder_maps_byte_for_byte_as_the_checkpoint(
    run: Run, scene: Path, tmp_path: Path, checkpoint: Path
) -> None:
    assert run('publish', checkpoint, '--folder', tmp_path / 'model')[0] == 0
    for name, source in (('one', checkpoint), ('two', tmp_path / 'model')):
        (tmp_path / name).mkdir()
        mask = tmp_path / name / 'mask.tif'
        predict_scene(scene, source, mask, progress=False, accelerator='cpu')
    for product in ('mask.tif', 'mask_confidence.tif', 'mask.qml', 'mask.png'):
        files = [tmp_path / name / product for name in ('one', 'two')]
        assert files[0].read_bytes() == files[1].read_bytes()


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the Hub for one public model, user/name."""

    folder: ClassVar[Path]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition('?')[0]
        if not path.startswith('/user/name/resolve/'):
            self._send(404, b'', {'X-Error-Code': 'RepoNotFound'})
        elif 'absent' in path:
            self._send(404, b'', {'X-Error-Code': 'RevisionNotFound'})
        else:
            file = self.folder / path.rsplit('/', 1)[-1]
            headers = {'ETag': f'"{sha256_of(file)}"', 'X-Repo-Commit': COMMIT}
            self._send(200, file.read_bytes(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {'Content-Length': str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


@pytest.fixture
def hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A Hub on this machine, which has the published model as user/name."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    Hub.folder = folder
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f'http://127.0.0.1:{server.server_port}'
    address = place + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'ENDPOINT', place)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', address)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    yield folder
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub(run: Run, hub: Path, scene: Path, tmp_path: Path) -> None:
    digest = sha256_of(hub / 'model.safetensors')
    masks = []
    for number, name in enumerate(
        (hub, 'hf://user/name', f'hf://user/name@main#sha256={digest}')
    ):
        (tmp_path / str(number)).mkdir()
        masks.append(tmp_path / str(number) / 'mask.tif')
        status, out, err = run(
            'predict', scene, '--checkpoint', name, '--output', masks[-1]
        )
        assert status == 0, err
        assert (f'commit                {COMMIT}\n' in out) == (number > 0)
    assert len({mask.read_bytes() for mask in masks}) == 1
    # weights and options alone
    commit = locate('hf://user/name').path
    assert sorted(path.name for path in commit.iterdir()) == [FILES[1], FILES[4]]


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        (
            'hf://user/nam',
            CheckpointError,
            'hf://user/nam does not exist, or is private',
        ),
        ('hf://user/name@absent', CheckpointError, "has no revision 'absent'"),
        (
            f'hf://user/name#sha256={"0" * 64}',
            CheckpointError,
            'has sha256=.* expected',
        ),
        ('hf://user', SettingError, "Invalid checkpoint 'hf://user', expected"),
        ('hf://user/name#sha256=12', SettingError, 'with 64 digits'),
    ],
)
def test_wrong_names(
    hub: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        locate(name)


def test_a_server_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, run: Run, scene: Path, tmp_path: Path
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise LocalEntryNotFoundError('Check your\nconnection.')

    monkeypatch.setattr('huggingface_hub.hf_hub_download', fail)
    where = ['--checkpoint', 'hf://user/name', '--output', tmp_path / 'mask.tif']
    refused(
        run('predict', scene, *where),
        'hf://user/name cannot be downloaded: Check your connection.',
    )
    assert not (tmp_path / 'mask.tif').exists()


def copy_onnx(checkpoint: Path, path: Path) -> None:
    """Write no ONNX, which takes seconds."""
    path.touch()


def test_upload(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def create_repo(api: Any, name: str, **options: Any) -> None:
        asked.append((name, options))

    def upload_folder(api: Any, **options: Any) -> SimpleNamespace:
        names = sorted(path.name for path in Path(options['folder_path']).iterdir())
        asked.append((options['repo_id'], names))
        return SimpleNamespace(repo_url='https://hub/user/name', oid=COMMIT)

    monkeypatch.setattr('huggingface_hub.HfApi.create_repo', create_repo)
    monkeypatch.setattr('huggingface_hub.HfApi.upload_folder', upload_folder)
    monkeypatch.setattr('torchgeo_ctm.publish._export', copy_onnx)
    monkeypatch.chdir(tmp_path)
    status, out, _ = run('publish', CHECKPOINT, '--repo', 'hf:user/name', '--private')
    assert status == 0
    assert asked == [
        ('user/name', {'private': True, 'exist_ok': True}),
        ('user/name', FILES),
    ]
    assert out.splitlines()[:2] == [
        'https://hub/user/name',
        f'commit                {COMMIT}',
    ]
    assert not [*tmp_path.iterdir()]


def test_bad_input(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('torchgeo_ctm.publish._export', copy_onnx)
    (tmp_path / 'scores.json').write_text('{}')
    refused(run('publish', CHECKPOINT), 'Expected --folder DIR or --repo')
    refused(
        run('publish', CHECKPOINT, '--repo', 'name'), "'name', expected hf:USER/NAME"
    )
    wrong = run('publish', CHECKPOINT, '--folder', folder, '--license', 'CC BY 4.0')
    refused(wrong, "--license 'CC BY 4.0' is not", "Did you mean 'cc-by-4.0'?")
    refused(run('publish', CHECKPOINT, '--folder', folder), 'Pass --overwrite')
    assert run('publish', CHECKPOINT, '--folder', folder, '--overwrite')[0] == 0
    # a folder that is published again is the same
    assert run('publish', folder, '--folder', tmp_path / 'again')[0] == 0
    for name in ('config.json', 'model.safetensors'):
        assert (tmp_path / 'again' / name).read_bytes() == (folder / name).read_bytes()
    (folder / 'photo.jpg').touch()
    wrong = run('publish', CHECKPOINT, '--folder', folder, '--overwrite')
    refused(wrong, 'holds other files, such as photo.jpg')
    wrong = run(
        'publish',
        CHECKPOINT,
        '--folder',
        tmp_path / 'b',
        '--scores',
        tmp_path / 'scor.json',
    )
    refused(wrong, "Did you mean '", "scores.json'")
    assert not (tmp_path / 'b').exists()


def test_scores_of_another_model_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Path
) -> None:
    monkeypatch.setattr('torchgeo_ctm.publish._export', copy_onnx)
    mask, scores = tmp_path / 'mask.tif', tmp_path / 'scores.json'
    predict_scene(scene, CHECKPOINT, mask, accelerator='cpu', progress=False)
    assert run('evaluate', mask, mask, '--json', scores)[0] == 0
    given = ('publish', CHECKPOINT, '--folder', tmp_path / 'a', '--scores', scores)
    status, _, said = run(*given)
    assert status == 0 and 'another checkpoint' not in said
    content = json.loads(scores.read_text())
    scores.write_text(json.dumps(content | {'weights_sha256': '0' * 64}))
    status, _, said = run(*given, '--overwrite')
    assert status == 0
    assert 'scores.json was measured on a map of another checkpoint' in said


def test_damaged_folders(folder: Path, tmp_path: Path, scene: Path) -> None:
    def fails(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            predict_scene(scene, folder, tmp_path / 'mask.tif', progress=False)

    weights = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(weights[:-5])
    fails('model is damaged')
    (folder / 'model.safetensors').write_bytes(weights)
    (folder / 'config.json').write_text('{"hidden_size": 1}')
    fails('has no key checkpoint. It is of another program')
    (folder / 'config.json').unlink()
    torch.save({}, folder / 'last.ckpt')
    fails(r'expected a checkpoint \(.ckpt\) or a published model. Did you mean .*last')
