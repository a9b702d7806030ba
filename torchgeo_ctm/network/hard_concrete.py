"""Hard-concrete gates: one learned switch for each attention head."""

import math

import torch
from torch import Tensor, nn

TEMPERATURE = 0.33
STRETCH = (-0.1, 1.1)


class HardConcreteGate(nn.Module):
    """One gate for each head of a block (METHOD, section 3).

    In training the gate is sampled from the hard-concrete distribution, in evaluation
    it is its deterministic value. The forward pass uses the hard value ``[z > 0.5]``,
    the backward pass the gradient of z (straight through).
    """

    def __init__(self, num_heads: int, initial_log_a: float = 2.0) -> None:
        """Create open gates.

        Args:
            num_heads: Number of heads of the block.
            initial_log_a: Starting value of the parameter; 2.0 is an open gate (0.96).
        """
        super().__init__()
        self.log_a = nn.Parameter(torch.full((num_heads,), initial_log_a))
        #: While False every gate is open, whatever its parameter says.
        self.active = True
        #: While True no gate is sampled: the decision stands, the weights adapt to it.
        self.settled = False

    def forward(self) -> Tensor:
        """Return the hard gates (num_heads,), each 0.0 or 1.0."""
        if not self.active:
            # the parameter stays part of the graph, so that plain ddp runs
            return torch.ones_like(self.log_a) + 0 * self.log_a
        if self.settled:
            return self.hard() + 0 * self.log_a
        soft = self._soft()
        hard = (soft > 0.5).to(soft.dtype)
        # the difference is exactly zero, so the value stays 0.0 or 1.0
        return hard + (soft - soft.detach())

    def settle(self) -> None:
        """Decide: move every gate to ±5, where nothing sways it, and stop sampling."""
        with torch.no_grad():
            self.log_a.copy_(10 * self.hard() - 5)
        self.settled = True

    def hard(self) -> Tensor:
        """Return the deterministic gates (num_heads,), each 0.0 or 1.0."""
        if not self.active:
            return torch.ones_like(self.log_a).detach()
        return (self.log_a.detach() > 0).to(self.log_a.dtype)

    def _soft(self) -> Tensor:
        """Return the stretched, clamped gate values z (num_heads,)."""
        if self.training:
            uniform = torch.rand_like(self.log_a).clamp(1e-6, 1 - 1e-6)
            logit = (uniform.log() - (1 - uniform).log() + self.log_a) / TEMPERATURE
        else:
            logit = self.log_a
        low, high = STRETCH
        return (logit.sigmoid() * (high - low) + low).clamp(0, 1)

    def open_probability(self) -> Tensor:
        """Return the probability (num_heads,) that each gate is not zero."""
        low, high = STRETCH
        shifted = self.log_a - TEMPERATURE * math.log(-low / high)
        return shifted.sigmoid().clamp(1e-6, 1 - 1e-6)
