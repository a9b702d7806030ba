import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torchgeo_ctm.network.linear import Projection

SHAPES = [(5, 7), (2, 3, 5, 7), (1, 7), (0, 4, 7)]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_numbers_are_those_of_a_linear_layer(
    shape: tuple[int, ...], bias: bool
) -> None:
    layer, plain = Projection(7, 6, bias), nn.Linear(7, 6, bias)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(shape)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(layer(x), plain(x), atol=1e-6, rtol=1e-6)
            strided = torch.randn(*shape[:-1], 12)[..., 2:9]
            torch.testing.assert_close(layer(strided), plain(strided))


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_types_are_kept(dtype: torch.dtype) -> None:
    with torch.no_grad():
        assert Projection(7, 6).to(dtype)(torch.ones(2, 7, dtype=dtype)).dtype == dtype


def test_hooks_are_called() -> None:
    layer, seen = Projection(7, 6), []
    layer.register_forward_hook(lambda *_: seen.append(True))
    with torch.no_grad():
        layer(torch.ones(2, 7))
    assert seen == [True]


def test_operations_are_counted() -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Projection(7, 6)(torch.ones(2, 3, 7))
    assert counter.get_total_flops() == 2 * 2 * 3 * 7 * 6
