import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchgeo.models import ViTSmall16_Weights

from tests.conftest import save_task, tiny_task
from tests.fakes.vits import dofa, plain, published
from torchgeo_ctm.errors import BandWarning, CheckpointError, SettingError
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task


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


OLI = [f'B{number}' for number in range(1, 12)]


@pytest.mark.parametrize('prefix', ['', 'L8_', 'SR_'])
def test_bands_of_landsat_by_any_of_their_names(tmp_path: Path, prefix: str) -> None:
    weight = ViTSmall16_Weights.LANDSAT_OLI_TIRS_TOA_MOCO
    path = tmp_path / weight.url.rpartition('/')[2]
    source = timm.create_model('vit_small_patch16_224', in_chans=11, num_classes=0)
    torch.save(source.state_dict(), path)
    bands = [f'{prefix}B{number}' for number in (5, 4, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        task = small_task(weights=str(path), bands=bands, in_channels=3, scaling=None)
    kernels = source.state_dict()['patch_embed.proj.weight']
    ours = task.model.state_dict()['patch_embed.proj.weight']
    assert torch.equal(ours, kernels[:, [4, 3, 2]])


@pytest.mark.parametrize('bands', [OLI, OLI[1:7]])
def test_names_that_are_rather_landsats(tmp_path: Path, bands: list[str]) -> None:
    path = tmp_path / 'dofa.pth'
    torch.save(published(dofa()), path)
    with pytest.warns(BandWarning, match='taken for the bands of Sentinel-2. If'):
        ClassTokenMaskingTask(
            weights=str(path),
            num_classes=2,
            img_size=64,
            in_channels=len(bands),
            bands=bands,
            scaling=None,
        )


def test_a_file_with_a_timm_state_dict(tmp_path: Path) -> None:
    source = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=5)
    path = tmp_path / 'vit.pth'
    torch.save({'state_dict': source.state_dict()}, path)
    task = small_task(weights=str(path))
    name = 'blocks.0.mlp.fc1.bias'
    assert torch.equal(task.model.state_dict()[name], source.state_dict()[name])


def test_sizes_come_from_the_weights(tmp_path: Path) -> None:
    """Without a name the network is as large as the weights, also from a checkpoint."""
    source: Any = plain('vit_small_patch14_reg4_dinov2')
    path = tmp_path / 'dinov2.pth'
    torch.save(published(source), path)
    task = ClassTokenMaskingTask(weights=str(path), num_classes=2, img_size=56)
    assert (task.model.patch_size, len(task.model.blocks)) == (14, 2)
    assert torch.equal(task.model.reg_token, source.reg_token)
    again = load_task(save_task(task, tmp_path / 'task.ckpt'))
    image = torch.rand(1, 13, 56, 56)
    assert torch.equal(again.eval()(image), task.eval()(image))


def test_dofa_starts_with_any_bands(tmp_path: Path) -> None:
    path = tmp_path / 'dofa.pth'
    torch.save(published(dofa()), path)
    bands = ['red', 'nir', 'thermal']
    arguments: dict[str, Any] = {
        'weights': str(path), 'num_classes': 2, 'img_size': 64, 'in_channels': 3,
        'bands': bands, 'scaling': None,
    }  # fmt: skip
    with pytest.raises(SettingError, match="band 'thermal' is unknown"):
        ClassTokenMaskingTask(**arguments)
    given = {'wavelengths': {'thermal': 10.9}}
    task = ClassTokenMaskingTask(**arguments, model_options=given)
    assert task.hparams['model_options']['patch_padding'] == 1
    again = load_task(save_task(task, tmp_path / 'task.ckpt'))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.eval()(image), task.eval()(image))


def test_radar_columns_come_from_a_second_weight(tmp_path: Path) -> None:
    """Files under their published names have the bands that TorchGeo says."""
    files = []
    for kind, bands in (('B13', 13), ('B2', 2)):
        source = timm.create_model('vit_small_patch16_224', in_chans=bands, depth=1)
        files.append(tmp_path / f'{kind}_vits16_mae_ep99_enc.pth')
        torch.save(source.state_dict(), files[-1])
    task = ClassTokenMaskingTask(
        weights=[str(path) for path in files],
        num_classes=2,
        img_size=32,
        in_channels=3,
        bands=['VH', 'B04', 'VV'],
        scaling=None,
    )
    ours = task.model.state_dict()['patch_embed.proj.weight']
    first, second = (torch.load(p)['patch_embed.proj.weight'] for p in files)
    assert torch.equal(ours, torch.stack([second[:, 1], first[:, 3], second[:, 0]], 1))
    with pytest.raises(SettingError, match='empty list'):
        small_task(weights=[])
    torch.save(published(dofa()), tmp_path / 'dofa.pth')
    with pytest.raises(SettingError, match='cannot be joined: only plain'):
        small_task(weights=[str(files[0]), str(tmp_path / 'dofa.pth')])


def test_band_names_that_come_late_do_not_start_again(tmp_path: Path) -> None:
    path = tmp_path / 'B13_vits16_mae_ep99_enc.pth'
    torch.save(
        timm.create_model('vit_small_patch16_224', in_chans=13).state_dict(), path
    )
    task = small_task(weights=str(path))
    before = task.model.cls_token.clone()
    task._name_bands(list(reversed(SENTINEL2_BANDS)))
    assert torch.equal(task.model.cls_token, before)


def test_offline_and_damaged_downloads_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    weight = ViTSmall16_Weights.SENTINEL2_ALL_DINO
    monkeypatch.setattr(weight.value, 'url', 'http://127.0.0.1:9/vit.pth')
    folder = tmp_path / 'hub' / 'checkpoints'
    with pytest.raises(CheckpointError) as caught:
        small_task(weights=weight)
    message = str(caught.value)
    assert message.startswith(f'vit.pth of {weight} cannot be downloaded: ')
    assert message.endswith(f'put it into {folder}.')
    assert '\n' not in message
    source = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=0)
    torch.save(source.state_dict(), folder / 'vit.pth')
    small_task(weights=weight)
    content = (folder / 'vit.pth').read_bytes()
    (folder / 'vit.pth').write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=r'vit\.pth of .* is damaged or cut short'
    ):
        small_task(weights=weight)


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
    landsat = tmp_path / 'vit_landsat_toa.pth'
    source = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=0)
    torch.save(source.state_dict(), landsat)
    with pytest.raises(CheckpointError, match='bands of Landsat, but B01, B02'):
        small_task(weights=str(landsat))
    with pytest.raises(SettingError, match='See torchgeo-ctm weights'):
        small_task(weights='ResNet18_Weights.SENTINEL2_ALL_MOCO')
    resnet = tmp_path / 'resnet.pth'
    torch.save(timm.create_model('resnet18').state_dict(), resnet)
    with pytest.raises(CheckpointError, match=r'resnet\.pth: not a vision transformer'):
        small_task(weights=str(resnet))
