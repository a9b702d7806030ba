"""What holds for every registered network, and for every option of one."""

import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.models.registry import BUILDERS

OPTIONS: list[dict[str, Any]] = [
    {'head': 'token'},
    {'final_norm': False},
    {'patch_head': False},
    {'reg_tokens': 0},
    {'reg_tokens': 3},
    {'head_gates': True},
    {'kept_heads': [1, 2]},
    {'kept_heads': [0, 3]},
    {'kept_heads': [3, 0]},
    {'qkv_bias': False},
    {'norm_eps': 1e-5},
    {'mlp_ratio': 2.0},
    {'img_size': (32, 64)},
    {'patch_padding': 1},
]
#: Sides of the images below are multiples of 16 px; those of patches of 14 px differ
#: from others by their size alone.
CASES: list[tuple[str, dict[str, Any]]] = [
    (name, {}) for name in BUILDERS if 'patch14' not in name
] + [('ctm_vit_tiny_patch8_224', option) for option in OPTIONS]


def build(name: str, options: dict[str, Any]) -> ClassTokenViT:
    torch.manual_seed(0)
    sizes = {'img_size': 32, 'depth': 2, 'num_classes': 3, 'in_chans': 4}
    if 'large' in name:
        # the contract does not depend on the width
        sizes |= {'embed_dim': 64, 'num_heads': 4}
    return BUILDERS[name](**(sizes | options)).eval()


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A registered name and the options it is built with."""
    found: tuple[str, dict[str, Any]] = request.param
    return found


@pytest.fixture
def model(case: tuple[str, dict[str, Any]]) -> ClassTokenViT:
    """The network of a case."""
    return build(*case)


class WithMaps(nn.Module):
    """The network as an exporter sees it: one forward, all outputs."""

    def __init__(self, model: ClassTokenViT, patches: bool = True) -> None:
        super().__init__()
        self.model = model
        self.patches = patches

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.model.forward_attention(x, patches=self.patches)


@pytest.mark.parametrize('size', [(32, 32), (16, 48), (64, 32), (16, 16)])
def test_shapes_and_finite_numbers(model: ClassTokenViT, size: tuple[int, int]) -> None:
    grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    with torch.no_grad():
        logits, attention, patches = model.forward_attention(torch.randn(2, 4, *size))
    assert logits.shape == (2, 3)
    assert attention.shape == (2, 2, 3, *grid)
    assert attention.dtype == torch.float32
    assert (attention >= 0).all()
    assert (attention.sum(dim=(-2, -1)) <= 1 + 1e-5).all()
    outputs = [logits, attention]
    if model.patch_head is not None:
        assert patches is not None
        assert patches.shape == (2, 3, *grid)
        outputs.append(patches)
    assert all(torch.isfinite(output).all() for output in outputs)


def test_every_parameter_has_a_gradient(model: ClassTokenViT) -> None:
    """Plain ddp needs one in each: so none is left over, none is cut off."""
    model.train()
    logits, patches = model.forward_logits(torch.randn(4, 4, 32, 32))
    loss = logits.square().sum()
    if patches is not None:
        loss = loss + patches.square().sum()
    torch.autograd.backward(loss)
    empty = [i for i, attn in enumerate(model.attentions) if not attn.num_heads]
    idle = {f'blocks.{i}.norm1.{kind}' for i in empty for kind in ('weight', 'bias')}
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            continue
        assert parameter.grad is not None, name
        # in the graph, but nothing to learn: a gate far from its switch (the penalty
        # moves it), and the norm before an attention without heads
        still = 'log_a' in name or name in idle
        assert still or parameter.grad.abs().sum() > 0, name


def test_saved_and_loaded(
    model: ClassTokenViT, case: tuple[str, dict[str, Any]]
) -> None:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = build(*case)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(
            model.forward_attention(x), other.forward_attention(x), strict=True
        ):
            assert ours is theirs is None or torch.equal(ours, theirs)  # type: ignore[arg-type]


CLOSE: dict[str, Any] = {'atol': 1e-5, 'rtol': 0}


def spread(model: ClassTokenViT) -> ClassTokenViT:
    """Make attention differ from token to token, biases differ from zero."""
    for attn in model.attentions:
        nn.init.normal_(attn.qkv.weight, std=1.5 * attn.qkv.in_features**-0.5)
        if attn.qkv.bias is not None:
            nn.init.normal_(attn.qkv.bias)
        if attn.gate is not None:
            attn.gate.log_a.data[0] = -5
    return model


@pytest.mark.parametrize('gated', [True, False])
@pytest.mark.parametrize('recorded', [True, False])
@torch.no_grad()
def test_without_patches_the_rest_stays(
    model: ClassTokenViT, gated: bool, recorded: bool
) -> None:
    x, drop = torch.randn(2, 4, 32, 48), torch.tensor([[True, False, False]] * 2)
    spread(model)
    with torch.set_grad_enabled(recorded):
        logits, attention, _ = model.forward_attention(x, gated, drop)
        ours = model.forward_attention(x, gated, drop, patches=False)
        torch.testing.assert_close(model(x, drop), logits, **CLOSE)
    assert ours[2] is None
    torch.testing.assert_close(ours[:2], (logits, attention), **CLOSE)
    model.remove_pruned_heads()
    removed = model.forward_attention(x, gated, drop, patches=False)
    torch.testing.assert_close(removed[0], logits, **CLOSE)
    if gated:
        torch.testing.assert_close(removed[1], attention, **CLOSE)


@pytest.mark.parametrize('checkpointing', [True, False])
def test_gradients_without_patches(model: ClassTokenViT, checkpointing: bool) -> None:
    model.set_grad_checkpointing(checkpointing)
    spread(model).train()
    for gate in model.gates:
        gate.settled = True  # nothing is sampled, so that both see the same gates
    x, gradients = torch.randn(2, 4, 32, 32), []
    for patches in (True, False):
        model.zero_grad()
        logits, attention, _ = model.forward_attention(x, patches=patches)
        loss = logits.square().sum() + attention.square().sum()
        torch.autograd.backward(loss)
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, full in gradients[0].items():
        # a layer of a block without heads has neither weights nor a gradient
        if not name.startswith('patch_head') and full is not None and full.numel():
            short = gradients[1][name]
            assert short is not None, name
            # from zero to hundreds: close in comparison with the largest
            tolerance = 1e-5 * max(1.0, float(full.abs().max()))
            torch.testing.assert_close(short, full, atol=tolerance, rtol=1e-4)


def test_wrapped_layers_are_called(model: ClassTokenViT) -> None:
    """An adapter's or a quantised layer's weight is not all that it does."""
    spread(model)
    for attn in model.attentions:
        attn.qkv = nn.Sequential(attn.qkv, nn.Tanh())  # type: ignore[assignment]
    x = torch.randn(2, 4, 32, 32)
    full = model.forward_attention(x)[:2]
    torch.testing.assert_close(
        model.forward_attention(x, patches=False)[:2], full, **CLOSE
    )


def test_no_warning_about_empty_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build('ctm_vit_tiny_patch8_224', {'kept_heads': [0, 3]})


@pytest.mark.parametrize('patches', [True, False])
def test_autocast_bfloat16_stays_close(model: ClassTokenViT, patches: bool) -> None:
    x = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        logits, attention, _ = model.forward_attention(x)
        with torch.autocast('cpu', torch.bfloat16):
            half, half_attention, _ = model.forward_attention(x, patches=patches)
    assert half_attention.dtype == torch.float32
    torch.testing.assert_close(half.float(), logits, atol=0.05, rtol=0)
    torch.testing.assert_close(half_attention, attention, atol=2e-3, rtol=0)


@pytest.mark.parametrize('recorded', [True, False])
@pytest.mark.parametrize('patches', [True, False])
@torch.no_grad()
def test_torch_export(model: ClassTokenViT, patches: bool, recorded: bool) -> None:
    x = torch.randn(2, 4, 32, 32)
    with torch.set_grad_enabled(recorded):
        network = WithMaps(model, patches).eval()
        exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))
