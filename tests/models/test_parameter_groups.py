import pytest

from tests.fakes.networks import small
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.models.parameter_groups import freeze, parameter_groups


@pytest.mark.parametrize('layer_decay', [None, 0.5])
@pytest.mark.parametrize('head_gates', [True, False])
def test_every_parameter_is_in_one_group(
    layer_decay: float | None, head_gates: bool
) -> None:
    model = small(head_gates=head_gates)
    groups = parameter_groups(model, 1e-3, 0.05, layer_decay, 0.1)
    listed = [id(p) for group in groups for p in group['params']]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    rate = {id(p): group['lr'] for group in groups for p in group['params']}
    decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        exempt = parameter.ndim == 1 or name in {'cls_token', 'reg_token', 'pos_embed'}
        assert decay[id(parameter)] == (0 if exempt else 0.05), name
        if 'log_a' in name:
            assert rate[id(parameter)] == 0.1
        elif layer_decay is None:
            assert rate[id(parameter)] == 1e-3
    if layer_decay is not None:
        top = rate[id(named['head.fc.weight'])]
        last = rate[id(named['blocks.1.mlp.fc1.weight'])]
        first = rate[id(named['blocks.0.mlp.fc1.weight'])]
        stem = rate[id(named['cls_token'])]
        assert top == 1e-3
        assert top >= last > first > stem
        assert first == pytest.approx(last / 2)
        assert stem == pytest.approx(first / 2)


def test_heads_have_a_rate_of_their_own() -> None:
    model = small(patch_head='local')
    groups = parameter_groups(model, 1e-3, 0.05, 0.5, head_lr=0.02)
    rate = {id(p): group['lr'] for group in groups for p in group['params']}
    for name, parameter in model.named_parameters():
        is_head = name.startswith(('head.', 'local_head.'))
        assert (rate[id(parameter)] == 0.02) == is_head, name
    assert len(rate) == sum(1 for _ in model.parameters())


def test_frozen_blocks_do_not_learn() -> None:
    model = small(head_gates=True)
    freeze(model, 1)
    groups = parameter_groups(model, 1e-3, 0.05)
    listed = {id(p) for group in groups for p in group['params']}
    for name, parameter in model.named_parameters():
        still = name.startswith(('patch_embed.', 'pos_embed', 'blocks.0.'))
        assert (id(parameter) in listed) == (not still or 'gate' in name), name
    for count in (-1, 3):
        with pytest.raises(SettingError, match=f'must be 0 to 2, .* got {count}'):
            freeze(model, count)
