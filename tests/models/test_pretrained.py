from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tests.fakes.networks import SMALL, small
from torchgeo_ctm.errors import CheckpointError
from torchgeo_ctm.models.pretrained import plain_vit, start_from

BANDS = ['B02', 'B03', 'B04', 'B08']


def weights(**options: Any) -> dict[str, Tensor]:
    """The state dict of a timm vision transformer."""
    arguments = {key: SMALL[key] for key in SMALL if key != 'num_classes'}
    torch.manual_seed(5)
    model = timm.models.vision_transformer.VisionTransformer(
        **(arguments | {'num_classes': 0} | options)
    )
    state: dict[str, Tensor] = model.state_dict()
    return state


def test_blocks_and_patches_are_taken_over() -> None:
    model, state = small(), weights()
    offsets = model.cls_token.detach().clone()
    kept = start_from(model, plain_vit(state), BANDS)
    ours = model.state_dict()
    for name in state:
        if name not in ('cls_token', 'pos_embed'):
            assert torch.equal(ours[name], state[name]), name
    torch.testing.assert_close(ours['cls_token'], state['cls_token'] + offsets)
    assert not torch.equal(ours['cls_token'][:, 0], ours['cls_token'][:, 1])
    positions = ours['pos_embed']
    assert torch.equal(positions[:, 4:], state['pos_embed'][:, 1:])
    assert torch.equal(positions[:, :3], state['pos_embed'][:, :1].expand(-1, 3, -1))
    assert all(name.startswith(('head.', 'patch_head.', 'reg_token')) for name in kept)


def test_other_sizes_are_resampled() -> None:
    model = small(img_size=48, patch_size=4)
    start_from(model, plain_vit(weights()), BANDS)
    assert torch.isfinite(model(torch.rand(1, 4, 48, 48))).all()


def test_bands_are_matched_by_name() -> None:
    model, state = small(in_chans=3), weights()
    start_from(model, plain_vit(state, BANDS), ['B8', 'B02', 'B12'])
    source = state['patch_embed.proj.weight']
    ours = model.state_dict()['patch_embed.proj.weight']
    assert torch.equal(ours[:, 0], source[:, 3])
    assert torch.equal(ours[:, 1], source[:, 0])
    torch.testing.assert_close(ours[:, 2], source.mean(dim=1))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'embed_dim': 32}, 'width is 32'),
        ({'depth': 3}, 'not in the network, first: blocks.2'),
        ({'depth': 1}, 'missing from the weights, first: blocks.1'),
        ({'qkv_bias': False}, 'missing from the weights'),
        ({'mlp_ratio': 2}, 'of another shape'),
        ({'in_chans': 3}, 'take 3 bands'),
    ],
)
def test_a_mismatch_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        start_from(small(), plain_vit(weights(**options)), BANDS)


def test_something_else_is_an_error() -> None:
    with pytest.raises(CheckpointError, match='not a vision transformer'):
        plain_vit({'conv1.weight': torch.zeros(1)})
