"""The linear layer of the blocks: ``nn.Linear``, through oneDNN on a processor."""

from typing import Any

import torch
from torch import Tensor, nn

#: ``nn.Linear`` multiplies float32 with MKL, which on AMD processors takes twice as
#: long as oneDNN. This is oneDNN's operator: PyTorch's own, but not a public one, so it
#: may be missing; None then, and where MKL is not what it would replace.
_ONEDNN: Any = (
    getattr(torch.ops.mkldnn, '_linear_pointwise', None)
    if torch._C.has_mkl and torch._C._has_mkldnn
    else None
)


def count_operations() -> None:
    """Let PyTorch's ``FlopCounterMode`` count the operations of the layer.

    Not at import: the counter imports Triton.
    """
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    if _ONEDNN is not None and _ONEDNN not in flop_registry:
        register_flop_formula(_ONEDNN)(_operations)


def _operations(x: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    """Return the operations of one call from its shapes (..., D) and (E, D)."""
    return 2 * int(torch.Size(x).numel()) * int(weight[0])


class Projection(nn.Linear):
    """``nn.Linear``: same parameters, same numbers but for rounding, faster on AMD.

    Training, autocast, export, compilation and other devices take PyTorch's own way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if self.weight.numel() and _inference_on_cpu(input, self.weight):
            result: Tensor = _ONEDNN(input, self.weight, self.bias, 'none', [], '')
            return result
        return super().forward(input)


def _inference_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN may multiply: plain float32, nothing recorded."""
    return (
        _ONEDNN is not None
        and not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and x.device.type == weight.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
    )
