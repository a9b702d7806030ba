from typing import Any

import pytest
import timm
import torch
from torchgeo.models import get_model

from tests.fakes.networks import small
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.models.registry import BUILDERS


@pytest.mark.parametrize('name', BUILDERS)
def test_registered_with_timm_and_torchgeo(name: str) -> None:
    patch = int(name.split('patch')[1].split('_')[0])
    side = 4 * patch
    options: dict[str, Any] = {'img_size': side, 'depth': 1, 'num_classes': 5}
    for create in (timm.create_model, get_model):
        model = create(name, **options)
        assert isinstance(model, ClassTokenViT)
        assert model.patch_size == patch
        assert model(torch.zeros(1, 13, side, side)).shape == (1, 5)


def test_no_pretrained_weights_are_invented() -> None:
    with pytest.raises(RuntimeError, match=r'[Nn]o pretrained weights'):
        timm.create_model('ctm_vit_tiny_patch16_224', pretrained=True)


def test_other_sizes_are_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match='Did you mean 32 × 24'):
        small()(torch.zeros(1, 4, 33, 21))


@pytest.mark.parametrize('options', [{'num_heads': 3}, {'head': 'mean'}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        small(**options)


@pytest.mark.parametrize('head_gates', [False, True])
def test_rows_are_those_of_the_whole_attention_matrix(head_gates: bool) -> None:
    model = small(head_gates=head_gates)
    attention: Any = model.blocks[0].attn
    x = torch.randn(2, 20, 16)
    out, rows = attention(x, num_rows=3)
    q, k, v = attention.qkv(x).reshape(2, 20, 3, 2, 8).permute(2, 0, 3, 1, 4)
    matrix = (q @ k.transpose(-2, -1) / 8**0.5).softmax(dim=-1)
    torch.testing.assert_close(rows, matrix.mean(dim=1)[:, :3])
    expected = (matrix @ v).transpose(1, 2).reshape(2, 20, 16)
    torch.testing.assert_close(out, attention.proj(expected))


def test_maps_do_not_change_the_logits() -> None:
    model, x = small(), torch.randn(2, 4, 32, 32)
    torch.testing.assert_close(model(x), model.forward_attention(x)[0])


@pytest.mark.parametrize('head', ['joint', 'token'])
def test_masked_tokens_are_zero_and_others_untouched(head: str) -> None:
    model, x = small(head=head), torch.randn(2, 4, 32, 32)
    drop = torch.tensor([[True, False, False], [False, False, False]])
    tokens, _ = model.forward_features(x)
    zeroed = tokens[:, :3].clone()
    zeroed[0, 0] = 0
    torch.testing.assert_close(model(x, drop), model.head(zeroed))
    _, plain, _ = model.forward_attention(x)
    _, masked, _ = model.forward_attention(x, drop=drop)
    assert torch.equal(plain, masked)


def test_a_token_head_sees_its_own_token_only() -> None:
    model = small(head='token')
    tokens = torch.randn(1, 3, 16, requires_grad=True)
    model.head(tokens)[0, 1].backward()
    assert tokens.grad is not None
    assert tokens.grad[0, 1].abs().sum() > 0
    assert tokens.grad[0, [0, 2]].abs().sum() == 0


def test_a_seed_repeats_the_weights() -> None:
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
