import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchgeo.models import ViTSmall16_Weights

from tests.conftest import save_task, tiny_task
from torchgeo_ctm.errors import CheckpointError, SettingError
from torchgeo_ctm.trainers import ClassTokenMaskingTask


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def small_task(**arguments: Any) -> ClassTokenMaskingTask:
    return ClassTokenMaskingTask(
        model='ctm_vit_small_patch16_224', num_classes=2, img_size=32, **arguments
    )


@pytest.mark.parametrize('as_name', [True, False])
def test_torchgeo_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_name: bool
) -> None:
    """The real download code, from a file in the layout of TorchGeo's hub."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    source = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=0)
    torch.save(source.state_dict(), tmp_path / 'vit.pth')
    weight = ViTSmall16_Weights.SENTINEL2_ALL_DINO
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/vit.pth'
        monkeypatch.setattr(weight.value, 'url', url)
        task = small_task(weights=str(weight) if as_name else weight)
        server.shutdown()
    ours, theirs = task.model.state_dict(), source.state_dict()
    name = 'blocks.7.attn.qkv.weight'
    assert torch.equal(ours[name], theirs[name])
    name = 'patch_embed.proj.weight'
    assert torch.equal(ours[name], theirs[name])
    assert 'weights' not in task.hparams


def test_a_file_with_a_timm_state_dict(tmp_path: Path) -> None:
    source = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=5)
    path = tmp_path / 'vit.pth'
    torch.save({'state_dict': source.state_dict()}, path)
    task = small_task(weights=str(path))
    name = 'blocks.0.mlp.fc1.bias'
    assert torch.equal(task.model.state_dict()[name], source.state_dict()[name])


def test_what_cannot_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"Did you mean 'ViTSmall16_Weights\.SENTINEL2_ALL"
    ):
        small_task(weights='ViTSmall16_Weights.SENTINEL2_ALL_DIN')
    other = save_task(tiny_task(), tmp_path / 'tiny.ckpt')
    with pytest.raises(CheckpointError, match='does not fit the network'):
        small_task(weights=str(other))
    text = tmp_path / 'text.pth'
    text.write_text('no weights')
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        small_task(weights=str(text))
