"""A network that started from weights has the patch tokens of where they come from."""

from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tests.fakes.vits import (
    PLAIN,
    copernicus_fm,
    copernicus_tokens,
    dofa,
    last_tokens,
    plain,
    published,
    randomized,
)
from torchgeo_ctm.errors import BandWarning, CheckpointError, SettingError
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.models.patch_kernels import FixedKernel
from torchgeo_ctm.models.pretrained import (
    PlainViT,
    load_patch_embedding,
    plain_vit,
    start_from,
)
from torchgeo_ctm.network.variants import build_network
from torchgeo_ctm.scaling import SENTINEL2_BANDS

#: Wavelengths (µm) and bandwidths (nm) of bands as DOFA and Copernicus-FM give them.
S2 = {'B02': (0.49, 65), 'B03': (0.56, 35), 'B04': (0.665, 30), 'B08': (0.842, 115),
      'B8A': (0.86, 20), 'B11': (1.61, 90), 'B12': (2.19, 180)}  # fmt: skip


def started(vit: PlainViT, bands: list[str], **options: Any) -> ClassTokenViT:
    """Return a network of one class whose token is the CLS token."""
    name, sizes = vit.sizes()
    size: dict[str, Any] = sizes | vit.details(vit.kernel.patch_size)
    model = build_network(
        name,
        **{'num_classes': 1, 'in_chans': len(bands), 'reg_tokens': 0, 'img_size': 64}
        | size
        | options,
    ).eval()
    torch.nn.init.zeros_(model.cls_token)
    start_from(model, vit, bands)
    return model


def tokens(model: ClassTokenViT, image: Tensor) -> Tensor:
    """Return the network's patch tokens after the last block."""
    return last_tokens(
        model,
        model.blocks,
        lambda: model.forward_features(image),
        model.num_prefix_tokens,
    )


@pytest.mark.parametrize('name', PLAIN)
def test_patch_tokens_are_those_of_the_plain_vit(name: str) -> None:
    source: Any = plain(name)
    _, options, registers = PLAIN[name]
    image = torch.rand(2, 13, options['img_size'], options['img_size'])
    theirs = last_tokens(
        source, source.blocks, lambda: source.forward_features(image), 1 + registers
    )
    vit = plain_vit(published(source), SENTINEL2_BANDS)
    model = started(vit, list(SENTINEL2_BANDS), img_size=options['img_size'])
    ours = tokens(model, image)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    # the last norm is the source's, too
    torch.testing.assert_close(model.norm(ours), source.norm(theirs), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    'bands',
    [['B04', 'B03', 'B02'], list(S2), ['VV', 'VH', 'B04']],
    ids=lambda bands: ','.join(bands),
)
def test_patch_tokens_are_those_of_dofa(bands: list[str]) -> None:
    source = dofa()
    image = torch.rand(2, len(bands), 64, 64)
    # TorchGeo: radar is given as 3.75
    waves = [S2[band][0] if band in S2 else 3.75 for band in bands]
    theirs = last_tokens(source, source.blocks, lambda: source(image, waves), 1)
    ours = tokens(started(plain_vit(published(source)), bands), image)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    'bands', [['B04', 'B03', 'B02'], list(S2)], ids=lambda bands: ','.join(bands)
)
def test_patch_tokens_are_those_of_copernicus_fm(bands: list[str]) -> None:
    source = copernicus_fm()
    image = torch.rand(2, len(bands), 64, 64)
    centers = [1000 * S2[band][0] for band in bands]
    theirs = copernicus_tokens(source, image, centers, [S2[b][1] for b in bands])
    ours = tokens(started(plain_vit(published(source)), bands), image)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_bands_of_other_sensors_and_given_wavelengths() -> None:
    source = dofa()
    image = torch.rand(1, 4, 64, 64)
    for bands, given, waves in (
        (['SR_B2', 'SR_B3', 'SR_B4', 'SR_B5'], None, [0.482, 0.561, 0.655, 0.865]),
        (['R', 'G', 'B', 'NIR'], None, [0.635, 0.555, 0.465, 0.865]),
        (['red', 'green', 'blue', 'swir'], {'swir': 1.6}, [0.665, 0.565, 0.49, 1.6]),
    ):
        theirs = last_tokens(source, source.blocks, partial(source, image, waves), 1)
        vit = plain_vit(published(source), wavelengths=given)
        ours = tokens(started(vit, bands), image)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_unknown_wavelengths_are_refused() -> None:
    vit = plain_vit(published(dofa()))
    with pytest.raises(
        SettingError, match=r"of band 'thermal' is unknown\. Set model_options: "
    ):
        vit.kernel.for_bands(['B04', 'thermal'])
    vit = plain_vit(published(dofa()), wavelengths={'thermal': 10_900})
    with pytest.raises(SettingError, match=r'0\.1 to 100 micrometers, got 10900'):
        vit.kernel.for_bands(['B04', 'thermal'])
    given: Any = {'thermal': 'infrared'}
    with pytest.raises(SettingError, match="micrometers, got 'infrared'"):
        plain_vit(published(dofa()), wavelengths=given).kernel.for_bands(['thermal'])
    vit = plain_vit(published(dofa()), wavelengths={'termal': 10.9})
    with pytest.raises(SettingError, match="Did you mean 'thermal'"):
        vit.kernel.for_bands(['B04', 'thermal'])


def test_sizes_come_from_the_weights() -> None:
    assert plain_vit(published(plain('vit_small_patch14_dinov2'))).sizes() == (
        'ctm_vit_small_patch16_224',
        {'depth': 2, 'patch_size': 14},
    )
    whole = timm.create_model('vit_tiny_patch16_224', num_classes=0)
    assert plain_vit(whole.state_dict()).sizes() == ('ctm_vit_tiny_patch16_224', {})


def test_band_names_can_change_after_the_start() -> None:
    vit = plain_vit(published(plain('vit_small_patch16')), SENTINEL2_BANDS)
    model = started(vit, ['B02', 'B03'])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_patch_embedding(model, vit.kernel, ['B03', 'B02'])
    name = 'patch_embed.proj.weight'
    after = model.state_dict()
    assert torch.equal(after[name], before[name].flip(1))
    assert all(torch.equal(after[key], before[key]) for key in after if key != name)


def test_missing_bands_are_said_and_none_is_an_error() -> None:
    vit = plain_vit(published(plain('vit_small_patch16', 3)), ['B2', 'B3', 'B4'])
    with pytest.warns(BandWarning, match='do not have B08: .* Not used: B2, B4'):
        vit.kernel.for_bands(['B03', 'B08'])
    with pytest.raises(CheckpointError, match='B2, B3, B4, the network VV, VH: they s'):
        vit.kernel.for_bands(['VV', 'VH'])


def test_a_second_weight_adds_its_columns() -> None:
    first = FixedKernel(torch.rand(4, 2, 8, 8), torch.rand(4), ['B2', 'B3'])
    second = FixedKernel(torch.rand(4, 3, 8, 8), torch.rand(4), ['VV', 'VH', 'B3'])
    weight, bias = first.joined(second).for_bands(['VH', 'B03', 'B02'])
    assert torch.equal(weight[:, 0], second.weight[:, 1])
    assert torch.equal(weight[:, 1:], first.weight.flip(1))
    assert torch.equal(bias, first.bias)
    other = FixedKernel(torch.rand(8, 2, 8, 8), torch.rand(8), ['VV', 'VH'])
    with pytest.raises(
        CheckpointError, match=r'width 4 .* cannot be joined with width 8'
    ):
        first.joined(other)
    with pytest.raises(CheckpointError, match='which are unknown'):
        first.joined(FixedKernel(second.weight, second.bias, None))


@pytest.mark.skipif(
    'vit_small_patch16_dinov3' not in timm.list_models('*dinov3'),
    reason='timm 1.0.12 has no DINOv3',
)
def test_rotary_positions_are_refused_in_one_line() -> None:
    rotary = timm.create_model('vit_small_patch16_dinov3', depth=1, num_classes=0)
    with pytest.raises(CheckpointError, match='rotary position embedding'):
        plain_vit(rotary.state_dict())


def test_other_architectures_are_refused_in_one_line() -> None:
    resnet = timm.create_model('resnet18', num_classes=0)
    with pytest.raises(
        CheckpointError, match=r'cls_token, pos_embed, .* has bn1, conv1'
    ):
        plain_vit(resnet.state_dict())
    swin = timm.create_model('swin_tiny_patch4_window7_224', num_classes=0)
    with pytest.raises(CheckpointError, match='not a vision transformer'):
        plain_vit(swin.state_dict())
    state = published(randomized(timm.create_model('vit_tiny_patch16_224', depth=1)))
    state['pos_embed'] = state['pos_embed'][:, :99]
    with pytest.raises(CheckpointError, match='99 position embeddings'):
        plain_vit(state)
